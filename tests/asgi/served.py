"""The app that the server suite serves. It must run on asyncio and on trio."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.lowlevel import checkpoint

from jimsapi.asgi import (
    App,
    Connection,
    EventStreamResponse,
    HTTPError,
    JSONResponse,
    Request,
    Response,
    Route,
    ServerSentEvent,
    StreamingResponse,
    WebSocket,
)

state = {"started": 0, "open": 0, "closed": 0, "waiting": 0}


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[None]:
    state["started"] += 1
    yield


async def admit(request: Connection, route: Route) -> object:
    if request.headers.get("x-key") != "right" and request.headers.get("authorization") != "Bearer right":
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


@app.route("/waiting", ("GET", "POST"), public=True, cancel_on_disconnect=True)
async def waiting(request: Request) -> Response:
    """Reads the body, so many seconds later, and waits until the client leaves or answers the size."""
    await anyio.sleep(float(request.query.get("delay") or 0))
    if "answers" in request.query:
        return JSONResponse({"size": len(await request.body())})
    await request.body()
    state["waiting"] += 1
    try:
        await anyio.sleep_forever()
        raise AssertionError
    finally:
        state["waiting"] -= 1


@app.get("/thread", public=True, worker_thread=True)
def thread(request: Request) -> dict[str, int]:
    return {"started": anyio.from_thread.run(started)}


async def started() -> int:
    return state["started"]


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


@app.get("/flood", public=True)
async def flood(request: Request) -> Response:
    """Chunks of the size asked for, with a short deadline for who does not read them."""
    chunk = b"x" * int(request.query.get("size") or 1)

    async def content() -> AsyncIterator[bytes]:
        while True:
            yield chunk

    response = StreamingResponse(counted(content()), content_type="text/plain")
    response.send_timeout = 0.3
    return response


@app.websocket("/ws/echo", public=True, subprotocols=("jims.chat",))
async def ws_echo(ws: WebSocket) -> None:
    await ws.accept(headers={"x-more": "1"})
    async for message in ws:
        await (ws.send_text(message) if isinstance(message, str) else ws.send_bytes(message))


@app.websocket("/ws/private", first_frame=True)
async def ws_private(ws: WebSocket) -> None:
    await ws.accept()
    await ws.send_text(str(ws.admission))


@app.websocket("/ws/refused")
async def ws_refused(ws: WebSocket) -> None:
    raise AssertionError("admitted")


@app.websocket("/ws/breaks", public=True)
async def ws_breaks(ws: WebSocket) -> None:
    await ws.accept()
    raise LookupError("on purpose")


@app.websocket("/ws/json", public=True)
async def ws_json(ws: WebSocket) -> None:
    await ws.accept()
    await ws.receive_json()


@app.websocket("/ws/counted", public=True)
async def ws_counted(ws: WebSocket) -> None:
    """Open until the client leaves, or does not read what it is sent if it asks for that."""
    await ws.accept()
    ws.send_timeout = 0.3
    state["open"] += 1
    try:
        async for message in ws:
            while message == "flood":
                await ws.send_bytes(b"x" * 65536)
    finally:
        state["open"] -= 1
        state["closed"] += 1


@app.websocket("/ws/pushed", public=True)
async def ws_pushed(ws: WebSocket) -> None:
    """Only sends, until the client leaves or the server ends it."""
    await ws.accept()
    state["open"] += 1
    async with ws.while_open():
        await ws.send_text("first")
        await anyio.sleep_forever()
    state["open"] -= 1
    state["closed"] += 1


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
