"""Live streams between replicas: what one works on, another one shows, every item once and in order."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from jimsapi.runs import lookup as runs_module
from jimsapi.runs import replicas as replicas_module
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.lookup import Runs
from jimsapi.runs.replicas import MAX_ANSWER, MAX_QUESTION, Replicas
from jimsapi.runs.result import RunResult
from jimsapi.runs.service import RunService
from jimsapi.runs.stream import Delta, Ended, Gap, Read
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.ids import uuid7
from tests.apps.scripted import Scripted
from tests.runs.links import Answer, Wire, WireLink
from tests.runs.serving import drained, ended, inbound, serving, taken, told

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _looks_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that waits for the store sees it only at the end."""
    monkeypatch.setattr(runs_module, "POLL_EVERY", 0.05)


@asynccontextmanager
async def two(
    bot: Scripted, wire: Wire, link: Callable[[Wire, str], WireLink] = WireLink
) -> AsyncIterator[tuple[RunService, RunService]]:
    """Two services on one store, as two replicas have them. `link` makes that of the second."""
    store = MemoryStore()
    async with (
        serving(bot, store, replicas=[Replicas(WireLink(wire, "one"))]) as one,
        serving(bot, store, replicas=[Replicas(link(wire, "other"))]) as other,
    ):
        yield one, other


async def test_nothing_is_sent_before_and_after_somebody_reads() -> None:
    bot = Scripted()
    async with two(bot, wire := Wire()) as (one, other):
        run = one.begin(inbound("stream Hel; hold on; stream lo; send Hello"), PUBLIC, watched=True)
        await bot.reached["on"].wait()
        assert wire.questions == []
        reading = asyncio.create_task(drained(await Runs(other).watch(PUBLIC, run.run_id)))
        while len(wire.questions) < 2:
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        bot.opened["on"].set()
        await ended(one)
        assert len(wire.questions) == 2
        assert len(wire.answers) == 1


class Losing(WireLink):
    """Loses each second answer, and gives some that it has given before."""

    async def ask(self, question: bytes, replica: str | None) -> tuple[bytes, str] | None:
        count = len(self.wire.questions)
        if count % 4 == 3:
            self.wire.questions.append(question)
            return self.wire.answers[0], "one"
        found = await super().ask(question, replica)
        if count % 2:
            raise TimeoutError
        return found


async def test_lost_and_repeated_answers_change_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "ASK_EVERY", 0.0)
    bot = Scripted()
    async with two(bot, wire := Wire(), Losing) as (one, other):
        script = "; ".join(f"stream {number}; hold {number}" for number in range(8)) + "; send 01234567"
        run = one.begin(inbound(script), PUBLIC, watched=True)
        items = await Runs(other).watch(PUBLIC, (await taken(run)).run_id)
        assert items is not None
        seen: list[Read] = []
        async for found in items:
            seen.append(found)
            if isinstance(found[1], Delta):
                bot.opened[found[1].content].set()
    assert len(wire.questions) > 8
    assert max(map(len, wire.questions)) <= MAX_QUESTION
    assert told(seen)[:9] == ["started", *(f"delta {number}" for number in range(8))]
    assert len(seen) == len(dict(seen))


async def test_the_reader_of_a_replica_that_is_blocked_later_sees_that_the_store_has_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Blocked(WireLink):
        async def ask(self, question: bytes, replica: str | None) -> tuple[bytes, str] | None:
            if replica is None:
                return await super().ask(question, replica)
            await asyncio.Event().wait()
            return None

    monkeypatch.setattr(replicas_module, "QUIET_FOR", 0.2)
    bot = Scripted()
    async with two(bot, Wire(), Blocked) as (one, other):
        run = one.begin(inbound("stream Hel; hold on; send Bye"), PUBLIC, watched=True)
        await bot.reached["on"].wait()
        reading = asyncio.create_task(drained(await Runs(other).watch(PUBLIC, run.run_id)))
        bot.opened["on"].set()
        async with asyncio.timeout(10):
            assert isinstance((await reading)[-1][1], Ended)


async def test_a_reader_looks_into_the_store_when_no_item_comes_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas_module, "WAIT_AT_MOST", 0.05)
    bot = Scripted()
    async with two(bot, Wire()) as (one, other):
        run = one.begin(inbound("stream Hel; hold on"), PUBLIC, watched=True)
        await bot.reached["on"].wait()
        async with asyncio.timeout(5):
            assert told([found async for found in other.watch_elsewhere(run.run_id, 0)]) == ["started", "delta Hel"]


@pytest.mark.parametrize("answer", [b"", b"\x01\x00", b"\x01" + bytes(12) + b"\x63", "text", None])
async def test_a_link_that_fails_or_answers_nonsense_leaves_all_to_the_store_and_is_logged_once(
    answer: bytes | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty(WireLink):
        async def ask(self, question: bytes, replica: str | None) -> tuple[bytes, str] | None:
            self.wire.questions.append(question)
            if answer is None:
                raise OSError("the line is cut")
            return answer, "one"

    monkeypatch.setattr(runs_module, "ASK_EVERY", 0.0)
    bot = Scripted()
    async with two(bot, wire := Wire(), Faulty) as (one, other):
        run = one.begin(inbound("stream Hel; hold on; send Bye"), PUBLIC, watched=True)
        await bot.reached["on"].wait()
        reading = asyncio.create_task(drained(await Runs(other).watch(PUBLIC, run.run_id)))
        while len(wire.questions) < 3:
            await asyncio.sleep(0.001)
        bot.opened["on"].set()
        assert isinstance((await reading)[-1][1], Ended)
    assert caplog.text.count("replica link other failed: ") == (answer != b"")


async def test_a_link_that_cannot_serve_does_not_stop_the_start(caplog: pytest.LogCaptureFixture) -> None:
    class Mute(WireLink):
        async def serve(self, answer: Answer) -> None:
            raise OSError("no line")

    async with two(Scripted(), Wire(), Mute) as (_, other):
        assert isinstance(await other.chat(inbound("hi"), PUBLIC), RunResult)
    assert "replica link other cannot serve, so other replicas show no live items of runs here: OSError" in caplog.text


async def test_an_item_that_is_too_large_is_a_gap_and_no_answer_is_larger_than_a_link_must_carry() -> None:
    bot = Scripted()
    async with two(bot, wire := Wire()) as (one, other):
        pieces = [f"stream {'x' * 20_000}"] * 10 + [f"stream {'y' * 250_000}", "hold y", f"stream {'z' * 400_000}"]
        run = one.begin(inbound(f"{'; '.join(pieces)}; hold z; stream end; hold on; send Bye"), PUBLIC, watched=True)
        seen: list[Read] = []
        items = await Runs(other).watch(PUBLIC, (await taken(run)).run_id)
        assert items is not None
        async for found in items:
            seen.append(found)
            match found[1]:
                case Delta(_, "end"):
                    bot.opened["on"].set()
                case Delta(_, content):
                    bot.opened[content[0]].set()
                case Gap():
                    bot.opened["z"].set()
    assert [told([one])[0] for one in seen if isinstance(one[1], Gap | Delta)][-3:-1] == ["gap 1", "delta end"]
    assert max(map(len, wire.answers)) <= MAX_ANSWER


async def test_a_question_of_another_version_is_not_answered() -> None:
    bot = Scripted()
    async with two(bot, wire := Wire()) as (one, other):
        run = one.begin(inbound("hold on"), PUBLIC, watched=True)
        await bot.reached["on"].wait()
        async for _ in other.watch_elsewhere(run.run_id, 0):
            break
        assert await wire.serving["one"](wire.questions[0]) is not None
        assert await wire.serving["one"](b"\x02" + wire.questions[0][1:]) is None
        assert await wire.serving["one"](wire.questions[0] + b"\x00") is None
    assert await wire.serving["one"](wire.questions[0]) is None, "a replica that has ended answers nothing"


async def test_a_run_that_no_replica_has_has_no_live_items() -> None:
    async with two(Scripted(), Wire()) as (_, other):
        assert [found async for found in other.watch_elsewhere(uuid7(), 0)] == []


async def test_a_run_counts_as_read_elsewhere_until_its_reader_has_not_asked_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bot = Scripted()
    async with two(bot, Wire()) as (one, other):
        run, unread = (one.begin(inbound("hold on", contact), PUBLIC, watched=True) for contact in ("ann", "ben"))
        await bot.reached["on"].wait()
        await taken(unread)
        async with aclosing(other.watch_elsewhere(run.run_id, 0)) as items:
            assert told([await anext(items)]) == ["started"]
        assert one.is_read_elsewhere(run.run_id)
        assert not one.is_read_elsewhere(unread.run_id)
        monkeypatch.setattr(replicas_module, "READ_FOR", 0.0)
        assert not one.is_read_elsewhere(run.run_id)
        async with aclosing(other.watch_elsewhere(unread.run_id, 0)) as items:
            await anext(items)
        assert list(one.replicas[0]._asked_at) == [unread.run_id], "what was read long ago is forgotten"
