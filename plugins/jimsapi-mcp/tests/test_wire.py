"""What goes over the wire in both eras: requests, responses, errors, headers, and what is refused."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from mcp_wire import BOTH, META, PATH, chat, error, events, legacy, message, modern, result, start_session, text, tool

from jimsapi import JimsApp, StatusEvent, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio


async def bot(ctx: ThreadContext) -> None:
    """Knows all about quokkas."""
    said = str(ctx.get_last_user_message())
    if said == "fail":
        raise RuntimeError("the model is away")
    if said == "metadata":
        ctx.send_message(f"{ctx.metadata}")
    elif said == "trace":
        ctx.send_message("none" if ctx.trace_context is None else f"{ctx.trace_context}")
    elif said == "source":
        ctx.source(url="https://quokka.example", title="Quokka")
        ctx.send_message("See the source.")
    else:
        await ctx.update_agent_status(StatusEvent("Looking it up", "search"))
        async with ctx.tool("search", {"q": said}) as call:
            call.result = "2 hits"
        await ctx.stream("Hel")
        ctx.send_message("Hello")
        ctx.send_message(said)


@pytest.fixture
def settings() -> dict[str, Any]:
    return {}


@pytest.fixture
async def client(settings: dict[str, Any]) -> AsyncIterator[TestClient]:
    async with TestClient(create_api(JimsApp(bot, name="quokka"), store="memory:", **settings)) as client:
        yield client


# 2026-07-28: each request stands alone.


async def test_a_client_discovers_version_capabilities_and_name(client: TestClient) -> None:
    found = result(await client.post(PATH, **modern("server/discover")))
    assert found["supportedVersions"] == ["2026-07-28"]
    assert found["capabilities"] == {"tools": {}, "resources": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}}
    assert found["instructions"] == "Knows all about quokkas."
    assert (found["resultType"], found["cacheScope"]) == ("complete", "private")
    assert found["_meta"][f"{META}serverInfo"]["name"] == "quokka"


async def test_the_tools_are_described_by_the_app(client: TestClient) -> None:
    found = result(await client.post(PATH, **modern("tools/list")))
    assert [one["name"] for one in found["tools"]] == ["chat", "chat_start", "chat_get", "chat_cancel"]
    assert (found["resultType"], found["cacheScope"]) == ("complete", "private")
    first = found["tools"][0]
    assert (first["title"], first["description"].split("\n")[0]) == ("quokka", "Knows all about quokkas.")
    assert first["inputSchema"]["required"] == ["message"]
    for one in found["tools"]:
        jsonschema.Draft202012Validator.check_schema(one["inputSchema"])
        jsonschema.Draft202012Validator.check_schema(one["outputSchema"])


@pytest.mark.parametrize("accept", [BOTH, "application/json", "*/*"])
async def test_a_call_returns_text_and_structured_content_that_fits_the_schema(client: TestClient, accept: str) -> None:
    [first, *_] = result(await client.post(PATH, **modern("tools/list")))["tools"]
    found = result(await client.post(PATH, **modern("tools/call", chat("hi"), accept=accept)))
    assert (found["resultType"], found["isError"], text(found)) == ("complete", False, "Hello\n\nhi")
    structured = found["structuredContent"]
    jsonschema.validate(structured, first["outputSchema"])
    assert (structured["status"], structured["text"], structured["questions"]) == ("completed", "Hello\n\nhi", [])
    run = (await client.get(f"/api/v1/runs/{structured['run_id']}")).json()
    assert (run["thread_id"], run["status"]) == (structured["thread_id"], "completed")


async def test_the_answer_is_a_stream_if_the_client_accepts_one_and_else_json(client: TestClient) -> None:
    streamed = await client.post(PATH, **modern("tools/call", chat("hi")))
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.headers["x-run-id"] == result(streamed)["structuredContent"]["run_id"]
    whole = await client.post(PATH, **modern("tools/call", chat("hi"), accept="application/json"))
    assert whole.headers["content-type"] == "application/json"


async def test_metadata_of_a_call_reaches_the_pipeline_and_sources_reach_the_client(client: TestClient) -> None:
    found = result(await client.post(PATH, **modern("tools/call", chat("metadata", metadata={"locale": "de"}))))
    assert text(found) == "{'locale': 'de'}"
    found = result(await client.post(PATH, **modern("tools/call", chat("source"))))
    assert found["structuredContent"]["sources"] == [{"url": "https://quokka.example", "title": "Quokka"}]


@pytest.mark.parametrize(
    ("traceparent", "continued"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01", True),
        ("00-0af7651916cd43dd8448eb211c80319c", False),
        (7, False),
        (None, False),
    ],
)
@pytest.mark.parametrize("era", [modern, legacy])
async def test_the_trace_in_the_metadata_of_a_call_reaches_the_pipeline(
    client: TestClient, era: Any, traceparent: Any, continued: bool
) -> None:
    trace = {"traceparent": traceparent, "tracestate": "vendor=1"}
    params = {**chat("trace"), "_meta": trace}
    call = modern("tools/call", chat("trace"), meta=trace) if era is modern else legacy("tools/call", params)
    found = text(result(await client.post(PATH, **call)))
    assert ("0af7651916cd43dd8448eb211c80319c" in found and "vendor=1" in found) is continued


@pytest.mark.parametrize("accept", [BOTH, "application/json"])
async def test_a_failed_run_is_an_error_of_the_tool(client: TestClient, accept: str) -> None:
    found = result(await client.post(PATH, **modern("tools/call", chat("fail"), accept=accept)))
    assert found["isError"] is True
    assert text(found) == found["structuredContent"]["error"] == "Pipeline error: the model is away"
    assert found["structuredContent"]["status"] == "failed"


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("chat", {"message": 3}, "message"),
        ("chat", {}, "message"),
        ("chat", {"message": ""}, "message"),
        ("chat", {"message": "hi", "thread": ""}, "thread"),
        ("chat", {"message": "hi", "thread": ["t"]}, "thread"),
        ("chat", {"message": "hi", "metadata": "de"}, "metadata"),
        ("chat", {"message": "", "answers": {"q": 1}}, "thread"),
        ("chat_start", {"message": None}, "message"),
        ("chat_get", {}, "run_id"),
        ("chat_get", {"run_id": 5}, "run_id"),
        ("chat_get", {"run_id": "no id"}, "run_id"),
        ("chat_get", {"run_id": "01a22964-1241-7b14-9988-eef3611a571f", "wait": 51}, "wait"),
        ("chat_get", {"run_id": "01a22964-1241-7b14-9988-eef3611a571f"}, "Run not found"),
        ("chat_cancel", {}, "run_id"),
        ("chat_cancel", {"run_id": "01a22964-1241-7b14-9988-eef3611a571f"}, "Run not found"),
        ("chat", {"message": "hi", "thread": "01a22964-1241-7b14-9988-eef3611a571f"}, "Thread"),
    ],
)
async def test_arguments_that_a_model_can_correct_are_an_error_of_the_tool(
    client: TestClient, name: str, arguments: dict[str, Any], named: str
) -> None:
    for call in (modern("tools/call", tool(name, **arguments)), legacy("tools/call", tool(name, **arguments))):
        found = result(await client.post(PATH, **call))
        assert found["isError"] is True
        assert named in text(found)
        assert "structuredContent" not in found


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"name": "nothing"}, 400, -32602),
        ({"name": 3, "arguments": {}}, 400, -32602),
        ({"arguments": {}}, 400, -32602),
        ({"name": "chat", "arguments": ["hi"]}, 400, -32602),
        ({**chat("hi"), "inputResponses": 5}, 400, -32602),
        ({**chat("hi"), "inputResponses": [], "requestState": "s"}, 400, -32602),
        ({**chat("hi"), "requestState": "s"}, 400, -32602),
        ({**chat("hi"), "requestState": 3}, 400, -32602),
        ({**chat("hi"), "requestState": f"{'0' * 32}.9999999999.0.{'0' * 64}"}, 400, -32602),
    ],
)
async def test_a_malformed_call_is_a_protocol_error(
    client: TestClient, params: dict[str, Any], status: int, code: int
) -> None:
    headers = {} if isinstance(params.get("name"), str) else {"mcp-name": None}
    found = error(await client.post(PATH, **modern("tools/call", params, headers=headers)), status)
    assert found["code"] == code


@pytest.mark.parametrize("method", ["prompts/list", "initialize", "ping", "logging/setLevel", "resources/subscribe"])
async def test_an_unknown_method_is_404_with_the_error_of_json_rpc(client: TestClient, method: str) -> None:
    answer = await client.post(PATH, **modern(method, id="seven"))
    assert error(answer, 404)["code"] == -32601
    assert answer.json()["id"] == "seven"


@pytest.mark.parametrize("key", ["protocolVersion", "clientCapabilities"])
async def test_a_request_without_its_metadata_is_refused(client: TestClient, key: str) -> None:
    call = modern("tools/list")
    del call["json"]["params"]["_meta"][META + key]
    found = error(await client.post(PATH, **call), 400)
    assert found["code"] == -32602
    assert key in found["message"]


@pytest.mark.parametrize("meta", [{}, {"_meta": {}}, {"_meta": "x"}, None])
async def test_a_request_that_only_its_header_calls_modern_is_refused(client: TestClient, meta: Any) -> None:
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
    answer = await client.post(PATH, json=message("tools/list", meta), headers=headers)
    assert error(answer, 400)["code"] == -32602


@pytest.mark.parametrize("meta", [{f"{META}protocolVersion": 5}, {f"{META}clientCapabilities": "none"}])
async def test_metadata_of_the_wrong_type_is_refused(client: TestClient, meta: dict[str, Any]) -> None:
    assert error(await client.post(PATH, **modern("tools/list", meta=meta)), 400)["code"] in (-32602, -32020)


async def test_a_version_that_the_server_does_not_speak_is_refused_with_those_it_speaks(client: TestClient) -> None:
    meta, headers = {f"{META}protocolVersion": "2027-01-01"}, {"mcp-protocol-version": "2027-01-01"}
    found = error(await client.post(PATH, **modern("tools/list", meta=meta, headers=headers)), 400)
    assert found["code"] == -32022
    assert found["data"]["requested"] == "2027-01-01"
    discovered = result(await client.post(PATH, **modern("server/discover")))
    assert found["data"]["supported"] == discovered["supportedVersions"]


@pytest.mark.parametrize(
    "headers",
    [
        {"mcp-protocol-version": "2025-11-25"},
        {"mcp-protocol-version": None},
        {"mcp-method": "tools/list"},
        {"mcp-method": "TOOLS/CALL"},
        {"mcp-method": None},
        {"mcp-name": "chat_get"},
        {"mcp-name": None},
        {"mcp-name": "=?base64?!!?="},
        {"mcp-name": "=?base64?Y2hhdF9nZXQ=?="},
    ],
)
async def test_headers_must_say_what_the_body_says(client: TestClient, headers: dict[str, str | None]) -> None:
    answer = await client.post(PATH, **modern("tools/call", chat("hi"), headers=headers))
    assert error(answer, 400)["code"] == -32020


async def test_a_header_may_be_in_base64_and_must_be_there_once(client: TestClient) -> None:
    encoded = f"=?base64?{b64encode(b'chat').decode()}?="
    result(await client.post(PATH, **modern("tools/call", chat("hi"), headers={"mcp-name": encoded})))
    call = modern("tools/call", chat("hi"))
    twice = [*call["headers"].items(), ("mcp-name", "chat")]
    assert error(await client.post(PATH, json=call["json"], headers=twice), 400)["code"] == -32020


async def test_notifications_are_accepted_without_a_body(client: TestClient) -> None:
    for call in (
        legacy("notifications/initialized", id=None),
        legacy("notifications/cancelled", {"requestId": 1}, id=None),
        legacy("notifications/cancelled", {"requestId": ["x"]}, id=None),
        legacy("notifications/unheard-of", id=None),
    ):
        answer = await client.post(PATH, **call)
        assert (answer.status_code, answer.content) == (202, b"")


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_other_methods_of_http_are_not_allowed(client: TestClient, method: str) -> None:
    answer = await client.request(method, PATH, headers={"accept": "text/event-stream"})
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]


# Bodies that are refused.


@pytest.mark.parametrize(
    ("body", "code", "id"),
    [
        (b"{", -32700, None),
        (b"\xff", -32700, None),
        (b"", -32700, None),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"x":"\\ud800"}}', -32700, None),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"x":NaN}}', -32700, None),
        (b"[]", -32600, None),
        (b'[{"jsonrpc":"2.0","id":7,"method":"tools/list"}]', -32600, None),
        (b"5", -32600, None),
        (b'"text"', -32600, None),
        (b"null", -32600, None),
        (b"{}", -32600, None),
        (b'{"jsonrpc":"1.0","id":7,"method":"tools/list"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":null,"method":"tools/list"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":true,"method":"tools/list"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"tools/list"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":{"a":1},"method":"tools/list"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":7,"method":5}', -32600, None),
        (b'{"jsonrpc":"2.0","id":7}', -32600, None),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":[1]}', -32602, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":null}', -32602, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"arguments":{"message":"\\u0000"}}}', -32602, 7),
        (b'{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"\\u0000":{}}}', -32602, "a"),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"x":' + b"9" * 25 + b"}}", -32602, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"x":' + b"9" * 400 + b"}}", -32700, None),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"x":' + b"[" * 300 + b"]" * 300 + b"}}", -32602, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"x","params":{"x":' + b"[" * 99_000 + b"]" * 99_000 + b"}}", -32700, None),
        (b'{"jsonrpc":"2.0","id":"' + b"i" * 100_000 + b'","method":"tools/list"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":7,"result":{}}', -32600, None),
        (b'{"jsonrpc":"2.0","id":"x.y.z","result":{"action":"accept"}}', -32600, None),
    ],
)  # fmt: skip
async def test_a_body_that_is_no_message_is_refused_in_the_form_of_json_rpc(
    client: TestClient, body: bytes, code: int, id: Any
) -> None:
    answer = await client.post(PATH, content=body, headers={"content-type": "application/json"})
    assert error(answer, 400)["code"] == code
    assert answer.json()["id"] == id
    assert len(answer.content) < 4096


async def test_limits_and_types_of_the_body_are_those_of_every_route(client: TestClient) -> None:
    large = legacy("tools/call", chat("x" * 1_100_000))
    answer = await client.post(PATH, **large)
    assert error(answer, 413)["code"] == -32600
    answer = await client.post(PATH, content=json.dumps(message("ping")), headers={"content-type": "text/plain"})
    assert error(answer, 415)["code"] == -32600


# Earlier versions: they begin with `initialize`.


@pytest.mark.parametrize(
    ("asked", "agreed"),
    [
        ("2025-11-25", "2025-11-25"),
        ("2025-06-18", "2025-06-18"),
        ("2025-03-26", "2025-03-26"),
        ("1999-01-01", "2025-11-25"),
        (None, "2025-11-25"),
        (["2025-06-18"], "2025-11-25"),
    ],
)
async def test_an_earlier_client_agrees_on_a_version(client: TestClient, asked: Any, agreed: str) -> None:
    answer = await client.post(PATH, **legacy("initialize", {"protocolVersion": asked, "capabilities": {}}))
    found = result(answer)
    assert found["protocolVersion"] == agreed
    assert found["serverInfo"]["name"] == "quokka"
    assert found["capabilities"] == {"tools": {}, "resources": {}}
    assert "resultType" not in found


async def test_sessions_do_not_share_an_identifier(client: TestClient) -> None:
    assert len({await start_session(client) for _ in range(20)}) == 20


async def test_an_earlier_client_pings_lists_and_calls(client: TestClient) -> None:
    session = await start_session(client)
    assert result(await client.post(PATH, **legacy("ping", session=session))) == {}
    listed = result(await client.post(PATH, **legacy("tools/list", session=session)))
    assert set(listed) == {"tools"}
    called = result(await client.post(PATH, **legacy("tools/call", chat("hi"), session=session)))
    assert set(called) == {"content", "structuredContent", "isError"}
    assert text(called) == "Hello\n\nhi"


async def test_an_earlier_client_gets_its_errors_with_200(client: TestClient) -> None:
    session = await start_session(client)
    assert error(await client.post(PATH, **legacy("prompts/list", session=session)), 200)["code"] == -32601
    unknown = {"name": "nothing", "arguments": {}}
    assert error(await client.post(PATH, **legacy("tools/call", unknown, session=session)), 200)["code"] == -32602


async def test_a_call_without_a_session_works_and_a_foreign_session_too(client: TestClient) -> None:
    for session in (None, "of-another-server", "e-", "x" * 5000):
        assert (
            text(result(await client.post(PATH, **legacy("tools/call", chat("hi"), session=session)))) == "Hello\n\nhi"
        )


# Progress.


def progress(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert all(one["method"] == "notifications/progress" for one in found[:-1])
    return [one["params"] for one in found[:-1]]


@pytest.mark.parametrize("token", ["a token", 0, 17])
@pytest.mark.parametrize("era", [modern, legacy])
async def test_progress_has_statuses_tools_and_pieces_with_rising_numbers(
    client: TestClient, era: Any, token: Any
) -> None:
    params = chat("quokka")
    call = modern("tools/call", params, meta={"progressToken": token})
    if era is legacy:
        call = legacy("tools/call", {**params, "_meta": {"progressToken": token}})
    told = progress(events(await client.post(PATH, **call)))
    assert [one["message"] for one in told][:3] == ["Looking it up", "Uses the tool search", "Hel"]
    assert [one["progress"] for one in told] == list(range(1, len(told) + 1))
    assert all(one["progressToken"] == token for one in told)


@pytest.mark.parametrize("token", [None, "x" * 5000, 1.5, True, ["a"], {"a": 1}])
async def test_there_is_no_progress_without_a_token_that_the_server_repeats(client: TestClient, token: Any) -> None:
    call = modern("tools/call", chat("hi"), meta={} if token is None else {"progressToken": token})
    assert len(events(await client.post(PATH, **call))) == 1


async def test_a_silent_pipeline_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jimsapi_mcp.progress.HEARTBEAT", 0.01)
    heard = 0

    async def silent(ctx: ThreadContext) -> None:
        await ctx.update_agent_status("Thinking")
        await asyncio.sleep(0.2)
        ctx.send_message("done")

    async with TestClient(create_api(silent, store="memory:")) as client:
        call = modern("tools/call", chat("hi"), meta={"progressToken": "t"})
        told = progress(events(await client.post(PATH, **call)))
        heard = len(told)
        assert heard >= 3
        assert [one.get("message") for one in told].count("Thinking") >= 3
        assert [one["progress"] for one in told] == list(range(1, heard + 1))


async def test_a_pipeline_that_only_reasons_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jimsapi_mcp.progress.HEARTBEAT", 0.05)

    async def reasoning(ctx: ThreadContext) -> None:
        for _ in range(40):
            ctx.reasoning("Hm. ")
            await asyncio.sleep(0.01)
        ctx.send_message("done")

    async with TestClient(create_api(reasoning, store="memory:")) as client:
        call = modern("tools/call", chat("hi"), meta={"progressToken": "t"})
        assert len(progress(events(await client.post(PATH, **call)))) >= 3


async def test_many_pieces_are_sent_together(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fast(ctx: ThreadContext) -> None:
        for _ in range(500):
            await ctx.stream("x")
        await ctx.update_agent_status("Done")
        ctx.send_message("x" * 500)

    async with TestClient(create_api(fast, store="memory:")) as client:
        call = modern("tools/call", chat("hi"), meta={"progressToken": "t"})
        told = progress(events(await client.post(PATH, **call)))
        *pieces, done = [one["message"] for one in told]
        assert ("".join(pieces), done) == ("x" * 500, "Done")
        assert len(pieces) < 50


# Pages of other origins.


@pytest.mark.parametrize(
    ("host", "origin", "scheme", "status"),
    [
        ("127.0.0.1:8000", None, "http", 200),
        ("bot.example", None, "https", 200),
        ("127.0.0.1:8000", "http://evil.example", "http", 403),
        ("127.0.0.1:8000", "null", "http", 403),
        ("127.0.0.1:8000", "http://127.0.0.1:8000", "http", 200),
        ("localhost:8000", "http://localhost:8000", "http", 200),
        ("[::1]:8000", "http://[::1]:8000", "http", 200),
        ("127.0.0.1:8000", "http://localhost:8000", "http", 403),
        ("127.0.0.1:8000", "http://127.0.0.1:9000", "http", 403),
        # The page has pointed its own name at this server.
        ("evil.example:8000", "http://evil.example:8000", "http", 403),
        ("bot.example", "https://bot.example", "https", 200),
        ("bot.example", "http://bot.example", "https", 403),
    ],
)
async def test_pages_of_other_origins_are_refused(
    client: TestClient, host: str, origin: str | None, scheme: str, status: int
) -> None:
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    call = legacy("ping", headers=headers)
    answer = await client.post(f"{scheme}://{host}{PATH}", **call)
    assert answer.status_code == status, answer.text
    if status == 403:
        assert answer.json()["error"]["code"] == 403


@pytest.mark.parametrize("settings", [{"cors_origin": ["https://page.example"]}, {"cors_origin": ["*"]}])
async def test_pages_that_cors_allows_may_use_the_server(client: TestClient, settings: dict[str, Any]) -> None:
    answer = await client.post(PATH, **legacy("ping", headers={"origin": "https://page.example"}))
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] in ("https://page.example", "*")
    begun = await client.post(PATH, **legacy("initialize", {}, headers={"origin": "https://page.example"}))
    assert "mcp-session-id" in begun.headers["access-control-expose-headers"]
    other = await client.post(PATH, **legacy("ping", headers={"origin": "https://other.example"}))
    assert other.status_code == (200 if settings["cors_origin"] == ["*"] else 403)


# Options.


@pytest.mark.parametrize(
    "settings", [{"mcp_path": "/agents/mcp", "mcp_tool": "ask", "mcp_title": "Quokka bot", "mcp_description": "Asks."}]
)
async def test_options_name_the_path_and_the_tools(client: TestClient, settings: dict[str, Any]) -> None:
    assert (await client.post(PATH, **legacy("ping"))).status_code == 404
    listed = result(await client.post("/agents/mcp", **modern("tools/list")))["tools"]
    assert [one["name"] for one in listed] == ["ask", "ask_start", "ask_get", "ask_cancel"]
    assert (listed[0]["title"], listed[0]["description"].split("\n")[0]) == ("Quokka bot", "Asks.")
    found = result(await client.post("/agents/mcp", **modern("tools/call", tool("ask", message="hi"))))
    assert text(found) == "Hello\n\nhi"


@pytest.mark.parametrize(
    ("name", "value"),
    [("mcp_path", "mcp"), ("mcp_path", "/"), ("mcp_path", "/mcp/"), ("mcp_path", "/{id}"), ("mcp_tool", "a b")],
)
async def test_an_option_that_clients_could_not_use_stops_the_start(name: str, value: str) -> None:
    with pytest.raises(RuntimeError, match=f"--{name.replace('_', '-')}"):
        async with TestClient(create_api(bot, store="memory:", **{name: value})):
            pass


async def test_an_app_describes_itself() -> None:
    app = JimsApp(bot, description="Finds quokkas.")
    async with TestClient(create_api(app, store="memory:")) as client:
        [first, *_] = result(await client.post(PATH, **modern("tools/list")))["tools"]
        assert first["description"].startswith("Finds quokkas.")


# Limits.


@pytest.mark.parametrize("settings", [{"rate_limit": "1/h"}])
@pytest.mark.parametrize("era", [modern, legacy])
async def test_a_limit_of_the_caller_is_answered_as_everywhere(client: TestClient, era: Any) -> None:
    named = chat("hi", thread="t")
    assert (await client.post(PATH, **era("tools/call", named))).status_code == 200
    answer = await client.post(PATH, **era("tools/call", named))
    assert error(answer, 429)["code"] == 429
    assert int(answer.headers["retry-after"]) > 0
    assert "ratelimit" in answer.headers
    assert answer.json()["id"] == 1
