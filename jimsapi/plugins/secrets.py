"""Secrets: values that are compared and used but never shown, and how they are read from files and URLs."""

import base64
import hashlib
import hmac
import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote, unquote_plus
from weakref import ref

SHORTEST_REDACTED = 4
"""Characters. Shorter secrets are not redacted: a text without any "a" would be unreadable, and reveal the secret."""

LONGEST_WORD = 12
"""Letters. A secret of at most this length may be part of other words, so it is redacted only as a whole word."""


class Secret:
    """A string that `repr` and `str` do not show, so that it does not get into logs and errors by accident.

    While the object exists, `redact` also replaces the string in other texts, such as an exception's.
    """

    __slots__ = ("__weakref__", "_digest", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        self._digest = _digest(value.encode("utf-8", "surrogateescape"))
        _live_secrets.add(ref(self, _live_secrets.discard))

    def reveal(self) -> str:
        """Return the secret as text, to send it to the service that it is for."""
        return self._value

    def matches(self, candidate: str) -> bool:
        """Return whether `candidate` equals the secret. The time does not depend on the secret or its length.

        ASGI servers decode headers as Latin-1, but clients send UTF-8, so `candidate` is compared in both encodings.
        """
        return matches_any((self,), candidate)

    def __repr__(self) -> str:
        return "Secret('…')"

    __str__ = __repr__

    def __reduce__(self) -> tuple[type["Secret"], tuple[str]]:
        return Secret, (self._value,)


_live_secrets: "set[ref[Secret]]" = set()
"""The secrets of all apps in this process: logs and tracebacks do not belong to one app."""


def redact(text: str) -> str:
    """Return `text` with `***` in place of each existing secret of at least `SHORTEST_REDACTED` characters.

    It finds a secret as it is, and as `repr`, JSON, URLs and Base64 encode it. It searches for every secret, which is
    too slow for each request; use it for errors.
    """
    encoded: set[str] = set()
    found: dict[str, re.Pattern[str]] = {}
    for reference in _live_secrets.copy():  # other threads may add to it, and the garbage collector may remove from it
        secret = reference()
        if secret is not None and len(secret.reveal()) >= SHORTEST_REDACTED:
            value = secret.reveal()
            found.update((form, _pattern(form)) for form in _forms(value) if form in text)
            encoded.update(part for part in _base64_parts(value) if part in text)
    for form in sorted(found, key=len, reverse=True):  # a secret may be a part of another
        text = found[form].sub("***", text)
    for part in encoded:  # the characters around the part contain the secret's first and last bits
        text = re.sub(rf"(?<![\w+/-])[\w+/-]*{re.escape(part)}[\w+/-]*={{0,2}}", "***", text)
    return text


def _forms(value: str) -> set[str]:
    """The forms of a secret in a text: as it is, in a URL, in JSON, and in the `repr` of a str or of bytes."""
    if value.isalnum() and value.isascii():
        return {value}
    data = value.encode("utf-8", "surrogateescape")
    forms = {value, quote(data), quote(data, safe=""), quote_plus(data)}
    forms.update(json.dumps(value, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False))
    for write in (repr, ascii):
        # Whether `repr` escapes an apostrophe depends on the rest of the text.
        parts = [write(part)[1:-1] for part in value.split("'")]
        forms.update(("'".join(parts), "\\'".join(parts)))
    parts = [repr(part)[2:-1] for part in data.split(b"'")]
    return forms | {"'".join(parts), "\\'".join(parts)}


def _pattern(form: str) -> re.Pattern[str]:
    """The pattern that `redact` replaces: every occurrence; for a short word, only whole words outside URL schemes.

    The password `postgres` must not make `postgresql://` or `jimsapi-postgres` unreadable. An escape sequence before a
    word is not a part of the word.
    """
    if len(form) > LONGEST_WORD or not (form.isascii() and form.isalpha()):
        return re.compile(re.escape(form))
    starts = r"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrt])|(?<=%[0-9A-Fa-f]{2}))"
    return re.compile(rf"{starts}{form}(?![A-Za-z0-9_-]|(?:\+\w+)?://)")


def _base64_parts(value: str) -> set[str]:
    """The characters that appear in every Base64 text that contains the secret, one part for each possible offset."""
    data = value.encode("utf-8", "surrogateescape")
    parts: set[str] = set()
    for before in range(3):  # bytes; 4 characters of Base64 are 3 bytes
        text = base64.b64encode(bytes(before) + data).decode()
        part = text[(before * 8 + 5) // 6 : (before + len(data)) * 8 // 6]
        parts.update((part, part.replace("+", "-").replace("/", "_")))
    return parts


def url_secrets(text: str) -> list[Secret]:
    """Return the secrets in a URL: its password, and the values of parameters with names such as `token`.

    `redact` replaces them as long as the caller keeps them. A text that is not a URL has none.
    """
    if "://" not in text:
        return []
    logins = re.findall(r"://([^/?#\s]*)@", text)
    found = [password for login in logins if (password := login.partition(":")[2])]
    if not logins:  # the password may contain / or ? or # that are not percent-encoded
        found = re.findall(r"://[^:/@\s]*:(.+)@", text)
    found += _SECRET_PARAMETER.findall(text)
    values = {*found, *(decode(raw, errors="surrogateescape") for raw in found for decode in (unquote, unquote_plus))}
    return [Secret(value) for value in sorted(values)]


_SECRET_PARAMETER = re.compile(r"[?&][^=&\s]*(?:password|passwd|pwd|secret|token|(?<!ssl)key)=([^&\s]+)", re.IGNORECASE)
"""Parameters whose value is a secret. `sslkey` is not one: its value is the path of a file."""


def matches_any(secrets: Iterable[Secret], candidate: str) -> bool:
    """Return whether `candidate` equals one of `secrets`, by the rules of `Secret.matches`.

    It compares all of them, so that the time does not reveal which one matched.
    """
    digests = _candidate_digests(candidate)
    found = False
    for secret in secrets:
        for digest in digests:
            found |= hmac.compare_digest(secret._digest, digest)
    return found


def _candidate_digests(candidate: str) -> tuple[bytes, ...]:
    if candidate.isascii():
        return (_digest(candidate.encode()),)
    as_text = _digest(candidate.encode("utf-8", "surrogatepass"))
    try:
        return as_text, _digest(candidate.encode("latin-1"))
    except UnicodeEncodeError:  # the text cannot be from a header
        return (as_text,)


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()


def read_plain_file(path: Path) -> tuple[bytes, os.stat_result]:
    """Return the content of a file, and its status before it was read.

    Raises `OSError` if it cannot be read, and `ValueError` if it is not a regular file: reading a pipe may block, and
    reading a device may never end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file, and could not be read again")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(), status
    finally:
        os.close(descriptor)


def secret_text(data: bytes) -> str:
    """Decode the content of a secret's file. Raises `ValueError` if it is not UTF-8; the message does not quote it."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None


def secret_lines(text: str) -> list[str]:
    """Return the secrets in the text of a file, one a line. Only line ends separate them.

    A line that begins with # is a comment. Operators disable a secret by putting # before it.
    """
    lines = (line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    return [line for line in lines if line and not line.startswith("#")]
