"""Requests that a web page makes without its user's knowledge (2026-07-28, basic/transports/streamable-http)."""

from ipaddress import ip_address

from jimsapi.asgi import Cors, HTTPError, Request, same_origin


def refuse_foreign_origin(request: Request, cors: Cors) -> None:
    """Raise `HTTPError` 403 if a page of another origin has made a request. `cors` has those that the operator allows.

    A page can give its own host name the address of this server (DNS rebinding). Then its origin is that of the
    request. So the same origin is enough only if the page came over TLS, where a certificate proves the name, or if the
    host is an address or `localhost`, which nobody can point elsewhere. Clients that are not browsers send no origin.
    """
    origins = request.headers.getlist("origin")
    if not origins:
        return
    if len(origins) == 1:
        origin = origins[0]
        if cors.allows(origin) or (same_origin(request) and (origin.startswith("https://") or _is_fixed(request))):
            return
    raise HTTPError(403, "Pages of this origin may not use the MCP server: --cors-origin allows them")


def _is_fixed(request: Request) -> bool:
    """Return whether the host of a request is an address, or the name of this machine for itself (RFC 6761)."""
    host = (request.headers.get("host") or "").lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
