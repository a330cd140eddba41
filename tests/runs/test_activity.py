"""What an agent does, in its pipeline, in the live stream and in the thread: tools, reasoning, sources and usage."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest

from jimsapi import Identity, JimsApp, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.runs import worker_threads
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.inbound import Inbound
from jimsapi.runs.live import LiveRun
from jimsapi.threads.activity import ActivityObserver, ToolCall
from jimsapi.threads.errors import RunClosed, UnstorableEvent
from jimsapi.threads.event import message_event
from jimsapi.threads.ids import uuid7
from jimsapi.threads.questions import QuestionAsked
from jimsapi.threads.run import AdoptedRun
from tests.api.conversation import CHAT, RUNS, STREAM, body, parse

pytestmark = pytest.mark.anyio

USAGE = {"model": "m", "input_tokens": 812, "output_tokens": 44, "cached_tokens": 0, "cost": None}


def sent(ctx: ThreadContext) -> list[tuple[str, Any]]:
    """What the pipeline has sent, without durations."""
    return [
        (event.event_type, {name: value for name, value in event.event_data.items() if name != "duration"})
        for event in ctx.complete()
    ]


@asynccontextmanager
async def serving(pipeline: Any, **settings: Any) -> AsyncIterator[TestClient]:
    app = pipeline if isinstance(pipeline, JimsApp) else JimsApp(pipeline)
    async with TestClient(create_api(app, store="memory:", **settings)) as client:
        yield client


# In the pipeline.


async def test_a_call_of_a_tool_has_its_result_and_its_duration() -> None:
    ctx = ThreadContext.for_test("hi")
    async with ctx.tool("search", {"q": "quokka"}, id="call_1") as call:
        assert (call.id, call.name) == ("call_1", "search")
        assert ctx.outgoing_events == []
        call.result = ["a quokka"]
    [event] = ctx.outgoing_events
    assert event.event_type == "tool.call"
    duration = event.event_data.pop("duration")
    assert isinstance(duration, float)
    assert 0 <= duration < 60
    assert event.event_data == {
        "id": "call_1",
        "name": "search",
        "arguments": {"q": "quokka"},
        "result": ["a quokka"],
    }


async def test_each_call_of_a_tool_has_an_identifier_of_its_own() -> None:
    ctx = ThreadContext.for_test("hi")
    with ctx.tool("first") as first, ctx.tool("second") as second:
        assert first.id != second.id
    assert [data["id"] for _, data in sent(ctx)] == [second.id, first.id]
    assert [data["arguments"] for _, data in sent(ctx)] == [{}, {}]


@dataclasses.dataclass
class DataclassResult:
    n: int


class StructResult(msgspec.Struct):
    n: int


class ModelResult(pydantic.BaseModel):
    n: int


@pytest.mark.parametrize("result", [DataclassResult(1), StructResult(1), ModelResult(n=1), {"n": 1}])
def test_a_result_of_any_common_kind_is_stored_as_json(result: Any) -> None:
    ctx = ThreadContext.for_test("hi")
    with ctx.tool("search") as call:
        call.result = result
    assert sent(ctx)[0][1]["result"] == {"n": 1}


def test_results_and_arguments_may_hold_such_objects_at_every_level() -> None:
    ctx = ThreadContext.for_test("hi")
    with ctx.tool("search", {"near": StructResult(1)}) as call:
        call.result = [StructResult(1), {"hit": ModelResult(n=1)}, DataclassResult(1)]
    [(_, data)] = sent(ctx)
    assert data["arguments"] == {"near": {"n": 1}}
    assert data["result"] == [{"n": 1}, {"hit": {"n": 1}}, {"n": 1}]


def test_what_the_pipeline_changes_after_the_call_is_not_in_its_event() -> None:
    ctx = ThreadContext.for_test("hi")
    rows, where = [1], {"kinds": ["a"]}
    with ctx.tool("search", where) as call:
        where["kinds"].append("b")
        call.result = rows
    rows.clear()
    [(_, data)] = sent(ctx)
    assert (data["arguments"], data["result"]) == ({"kinds": ["a"]}, [1])


async def test_the_loop_has_its_turn_before_the_tool_runs() -> None:
    ctx = ThreadContext.for_test("hi")
    turns: list[bool] = []
    asyncio.get_running_loop().call_soon(turns.append, True)
    async with ctx.tool("blocking"):
        assert turns == [True]


async def test_a_tool_in_a_generator_that_is_left_early_is_cancelled() -> None:
    ctx = ThreadContext.for_test("hi")

    async def hits() -> AsyncIterator[int]:
        with ctx.tool("search"):
            yield 1
            yield 2

    found = hits()
    assert await anext(found) == 1
    await found.aclose()  # type: ignore[attr-defined] # an async generator has it
    assert sent(ctx)[0][1]["error"] == "cancelled"


def test_a_thought_that_cannot_be_stored_as_it_is_does_not_cost_the_answer() -> None:
    ctx = ThreadContext.for_test("hi")
    ctx.reasoning("a\0b\ud800")
    assert sent(ctx) == [("model.reasoning", {"content": "a?b?"})]


@pytest.mark.parametrize("raised", [ValueError("no such page"), ValueError("no such page\0")])
async def test_an_exception_in_the_block_is_the_error_of_the_call_and_goes_on(raised: Exception) -> None:
    ctx = ThreadContext.for_test("hi")

    async def search() -> None:
        async with ctx.tool("search") as call:
            call.result = "half"
            raise raised

    with pytest.raises(ValueError, match="no such page"):
        await search()
    [(_, data)] = sent(ctx)
    assert data["error"].rstrip("?") == "ValueError: no such page"
    assert "result" not in data


async def test_a_tool_may_fail_without_an_exception() -> None:
    ctx = ThreadContext.for_test("hi")
    with ctx.tool("search") as call:
        call.error = "the index is closed"
    [(_, data)] = sent(ctx)
    assert data["error"] == "the index is closed"
    assert "result" not in data


async def test_a_cancelled_call_says_so() -> None:
    ctx = ThreadContext.for_test("hi")

    async def search() -> None:
        async with ctx.tool("search"):
            await asyncio.Event().wait()

    task = asyncio.create_task(search())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sent(ctx)[0][1]["error"] == "cancelled"


async def test_pieces_of_reasoning_are_one_event_before_what_comes_after_them() -> None:
    ctx = ThreadContext.for_test("hi")
    for piece in ("The person ", "asks."):
        ctx.reasoning(piece)
    await ctx.stream("Hel")
    ctx.reasoning("Not done.")
    ctx.send_message("Hello")
    ctx.reasoning("Done.")
    assert sent(ctx) == [
        ("model.reasoning", {"content": "The person asks."}),
        ("model.reasoning", {"content": "Not done."}),
        ("comm.assistant_message", {"role": "assistant", "content": "Hello"}),
        ("model.reasoning", {"content": "Done."}),
    ]


@pytest.mark.parametrize(
    "speak",
    [
        lambda ctx: ctx.source(title="Quokkas"),
        lambda ctx: ctx.usage(model="m", input_tokens=1, output_tokens=1),
        lambda ctx: ctx.tool("search").__enter__(),
        lambda ctx: ctx.set_state("cart", {}),
    ],
)
async def test_whatever_else_is_sent_ends_the_reasoning(speak: Callable[[ThreadContext], Any]) -> None:
    ctx = ThreadContext.for_test("hi")
    ctx.reasoning("Thinking")
    speak(ctx)
    assert ctx.outgoing_events[0].event_type == "model.reasoning"


def test_sources_and_usage_are_events() -> None:
    ctx = ThreadContext.for_test("hi")
    ctx.source(url="https://example.org/q", title="Quokkas")
    ctx.source(url="", title="The handbook")
    ctx.usage(model="m", input_tokens=812, output_tokens=44)
    ctx.usage(model="m", input_tokens=812, output_tokens=44, cached_tokens=800, cost=Decimal("0.5"))
    ctx.usage(model="m", input_tokens=812, output_tokens=44, duration=2)
    assert sent(ctx) == [
        ("answer.source", {"url": "https://example.org/q", "title": "Quokkas"}),
        ("answer.source", {"url": None, "title": "The handbook"}),
        ("model.usage", USAGE),
        ("model.usage", {**USAGE, "cached_tokens": 800, "cost": 0.5}),
        ("model.usage", USAGE),
    ]
    assert [event.event_data.get("duration") for event in ctx.outgoing_events] == [None, None, None, None, 2.0]


@pytest.mark.parametrize(
    ("speak", "error", "text"),
    [
        (lambda ctx: ctx.tool(""), TypeError, "the name of a tool must be a str, and not empty"),
        (lambda ctx: ctx.tool(7), TypeError, "the name of a tool must be a str, and not empty"),
        (lambda ctx: ctx.tool("search", "quokka"), TypeError, "must be a mapping, not str"),
        (lambda ctx: ctx.tool("search", {"q": object()}).__enter__(), UnstorableEvent, "tool.call"),
        (lambda ctx: ctx.tool("search", id=7), TypeError, "must be a str, not int"),
        (lambda ctx: ctx.reasoning(b"x"), TypeError, "must be a str, not bytes"),
        (lambda ctx: ctx.source(title=7), TypeError, "the title of a source must be a str, not int"),
        (lambda ctx: ctx.source(url=7), TypeError, "the url of a source must be a str, not int"),
        (lambda ctx: ctx.usage(model="m", input_tokens=1, output_tokens=0, cost=True), TypeError, "not bool"),
        (lambda ctx: ctx.usage(model="m", input_tokens=1, output_tokens=0, cost="1"), TypeError, "not str"),
        (lambda ctx: ctx.usage(model="m", input_tokens=1, output_tokens=0, duration="1"), TypeError, "duration must"),
        (lambda ctx: ctx.usage(model="m", input_tokens=1, output_tokens=0, duration=-1), ValueError, "duration must"),
        (lambda ctx: ctx.source(), ValueError, "a source needs a url or a title"),
        (lambda ctx: ctx.source(url="javascript:alert(1)"), ValueError, "must begin with http:// or https://"),
        (lambda ctx: ctx.source(url="//example.org"), ValueError, "invalid source url '//example.org': it must begin"),
        (
            lambda ctx: ctx.source(url="s3://ann:sesame@bucket/a"),
            ValueError,
            "invalid source url 's3:…': it must begin",
        ),
        (lambda ctx: ctx.source(url="notes?" + "x" * 99), ValueError, "invalid source url 'notes': it must begin"),
        (lambda ctx: ctx.usage(model="m", input_tokens=-1, output_tokens=0), ValueError, "input_tokens must not be"),
        (lambda ctx: ctx.usage(model="m", input_tokens=1.5, output_tokens=0), TypeError, "must be an int, not float"),
        (lambda ctx: ctx.usage(model="m", input_tokens=True, output_tokens=0), TypeError, "must be an int, not bool"),
        (lambda ctx: ctx.usage(model=None, input_tokens=1, output_tokens=0), TypeError, "model must be a str"),
        (
            lambda ctx: ctx.usage(model="m", input_tokens=1, output_tokens=0, cost=float("nan")),
            ValueError,
            "cost must be a number from 0 on",
        ),
    ],
)
def test_what_cannot_be_is_refused_at_the_call(
    speak: Callable[[ThreadContext], Any], error: type[Exception], text: str
) -> None:
    ctx = ThreadContext.for_test("hi")
    with pytest.raises(error, match=text):
        speak(ctx)
    assert sent(ctx) == []


def test_a_result_that_cannot_be_stored_is_named_where_the_call_ends() -> None:
    ctx = ThreadContext.for_test("hi")
    with pytest.raises(UnstorableEvent, match=r"tool\.call"), ctx.tool("search") as call:
        call.result = object()


def test_a_call_is_used_once() -> None:
    call = ThreadContext.for_test("hi").tool("search")
    with call:
        pass
    with pytest.raises(RuntimeError, match="make a new one for each call"), call:
        pass


@pytest.mark.parametrize(
    "speak",
    [
        lambda ctx: ctx.tool("search").__enter__(),
        lambda ctx: ctx.reasoning("x"),
        lambda ctx: ctx.source(title="x"),
        lambda ctx: ctx.usage(model="m", input_tokens=1, output_tokens=1),
    ],
)
def test_after_the_end_of_its_run_nothing_is_taken(speak: Callable[[ThreadContext], Any]) -> None:
    ctx = ThreadContext.for_test("hi")
    ctx.close()
    with pytest.raises(RunClosed):
        speak(ctx)


def test_a_call_of_a_run_that_has_ended_raises_what_the_block_raised() -> None:
    ctx = ThreadContext.for_test("hi")

    def search() -> None:
        with ctx.tool("search"):
            ctx.close()
            raise LookupError("stopped")

    with pytest.raises(LookupError, match="stopped"):
        search()
    assert ctx.outgoing_events == []


def test_a_call_that_ends_after_its_run_is_refused() -> None:
    ctx = ThreadContext.for_test("hi")
    with pytest.raises(RunClosed), ctx.tool("search"):
        ctx.close()


# Observers.


class Seen(ActivityObserver):
    """Collects what an observer is told."""

    def __init__(self) -> None:
        self.began: list[tuple[str, Any]] = []
        self.ended: list[tuple[str, Any, Any]] = []
        self.events: list[tuple[str, Any]] = []

    def tool_began(self, call: ToolCall) -> None:
        self.began.append((call.name, call.arguments))
        current_tool.set(call.name)

    def tool_ended(self, call: ToolCall, outcome: Mapping[str, Any], error: BaseException | None) -> None:
        assert outcome["duration"] >= 0
        told = {name: value for name, value in outcome.items() if name != "duration"}
        self.ended.append((call.name, told, type(error).__name__ if error else None))
        current_tool.set(None)

    def event_sent(self, event_type: str, data: Any) -> None:
        self.events.append((event_type, data.get("content")))


current_tool: ContextVar[str | None] = ContextVar("current_tool", default=None)


async def test_an_observer_is_told_of_tools_in_their_own_tasks_and_of_how_they_end() -> None:
    ctx, seen = ThreadContext.for_test("hi"), Seen()
    ctx.observe(seen)
    together = asyncio.Barrier(3)

    async def use(name: str) -> None:
        async with ctx.tool(name, {"name": name}) as call:
            await together.wait()
            assert current_tool.get() == name
            if name == "raising":
                raise LookupError
            if name == "cancelled":
                await asyncio.Event().wait()
            call.result = name
        assert current_tool.get() is None

    tasks = [asyncio.create_task(use(name)) for name in ("good", "raising", "cancelled")]
    await asyncio.wait(tasks[:2])
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    with ctx.tool("failing") as call:
        call.error = "no hits"
    with pytest.raises(UnstorableEvent), ctx.tool("unstorable") as call:
        call.result = object()
    with pytest.raises(QuestionAsked), ctx.tool("asking"):
        await ctx.ask("go", "Go on?")
    with pytest.raises(RunClosed), ctx.tool("closed"):
        ctx.close()
    assert sorted(name for name, _ in seen.began) == sorted(name for name, _, _ in seen.ended)
    assert ("good", {"name": "good"}) in seen.began
    assert sorted(seen.ended) == [
        ("asking", {}, "QuestionAsked"),
        ("cancelled", {"error": "cancelled"}, "CancelledError"),
        ("closed", {}, "RunClosed"),
        ("failing", {"error": "no hits"}, None),
        ("good", {"result": "good"}, None),
        ("raising", {"error": "LookupError: "}, "LookupError"),
        ("unstorable", {}, "UnstorableEvent"),
    ]


async def test_an_observer_is_told_of_events_when_they_are_complete() -> None:
    ctx, seen = ThreadContext.for_test("hi"), Seen()
    await ctx.stream("before")
    ctx.observe(seen)
    await ctx.stream(" and after")
    ctx.reasoning("One ")
    ctx.reasoning("thought")
    assert seen.events == []
    ctx.end_message()
    ctx.end_message()
    assert seen.events == [("model.reasoning", "One thought"), ("comm.assistant_message", "before and after")]
    ctx.usage(model="m", input_tokens=1, output_tokens=1)
    await ctx.stream("again")
    ctx.complete()
    assert seen.events[2:] == [("model.usage", None), ("comm.assistant_message", "again")]
    assert [kind for kind, _ in sent(ctx)] == [kind for kind, _ in seen.events]


async def test_an_observer_that_fails_costs_the_pipeline_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(ActivityObserver):
        def tool_began(self, call: ToolCall) -> None:
            raise ValueError

        tool_ended = event_sent = tool_began  # type: ignore[assignment] # which are called with other arguments

    ctx, seen = ThreadContext.for_test("hi"), Seen()
    ctx.observe(Failing())
    ctx.observe(seen)
    async with ctx.tool("search") as call:
        call.result = 1
    assert [kind for kind, _ in sent(ctx)] == ["tool.call"]
    assert seen.ended == [("search", {"result": 1}, None)]
    assert caplog.text.count("an observer of a pipeline failed") == 3


@pytest.mark.parametrize("threaded", [False, True], ids=["plain def", "async in a thread"])
async def test_an_observer_is_told_of_tools_in_the_thread_of_the_pipeline(threaded: bool) -> None:
    seen = Seen()

    def plain(ctx: ThreadContext) -> None:
        ctx.observe(seen)
        with ctx.tool("search") as call:
            call.result = current_tool.get()
        ctx.send_message("done")

    async def own_loop(ctx: ThreadContext) -> None:
        ctx.observe(seen)
        async with ctx.tool("search") as call:
            call.result = current_tool.get()
        ctx.send_message("done")

    async with serving(JimsApp(own_loop if threaded else plain, threaded=threaded)) as client:
        assert (await client.post(CHAT, json=body("hi"))).status_code == 200
    assert seen.ended == [("search", {"result": "search"}, None)]
    assert [kind for kind, _ in seen.events] == ["tool.call", "comm.assistant_message"]


# In the stream and the thread.


async def agent(ctx: ThreadContext) -> None:
    ctx.reasoning("They ")
    ctx.reasoning("ask.")
    async with ctx.tool("search", {"q": "quokka"}, id="call_1") as call:
        call.result = "found"
    ctx.source(title="Quokkas")
    ctx.usage(model="m", input_tokens=812, output_tokens=44)
    ctx.send_message("Quokkas are happy.")


async def test_clients_see_at_once_what_is_stored_later() -> None:
    async with serving(agent) as client:
        items = parse((await client.post(STREAM, json=body("hi"))).text)
    names = [name for _, name, _ in items]
    assert names == [
        "started", "reasoning", "reasoning", "activity", "activity", "activity", "activity", "delta",
        "event", "event", "event", "event", "event", "result",
    ]  # fmt: skip
    pieces = [data for _, name, data in items if name == "reasoning"]
    live = [data for _, name, data in items if name == "activity"]
    stored = [data for _, name, data in items if name == "event"]
    assert [piece["content"] for piece in pieces] == ["They ", "ask."]
    assert live[0] == {
        "event_id": live[1]["event_id"],
        "event_type": "tool.call",
        "event_data": {"id": "call_1", "name": "search", "arguments": {"q": "quokka"}},
    }
    assert live[1]["event_data"]["result"] == "found"
    assert {pieces[0]["event_id"], pieces[1]["event_id"]} == {stored[0]["event_id"]}
    assert stored[0]["event_data"] == {"content": "They ask."}
    assert stored[1:4] == live[1:]
    assert items[-1].data["events"] == [
        {"event_type": event["event_type"], "event_data": event["event_data"]} for event in stored
    ]
    assert items[-1].data["assistant_messages"] == ["Quokkas are happy."]


async def test_the_next_run_of_the_thread_reads_what_the_agent_did() -> None:
    read: list[tuple[str, Any]] = []

    async def pipeline(ctx: ThreadContext) -> None:
        read[:] = [(event.event_type, event.event_data) for event in ctx.events]
        await agent(ctx)

    async with serving(pipeline) as client:
        for _ in range(2):
            assert (await client.post(CHAT, json=body("hi"))).status_code == 200
    kinds = [kind for kind, _ in read if not kind.startswith("jims.")]
    assert kinds == [
        "comm.user_message", "model.reasoning", "tool.call", "answer.source", "model.usage", "comm.assistant_message",
        "comm.user_message",
    ]  # fmt: skip
    assert dict(read)["model.usage"] == USAGE


async def test_a_failed_run_stores_nothing_of_what_was_seen() -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        async with ctx.tool("search"):
            raise LookupError("no index")

    async with serving(pipeline) as client:
        response = await client.post(STREAM, json=body("hi"))
        items = parse(response.text)
        assert [name for _, name, _ in items] == ["started", "activity", "activity", "error"]
        assert items[2].data["event_data"]["error"] == "LookupError: no index"
        thread = items[0].data["thread_id"]
        events = (await client.get(f"/api/v1/threads/{thread}/events")).json()
    assert [event["event_type"] for event in events["events"]] == ["jims.lifecycle.thread_created", "comm.user_message"]


async def test_hidden_errors_are_hidden_in_calls_of_tools_too_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        with pytest.raises(LookupError):
            async with ctx.tool("search"):
                raise LookupError("the address of the index")

    async with serving(pipeline, hide_errors=True) as client:
        answer = await client.post(CHAT, json=body("hi"))
    assert answer.json()["events"][0]["event_data"]["error"] == "the tool failed"
    [record] = [record for record in caplog.records if "a tool failed" in record.message]
    assert answer.headers["x-run-id"] in record.message
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "the address of the index"


async def test_a_secret_in_the_error_of_a_tool_is_redacted() -> None:
    secret = "a-long-secret-of-the-server"

    async def pipeline(ctx: ThreadContext) -> None:
        with pytest.raises(LookupError):
            async with ctx.tool("search"):
                raise LookupError(f"401 for {secret}")

    async with serving(pipeline, api_key=(secret,)) as client:
        answer = await client.post(CHAT, json=body("hi"), headers={"authorization": f"Bearer {secret}"})
    assert answer.json()["events"][0]["event_data"]["error"] == "LookupError: 401 for ***"


@pytest.mark.parametrize("threaded", [False, True])
async def test_pipelines_in_threads_do_the_same(threaded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_threads, "IDLE_FOR", 0.0)  # leave no thread to the tests that count them

    def plain(ctx: ThreadContext) -> None:
        ctx.reasoning("They ask.")
        with ctx.tool("search", {"q": "quokka"}, id="call_1") as call:
            call.result = "found"
        ctx.source(title="Quokkas")
        ctx.usage(model="m", input_tokens=812, output_tokens=44)

    app = JimsApp(agent, threaded=True) if threaded else JimsApp(plain)
    async with serving(app) as client:
        items = parse((await client.post(STREAM, json=body("hi"))).text)
    assert [name for _, name, _ in items].count("activity") == 4
    assert next(data for _, name, data in items if name == "activity")["event_data"]["name"] == "search"


# Who speaks, in which run.


async def test_the_context_knows_its_run_its_contact_and_its_caller() -> None:
    seen: list[Any] = []

    async def pipeline(ctx: ThreadContext) -> None:
        seen.append((str(ctx.run_id), ctx.contact_id, ctx.identity))

    async with serving(pipeline, api_key=("k" * 32,)) as client:
        headers = {"authorization": "Bearer " + "k" * 32}
        response = await client.post(CHAT, json=body("hi", contact_id="ann"), headers=headers)
        assert seen == [(response.headers["x-run-id"], "ann", Identity("key"))]
        assert (await client.get(f"{RUNS}/{seen[0][0]}", headers=headers)).status_code == 200


async def test_a_run_that_another_process_accepted_has_no_identity() -> None:
    message = message_event("comm.user_message", "hi")
    loop = asyncio.get_running_loop()
    own = LiveRun(Inbound(contact_id="ann", message="hi"), PUBLIC, loop, (message,))
    taken_over = AdoptedRun(uuid7(), uuid7(), "ann", message, None, None)
    adopted = LiveRun(Inbound(contact_id="ann", message=""), PUBLIC, loop, (message,), adopted=taken_over)
    assert (own.identity, adopted.identity) == (PUBLIC.identity, None)
