"""The client for tests works with every way of running async tests: streams and WebSockets stay open over tasks."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count

import anyio
import pytest
import trio

from jimsapi.asgi import App, Request, Response, StreamingResponse, WebSocket
from jimsapi.asgi.testing import ClientWebSocket, TestClient


def ticking() -> App:
    app = App()

    @app.get("/ticks")
    async def ticks(request: Request) -> Response:
        async def forever() -> AsyncIterator[bytes]:
            for number in count():
                yield b"%d;" % number

        return StreamingResponse(forever())

    @app.websocket("/ticks")
    async def ticks_ws(ws: WebSocket) -> None:
        await ws.accept()
        for number in count():
            await ws.send_text(str(number))

    return app


async def read_both(client: TestClient) -> None:
    """Read an endless stream and an endless WebSocket at the same time, and leave both in the middle."""
    async with client.stream("GET", "/ticks") as answer, client.websocket("/ticks") as ws:
        parts = answer.aiter_raw()
        assert [await anext(parts) for _ in range(3)] == [b"0;", b"1;", b"2;"]
        assert [await ws.receive() for _ in range(3)] == ["0", "1", "2"]


async def enter_and_read() -> None:
    async with TestClient(ticking()) as client:
        await read_both(client)


def test_in_a_plain_run_of_asyncio() -> None:
    asyncio.run(enter_and_read())


def test_in_a_plain_run_of_trio() -> None:
    trio.run(enter_and_read)


def test_as_fixtures_of_pytest_asyncio_which_run_each_step_in_a_task_of_its_own() -> None:
    async def client_fixture() -> AsyncIterator[TestClient]:
        async with TestClient(ticking()) as client:
            yield client

    async def websocket_fixture(client: TestClient) -> AsyncIterator[ClientWebSocket]:
        async with client.websocket("/ticks") as ws:
            yield ws

    async def read(client: TestClient, ws: ClientWebSocket) -> None:
        assert await ws.receive() == "0"
        await read_both(client)

    async def step(fixture: AsyncIterator[object]) -> object:
        return await anext(fixture, None)

    with asyncio.Runner() as runner:
        clients = client_fixture()
        client = runner.run(step(clients))
        assert isinstance(client, TestClient)
        websockets = websocket_fixture(client)
        ws = runner.run(step(websockets))
        assert isinstance(ws, ClientWebSocket)
        runner.run(read(client, ws))
        for fixture in (websockets, clients):
            assert runner.run(step(fixture)) is None


class TestWithAnyio:
    """Fixtures and tests of anyio's pytest plugin."""

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    async def client(self, anyio_backend: str) -> AsyncIterator[TestClient]:
        async with TestClient(ticking()) as client:
            yield client

    @pytest.fixture
    async def ws(self, client: TestClient) -> AsyncIterator[ClientWebSocket]:
        async with client.websocket("/ticks") as ws:
            yield ws

    @pytest.mark.anyio
    async def test_in_its_fixtures(self, client: TestClient, ws: ClientWebSocket) -> None:
        assert await ws.receive() == "0"
        with anyio.fail_after(30):
            await read_both(client)
