"""Files within the messages of other protocols."""

import binascii
import re
from base64 import b64decode
from mimetypes import guess_extension
from urllib.parse import unquote_to_bytes

from jimsapi.threads.message_files import SentFile

OCTETS = "application/octet-stream"
MOST_QUOTED = 65_536
"""Characters that a `data:` URL may have if it is not base64. To unquote many would take long, and much memory."""

_ESCAPED = re.compile("%(2[bB]|2[fF]|3[dD])")
_OWN_FILE = re.compile(r"(?:https?://[^/?#]+)?(?:/[^?#]*)?/api/v1/files/([A-Za-z0-9_-]{1,200})(?:\?contact_id=[^#&]*)?")


class NotAFile(ValueError):
    """A part of a message is no file that this server can take. The text says why, for the client."""


def file_of_url(url: str, name: str = "", kind: str = "") -> SentFile:
    """Return the file in a `data:` URL (RFC 2397). `kind` is its media type, empty if the protocol does not name it.

    Raises `NotAFile` for other URLs: a server that fetched what clients name would reach hosts that they cannot reach.
    """
    head, comma, data = url.partition(",")
    scheme, _, described = head.partition(":")
    if scheme.lower() != "data" or not comma:
        raise NotAFile("This server fetches no files: send the content of the file as a data: URL")
    declared, *parameters = described.split(";")
    is_base64 = bool(parameters) and parameters[-1].strip().lower() == "base64"
    return _named(name, kind or declared or "text/plain", _decode_base64(_plain(data)) if is_base64 else _unquote(data))


def named_file(url: str) -> str | None:
    """Return the identifier of a file of this server that a URL names, as `file_url` makes it; None for others.

    The URL may name the contact of the file, too: `?contact_id=…`.
    """
    found = _OWN_FILE.fullmatch(url)
    return None if found is None else found[1]


def file_of_base64(data: str, name: str = "", kind: str = "") -> SentFile:
    """Return the file whose content is `data` in base64. Raises `NotAFile`."""
    return _named(name, kind or OCTETS, _decode_base64(data))


def _named(name: str, kind: str, content: bytes) -> SentFile:
    """Return a file, with a name if the client has sent none."""
    return SentFile(name or f"file{guess_extension(kind) or ''}", kind, content)


def _plain(data: str) -> str:
    """Return base64 without the escapes of a URL."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), data) if "%" in data else data


def _unquote(data: str) -> bytes:
    """Return the content of a `data:` URL that is not base64. Raises `NotAFile` if it is long."""
    if len(data) > MOST_QUOTED:
        raise NotAFile("Send a file as base64: this data: URL is too long without it")
    return unquote_to_bytes(data)


def _decode_base64(data: str) -> bytes:
    """Decode base64 (RFC 4648). Raises `NotAFile`."""
    try:
        return b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise NotAFile("The content of the file is not base64") from None
