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


class Cors:
    """Allows pages of `origins` (`https://shop.example`, or `*` for all) to send any request and to read its answer.

    `exposed` are the response headers that scripts may read besides the usual ones. Browsers send no cookies and no
    client certificates with these requests, so a page needs a credential that it sends itself, such as a key.
    """

    def __init__(self, origins: Collection[str], exposed: Collection[str] = ()) -> None:
        self._all = "*" in origins
        self._origins = frozenset(map(scheme_and_host, origins))
        self._exposed = (b"access-control-expose-headers", ", ".join(exposed).encode()) if exposed else None

    def allows(self, origin: str) -> bool:
        """Return whether pages of `origin` may read answers."""
        return self._all or scheme_and_host(origin) in self._origins

    def add(self, headers: RawHeaders, request: Connection) -> None:
        """Add the headers that let the page read the answer to `request`, if its origin is allowed."""
        if not self._all:
            headers.append((b"vary", b"origin"))  # so that no cache gives the answer to another origin
        origin = request.headers.get("origin")
        if origin is None or not self.allows(origin):
            return
        headers.append((b"access-control-allow-origin", b"*" if self._all else origin.encode("latin-1")))
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
