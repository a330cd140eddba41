"""Probes: is the process alive, and does it take work?"""

import asyncio

from jimsapi.asgi.connection import Request
from jimsapi.asgi.response import JSONResponse, Response
from jimsapi.asgi.routing import Router
from jimsapi.service.run import RunService
from jimsapi.threads.errors import StoreUnavailable

PING_WITHIN = 2.0
"""Seconds that the store has to answer a readiness probe."""


def probe_routes(service: RunService) -> Router:
    """`/healthz` and `/readyz`."""
    router = Router()
    healthy = JSONResponse({"status": "ok"})

    @router.get("/healthz", public=True, probe=True, tags=("probes",))
    async def healthz(request: Request) -> Response:
        """The process is alive."""
        return healthy

    @router.get("/readyz", public=True, probe=True, tags=("probes",), responses={503: "It takes no work now."})
    async def readyz(request: Request) -> Response:
        """The server takes work: it is not shutting down, and its store answers."""
        if service.draining:
            return JSONResponse({"status": "draining"}, 503, {"connection": "close"})
        try:
            async with asyncio.timeout(PING_WITHIN):
                await service.store.ping()
        except (StoreUnavailable, TimeoutError):
            return JSONResponse({"status": "store unavailable"}, 503)
        return JSONResponse({"status": "ok"})

    return router
