"""The head of a response (RFC 9112, 4 and 5): status line and header fields as bytes."""

import re
from functools import lru_cache
from http import HTTPStatus

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in HTTPStatus if status >= 200
}


def status_line(status: int) -> bytes:
    """Return the status line of a status without a phrase in `STATUS_LINES`.

    Raises `RuntimeError` if the status is not that of a final response (RFC 9110, 15), such as 100.
    """
    if not 200 <= status <= 999:
        raise RuntimeError(f"{status} is not the status of an answer")
    return b"HTTP/1.1 %d " % status


@lru_cache(maxsize=256)
def begin_field(name: bytes) -> tuple[bytes, bytes]:
    """Return the beginning of a header field with the line break before it, and its name if it concerns framing.

    The second value is empty for all other names. Raises `RuntimeError` for an invalid name. The result is cached since
    few names are in use, and checking a name takes as long as all other work on the head.
    """
    lowered = name.lower()
    if not _NAME.fullmatch(lowered):
        raise RuntimeError(f"{name!r} is not a header name")
    frames = lowered in (b"content-length", b"transfer-encoding", b"connection")
    return b"\r\n" + lowered + b": ", lowered if frames else b""
