"""What jims-core's own calls of models use becomes events `model.usage` of the run, without a change to the app."""

import asyncio
import copy
import dataclasses
import logging
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
from jims import Sessions, sessions_in
from jims_core.app import JimsApp
from jims_core.llms import llm_provider
from jims_core.llms.llm_provider import LLMProvider, ModelUsage
from jims_core.thread.thread_context import ThreadContext as JimsContext
from jimsapi_jims import usage
from jimsapi_jims.adapted import JimsPipeline, adapt
from model_server import CACHED_TOKENS, COMPLETION_TOKENS, EMBEDDED_TOKENS, PROMPT_TOKENS, ModelServer

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

COMPLETION = {
    "model": "gpt-4.1-mini",
    "input_tokens": PROMPT_TOKENS,
    "output_tokens": COMPLETION_TOKENS,
    "cached_tokens": CACHED_TOKENS,
}
EMBEDDING = {
    "model": "text-embedding-3-large",
    "input_tokens": EMBEDDED_TOKENS,
    "output_tokens": 0,
    "cached_tokens": 0,
}


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture(autouse=True)
def environment(model: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BASE": model.url, "BASE_URL": model.url}.items():
        monkeypatch.setenv(f"OPENAI_API_{name}" if name == "BASE" else f"OPENAI_{name}", value)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(autouse=True)
def installed(tmp_path: Path) -> Sessions:
    """Let the plugin adapt an app, as a start does."""
    sessions = sessions_in(tmp_path)
    adapt(JimsApp(sessions, _nothing), store=None)
    return sessions


async def _nothing(ctx: JimsContext) -> None:
    pass


async def run(pipeline: Any, ctx: ThreadContext | None = None) -> list[dict[str, Any]]:
    """Run a JIMS pipeline, and return what its models have used, without the costs, which must be numbers."""
    ctx = ctx or ThreadContext.for_test("hi")
    await JimsPipeline(pipeline, "pipeline")(ctx)
    return used(ctx)


def used(ctx: ThreadContext) -> list[dict[str, Any]]:
    events = [event.event_data for event in ctx.outgoing_events if event.event_type == "model.usage"]
    assert all(data["cost"] is None or data["cost"] > 0 for data in events)
    return [{key: value for key, value in data.items() if key != "cost"} for data in events]


async def test_each_request_is_an_event_with_its_tokens_and_its_cost() -> None:
    async def ask(ctx: JimsContext) -> None:
        await ctx.llm.chat_completion_plain(ctx.history)
        await ctx.llm.create_embedding("quokka")
        await ctx.llm.chat_completion_with_tools(ctx.history)
        ctx.send_message("done")

    ctx = ThreadContext.for_test("hi")
    assert await run(ask, ctx) == [COMPLETION, EMBEDDING, COMPLETION]
    assert [event.event_data["cost"] is None for event in ctx.outgoing_events[:3]] == [False, False, False]
    assert ctx.outgoing_events[3].event_type == "comm.assistant_message"


async def test_the_usage_of_an_app_s_own_provider_is_that_of_the_run_that_calls_it() -> None:
    shared = LLMProvider()
    both = asyncio.Barrier(2)

    async def ask(ctx: JimsContext) -> None:
        await both.wait()  # the requests of both runs are open at the same time
        for _ in range(2 if ctx.get_last_user_message() == "two" else 1):
            await shared.chat_completion_plain(ctx.history)
        await shared.create_embedding("quokka")

    one, two = await asyncio.gather(run(ask, ThreadContext.for_test("one")), run(ask, ThreadContext.for_test("two")))
    assert (one, two) == ([COMPLETION, EMBEDDING], [COMPLETION, COMPLETION, EMBEDDING])
    assert shared.usage["gpt-4.1-mini"].requests_count == 3


async def test_a_provider_that_the_app_made_before_the_start_goes_on_from_what_it_counted() -> None:
    early = LLMProvider()
    vars(early)["usage"] = {"gpt-4.1-mini": ModelUsage(requests_count=5, prompt_tokens=50)}

    async def ask(ctx: JimsContext) -> None:
        await early.chat_completion_plain(ctx.history)

    assert await run(ask) == [COMPLETION]
    assert dataclasses.asdict(early.usage["gpt-4.1-mini"])["requests_count"] == 6
    assert early.usage["gpt-4.1-mini"].prompt_tokens == 50 + PROMPT_TOKENS


async def test_requests_outside_of_a_run_are_counted_and_recorded_nowhere() -> None:
    provider = LLMProvider()
    await provider.chat_completion_plain([{"role": "user", "content": "hi"}])
    assert provider.usage["gpt-4.1-mini"].requests_count == 1
    assert await run(_nothing) == []


async def test_requests_of_threads_are_recorded() -> None:
    async def ask(ctx: JimsContext) -> None:
        await asyncio.to_thread(ctx.llm.create_embedding_sync, "one")
        with ThreadPoolExecutor() as pool:  # such a thread does not have the context of the task
            await asyncio.get_running_loop().run_in_executor(pool, ctx.llm.create_embedding_sync, "two")

    assert await run(ask) == [EMBEDDING, EMBEDDING]


async def test_a_pipeline_reads_the_statistics_as_jims_core_has_them() -> None:
    seen: list[Any] = []

    async def ask(ctx: JimsContext) -> None:
        await ctx.llm.chat_completion_plain(ctx.history)
        seen.extend(ctx.llm.usage.items())
        for other in (copy.deepcopy(ctx), pickle.loads(pickle.dumps(ctx))):
            seen.extend(other.llm.usage.items())
            other.llm.usage["gpt-4.1-mini"].observe(prompt_tokens=1)

    expected = {"requests_count": 1, "prompt_tokens": 11, "completion_tokens": 7, "cached_tokens": 5}
    assert (await run(ask))[0] == COMPLETION
    assert [name for name, _ in seen] == ["gpt-4.1-mini"] * 3
    for _, counted in seen:
        assert isinstance(counted, ModelUsage)
        assert orjson.loads(orjson.dumps(dataclasses.asdict(seen[0][1]))).items() >= expected.items()


async def test_a_request_that_ends_after_its_run_disturbs_nobody() -> None:
    late: list[LLMProvider] = []

    async def leave(ctx: JimsContext) -> None:
        late.append(ctx.llm)

    ctx = ThreadContext.for_test("hi")
    assert await run(leave, ctx) == []
    ctx.close()
    await late[0].chat_completion_plain([{"role": "user", "content": "hi"}])
    assert used(ctx) == []


async def test_the_usage_of_a_failing_pipeline_is_stored(installed: Sessions) -> None:
    async def fail(ctx: JimsContext) -> None:
        await ctx.llm.chat_completion_plain(ctx.history)
        raise LookupError("on purpose")

    async with TestClient(create_api(JimsApp(installed, fail))) as client:
        message = {"contact_id": "ann", "message": "hi"}
        assert (await client.post("/api/v1/chat", json=message)).status_code == 500
        [thread] = (await client.get("/api/v1/threads?contact_id=ann")).json()["threads"]
        events = (await client.get(f"/api/v1/threads/{thread['thread_id']}/events")).json()["events"]
    assert [event["event_data"]["model"] for event in events if event["event_type"] == "model.usage"] == [
        "gpt-4.1-mini"
    ]


async def test_the_thread_has_the_usage_and_answers_are_those_of_jims_api(installed: Sessions) -> None:
    async def ask(ctx: JimsContext) -> None:
        await ctx.llm.chat_completion_plain(ctx.history)
        ctx.send_message("done")

    async with TestClient(create_api(JimsApp(installed, ask))) as client:
        answer = (await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})).json()
        stored = (await client.get(f"/api/v1/threads/{answer['thread_id']}/events")).json()["events"]
        stream = await client.post("/api/v1/chat/stream", json={"contact_id": "ann", "message": "hi"})
    assert [event["event_type"] for event in answer["events"]] == ["comm.assistant_message"]
    assert [event["event_type"] for event in stored[-2:]] == ["model.usage", "comm.assistant_message"]
    assert "model.usage" not in stream.text


async def test_jims_core_counts_as_this_plugin_knows() -> None:
    """The contract of the place where the plugin hooks into jims-core. It fails if a newer jims-core changes it."""
    assert vars(LLMProvider)["usage"] is usage._USAGE
    assert isinstance(LLMProvider().usage, usage.RecordedUsage)


async def test_an_app_works_with_a_jims_core_that_counts_in_another_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class OtherProvider:
        def __init__(self) -> None:
            self.statistics: dict[str, int] = {}

    monkeypatch.setattr(usage, "LLMProvider", OtherProvider)
    monkeypatch.setattr("jimsapi_jims.adapted.LLMProvider", OtherProvider)
    with caplog.at_level(logging.WARNING):
        usage.install()
    [record] = caplog.records
    assert "HAVE NO model.usage" in record.getMessage()
    seen: list[Any] = []

    async def look(ctx: JimsContext) -> None:
        seen.append(ctx.llm.statistics)  # type: ignore[attr-defined] # of the other provider

    assert await run(look) == []
    assert seen == [{}]
    assert llm_provider.LLMProvider is LLMProvider
