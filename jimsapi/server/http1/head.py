"""What the head of a request may be (RFC 9112, 3 and 5), beside what the parser sees to."""

import re
from collections.abc import Iterable

import httptools

MAX_HEAD = 65_536
"""Bytes of a request's line and header fields, and of a body's framing: chunk sizes, extensions and trailers."""
MAX_FIELDS = 256
"""Header fields of a request: each takes about 150 bytes of memory, however short it is."""
MAX_HOST = 261
"""Bytes of a Host field: a domain name has at most 255, a port five and a colon."""

# A name by RFC 3986, 3.2.2, but without sub-delims and percent-encoding. No name in DNS has them. To another server a
# comma may separate two hosts, `%2f` may begin a path, and quotes may end a string.
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)


class Refused(Exception):
    """Raised while a head is read that must not be answered by the app. `status` is that of the answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def check_coding(value: bytes) -> None:
    """Refuse a Transfer-Encoding other than `chunked`: with 400 if it does not tell the body's end (RFC 9112, 6.3)."""
    codings = [coding.strip() for coding in value.lower().split(b",")]
    if codings != [b"chunked"]:
        raise Refused(501 if codings[-1] == b"chunked" else 400, "a Transfer-Encoding other than chunked")


def path_of(url: bytes) -> str:
    """The path of a target that was not read further, as it was sent."""
    return url.partition(b"?")[0].partition(b"#")[0].decode("ascii", "replace")


def authority(url: bytes) -> bytes:
    """The host and port of a target in absolute form (RFC 9112, 3.2.2). Raises `Refused` if it is something else."""
    found = _ABSOLUTE.match(url)
    if found is None or not HOST.fullmatch(found[1]):
        raise Refused(400, "a target that is neither a path nor a URL of HTTP")
    return found[1]


def with_host(headers: Iterable[tuple[bytes, bytes]], host: bytes) -> list[tuple[bytes, bytes]]:
    """Header fields with the Host of the target, which the one that was sent must not contradict (RFC 9112, 3.2.2)."""
    return [(b"host", host), *[field for field in headers if field[0] != b"host"]]


def fault_of(error: httptools.HttpParserError) -> tuple[int, str]:
    """The status for what cannot be read, and why. The reason is a fixed text: nothing of a request is in it."""
    cause = error.__context__
    if isinstance(cause, Refused):
        return cause.status, str(cause)
    if cause is not None:
        return 400, "a target beyond ASCII"
    reason = str(error)
    return 505 if reason == "Invalid HTTP version" else 400, reason
