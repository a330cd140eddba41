"""The live stream of a run: what it says while it works, and how it ended, for whoever watches.

Statuses and deltas are stored nowhere. Events are told once they are stored, so that nobody sees an event of a run that
failed; they and the ending can be told again from the store, at the same positions (`replay`).
"""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from time import monotonic
from uuid import UUID

import msgspec

from jimsapi.runs.result import RunResult, stored_result
from jimsapi.threads.context import StatusEvent
from jimsapi.threads.errors import StoreUnavailable
from jimsapi.threads.event import NewEvent
from jimsapi.threads.run import StoredRun

MAX_ITEMS = 1000
MAX_BYTES = 256 * 1024
ALL_BYTES = 64 * 1024 * 1024
"""What the streams of a process may take together."""
STREAM_BYTES = 1000
ITEM_BYTES = 250
"""What a stream takes by itself, and an item without its text, about."""
KEPT_FOR = 60.0
"""Seconds that a stream is kept after its run has ended."""
WAKE_EVERY = 0.01
"""Seconds between two calls to waiting readers, for the deltas of a pipeline in a hurry: they get several at a time,
which costs a fraction of what it costs to be called for each. What is said after a silence is heard at once."""
WAKE_BYTES = 8 * 1024
"""What may gather meanwhile; for more the readers are called at once."""
PLAIN_STATUS = "status"
"""The `kind` of a status that a pipeline gave as plain text."""
THE_END = sys.maxsize
"""The position of every stream's last item: it does not depend on how many came before."""


class RunStarted(msgspec.Struct, frozen=True):
    """A thread has taken the message: what may still go wrong is told to who watches. Always the first item."""

    run_id: UUID
    thread_id: UUID
    created_new_thread: bool


class Status(msgspec.Struct, frozen=True, gc=False):
    """What the pipeline is doing: `text` for a person, `kind` a stable identifier for a program."""

    text: str
    kind: str


class Delta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of a message, whose event will have the identifier `message_id`."""

    message_id: UUID
    content: str


class Gap(msgspec.Struct, frozen=True):
    """So many statuses and deltas are not kept any more: the reader came too late. None: nobody knows how many."""

    missed: int | None


class Ended(msgspec.Struct, frozen=True):
    """The run is over: its result, or why there is none. Always the last item."""

    answer: RunResult | BaseException


Live = RunStarted | Status | Delta | Gap
Item = Live | NewEvent | Ended
"""A `NewEvent` is an event that the run has stored."""
Read = tuple[int, Item]
"""An item and its position. A gap has that of the last item that it stands for."""
Resume = Callable[[int], AsyncIterator[Read]]
"""Reads from the store what follows on a position of a stream."""


class StreamReleased(Exception):
    """The stream of an ended run holds nothing any more: the store has the rest."""


class RunStream:
    """The newest live items of a run, up to `MAX_ITEMS` and `MAX_BYTES`; then its stored events, and its ending.

    A reader is a number: the position of the last item that it has had. So whoever puts never waits for a reader, and
    one that comes late or reads slowly costs nothing; what it missed it is told as a `Gap`. The first item, which says
    whose stream it is, and events are never missed. `size` is what it takes in bytes, about; `ended` how the run ended.
    A stream that is `in_store` can be released once its run has ended: its readers go on with what the store has.
    """

    __slots__ = (
        "_alarm",
        "_dropped",
        "_first",
        "_gathered",
        "_hasty_until",
        "_items",
        "_released",
        "_sizes",
        "_streams",
        "_waiting",
        "ended",
        "in_store",
        "size",
    )

    def __init__(self, streams: "Streams", *, in_store: bool = True) -> None:
        self.size = 0
        self.in_store = in_store
        self._released = False
        self.ended: Ended | None = None
        self._streams = streams
        self._first: Live | None = None
        self._items: list[Live] = []  # an empty deque would take as much as all the rest
        self._sizes: list[int] = []
        self._dropped = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._gathered = 0
        self._hasty_until = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._grow(STREAM_BYTES)

    @property
    def told(self) -> int:
        """How many live items there were."""
        return self._dropped + len(self._items)

    def put(self, item: Live, size: int = 0) -> None:
        """Append an item whose text has about `size` bytes. After the end it is dropped: nobody would read it."""
        if self.ended is not None or self._released:
            return
        size += ITEM_BYTES
        if self._first is None:
            self._first = item
        self._items.append(item)
        self._sizes.append(size)
        self._grow(size)
        while len(self._items) > 1 and (
            len(self._items) > MAX_ITEMS or self.size > MAX_BYTES or self._streams.size > ALL_BYTES
        ):
            self._items.pop(0)
            self._grow(-self._sizes.pop(0))
            self._dropped += 1
        if self._waiting:
            if isinstance(item, Delta):
                self._wake_in_time(size)
            else:
                self._wake()

    def end(self, answer: RunResult | BaseException) -> None:
        """Say how the run ended. The first word counts."""
        if self.ended is None and not self._released:
            self.ended = Ended(answer)
            self._grow(_bytes_of(answer))
            self._wake()

    def release(self) -> None:
        """Give back what an ended stream holds, also if it has readers still: they miss live items, and go on from the
        store to the events. An ending that the store does not have is kept."""
        self._dropped = self.told
        self._items, self._sizes = [], []
        if self.in_store and self.ended is not None and isinstance(self.ended.answer, RunResult):
            self.ended = None
            self._released = True

    @property
    def is_over(self) -> bool:
        """Whether it gets no more items."""
        return self._released or self.ended is not None

    @property
    def is_cut(self) -> bool:
        """Whether it ended before its run, for want of the store."""
        return self.ended is not None and isinstance(self.ended.answer, StoreUnavailable)

    async def next(self, after: int = 0) -> Read | None:
        """What follows on position `after`, as soon as there is something; None behind the end.

        Positions count from 1; the last is `THE_END`. Raises `StreamReleased`.
        """
        while (told := self.told) <= after:
            if self._released:
                raise StreamReleased
            if self.ended is not None:
                return _ending(self.ended, after, told)
            change = asyncio.get_running_loop().create_future()
            self._waiting.append(change)
            try:
                await change
            except asyncio.CancelledError:
                if change in self._waiting:
                    self._waiting.remove(change)
                raise
        if self._released:
            raise StreamReleased
        if after < self._dropped:
            if after < 1 and self._first is not None:
                return 1, self._first
            return self._dropped, Gap(self._dropped - after)
        return after + 1, self._items[after - self._dropped]

    def ready(self, after: int) -> list[Read]:
        """The live items that follow on position `after` and are there now. None if `next` is a gap."""
        if after < self._dropped:
            return []
        return list(enumerate(self._items[after - self._dropped :], after + 1))

    def _grow(self, size: int) -> None:
        self.size += size
        self._streams.grow(size)

    def _wake_in_time(self, size: int) -> None:
        """Wake the readers for a delta of `size` bytes: now, or in a moment."""
        self._gathered += size
        if self._gathered >= WAKE_BYTES:
            self._wake_hasty()
        elif self._alarm is None:
            # Not the loop's time, which may stand still: a pipeline that blocks the loop is heard before it does.
            left = self._hasty_until - monotonic()
            if left <= 0:
                self._wake_hasty()
            else:
                self._alarm = asyncio.get_running_loop().call_later(left, self._wake_hasty)

    def _wake_hasty(self) -> None:
        self._hasty_until = monotonic() + WAKE_EVERY
        self._wake()

    def _wake(self) -> None:
        self._gathered = 0
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        # All that wait now; who waits next waits for the next change.
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            if not change.done():
                change.set_result(None)


def _bytes_of(answer: RunResult | BaseException) -> int:
    """What an answer takes: its events, and its messages once more as text."""
    if not isinstance(answer, RunResult):
        return 0
    return sum(len(event.data) for event in answer.events) + sum(map(sys.getsizeof, answer.assistant_messages))


def _events(ended: Ended) -> tuple[NewEvent, ...]:
    return ended.answer.events if isinstance(ended.answer, RunResult) else ()


def _ending(ended: Ended, after: int, told: int) -> Read | None:
    """What follows on `after` once all `told` live items are read: an event, the end, or nothing."""
    if after == THE_END:
        return None
    events = _events(ended)
    if after - told < len(events):
        return after + 1, events[after - told]
    return THE_END, ended


class Reader:
    """All that follows on position `after` of a stream, as it comes. What the stream has released is `resume`d."""

    __slots__ = ("_after", "_resume", "_resumed", "_stream")

    def __init__(self, stream: RunStream, after: int = 0, resume: Resume | None = None) -> None:
        self._stream = stream
        self._after = after
        self._resume = resume
        self._resumed: AsyncIterator[Read] | None = None

    def __aiter__(self) -> "Reader":
        return self

    async def __anext__(self) -> Read:
        if self._after == THE_END:
            raise StopAsyncIteration
        if self._resumed is None:
            try:
                found = await self._stream.next(self._after)
            except StreamReleased:
                if self._resume is None:
                    raise
                self._resumed = self._resume(self._after)
            else:
                if found is None:
                    raise StopAsyncIteration
                self._after = found[0]
                return found
        return await anext(self._resumed)

    def ready(self) -> list[Read]:
        """Of all that follows, the live items that are there already; they are read by it."""
        found = self._stream.ready(self._after)
        if found:
            self._after = found[-1][0]
        return found


async def replay(run: StoredRun, after: int = 1) -> AsyncIterator[Read]:
    """All that follows on position `after` in the stream of a run that has ended, as far as the store knows it.

    The first item, which a run has before it ends, is not told.
    """
    if run.streamed is None:  # its process died; nobody counted
        if after < THE_END:
            yield after, Gap(None)
        told = after
    else:
        told = 1 + run.streamed
        if after < told:
            yield told, Gap(told - after)
            after = told
    ended = Ended(stored_result(run))
    while (found := _ending(ended, after, told)) is not None:
        after = found[0]
        yield found


class Streams:
    """The streams of a process: those of open runs, and for `KEPT_FOR` seconds those of ended ones.

    Together they take `ALL_BYTES` at most: the oldest ended ones go first, then the oldest items of whoever puts. What
    goes is given back even if somebody still reads it, unless it is nowhere else: a slow reader goes on from the store.
    `size` is what they take now, in bytes.
    """

    def __init__(self) -> None:
        self.size = 0
        self._streams: dict[UUID, RunStream] = {}
        self._ended: deque[tuple[float, UUID, RunStream]] = deque()

    def __len__(self) -> int:
        return len(self._streams)

    def get(self, run_id: UUID) -> RunStream | None:
        """The stream of a run, if there is one still."""
        return self._streams.get(run_id)

    def open(self, run_id: UUID, *, in_store: bool = True) -> RunStream:
        """Begin the stream of a run, which is `in_store` unless it answers outside of every thread.

        A run that is adopted again may still have the stream of its last attempt: an ended one is replaced.
        """
        stream = self._streams.get(run_id)
        if stream is not None:
            if not stream.is_over:
                return stream
            self._forget(run_id, stream)
        stream = self._streams[run_id] = RunStream(self, in_store=in_store)
        return stream

    def close(self, run_id: UUID, now: float) -> None:
        """Keep the stream of a run that ended for a while; one that told nothing goes at once.

        So does one that could not tell how the run ended, since the store did not answer: by now the store knows.
        """
        stream = self._streams.get(run_id)
        if stream is None:
            return
        if stream.told and not stream.is_cut:
            self._ended.append((now + KEPT_FOR, run_id, stream))
        else:
            self._forget(run_id, stream)  # whoever reads it reads it to its end
        self.tidy(now)
        self.grow(0)

    def tidy(self, now: float) -> None:
        """Forget what was kept long enough."""
        while self._ended and self._ended[0][0] <= now:
            self._release_oldest()

    def grow(self, size: int) -> None:
        """Count what a stream takes, and make room for it."""
        self.size += size
        while self.size > ALL_BYTES and self._ended:
            self._release_oldest()

    def _release_oldest(self) -> None:
        _, run_id, stream = self._ended.popleft()
        self._forget(run_id, stream)
        stream.release()

    def _forget(self, run_id: UUID, stream: RunStream) -> None:
        """Count a stream no longer. It may be forgotten already: closed twice, or replaced by another of its run."""
        if self._streams.get(run_id) is stream:
            del self._streams[run_id]
            self.size -= stream.size


class StreamVoice:
    """What the pipeline of a watched run speaks through: its progress and its words go to the stream."""

    __slots__ = ("_stream",)

    def __init__(self, stream: RunStream) -> None:
        self._stream = stream

    def say(self, message_id: UUID, content: str) -> None:
        """Tell who watches the next piece of a message."""
        if type(content) is str and content.isascii():  # the usual case; what follows takes as long as all the rest
            self._stream.put(Delta(message_id, content), len(content))
            return
        text = _utf_8(content)
        self._stream.put(Delta(message_id, text.decode()), len(text))

    async def update_status(self, status: object) -> None:
        """Tell who watches, and give the loop a turn, so that a pipeline in a hurry does not outrun its readers.

        What is neither text nor a `StatusEvent` is passed over: a status must not fail a run.
        """
        if isinstance(status, str):
            text, kind = _utf_8(status), PLAIN_STATUS.encode()
        elif isinstance(status, StatusEvent):
            text, kind = _utf_8(status.message), _utf_8(status.status_type)
        else:
            return
        self._stream.put(Status(text.decode(), kind.decode()), len(text) + len(kind))
        await asyncio.sleep(0)


def _utf_8(value: object) -> bytes:
    """A pipeline's text: it may hold what UTF-8 has not, or be of another type than was asked for."""
    text = value if isinstance(value, str) else str(value)
    return text.encode("utf-8", "replace")
