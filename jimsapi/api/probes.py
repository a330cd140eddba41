"""Probes: `/healthz` shows whether the process is alive, `/readyz` whether it accepts new messages."""

import asyncio
import math

from jimsapi.asgi.connection import Request
from jimsapi.asgi.response import JSONResponse, Response
from jimsapi.asgi.routing import Router
from jimsapi.runs.service import RunService
from jimsapi.threads.errors import StoreUnavailable

PING_WITHIN = 2.0
"""Seconds within which the store has to answer a readiness probe."""
VALID_FOR = 1.0
"""Seconds for which a successful ping is reused: the route is public, and a ping costs a transaction."""


def probe_routes(service: RunService) -> Router:
    """`/healthz` and `/readyz`."""
    router = Router()
    readiness = StoreReadiness(service)
    healthy = JSONResponse({"status": "ok"})

    @router.get("/healthz", public=True, probe=True, tags=("probes",))
    async def healthz(request: Request) -> Response:
        """The process is alive."""
        return healthy

    @router.get(
        "/readyz",
        public=True,
        probe=True,
        tags=("probes",),
        responses={503: "The server does not accept new messages."},
    )
    async def readyz(request: Request) -> Response:
        """The server accepts new messages: it is not shutting down, and its store answers."""
        if service.draining or service.drain_announced:
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
    """Pings the store. Probes at the same time share one ping."""

    def __init__(self, service: RunService) -> None:
        self._service = service
        self._ping: asyncio.Task[None] | None = None
        self._valid_until = -math.inf

    @property
    def is_good(self) -> bool:
        """Whether the last ping succeeded, at most `VALID_FOR` seconds ago."""
        return asyncio.get_running_loop().time() < self._valid_until

    async def check(self) -> None:
        """Ping the store. Raises `StoreUnavailable` if it does not work."""
        if self._ping is None:
            self._ping = asyncio.create_task(self._ping_store(), name="readiness")
            self._ping.add_done_callback(_mark_retrieved)  # the probe may have been cancelled
        await asyncio.shield(self._ping)

    async def _ping_store(self) -> None:
        try:
            await self._service.store.ping()
            self._valid_until = asyncio.get_running_loop().time() + VALID_FOR
        except StoreUnavailable as error:
            self._service.outage.failed(error)
            raise
        finally:
            self._ping = None


def _mark_retrieved(ping: asyncio.Task[None]) -> None:
    """Retrieve a task's exception, so that asyncio does not log it."""
    if not ping.cancelled():
        ping.exception()


def _unavailable(reason: str) -> Response:
    body = {"status": "store unavailable"}
    if reason:
        body["reason"] = reason
    return JSONResponse(body, 503)
