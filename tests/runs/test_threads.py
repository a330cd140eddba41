"""Pipelines that work in threads: plain functions, and async ones of a threaded app."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from jimsapi import JimsApp, StatusEvent, ThreadContext
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs import worker_threads
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.errors import PipelineFailed, RunCancelled, RunTimedOut
from jimsapi.runs.live import LiveRun, RunRecord, Stop
from jimsapi.runs.pipeline import Pipeline
from jimsapi.runs.service import RunService
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import RunClosed
from jimsapi.threads.event import NewEvent
from jimsapi.threads.run import RunStatus
from tests.runs.serving import STORES, ended, inbound, make_store, read_all, stored, told

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True, scope="module")
def impatient_threads() -> Iterator[None]:
    """Threads without work end soon, so that a test finds none of the tests before it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_threads, "IDLE_FOR", 0.3)
        yield


who: ContextVar[str] = ContextVar("who", default="nobody")


@asynccontextmanager
async def serving(app: Any, store: Any = None, **options: Any) -> AsyncIterator[RunService]:
    app = app if isinstance(app, JimsApp) else JimsApp(app)
    async with (
        store or MemoryStore() as opened,
        RunService(app, opened, [DefaultResolver()], **options) as service,
    ):
        yield service


class Held:
    """Plain pipelines that a test holds and releases; `late` is what speaking raised after the run's end."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.released = threading.Event()
        self.late: list[BaseException] = []
        self.messages: list[str] = []

    def __call__(self, ctx: ThreadContext) -> None:
        message = str(ctx.get_last_user_message())
        self.messages.append(message)
        if message == "hold":
            self.begun.release()
            self.released.wait()
        try:
            ctx.send_message(f"You said: {message}")
        except RunClosed as error:
            self.late.append(error)
            raise

    async def has_begun(self) -> None:
        """Wait until one more is held."""
        assert await asyncio.to_thread(self.begun.acquire, timeout=10)

    async def overdue(self, service: RunService, contact: str) -> LiveRun:
        """A run whose time is over while it is held. A call ends it: a clock could do so before the pipeline began."""
        run = service.begin(inbound("hold", contact), PUBLIC)
        await self.has_begun()
        service.stop_runs([run.run_id], Stop.TIMED_OUT)
        with pytest.raises(RunTimedOut):
            await run.answer
        return run


def speak(ctx: ThreadContext) -> None:
    assert threading.current_thread() is not threading.main_thread()
    ctx.update_agent_status(StatusEvent("Looking", "looking"))
    for piece in ("Hel", "lo"):
        ctx.stream(piece)
    ctx.update_agent_status("Done")
    ctx.send_message("Hello!")
    ctx.send_event("rag.note", {"n": 1})
    ctx.set_state("count", {"n": 2})
    ctx.send_message_with_buttons("Choose", [{"text": "Yes"}])


async def speak_async(ctx: ThreadContext) -> None:
    assert threading.current_thread() is not threading.main_thread()
    await ctx.update_agent_status(StatusEvent("Looking", "looking"))
    for piece in ("Hel", "lo"):
        await ctx.stream(piece)
    await ctx.update_agent_status("Done")
    ctx.send_message("Hello!")
    ctx.send_event("rag.note", {"n": 1})
    ctx.set_state("count", {"n": 2})
    ctx.send_message_with_buttons("Choose", [{"text": "Yes"}])


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("app", [JimsApp(speak), JimsApp(speak_async, threaded=True)], ids=["plain", "async"])
async def test_all_that_it_says_comes_in_order_and_is_stored(app: JimsApp, kind: str, tmp_path: Path) -> None:
    async with serving(app, make_store(kind, tmp_path)) as service:
        run = service.begin(inbound(), PUBLIC, watched=True)
        assert run.stream is not None
        reads = await read_all(run.stream)
        assert told(reads)[:7] == [
            *("started", "status Looking", "delta Hel", "delta lo", "status Done", "delta !", "delta Choose")
        ]
        events = [item for _, item in reads if isinstance(item, NewEvent)]
        assert [event.event_type for event in events] == [
            *("comm.assistant_message", "rag.note", "state.set.count", "comm.assistant_message_with_buttons")
        ]
        assert len({event.event_id for event in events}) == 4
        assert (await run.answer).assistant_messages == ["Hello!"]


def words(ctx: ThreadContext) -> Iterator[str]:
    assert threading.current_thread() is not threading.main_thread()
    yield from str(ctx.get_last_user_message())


async def words_async(ctx: ThreadContext) -> AsyncIterator[str]:
    assert threading.current_thread() is not threading.main_thread()
    for word in str(ctx.get_last_user_message()):
        yield word


@pytest.mark.parametrize("app", [JimsApp(words), JimsApp(words_async, threaded=True)], ids=["plain", "async"])
async def test_a_generator_streams_what_it_yields(app: JimsApp) -> None:
    async with serving(app) as service:
        run = service.begin(inbound("abc"), PUBLIC, watched=True)
        assert run.stream is not None
        assert told(await read_all(run.stream))[:4] == ["started", "delta a", "delta b", "delta c"]
        assert (await run.answer).assistant_messages == ["abc"]


def traced(pipeline: Any) -> Any:
    """An ordinary decorator: what it makes is a plain function, whatever it is put around."""

    @wraps(pipeline)
    def call(ctx: ThreadContext) -> Any:
        return pipeline(ctx)

    return call


closed: list[str] = []


@traced
def decorated_words(ctx: ThreadContext) -> Iterator[str]:
    assert threading.current_thread() is not threading.main_thread()
    try:
        yield from "abc"
    finally:
        closed.append("plain")


@traced
async def decorated_words_async(ctx: ThreadContext) -> AsyncIterator[str]:
    assert threading.current_thread() is threading.main_thread()
    try:
        for word in "abc":
            yield word
    finally:
        await asyncio.sleep(0)
        closed.append("async")


class Expression:
    def __call__(self, ctx: ThreadContext) -> Any:
        return (word for word in "abc")


@pytest.mark.parametrize(
    ("app", "cleaned"),
    [
        (JimsApp(decorated_words), ["plain"]),
        (JimsApp(decorated_words_async), ["async"]),
        (JimsApp(Expression()), []),
    ],
    ids=["plain", "async", "expression"],
)
async def test_a_generator_that_it_returns_is_streamed_and_closed(app: JimsApp, cleaned: list[str]) -> None:
    closed.clear()
    async with serving(app) as service:
        run = service.begin(inbound(), PUBLIC, watched=True)
        assert run.stream is not None
        assert told(await read_all(run.stream))[:4] == ["started", "delta a", "delta b", "delta c"]
        assert (await run.answer).assistant_messages == ["abc"]
    assert closed == cleaned


async def test_it_blocks_nobody_else() -> None:
    held = Held()
    async with serving(held) as service:
        run = service.begin(inbound("hold"), PUBLIC)
        await held.has_begun()
        assert (await service.chat(inbound("hi", "ben"), PUBLIC)).assistant_messages == ["You said: hi"]
        held.released.set()
        assert (await run.answer).assistant_messages == ["You said: hold"]


def reads_back(ctx: ThreadContext) -> None:
    state = ctx.get_state("count") or {"n": 0}
    ctx.set_state("count", {"n": state["n"] + 1})
    loaded = ctx.load_events(limit=100)
    ctx.send_message(f"{state['n']} {who.get()} {len(loaded)} {len(ctx.events)}")


async def test_it_reads_states_and_earlier_events_and_sees_context_variables() -> None:
    async with serving(reads_back) as service:
        who.set("ann")
        first = await service.chat(inbound(), PUBLIC)
        second = await service.chat(inbound(), PUBLIC)
        assert first.assistant_messages == ["0 ann 2 2"]
        assert second.assistant_messages == ["1 ann 5 5"]


async def test_an_async_one_has_an_event_loop_of_its_own_and_the_context_variables() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def pipeline(ctx: ThreadContext) -> None:
        loops.append(asyncio.get_running_loop())
        loaded = await ctx.load_events()
        ctx.send_message(f"{who.get()} {len(loaded)}")

    async with serving(JimsApp(pipeline, threaded=True)) as service:
        who.set("ann")
        assert (await service.chat(inbound(), PUBLIC)).assistant_messages == ["ann 2"]
    assert loops[0] is not asyncio.get_running_loop()


async def test_an_async_one_may_speak_by_tasks() -> None:
    async def pipeline(ctx: Any) -> None:
        await asyncio.create_task(ctx.update_agent_status("Speaking"))
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.stream("a"))
            group.create_task(ctx.stream("b"))
        loaded = await asyncio.wait_for(ctx.load_events(), 5)
        await asyncio.gather(ctx.stream("c"), ctx.stream(str(len(loaded))))

    for threaded in (False, True):
        async with serving(JimsApp(pipeline, threaded=threaded)) as service:
            run = service.begin(inbound(), PUBLIC, watched=True)
            assert run.stream is not None
            assert "status Speaking" in told(await read_all(run.stream))
            assert (await run.answer).assistant_messages == ["abc2"]


async def test_a_lambda_that_makes_a_coroutine_is_awaited_in_the_loop_of_the_service() -> None:
    async def pipeline(ctx: ThreadContext, text: str) -> None:
        assert threading.current_thread() is threading.main_thread()
        await ctx.stream(text)

    async with serving(JimsApp(lambda ctx: pipeline(ctx, "yes"))) as service:
        assert (await service.chat(inbound(), PUBLIC)).assistant_messages == ["yes"]


@pytest.mark.parametrize("raised", [RuntimeError("no"), SystemExit("no"), StopIteration("no"), RunClosed("no")])
async def test_what_it_raises_fails_the_run_and_nothing_else(raised: BaseException) -> None:
    def pipeline(ctx: ThreadContext) -> None:
        ctx.send_message("never stored")
        if ctx.get_last_user_message() == "raise":
            raise raised

    async with serving(pipeline) as service:
        with pytest.raises(PipelineFailed):
            await service.chat(inbound("raise"), PUBLIC)
        assert (await service.chat(inbound("hi"), PUBLIC)).assistant_messages == ["never stored"]


async def test_one_that_does_not_end_in_time_is_let_go_and_cannot_speak_any_more() -> None:
    held = Held()
    async with serving(held) as service:
        run = await held.overdue(service, "ann")
        assert (await stored(service, run.run_id)).status is RunStatus.FAILED
        assert service.abandoned_pipelines == 1
        assert (await service.chat(inbound("hi"), PUBLIC)).assistant_messages == ["You said: hi"]
        held.released.set()
        while service.abandoned_pipelines:
            await asyncio.sleep(0)
    assert [str(error) for error in held.late] == ["the run has ended; what its pipeline sends now is not stored"]


async def test_an_async_one_is_cancelled_in_its_own_loop() -> None:
    begun, cleaned = threading.Event(), threading.Event()

    async def pipeline(ctx: ThreadContext) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async with serving(JimsApp(pipeline, threaded=True)) as service:
        run = service.begin(inbound(), PUBLIC)
        assert await asyncio.to_thread(begun.wait, 10)
        service.stop_runs([run.run_id], Stop.CANCELLED)
        with pytest.raises(RunCancelled):
            await run.answer
        assert cleaned.is_set()
        assert service.abandoned_pipelines == 0


async def test_messages_beyond_the_threads_wait_for_one_as_running_and_leave_when_cancelled() -> None:
    held = Held()
    app = JimsApp(held, threads=2)
    async with serving(app) as service:
        runs = [service.begin(inbound("hold", contact), PUBLIC) for contact in ("a", "b")]
        await held.has_begun()
        await held.has_begun()
        waiting = service.begin(inbound("never", "c"), PUBLIC)
        last = service.begin(inbound("hi", "d"), PUBLIC)
        while waiting_calls(app) < 2:
            await asyncio.sleep(0)
        assert (waiting.status, last.status, service.waiting_runs) == (RunStatus.RUNNING, RunStatus.RUNNING, 0)
        service.stop_runs([waiting.run_id], Stop.CANCELLED)
        with pytest.raises(RunCancelled):
            await waiting.answer
        assert service.abandoned_pipelines == 0
        assert not last.answer.done()
        held.released.set()
        for run in (*runs, last):
            await run.answer
    assert held.messages == ["hold", "hold", "hi"]


async def test_threads_that_never_end_give_their_places_to_as_many_others() -> None:
    held = Held()
    app = JimsApp(held, threads=1)
    async with serving(app) as service:
        await held.overdue(service, "a")
        assert (await service.chat(inbound("hi", "b"), PUBLIC)).assistant_messages == ["You said: hi"]
        await held.overdue(service, "c")
        waiting = service.begin(inbound("hi", "d"), PUBLIC)
        while not waiting_calls(app) and not waiting.answer.done():
            await asyncio.sleep(0)
        assert not waiting.answer.done()  # both places are taken
        assert service.abandoned_pipelines == 2
        held.released.set()
        assert (await waiting.answer).assistant_messages == ["You said: hi"]


def waiting_calls(app: JimsApp) -> int:
    pipeline: Any = app.pipeline
    return len(pipeline._threads._waiting)


class Workers:
    """The threads of pipelines that were started since. Those of earlier tests may be idle for a while yet."""

    def __init__(self) -> None:
        self._earlier = set(threading.enumerate())

    def count(self) -> int:
        return sum(thread.name == "pipeline" for thread in set(threading.enumerate()) - self._earlier)

    async def ended(self) -> None:
        async with asyncio.timeout(30):
            while self.count():
                await asyncio.sleep(0.01)


async def test_threads_are_used_again_and_end_when_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers()
    async with serving(Held()) as service:
        monkeypatch.setattr(worker_threads, "IDLE_FOR", 60.0)
        for _ in range(10):
            await service.chat(inbound(), PUBLIC)
        assert workers.count() == 1
        monkeypatch.setattr(worker_threads, "IDLE_FOR", 0.1)
        await service.chat(inbound(), PUBLIC)
        await workers.ended()
        assert (await service.chat(inbound(), PUBLIC)).assistant_messages == ["You said: hi"]


async def test_a_call_waits_for_a_thread_that_is_slow_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    finish, may_come_back = worker_threads.Call.finish, threading.Event()

    def finish_slowly(call: worker_threads.Call) -> None:
        finish(call)
        may_come_back.wait(10)

    workers = Workers()
    monkeypatch.setattr(worker_threads.Call, "finish", finish_slowly)
    app = JimsApp(Held())
    async with serving(app) as service:
        await service.chat(inbound(), PUBLIC)
        run = service.begin(inbound(), PUBLIC)
        while not waiting_calls(app) and workers.count() == 1:
            await asyncio.sleep(0)
        assert workers.count() == 1
        may_come_back.set()
        assert (await run.answer).assistant_messages == ["You said: hi"]


async def test_a_thread_that_the_system_does_not_start_costs_only_the_run_that_needed_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []

    def pipeline(ctx: ThreadContext) -> None:
        said.append(str(ctx.get_last_user_message()))
        ctx.send_message("here")

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    app = JimsApp(pipeline)
    async with serving(app) as service:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(PipelineFailed):
                await service.chat(inbound("refused"), PUBLIC)
        assert (await service.chat(inbound("hi"), PUBLIC)).assistant_messages == ["here"]
        assert (await service.chat(inbound("hi again"), PUBLIC)).assistant_messages == ["here"]
    assert said == ["hi", "hi again"]


async def test_many_at_once_are_all_answered_with_events_of_their_own() -> None:
    def pipeline(ctx: ThreadContext) -> None:
        for number in range(20):
            ctx.send_event("rag.note", {"n": number})
        ctx.send_message(str(ctx.get_last_user_message()))

    async with serving(JimsApp(pipeline, threads=8)) as service:
        results = await asyncio.gather(*(service.chat(inbound(f"{n}", f"{n}"), PUBLIC) for n in range(60)))
    assert [result.assistant_messages for result in results] == [[f"{n}"] for n in range(60)]
    identifiers = [event.event_id for result in results for event in result.events]
    assert len(set(identifiers)) == len(identifiers) == 60 * 21


async def test_it_may_begin_a_conversation_and_be_wrapped_and_keeps_its_name_in_metrics() -> None:
    records: list[RunRecord] = []
    wrapped: list[str] = []

    def greet(ctx: ThreadContext) -> None:
        ctx.send_message("Welcome")

    def wrap(pipeline: Pipeline, name: str) -> Pipeline:
        async def around(ctx: ThreadContext) -> None:
            wrapped.append(name)
            await pipeline(ctx)

        return around

    app = JimsApp(speak_async, conversation_start_pipeline=greet, threaded=True)
    async with MemoryStore() as store:
        service = RunService(app, store, [DefaultResolver()], on_run=[records.append])
        service.wrap_pipelines(wrap)
        async with service:
            result = await service.chat(inbound(run_conversation_start_on_new_thread=True), PUBLIC)
            await ended(service)
    assert result.assistant_messages == ["Hello!"]
    assert wrapped == ["greet", "speak_async"]
    assert [timing.pipeline for timing in records[0].pipelines] == ["greet", "speak_async"]


def test_a_plain_one_is_tested_without_a_server_or_a_loop() -> None:
    ctx = ThreadContext.for_test("hi")
    ctx.with_status_updater(Heard())
    for piece in words_of(ctx):
        ctx.stream(piece)
    ctx.update_agent_status("Done")
    assert isinstance(ctx.status_updater, Heard)
    assert ctx.status_updater.statuses == ["Done"]
    assert [event.event_data["content"] for event in ctx.complete()] == ["hi"]


async def test_a_plain_one_is_tested_in_an_async_test_without_a_server() -> None:
    ctx = ThreadContext.for_test("hi")
    speak_plainly(ctx)
    assert [event.event_data["content"] for event in ctx.complete()] == ["hi"]


def speak_plainly(ctx: ThreadContext) -> None:
    ctx.update_agent_status("Speaking")
    for piece in words_of(ctx):
        ctx.stream(piece)


async def test_an_async_one_waits_in_a_test_as_in_a_server() -> None:
    ctx: Any = ThreadContext.for_test("hi").with_status_updater(Heard())

    async def speaks_without_end() -> None:
        while True:
            await ctx.stream("again ")

    await ctx.update_agent_status("Speaking")
    await asyncio.create_task(ctx.update_agent_status("Still"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ctx.update_agent_status("Never"), 0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(speaks_without_end(), 0.01)
    with pytest.raises(TypeError, match="must be a str"):
        await ctx.stream(5)
    assert [event.event_type for event in await ctx.load_events()] == ["comm.user_message"]
    assert ctx.status_updater.statuses == ["Speaking", "Still"]


def words_of(ctx: ThreadContext) -> str:
    return str(ctx.get_last_user_message())


class Heard:
    """A status updater that waits."""

    def __init__(self) -> None:
        self.statuses: list[StatusEvent | str] = []

    async def update_status(self, status: StatusEvent | str) -> None:
        await asyncio.sleep(0.001)
        self.statuses.append(status)


async def test_the_app_of_a_plain_one_is_tested_without_a_server() -> None:
    ctx = ThreadContext.for_test("hi")
    await JimsApp(speak).pipeline(ctx)
    assert ctx.complete()[0].event_type == "comm.assistant_message"


class Bot:
    def __call__(self, ctx: ThreadContext) -> None:
        """Answers nothing."""


def takes_nothing() -> None:
    """Is a factory, if anything."""


@pytest.mark.parametrize("faulty", [Bot, takes_nothing, "bot", None, 3])
async def test_what_takes_no_context_is_refused_at_once(faulty: Any) -> None:
    with pytest.raises(TypeError, match="pipeline must be a function of one argument"):
        JimsApp(faulty)
    with pytest.raises(ValueError, match="threads is 0"):
        JimsApp(Bot(), threads=0)


async def returns_its_answer(ctx: ThreadContext) -> Any:
    return words_of(ctx)


async def sends_its_answer(ctx: ThreadContext) -> Any:
    ctx.send_message(words_of(ctx))
    return words_of(ctx)


@pytest.mark.parametrize(
    ("app", "logged"),
    [
        (JimsApp(words_of), True),
        (JimsApp(returns_its_answer), True),
        (JimsApp(returns_its_answer, threaded=True), True),
        (JimsApp(lambda ctx: returns_its_answer(ctx)), True),
        (JimsApp(sends_its_answer), False),
        (JimsApp(lambda ctx: None), False),
        (JimsApp(lambda ctx: 5), False),
    ],
)
async def test_a_text_that_is_returned_and_not_sent_is_logged(
    app: JimsApp, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(app) as service:
        await service.chat(inbound("hi"), PUBLIC)
    assert ("call ctx.send_message(text)" in caplog.text) is logged
