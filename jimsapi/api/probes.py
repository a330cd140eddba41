"""Probes: is the process alive, and does it accept new messages?"""

import asyncio
import math

from jimsapi.asgi.connection import Request
from jimsapi.asgi.response import JSONResponse, Response
from jimsapi.asgi.routing import Router
from jimsapi.runs.service import RunService
from jimsapi.threads.errors import StoreUnavailable

PING_WITHIN = 2.0
"""Seconds that the store has to answer a readiness probe."""
GOOD_FOR = 1.0
"""Seconds for which the answer of a store that works is used again: anybody may ask, and a ping costs a transaction."""


def probe_routes(service: RunService) -> Router:
    """`/healthz` and `/readyz`."""
    router = Router()
    readiness = StoreReadiness(service)
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
        if reason := service.outage.unproven:
            return _unavailable(reason)
        if readiness.is_good:
            return healthy
        try:
            async with asyncio.timeout(PING_WITHIN):
                await readiness.check()
        except StoreUnavailable as error:
            return _unavailable(error.reason)
        except TimeoutError:
            return _unavailable(service.outage.reason or "no answer")
        return healthy

    return router


class StoreReadiness:
    """Asks the store whether it works: once for all who ask at the same time."""

    def __init__(self, service: RunService) -> None:
        self._service = service
        self._ping: asyncio.Task[None] | None = None
        self._good_until = -math.inf

    @property
    def is_good(self) -> bool:
        """Whether the store worked a moment ago."""
        return asyncio.get_running_loop().time() < self._good_until

    async def check(self) -> None:
        """Return if the store works. Raises `StoreUnavailable`."""
        if self._ping is None:
            self._ping = asyncio.create_task(self._ask(), name="readiness")
            self._ping.add_done_callback(_look_at)  # whoever asked may have left
        await asyncio.shield(self._ping)

    async def _ask(self) -> None:
        try:
            await self._service.store.ping()
            self._good_until = asyncio.get_running_loop().time() + GOOD_FOR
        except StoreUnavailable as error:
            self._service.outage.failed(error)
            raise
        finally:
            self._ping = None


def _look_at(ping: asyncio.Task[None]) -> None:
    if not ping.cancelled():
        ping.exception()


def _unavailable(reason: str) -> Response:
    body = {"status": "store unavailable"}
    if reason:
        body["reason"] = reason
    return JSONResponse(body, 503)
