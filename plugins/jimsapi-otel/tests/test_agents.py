"""Spans and metrics of agents, tools and models, as a collector receives them."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from jimsapi_otel.content import MAX_TEXT
from jimsapi_otel.instruments import MAX_NAMES, OTHER, Names
from jimsapi_otel.providers import provider_of
from jimsapi_otel.variables import captures_content, content_obstacle, exports_metrics
from opentelemetry import trace
from otlp_collector import Collector, Exported

from jimsapi import JimsApp, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.runs import Inbound
from jimsapi.runs.admission import PUBLIC
from jimsapi.threads import TraceContext
from tests.command import refusal, run_command
from tests.serving import Served

pytestmark = pytest.mark.anyio

CHAT = "/api/v1/chat"
INTERNAL, CLIENT = 1, 3
UNSET, OK, ERROR = 0, 1, 2
SAID = "said-by-ann"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

BOT = """
import asyncio
from opentelemetry import trace

async def app(ctx):
    text = ctx.get_last_user_message()
    async def search(near):
        async with ctx.tool("search", {"near": near, "for": text}, id="call_" + near) as call:
            with trace.get_tracer("bot").start_as_current_span("http " + near):
                call.result = [near + " of " + text]
    await asyncio.gather(search("north"), search("south"))
    ctx.usage(model="openai/gpt-5", input_tokens=812, output_tokens=44, cached_tokens=12, cost=0.25, duration=1.5)
    ctx.reasoning("The person says " + text)
    await ctx.stream("Two ")
    await ctx.stream("hits for " + text)
"""

ASKING = """
from jimsapi import JimsApp

async def pipeline(ctx):
    async def charge():
        async with ctx.tool("charge") as call:
            call.result = "charged"
        ctx.usage(model="m", input_tokens=100, output_tokens=10)
        return "charged"
    await ctx.once("charge", charge)
    async with ctx.tool("approve") as call:
        call.result = await ctx.ask("go", "Go on?", options=["yes", "no"])
    ctx.usage(model="m", input_tokens=7, output_tokens=3)
    ctx.send_message("went on: " + call.result)

app = JimsApp(pipeline, name="asking")
"""


@asynccontextmanager
async def serving(pipeline: Any, **settings: Any) -> AsyncIterator[TestClient]:
    """A client of an app with spans of agents. At its end, the collector has all of them."""
    app = pipeline if isinstance(pipeline, JimsApp) else JimsApp(pipeline, name="bot")
    async with TestClient(create_api(app, **{"store": "memory:", "otel_genai": True, **settings})) as client:
        yield client


async def say(client: TestClient, message: str = "hi", **fields: Any) -> Any:
    answer = await client.post(CHAT, json={"contact_id": "ann", "message": message, **fields})
    return answer.json()


def children(spans: Sequence[Exported], parent: Exported) -> list[str]:
    return sorted(span.name for span in spans if span.parent_id == parent.span_id)


def tokens(spans: Sequence[Exported]) -> list[tuple[str, int, int]]:
    """The spans that have usage, each with its tokens."""
    return [
        (span.name, span.attributes["gen_ai.usage.input_tokens"], span.attributes["gen_ai.usage.output_tokens"])
        for span in spans
        if any(name.startswith("gen_ai.usage") for name in span.attributes)
    ]


# As a whole.


def test_a_chat_with_two_tools_is_an_agent_with_its_tools_and_its_model_used_once(
    collector: Collector, tmp_path: Path
) -> None:
    (tmp_path / "bot.py").write_text(BOT)
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "authorization": "Bearer key-of-the-operator"}
    options = ("--app", "bot:app", "--otel-genai", "--api-key", "key-of-the-operator")
    with Served(*options, folder=tmp_path, env=env) as server, server.client(headers=headers) as client:
        thread_id = client.post(CHAT, json={"contact_id": "ann", "message": SAID}).json()["thread_id"]
        assert server.stop() == 0
    spans = collector.spans
    assert {span.trace_id for span in spans} == {TRACE}

    [pipeline] = collector.named("jims.run_pipeline_with_context")
    [agent] = collector.named("invoke_agent app")
    assert (agent.kind, agent.status, agent.parent_id) == (INTERNAL, UNSET, pipeline.span_id)
    assert agent.attributes == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "app",
        "gen_ai.conversation.id": thread_id,
    }
    assert children(spans, agent) == ["chat openai/gpt-5", "execute_tool search", "execute_tool search"]

    tools = collector.named("execute_tool search")
    for tool, near in zip(
        sorted(tools, key=lambda one: one.attributes["gen_ai.tool.call.id"]), ("north", "south"), strict=True
    ):
        assert (tool.kind, tool.status) == (INTERNAL, UNSET)
        assert tool.attributes == {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "search",
            "gen_ai.tool.call.id": f"call_{near}",
            "gen_ai.tool.type": "function",
            "gen_ai.agent.name": "app",
        }
        assert children(spans, tool) == [f"http {near}"]

    [model] = collector.named("chat openai/gpt-5")
    assert model.kind == CLIENT
    assert model.seconds == pytest.approx(1.5, abs=1e-6)
    assert model.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "openai/gpt-5",
        "gen_ai.conversation.id": thread_id,
        "gen_ai.agent.name": "app",
        "gen_ai.usage.input_tokens": 812,
        "gen_ai.usage.output_tokens": 44,
        "gen_ai.usage.cache_read.input_tokens": 12,
        "gen_ai.usage.cost": 0.25,
    }
    assert tokens(spans) == [("chat openai/gpt-5", 812, 44)]

    measured = {(one.name, one.attributes.get("gen_ai.token.type")): one for one in collector.measured}
    agents = measured["gen_ai.invoke_agent.duration", None]
    assert (agents.unit, agents.count, agents.attributes) == ("s", 1, {"gen_ai.agent.name": "app"})
    assert agents.sum == pytest.approx(agent.seconds, abs=1e-6)
    assert (agents.bounds[0], agents.bounds[-1]) == (0.1, 409.6)
    assert agents.resource["service.name"] == "jimsapi"
    assert agents.resource["service.instance.id"]
    used = measured["gen_ai.execute_tool.duration", None]
    assert (used.unit, used.count) == ("s", 2)
    assert used.sum == pytest.approx(sum(tool.seconds for tool in tools), abs=1e-6)
    assert used.attributes == {
        "gen_ai.tool.name": "search",
        "gen_ai.tool.type": "function",
        "gen_ai.agent.name": "app",
    }
    took = measured["gen_ai.client.operation.duration", None]
    assert (took.unit, took.count, took.sum) == ("s", 1, 1.5)
    for kind, count in (("input", 812), ("output", 44)):
        point = measured["gen_ai.client.token.usage", kind]
        assert (point.unit, point.count, point.sum) == ("{token}", 1, count)
        assert point.attributes == {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "openai/gpt-5",
            "gen_ai.token.type": kind,
        }

    sent = b"".join(collector.raw)
    for secret in (SAID.encode(), b"key-of-the-operator"):
        assert secret not in sent


def test_without_the_option_nothing_of_it_is_exported_or_imported(collector: Collector, tmp_path: Path) -> None:
    program = """
import asyncio, sys
from jimsapi import create_api
from jimsapi.asgi.testing import TestClient
async def pipeline(ctx):
    async with ctx.tool("search"):
        ctx.usage(model="m", input_tokens=1, output_tokens=1)
async def main():
    async with TestClient(create_api(pipeline, store="memory:")) as client:
        answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
        print(answer.status_code)
    print([name for name in sys.modules if name.startswith("opentelemetry.sdk.metrics.export")])
    print("jimsapi_otel.agents" in sys.modules)
asyncio.run(main())
"""
    content = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY"}
    env = {"PATH": "", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **content}
    ran = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["200", "[]", "False"]
    assert set(collector.paths) == {"/v1/traces"}
    assert len(collector.named("jims.run_pipeline_with_context")) == 1
    assert [span.name for span in collector.spans if "gen_ai" in repr(span.attributes)] == []


def test_a_question_that_a_new_process_goes_on_with_is_one_conversation_and_no_error(
    collector: Collector, tmp_path: Path
) -> None:
    (tmp_path / "bot.py").write_text(ASKING)
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    options = ("--app", "bot:app", "--otel-genai", "--store", f"sqlite:///{tmp_path}/jims.db")
    with Served(*options, folder=tmp_path, env=env) as server, server.client() as client:
        asked = client.post(CHAT, json={"contact_id": "ann", "message": "hi"}).json()
        [question] = asked["questions"]
        assert server.stop() == 0
    with Served(*options, folder=tmp_path, env=env) as server, server.client() as client:
        body = {"contact_id": "ann", "thread_id": asked["thread_id"], "answers": {question["question_id"]: "yes"}}
        answered = client.post(CHAT, json=body).json()
        assert server.stop() == 0
    assert answered["assistant_messages"] == ["went on: yes"]

    agents = collector.named("invoke_agent asking")
    assert {agent.attributes["gen_ai.conversation.id"] for agent in agents} == {asked["thread_id"]}
    assert [agent.status for agent in agents] == [UNSET, UNSET]
    assert [span.status for span in collector.named("jims.run_pipeline_with_context")] == [OK, OK]
    assert [children(collector.spans, agent) for agent in agents] == [
        ["chat m", "execute_tool approve", "execute_tool charge", "jims.store.append"],
        ["chat m", "execute_tool approve"],
    ]
    assert [tool.status for tool in collector.named("execute_tool approve")] == [UNSET, UNSET]
    assert tokens(collector.spans) == [("chat m", 100, 10), ("chat m", 7, 3)]
    calls = [one.count for one in collector.measured if one.attributes.get("gen_ai.tool.name") == "approve"]
    assert calls == [1]  # the call that waited has not ended


# Tools.


async def test_tools_that_fail_in_any_way_are_errors_without_their_texts(shared_collector: Collector) -> None:
    class Refused(Exception):
        pass

    async def pipeline(ctx: ThreadContext) -> None:
        with suppress(Refused):
            async with ctx.tool("raising", {"said": SAID}):
                raise Refused(SAID)
        with ctx.tool("saying") as call:
            call.error = SAID
        task = asyncio.create_task(hang(ctx))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        try:
            with ctx.tool("unstorable") as call:
                call.result = object()
        except Exception:
            ctx.send_message("done")
        ctx.tool("open").__enter__()

    async def hang(ctx: ThreadContext) -> None:
        async with ctx.tool("hanging"):
            await asyncio.Event().wait()

    async with serving(pipeline) as client:
        assert (await say(client, SAID))["assistant_messages"] == ["done"]
    tools = [span for span in shared_collector.spans if span.name.startswith("execute_tool")]
    assert {tool.status for tool in tools} == {ERROR}
    assert {tool.description for tool in tools} == {""}
    found = {tool.name.partition(" ")[2]: tool.attributes["error.type"].rpartition(".")[2] for tool in tools}
    assert found == {
        "raising": "Refused",
        "saying": "tool_error",
        "hanging": "CancelledError",
        "unstorable": "UnstorableEvent",
        "open": "unfinished",
    }
    [agent] = shared_collector.named("invoke_agent bot")
    assert agent.status == UNSET
    assert {tool.parent_id for tool in tools} == {agent.span_id}
    assert SAID.encode() not in b"".join(shared_collector.raw)


@pytest.mark.parametrize("threaded", [False, True], ids=["plain def", "async in a thread"])
async def test_tools_of_a_pipeline_in_a_worker_thread_have_spans(shared_collector: Collector, threaded: bool) -> None:
    tracer = trace.get_tracer("bot")

    def plain(ctx: ThreadContext) -> None:
        with ctx.tool("search") as call, tracer.start_as_current_span("http"):
            call.result = 1
            ctx.usage(model="m", input_tokens=1, output_tokens=2)
        ctx.usage(model="m", input_tokens=3, output_tokens=4)

    async def own_loop(ctx: ThreadContext) -> None:
        async with ctx.tool("search") as call:
            with tracer.start_as_current_span("http"):
                call.result = 1
                ctx.usage(model="m", input_tokens=1, output_tokens=2)
        ctx.usage(model="m", input_tokens=3, output_tokens=4)

    async with serving(JimsApp(own_loop if threaded else plain, name="bot", threaded=threaded)) as client:
        await say(client)
    [agent], [tool], [http] = (
        shared_collector.named(name) for name in ("invoke_agent bot", "execute_tool search", "http")
    )
    assert (tool.parent_id, http.parent_id) == (agent.span_id, tool.span_id)
    assert [
        (span.parent_id, span.attributes["gen_ai.usage.input_tokens"]) for span in shared_collector.named("chat m")
    ] == [
        (http.span_id, 1),
        (agent.span_id, 3),
    ]


async def test_what_a_thread_of_the_pipeline_s_own_does_belongs_to_the_agent(shared_collector: Collector) -> None:
    def pipeline(ctx: ThreadContext) -> None:
        def work() -> None:
            with ctx.tool("search"):
                ctx.usage(model="m", input_tokens=1, output_tokens=2)

        thread = threading.Thread(target=work)  # without the context of the pipeline
        thread.start()
        thread.join()

    async with serving(pipeline) as client:
        await say(client)
    [agent], [tool], [model] = (
        shared_collector.named(name) for name in ("invoke_agent bot", "execute_tool search", "chat m")
    )
    assert (tool.parent_id, model.parent_id) == (agent.span_id, tool.span_id)


async def test_after_a_tool_the_span_from_before_is_current_again(shared_collector: Collector) -> None:
    found: list[bool] = []

    async def pipeline(ctx: ThreadContext) -> None:
        before = trace.get_current_span()
        async with ctx.tool("outer"):
            outer = trace.get_current_span()
            async with ctx.tool("inner"):
                found.append(trace.get_current_span() not in (outer, before))
            found.append(trace.get_current_span() is outer)
            call = ctx.tool("elsewhere").__enter__()
            here = trace.get_current_span()
            await asyncio.create_task(end_elsewhere(call))
            found.append(trace.get_current_span() is here)
        async for _ in generated(ctx):
            pass
        found.append(trace.get_current_span() in (before, outer, here))

    async def end_elsewhere(call: Any) -> None:
        call.__exit__(None, None, None)

    async def generated(ctx: ThreadContext) -> AsyncIterator[int]:
        async with ctx.tool("generating"):
            yield 1

    async with serving(pipeline) as client:
        await say(client)
    assert found == [True] * 4
    names = [span.name.partition(" ")[2] for span in shared_collector.spans if span.name.startswith("execute_tool")]
    assert sorted(names) == ["elsewhere", "generating", "inner", "outer"]


# Agents.


async def test_a_pipeline_that_fails_is_an_error_of_the_agent_and_its_usage_counts(shared_collector: Collector) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        ctx.usage(model="m", input_tokens=5, output_tokens=0)
        raise RuntimeError(SAID)

    async with serving(pipeline) as client:
        await say(client)
    [agent] = shared_collector.named("invoke_agent bot")
    assert (agent.status, agent.description, agent.attributes["error.type"]) == (ERROR, "", "RuntimeError")
    assert tokens(shared_collector.spans) == [("chat m", 5, 0)]
    assert SAID.encode() not in b"".join(shared_collector.raw)


async def test_a_conversation_start_is_an_agent_of_its_own(shared_collector: Collector) -> None:
    async def greet(ctx: ThreadContext) -> None:
        ctx.send_message("welcome")

    async def answer(ctx: ThreadContext) -> None:
        ctx.send_message("hi")

    app = JimsApp(answer, conversation_start_pipeline=greet, name="bot")
    async with serving(app, otel_genai_content=True) as client:
        await say(client, run_conversation_start_on_new_thread=True)
    [greeting] = shared_collector.named("invoke_agent greet")
    [agent] = shared_collector.named("invoke_agent bot")
    assert greeting.attributes["gen_ai.conversation.id"] == agent.attributes["gen_ai.conversation.id"]
    assert "gen_ai.input.messages" not in greeting.attributes
    assert "welcome" in greeting.attributes["gen_ai.output.messages"]


async def test_events_of_the_type_of_usage_with_anything_in_them_harm_nothing(shared_collector: Collector) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        ctx.send_event("model.usage", {})
        ctx.send_event("model.usage", {"model": ["m"], "input_tokens": "many", "output_tokens": -1, "cost": "much"})
        ctx.send_event("model.usage", {"model": "m", "input_tokens": 1 << 62, "output_tokens": True, "cost": 0})
        ctx.send_event("model.usage", {"model": "m", "duration": 1e300})
        ctx.send_event("model.usage", {"model": "m", "duration": "long", "cached_tokens": None})
        ctx.send_message("done")

    async with serving(pipeline) as client:
        assert (await say(client))["assistant_messages"] == ["done"]
    assert tokens(shared_collector.spans) == [
        ("chat None", 0, 0),
        ("chat ['m']", 0, 0),
        ("chat m", 1 << 62, 0),
        ("chat m", 0, 0),
        ("chat m", 0, 0),
    ]


async def test_usage_that_cannot_be_stored_costs_no_other_spans(shared_collector: Collector) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        ctx.send_event("model.usage", {"model": "m\ud800", "input_tokens": 1})

    async with serving(pipeline) as client:
        assert "cannot be stored" in (await say(client))["detail"]
    assert len(shared_collector.named("chat m?")) == 1
    assert len(shared_collector.named("invoke_agent bot")) == 1


async def test_usage_is_left_to_the_client_of_the_models_if_that_has_spans(shared_collector: Collector) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        ctx.usage(model="m", input_tokens=5, output_tokens=0)

    async with serving(pipeline, otel_genai_usage="none") as client:
        await say(client)
    assert len(shared_collector.named("invoke_agent bot")) == 1
    assert tokens(shared_collector.spans) == []


async def test_a_message_without_a_thread_has_no_conversation(shared_collector: Collector) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        ctx.usage(model="m", input_tokens=1, output_tokens=1)
        ctx.send_message("hi")

    api = create_api(JimsApp(pipeline, name="bot"), store="memory:", otel_genai=True)
    async with TestClient(api):
        assert api.service is not None
        await api.service.answer_once(Inbound(contact_id="ann", message="hi"), PUBLIC).wait_for_answer()
    for name in ("invoke_agent bot", "chat m"):
        [span] = shared_collector.named(name)
        assert "gen_ai.conversation.id" not in span.attributes


async def test_a_trace_that_the_message_names_goes_on_with_a_link_to_the_request(shared_collector: Collector) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        async with ctx.tool("search"):
            pass

    api = create_api(JimsApp(pipeline, name="bot"), store="memory:", otel_genai=True)
    trace_context = TraceContext.parse(f"00-{TRACE}-{SPAN}-01", "vendor=7")

    async with TestClient(api):
        assert api.service is not None
        with trace.get_tracer("test").start_as_current_span("request"):
            run = api.service.begin(Inbound(contact_id="ann", message="hi"), PUBLIC, trace_context=trace_context)
            await run.wait_for_answer()
    [request] = shared_collector.named("request")
    [pipelines] = shared_collector.named("jims.run_pipeline_with_context")
    [tool] = shared_collector.named("execute_tool search")
    assert (pipelines.trace_id, pipelines.parent_id, pipelines.trace_state) == (TRACE, SPAN, "vendor=7")
    assert pipelines.links == [request.span_id]
    assert tool.trace_id == TRACE
    assert request.trace_id != TRACE


# Content.


@pytest.mark.parametrize("way", ["option", "variable"])
async def test_content_is_exported_if_it_is_switched_on(
    shared_collector: Collector, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        async with ctx.tool("search", {"q": "quokka", "ü": 1}) as call:
            call.result = {"hits": ["☂"]}
        with ctx.tool("failing") as call:
            call.error = "no hits"
        ctx.reasoning("Hm. ")
        ctx.reasoning("Aha.")
        ctx.send_message("A quokka")
        await ctx.stream("is an ")
        await ctx.stream("animal")

    if way == "variable":
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_only")
    async with serving(pipeline, **({"otel_genai_content": True} if way == "option" else {})) as client:
        answer = await say(client, "What is a quokka?")
    assert answer["assistant_messages"] == ["A quokka", "is an animal"]
    [agent] = shared_collector.named("invoke_agent bot")
    assert json.loads(agent.attributes["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "What is a quokka?"}]}
    ]
    assert json.loads(agent.attributes["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "Hm. Aha."},
                {"type": "text", "content": "A quokka"},
                {"type": "text", "content": "is an animal"},
            ],
            "finish_reason": "stop",
        }
    ]
    [search], [failing] = shared_collector.named("execute_tool search"), shared_collector.named("execute_tool failing")
    assert json.loads(search.attributes["gen_ai.tool.call.arguments"]) == {"q": "quokka", "ü": 1}
    assert json.loads(search.attributes["gen_ai.tool.call.result"]) == {"hits": ["☂"]}
    assert failing.description == "no hits"


async def test_content_has_no_secret_of_the_server_and_is_cut_if_it_is_long(shared_collector: Collector) -> None:
    key = "key-of-the-operator"

    async def pipeline(ctx: ThreadContext) -> None:
        async with ctx.tool("search", {"key": key}) as call:
            call.result = "x" * (MAX_TEXT + 50)
        ctx.send_message(f"Your key is {key}")

    async with serving(pipeline, otel_genai_content=True, api_key=key) as client:
        headers = {"authorization": f"Bearer {key}"}
        await client.post(CHAT, json={"contact_id": "ann", "message": f"I am {key}"}, headers=headers)
    [search] = shared_collector.named("execute_tool search")
    assert search.attributes["gen_ai.tool.call.result"] == "x" * MAX_TEXT + "…"
    [agent] = shared_collector.named("invoke_agent bot")
    assert "Your key is ***" in agent.attributes["gen_ai.output.messages"]
    assert key.encode() not in b"".join(shared_collector.raw)


async def test_a_run_that_an_answer_began_has_the_answer_as_its_input(shared_collector: Collector) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        ctx.send_message(str(await ctx.ask("go", "Go on?")))

    async with serving(pipeline, otel_genai_content=True) as client:
        [question] = (await say(client))["questions"]
        await client.post(CHAT, json={"contact_id": "ann", "answers": {question["question_id"]: "yes"}})
    first, second = shared_collector.named("invoke_agent bot")
    assert "gen_ai.output.messages" not in first.attributes
    [message] = json.loads(second.attributes["gen_ai.input.messages"])
    assert json.loads(message["parts"][0]["content"]) == {"go": "yes"}


# Options and variables.


def test_content_without_spans_of_agents_stops_the_start(tmp_path: Path) -> None:
    checked = run_command(
        "check", "--store", "memory:", "--app", "tests.apps.steered:app", "--otel-genai-content", cwd=tmp_path
    )
    assert "--otel-genai-content needs --otel-genai" in refusal(checked)


async def test_what_has_no_effect_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        ctx.send_message("hi")

    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "EVENT_ONLY")
    async with serving(pipeline) as client:
        assert (await say(client))["assistant_messages"] == ["hi"]
    assert "--otel-genai needs a collector; set OTEL_EXPORTER_OTLP_ENDPOINT" in caplog.text
    assert "SPANS HAVE NO CONTENT: OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT is EVENT_ONLY" in caplog.text


@pytest.mark.parametrize(
    ("variables", "exported"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/v1/metrics"}, True),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_METRICS_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_metrics_go_where_the_variables_say(variables: dict[str, str], exported: bool) -> None:
    assert exports_metrics(variables) is exported


@pytest.mark.parametrize(
    ("value", "captured", "understood"),
    [
        ("", False, True), ("SPAN_ONLY", True, True), ("span_and_event", True, True), ("true", True, True),
        ("NO_CONTENT", False, True), ("false", False, True), ("EVENT_ONLY", False, False), ("yes", False, False),
    ],
)  # fmt: skip
def test_the_variable_of_content_has_its_usual_values(value: str, captured: bool, understood: bool) -> None:
    environ = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": value}
    assert captures_content(environ) is captured
    assert (content_obstacle(environ) is None) is understood


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("openai/gpt-5", "openai"), ("openai:gpt-5", "openai"), ("gpt-5-mini", "openai"), ("claude-4", "anthropic"),
        ("azure/gpt-5", "azure.ai.openai"), ("bedrock/anthropic.claude", "aws.bedrock"), ("gemini-3", "gcp.gen_ai"),
        ("gemini/gemini-3", "gcp.gemini"), ("llama3:8b", OTHER), ("openai/", OTHER), ("", OTHER), ("m", OTHER),
    ],
)  # fmt: skip
def test_the_provider_is_known_by_the_name_of_the_model(model: str, provider: str) -> None:
    assert provider_of(model) == provider


def test_names_that_a_pipeline_makes_up_do_not_make_endless_series() -> None:
    names = Names()
    assert {names.limit(f"tool {number}") for number in range(2 * MAX_NAMES)} == {
        *(f"tool {number}" for number in range(MAX_NAMES)),
        OTHER,
    }
    assert names.limit("tool 0") == "tool 0"
