"""The app that the server suite serves. It must run on asyncio and on trio."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.lowlevel import checkpoint

from jimsapi.asgi import (
    App,
    EventStreamResponse,
    HTTPError,
    JSONResponse,
    Request,
    Response,
    Route,
    ServerSentEvent,
    StreamingResponse,
)

state = {"started": 0, "open": 0, "closed": 0}


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[None]:
    state["started"] += 1
    yield


async def admit(request: Request, route: Route) -> object:
    if request.headers.get("x-key") != "right":
        raise HTTPError(401, "Unauthorized", {"www-authenticate": "Key"})
    return "known"


app = App(lifespan=lifespan, admit=admit)


@app.get("/healthz", public=True, probe=True)
async def healthz(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


@app.get("/state", public=True)
async def show_state(request: Request) -> Response:
    return JSONResponse(state)


@app.post("/private")
async def private(request: Request) -> Response:
    return JSONResponse({"size": len(await request.body())})


@app.post("/json", public=True)
async def echo_json(request: Request) -> Response:
    return JSONResponse({"value": await request.json(), "client": request.client is not None})


@app.get("/things/{name}", public=True)
async def thing(request: Request) -> Response:
    return JSONResponse({"name": request.path_params["name"], "q": request.query.getlist("q"), "path": request.path})


@app.get("/breaks", public=True)
async def breaks(request: Request) -> Response:
    raise LookupError("on purpose")


@app.get("/closing", public=True)
async def closing(request: Request) -> Response:
    return Response("bye", headers={"connection": "close"})


@app.get("/stream", public=True)
async def stream(request: Request) -> Response:
    return StreamingResponse(counted(ticks(0.01)), content_type="text/plain")


@app.get("/tight", public=True)
async def tight(request: Request) -> Response:
    return StreamingResponse(counted(ticks(None)), content_type="text/plain")


@app.get("/silent", public=True)
async def silent(request: Request) -> Response:
    return StreamingResponse(counted(ticks(math.inf)), content_type="text/plain")


@app.get("/torn", public=True)
async def torn(request: Request) -> Response:
    async def content() -> AsyncIterator[bytes]:
        yield b"first"
        await checkpoint()
        raise LookupError("torn on purpose")

    return StreamingResponse(content(), content_type="text/plain")


@app.get("/events", public=True)
async def events(request: Request) -> Response:
    async def content() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent("hello", event="greeting")
        await anyio.sleep(0.3)
        yield ServerSentEvent("bye")

    return EventStreamResponse(content(), keepalive=0.05)


async def ticks(pause: float | None) -> AsyncIterator[bytes]:
    while True:
        yield b"tick\n"
        if pause is not None:
            await anyio.sleep(pause)


async def counted(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same, while `state` says how many such streams are open and how many were closed."""
    state["open"] += 1
    try:
        async for chunk in content:
            yield chunk
    finally:
        state["open"] -= 1
        state["closed"] += 1
