"""The head of an answer (RFC 9112, 4 and 5): status line and fields as bytes."""

import re
from functools import lru_cache
from http import HTTPStatus

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in HTTPStatus if status >= 200
}


def status_line(status: int) -> bytes:
    """One that Python does not know. Raises `RuntimeError` for what ends no exchange."""
    if not 200 <= status <= 999:
        raise RuntimeError(f"{status} is not the status of an answer")
    return b"HTTP/1.1 %d " % status


@lru_cache(maxsize=256)
def begin_field(name: bytes) -> tuple[bytes, bytes]:
    """How a header's field begins, line break included, and its name if it has to do with framing, else nothing.

    Raises `RuntimeError` for what is no name. Names are few; looking at each again would cost as much as all the rest.
    """
    lowered = name.lower()
    if not _NAME.fullmatch(lowered):
        raise RuntimeError(f"{name!r} is no name of a header")
    frames = lowered in (b"content-length", b"transfer-encoding", b"connection")
    return b"\r\n" + lowered + b": ", lowered if frames else b""
