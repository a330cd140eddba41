"""Names of files: checks for those that clients send, and the header `Content-Disposition` (RFC 6266) in both ways."""

import re
from urllib.parse import quote, unquote_to_bytes

DEFAULT = "file"
"""The name of a file whose client has sent none."""
MAX_NAME = 255
"""Bytes of UTF-8 that a name may have. File systems allow no longer ones, so a client could not save the file."""
MAX_DISPOSITION = 4096
"""Characters that a request's `Content-Disposition` may have."""

# Control characters, line separators, and characters that change the direction of text: with these, `gpj.exe` looks
# like `exe.jpg`.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_EXTENDED = re.compile(r";\s*filename\*\s*=\s*utf-8'[A-Za-z0-9-]*'([A-Za-z0-9!#$&+.^_`|~%-]*)", re.IGNORECASE)
_PLAIN = re.compile(r';\s*filename\s*=\s*(?:"((?:[^"\\]|\\.)*+)"|([^\s";]+))', re.IGNORECASE)
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 ._()-]")


class InvalidName(ValueError):
    """A file cannot have this name. The message says why, and does not quote the name."""


def checked_name(text: str) -> str:
    """Return the name of a file without folders. Raises `InvalidName` if it cannot be one.

    Clients of Windows separate folders with a backslash. An empty name becomes `DEFAULT`.
    """
    if _FORBIDDEN.search(text):
        raise InvalidName("it contains a control character, or one that changes the direction of text")
    name = text.replace("\\", "/").rpartition("/")[2].strip()
    if name in (".", ".."):
        raise InvalidName("it names a folder")
    if len(name.encode()) > MAX_NAME:
        raise InvalidName(f"it has more than {MAX_NAME} bytes")
    return name or DEFAULT


def name_in_disposition(header: str) -> str:
    """Return the name in a request's `Content-Disposition`; empty if there is none.

    `header` is decoded as Latin-1, as headers are. `filename*` takes precedence over `filename`, whose bytes are read
    as UTF-8. Raises `InvalidName` if the header is too long or the name is not UTF-8.
    """
    if len(header) > MAX_DISPOSITION:
        raise InvalidName(f"the header has more than {MAX_DISPOSITION} characters")
    try:
        if found := _EXTENDED.search(header):
            return unquote_to_bytes(found[1]).decode()
        if found := _PLAIN.search(header):
            text = re.sub(r"\\(.)", r"\1", found[1]) if found[2] is None else found[2]
            return text.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise InvalidName("it is not UTF-8") from None
    return ""


def disposition(name: str, *, inline: bool) -> str:
    """Return the `Content-Disposition` with which a file is sent. The name may be any text.

    Old clients read `filename`, in which other characters than letters, digits and a few more become `_`.
    """
    plain = _NOT_PLAIN.sub("_", name)
    kind = "inline" if inline else "attachment"
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='', errors='replace')}"
