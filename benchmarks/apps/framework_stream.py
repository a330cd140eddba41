"""Our framework alone: a stream of server-sent events that waits for ever, without a service, a store or a run."""

import asyncio
from collections.abc import AsyncIterator

from jimsapi import App, JSONResponse, Request, Response
from jimsapi.asgi.sse import EventStreamResponse, ServerSentEvent

app = App()


@app.get("/healthz")
async def healthz(request: Request) -> Response:
    """Say that it listens."""
    return JSONResponse({"status": "ok"})


@app.post("/api/v1/chat/stream")
async def stream(request: Request) -> Response:
    """Begin, and wait."""
    await request.json()
    return EventStreamResponse(waiting())


async def waiting() -> AsyncIterator[ServerSentEvent]:
    """The events: one, and then none for ever."""
    yield ServerSentEvent("{}", event="started", id="1")
    await asyncio.Event().wait()
