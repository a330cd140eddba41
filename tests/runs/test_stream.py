"""The live stream of a run: its readers, its bounds, and what a run puts there."""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from jimsapi import JimsApp, StatusEvent, ThreadContext
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs import stream as module
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.errors import RunCancelled, RunInterrupted
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.live import LiveRun, Stop
from jimsapi.runs.lookup import Runs
from jimsapi.runs.result import RunResult
from jimsapi.runs.service import RunService
from jimsapi.runs.stream import (
    ITEM_BYTES,
    KEPT_FOR,
    MAX_BYTES,
    MAX_ITEMS,
    STREAM_BYTES,
    THE_END,
    Delta,
    Ended,
    Gap,
    Item,
    Read,
    RunStarted,
    RunStream,
    Status,
    StreamOutput,
    Streams,
)
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import StoreUnavailable, ThreadNotFound
from jimsapi.threads.event import NewEvent
from jimsapi.threads.run import Outcome, RunStatus, Settled
from tests.apps.scripted import Scripted
from tests.runs.failing import Failing
from tests.runs.serving import drained, ended, inbound, make_store, read_all, serving, taken, texts, told

pytestmark = pytest.mark.anyio

FAULT = RunCancelled()
EVENT = NewEvent(uuid4(), "rag.step", b"{}")


def new_stream() -> RunStream:
    return Streams().open(uuid4())


def status(text: str) -> Status:
    return Status(text, "test")


def answer(*events: NewEvent) -> RunResult:
    return RunResult(uuid4(), uuid4(), True, [], events)


async def items(stream: RunStream) -> list[Item]:
    return [item for _, item in await read_all(stream)]


# Readers.


async def test_a_reader_gets_all_items_in_order_with_their_positions_and_then_the_end() -> None:
    stream = new_stream()
    stream.put(status("a"))
    stream.put(status("b"))
    result = answer(EVENT, EVENT)
    stream.end(result)
    whole = [(1, status("a")), (2, status("b")), (3, EVENT), (4, EVENT), (THE_END, Ended(result))]
    for after in range(5):
        assert await read_all(stream, after) == whole[after:]
    assert await read_all(stream, THE_END) == []


async def test_a_position_that_no_item_has_leads_to_the_end() -> None:
    stream = new_stream()
    stream.put(status("a"))
    early = asyncio.create_task(stream.next(17))
    await asyncio.sleep(0)
    stream.end(answer(EVENT))
    assert await early == (await read_all(stream, 18))[0]
    assert [position for position, _ in await read_all(stream, 17)] == [THE_END]


async def test_readers_that_wait_each_get_every_item_as_it_comes() -> None:
    stream = new_stream()
    readers = [asyncio.create_task(stream.next(position)) for position in (0, 0, 1)]
    await asyncio.sleep(0)
    stream.put(status("a"))
    assert await readers[0] == await readers[1] == (1, status("a"))
    stream.put(status("b"))
    assert await readers[2] == (2, status("b"))
    last = asyncio.create_task(stream.next(2))
    await asyncio.sleep(0)
    stream.end(FAULT)
    assert await last == (THE_END, Ended(FAULT))


async def test_a_reader_that_leaves_does_not_disturb_another() -> None:
    stream = new_stream()
    leaving, staying = (asyncio.create_task(stream.next()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    stream.put(status("a"))
    assert await staying == (1, status("a"))


async def test_a_reader_that_comes_late_is_told_the_start_and_what_it_missed() -> None:
    stream = new_stream()
    for number in range(MAX_ITEMS + 3):
        stream.put(status(str(number)))
    stream.end(answer(EVENT))
    late = await read_all(stream)
    assert late[:3] == [(1, status("0")), (3, Gap(2)), (4, status("3"))]
    assert late[-3:-1] == [(MAX_ITEMS + 3, status(str(MAX_ITEMS + 2))), (MAX_ITEMS + 4, EVENT)]
    assert len(late) == 2 + MAX_ITEMS + 2
    assert (await read_all(stream, 1))[0] == (3, Gap(2))
    assert (await read_all(stream, 3))[0] == (4, status("3"))


async def test_what_is_put_after_the_end_is_dropped_and_the_first_end_counts() -> None:
    stream = new_stream()
    stream.end(FAULT)
    stream.put(status("late"))
    stream.end(answer(EVENT))
    assert await read_all(stream) == [(THE_END, Ended(FAULT))]


# Bounds.


async def test_it_keeps_no_more_bytes_than_it_may() -> None:
    stream = new_stream()
    for _ in range(100):
        stream.put(status("x"), (MAX_BYTES - STREAM_BYTES) // 10 - ITEM_BYTES)
    assert stream.size <= MAX_BYTES
    stream.end(FAULT)
    assert await items(stream) == [status("x"), Gap(89), *[status("x")] * 10, Ended(FAULT)]


async def test_the_last_item_is_kept_however_large_it_is() -> None:
    stream = new_stream()
    stream.put(status("small"), 1)
    stream.put(status("large"), MAX_BYTES + 1)
    assert await stream.next(1) == (2, status("large"))
    stream.put(status("after"), 1)
    stream.end(FAULT)
    assert await items(stream) == [status("small"), Gap(1), status("after"), Ended(FAULT)]


async def test_events_are_kept_however_many_they_are() -> None:
    stream = new_stream()
    stream.put(status("a"))
    events = [NewEvent(uuid4(), "rag.large", b"x" * MAX_BYTES) for _ in range(3)]
    result = answer(*events)
    stream.end(result)
    assert await items(stream) == [status("a"), *events, Ended(result)]


def open_one(streams: Streams, size: int = 0) -> UUID:
    run_id = uuid4()
    streams.open(run_id).put(status("x"), size)
    return run_id


async def test_a_run_that_is_opened_and_closed_again_has_a_new_stream_and_is_forgotten_once() -> None:
    streams, run_id = Streams(), uuid4()
    opened = []
    for now in (0.0, 1.0):
        stream = streams.open(run_id)
        opened.append(stream)
        assert streams.open(run_id) is stream
        stream.put(RunStarted(run_id, run_id, True))
        stream.end(FAULT)
        streams.close(run_id, now)
        streams.close(run_id, now)
    assert opened[0] is not opened[1]
    assert streams.size == opened[1].size
    streams.tidy(KEPT_FOR)
    assert streams.get(run_id) is opened[1]
    streams.tidy(KEPT_FOR + 1.0)
    assert (len(streams), streams.size) == (0, 0)
    streams.close(run_id, 100.0)
    assert told(await read_all(opened[1]))[-1] == "RunCancelled"


async def test_an_ended_stream_is_kept_for_a_minute() -> None:
    streams = Streams()
    first, second = open_one(streams), open_one(streams)
    streams.close(first, 100.0)
    streams.close(second, 130.0)
    streams.tidy(100.0 + KEPT_FOR - 0.1)
    assert streams.get(first) is not None
    streams.tidy(100.0 + KEPT_FOR)
    assert streams.get(first) is None
    assert streams.get(second) is not None
    third = open_one(streams)
    streams.close(third, 130.0 + KEPT_FOR)  # whatever ends tidies up, too
    assert streams.get(second) is None
    assert KEPT_FOR == 60.0


async def test_all_together_take_so_much_at_most_and_the_oldest_ended_ones_go_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ALL_BYTES", 10 * (STREAM_BYTES + ITEM_BYTES + 100))
    streams = Streams()
    ended = [open_one(streams, 100) for _ in range(10)]
    for run_id in ended:
        streams.close(run_id, 0.0)
    still_open = [open_one(streams, 100) for _ in range(3)]
    assert [streams.get(run_id) is None for run_id in ended] == [True] * 3 + [False] * 7
    assert all(streams.get(run_id) is not None for run_id in still_open)
    assert streams.size == module.ALL_BYTES


async def test_open_ones_lose_their_own_oldest_items_once_nothing_else_can_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALL_BYTES", 2 * STREAM_BYTES + 10 * (ITEM_BYTES + 100))
    streams = Streams()
    quiet, loud = streams.open(uuid4()), streams.open(uuid4())
    for _ in range(4):
        quiet.put(status("x"), 100)
    for number in range(20):
        loud.put(status(str(number)), 100)
    assert streams.size <= module.ALL_BYTES
    assert (quiet.item_count, loud.item_count) == (4, 20)
    quiet.end(FAULT)
    loud.end(FAULT)
    assert (await items(quiet))[0] == status("x")
    assert (await items(loud))[:2] == [status("0"), Gap(13)]


async def test_an_answer_counts_with_its_events_and_its_texts() -> None:
    stream = new_stream()
    before = stream.size
    event = NewEvent(uuid4(), "comm.assistant_message", b"x" * 1000)
    stream.end(RunResult(uuid4(), uuid4(), True, ["x" * 1000], (event,)))
    assert 2000 <= stream.size - before <= 2200


LARGE = 500_000


async def say_much(ctx: ThreadContext) -> None:
    await ctx.stream("x")
    ctx.send_message("x" * LARGE)


@pytest.mark.parametrize("once", [False, True])
async def test_large_answers_that_nobody_reads_are_given_back_and_can_be_read_all_the_same(
    once: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ALL_BYTES", 3 * LARGE)
    async with (
        make_store("sqlite", tmp_path) as store,
        RunService(JimsApp(say_much), store, [DefaultResolver()]) as service,
    ):
        tracemalloc.start()
        try:
            readers = [await unread(service, number, once) for number in range(20)]
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert service.streams.size <= 3 * LARGE
        if not once:  # those are nowhere else; the encoder reserves 8 bytes for each that it writes
            assert held < 20 * LARGE
        for reader in readers:
            [*_, (_, event), (position, ending)] = await drained(reader)
            assert isinstance(event, NewEvent)
            assert len(event.data) > LARGE
            assert isinstance(ending, Ended)
            assert isinstance(ending.answer, RunResult)
            assert (position, ending.answer.assistant_messages) == (THE_END, ["x" * LARGE])


async def unread(service: RunService, number: int, once: bool) -> AsyncIterator[Read]:
    """A reader of a run that has ended, which has read nothing."""
    begin = service.answer_once if once else service.begin
    run = begin(inbound("hi", f"{number}"), PUBLIC, watched=True)
    await run.answer
    await ended(service)
    return await Runs(service).of(PUBLIC, run)


async def test_a_reader_that_waits_when_its_stream_ends_and_goes_at_once_gets_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "KEPT_FOR", 0.0)
    bot = Scripted()
    async with serving(bot) as service:
        run = service.begin(inbound("stream a; hold on; send ab"), PUBLIC, watched=True)
        await bot.reached["on"].wait()
        reading = asyncio.create_task(drained(await Runs(service).of(PUBLIC, run)))
        for _ in range(5):
            await asyncio.sleep(0)
        bot.opened["on"].set()
        async with asyncio.timeout(30):
            reads = told(await reading)
    assert reads[:2] == ["started", "delta a"]
    assert reads[-2:] == ['event comm.assistant_message {"role":"assistant","content":"ab"}', "RunResult"]


async def test_a_reader_that_has_read_half_goes_on_from_the_store_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(Scripted()) as service:
        run = service.begin(inbound("stream a; stream b; stream c; event d; event e"), PUBLIC, watched=True)
        await run.answer
        await ended(service)
        runs = Runs(service)
        whole = await drained(await runs.of(PUBLIC, run))
        readers = [await runs.of(PUBLIC, run, after) for after, _ in [(0, None), *whole]]
        early = await runs.of(PUBLIC, run)
        assert (await anext(early), await anext(early)) == (whole[0], whole[1])
        service.streams.tidy(asyncio.get_running_loop().time() + KEPT_FOR)
        assert told(await drained(early)) == ["gap 2", *told(whole[4:])]
        rests = [await drained(reader) for reader in readers]
    assert told(rests[0]) == ["started", "gap 3", *told(whole[4:])]
    assert rests[4:] == [whole[start:] for start in range(4, len(whole) + 1)]


async def test_what_is_forgotten_frees_its_bytes() -> None:
    streams = Streams()
    run_id = open_one(streams, 500)
    stream = streams.get(run_id)
    assert stream is not None
    stream.end(answer(NewEvent(uuid4(), "rag.step", b"x" * 900)))
    assert streams.size == STREAM_BYTES + ITEM_BYTES + 500 + 900
    streams.close(run_id, 0.0)
    streams.tidy(KEPT_FOR)
    assert (streams.size, len(streams)) == (0, 0)
    streams.open(run_id)
    streams.close(run_id, 0.0)  # one that told nothing is not kept
    assert (streams.size, len(streams)) == (0, 0)


# What a pipeline says.


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


@pytest.mark.parametrize(
    ("said", "text", "kind"),
    [
        ("plainly", "plainly", "status"),
        (StatusEvent("Searching", "search"), "Searching", "search"),
        (StatusEvent(5, None), "5", "None"),  # type: ignore[arg-type] # nobody checks them before
        ("\ud800", "?", "status"),
        (Loud("quiet"), "quiet", "status"),
    ],
)
async def test_every_status_is_text_of_some_kind(said: Any, text: str, kind: str) -> None:
    stream = new_stream()
    await StreamOutput(stream).update_status(said)
    assert await stream.next() == (1, Status(text, kind))


async def test_what_is_no_status_is_passed_over_and_a_piece_is_utf_8() -> None:
    stream = new_stream()
    output = StreamOutput(stream)
    await output.update_status(5)
    message_id = uuid4()
    output.send_delta(message_id, "a\ud800é")
    stream.end(FAULT)
    assert await items(stream) == [Delta(message_id, "a?é"), Ended(FAULT)]


def watched(service: RunService, message: str, **fields: Any) -> tuple[LiveRun, RunStream]:
    run = service.begin(inbound(message, **fields), PUBLIC, watched=True)
    assert run.stream is not None
    return run, run.stream


SAID = '{"role":"assistant","content":"%s"}'


async def test_a_run_tells_its_start_its_progress_then_what_was_stored_and_its_answer() -> None:
    async with serving(Scripted()) as service:
        run, stream = watched(service, "status Looking; stream Hel; stream lo; event found; send Bye")
        reads = await read_all(stream)
        result = run.answer.result()
        assert result.thread_id == run.thread_id
        stored = await texts(service, result.thread_id)
    assert reads[0] == (1, RunStarted(run.run_id, result.thread_id, True))
    assert told(reads) == [
        "started",
        "status Looking",
        "delta Hel",
        "delta lo",
        "delta Bye",
        'event rag.step {"text":"found"}',
        "event comm.assistant_message " + SAID % "Hello",
        "event comm.assistant_message " + SAID % "Bye",
        "RunResult",
    ]
    assert [position for position, _ in reads] == [*range(1, 9), THE_END]
    assert stored == ["user_message", "rag.step", "assistant_message", "assistant_message"]
    assert reads[-1][1] == Ended(result)


async def test_each_piece_is_a_delta_of_its_own_and_bears_the_id_of_its_event() -> None:
    pieces = [f"stream {number}" for number in range(50)]
    async with serving(Scripted()) as service:
        _, stream = watched(service, "; ".join([*pieces, "send other", "stream end"]))
        found = await items(stream)
    deltas = [item for item in found if isinstance(item, Delta)]
    events = [item for item in found if isinstance(item, NewEvent)]
    assert [delta.content for delta in deltas] == [*map(str, range(50)), "other", "end"]
    assert [orjson.loads(event.data)["content"] for event in events] == ["".join(map(str, range(50))), "other", "end"]
    ids = [event.event_id for event in events]
    assert [delta.message_id for delta in deltas] == [ids[0]] * 50 + ids[1:]
    assert len(set(ids)) == 3


SENDS = [
    ("send Hello", ["Hello"], ["Hello"]),
    ("stream Hel; send Hello", ["Hel", "lo"], ["Hello"]),
    ("stream Hello; send Hello", ["Hello"], ["Hello"]),
    ("stream Hel; buttons Hello", ["Hel", "lo"], ["Hello"]),
    ("stream Hel; send Bye", ["Hel", "Bye"], ["Hel", "Bye"]),
    ("stream Hello; send Hel", ["Hello", "Hel"], ["Hello", "Hel"]),
    ("stream a; stream b", ["a", "b"], ["ab"]),
    ("send a; send b", ["a", "b"], ["a", "b"]),
    ("send a; stream a", ["a", "a"], ["a", "a"]),
]


@pytest.mark.parametrize(("script", "deltas", "messages"), SENDS)
async def test_a_message_says_what_was_not_streamed_of_it_or_closes_another(
    script: str, deltas: list[str], messages: list[str]
) -> None:
    async with serving(Scripted()) as service:
        _, stream = watched(service, script)
        found = await items(stream)
    said = [item for item in found if isinstance(item, Delta)]
    events = {item.event_id: orjson.loads(item.data)["content"] for item in found if isinstance(item, NewEvent)}
    assert [delta.content for delta in said] == deltas
    assert list(events.values()) == messages
    for event_id, content in events.items():
        assert "".join(delta.content for delta in said if delta.message_id == event_id) == content


async def test_events_are_told_once_they_are_stored() -> None:
    may_commit, asked = asyncio.Event(), asyncio.Event()

    class Slow(MemoryStore):
        async def finish(self, run_id: UUID, owner: UUID, outcome: Outcome) -> Settled:
            asked.set()
            await may_commit.wait()
            return await super().finish(run_id, owner, outcome)

    async with serving(Scripted(), Slow()) as service:
        _, stream = watched(service, "stream a; event b")
        await asked.wait()
        assert (await stream.next(1) or (0, None))[0] == 2
        waiting = asyncio.create_task(stream.next(2))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        may_commit.set()
        assert isinstance((await waiting or (0, None))[1], NewEvent)


@pytest.mark.parametrize(
    ("script", "error"), [("raise it", "PipelineFailed"), ("unstorable", "PipelineFailed"), ("hold on", "RunTimedOut")]
)
async def test_nobody_sees_an_event_of_a_run_that_failed(script: str, error: str) -> None:
    async with serving(Scripted(), limits=RunLimits(run_timeout=0.5)) as service:
        run, stream = watched(service, f"stream a; event b; send c; {script}")
        assert told(await read_all(stream)) == ["started", "delta a", "delta c", error]
        assert run.thread_id is not None
        assert await texts(service, run.thread_id) == ["user_message"]


async def test_a_run_that_no_thread_takes_tells_nothing_but_why() -> None:
    async with serving(Scripted()) as service:
        run, stream = watched(service, "hi", thread_id=uuid4())
        assert told(await read_all(stream)) == ["ThreadNotFound"]
        assert isinstance(run.answer.exception(), ThreadNotFound)
        while service.open_runs:
            await asyncio.sleep(0)
        assert len(service.streams) == 0


async def test_a_conversation_start_is_silent_even_if_it_is_the_same_pipeline() -> None:
    bot = Scripted()
    async with MemoryStore() as store:
        app = JimsApp(bot, conversation_start_pipeline=bot)
        async with RunService(app, store, [DefaultResolver()]) as service:
            _, stream = watched(service, "status Looking", run_conversation_start_on_new_thread=True)
            assert told(await read_all(stream)) == ["started", "status Looking", "RunResult"]
        assert len(bot.texts) == 2


async def test_a_conversation_start_that_fails_is_told_as_the_error_alone() -> None:
    async with serving(Scripted()) as service:
        config = {"greet": "stream never; raise no greeting"}
        _, stream = watched(service, "hi", run_conversation_start_on_new_thread=True, thread_config=config)
        assert told(await read_all(stream)) == ["started", "PipelineFailed"]


async def test_a_run_that_nobody_watches_has_no_voice_and_no_stream() -> None:
    updaters: list[Any] = []

    class Curious(Scripted):
        async def do(self, ctx: ThreadContext, command: str, argument: str) -> None:
            updaters.append(ctx.status_updater)
            await super().do(ctx, command, argument)

    async with serving(Curious()) as service:
        run = service.begin(inbound("status a; stream b"), PUBLIC)
        await run.answer
        assert run.stream is None
        assert len(service.streams) == 0
    assert updaters == [None, None]


async def test_a_run_that_is_watched_in_its_midst_says_that_something_is_missing() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        run = service.begin(inbound("status a; stream Hel; hold on; stream lo"), PUBLIC)
        await bot.reached["on"].wait()
        stream = service.watch(run.run_id)
        assert stream is not None
        assert service.watch(run.run_id) is stream
        bot.opened["on"].set()
        assert told(await read_all(stream)) == [
            "started",
            "gap None",
            "delta lo",
            "event comm.assistant_message " + SAID % "Hello",
            "RunResult",
        ]
        assert (await service.store.run(run.run_id, None, None)).streamed == stream.item_count - 1


async def test_a_run_that_is_watched_while_it_waits_has_missed_nothing() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        service.begin(inbound("hold on"), PUBLIC)
        await bot.reached["on"].wait()
        waiting = await taken(service.begin(inbound("status a"), PUBLIC))
        stream = service.watch(waiting.run_id)
        assert stream is not None
        bot.opened["on"].set()
        assert told(await read_all(stream)) == ["started", "status a", "RunResult"]


async def test_a_pipeline_goes_on_without_a_reader_and_what_it_told_is_bounded() -> None:
    text = "x" * 1000
    async with serving(Scripted()) as service:
        run, stream = watched(service, "; ".join([f"status {text}"] * 3 * MAX_ITEMS))
        await run.answer
        assert stream.size <= MAX_BYTES
        found = await items(stream)
    start, gap = found[:2]
    assert isinstance(start, RunStarted)
    kept = [item for item in found if isinstance(item, Status)]
    assert 0 < len(kept) < MAX_ITEMS
    assert isinstance(gap, Gap)
    assert gap.missed is not None
    assert gap.missed + len(kept) == 3 * MAX_ITEMS


@pytest.mark.parametrize("step", ["status x", "stream x"])
async def test_a_pipeline_in_a_hurry_does_not_outrun_its_reader(step: str) -> None:
    async with serving(Scripted()) as service:
        _, stream = watched(service, "; ".join([step] * 2 * MAX_ITEMS))
        found = await items(stream)
    assert sum(isinstance(item, (Status, Delta)) for item in found) == 2 * MAX_ITEMS


async def test_a_stopped_run_ends_its_stream_and_its_voice_is_deaf() -> None:
    contexts: list[ThreadContext] = []

    class Kept(Scripted):
        async def do(self, ctx: ThreadContext, command: str, argument: str) -> None:
            contexts.append(ctx)
            await super().do(ctx, command, argument)

    bot = Kept()
    async with serving(bot) as service:
        run, stream = watched(service, "status a; hold on")
        await bot.reached["on"].wait()
        service.stop_runs([run.run_id], Stop.CANCELLED)
        before = await read_all(stream)
        assert told(before) == ["started", "status a", "RunCancelled"]
        updater = contexts[0].status_updater
        assert updater is not None
        await updater.update_status("late")
        assert await read_all(stream) == before


async def test_leaving_the_service_ends_the_streams_of_open_runs() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        run, stream = watched(service, "status a; hold on")
        await bot.reached["on"].wait()
    assert told(await read_all(stream)) == ["started", "status a", "RunInterrupted"]
    with pytest.raises(RunInterrupted):
        await run.answer


# A store that does not answer.


async def test_a_stream_that_ended_for_want_of_the_store_is_not_kept_beyond_its_run() -> None:
    store = Failing()
    async with serving(Scripted(), store) as service:
        run, stream = watched(service, "send a")
        assert told(await read_all(stream)) == ["started", "delta a", "StoreUnavailable"]
        store.down = False
        while service.open_runs:
            await asyncio.sleep(0.001)
        assert (await service.store.run(run.run_id, None, None)).status is RunStatus.COMPLETED
        assert service.watch(run.run_id) is None


async def test_who_watches_after_the_caller_was_told_of_the_store_hears_how_the_run_ended() -> None:
    store = Failing()
    async with serving(Scripted(), store) as service:
        run = service.begin(inbound("send a"), PUBLIC)
        with pytest.raises(StoreUnavailable):
            await run.answer
        stream = service.watch(run.run_id)
        assert stream is not None
        store.down = False
        assert told(await read_all(stream))[-1] == "RunResult"


async def test_a_caller_that_leaves_takes_the_answer_from_no_other_and_ends_no_stream() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        leaving = asyncio.create_task(service.chat(inbound("hold on; send a"), PUBLIC))
        await bot.reached["on"].wait()
        (run,) = service._runs
        stream = service.watch(run.run_id)
        assert stream is not None
        leaving.cancel()
        await asyncio.wait([leaving])
        bot.opened["on"].set()
        assert (await run.answer).assistant_messages == ["a"]
        assert told(await read_all(stream))[-1] == "RunResult"
