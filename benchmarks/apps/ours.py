"""Ours: the routes of the peers as a plugin of the chat API, with all that every request of it has."""

from collections.abc import AsyncIterator

from benchmarks.apps.message import Message
from benchmarks.apps.peers import EVENTS, HELLO, ROUTES, echo
from jimsapi import JSONResponse, Request, Response, Router, hookimpl
from jimsapi.asgi.sse import EventStreamResponse, ServerSentEvent


@hookimpl
def jimsapi_routes(router: Router) -> None:
    """Add the routes."""

    @router.get("/hello", public=True)
    async def hello(request: Request) -> Response:
        return JSONResponse(HELLO)

    @router.post("/messages", body=Message)
    async def messages(request: Request) -> Response:
        return JSONResponse(echo((await request.typed(Message)).message))

    @router.get("/stream", public=True)
    async def stream(request: Request) -> Response:
        return EventStreamResponse(numbers())

    for number in range(ROUTES):

        @router.get(f"/things{number}/{{thing}}/parts/{{part:int}}", public=True)
        async def part(request: Request) -> Response:
            return JSONResponse(request.path_params)


async def numbers() -> AsyncIterator[ServerSentEvent]:
    """The events."""
    for number in range(EVENTS):
        yield ServerSentEvent(str(number))
