"""Errors as problem+json (RFC 9457), if `Accept` asks for it."""

from typing import Any

import msgspec
import pytest

from jimsapi.asgi import App, Connection, ErrorResponse, HTTPError, JSONResponse, Request, Response, Route
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

PROBLEM = "application/problem+json"
HTML = "text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8"


class Order(msgspec.Struct):
    """An order."""

    amount: int


async def admit(request: Connection, route: Route) -> object:
    raise HTTPError(401, "Who are you?", {"www-authenticate": "Key"})


app = App(admit=admit)


@app.get("/private")
async def private(request: Request) -> Response:
    return Response()


@app.post("/orders", public=True)
async def order(request: Request) -> Order:
    return await request.typed(Order)


@app.get("/balance", public=True)
async def balance(request: Request) -> Response:
    return ErrorResponse("It is 30", 403, type="https://shop.example/no-credit", title="No credit", balance=30)


@app.get("/odd", public=True)
async def odd(request: Request) -> Response:
    return ErrorResponse("Odd", 499)


@app.get("/own", public=True)
async def own(request: Request) -> Response:
    return JSONResponse({"mine": True}, 400)


@app.get("/breaks", public=True)
async def breaks(request: Request) -> Response:
    raise LookupError("on purpose")


@app.get("/other", public=True, reword=lambda answer: JSONResponse({"error": "other"}, answer.status))
async def other(request: Request) -> Response:
    raise HTTPError(404)


async def ask(method: str, path: str, accept: str | None, **options: Any) -> Any:
    async with TestClient(app) as client:
        if accept is None:
            del client.headers["accept"]
        else:
            client.headers["accept"] = accept
        return await client.request(method, path, **options)


@pytest.mark.parametrize(
    "accept",
    [
        PROBLEM,
        "Application/Problem+JSON",
        f"application/json, {PROBLEM}",
        f"application/json;q=0.5, {PROBLEM};q=0.5",
        f"{PROBLEM};q=0.1, */*",
    ],
)
async def test_a_client_that_accepts_problems_gets_one(accept: str) -> None:
    answer = await ask("GET", "/private", accept)
    assert answer.headers["content-type"] == PROBLEM
    assert answer.headers["vary"] == "accept"
    assert answer.headers["www-authenticate"] == "Key"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert (answer.status_code, answer.json()) == (
        401,
        {"type": "about:blank", "title": "Unauthorized", "status": 401, "detail": "Who are you?"},
    )


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "*/*",
        "application/json",
        "application/*",
        HTML,
        f"{PROBLEM};q=0",
        f"application/json, {PROBLEM};q=0.9",
        f"{PROBLEM};q=high",
    ],
)
async def test_all_other_clients_get_the_usual_error(accept: str | None) -> None:
    answer = await ask("GET", "/private", accept)
    assert (answer.headers["content-type"], answer.json()) == ("application/json", {"detail": "Who are you?"})
    assert answer.headers["vary"] == "accept"  # a cache must not serve it to a client that asks for a problem


@pytest.mark.parametrize(
    ("method", "path", "status", "title"),
    [
        ("GET", "/nowhere", 404, "Not Found"),
        ("DELETE", "/orders", 405, "Method Not Allowed"),
        ("GET", "/breaks", 500, "Internal Server Error"),
    ],
)
async def test_the_errors_of_the_app_are_problems_too(method: str, path: str, status: int, title: str) -> None:
    answer = await ask(method, path, PROBLEM)
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
    assert answer.json() == {"type": "about:blank", "title": title, "status": status, "detail": title}


async def test_the_faults_of_a_body_are_in_a_member_of_their_own() -> None:
    usual = (await ask("POST", "/orders", None, json={})).json()["detail"]
    problem = (await ask("POST", "/orders", PROBLEM, json={})).json()
    assert problem["errors"] == usual
    assert usual[0]["loc"] == ["body", "amount"]
    assert isinstance(problem["detail"], str)


async def test_a_handler_may_name_the_type_of_its_problem() -> None:
    assert (await ask("GET", "/balance", PROBLEM)).json() == {
        "type": "https://shop.example/no-credit",
        "title": "No credit",
        "status": 403,
        "detail": "It is 30",
        "balance": 30,
    }
    assert (await ask("GET", "/odd", PROBLEM)).json() == {"type": "about:blank", "status": 499, "detail": "Odd"}


async def test_answers_in_another_format_and_successes_stay_as_they_are() -> None:
    own = await ask("GET", "/own", PROBLEM)
    other = await ask("GET", "/other", PROBLEM)
    answer = await ask("POST", "/orders", PROBLEM, json={"amount": 1})
    assert (own.json(), other.json()) == ({"mine": True}, {"error": "other"})
    assert answer.headers["content-type"] == "application/json"
    for each in (own, other, answer):
        assert "vary" not in each.headers


async def test_head_gets_the_headers_of_the_problem() -> None:
    answer = await ask("HEAD", "/balance", PROBLEM)
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (403, PROBLEM, b"")
