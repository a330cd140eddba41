"""Handlers that are plain functions, in threads."""

import threading
from typing import Any

import anyio
import msgspec
import pytest

from jimsapi.asgi import App, HTTPError, JSONResponse, Request, Response
from jimsapi.asgi.connection import request_id
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio


class Order(msgspec.Struct):
    """An order."""

    amount: int


async def test_a_plain_function_blocks_its_thread_and_not_the_event_loop() -> None:
    app = App()
    released = threading.Event()

    @app.get("/blocks", public=True, worker_thread=True)
    def blocks(request: Request) -> dict[str, str]:
        assert released.wait(10)
        return {"thread": threading.current_thread().name}

    @app.get("/releases", public=True)
    async def releases(request: Request) -> dict[str, str]:
        released.set()
        return {"thread": threading.current_thread().name}

    async with TestClient(app) as client, anyio.create_task_group() as tasks:
        answers: list[Any] = []

        async def ask(path: str) -> None:
            answers.append((await client.get(path)).json()["thread"])

        tasks.start_soon(ask, "/blocks")
        tasks.start_soon(ask, "/releases")
    assert len(set(answers)) == 2


async def test_a_plain_function_reads_the_body_raises_errors_and_returns_what_any_handler_may() -> None:
    app = App()

    @app.post("/orders", public=True, worker_thread=True, status=201, max_body=100)
    def order(request: Request) -> Any:
        """Place an order."""
        found = anyio.from_thread.run(request.typed, Order)
        if found.amount > 9:
            raise HTTPError(409, "Too many")
        return JSONResponse({"id": request_id.get()}) if found.amount == 9 else found

    async with TestClient(app) as client:
        answer = await client.post("/orders", json={"amount": 3})
        assert (answer.status_code, answer.json()) == (201, {"amount": 3})
        assert (await client.post("/orders", json={"amount": "x"})).status_code == 422
        assert (await client.post("/orders", json={"amount": 10})).status_code == 409
        assert (await client.post("/orders", content=b"x" * 101)).status_code in (413, 415)
        answer = await client.post("/orders", json={"amount": 9}, headers={"x-request-id": "mine"})
        assert answer.json() == {"id": "mine"}
    assert app.openapi()["paths"]["/orders"]["post"]["summary"] == "Place an order."


def plain(request: Request) -> Response:
    return Response()


async def asynchronous(request: Request) -> Response:
    return Response()


class Callable:
    async def __call__(self, request: Request) -> Response:
        return Response()


@pytest.mark.parametrize(
    ("handler", "options", "message"),
    [
        (plain, {}, "must be `async def`.*worker_thread=True"),
        (plain, {"time_limit": 1}, "must be `async def`.*worker_thread=True"),
        (asynchronous, {"worker_thread": True}, "is `async def`.*Remove `worker_thread`"),
        (Callable(), {"worker_thread": True}, "is `async def`.*Remove `worker_thread`"),
        (plain, {"worker_thread": True, "time_limit": 1}, "nothing can stop.*Remove `time_limit`"),
        (plain, {"worker_thread": True, "cancel_on_disconnect": True}, "nothing can stop.*`cancel_on_disconnect`"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(handler: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        App().get("/things", **options)(handler)
