"""The flow of a run, without HTTP: what its caller, its observers and its sinks are told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from jimsapi import ById, Event, Identity, Inbound, JimsApp, Latest, New, ThreadContext
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs import sinks
from jimsapi.runs.admission import PUBLIC, Admission
from jimsapi.runs.errors import (
    ContactForbidden,
    PipelineFailed,
    RunCancelled,
    RunInterrupted,
    RunTimedOut,
    ServerDraining,
)
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.live import RunRecord, Stop
from jimsapi.runs.pipeline import Pipeline
from jimsapi.runs.service import RunService
from jimsapi.runs.sinks import SinkQueue
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import DomainError, RunClosed, ThreadNotFound
from jimsapi.threads.run import Outcome, RunStatus, Settled

pytestmark = pytest.mark.anyio


class Bot:
    """A pipeline that can be held: `hold` waits, everything else is echoed."""

    def __init__(self) -> None:
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()

    async def __call__(self, ctx: ThreadContext) -> None:
        if ctx.get_last_user_message() == "hold":
            self.begun.set()
            await self.may_end.wait()
        if ctx.get_last_user_message() == "raise":
            raise RuntimeError("on purpose")
        ctx.send_message(f"You said: {ctx.get_last_user_message()}")


@asynccontextmanager
async def serving(pipeline: Any, **options: Any) -> AsyncIterator[RunService]:
    async with MemoryStore() as store:
        resolvers = options.pop("resolvers", [DefaultResolver()])
        async with RunService(JimsApp(pipeline), store, resolvers, **options) as service:
            yield service


def inbound(message: str, contact: str = "ann", thread_id: UUID | None = None) -> Inbound:
    return Inbound(contact_id=contact, message=message, thread_id=thread_id)


async def waiting(service: RunService, count: int) -> None:
    while service.waiting_runs != count:
        await asyncio.sleep(0)


async def contents(service: RunService, thread_id: UUID) -> list[str]:
    page = await service.store.events(thread_id, None, 1000, None)
    return [event.event_type for event in page.events]


async def test_an_answer_tells_the_run_the_thread_and_what_was_said() -> None:
    async with serving(Bot()) as service:
        first = await service.chat(inbound("hi"), PUBLIC)
        again = await service.chat(inbound("hi"), PUBLIC)
    assert (first.created_new_thread, again.created_new_thread) == (True, False)
    assert first.thread_id == again.thread_id
    assert first.run_id != again.run_id
    assert first.assistant_messages == ["You said: hi"]


async def test_a_caller_that_is_cancelled_cancels_nothing() -> None:
    bot = Bot()
    async with serving(bot) as service:
        caller = asyncio.create_task(service.chat(inbound("hold"), PUBLIC))
        await bot.begun.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        next_one = asyncio.create_task(service.chat(inbound("next"), PUBLIC))
        await waiting(service, 1)
        bot.may_end.set()
        answered = await next_one
        stored = await contents(service, answered.thread_id)
    assert stored[1:] == ["comm.user_message", "comm.assistant_message"] * 2


STOPS: list[tuple[Stop, type[Exception]]] = [
    (Stop.CANCELLED, RunCancelled),
    (Stop.DRAINED, RunInterrupted),
    (Stop.DELETED, ThreadNotFound),
    (Stop.TIMED_OUT, RunTimedOut),
]


@pytest.mark.parametrize(("reason", "error"), STOPS)
async def test_a_running_one_that_is_stopped_says_why_and_lets_the_next_go_on(
    reason: Stop, error: type[Exception]
) -> None:
    bot = Bot()
    async with serving(bot) as service:
        running = service.begin(inbound("hold"), PUBLIC)
        await bot.begun.wait()
        next_one = service.begin(inbound("next"), PUBLIC)
        await waiting(service, 1)
        service.stop_runs([running.run_id, uuid4()], reason)
        with pytest.raises(error):
            await running.answer
        answered = await next_one.answer
        stored = await contents(service, answered.thread_id)
    assert stored[1:] == ["comm.user_message", "comm.user_message", "comm.assistant_message"]


@pytest.mark.parametrize(("reason", "error"), STOPS[:3])
async def test_a_waiting_one_that_is_stopped_never_enters_its_thread(reason: Stop, error: type[Exception]) -> None:
    bot = Bot()
    async with serving(bot) as service:
        running = service.begin(inbound("hold"), PUBLIC)
        await bot.begun.wait()
        stopped = service.begin(inbound("never"), PUBLIC)
        last = service.begin(inbound("last"), PUBLIC)
        await waiting(service, 2)
        service.stop_runs([stopped.run_id], reason)
        with pytest.raises(error):
            await stopped.answer
        bot.may_end.set()
        await running.answer
        answered = await last.answer
        stored = await contents(service, answered.thread_id)
    assert stored[1:] == ["comm.user_message", "comm.assistant_message"] * 2


async def test_observers_are_told_how_each_run_ended_and_one_that_raises_harms_nobody() -> None:
    told: list[RunRecord] = []

    def broken(record: RunRecord) -> None:
        raise RuntimeError("an observer's own fault")

    by_key = Admission(Identity("holder"), "key", "jimsapi", "0.1.0")
    async with serving(Bot(), on_run=[broken, told.append]) as service:
        good = service.begin(inbound("hi"), by_key)
        await good.answer
        bad = service.begin(inbound("raise"), by_key)
        with pytest.raises(PipelineFailed, match="on purpose"):
            await bad.answer
        with pytest.raises(ThreadNotFound):
            await service.chat(inbound("hi", thread_id=uuid4()), by_key)
        while service.open_runs:
            await asyncio.sleep(0)
    assert [(record.run_id, record.status) for record in told] == [
        (good.run_id, RunStatus.COMPLETED),
        (bad.run_id, RunStatus.FAILED),
    ]
    assert [record.provider for record in told] == ["key", "key"]
    assert [(timing.pipeline, timing.succeeded) for record in told for timing in record.pipelines] == [
        ("Bot", True),
        ("Bot", False),
    ]


class Sink:
    name = "sink"

    def __init__(self) -> None:
        self.got: list[Event] = []

    async def deliver(self, events: Sequence[Event]) -> None:
        self.got.extend(events)


class BrokenSink:
    name = "broken"

    async def deliver(self, events: Sequence[Event]) -> None:
        raise RuntimeError("away")


async def test_sinks_get_what_was_stored_in_order_and_nothing_of_a_failed_answer() -> None:
    sink = Sink()
    queues = [SinkQueue(BrokenSink()), SinkQueue(sink)]
    async with serving(Bot(), sinks=queues) as service:
        thread_id = (await service.chat(inbound("hi"), PUBLIC)).thread_id
        with pytest.raises(PipelineFailed):
            await service.chat(inbound("raise"), PUBLIC)
        await service.drain(5)
        stored = (await service.store.events(thread_id, None, 1000, None)).events
    assert [event.event_id for event in sink.got] == [event.event_id for event in stored]
    assert {event.thread_id for event in sink.got} == {thread_id}
    assert [event.event_type for event in sink.got][1:] == [
        "comm.user_message",
        "comm.assistant_message",
        "comm.user_message",
    ]
    assert (queues[0].outcomes["failed"], queues[1].outcomes["delivered"]) == (4, 4)


async def test_a_sink_that_does_not_keep_up_holds_a_bounded_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "QUEUE_BYTES", 5000)

    class Slow(Sink):
        def __init__(self) -> None:
            super().__init__()
            self.may_go_on = asyncio.Event()

        async def deliver(self, events: Sequence[Event]) -> None:
            await self.may_go_on.wait()
            await super().deliver(events)

    slow = Slow()
    queue = SinkQueue(slow)
    async with serving(Bot(), sinks=[queue]) as service:
        for number in range(10):
            await service.chat(inbound(f"{number}" * 1000), PUBLIC)
        dropped = queue.outcomes["dropped"]
        assert 10 < dropped < 20
        slow.may_go_on.set()
        await queue.flush(5.0)
        await service.chat(inbound("small"), PUBLIC)
        await queue.flush(5.0)
        await service.chat(inbound("x" * 6000), PUBLIC)  # one event may be larger than all may be together
        await queue.flush(5.0)
    contents = [event.event_data.get("content") for event in slow.got]
    assert {"small", "x" * 6000} <= set(contents)


class Resolver:
    def __init__(self, answer: Any) -> None:
        self.name = "resolver"
        self._answer = answer

    async def resolve(self, inbound: Inbound) -> Any:
        return self._answer


async def test_the_first_resolver_that_answers_decides_alone() -> None:
    for resolvers, created in (
        ([Resolver(None), Resolver([Latest(), New()])], [True, False]),
        ([Resolver([New()]), Resolver([Latest()])], [True, True]),
        ([Resolver([Latest(active_within=timedelta(0)), New()])], [True, True]),
    ):
        async with serving(Bot(), resolvers=resolvers) as service:
            assert [(await service.chat(inbound("hi"), PUBLIC)).created_new_thread for _ in range(2)] == created


@pytest.mark.parametrize("answer", [[], [Latest()], [ById(uuid4())], None])
async def test_nothing_that_matches_is_a_thread_not_found(answer: Any) -> None:
    async with serving(Bot(), resolvers=[Resolver(answer)]) as service:
        with pytest.raises(ThreadNotFound):
            await service.chat(inbound("hi"), PUBLIC)
        assert (await service.store.threads("ann", 10, None)).threads == []


async def test_a_resolver_cannot_lead_a_bound_caller_into_a_foreign_thread() -> None:
    async with serving(Bot()) as owner:
        foreign = (await owner.chat(inbound("hi", "bea"), PUBLIC)).thread_id
        bound = Admission(Identity("ann", contact_id="ann"))
        with pytest.raises(ThreadNotFound):
            await owner.chat(inbound("hi", "ann", foreign), bound)
        with pytest.raises(ContactForbidden):
            owner.begin(inbound("hi", "bea", foreign), bound)
        assert owner.open_runs == 0


async def test_a_drain_refuses_new_runs_interrupts_started_ones_and_cancels_waiting_ones() -> None:
    bot = Bot()
    told: list[RunRecord] = []
    async with serving(bot, on_run=[told.append], limits=RunLimits(run_timeout=60)) as service:
        hung = service.begin(inbound("hold"), PUBLIC)
        await bot.begun.wait()
        queued = service.begin(inbound("never"), PUBLIC)
        await waiting(service, 1)
        await service.drain(0.01)
        with pytest.raises(ServerDraining):
            service.begin(inbound("late"), PUBLIC)
        for run in (hung, queued):
            with pytest.raises(RunInterrupted):
                await run.answer
        assert service.open_runs == 0
    ended = {record.run_id: record.status for record in told}
    assert ended == {hung.run_id: RunStatus.INTERRUPTED, queued.run_id: RunStatus.CANCELLED}


async def test_code_that_gave_up_waiting_for_an_answer_can_wait_again() -> None:
    bot = Bot()
    async with serving(bot) as service:
        run = service.begin(inbound("hold"), PUBLIC)
        await bot.begun.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await run.wait_for_answer()
        bot.may_end.set()
        assert (await run.wait_for_answer()).run_id == run.run_id


async def test_a_run_without_an_admission_says_what_the_route_lacks() -> None:
    nobody: Any = None
    async with serving(Bot()) as service:
        with pytest.raises(TypeError, match='a public route has none: declare the route with scope="chat"'):
            await service.chat(inbound("hi"), nobody)
        assert service.open_runs == 0


QUITTERS: list[Callable[[], BaseException]] = [SystemExit, KeyboardInterrupt, asyncio.CancelledError]


@pytest.mark.parametrize("quitter", QUITTERS)
async def test_a_pipeline_cannot_take_the_server_down(quitter: Callable[[], BaseException]) -> None:
    async def quits(ctx: ThreadContext) -> None:
        raise quitter()

    async with serving(quits) as service:
        for _ in range(2):
            with pytest.raises(PipelineFailed):
                await service.chat(inbound("hi"), PUBLIC)


class Odd:
    """What a pipeline of somebody else's might send: it raises when it is looked at."""

    event_id = None

    @property
    def event_type(self) -> str:
        raise RuntimeError("no type today")


async def test_an_event_that_raises_when_looked_at_fails_its_run_and_frees_its_thread() -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        if ctx.get_last_user_message() == "odd":
            ctx.outgoing_events.append(Odd())

    async with serving(pipeline) as service:
        with pytest.raises(PipelineFailed, match="Pipeline error: no type today"):
            await service.chat(inbound("odd"), PUBLIC)
        async with asyncio.timeout(30):
            await service.chat(inbound("even"), PUBLIC)


async def test_a_caller_whose_run_is_cut_off_at_the_exit_is_answered() -> None:
    reached = asyncio.Event()

    class Stuck(MemoryStore):
        async def accept(self, plan: Any) -> Any:
            reached.set()
            await asyncio.Event().wait()

    async def pipeline(ctx: ThreadContext) -> None: ...

    async with RunService(JimsApp(pipeline), Stuck(), [DefaultResolver()]) as service:
        caller = asyncio.ensure_future(service.chat(inbound("hi"), PUBLIC))
        await reached.wait()
    with pytest.raises(RunInterrupted):
        await caller


async def test_who_watches_a_run_that_is_cut_off_at_the_exit_is_told_also_if_its_caller_has_left() -> None:
    reached = asyncio.Event()

    class Stuck(MemoryStore):
        async def accept(self, plan: Any) -> Any:
            reached.set()
            await asyncio.Event().wait()

    async with RunService(JimsApp(Bot()), Stuck(), [DefaultResolver()]) as service:
        run = service.begin(inbound("hi"), PUBLIC, watched=True)
        acceptance = run.acceptance
        await reached.wait()
        run.answer.cancel()
    assert acceptance is not None
    assert acceptance.done()
    assert run.stream is not None
    assert run.stream.ended is not None
    assert isinstance(run.stream.ended.answer, RunInterrupted)


@pytest.mark.parametrize("watched", [False, True])
async def test_no_error_is_made_for_a_run_that_succeeds(watched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[DomainError] = []
    monkeypatch.setattr(DomainError, "__init__", lambda self, *_: made.append(self), raising=False)
    async with serving(Bot()) as service:
        run = service.begin(inbound("hi"), PUBLIC, watched=watched)
        await run.answer
        while service.open_runs:
            await asyncio.sleep(0)
    assert made == []


@pytest.mark.parametrize("waits", [False, True])
async def test_a_pipeline_that_cancels_its_own_task_harms_only_its_answer(waits: bool) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        task = asyncio.current_task()
        assert task is not None
        if ctx.get_last_user_message() == "cancel":
            asyncio.get_running_loop().call_soon(task.cancel)  # also what comes after the pipeline has ended
            task.cancel()
        if waits:
            await asyncio.sleep(0)
        ctx.send_message("went on")

    class Waiting(MemoryStore):
        async def finish(self, run_id: UUID, owner: UUID, outcome: Outcome) -> Settled:
            await asyncio.sleep(0)
            return await super().finish(run_id, owner, outcome)

    async with RunService(JimsApp(pipeline), Waiting(), [DefaultResolver()]) as service:
        with pytest.raises(PipelineFailed, match="the pipeline cancelled itself"):
            await service.chat(inbound("cancel"), PUBLIC)
        assert (await service.chat(inbound("go on"), PUBLIC)).assistant_messages == ["went on"]


async def test_a_pipeline_may_limit_its_own_steps_in_time() -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            ctx.send_message("gave up")

    async with serving(pipeline) as service:
        assert (await service.chat(inbound("hi"), PUBLIC)).assistant_messages == ["gave up"]


async def test_each_run_has_a_time_limit_of_its_own() -> None:
    bot = Bot()
    async with serving(bot, limits=RunLimits(run_timeout=1.0)) as service:
        first = service.begin(inbound("hold", "ann"), PUBLIC)
        await asyncio.sleep(0.5)
        second = service.begin(inbound("hold", "bob"), PUBLIC)
        with pytest.raises(RunTimedOut):
            await first.answer
        assert not second.answer.done()
        with pytest.raises(RunTimedOut):
            await second.answer
        third = service.begin(inbound("hold", "cid"), PUBLIC)
        with pytest.raises(RunTimedOut):
            await third.answer


@pytest.mark.parametrize("greets", [False, True])
async def test_a_pipeline_that_is_let_go_ends_later_without_a_trace(greets: bool) -> None:
    released = asyncio.Event()
    told: list[RunRecord] = []

    async def stubborn(ctx: ThreadContext) -> None:
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()

    async with MemoryStore() as store:
        app = JimsApp(Bot(), conversation_start_pipeline=stubborn) if greets else JimsApp(stubborn)
        limits = RunLimits(run_timeout=0.5)
        async with RunService(app, store, [DefaultResolver()], limits=limits, on_run=[told.append]) as service:
            message = Inbound(contact_id="ann", message="hi", run_conversation_start_on_new_thread=greets)
            run = service.begin(message, PUBLIC)
            with pytest.raises(RunTimedOut):
                await run.answer
            assert (service.open_runs, service.abandoned_pipelines) == (0, 1)
            released.set()
            while service.abandoned_pipelines:
                await asyncio.sleep(0)
            assert run.thread_id is not None
            stored = await contents(service, run.thread_id)
    assert stored == ["jims.lifecycle.thread_created", "comm.user_message"]
    assert [(record.status, len(record.pipelines)) for record in told] == [(RunStatus.FAILED, 1)]


@pytest.mark.parametrize("begun", [False, True])
async def test_an_exit_without_a_drain_answers_what_is_open_and_closes_its_voice(begun: bool) -> None:
    contexts: list[ThreadContext] = []
    started, may_end = asyncio.Event(), asyncio.Event()

    async def stubborn(ctx: ThreadContext) -> None:
        contexts.append(ctx)
        started.set()
        while not may_end.is_set():
            with suppress(asyncio.CancelledError):
                await may_end.wait()

    async with serving(stubborn) as service:
        run = service.begin(inbound("hold"), PUBLIC)
        if begun:
            await started.wait()
    may_end.set()
    with pytest.raises(RunInterrupted):
        await run.answer
    assert service.open_runs == 0
    for context in contexts:
        with pytest.raises(RunClosed):
            context.send_message("too late")


@pytest.mark.parametrize("fails", [False, True])
async def test_what_a_pipeline_leaves_running_is_not_heard_once_it_has_ended(fails: bool) -> None:
    left: list[asyncio.Task[None]] = []

    async def talk(ctx: ThreadContext) -> None:
        for _ in range(10_000):
            await ctx.stream("more")

    async def pipeline(ctx: ThreadContext) -> None:
        left.append(asyncio.create_task(talk(ctx)))
        await asyncio.sleep(0)
        if fails:
            raise RuntimeError("on purpose")

    async with serving(pipeline) as service:
        run = service.begin(inbound("hi"), PUBLIC, watched=True)
        await asyncio.wait([run.answer])
        with pytest.raises(RunClosed):
            await left[0]
        assert run.stream is not None
        stored = await service.store.run(run.run_id, None, None)
        assert stored.streamed == run.stream.item_count - 1


async def test_an_event_that_exits_when_looked_at_does_not_take_the_server_down() -> None:
    class Exits:
        event_id = None

        @property
        def event_type(self) -> str:
            raise SystemExit(3)

    async def pipeline(ctx: ThreadContext) -> None:
        ctx.outgoing_events.append(Exits())

    async with serving(pipeline) as service:
        with pytest.raises(PipelineFailed):
            await service.chat(inbound("hi"), PUBLIC)


async def test_what_is_put_around_pipelines_is_called_outermost_last_and_leaves_them_their_names() -> None:
    records: list[RunRecord] = []
    calls: list[str] = []

    async def greet(ctx: ThreadContext) -> None:
        ctx.send_message("welcome")

    def by(who: str) -> Callable[[Pipeline, str], Pipeline]:
        def wrap(pipeline: Pipeline, name: str) -> Pipeline:
            async def wrapped(ctx: ThreadContext) -> None:
                calls.append(f"{who} calls {name}")
                await pipeline(ctx)

            return wrapped

        return wrap

    async with MemoryStore() as store:
        app = JimsApp(Bot(), conversation_start_pipeline=greet, name="bot")
        service = RunService(app, store, [DefaultResolver()], on_run=[records.append])
        service.wrap_pipelines(by("inner"))
        service.wrap_pipelines(by("outer"))
        async with service:
            first = Inbound(contact_id="ann", message="hi", run_conversation_start_on_new_thread=True)
            assert (await service.chat(first, PUBLIC)).assistant_messages == ["You said: hi"]
            with pytest.raises(PipelineFailed, match="on purpose"):
                await service.chat(inbound("raise"), PUBLIC)
    assert calls == ["outer calls greet", "inner calls greet", *["outer calls bot", "inner calls bot"] * 2]
    timings = [(timing.pipeline, timing.succeeded) for record in records for timing in record.pipelines]
    assert timings == [("greet", True), ("bot", True), ("bot", False)]
