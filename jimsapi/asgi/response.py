"""Responses with a body in memory."""

import re
from collections.abc import Mapping
from typing import Any

from msgspec import to_builtins
from orjson import OPT_UTC_Z, dumps

from .types import RawHeaders

JSON_TYPE = (b"content-type", b"application/json")
TEXT_TYPE = "text/plain; charset=utf-8"

# The `content-length` headers of short responses, by length.
_LENGTHS = [(b"content-length", str(length).encode()) for length in range(4096)]

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(r"[\r\n\0]")


class Response:
    """A response with a body in memory. `Content-Length` is added. 1xx, 204 and 304 have no body and no length.

    A text body is encoded as UTF-8. `content_type=None` omits the header. Raises `ValueError` for a header that HTTP
    cannot carry, such as a value with a line break, and for headers that follow from the body.

    One response may answer many requests, since sending does not change it.
    """

    __slots__ = ("body", "names_connection", "raw_headers", "status")

    body: bytes | None  # None: the body is a stream

    def __init__(
        self,
        body: bytes | str = b"",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = TEXT_TYPE,
    ) -> None:
        data = body.encode() if isinstance(body, str) else bytes(body)
        self._set(data, status, headers, None if content_type is None else header("content-type", content_type))

    def _set(
        self, body: bytes, status: int, headers: Mapping[str, str] | None, content_type: tuple[bytes, bytes] | None
    ) -> None:
        self.status = status
        self.names_connection = False
        if status in (204, 304) or status < 200:
            self.body = b""
            self.raw_headers: RawHeaders = []
        else:
            length = len(body)
            self.body = body
            self.raw_headers = [
                _LENGTHS[length] if length < 4096 else (b"content-length", str(length).encode()),
            ]
            if content_type is not None:
                self.raw_headers.append(content_type)
        if headers:
            self._add(headers)

    def _add(self, headers: Mapping[str, str]) -> None:
        for name, value in headers.items():
            pair = header(name, value)
            if pair[0] in (b"content-length", b"transfer-encoding"):
                raise ValueError(f"{name} follows from the body and cannot be set.")
            if pair[0] == b"content-type":
                self.raw_headers = [other for other in self.raw_headers if other[0] != b"content-type"]
            self.names_connection |= pair[0] == b"connection"
            self.raw_headers.append(pair)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status}>"


class JSONResponse(Response):
    """A JSON response. `value` may contain `msgspec.Struct`s and what orjson encodes: UUIDs, datetimes, dataclasses."""

    __slots__ = ()

    def __init__(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        body = dumps(value, default=to_builtins, option=OPT_UTC_Z)
        length = len(body)
        if status != 200 or length >= 4096:
            self._set(body, status, headers, JSON_TYPE)
            return
        # The same as `_set` for nearly all responses, without its conditions, which slow down small responses.
        self.status = status
        self.names_connection = False
        self.body = body
        self.raw_headers = [_LENGTHS[length], JSON_TYPE]
        if headers:
            self._add(headers)


class ErrorResponse(JSONResponse):
    """The response to an error: `{"detail": detail}`, with the fields of `more` added.

    `content` is that body as a dictionary. Protocols with their own error format read it.
    """

    __slots__ = ("content",)

    def __init__(self, detail: Any, status: int, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        self.content = {"detail": detail, **more}
        super().__init__(self.content, status, headers)


def header(name: str, value: str) -> tuple[bytes, bytes]:
    """Return a header in ASGI's form. Raises `ValueError` if HTTP cannot carry it."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a header name.")
    if _BAD_VALUE.search(value):
        raise ValueError(f"The value of the header {name} contains a line break or NUL.")
    try:
        return name.lower().encode(), value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"The value of the header {name} contains characters outside Latin-1.") from None
