"""Starlette: answers encoded by orjson, as its documentation shows, and bodies checked by msgspec."""
# It runs where its framework is installed, which the type checker has not everywhere.
# mypy: ignore-errors

import msgspec
import orjson
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from benchmarks.apps.message import decode
from benchmarks.apps.peers import EVENTS, HELLO, ROUTES, echo, may_enter


class OrjsonResponse(JSONResponse):
    """An answer encoded by orjson."""

    def render(self, content):
        """The body."""
        return orjson.dumps(content)


async def healthz(request):
    """The process is alive."""
    return OrjsonResponse({"status": "ok"})


async def hello(request):
    """Say hello."""
    return OrjsonResponse(HELLO)


async def part(request):
    """Give the parameters back."""
    return OrjsonResponse(request.path_params)


async def messages(request):
    """Say back what was said."""
    if not may_enter(request.headers.get("authorization")):
        return OrjsonResponse({"detail": "Unauthorized"}, 401)
    try:
        inbound = decode(await request.body())
    except msgspec.MsgspecError:
        return OrjsonResponse({"detail": "Unprocessable Entity"}, 422)
    return OrjsonResponse(echo(inbound.message))


async def stream(request):
    """Count."""

    async def numbers():
        for number in range(EVENTS):
            yield f"data: {number}\n\n"

    return StreamingResponse(numbers(), media_type="text/event-stream")


app = Starlette(
    routes=[
        Route("/healthz", healthz),
        Route("/hello", hello),
        Route("/messages", messages, methods=["POST"]),
        Route("/stream", stream),
        *(Route(f"/things{number}/{{thing}}/parts/{{part:int}}", part) for number in range(ROUTES)),
    ]
)
