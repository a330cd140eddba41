"""Web origins, and which pages of other origins may read the answers of an app (Fetch Standard, section 3.2: CORS)."""

import re
from collections.abc import Collection

from .connection import Connection
from .response import Response
from .types import RawHeaders

DEFAULT_PORTS = {"http": ":80", "https": ":443"}
PREFLIGHT_MAX_AGE = 600
"""Seconds for which a browser may keep the answer to a preflight request."""

_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._~\[\]:-]+/?", re.IGNORECASE)
_ALLOW_ORIGIN = b"access-control-allow-origin"
_OVER_TLS = ("wss", "https")  # granian uses "https" for a WebSocket


def is_origin(text: str) -> bool:
    """Return whether a text is an origin as browsers send it: a scheme and a host, perhaps with a port."""
    return _ORIGIN.fullmatch(text) is not None


class Cors:
    """Allows scripts of pages of `origins` (`https://shop.example`, or `*` for all) to read the responses of an app.

    `exposed` are the response headers that the scripts may read besides the usual ones. Scripts cannot read responses
    to requests with cookies or client certificates. Browsers still send simple requests with cookies from any page, so
    this does not replace protection against forged requests (CSRF).

    Raises `ValueError` for a text that is not an origin, and `TypeError` for a text in place of a collection.
    """

    def __init__(self, origins: Collection[str], exposed: Collection[str] = ()) -> None:
        if isinstance(origins, str) or isinstance(exposed, str):
            raise TypeError("Cors needs a collection of texts, such as a tuple, and not one text.")
        for origin in origins:
            if origin != "*" and not is_origin(origin):
                raise ValueError(f"{origin!r} is not an origin: give scheme and host, such as https://shop.example.")
        self._all = "*" in origins
        self._origins = frozenset(map(scheme_and_host, origins))
        self._exposed = (b"access-control-expose-headers", ", ".join(exposed).encode()) if exposed else None

    def allows(self, origin: str) -> bool:
        """Return whether pages of `origin` may read answers."""
        return self._all or scheme_and_host(origin) in self._origins

    def add(self, headers: RawHeaders, request: Connection) -> None:
        """Add the headers that let the page read the response to `request`, if its origin is allowed.

        Does nothing if the handler has already added such headers, since browsers reject two of them.
        """
        if any(name == _ALLOW_ORIGIN for name, _ in headers):
            return
        if self._all:
            allowed = b"*"  # also without an origin: a cache may serve the response to a page later
        else:
            headers.append((b"vary", b"origin"))  # so that no cache serves the response to another origin
            origin = request.headers.get("origin")
            if origin is None or not self.allows(origin):
                return
            allowed = origin.encode("latin-1")
        headers.append((_ALLOW_ORIGIN, allowed))
        if self._exposed is not None:
            headers.append(self._exposed)

    def preflight(self, request: Connection, methods: str) -> Response | None:
        """Return the answer to a preflight request: the route has `methods`, separated by commas.

        Returns None if `request` is not one, or if its origin is not allowed.
        """
        origin = request.headers.get("origin")
        if origin is None or "access-control-request-method" not in request.headers or not self.allows(origin):
            return None
        headers = {"access-control-allow-methods": methods, "access-control-max-age": str(PREFLIGHT_MAX_AGE)}
        names = ", ".join(request.headers.getlist("access-control-request-headers"))
        if _HEADER_NAMES.fullmatch(names):
            headers["access-control-allow-headers"] = names
        return Response(status=204, headers=headers)


def scheme_and_host(origin: str) -> tuple[str, str]:
    """Return the scheme and the host of an origin. The host includes the port unless it is the scheme's default."""
    scheme, _, host = origin.lower().rstrip("/").partition("://")
    return scheme, host.removesuffix(DEFAULT_PORTS.get(scheme, ""))


def same_origin(connection: Connection, allowed: Collection[str] = ()) -> bool:
    """Return whether a page of the request's own host has sent it, or a page of an origin in `allowed` (RFC 6454).

    `allowed` may have `*`, which allows every page. A client that sends no `Origin` is not a browser, and is allowed. A
    handshake of a WebSocket is a request too (RFC 6455, 10.2). Check it where a page of another origin could do harm: a
    browser sends such a page's handshakes, forms and other simple requests with the cookies and the client certificate
    of its user.
    """
    origins = connection.headers.getlist("origin")
    if not origins or "*" in allowed:
        return True
    if len(origins) > 1:
        return False
    scheme, host = scheme_and_host(origins[0])
    if (scheme, host) in map(scheme_and_host, allowed):
        return True
    if not host or scheme not in DEFAULT_PORTS:
        return False
    if scheme == "http" and connection.scope.get("scheme") in _OVER_TLS:  # on the network, such a page can be forged
        return False
    requested_host = connection.headers.get("host") or ""
    return host == scheme_and_host(f"{scheme}://{requested_host}")[1]
