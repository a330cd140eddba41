"""What a service without chat needs: values as responses, cookies, and limits of single routes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from jimsapi.asgi import App, JSONResponse, Request, Response, StreamingResponse
from jimsapi.asgi.testing import TestClient

from .driver import ask

pytestmark = pytest.mark.anyio


class Thing(msgspec.Struct):
    """A thing."""

    name: str
    price: int = 3


class Stock(msgspec.Struct):
    """How many of each number there are."""

    counts: dict[int, int]


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (Thing("chair"), {"name": "chair", "price": 3}),
        ([Thing("chair"), Thing("table", 9)], [{"name": "chair", "price": 3}, {"name": "table", "price": 9}]),
        ({"things": [Thing("chair")]}, {"things": [{"name": "chair", "price": 3}]}),
        (Stock({1: 2}), {"counts": {"1": 2}}),
        ({}, {}),
    ],
)
async def test_a_handler_may_return_what_becomes_json(value: Any, body: Any) -> None:
    app = App()

    @app.get("/things", public=True)
    async def things(request: Request) -> Any:
        return value

    @app.post("/things", public=True, status=201)
    async def make(request: Request) -> Any:
        return value

    async with TestClient(app) as client:
        answer, created = await client.get("/things"), await client.post("/things")
        head = await client.head("/things")
    assert (answer.status_code, answer.json()) == (200, body)
    assert (created.status_code, created.json()) == (201, body)
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("value", [None, "text", b"bytes", 7, Thing])
async def test_any_other_value_is_a_mistake_of_the_handler(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.get("/things", public=True)
    async def things(request: Request) -> Any:
        return value

    assert (await ask(app, "GET", "/things")).status_code == 500
    assert "not a Response, a Struct, a dict or a list" in caplog.text


async def test_a_list_of_structs_is_documented() -> None:
    app = App()

    @app.get("/things", public=True, response=list[Thing])
    async def things(request: Request) -> list[Thing]:
        return []

    schema = app.openapi()["paths"]["/things"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}}


async def test_cookies_are_set_and_read_and_deleted() -> None:
    app = App()

    @app.get("/in", public=True)
    async def enter(request: Request) -> Response:
        response = JSONResponse({})
        response.set_cookie("session", "abc", max_age=60)
        response.set_cookie("theme", "dark", path="/in", http_only=False, secure=False, same_site="strict")
        return response

    @app.get("/who", public=True)
    async def who(request: Request) -> Response:
        return JSONResponse(request.cookies)

    @app.get("/out", public=True)
    async def leave(request: Request) -> Response:
        response = JSONResponse({})
        response.delete_cookie("session")
        response.delete_cookie("theme", path="/in", domain="shop.example", http_only=False, secure=False)
        return response

    async with TestClient(app) as client:
        entered = await client.get("/in")
        seen = (await client.get("/who", headers={"cookie": "session=abc; theme=dark"})).json()
        left = await client.get("/out")
    assert entered.headers.get_list("set-cookie") == [
        "session=abc; Path=/; SameSite=Lax; Max-Age=60; Secure; HttpOnly",
        "theme=dark; Path=/in; SameSite=Strict",
    ]
    assert seen == {"session": "abc", "theme": "dark"}
    assert left.headers.get_list("set-cookie") == [
        "session=; Path=/; SameSite=Lax; Max-Age=0; Secure; HttpOnly",
        "theme=; Path=/in; SameSite=Lax; Max-Age=0; Domain=shop.example",
    ]


@pytest.mark.parametrize(
    "cookie",
    [
        {"name": "a b", "value": "x"},
        {"name": "", "value": "x"},
        {"name": "a=b", "value": "x"},
        {"name": "a", "value": "x; Path=/admin"},
        {"name": "a", "value": "x\r\nset-cookie: b=c"},
        {"name": "a", "value": "ü"},
        {"name": "a", "value": "x", "path": "/; Secure"},
        {"name": "a", "value": "x", "domain": "shop.example; HttpOnly"},
        {"name": "a", "value": "x", "same_site": "none", "secure": False},
        {"name": "a", "value": "x", "same_site": "None"},
    ],
)
def test_a_cookie_that_browsers_would_misread_is_refused(cookie: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cookie"):
        Response().set_cookie(**cookie)


async def test_a_route_has_a_limit_for_bodies_of_its_own() -> None:
    app = App(max_body=10)

    @app.post("/small", public=True)
    @app.post("/tiny", public=True, max_body=2)
    @app.post("/large", public=True, max_body=1000)
    async def size(request: Request) -> Response:
        return JSONResponse([len(await request.body())])

    async with TestClient(app) as client:
        statuses = {
            (path, length): (await client.post(path, content=b"x" * length)).status_code
            for path in ("/tiny", "/small", "/large")
            for length in (2, 10, 1000, 1001)
        }
    assert {case for case, status in statuses.items() if status == 200} == {
        ("/tiny", 2),
        ("/small", 2),
        ("/small", 10),
        ("/large", 2),
        ("/large", 10),
        ("/large", 1000),
    }
    assert set(statuses.values()) == {200, 413}


async def test_a_handler_over_its_time_limit_is_cancelled_and_the_client_gets_504() -> None:
    app = App()
    cancelled: list[str] = []

    @app.get("/slow", public=True, time_limit=0.02)
    async def slow(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("slow")
            raise
        return JSONResponse({})

    @app.get("/own", public=True, time_limit=60)
    async def own(request: Request) -> Response:
        raise TimeoutError

    @app.get("/stream", public=True, time_limit=5)
    async def stream(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        return StreamingResponse(pieces())

    async with TestClient(app) as client:
        answer = await client.get("/slow")
        assert (answer.status_code, answer.json()["detail"]) == (504, "The request took longer than 0.02 seconds")
        assert cancelled == ["slow"]
        assert (await client.get("/own")).status_code == 500
        assert (await client.get("/stream")).content == b"ab"


@pytest.mark.parametrize("limits", [{"max_body": 0}, {"max_body": -1}, {"time_limit": 0}])
def test_a_limit_that_no_request_meets_is_refused(limits: dict[str, Any]) -> None:
    app = App()
    with pytest.raises(ValueError, match="must be positive"):

        @app.get("/things", **limits)
        async def things(request: Request) -> Response:
            return JSONResponse({})


def test_a_plain_function_is_refused_with_limits_too() -> None:
    app = App()
    with pytest.raises(ValueError, match="must be `async def`"):

        @app.get("/things", time_limit=1)
        def things(request: Request) -> Response:
            return JSONResponse({})
