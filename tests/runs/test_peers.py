"""Live streams of the processes of one command: what one works on, another one shows, every item once and in order."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from jimsapi.runs import lookup as runs_module
from jimsapi.runs import peers as peers_module
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.lookup import Runs
from jimsapi.runs.peers import Peers
from jimsapi.runs.result import RunResult
from jimsapi.runs.service import RunService
from jimsapi.runs.stream import THE_END, Delta, Ended, Gap
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.ids import uuid7
from tests.apps.scripted import Scripted
from tests.runs.serving import drained, ended, inbound, read_all, serving, told

pytestmark = pytest.mark.anyio

SCRIPT = "status Looking; stream Hel; stream lo; event found; tool search; hold on; stream Bye; send Bye"


@pytest.fixture(autouse=True)
def _looks_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that waits for the store sees it only at the end."""
    monkeypatch.setattr(runs_module, "POLL_EVERY", 0.05)


@asynccontextmanager
async def two(folder: Path, bot: Scripted) -> AsyncIterator[tuple[RunService, RunService]]:
    """Two services on one store, as two processes have them."""
    store = MemoryStore()
    async with (
        serving(bot, store, peers=Peers(folder)) as one,
        serving(bot, store, peers=Peers(folder)) as other,
    ):
        yield one, other


async def test_the_stream_of_another_process_has_every_item_once_and_in_order(tmp_path: Path) -> None:
    bot = Scripted()
    async with two(tmp_path, bot) as (one, other):
        run = one.begin(inbound(SCRIPT), PUBLIC, watched=True)
        await bot.reached["on"].wait()
        items = await Runs(other).watch(PUBLIC, run.run_id)
        reading = asyncio.create_task(drained(items))
        await asyncio.sleep(0)
        bot.opened["on"].set()
        seen = await reading
        assert run.stream is not None
        own = await read_all(run.stream)
        assert [position for position, _ in seen] == [position for position, _ in own]
        assert told(seen)[:-1] == told(own)[:-1]
        assert any(isinstance(item, Delta) for _, item in seen)
        assert isinstance(seen[-1][1], Ended)


@pytest.mark.parametrize("after", [1, 2, 3, 5])
async def test_a_stream_that_began_at_one_process_is_resumed_at_another_in_mid_answer(
    tmp_path: Path, after: int
) -> None:
    bot = Scripted()
    async with two(tmp_path, bot) as (one, other):
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


async def test_a_run_of_another_process_that_has_no_reader_yet_shows_what_comes(tmp_path: Path) -> None:
    bot = Scripted()
    async with two(tmp_path, bot) as (one, other):
        run = one.begin(inbound("hold on; stream Hel; send Hello"), PUBLIC)
        await bot.reached["on"].wait()
        items = await Runs(other).watch(PUBLIC, run.run_id)
        assert items is not None
        reading = asyncio.create_task(drained(items))
        while run.stream is None:
            await asyncio.sleep(0.001)
        bot.opened["on"].set()
        assert any(isinstance(item, Delta) for _, item in await reading)


async def test_a_process_that_ends_leaves_the_rest_to_the_store(tmp_path: Path) -> None:
    bot = Scripted()
    async with serving(bot, store := MemoryStore(), peers=Peers(tmp_path)) as other:
        async with serving(bot, store, peers=Peers(tmp_path)) as one:
            run = one.begin(inbound("stream Hel; hold on"), PUBLIC, watched=True)
            await bot.reached["on"].wait()
            items = await Runs(other).watch(PUBLIC, run.run_id)
            assert items is not None
            assert [(await anext(items))[0] for _ in range(2)] == [1, 2]
            await one.drain(0)
        rest = [found async for found in items]
        assert rest[-1][0] == THE_END
    assert list(tmp_path.iterdir()) == []


async def test_a_reader_that_leaves_ends_the_conversation_of_the_processes(tmp_path: Path) -> None:
    bot = Scripted()
    async with two(tmp_path, bot) as (one, other):
        run = one.begin(inbound("stream Hel; hold on"), PUBLIC, watched=True)
        await bot.reached["on"].wait()
        peers = one.peers
        assert peers is not None
        assert other.peers is not None
        async with aclosing(other.peers.watch(run.run_id, 0)) as items:
            assert (await anext(items))[0] == 1
            assert len(peers._answering) == 1
            assert one.is_read_elsewhere(run.run_id)
            assert not one.is_read_elsewhere(uuid7())
        async with asyncio.timeout(30):
            while peers._answering:
                await asyncio.sleep(0.001)
        assert not one.is_read_elsewhere(run.run_id)
        bot.opened["on"].set()
        await ended(one)


async def test_a_process_that_drains_ends_the_streams_of_runs_of_others(tmp_path: Path) -> None:
    bot = Scripted()
    async with two(tmp_path, bot) as (one, other):
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


@contextmanager
def blocked_peer(folder: Path) -> Iterator[None]:
    """A process whose event loop is blocked. The kernel accepts its connections."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "0-0.sock"))  # the first in the folder
        listening.listen(100)
        yield


async def test_a_peer_that_is_blocked_does_not_delay_the_streams_of_others(tmp_path: Path) -> None:
    bot = Scripted()
    with blocked_peer(tmp_path):
        async with two(tmp_path, bot) as (one, other):
            run = one.begin(inbound("stream Hel; hold on; send Bye"), PUBLIC, watched=True)
            await bot.reached["on"].wait()
            items = await Runs(other).watch(PUBLIC, run.run_id)
            assert items is not None
            async with asyncio.timeout(5):
                assert told([await anext(items) for _ in range(2)]) == ["started", "delta Hel"]
            bot.opened["on"].set()
            async with asyncio.timeout(5):
                assert isinstance((await drained(items))[-1][1], Ended)


async def test_a_run_that_no_peer_has_is_read_from_the_store_although_a_peer_is_blocked(tmp_path: Path) -> None:
    bot, store = Scripted(), MemoryStore()
    with blocked_peer(tmp_path):
        async with serving(bot, store) as apart, serving(bot, store, peers=Peers(tmp_path)) as other:
            result = apart.begin(inbound("hold on; send Bye"), PUBLIC)
            await bot.reached["on"].wait()
            reading = asyncio.create_task(drained(await Runs(other).watch(PUBLIC, result.run_id)))
            await asyncio.sleep(0.1)
            bot.opened["on"].set()
            async with asyncio.timeout(10):
                assert isinstance((await reading)[-1][1], Ended)


async def test_the_reader_of_a_peer_that_is_blocked_later_sees_that_the_store_has_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer_and_block(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x01")

    monkeypatch.setattr(peers_module, "QUIET_FOR", 0.2)
    bot, store = Scripted(), MemoryStore()
    peer = await asyncio.start_unix_server(answer_and_block, tmp_path / "0-0.sock")
    async with peer, serving(bot, store) as apart, serving(bot, store, peers=Peers(tmp_path)) as other:
        run = apart.begin(inbound("hold on; send Bye"), PUBLIC)
        await bot.reached["on"].wait()
        reading = asyncio.create_task(drained(await Runs(other).watch(PUBLIC, run.run_id)))
        await asyncio.sleep(0.1)
        bot.opened["on"].set()
        async with asyncio.timeout(5):
            assert isinstance((await reading)[-1][1], Ended)


async def test_peers_are_asked_seldom_for_a_run_that_none_of_them_has(tmp_path: Path) -> None:
    asked = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.close()

    bot, store = Scripted(), MemoryStore()
    peer = await asyncio.start_unix_server(count, tmp_path / "0-0.sock")
    async with peer, serving(bot, store) as apart, serving(bot, store, peers=Peers(tmp_path)) as other:
        run = apart.begin(inbound("hold on; send Bye"), PUBLIC)
        await bot.reached["on"].wait()
        reading = asyncio.create_task(drained(await Runs(other).watch(PUBLIC, run.run_id)))
        await asyncio.sleep(1)  # twenty looks into the store
        assert asked == 1
        bot.opened["on"].set()
        assert isinstance((await reading)[-1][1], Ended)


async def test_the_socket_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "1-0.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(left))
    async with two(tmp_path, Scripted()) as (_, other):
        assert other.peers is not None
        assert [found async for found in other.peers.watch(uuid7(), 0)] == []
        assert not left.exists()
        assert len(list(tmp_path.iterdir())) == 2


async def test_a_peer_that_is_gone_or_does_not_know_the_run_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "1-0.sock").write_bytes(b"")  # as a killed process leaves it
    async with two(tmp_path, Scripted()) as (one, other):
        assert other.peers is not None
        assert [found async for found in other.peers.watch(uuid7(), 0)] == []
        result = await one.chat(inbound("send a"), PUBLIC)
        seen = await drained(await Runs(other).watch(PUBLIC, result.run_id))
        assert isinstance(seen[-1][1], Ended)


async def test_only_the_user_of_the_processes_can_ask(tmp_path: Path) -> None:
    async with two(tmp_path, Scripted()):
        for path in tmp_path.glob("*.sock"):
            assert path.stat().st_mode & 0o077 == 0
