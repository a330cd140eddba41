"""What a handler sees of the caller, and how a body is read."""

import json
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from jimsapi.asgi import App, ClientDisconnected, Connection, HTTPError, JSONResponse, Request, Response
from jimsapi.asgi.testing import TestClient
from jimsapi.asgi.types import Message

from .driver import Exchange, ask, chunks, http_scope

pytestmark = pytest.mark.anyio

JSON = (b"content-type", b"application/json")


def connection(*headers: tuple[bytes, bytes], **changes: Any) -> Connection:
    return Connection(http_scope(headers=list(headers), **changes))


def a_request(*messages: Message, headers: list[tuple[bytes, bytes]], max_body: int = 100) -> tuple[Request, Exchange]:
    exchange = Exchange(*messages)
    return Request(http_scope("POST", headers=headers), exchange.receive, max_body), exchange


# Connection.


def test_a_connection_can_be_made_from_a_scope_with_hardly_anything_in_it() -> None:
    bare = Connection({"type": "http", "headers": [(b"x-ticket", b"secret")]})
    assert bare.headers.get("X-Ticket") == "secret"
    assert (bare.method, bare.path, bare.client, bare.cookies, bare.noted) == ("GET", "/", None, {}, {})
    assert bare.query.get("a") is None
    assert Connection({"type": "http"}).headers.get("x") is None


def test_headers_are_found_in_any_case_the_first_first() -> None:
    headers = connection((b"accept", b"a"), (b"accept", b"b"), (b"x-name", "é".encode("latin-1"))).headers
    assert headers.get("Accept") == "a"
    assert headers.getlist("ACCEPT") == ["a", "b"]
    assert headers.get("x-name") == "é"
    assert headers.get("none") is None
    assert "accept" in headers
    assert "none" not in headers
    assert list(headers) == [("accept", "a"), ("accept", "b"), ("x-name", "é")]
    assert len(headers) == 3


def test_a_name_outside_latin_1_is_just_not_there() -> None:
    assert "名" not in connection((b"accept", b"a")).headers


def test_neither_headers_nor_query_show_their_values_in_a_repr() -> None:
    seen = connection((b"authorization", b"Bearer geheim"), query_string=b"token=geheim")
    for shown in (repr(seen), repr(seen.headers), repr(seen.query)):
        assert "geheim" not in shown


def test_query_fields_are_decoded_and_the_last_of_a_name_counts() -> None:
    query = connection(query_string=b"a=1&a=2&b=%C3%A9+x&empty=&bad=%ff%00").query
    assert query.get("a") == "2"
    assert query.getlist("a") == ["1", "2"]
    assert query.get("b") == "é x"
    assert query.get("empty") == ""
    assert query.get("none") is None
    assert "empty" in query
    assert query.get("bad") == "\ufffd\0"
    assert len(list(query)) == len(query) == 5


def test_a_query_of_too_many_fields_is_a_400() -> None:
    with pytest.raises(HTTPError, match="1000 fields") as caught:
        _ = connection(query_string=b"a=1&" * 1001).query
    assert caught.value.status == 400


def test_repeated_cookie_headers_are_joined_and_the_first_of_a_name_counts() -> None:
    seen = connection((b"cookie", b'a=1; b="x y"; c'), (b"cookie", b"a=2; d=e=f"))
    assert seen.cookies == {"a": "1", "b": "x y", "d": "e=f"}


def test_a_port_may_be_text_and_a_socket_have_none() -> None:
    assert connection(client=("::1", "80")).client == ("::1", 80)
    assert connection(client=("unix:", None)).client == ("unix:", 0)


def test_the_path_is_that_within_the_app() -> None:
    assert connection(path="/api/things", root_path="/api").path == "/things"
    assert connection(path="/things", root_path="/api").path == "/things"
    assert connection(path="/apix/things", root_path="/api").path == "/apix/things"


def test_noted_fields_belong_to_one_connection() -> None:
    first, second = connection(), connection()
    first.note("thread", "t1")
    assert (first.noted, second.noted) == ({"thread": "t1"}, {})


@pytest.mark.parametrize("kind", [dict, MappingProxyType])
def test_fields_noted_together_may_serve_many_connections_and_stay_what_they_are(kind: Any) -> None:
    common = kind({"tenant": "t1"})
    first, second = connection(), connection()
    for each in (first, second):
        each.note_all(common)
    first.note("thread", "t1")
    first.note_all(common)
    second.note_all({"more": "told"})
    assert first.noted == {"tenant": "t1", "thread": "t1"}
    assert second.noted == {"tenant": "t1", "more": "told"}
    assert common == {"tenant": "t1"}


# The query as a model.


class Page(msgspec.Struct):
    contact_id: str
    limit: int = 100
    flag: bool = False
    many: list[int] = []


def test_a_query_becomes_a_model_with_its_defaults() -> None:
    page = connection(query_string=b"contact_id=&limit=6&limit=7&flag=yes&many=1&many=2&other=x").typed_query(Page)
    assert page == Page(contact_id="", limit=7, flag=True, many=[1, 2])
    assert connection(query_string=b"contact_id=c").typed_query(Page).limit == 100


# Bodies.


async def test_a_body_in_one_message_is_not_copied() -> None:
    whole = b"x" * 50
    for messages in (chunks(whole), chunks(whole, b"")):  # hypercorn and granian send an empty one behind it
        request, exchange = a_request(*messages, headers=[])
        assert await request.body() is whole
        assert await request.body() is whole
        assert exchange.asked <= 2


async def test_a_body_in_many_messages_is_joined() -> None:
    request, _ = a_request(*chunks(b"a", b"", b"bc", b""), headers=[])
    assert await request.body() == b"abc"


async def test_a_stream_gives_the_chunks_as_they_come_and_after_a_body_the_whole() -> None:
    request, _ = a_request(*chunks(b"a", b"", b"bc", b""), headers=[])
    assert [chunk async for chunk in request.stream()] == [b"a", b"bc"]
    with pytest.raises(RuntimeError, match="It can be read once"):
        await request.body()
    request, _ = a_request(*chunks(b"ab"), headers=[])
    await request.body()
    assert [chunk async for chunk in request.stream()] == [b"ab"]


async def test_a_declared_length_over_the_limit_is_refused_before_the_body_is_asked_for() -> None:
    request, exchange = a_request(headers=[(b"content-length", b"101")])
    with pytest.raises(HTTPError, match="limit of 100 bytes") as caught:
        await request.body()
    assert caught.value.status == 413
    assert exchange.asked == 0


async def test_bytes_are_counted_as_they_come_and_reading_stops_at_the_limit() -> None:
    for read in ("body", "stream"):
        request, exchange = a_request(*chunks(b"x" * 60, b"x" * 60, b"x", b"x"), headers=[])
        with pytest.raises(HTTPError, match="413"):
            await request.body() if read == "body" else [chunk async for chunk in request.stream()]
        assert exchange.asked == 2
    request, _ = a_request(*chunks(b"x" * 100), headers=[(b"content-length", b"100")])
    assert len(await request.body()) == 100


@pytest.mark.parametrize("length", [b"", b"-1", b"abc", b"9" * 5000])
async def test_a_length_that_is_no_number_is_not_believed(length: bytes) -> None:
    request, _ = a_request(*chunks(b"ab"), headers=[(b"content-length", length)])
    assert await request.body() == b"ab"


async def test_a_client_that_leaves_in_mid_body_raises() -> None:
    for read in ("body", "stream"):
        exchange = Exchange({"type": "http.request", "body": b"a", "more_body": True}, hangs_up=True)
        request = Request(http_scope("POST"), exchange.receive)
        with pytest.raises(ClientDisconnected):
            await request.body() if read == "body" else [chunk async for chunk in request.stream()]


# Declared as JSON.


def echo() -> App:
    app = App(max_body=1000)

    @app.post("/")
    async def handler(request: Request) -> Response:
        return JSONResponse(await request.json())

    return app


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/vnd.api+json",
        "application/json;charset=latin-1",
    ],
)
async def test_json_and_whatever_ends_in_json_is_read(content_type: str) -> None:
    answer = await ask(echo(), "POST", "/", content=b'{"a":1}', headers={"content-type": content_type})
    assert (answer.status_code, answer.json()) == (200, {"a": 1})


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/jsonp"]
)
async def test_what_a_foreign_page_may_post_is_415_and_not_read(content_type: str) -> None:
    exchange = Exchange(*chunks(b'{"a":1}'))
    headers = [(b"content-type", content_type.encode()), (b"content-length", b"7")]
    await exchange.run(echo(), http_scope("POST", headers=headers))
    assert (exchange.status, exchange.asked) == (415, 0)
    assert "content-type: application/json" in json.loads(exchange.body)["detail"]


@pytest.mark.parametrize("announced", [(b"content-length", b"7"), (b"transfer-encoding", b"chunked"), (b"x-none", b"")])
async def test_a_body_without_any_declaration_is_415(announced: tuple[bytes, bytes]) -> None:
    exchange = await Exchange(*chunks(b'{"a":1}')).run(echo(), http_scope("POST", headers=[announced]))
    assert exchange.status == 415
    assert exchange.asked == (1 if announced[0] == b"x-none" else 0)


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"0")], [JSON], [JSON, (b"content-length", b"0")]])
async def test_no_body_at_all_is_the_missing_fault(headers: list[tuple[bytes, bytes]]) -> None:
    exchange = await Exchange(*chunks(b"")).run(echo(), http_scope("POST", headers=headers))
    assert exchange.status == 422
    assert json.loads(exchange.body) == {
        "detail": [{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}]
    }


async def test_a_compressed_body_is_415_and_identity_is_not() -> None:
    async with TestClient(echo()) as client:
        for encoding, status in (("gzip", 415), ("identity", 200), ("Identity", 200)):
            headers = {"content-type": "application/json", "content-encoding": encoding}
            assert (await client.post("/", content=b"1", headers=headers)).status_code == status


# What an answer says about the connection when a body was left unread.


def deaf() -> App:
    app = App()

    @app.post("/")
    async def handler(request: Request) -> Response:
        return Response("no", 401)

    return app


@pytest.mark.parametrize(
    ("headers", "closes"),
    [
        ([(b"expect", b"100-continue"), (b"content-length", b"5")], True),
        ([(b"transfer-encoding", b"chunked")], True),
        ([(b"content-length", b"65537")], True),
        ([(b"content-length", b"65536")], False),
        ([], False),
    ],
)
async def test_an_unread_body_that_would_hold_up_the_connection_ends_it(
    headers: list[tuple[bytes, bytes]], closes: bool
) -> None:
    exchange = await Exchange().run(deaf(), http_scope("POST", headers=headers))
    assert ("connection" in exchange.headers) is closes
    assert exchange.asked == 0


async def test_a_body_that_was_read_leaves_the_connection_open() -> None:
    app = App()

    @app.post("/")
    async def handler(request: Request) -> Response:
        await request.body()
        return Response()

    exchange = Exchange(*chunks(b"x", b""))
    await exchange.run(app, http_scope("POST", headers=[(b"transfer-encoding", b"chunked")]))
    assert "connection" not in exchange.headers


async def test_a_body_over_the_limit_in_mid_stream_ends_the_connection() -> None:
    exchange = Exchange(*chunks(b"1" * 600, b"1" * 600, b"1"))
    await exchange.run(echo(), http_scope("POST", headers=[JSON, (b"transfer-encoding", b"chunked")]))
    assert (exchange.status, exchange.headers["connection"]) == (413, "close")


async def test_what_a_response_says_of_the_connection_stays_unless_it_must_end() -> None:
    app = App()

    @app.post("/")
    async def handler(request: Request) -> Response:
        return Response(headers={"connection": "keep-alive"})

    assert (await Exchange().run(app, http_scope("POST"))).headers["connection"] == "keep-alive"
    exchange = await Exchange().run(app, http_scope("POST", headers=[(b"content-length", b"99999999")]))
    values = [value for name, value in exchange.sent[0]["headers"] if name == b"connection"]
    assert values == [b"close"]


async def test_http_2_never_gets_a_connection_header() -> None:
    app = App()
    app.refusal = Response("starting", 503, {"connection": "close"})
    scope = http_scope("POST", headers=[(b"content-length", b"99999999")], http_version="2")
    assert "connection" not in (await Exchange().run(app, scope)).headers
    scope["http_version"] = "1.1"
    assert (await Exchange().run(app, scope)).headers["connection"] == "close"
