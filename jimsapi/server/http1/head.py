"""Checks of a request's head (RFC 9112, 3 and 5) that the parser omits."""

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

import httptools

MAX_HEAD = 65_536
"""Maximum bytes of a request's line and headers, and of a body's framing: chunk sizes, extensions and trailers."""
MAX_FIELDS = 256
"""Maximum number of header fields of a request. Each takes about 150 bytes of memory, however short it is."""
MAX_HOST = 261
"""Maximum bytes of a Host field: a domain name has at most 255, a port five and a colon."""

# A name by RFC 3986, 3.2.2, but without sub-delims and percent-encoding, which no name in DNS contains. Another server
# may read a comma as a separator of two hosts, `%2f` as the beginning of a path, and a quote as the end of a string.
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)


class Refused(Exception):
    """Raised for a head that the server rejects without calling the app. `status` is the status of the response."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def check_coding(value: bytes) -> None:
    """Check the value of a Transfer-Encoding field (RFC 9112, 6.3).

    Raises `Refused` for any value other than `chunked`: 501 if `chunked` is its last coding; else 400, since the end of
    the body is then unknown.
    """
    codings = [coding.strip() for coding in value.lower().split(b",")]
    if codings != [b"chunked"]:
        raise Refused(501 if codings[-1] == b"chunked" else 400, "a Transfer-Encoding other than chunked")


def path_of(url: bytes) -> str:
    """Return the path of a request target, as the client sent it."""
    return url.partition(b"?")[0].partition(b"#")[0].decode("ascii", "replace")


@lru_cache
def encoded_path(path: str) -> bytes:
    """Return a path as clients send it (RFC 3986, 2.1)."""
    return quote(path).encode()


def is_below(path: bytes, root: str) -> bool:
    """Return whether a path, as the client sent it, is `root` or begins with it and a slash.

    Clients may encode more characters than they have to. An encoded slash is a part of a name.
    """
    names = root.count("/") + 1
    return unquote_to_bytes(b"/".join(path.split(b"/", names)[:names])) == root.encode()


def authority(url: bytes) -> bytes:
    """Return the host and port of a target in absolute form (RFC 9112, 3.2.2). Raises `Refused` for other targets."""
    found = _ABSOLUTE.match(url)
    if found is None or not HOST.fullmatch(found[1]):
        raise Refused(400, "a target that is neither a path nor a URL of HTTP")
    return found[1]


def with_host(headers: Iterable[tuple[bytes, bytes]], host: bytes) -> list[tuple[bytes, bytes]]:
    """Return the fields with `host`, the target's host, in place of the Host field sent (RFC 9112, 3.2.2)."""
    return [(b"host", host), *[field for field in headers if field[0] != b"host"]]


def fault_of(error: httptools.HttpParserError) -> tuple[int, str]:
    """Return the status for a request that cannot be parsed, and the reason.

    The reason is a fixed text for the log. It contains no part of the request.
    """
    cause = error.__context__
    if isinstance(cause, Refused):
        return cause.status, str(cause)
    if cause is not None:
        return 400, "a target with characters outside ASCII"
    reason = str(error)
    return 505 if reason == "Invalid HTTP version" else 400, reason
