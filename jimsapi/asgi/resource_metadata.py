"""The routes that serve the metadata of the OAuth protected resources of an app (RFC 9728, section 3)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .connection import Request
from .cors import Cors
from .protected_resource import WELL_KNOWN, ProtectedResources, covering
from .response import ErrorResponse, JSONResponse, Response
from .route import Route
from .routing import Router

_EVERY_PAGE = Cors(("*",))
_METHODS = "GET, HEAD, OPTIONS"


def find_resources(routes: Iterable[Route], areas: Iterable[str]) -> dict[str, list[str]]:
    """Return the scopes of the resources by their path: the app as a whole, `areas`, and the routes with `resource`."""
    private = [route for route in routes if not route.public]
    supported: dict[str, list[str]] = {path: [] for path in ("", *areas)}
    supported |= {route.path: [] for route in private if route.resource}
    for route in private:
        if route.scope is not None:
            for path in {"", covering(supported, route.path)}:
                supported[path].append(route.scope)
    return supported


def metadata_routes(resources: ProtectedResources) -> Router:
    """Return the routes of the metadata, before the path of each resource and after it.

    They answer the requests of pages of all origins, also those that a browser asks about first, since the headers of
    some protocols' clients are not simple ones (Fetch Standard, section 3.2).
    """
    router = Router()

    async def resource_metadata(request: Request) -> Response:
        """Where clients get access tokens for a resource of this server (RFC 9728)."""
        path = _resource_path(request, resources.supported)
        if path is None:
            return _readable(ErrorResponse("This server has no such resource", 404), request)
        return _readable(JSONResponse(resources.metadata(path, request.public_url(path))), request)

    async def resource_metadata_preflight(request: Request) -> Response:
        """Whether a page may read this metadata with headers of its own (CORS). Each page may."""
        answer = _EVERY_PAGE.preflight(request, _METHODS) or Response(status=204, headers={"allow": _METHODS})
        return _readable(answer, request)

    missing = {404: "This server has no such resource."}
    after = [path + WELL_KNOWN for path in resources.supported if path]
    for path in (WELL_KNOWN, f"{WELL_KNOWN}/{{resource:path}}", *after):
        router.get(path, public=True, response=dict[str, Any], responses=missing, tags=("docs",))(resource_metadata)
        router.route(path, ("OPTIONS",), public=True, status=204, tags=("docs",))(resource_metadata_preflight)
    return router


def _readable(response: Response, request: Request) -> Response:
    """Let pages of every origin read a response."""
    _EVERY_PAGE.add(response.raw_headers, request)
    return response


def _resource_path(request: Request, paths: Mapping[str, Sequence[str]]) -> str | None:
    """Return the path of the resource that a request for metadata names; None if there is no such resource.

    Below a `root_path`, clients may also send the path of the whole URL (RFC 9728, section 3.1). Such a request only
    arrives if the proxy sends it to this app.
    """
    before, _, after = request.path.partition(WELL_KNOWN)
    path = (before + after).rstrip("/")
    root = request.scope.get("root_path", "").rstrip("/")
    if path not in paths and root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        path = path[len(root) :]
    return path if path in paths else None
