"""Two run services on one database, as two servers are: whoever took a message, the other knows of its run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from database import Postgres
from jimsapi_postgres.store import PostgresStore

from jimsapi import Inbound, JimsApp, ThreadContext
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs import lookup as runs_module
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.errors import RunCancelled, RunInterrupted
from jimsapi.runs.lookup import Runs
from jimsapi.runs.result import RunResult
from jimsapi.runs.service import RunService
from jimsapi.threads.errors import ThreadNotFound
from jimsapi.threads.run import RunStatus
from tests.apps.scripted import Scripted
from tests.runs.careless import Careless
from tests.runs.serving import drained, inbound, read_all, serving, taken, texts, told

pytestmark = pytest.mark.anyio

SILENT = """
    INSERT INTO jimsapi_owners VALUES ('{}', '-infinity')
    ON CONFLICT (owner) DO UPDATE SET beat_at = excluded.beat_at
"""


async def tell(ctx: ThreadContext) -> None:
    """Answer with the number of messages of the person that the context holds."""
    await asyncio.sleep(0)
    ctx.send_message(str(sum(said["role"] == "user" for said in ctx.history)))


@pytest.fixture
async def services(url: str) -> AsyncIterator[tuple[RunService, RunService]]:
    async with AsyncExitStack() as stack:
        pair = []
        for _ in range(2):
            store = await stack.enter_async_context(PostgresStore(url))
            pair.append(await stack.enter_async_context(RunService(JimsApp(tell), store, [DefaultResolver()])))
        yield pair[0], pair[1]


async def test_fifty_first_messages_through_both_make_one_thread(services: tuple[RunService, RunService]) -> None:
    calls = [services[number % 2].chat(Inbound(contact_id="ann", message=f"m{number}"), PUBLIC) for number in range(50)]
    answers = await asyncio.gather(*calls)
    assert len({answer.thread_id for answer in answers}) == 1
    assert sum(answer.created_new_thread for answer in answers) == 1


async def test_a_hundred_messages_through_both_are_answered_one_after_another(
    services: tuple[RunService, RunService],
) -> None:
    thread_id = (await services[0].chat(Inbound(contact_id="ann", message="m"), PUBLIC)).thread_id
    calls = [
        services[number % 2].chat(Inbound(contact_id="ann", message="m", thread_id=thread_id), PUBLIC)
        for number in range(100)
    ]
    answers = await asyncio.gather(*calls)
    assert sorted(int(answer.assistant_messages[0]) for answer in answers) == list(range(2, 102))


async def test_the_store_and_its_notices_outlive_a_pipeline_that_cancels_all_tasks(url: str) -> None:
    careless = Careless()
    async with (
        serving(careless, PostgresStore(url), sinks=[]) as first,
        serving(Scripted(), PostgresStore(url)) as second,
    ):
        held = await taken(first.begin(inbound("hold on", "ben"), PUBLIC))
        await careless.reached["on"].wait()
        assert (await first.chat(inbound("cancel now; send done"), PUBLIC)).assistant_messages == ["done"]
        async with asyncio.timeout(20):
            assert (await first.chat(inbound("hi"), PUBLIC)).assistant_messages == ["You said: hi"]
            assert (await second.chat(inbound("hi"), PUBLIC)).assistant_messages == ["You said: hi"]
            await Runs(second).cancel(PUBLIC, held.run_id)  # the first is told by a notice
            with pytest.raises(RunCancelled):
                await held.answer


@pytest.fixture
def bot() -> Scripted:
    return Scripted()


@pytest.fixture
async def pair(url: str, bot: Scripted) -> AsyncIterator[tuple[RunService, RunService]]:
    """Two services; the bot is the first one's. Both hear each other."""
    async with serving(bot, PostgresStore(url)) as first, serving(Scripted(), PostgresStore(url)) as second:
        for service in (first, second):
            assert isinstance(service.store, PostgresStore)
            async with asyncio.timeout(30):
                while service.store._peers is None or service.store._peers._checked_at is None:
                    await asyncio.sleep(0.01)
        yield first, second


async def test_a_run_is_stopped_by_whoever_cancels_it(pair: tuple[RunService, RunService], bot: Scripted) -> None:
    first, second = pair
    running = first.begin(inbound("send a; hold on"), PUBLIC, watched=True)
    waiting = first.begin(inbound("send b"), PUBLIC)
    for run in (running, waiting):
        await taken(run)
    await bot.reached["on"].wait()
    for run in (waiting, running):
        await Runs(second).cancel(PUBLIC, run.run_id)
        with pytest.raises(RunCancelled):
            await _soon(run.answer)
        assert (await Runs(first).run(PUBLIC, run.run_id)).status is RunStatus.CANCELLED
    assert running.stream is not None
    assert told(await read_all(running.stream))[-1] == "RunCancelled"
    assert running.pipeline is not None
    assert running.pipeline.cancelled()
    assert running.thread_id is not None
    assert await texts(second, running.thread_id) == ["user_message"]


async def test_a_run_is_stopped_by_whoever_deletes_its_thread(
    pair: tuple[RunService, RunService], bot: Scripted
) -> None:
    first, second = pair
    run = await taken(first.begin(inbound("hold on"), PUBLIC))
    await bot.reached["on"].wait()
    assert run.thread_id is not None
    await second.store.delete_thread(run.thread_id, None)
    with pytest.raises(ThreadNotFound):
        await _soon(run.answer)


async def test_a_run_is_watched_through_any_process(
    pair: tuple[RunService, RunService], bot: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "POLL_EVERY", 0.01)
    first, second = pair
    run = await taken(first.begin(inbound("status a; stream b; hold on; event c"), PUBLIC, watched=True))
    watching = asyncio.ensure_future(drained(await Runs(second).watch(PUBLIC, run.run_id)))
    await bot.reached["on"].wait()
    bot.opened["on"].set()
    await _soon(run.answer)
    from_afar = await watching
    assert run.stream is not None
    at_home = await read_all(run.stream)
    assert told(from_afar)[:2] == ["started", "gap 2"]
    assert from_afar[2:] == at_home[3:]
    assert [name.partition(" {")[0] for name in told(from_afar)[2:]] == [
        "event rag.step",
        "event comm.assistant_message",
        "RunResult",
    ]


async def test_a_key_holds_for_all_processes(pair: tuple[RunService, RunService], bot: Scripted) -> None:
    first, second = pair
    run = first.begin(inbound("hold on; see"), PUBLIC, key="key")
    await bot.reached["on"].wait()
    again = second.begin(inbound("hold on; see"), PUBLIC, key="key")
    await asyncio.sleep(0)
    bot.opened["on"].set()
    answers = [await _soon(one.answer) for one in (run, again)]
    assert answers[0] == answers[1]
    assert again.known_as == run.run_id
    assert len(bot.texts) == 1


async def _soon(answer: asyncio.Future[RunResult]) -> RunResult:
    async with asyncio.timeout(30):
        return await answer


async def test_a_run_that_was_taken_over_is_left_to_who_took_it(
    pair: tuple[RunService, RunService], bot: Scripted, postgres: Postgres, database: str
) -> None:
    """Its first process was only stopped for a while."""
    first, second = pair
    held = await taken(first.begin(inbound("hold on"), PUBLIC))
    await bot.reached["on"].wait()
    run = await taken(first.begin(inbound("see"), PUBLIC, background=True))
    postgres.psql(SILENT.format(first.owner), database)
    await second.store.recover(second.owner)
    await second.adopt()
    first._on_store_notice(run.run_id)
    result = await _soon(run.answer)
    assert result.assistant_messages == ['["hold on", "see"]']
    assert (await Runs(second).run(PUBLIC, run.run_id)).status is RunStatus.COMPLETED
    with pytest.raises(RunInterrupted):
        await _soon(held.answer)
