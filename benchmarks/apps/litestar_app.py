"""Litestar: msgspec checks bodies and encodes answers, as it does by itself; the key is looked at by a guard."""
# It runs where its framework is installed, which the type checker has not.
# mypy: ignore-errors

from typing import Any

from litestar import Litestar, get, post
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import BaseRouteHandler
from litestar.response import ServerSentEvent
from litestar.types import SSEData

from benchmarks.apps.message import Message
from benchmarks.apps.peers import EVENTS, HELLO, ROUTES, echo, may_enter


def check_key(connection: ASGIConnection, handler: BaseRouteHandler) -> None:
    """Refuse a wrong key."""
    if not may_enter(connection.headers.get("authorization")):
        raise NotAuthorizedException


@get("/healthz")
async def healthz() -> dict[str, str]:
    """The process is alive."""
    return {"status": "ok"}


@get("/hello")
async def hello() -> dict[str, str]:
    """Say hello."""
    return HELLO


@post("/messages", guards=[check_key], status_code=200)
async def messages(data: Message) -> dict[str, Any]:
    """Say back what was said."""
    return echo(data.message)


@get("/stream")
async def stream() -> ServerSentEvent:
    """Count."""

    async def numbers() -> SSEData:
        for number in range(EVENTS):
            yield str(number)

    return ServerSentEvent(numbers())


@get([f"/things{number}/{{thing:str}}/parts/{{part:int}}" for number in range(ROUTES)] or "/things")
async def part(thing: str, part: int) -> dict[str, Any]:
    """Give the parameters back."""
    return {"thing": thing, "part": part}


app = Litestar([healthz, hello, messages, stream, *([part] if ROUTES else [])], openapi_config=None)
