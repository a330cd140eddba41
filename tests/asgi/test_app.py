"""The path of a request: who is asked when, what errors become, what observers and logs are told, the lifespan."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from jimsapi.asgi import (
    CLIENT_GONE,
    App,
    ClientDisconnected,
    HTTPError,
    JSONResponse,
    Request,
    RequestRecord,
    Response,
    Route,
    StreamingResponse,
    request_id,
)
from jimsapi.asgi.connection import Connection
from jimsapi.asgi.testing import TestClient
from jimsapi.asgi.types import ASGIApp, Message, Receive, Scope, Send

from .driver import Exchange, chunks, http_scope, recorded

pytestmark = pytest.mark.anyio


def small(**options: Any) -> App:
    app = App(**options)

    @app.get("/public", public=True)
    async def public(request: Request) -> Response:
        return JSONResponse({"admission": request.admission})

    @app.post("/private", scope="chat")
    async def private(request: Request) -> Response:
        await request.body()
        return JSONResponse({"admission": request.admission})

    @app.get("/healthz", public=True, probe=True)
    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/breaks", public=True)
    async def breaks(request: Request) -> Response:
        raise LookupError("a secret detail")

    return app


async def ask(app: App, path: str, method: str = "GET", **changes: Any) -> Exchange:
    return await Exchange(*chunks(b"")).run(app, http_scope(method, path, **changes))


# Admission.


async def test_admission_comes_before_the_body_and_its_answer_is_on_the_request() -> None:
    asked: list[tuple[str, str | None]] = []

    async def admit(request: Request, route: Route) -> object:
        asked.append((request.path, route.scope))
        return "anna"

    exchange = await ask(small(admit=admit), "/private", "POST")
    assert exchange.body == b'{"admission":"anna"}'
    assert asked == [("/private", "chat")]


async def test_who_is_refused_has_no_byte_of_the_body_read() -> None:
    async def admit(request: Request, route: Route) -> object:
        raise HTTPError(401, "Unauthorized", {"www-authenticate": "Bearer"})

    exchange = await ask(small(admit=admit), "/private", "POST", headers=[(b"content-length", b"67108864")])
    assert (exchange.status, exchange.asked) == (401, 0)
    assert exchange.headers["www-authenticate"] == "Bearer"
    assert exchange.headers["connection"] == "close"
    assert exchange.body == b'{"detail":"Unauthorized"}'


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/public", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/private", 405),
        ("OPTIONS", "/private", 204),
        ("POST", "/private/", 307),
        ("HEAD", "/healthz", 200),
    ],
)
async def test_nobody_is_asked_for_admission_here(method: str, path: str, status: int) -> None:
    async def admit(request: Request, route: Route) -> object:
        raise AssertionError("asked")

    assert (await ask(small(admit=admit), path, method)).status == status


async def test_an_admission_that_breaks_admits_nobody() -> None:
    async def admit(request: Request, route: Route) -> object:
        raise ZeroDivisionError

    assert (await ask(small(admit=admit), "/private", "POST")).status == 500


# Methods.


async def test_head_has_the_headers_of_get_and_no_body() -> None:
    app = small()
    get, head = await ask(app, "/healthz"), await ask(app, "/healthz", "HEAD")
    assert head.headers == get.headers == {"content-length": "15", "content-type": "application/json"}
    assert (get.body, head.body) == (b'{"status":"ok"}', b"")
    assert (await ask(app, "/nowhere", "HEAD")).body == b""


async def test_options_and_405_name_the_methods_of_the_path() -> None:
    app = small()
    options = await ask(app, "/healthz", "OPTIONS")
    assert (options.status, options.headers["allow"], options.body) == (204, "GET, HEAD, OPTIONS", b"")
    assert "content-length" not in options.headers
    wrong = await ask(app, "/private", "BREW")
    assert (wrong.status, wrong.headers["allow"]) == (405, "OPTIONS, POST")
    assert wrong.body == b'{"detail":"Method Not Allowed"}'


async def test_a_route_for_options_or_head_of_its_own_goes_first() -> None:
    app = App()

    @app.route("/x", ["OPTIONS", "HEAD"])
    async def own(request: Request) -> Response:
        return Response(status=202)

    @app.get("/x")
    async def get(request: Request) -> Response:
        return Response()

    assert [(await ask(app, "/x", method)).status for method in ("OPTIONS", "HEAD", "GET")] == [202, 202, 200]


async def test_an_unknown_path_is_404_and_star_is_none() -> None:
    exchange = await ask(small(), "/nowhere")
    assert (exchange.status, exchange.body) == (404, b'{"detail":"Not Found"}')
    assert (await ask(small(), "*", "OPTIONS")).status == 404


# Errors.


async def test_an_unexpected_error_is_a_bare_500_logged_with_traceback_and_id(caplog: pytest.LogCaptureFixture) -> None:
    exchange = await ask(small(), "/breaks", headers=[(b"x-request-id", b"r-1")])
    assert (exchange.status, exchange.body) == (500, b'{"detail":"Internal Server Error"}')
    [entry] = caplog.records
    assert (entry.name, entry.levelname, entry.getMessage()) == (
        "jimsapi.asgi",
        "ERROR",
        "A request failed: GET /breaks",
    )
    assert entry.exc_info is not None
    assert isinstance(entry.exc_info[1], LookupError)
    assert entry.__dict__["request_id"] == "r-1"


async def test_a_handler_of_errors_is_found_by_the_nearest_class() -> None:
    app = small()

    @app.exception_handler(Exception)
    def anything(request: Request, error: Exception) -> Response:
        return Response("anything", 500)

    @app.exception_handler(LookupError)
    def lookup(request: Request, error: LookupError) -> Response:
        return JSONResponse({"detail": f"{request.path}: {error}"}, 409)

    @app.get("/key")
    async def key(request: Request) -> Response:
        raise KeyError("k")

    @app.get("/value")
    async def value(request: Request) -> Response:
        raise ValueError

    @app.get("/http")
    async def http(request: Request) -> Response:
        raise HTTPError(418)

    assert (await ask(app, "/breaks")).body == b'{"detail":"/breaks: a secret detail"}'
    assert (await ask(app, "/key")).status == 409
    assert (await ask(app, "/value")).body == b"anything"
    assert (await ask(app, "/http")).body == b'{"detail":"I\'m a Teapot"}'


@pytest.mark.parametrize(("path", "status"), [("/refused", 401), ("/raised", 418), ("/broken", 500)])
async def test_a_route_may_reword_every_answer_to_an_error_and_no_other_answer(path: str, status: int) -> None:
    async def admit(request: Request, route: Route) -> object:
        if request.path == "/refused":
            raise HTTPError(401)
        return None

    def reword(answer: Response) -> Response:
        return JSONResponse({"said": orjson.loads(answer.body or b"")["detail"]}, answer.status)

    app = App(admit=admit)

    @app.get("/raised", reword=reword)
    @app.get("/broken", reword=reword)
    @app.get("/refused", reword=reword)
    async def handler(request: Request) -> Response:
        raise HTTPError(418) if request.path == "/raised" else ZeroDivisionError

    @app.get("/fine", reword=reword)
    async def fine(request: Request) -> Response:
        return JSONResponse({"detail": "as it is"}, 404)

    answer = await ask(app, path)
    assert answer.status == status
    assert b'{"said":' in answer.body
    assert (await ask(app, "/fine")).body == b'{"detail":"as it is"}'


async def test_a_handler_of_errors_that_fails_is_a_500_that_logs_both(caplog: pytest.LogCaptureFixture) -> None:
    app = small()

    @app.exception_handler(LookupError)
    def lookup(request: Request, error: LookupError) -> Response:
        raise ZeroDivisionError

    assert (await ask(app, "/breaks")).status == 500
    assert "ZeroDivisionError" in caplog.text
    assert "a secret detail" in caplog.text


async def test_a_handler_of_errors_that_returns_no_response_is_a_500_that_names_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = small()

    @app.exception_handler(LookupError)
    def lookup(request: Request, error: LookupError) -> Any:
        return {"detail": "not a response"}

    assert (await ask(app, "/breaks")).body == b'{"detail":"Internal Server Error"}'
    assert "The exception handler of LookupError returned dict, not a Response." in caplog.text
    assert "a secret detail" in caplog.text


def test_a_handler_of_errors_that_is_async_is_refused() -> None:
    async def lookup(request: Request, error: LookupError) -> Any: ...

    handler: Any = lookup
    with pytest.raises(ValueError, match="of LookupError must be a plain `def`"):
        App().exception_handler(LookupError)(handler)


async def test_a_handler_that_returns_no_response_is_a_500_that_names_it(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.get("/")
    async def handler(request: Request) -> Any:
        return "not a response"

    assert (await ask(app, "/")).status == 500
    assert "returned str, not a Response" in caplog.text


async def test_an_error_after_the_start_is_logged_and_raised_so_that_the_server_cuts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = small()
    records = recorded(app)

    @app.get("/torn")
    async def torn(request: Request) -> Response:
        async def content() -> AsyncIterator[bytes]:
            yield b"x"
            raise LookupError("torn")

        return StreamingResponse(content())

    with pytest.raises(LookupError):
        await ask(app, "/torn")
    assert "An answer was cut: GET /torn" in caplog.text
    assert [(record.route, record.status) for record in records] == [("/torn", 200)]


async def test_a_client_that_leaves_in_mid_body_is_not_answered_and_logged_at_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = small()
    records = recorded(app)
    exchange = Exchange({"type": "http.request", "body": b"x", "more_body": True}, hangs_up=True)
    with caplog.at_level(logging.DEBUG, "jimsapi.asgi"):
        await exchange.run(app, http_scope("POST", "/private"))
    assert exchange.sent == []
    assert {entry.levelname for entry in caplog.records} == {"DEBUG"}
    assert [record.status for record in records] == [CLIENT_GONE]


async def test_a_server_that_says_the_client_left_is_not_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def send(message: Message) -> None:
        raise OSError

    await small()(http_scope(path="/public"), Exchange().receive, send)
    assert caplog.records == []


def test_errors_say_what_they_are() -> None:
    assert str(HTTPError(404)) == "404 Not Found"
    assert HTTPError(404).detail == "Not Found"
    assert issubclass(ClientDisconnected, Exception)


@pytest.mark.parametrize("status", [5, 99, 100, 1000, None, "404"])
def test_an_error_cannot_be_made_with_a_status_that_no_answer_has(status: Any) -> None:
    with pytest.raises(ValueError, match=f"HTTPError cannot answer with the status {status!r}: give one such as 404"):
        HTTPError(status, "the detail")
    assert HTTPError(599, "the detail").status == 599


# Request ids.


async def test_a_well_formed_id_is_taken_over() -> None:
    exchange = await ask(small(), "/public", headers=[(b"x-request-id", b"A-z.0_9")])
    assert exchange.headers["x-request-id"] == "A-z.0_9"


@pytest.mark.parametrize("given", [b"", b"a b", b"a\xff", b"a" * 129, b"a\n", b"a;b"])
async def test_an_id_that_is_not_well_formed_is_replaced(given: bytes) -> None:
    exchange = await ask(small(), "/public", headers=[(b"x-request-id", given)])
    assert exchange.headers["x-request-id"].encode() != given
    assert exchange.headers["x-request-id"]


async def test_ids_are_on_every_answer_but_the_probes_and_never_repeat() -> None:
    async def admit(request: Request, route: Route) -> object:
        raise HTTPError(401)

    app = small(admit=admit)
    asked = [("GET", "/public"), ("POST", "/private"), ("GET", "/nowhere"), ("PUT", "/public"), ("GET", "/breaks")]
    ids = [(await ask(app, path, method)).headers["x-request-id"] for method, path in [*asked, ("GET", "/public/")]]
    assert len(set(ids)) == 6
    assert "x-request-id" not in (await ask(app, "/healthz")).headers


async def test_a_task_knows_the_id_of_its_request_and_not_of_an_earlier_one() -> None:
    app = App()
    seen = []

    async def handler(request: Request) -> Response:
        seen.append((request_id.get(), request.request_id))
        return Response()

    app.get("/x")(handler)
    app.get("/probe", probe=True)(handler)
    for path, given in (("/x", b"one"), ("/x", b"two"), ("/probe", b"three")):
        await ask(app, path, headers=[(b"x-request-id", given)])
    assert seen == [("one", "one"), ("two", "two"), ("", "")]


# Observers.


async def test_observers_are_told_of_every_answer() -> None:
    app = small()
    records = recorded(app)

    @app.get("/things/{n:int}")
    async def thing(request: Request) -> Response:
        request.note("thread", "t")
        return Response(status=202)

    await ask(app, "/things/5", headers=[(b"x-request-id", b"r")])
    await ask(app, "/nowhere", "BREW")
    await ask(app, "/healthz")
    await ask(app, "/breaks")
    told = [(r.method, r.route, r.path, r.status, r.probe, dict(r.fields)) for r in records]
    assert told == [
        ("GET", "/things/{n:int}", "/things/5", 202, False, {"thread": "t"}),
        ("_OTHER", "unmatched", "/nowhere", 404, False, {}),
        ("GET", "/healthz", "/healthz", 200, True, {}),
        ("GET", "/breaks", "/breaks", 500, False, {}),
    ]
    assert records[0].request_id == "r"
    assert all(record.duration >= 0 for record in records)
    with pytest.raises(AttributeError):
        records[0].status = 1  # type: ignore[misc]  # that it is frozen is what is tested


async def test_an_observer_that_raises_harms_nobody_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    app = small()
    records: list[RequestRecord] = []

    class Broken:
        __hash__ = None  # type: ignore[assignment]  # as a dataclass's instance has none

        def __call__(self, record: RequestRecord) -> None:
            raise LookupError("broken")

    app.on_request += [Broken(), records.append]
    for _ in range(3):
        assert (await ask(app, "/public")).status == 200
    assert len(records) == 3
    assert caplog.text.count("LookupError: broken") == 1


async def test_a_description_of_requests_that_fails_harms_nobody_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = small()
    records = recorded(app)

    def describe(request: Connection) -> dict[str, str]:
        if request.scope["path"] == "/public":
            raise LookupError("broken")
        return {"who": "me"}

    app.describe_request = describe
    for path in ("/public", "/public", "/nowhere"):
        await ask(app, path)
    assert [record.fields.get("who") for record in records] == [None, None, "me"]
    assert caplog.text.count("LookupError: broken") == 1


# While refusing.


async def test_a_refusing_app_answers_only_its_probes_and_still_takes_routes() -> None:
    asked: list[str] = []

    async def admit(request: Request, route: Route) -> object:
        asked.append(request.path)
        return None

    app = small(admit=admit)
    app.refusal = JSONResponse({"detail": "starting"}, 503, {"connection": "close"})
    for method, path in (("GET", "/public"), ("POST", "/private"), ("GET", "/nowhere"), ("PUT", "/public")):
        exchange = await ask(app, path, method)
        assert (exchange.status, exchange.headers["connection"]) == (503, "close")
        assert exchange.headers["x-request-id"]
    assert asked == []
    assert (await ask(app, "/healthz")).status == 200
    app.refusal = None
    assert (await ask(app, "/public")).status == 200


async def test_a_refused_request_does_not_close_the_app_to_new_routes() -> None:
    app = App()
    app.refusal = Response(status=503)
    await ask(app, "/late")

    @app.get("/late")
    async def late(request: Request) -> Response:
        return Response()

    app.refusal = None
    assert (await ask(app, "/late")).status == 200


# Wrappers.


def marking(name: str, log: list[str]) -> Any:
    def wrapper(inner: ASGIApp) -> ASGIApp:
        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            log.append(f"{name} in")
            await inner(scope, receive, send)
            log.append(f"{name} out")

        return wrapped

    return wrapper


async def test_the_last_wrapper_is_the_outermost_and_sees_requests_only() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        app.wrap(marking("first", log))
        app.wrap(marking("second", log))
        yield

    async with TestClient(small(lifespan=lifespan)) as client:
        assert log == []
        assert (await client.get("/public")).status_code == 200
    assert log == ["second in", "first in", "first out", "second out"]


# Lifespan.


async def test_temporary_declarations_are_gone_when_their_context_is_left_and_may_be_made_again() -> None:
    log: list[str] = []
    told: list[str] = []
    app = small()
    app.on_request.append(lambda record: told.append("own"))
    for _ in range(2):
        with app.temporary_declarations():
            app.wrap(marking("temporary", log))
            app.on_request.append(lambda record: told.append("temporary"))

            @app.get("/temporary", public=True)
            async def temporary(request: Request) -> Response:
                return Response()

            assert (await ask(app, "/temporary")).status == 200
            assert (await ask(app, "/public")).status == 200
            with pytest.raises(RuntimeError, match="answered requests already"):
                app.get("/late")(temporary)
        assert (await ask(app, "/temporary")).status == 404
    assert log == ["temporary in", "temporary out"] * 4
    assert told == [*["own", "temporary"] * 2, "own"] * 2
    app.get("/own")(temporary)
    assert (await ask(app, "/own")).status == 200


async def test_a_lifespan_may_add_routes_and_is_left_in_the_end() -> None:
    log = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        @app.get("/late")
        async def late(request: Request) -> Response:
            return Response("late")

        log.append("up")
        yield
        log.append("down")

    async with TestClient(App(lifespan=lifespan)) as client:
        assert (await client.get("/late")).text == "late"
        assert log == ["up"]
    assert log == ["up", "down"]


async def live(app: App) -> list[Message]:
    exchange = Exchange({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    return (await exchange.run(app, {"type": "lifespan", "asgi": {"version": "3.0"}})).sent


async def test_a_start_that_fails_is_said_and_remembered() -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        if app.startup_error is None:
            raise LookupError("no store at there")
        yield

    app = App(lifespan=lifespan)
    assert await live(app) == [{"type": "lifespan.startup.failed", "message": "no store at there"}]
    assert isinstance(app.startup_error, LookupError)


async def test_a_shutdown_that_fails_is_said_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        yield
        raise LookupError

    sent = await live(App(lifespan=lifespan))
    assert sent[1:] == [{"type": "lifespan.shutdown.failed", "message": "LookupError"}]
    assert "LookupError" in caplog.text


async def test_an_app_without_a_lifespan_starts_and_stops() -> None:
    assert [message["type"] for message in await live(App())] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


# Other scopes.


async def test_a_websocket_of_no_route_is_closed_before_it_is_accepted() -> None:
    exchange = Exchange({"type": "websocket.connect"})
    await exchange.run(App(), {"type": "websocket", "path": "/", "headers": []})
    assert [message["type"] for message in exchange.sent] == ["websocket.close"]


async def test_an_unknown_scope_is_refused_by_raising() -> None:
    with pytest.raises(RuntimeError, match="telegraph"):
        await App()({"type": "telegraph"}, Exchange().receive, Exchange().send)


async def test_an_app_needs_no_optional_key_of_a_scope() -> None:
    scope = {"type": "http", "method": "GET", "path": "/public", "headers": []}
    exchange = await Exchange().run(small(), scope)
    assert json.loads(exchange.body) == {"admission": None}


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"admit": lambda request, route: None}, "needs an `async def` function"),
        ({"origins": "https://shop.example"}, "not one text"),
        ({"cors": ["https://shop.example"]}, "needs a Cors"),
        ({"drain_time": float("inf")}, "seconds from 0 to 86400, and not inf"),
        ({"drain_time": float("nan")}, "and not nan"),
        ({"drain_time": -1}, "and not -1"),
    ],
)
def test_an_argument_that_would_fail_later_is_refused_at_once(arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises((TypeError, ValueError), match=fault):
        App(**arguments)


def test_a_plain_function_for_websockets_is_refused_without_naming_threads() -> None:
    plain: Any = lambda ws: None  # noqa: E731 - the mistake
    with pytest.raises(ValueError, match=r"must be `async def`\.$"):
        App().websocket("/live")(plain)
