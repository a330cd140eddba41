"""Servers and workers on one database, with a queue in memory between them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from jimsapi_postgres.store import PostgresStore

from jimsapi.runs import housekeeping
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.live import LiveRun
from jimsapi.runs.service import RunService
from jimsapi.runs.work import DoRun, WorkQueue
from jimsapi.threads import NOBODY, Accepted, AdoptedRun, RunPlan, RunStatus, StoreUnavailable, uuid7
from tests.apps.scripted import Scripted
from tests.runs.serving import inbound, serving, texts

pytestmark = pytest.mark.anyio


class Queue:
    """A queue in memory. It notes what `do` has returned of each run, and delivers nothing again."""

    name = "memory"

    def __init__(self) -> None:
        self.broken = False
        self.open = asyncio.Event()
        self.open.set()
        self.put_so_far: list[UUID] = []
        self.returned: list[tuple[UUID, float | None]] = []
        self.waiting: asyncio.Queue[UUID | None] = asyncio.Queue()

    async def put(self, run_ids: Sequence[UUID]) -> None:
        if self.broken:
            raise ConnectionError("it is broken")
        await self.open.wait()
        self.put_so_far += run_ids
        for run_id in run_ids:
            self.waiting.put_nowait(run_id)

    async def receive(self, do: DoRun, at_once: int) -> None:
        async def work_on(run_id: UUID) -> None:
            self.returned.append((run_id, await do(run_id)))

        async with asyncio.TaskGroup() as group:
            while (run_id := await self.waiting.get()) is not None:
                group.create_task(work_on(run_id))

    def stop_receiving(self) -> None:
        self.waiting.put_nowait(None)


@asynccontextmanager
async def server(
    url: str, bot: Scripted, queue: WorkQueue, store: PostgresStore | None = None
) -> AsyncIterator[RunService]:
    """A service that leaves its background runs to workers."""
    async with serving(bot, store or PostgresStore(url), adopts=False) as service:
        service.use_workers(queue)
        await service.adopt()
        yield service


@asynccontextmanager
async def worker(
    url: str, bot: Scripted, queue: WorkQueue, store: PostgresStore | None = None
) -> AsyncIterator[RunService]:
    """A service that does the runs of a queue."""
    async with server(url, bot, queue, store) as service:
        working = service.worker()
        assert working is not None
        async with working:
            yield service


async def accepted(service: RunService, message: str, **fields: Any) -> LiveRun:
    """Begin a run in the background, and wait until this service has done its part."""
    run = service.begin(inbound(message, **fields), PUBLIC, background=True)
    assert run.task is not None
    await asyncio.wait({run.task})
    return run


async def status_of(service: RunService, run_id: UUID) -> RunStatus:
    return (await service.store.run(run_id, None, None)).status


async def ended_by_worker(service: RunService, run_id: UUID) -> RunStatus:
    """Wait until a run has ended, and return its status."""
    async with asyncio.timeout(30):
        while (status := await status_of(service, run_id)) in (RunStatus.QUEUED, RunStatus.RUNNING):
            await asyncio.sleep(0.01)
    return status


async def test_a_server_puts_a_background_run_into_the_queue_and_keeps_nothing_of_it(url: str) -> None:
    queue, bot = Queue(), Scripted()
    async with server(url, bot, queue) as service:
        run = await accepted(service, "send Hello")
        attended = await service.chat(inbound("send Hi", contact="ben"), PUBLIC)
        assert attended.assistant_messages == ["Hi"]
        assert queue.put_so_far == [run.run_id]
        assert service.open_runs == 0
        assert service.watch(run.run_id) is None
        assert await status_of(service, run.run_id) is RunStatus.QUEUED
    assert bot.texts == ["send Hi"]


async def test_a_caller_that_repeats_a_background_request_gets_the_answer_of_the_worker(url: str) -> None:
    queue, bot = Queue(), Scripted()
    async with server(url, bot, queue) as service, worker(url, bot, queue):
        queue.open.clear()
        run = service.begin(inbound("send Hello"), PUBLIC, background=True, key="k")
        assert run.acceptance is not None
        await asyncio.shield(run.acceptance)
        again = service.begin(inbound("send Hello"), PUBLIC, key="k")
        assert service.watch(run.run_id) is None, "this process never has its live items"
        queue.open.set()
        assert (await again.wait_for_answer()).assistant_messages == ["Hello"]
        assert again.known_as == run.run_id
    assert bot.texts == ["send Hello"]


async def test_a_background_request_that_is_repeated_does_not_wait_for_the_worker(url: str) -> None:
    async with server(url, Scripted(), Queue()) as service:
        runs = []
        for _ in range(3):
            run = service.begin(inbound("send Hello"), PUBLIC, background=True, key="k")
            assert run.task is not None
            async with asyncio.timeout(30):
                await asyncio.wait({run.task})
            runs.append(run)
        assert {run.known_as for run in runs} == {runs[0].run_id}
        assert service.open_runs == 0


@pytest.mark.parametrize("wants_start", [True, False])
async def test_a_worker_greets_in_a_new_thread_only_if_the_message_wants_it(url: str, wants_start: bool) -> None:
    queue, bot = Queue(), Scripted()
    async with server(url, bot, queue) as service, worker(url, bot, queue):
        run = await accepted(service, "send Hello", run_conversation_start_on_new_thread=wants_start)
        assert await ended_by_worker(service, run.run_id) is RunStatus.COMPLETED
        assert run.thread_id is not None
        greeting = ["assistant_message"] if wants_start else []
        assert await texts(service, run.thread_id) == [*greeting, "user_message", "assistant_message"]
        async with asyncio.timeout(30):
            while not queue.returned:
                await asyncio.sleep(0.01)
        assert queue.returned == [(run.run_id, None)]


async def test_a_queue_that_fails_costs_no_run_and_is_logged_once(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "UNCLAIMED_AFTER", timedelta())
    queue = Queue()
    queue.broken = True
    async with server(url, Scripted(), queue) as service:
        runs = [await accepted(service, "send Hello", contact=f"contact {number}") for number in range(3)]
        failures = [record for record in caplog.records if "does not receive runs" in record.message]
        assert [record.levelno for record in failures] == [logging.ERROR]
        queue.broken = False
        await service.adopt()
        assert queue.put_so_far == [run.run_id for run in runs]
        assert "work queue memory receives runs again" in caplog.text


class LosingClaims(PostgresStore):
    """A store whose first claim is committed, and its result is lost. Before the next one, the heartbeat comes."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.claims = 0
        self.beat: Callable[[UUID], Any] | None = None

    async def claim(self, run_id: UUID, owner: UUID) -> AdoptedRun | None:
        claimed = await super().claim(run_id, owner)
        self.claims += 1
        if self.claims == 1:
            assert claimed is not None
            assert self.beat is not None
            await self.beat(owner)
            raise StoreUnavailable("the connection was lost")
        return claimed


async def test_a_run_is_done_although_the_result_of_its_claim_was_lost(url: str) -> None:
    queue, store = Queue(), LosingClaims(url)
    async with server(url, Scripted(), queue) as service, worker(url, Scripted(), queue, store) as working:

        async def beat(owner: UUID) -> None:
            await store.heartbeat(owner, working._runs.owned)

        store.beat = beat
        run = await accepted(service, "send Hello")
        assert await ended_by_worker(service, run.run_id) is RunStatus.COMPLETED
        assert store.claims == 2
        assert run.run_id not in working._runs.owned


async def test_a_run_that_the_queue_delivers_twice_is_done_once(url: str) -> None:
    queue, bot = Queue(), Scripted()
    async with server(url, bot, queue) as service, worker(url, bot, queue), worker(url, bot, queue):
        runs = [await accepted(service, "send Hello", contact=f"contact {number}") for number in range(20)]
        await queue.put([run.run_id for run in runs] * 3)
        for run in runs:
            assert await ended_by_worker(service, run.run_id) is RunStatus.COMPLETED
    assert bot.texts == ["send Hello"] * 20


class SlowClaims(PostgresStore):
    """A store that claims when the test says."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.claims = 0
        self.may_claim = asyncio.Event()

    async def claim(self, run_id: UUID, owner: UUID) -> AdoptedRun | None:
        self.claims += 1
        await self.may_claim.wait()
        return await super().claim(run_id, owner)


async def test_a_worker_claims_a_run_once_that_the_queue_delivers_to_it_twice(url: str) -> None:
    queue, store = Queue(), SlowClaims(url)
    async with server(url, Scripted(), queue) as service, worker(url, Scripted(), queue, store):
        run = await accepted(service, "send Hello")
        await queue.put([run.run_id])
        async with asyncio.timeout(30):
            while not queue.returned:
                await asyncio.sleep(0.01)
        assert queue.returned == [(run.run_id, 1.0)]
        store.may_claim.set()
        assert await ended_by_worker(service, run.run_id) is RunStatus.COMPLETED
        assert store.claims == 1


async def test_a_run_behind_another_one_is_delivered_again_later_and_one_that_is_unknown_is_not(url: str) -> None:
    queue, bot, unknown = Queue(), Scripted(), uuid7()
    async with server(url, bot, queue) as service, worker(url, bot, queue):
        first, second = await accepted(service, "hold door"), await accepted(service, "send Hello")
        await queue.put([unknown])
        async with asyncio.timeout(30):
            while len(queue.returned) < 2:
                await asyncio.sleep(0.01)
        assert dict(queue.returned) == {second.run_id: 1.0, unknown: None}
        bot.opened["door"].set()
        assert await ended_by_worker(service, first.run_id) is RunStatus.COMPLETED


async def test_a_worker_that_drains_returns_what_it_has_not_begun(url: str) -> None:
    queue, bot = Queue(), Scripted()
    async with worker(url, bot, queue) as working:
        run = await accepted(working, "hold door")
        await bot.reached["door"].wait()
        draining = asyncio.create_task(working.drain(30))
        await asyncio.sleep(0)
        assert working._worker is not None
        assert await working._worker._do(uuid7()) == 0.0
        bot.opened["door"].set()
        await draining
        assert await status_of(working, run.run_id) is RunStatus.COMPLETED


async def test_a_worker_that_drains_does_not_begin_a_run_that_it_is_just_claiming(url: str) -> None:
    queue, store, bot = Queue(), SlowClaims(url), Scripted()
    async with server(url, Scripted(), queue) as service, worker(url, bot, queue, store) as working:
        run = await accepted(service, "send Hello")
        async with asyncio.timeout(30):
            while not store.claims:
                await asyncio.sleep(0.01)
        await working.drain(30)
        store.may_claim.set()
        async with asyncio.timeout(30):
            while not queue.returned:
                await asyncio.sleep(0.01)
        assert queue.returned == [(run.run_id, 1.0)]
        await store.heartbeat(working.owner, working._runs.owned)
        assert await status_of(service, run.run_id) is RunStatus.QUEUED
    assert bot.texts == []


class LateClaims(PostgresStore):
    """A store whose claims are committed at once, and return when the test says."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.has_claimed = asyncio.Event()
        self.may_return = asyncio.Event()
        self.has_accepted = asyncio.Event()

    async def claim(self, run_id: UUID, owner: UUID) -> AdoptedRun | None:
        claimed = await super().claim(run_id, owner)
        self.has_claimed.set()
        await self.may_return.wait()
        return claimed

    async def accept(self, plan: RunPlan) -> Accepted:
        try:
            return await super().accept(plan)
        finally:
            self.has_accepted.set()


async def test_a_worker_that_was_cut_off_after_its_claim_does_not_do_the_run_that_another_one_has_started(
    url: str, outside: Any
) -> None:
    queue, other_queue, store = Queue(), Queue(), LateClaims(url)
    bot, other_bot = Scripted(), Scripted()
    async with (
        server(url, Scripted(), queue) as service,
        worker(url, bot, queue, store) as cut_off,
        worker(url, other_bot, other_queue),
    ):
        run = await accepted(service, "hold door")
        await store.has_claimed.wait()
        await outside.execute("UPDATE jimsapi_owners SET beat_at = 'yesterday' WHERE owner = $1", cut_off.owner)
        assert [left.run_id for left in await service.store.adopt(NOBODY)] == [run.run_id]
        await other_queue.put([run.run_id])
        await other_bot.reached["door"].wait()
        store.may_return.set()
        await store.has_accepted.wait()
        other_bot.opened["door"].set()
        async with asyncio.timeout(30):
            while not queue.returned:
                await asyncio.sleep(0.01)
        assert await status_of(service, run.run_id) is RunStatus.COMPLETED
    assert bot.texts == []
