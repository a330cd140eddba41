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
from jimsapi.runs.service import RunService
from jimsapi.runs.stream import Ended
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.ids import uuid7
from tests.apps.scripted import Scripted
from tests.runs.serving import drained, ended, inbound, serving, told

pytestmark = pytest.mark.anyio


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
