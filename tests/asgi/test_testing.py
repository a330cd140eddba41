"""The client for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from jimsapi.asgi import App, Request, Response
from jimsapi.asgi.testing import TestClient
from jimsapi.asgi.types import Receive, Scope, Send

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def failing(at: str) -> App:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        if at == "start":
            raise LookupError("no store")
        yield
        raise LookupError("not closed")

    return App(lifespan=lifespan)


async def test_it_runs_the_lifespan_around_its_requests() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        log.append("up")
        yield
        log.append("down")

    app = App(lifespan=lifespan)

    @app.get("/")
    async def handler(request: Request) -> Response:
        log.append("asked")
        return Response("hello", headers={"x-root": request.scope["root_path"]})

    async with TestClient(app, root_path="/api", headers={"x-all": "1"}) as client:
        answer = await client.get("/api/")
    assert (answer.text, answer.headers["x-root"]) == ("hello", "/api")
    assert log == ["up", "asked", "down"]


async def test_a_start_that_fails_is_raised_on_entering() -> None:
    with pytest.raises(RuntimeError, match="start failed: no store"):
        async with TestClient(failing("start")):
            raise AssertionError("entered")


async def test_a_shutdown_that_fails_is_raised_on_leaving() -> None:
    with pytest.raises(RuntimeError, match="shutdown failed: not closed"):
        async with TestClient(failing("stop")):
            pass


async def test_an_app_that_breaks_in_its_lifespan_is_said_to() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("no lifespan here")

    with pytest.raises(RuntimeError, match="no lifespan here"):
        async with TestClient(app):
            raise AssertionError("entered")


async def test_the_block_s_own_error_comes_out_and_the_lifespan_is_left() -> None:
    log = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        yield
        log.append("down")

    with pytest.raises(ZeroDivisionError):
        async with TestClient(App(lifespan=lifespan)):
            raise ZeroDivisionError
    assert log == ["down"]
