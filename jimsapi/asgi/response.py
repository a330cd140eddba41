"""Responses with a body in memory."""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from msgspec import to_builtins
from orjson import OPT_UTC_Z, dumps

from .types import RawHeaders

JSON_TYPE = (b"content-type", b"application/json")
TEXT_TYPE = "text/plain; charset=utf-8"

# The `content-length` headers of short responses, by length.
_LENGTHS = [(b"content-length", str(length).encode()) for length in range(4096)]

_to_builtins = partial(to_builtins, str_keys=True)
"""Converts a `Struct` for orjson, which encodes only texts as keys of an object."""
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_COOKIE_TEXT = re.compile(r"[!#-+\--:<-\[\]-~]*")  # cookie-octet of RFC 6265, section 4.1.1
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
        data = body.encode() if isinstance(body, str) else encoded(body)
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

    def set_cookie(
        self,
        name: str,
        value: str,
        *,
        max_age: int | None = None,
        path: str = "/",
        domain: str | None = None,
        secure: bool = True,
        http_only: bool = True,
        same_site: Literal["lax", "strict", "none"] = "lax",
    ) -> None:
        """Add a cookie (RFC 6265). A browser keeps it for `max_age` seconds; without that, until it is closed.

        By default scripts cannot read it, and it is sent over TLS only. Raises `ValueError` for a name, value, path or
        domain that a cookie cannot have, and for `same_site="none"` without `secure`.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a cookie.")
        for text in (value, path, domain or ""):
            if not _COOKIE_TEXT.fullmatch(text):
                raise ValueError(f"The cookie {name} cannot have characters such as ; , or spaces: encode them.")
        if same_site not in ("lax", "strict", "none"):
            raise ValueError(f"The cookie {name} cannot have same_site={same_site!r}: it is lax, strict or none.")
        if same_site == "none" and not secure:
            raise ValueError(f"Browsers reject the cookie {name}: same_site='none' needs secure.")
        parts = [f"{name}={value}", f"Path={path}", f"SameSite={same_site.capitalize()}"]
        parts += [f"Max-Age={max_age:d}"] if max_age is not None else []
        parts += [f"Domain={domain}"] if domain else []
        parts += ["Secure"] if secure else []
        parts += ["HttpOnly"] if http_only else []
        self.raw_headers.append(header("set-cookie", "; ".join(parts)))

    def delete_cookie(
        self,
        name: str,
        *,
        path: str = "/",
        domain: str | None = None,
        secure: bool = True,
        http_only: bool = True,
        same_site: Literal["lax", "strict", "none"] = "lax",
    ) -> None:
        """Let the browser delete a cookie. The arguments must be those with which it was set."""
        self.set_cookie(
            name, "", max_age=0, path=path, domain=domain, secure=secure, http_only=http_only, same_site=same_site
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status}>"


class JSONResponse(Response):
    """A JSON response. `value` may contain `msgspec.Struct`s and what orjson encodes: UUIDs, datetimes, dataclasses."""

    __slots__ = ()

    def __init__(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        body = dumps(value, default=_to_builtins, option=OPT_UTC_Z)
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

    If the client asks for `application/problem+json` by `Accept`, the app sends the same as problem details (RFC 9457).
    `more` may have their members, such as `type` and `title`.

    `content` is that body as a dictionary. Protocols with their own error format read it.
    """

    __slots__ = ("content",)

    def __init__(self, detail: Any, status: int, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        self.content = {"detail": detail, **more}
        super().__init__(self.content, status, headers)


def encoded(content: Any) -> bytes:
    """Return the bytes of a body, or of a part of one. Raises `TypeError` for all but text and bytes.

    `bytes` would make as many zeros of a number.
    """
    if type(content) is bytes:
        return content
    if isinstance(content, str):
        return content.encode()
    try:
        return bytes(memoryview(content))
    except TypeError:
        raise TypeError(f"The body of a response is a str or bytes, not {type(content).__name__}.") from None


def header(name: str, value: str) -> tuple[bytes, bytes]:
    """Return a header in ASGI's form. Raises `ValueError` if HTTP cannot carry it."""
    try:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name.")
        if _BAD_VALUE.search(value):
            raise ValueError(f"The value of the header {name} contains a line break or NUL.")
        return name.lower().encode(), value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"The value of the header {name} contains characters outside Latin-1.") from None
    except TypeError:
        raise TypeError(f"The header {name!r} and its value must both be a str, not {type(value).__name__}.") from None
