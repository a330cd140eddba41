"""A pipeline, or somebody else's code, cancels tasks that are not its own: other runs and the service go on."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest

from jimsapi import Event, Inbound, JimsApp, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs import housekeeping, tasks
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.calls import invoke
from jimsapi.runs.errors import PipelineFailed, QueueTimedOut, RunCancelled, RunInterrupted
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.live import LiveRun, Stop
from jimsapi.runs.service import RunService
from jimsapi.runs.sinks import SinkQueue
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.run import RunStatus
from tests.apps.scripted import Scripted
from tests.runs.careless import Careless
from tests.runs.serving import STORES, ended, inbound, make_store, serving, stored, taken

pytestmark = pytest.mark.anyio


class Noted:
    """A sink that keeps what it gets."""

    name = "noted"

    def __init__(self) -> None:
        self.types: list[str] = []

    async def deliver(self, events: Sequence[Event]) -> None:
        self.types += [event.event_type for event in events]


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("when", ["now", "later"])
async def test_a_pipeline_that_cancels_all_tasks_ends_no_other_run(
    kind: str, when: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bot, sink = Careless(), Noted()
    async with serving(bot, make_store(kind, tmp_path), sinks=[SinkQueue(sink)]) as service:
        running = service.begin(inbound("hold on; send kept"), PUBLIC)
        await bot.reached["on"].wait()
        queued = await taken(service.begin(inbound("next"), PUBLIC))
        careless = await service.chat(inbound(f"cancel {when}; send done", "ben"), PUBLIC)
        assert careless.assistant_messages == ["done"]
        bot.opened["on"].set()
        assert (await running.answer).assistant_messages == ["kept"]
        assert (await queued.answer).assistant_messages == ["You said: next"]
        await ended(service)
        assert (await stored(service, running.run_id)).status is RunStatus.COMPLETED
        for each in service.sinks:
            await each.flush(5.0)
    assert sink.types.count("comm.assistant_message") == 3
    [line] = [record.getMessage() for record in caplog.records if record.name == "jimsapi.tasks"]
    assert f"pipeline Careless (run {careless.run_id}, thread {careless.thread_id})" in line
    assert "that task continues" in line


async def test_housekeeping_goes_on_after_a_pipeline_has_cancelled_all_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "HEARTBEAT_EVERY", 0.01)
    store = Beating()
    async with serving(Careless(), store) as service:
        await service.chat(inbound("cancel now"), PUBLIC)
        store.beaten.clear()
        await asyncio.wait_for(store.beaten.wait(), 5.0)


class Beating(MemoryStore):
    """A store that says when it was told that its process lives, and fails then as it is asked to."""

    def __init__(self, failures: Sequence[BaseException] = ()) -> None:
        super().__init__()
        self.beaten = asyncio.Event()
        self._failures = list(failures)

    async def heartbeat(self, *arguments: Any) -> Any:
        if self._failures:
            raise self._failures.pop()
        self.beaten.set()
        return await super().heartbeat(*arguments)


@pytest.mark.parametrize("failure", [asyncio.CancelledError(), SystemExit(3), RuntimeError("a defect")])
async def test_housekeeping_outlives_what_a_store_raises(
    failure: BaseException, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(housekeeping, "HEARTBEAT_EVERY", 0.01)
    store = Beating([failure])
    async with serving(Scripted(), store):
        await asyncio.wait_for(store.beaten.wait(), 5.0)
    assert type(failure).__name__ in caplog.text


async def test_endless_work_that_ends_is_logged_and_begins_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks, "RESTART_AFTER", 0.0)
    begun = asyncio.Queue[asyncio.Task[Any]]()

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        await begun.put(task)
        await asyncio.Event().wait()

    endless = tasks.EndlessTask(work, "the work")
    endless.start()
    asyncio.get_running_loop().call_soon((await begun.get()).cancel)  # no pipeline's, and no task's
    last = await asyncio.wait_for(begun.get(), 5.0)
    await endless.stop(1.0)
    assert last.cancelled()
    assert "the work was cancelled; it restarts" in caplog.text


class Cutting(MemoryStore):
    """A store whose operation raises once what comes of a cancellation inside it."""

    def __init__(self, operation: str, failure: BaseException) -> None:
        super().__init__()
        failures, whole = [failure], getattr(self, operation)

        async def cut(*arguments: Any) -> Any:
            if failures:
                raise failures.pop()
            return await whole(*arguments)

        setattr(self, operation, cut)


@pytest.mark.parametrize("failure", [asyncio.CancelledError, SystemExit])
@pytest.mark.parametrize("operation", ["finish", "start"])
async def test_a_run_whose_flow_is_cut_off_stores_an_outcome_and_frees_its_thread(
    operation: str, failure: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    bot, store = Scripted(), Cutting(operation, failure())
    async with serving(bot, store) as service:
        first = service.begin(inbound("hold on"), PUBLIC)
        await bot.reached["on"].wait()
        cut = first if operation == "finish" else await taken(service.begin(inbound("cut"), PUBLIC))
        bot.opened["on"].set()
        with pytest.raises(RunInterrupted):
            await cut.answer
        await ended(service)
        expected = RunStatus.INTERRUPTED if operation == "finish" else RunStatus.CANCELLED
        assert (await stored(service, cut.run_id)).status is expected
        assert (await service.chat(inbound("hi"), PUBLIC)).assistant_messages == ["You said: hi"]
    line = f"run {cut.run_id} is interrupted: a {failure.__name__} from the code of a plugin or pipeline reached it"
    assert line in caplog.text


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("failure", [asyncio.CancelledError, SystemExit])
async def test_a_run_that_is_cut_off_while_the_store_takes_it_frees_its_thread(
    failure: type[BaseException], kind: str, tmp_path: Path
) -> None:
    store = make_store(kind, tmp_path)
    whole, failures = store.accept, [failure()]

    async def cut(plan: Any) -> Any:
        accepted = await whole(plan)
        if failures:
            raise failures.pop()
        return accepted

    async with serving(Scripted(), store) as service:
        store.accept = cut  # type: ignore[method-assign] # as a defect in it would
        run = service.begin(inbound("cut"), PUBLIC)
        with pytest.raises(RunInterrupted):
            await run.answer
        await ended(service)
        # Its message is in the thread: whoever repeats it under a key is answered.
        assert (await stored(service, run.run_id)).status is RunStatus.INTERRUPTED
        assert (await service.chat(inbound("hi"), PUBLIC)).assistant_messages == ["You said: hi"]


def test_a_loop_that_ends_cancels_what_was_left_in_it() -> None:
    async def leave_behind() -> None:
        loop = asyncio.get_running_loop()
        outer = tasks.PipelineTask.begin(asyncio.sleep(60), loop=loop, pipeline="p", run_id=uuid4(), thread_id=uuid4())
        token = tasks.current_pipeline.set(outer)
        left.append(tasks.ServiceTask.begin(wait(), loop=loop))
        left.append(tasks.PipelineTask.begin(wait(), loop=loop, pipeline="p", run_id=uuid4(), thread_id=uuid4()))
        tasks.current_pipeline.reset(token)
        await asyncio.sleep(0)

    async def wait() -> None:
        await asyncio.sleep(60)

    left: list[asyncio.Task[Any]] = []
    asyncio.run(leave_behind())
    assert [task.cancelled() for task in left] == [True, True]


async def test_a_task_of_the_service_may_be_cancelled_by_tasks_that_it_started(
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps: list[str] = []

    async def fail() -> None:
        raise ValueError("on purpose")

    async def work() -> None:
        async with anyio.create_task_group() as group:

            async def leave() -> None:
                group.cancel_scope.cancel()

            group.start_soon(leave)  # as anyio does when the first of several connections stands
            await anyio.sleep_forever()
        steps.append("left by a child")
        try:
            async with asyncio.TaskGroup() as group_of_asyncio:
                group_of_asyncio.create_task(fail())
                await asyncio.Event().wait()
        except* ValueError:
            steps.append("a child failed")
        await asyncio.Event().wait()

    task = tasks.ServiceTask.begin(work(), loop=asyncio.get_running_loop())
    while len(steps) < 2 and not task.done():
        await asyncio.sleep(0)
    assert steps == ["left by a child", "a child failed"]
    assert task.cancelling() == 0
    task.end()
    await asyncio.wait({task}, timeout=30.0)
    assert task.cancelled()
    assert caplog.text == ""


@pytest.mark.parametrize("turns", range(6))
async def test_the_end_of_a_service_task_is_not_lost_beside_a_scope_that_a_child_cancels(turns: int) -> None:
    loop = asyncio.get_running_loop()
    cancelled = asyncio.Event()

    async def work() -> None:
        async with anyio.create_task_group() as group:

            async def leave() -> None:
                await asyncio.sleep(0)
                group.cancel_scope.cancel()
                cancelled.set()
                end_after(turns)

            group.start_soon(leave)
            await anyio.sleep_forever()
        await asyncio.Event().wait()

    def end_after(turns: int) -> None:
        if turns:
            loop.call_soon(end_after, turns - 1)
        else:
            task.end()

    task = tasks.ServiceTask.begin(work(), loop=loop)
    await cancelled.wait()
    done, _ = await asyncio.wait({task}, timeout=30.0)
    assert done
    assert task.cancelled()


End = Callable[[], object]


@asynccontextmanager
async def asyncio_group() -> AsyncIterator[End]:
    async with asyncio.TaskGroup() as group:
        yield lambda: group.create_task(fail())


@asynccontextmanager
async def asyncio_timeout() -> AsyncIterator[End]:
    async with asyncio.timeout(None) as timeout:
        yield lambda: timeout.reschedule(0)


@asynccontextmanager
async def anyio_group() -> AsyncIterator[End]:
    async with anyio.create_task_group() as group:
        yield lambda: group.start_soon(fail)


@asynccontextmanager
async def anyio_scope() -> AsyncIterator[End]:
    with anyio.CancelScope() as scope:
        yield scope.cancel
    raise ValueError("on purpose")


async def fail() -> None:
    raise ValueError("on purpose")


@pytest.mark.parametrize("scope", [asyncio_group, asyncio_timeout, anyio_group, anyio_scope])
async def test_a_scope_of_the_service_ends_by_what_a_running_pipeline_does_in_it(
    scope: Callable[[], AbstractAsyncContextManager[End]], caplog: pytest.LogCaptureFixture
) -> None:
    scopes: list[End] = []

    async def keep_scope() -> None:
        async with scope() as end:
            scopes.append(end)
            await asyncio.Event().wait()

    async def ends_scope(ctx: ThreadContext) -> None:
        scopes[0]()
        await asyncio.wait({keeper}, timeout=30.0)
        ctx.send_message("ended" if keeper.done() else "goes on")

    keeper = tasks.ServiceTask.begin(keep_scope(), loop=asyncio.get_running_loop())
    async with MemoryStore() as store, service_of(ends_scope, store) as service:
        assert (await service.chat(inbound(), PUBLIC)).assistant_messages == ["ended"]
    assert isinstance(keeper.exception(), ExceptionGroup | TimeoutError | ValueError)
    assert "jimsapi.tasks" not in caplog.text


async def test_a_helper_that_the_first_pipeline_started_may_cancel_later_ones(caplog: pytest.LogCaptureFixture) -> None:
    overdue = asyncio.Queue[asyncio.Task[Any]]()
    helpers: list[asyncio.Task[None]] = []

    async def cancel_overdue() -> None:
        while True:
            (await overdue.get()).cancel()

    async def pipeline(ctx: ThreadContext) -> None:
        if not helpers:
            helpers.append(asyncio.create_task(cancel_overdue()))
            ctx.send_message("first")
            return
        task = asyncio.current_task()
        assert task is not None
        overdue.put_nowait(task)
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            task.uncancel()
            ctx.send_message("limited")

    async with MemoryStore() as store, service_of(pipeline, store) as service:
        assert (await service.chat(inbound(), PUBLIC)).assistant_messages == ["first"]
        assert (await service.chat(inbound(), PUBLIC)).assistant_messages == ["limited"]
    helpers[0].cancel()
    assert "jimsapi.tasks" not in caplog.text


async def cancels_its_parent(ctx: ThreadContext) -> None:
    parent = asyncio.current_task()
    assert parent is not None

    async def give_up() -> None:
        parent.cancel()

    child = asyncio.create_task(give_up())
    try:
        await asyncio.Event().wait()
    finally:
        await child


async def times_out(ctx: ThreadContext) -> None:
    try:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
    except TimeoutError:
        ctx.send_message("late")


async def test_a_pipeline_may_cancel_itself_by_its_own_tasks_and_timers() -> None:
    async with MemoryStore() as store, service_of(cancels_its_parent, store) as service:
        with pytest.raises(PipelineFailed, match="cancelled itself"):
            await service.chat(inbound(), PUBLIC)
    async with MemoryStore() as store, service_of(times_out, store) as service:
        assert (await service.chat(inbound(), PUBLIC)).assistant_messages == ["late"]


@pytest.mark.parametrize("way", ["cancel", "stop"])
async def test_a_pipeline_that_is_cancelled_before_it_begins_ends_its_run_at_once(way: str) -> None:
    store = MemoryStore()
    accept = store.accept
    runs: list[LiveRun] = []

    async def accept_and_cancel(plan: Any) -> Any:
        # The callback comes between the creation of the pipeline's task and its first step.
        asyncio.get_running_loop().call_soon(cancel)
        return await accept(plan)

    def cancel() -> None:
        if way == "cancel":
            assert runs[0].pipeline is not None
            runs[0].pipeline.cancel()
        else:
            runs[0].stop(Stop.CANCELLED)

    store.accept = accept_and_cancel  # type: ignore[method-assign]
    began: list[ThreadContext] = []
    async with service_of(note_call(began), store) as service:
        runs.append(service.begin(inbound(), PUBLIC))
        turns = 0
        while not runs[0].answer.done():  # a run that waits for the time-out of a stop takes thousands of turns
            turns += 1
            assert turns < 100
            await asyncio.sleep(0)
        assert isinstance(runs[0].answer.exception(), PipelineFailed if way == "cancel" else RunCancelled)
    assert began == []


async def test_time_outs_in_a_pipeline_leave_nothing_at_its_task() -> None:
    left: list[int] = []

    async def pipeline(ctx: ThreadContext) -> None:
        task: Any = asyncio.current_task()
        for _ in range(100):
            with suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await asyncio.sleep(60)
        left.append(len(task._callbacks or ()))

    async with MemoryStore() as store, service_of(pipeline, store) as service:
        await service.chat(inbound(), PUBLIC)
    assert left == [0]


def test_the_task_of_a_pipeline_that_has_ended_cannot_be_cancelled_even_after_its_loop() -> None:
    ended_tasks: list[Any] = []

    async def pipeline(ctx: ThreadContext) -> None:
        ended_tasks.append(asyncio.current_task())

    async def chat() -> None:
        async with MemoryStore() as store, service_of(pipeline, store) as service:
            await service.chat(inbound(), PUBLIC)

    asyncio.run(chat())
    assert ended_tasks[0].cancel() is False


def note_call(began: list[ThreadContext]) -> Callable[[ThreadContext], Any]:
    async def pipeline(ctx: ThreadContext) -> None:
        began.append(ctx)

    return pipeline


def service_of(pipeline: Callable[[ThreadContext], Any], store: MemoryStore, **options: Any) -> RunService:
    return RunService(JimsApp(pipeline), store, [DefaultResolver()], **options)


async def test_the_task_of_a_pipeline_leaves_no_cycle_of_references() -> None:
    seen: list[weakref.ref[Any]] = []

    async def pipeline(ctx: ThreadContext) -> None:
        seen.append(weakref.ref(asyncio.current_task()))

    gc.disable()
    try:
        async with MemoryStore() as store, service_of(pipeline, store) as service:
            await service.chat(inbound(), PUBLIC)
            await ended(service)
            await asyncio.sleep(0)
            assert seen[0]() is None
    finally:
        gc.enable()


async def test_a_pipeline_that_the_garbage_collector_closes_raises_nothing() -> None:
    async def endless(ctx: ThreadContext) -> None:
        await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    work = invoke(endless, ThreadContext.for_test("hi"), loop)
    task = tasks.PipelineTask.begin(work, loop=loop, pipeline="endless", run_id=uuid4(), thread_id=uuid4())
    await asyncio.sleep(0)
    work.close()  # in the context of the test, as a collector does
    task.end()
    await asyncio.wait({task})
    assert isinstance(task.exception(), RuntimeError)  # its coroutine is closed


async def test_a_run_that_a_pipeline_begins_keeps_its_own_time_limits() -> None:
    held = asyncio.Event()
    services: list[RunService] = []

    async def asks_another(ctx: ThreadContext) -> None:
        match ctx.get_last_user_message():
            case "ask":
                try:
                    await services[0].chat(Inbound(contact_id="held", message="late"), PUBLIC)
                except QueueTimedOut:
                    ctx.send_message("too late")
            case "hold":
                await held.wait()

    limits = RunLimits(queue_timeout=0.01)
    async with MemoryStore() as store, service_of(asks_another, store, limits=limits) as service:
        services.append(service)
        holding = await taken(service.begin(Inbound(contact_id="held", message="hold"), PUBLIC))
        assert (await service.chat(inbound("ask"), PUBLIC)).assistant_messages == ["too late"]
        held.set()
        await holding.answer


async def test_what_lives_as_long_as_the_server_outlives_a_pipeline_that_cancels_all_tasks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bot = Careless()
    api = create_api(JimsApp(bot), store="memory:")
    # This transport runs the app in the task of the test, which is spared.
    transport = httpx.ASGITransport(api)
    async with TestClient(api), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        bot._spared |= serving_tasks()
        for message in ("cancel now; send one", "send two"):
            body = {"contact_id": "ann", "message": message}
            assert (await client.post("/api/v1/chat", json=body)).status_code == 200
    assert "died" not in caplog.text


def serving_tasks() -> set[asyncio.Task[Any]]:
    """The tasks of the test's client: they run the lifespan, and stand for the server."""
    return {
        task
        for task in asyncio.all_tasks()
        if "lifespan of" not in task.get_name() and task.get_name() != "housekeeping"
    }
