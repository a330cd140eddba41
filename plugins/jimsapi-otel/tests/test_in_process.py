"""Details, in the test's own process: OpenTelemetry allows it one exporter, which all tests share."""

import asyncio
from typing import Any

import pytest
from jimsapi_otel.errors import MAX_FRAMES
from jimsapi_otel.exporting import Exporting
from jimsapi_otel.requests import trace_requests
from jimsapi_otel.store import TracedStore
from opentelemetry import trace

from jimsapi import JimsApp, JSONResponse, Request, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import StoreUnavailable

pytestmark = pytest.mark.anyio

CHAT = "/api/v1/chat"
BODY = {"contact_id": "ann", "message": "hi"}
UNSET, OK, ERROR = 0, 1, 2


async def echo(ctx: ThreadContext) -> None:
    ctx.send_message("hi")


@pytest.mark.parametrize("time", ["first", "second"])
async def test_each_app_of_a_process_exports(shared_collector: Any, time: str) -> None:
    async with TestClient(create_api(JimsApp(echo, name=time), store="memory:")) as client:
        await client.post(CHAT, json=BODY)
    [pipeline] = shared_collector.named("jims.run_pipeline_with_context")
    assert pipeline.attributes["jims.pipeline"] == time
    [accepted] = shared_collector.named("jims.store.accept")
    assert "db.system.name" not in accepted.attributes  # the conventions have no name for a memory


async def test_a_conversation_start_has_a_span_of_its_own(shared_collector: Any) -> None:
    async def greet(ctx: ThreadContext) -> None:
        ctx.send_message("welcome")

    api = create_api(JimsApp(echo, conversation_start_pipeline=greet), store="memory:")
    async with TestClient(api) as client:
        await client.post(CHAT, json={**BODY, "run_conversation_start_on_new_thread": True})
        metrics = api.metrics()
    pipelines = shared_collector.named("jims.run_pipeline_with_context")
    assert [pipeline.attributes["jims.pipeline"] for pipeline in pipelines] == ["greet", "echo"]
    for name in ("greet", "echo"):  # they are counted under their own names
        assert f'jims_pipeline_runs_total{{pipeline="{name}",status="success"}} 1.0' in metrics


async def test_requests_at_once_have_traces_of_their_own(shared_collector: Any) -> None:
    together = asyncio.Barrier(5)

    async def answer(ctx: ThreadContext) -> None:
        await together.wait()
        ctx.send_message("hi")

    async with TestClient(create_api(answer, store="memory:")) as client:
        await asyncio.gather(*(client.post(CHAT, json={**BODY, "contact_id": f"c{n}"}) for n in range(5)))
    requests = {request.span_id: request for request in shared_collector.named(f"POST {CHAT}")}
    assert len({request.trace_id for request in requests.values()}) == 5
    pipelines = shared_collector.named("jims.run_pipeline_with_context")
    assert {pipeline.parent_id for pipeline in pipelines} == requests.keys()
    assert not trace.get_current_span().get_span_context().is_valid


async def test_a_path_that_may_name_a_person_is_exported_as_its_template(shared_collector: Any) -> None:
    api = create_api(echo, store="memory:")

    @api.get("/people/{name}", public=True)
    async def person(request: Request) -> JSONResponse:
        return JSONResponse(request.path_params["name"])

    async with TestClient(api) as client:
        assert (await client.get("/people/ann@example.org")).json() == "ann@example.org"
    [span] = shared_collector.spans
    assert span.name == "GET /people/{name}"
    assert span.attributes["url.path"] == span.attributes["http.route"] == "/people/{name}"
    assert b"ann@example.org" not in b"".join(shared_collector.raw)


async def test_a_missing_thread_is_an_answer_of_the_store_and_no_fault(shared_collector: Any) -> None:
    async with TestClient(create_api(echo, store="memory:")) as client:
        answer = await client.post(CHAT, json={**BODY, "thread_id": "01900000-0000-7000-8000-000000000000"})
        assert answer.status_code == 404
    [request] = shared_collector.named(f"POST {CHAT}")
    [accept] = shared_collector.named("jims.store.accept")
    assert request.status == accept.status == UNSET
    assert accept.attributes["error.type"] == "jimsapi.threads.errors.ThreadNotFound"


async def test_a_store_that_fails_is_a_fault_without_its_text(shared_collector: Any) -> None:
    class Failing(MemoryStore):
        error: Exception = StoreUnavailable("full of said-by-ann")

        async def cancel(self, run_id: object) -> Any:
            raise self.error

    async with Exporting():
        store = Failing()
        traced: Any = TracedStore(store)
        with pytest.raises(StoreUnavailable):
            await traced.cancel(None)
        store.error = ZeroDivisionError("said-by-ann")
        with pytest.raises(ZeroDivisionError):
            await traced.cancel(None)
        assert traced.name == store.name
    assert [span.status for span in shared_collector.named("jims.store.cancel")] == [ERROR, ERROR]
    assert b"said-by-ann" not in b"".join(shared_collector.raw)


async def test_other_protocols_pass_through_untouched() -> None:
    seen: list[tuple[object, ...]] = []

    async def app(*arguments: object) -> None:
        seen.append(arguments)

    scope, receive, send = {"type": "websocket", "path": "/"}, object(), object()
    await trace_requests(app)(scope, receive, send)  # type: ignore[arg-type] # not used
    assert seen == [(scope, receive, send)]


async def test_what_an_app_raises_through_ends_its_span(shared_collector: Any) -> None:
    said = "said-by-ann"

    async def app(*_: object) -> None:
        raise OSError(said)

    async with Exporting():
        scope: dict[str, Any] = {"type": "http", "method": "BREW", "path": "/", "headers": []}
        with pytest.raises(OSError, match="said"):
            await trace_requests(app)(scope, None, None)  # type: ignore[arg-type] # not used
    [span] = shared_collector.spans
    assert span.name == "HTTP"
    assert span.attributes["http.request.method"] == "_OTHER"
    assert span.attributes["error.type"] == "OSError"
    assert span.status == ERROR
    assert said.encode() not in b"".join(shared_collector.raw)


async def test_a_host_s_span_is_the_parent_whatever_the_headers_say(shared_collector: Any) -> None:
    async def app(*_: object) -> None:
        pass

    headers = [(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
    async with Exporting():
        with trace.get_tracer("host").start_as_current_span("host"):
            scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": headers}
            await trace_requests(app)(scope, None, None)  # type: ignore[arg-type] # not used
    [host] = shared_collector.named("host")
    [ours] = shared_collector.named("GET")
    assert ours.parent_id == host.span_id


async def test_a_stack_without_end_is_exported_by_its_innermost_frames(shared_collector: Any) -> None:
    def ping(depth: int) -> None:
        pong(depth)

    def pong(depth: int) -> None:
        if not depth:
            raise LookupError
        ping(depth - 1)

    async def deep(ctx: ThreadContext) -> None:
        ping(300)

    async with TestClient(create_api(deep, store="memory:")) as client:
        await client.post(CHAT, json=BODY)
    [pipeline] = shared_collector.named("jims.run_pipeline_with_context")
    [(_, event)] = pipeline.events
    assert event["exception.stacktrace"].count("in p") == MAX_FRAMES
    assert "raise LookupError" in event["exception.stacktrace"]
