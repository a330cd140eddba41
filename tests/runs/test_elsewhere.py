"""Live streams of runs elsewhere, of a process of the same command or of a replica: every item once and in order."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from jimsapi.runs import lookup as runs_module
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.lookup import Runs
from jimsapi.runs.peers import Peers
from jimsapi.runs.replicas import Replicas
from jimsapi.runs.result import RunResult
from jimsapi.runs.service import RunService
from jimsapi.runs.stream import THE_END, Delta, Ended, Gap
from jimsapi.stores.memory import MemoryStore
from tests.apps.scripted import Scripted
from tests.runs.links import Wire, WireLink
from tests.runs.serving import drained, inbound, read_all, serving, told

pytestmark = pytest.mark.anyio

SCRIPT = "status Looking; stream Hel; stream lo; event found; tool search; hold on; stream Bye; send Bye"
Joins = Callable[[str], dict[str, Any]]


@pytest.fixture(autouse=True)
def _looks_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that waits for the store sees it only at the end."""
    monkeypatch.setattr(runs_module, "POLL_EVERY", 0.05)


@pytest.fixture(params=["peers", "replicas"])
def joins(request: pytest.FixtureRequest, tmp_path: Path) -> Joins:
    """Returns the options that connect a service, which has a name, to the others of the test."""
    wire = Wire()
    if request.param == "peers":
        return lambda name: {"peers": Peers(tmp_path)}
    return lambda name: {"replicas": [Replicas(WireLink(wire, name))]}


@asynccontextmanager
async def two(joins: Joins, bot: Scripted) -> AsyncIterator[tuple[RunService, RunService]]:
    """Two services on one store, as two processes have them."""
    store = MemoryStore()
    async with serving(bot, store, **joins("one")) as one, serving(bot, store, **joins("other")) as other:
        yield one, other


async def test_the_stream_of_a_run_elsewhere_has_every_item_once_and_in_order(joins: Joins) -> None:
    bot = Scripted()
    async with two(joins, bot) as (one, other):
        run = one.begin(inbound(SCRIPT), PUBLIC, watched=True)
        await bot.reached["on"].wait()
        items = await Runs(other).watch(PUBLIC, run.run_id)
        assert items is not None
        seen = [await anext(items)]
        bot.opened["on"].set()
        seen += await drained(items)
        assert run.stream is not None
        own = await read_all(run.stream)
    assert [position for position, _ in seen] == [position for position, _ in own]
    assert told(seen)[:-1] == told(own)[:-1]
    assert "delta Bye" in told(seen)
    assert isinstance(seen[-1][1], Ended)


@pytest.mark.parametrize("after", [1, 2, 3, 5])
async def test_a_stream_that_began_at_one_process_is_resumed_at_another_in_mid_answer(joins: Joins, after: int) -> None:
    bot = Scripted()
    async with two(joins, bot) as (one, other):
        run = one.begin(inbound(SCRIPT), PUBLIC, watched=True)
        assert run.stream is not None
        first = [await run.stream.next(position) for position in range(after)]
        await bot.reached["on"].wait()
        resumed = await Runs(other).watch(PUBLIC, run.run_id, after)
        assert resumed is not None
        live = [await anext(resumed)]
        assert live[0][0] == after + 1, "a live item comes before the run has ended"
        bot.opened["on"].set()
        rest = [*live, *[found async for found in resumed]]
        own = await read_all(run.stream)
    assert [position for position, _ in [*filter(None, first), *rest]] == [position for position, _ in own]
    assert not any(isinstance(item, Gap) for _, item in rest)


async def test_a_run_elsewhere_that_has_no_reader_yet_shows_what_comes(joins: Joins) -> None:
    bot = Scripted()
    async with two(joins, bot) as (one, other):
        run = one.begin(inbound("hold on; stream Hel; send Hello"), PUBLIC)
        await bot.reached["on"].wait()
        reading = asyncio.create_task(drained(await Runs(other).watch(PUBLIC, run.run_id)))
        while run.stream is None:
            await asyncio.sleep(0.001)
        bot.opened["on"].set()
        assert any(isinstance(item, Delta) for _, item in await reading)


async def test_a_process_that_ends_leaves_the_rest_to_the_store(joins: Joins, tmp_path: Path) -> None:
    bot, store = Scripted(), MemoryStore()
    async with serving(bot, store, **joins("other")) as other:
        async with serving(bot, store, **joins("one")) as one:
            run = one.begin(inbound("stream Hel; hold on"), PUBLIC, watched=True)
            await bot.reached["on"].wait()
            items = await Runs(other).watch(PUBLIC, run.run_id)
            assert items is not None
            assert [(await anext(items))[0] for _ in range(2)] == [1, 2]
            await one.drain(0)
        assert [found async for found in items][-1][0] == THE_END
    assert list(tmp_path.iterdir()) == []


async def test_a_process_that_drains_ends_the_streams_of_runs_elsewhere(joins: Joins) -> None:
    bot = Scripted()
    async with two(joins, bot) as (one, other):
        run = one.begin(inbound("stream Hel; hold on; send Bye"), PUBLIC, watched=True)
        await bot.reached["on"].wait()
        items = await Runs(other).watch(PUBLIC, run.run_id)
        assert items is not None
        assert [(await anext(items))[0] for _ in range(2)] == [1, 2]
        rest = asyncio.create_task(drained(items))
        await asyncio.sleep(0.1)
        await other.drain(0)
        async with asyncio.timeout(5):
            assert told(await rest) == ["ServerDraining"]
        later = await Runs(other).watch(PUBLIC, run.run_id, 1)
        async with asyncio.timeout(5):
            assert told(await drained(later)) == ["ServerDraining"]
        bot.opened["on"].set()
        assert isinstance(await run.wait_for_answer(), RunResult)
