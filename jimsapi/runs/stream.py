"""The live stream of a run for clients that watch it: live items, then the stored events and the ending.

Live items are not stored: statuses, deltas, and what an agent does. Events are sent after they are stored, so a client
knows which events of a run are in the thread. `replay` reads the events and the ending from the store, at the same
positions.
"""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from time import monotonic
from uuid import UUID

import msgspec

from jimsapi.runs.result import RunResult
from jimsapi.threads.activity import MODEL_REASONING
from jimsapi.threads.context import StatusEvent
from jimsapi.threads.errors import DomainError, StoreUnavailable
from jimsapi.threads.event import NewEvent
from jimsapi.threads.run import StoredRun

MAX_ITEMS = 1000
MAX_BYTES = 256 * 1024
MAX_ACTIVITY = 32 * 1024
"""Bytes of an event that readers get before it is stored. A larger one would push out what they have not read yet."""
ALL_BYTES = 64 * 1024 * 1024
"""The most bytes that all streams of a process may use."""
STREAM_BYTES = 1000
ITEM_BYTES = 250
"""The approximate bytes of an empty stream, and of an item without its text."""
KEPT_FOR = 60.0
"""Seconds that a stream is kept after its run has ended."""
WAKE_EVERY = 0.01
"""The least seconds between two wake-ups of readers for deltas. Readers of a fast pipeline then get several deltas at
once, which costs much less than a wake-up for each. A delta after a pause wakes them at once."""
WAKE_BYTES = 8 * 1024
"""The bytes of deltas that may wait for the next wake-up. If there are more, readers are woken at once."""
PLAIN_STATUS = "status"
"""The `kind` of a status that a pipeline gave as plain text."""
THE_END = sys.maxsize
"""The position of the last item of every stream, however many items precede it."""


class RunStarted(msgspec.Struct, frozen=True):
    """The first item of every stream: a thread has accepted the message. Later errors are in `Ended`."""

    run_id: UUID
    thread_id: UUID
    created_new_thread: bool


class Status(msgspec.Struct, frozen=True, gc=False):
    """The progress of the pipeline: `text` is for people, and `kind` is a stable identifier for programs."""

    text: str
    kind: str


class Delta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of a message. The event of the whole message will have the identifier `message_id`."""

    message_id: UUID
    content: str


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of reasoning. The event of the whole will have the identifier `event_id`."""

    event_id: UUID
    content: str


class Activity(msgspec.Struct, frozen=True):
    """Something that an agent does now, such as a tool call that begins or has ended.

    The stored event has the same identifier. It replaces this one, and may have more data. If the run fails, there is
    no stored event.
    """

    event: NewEvent


class Gap(msgspec.Struct, frozen=True):
    """Sent to late readers: `missed` live items are no longer available. None if the number is unknown."""

    missed: int | None


class Ended(msgspec.Struct, frozen=True):
    """The last item of every stream: the run's result, or the error with which the run or the stream ended."""

    answer: RunResult | BaseException


_PIECES = (Delta, ReasoningDelta)
Live = RunStarted | Status | Delta | ReasoningDelta | Activity | Gap
Item = Live | NewEvent | Ended
"""A `NewEvent` is an event that the run has stored."""
Read = tuple[int, Item]
"""An item and its position. The position of a gap is that of the last missed item."""
Resume = Callable[[UUID, int], AsyncIterator[Read]]
"""Reads the items of a run after a position of its stream from the store."""


class StreamReleased(Exception):
    """The stream was released after its run ended. The remaining items are in the store."""


class RunStream:
    """The newest live items of a run, up to `MAX_ITEMS` and `MAX_BYTES`, then its stored events and its ending.

    The state of a reader is the position of the last item that it has read. So `put` never waits for a reader, and
    late or slow readers use no memory. A reader that missed items gets a `Gap`. It never misses the first item or the
    events.

    `size` is the approximate number of bytes that the stream uses. `ended` is the last item. If the stream is
    `in_store`, it can be released when its run has ended, and its readers continue with the store.
    """

    __slots__ = (
        "_alarm",
        "_dropped",
        "_first",
        "_items",
        "_next_wake_at",
        "_pending_bytes",
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
        self._items: list[Live] = []  # an empty deque needs as much memory as the rest of the stream
        self._sizes: list[int] = []
        self._dropped = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._pending_bytes = 0
        self._next_wake_at = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._grow(STREAM_BYTES)

    def hides(self, event_type: str) -> bool:
        """Whether readers must not get events of this type."""
        return self._streams.hides(event_type)

    @property
    def item_count(self) -> int:
        """The number of live items since the start."""
        return self._dropped + len(self._items)

    def put(self, item: Live, size: int = 0) -> None:
        """Append an item whose text has about `size` bytes. After the end of the stream, the item is dropped."""
        if self.ended is not None or self._released:
            return
        size += ITEM_BYTES
        if self._first is None:
            self._first = item
        self._items.append(item)
        self._sizes.append(size)
        self.size += size
        self._streams.grow(size)
        while len(self._items) > 1 and (
            len(self._items) > MAX_ITEMS or self.size > MAX_BYTES or self._streams.size > ALL_BYTES
        ):
            self._items.pop(0)
            self._grow(-self._sizes.pop(0))
            self._dropped += 1
        if self._waiting:
            if isinstance(item, _PIECES):
                self._wake_soon(size)
            else:
                self._wake()

    def end(self, answer: RunResult | BaseException) -> None:
        """End the stream with the run's answer. Only the first call has an effect."""
        if self.ended is None and not self._released:
            self.ended = Ended(answer)
            self._grow(_bytes_of(answer))
            self._wake()

    def release(self) -> None:
        """Release the memory of an ended stream. An ending that the store does not have is kept.

        Current readers miss live items, and read the events from the store.
        """
        self._dropped = self.item_count
        self._items, self._sizes = [], []
        if self.in_store and self.ended is not None and isinstance(self.ended.answer, RunResult):
            self.ended = None
            self._released = True

    @property
    def is_over(self) -> bool:
        """Whether the stream gets no more items."""
        return self._released or self.ended is not None

    @property
    def is_cut(self) -> bool:
        """Whether the stream ended before its run, because the store was not available."""
        return self.ended is not None and isinstance(self.ended.answer, StoreUnavailable)

    async def next(self, after: int = 0) -> Read | None:
        """Wait for the item after position `after`, and return it; None after the last item.

        Positions count from 1. The last one is `THE_END`.

        Raises:
            StreamReleased: the store has the remaining items.
        """
        while self._dropped + len(self._items) <= after:
            if self._released:
                raise StreamReleased
            if self.ended is not None:
                return _item_after_live(self.ended, after, self.item_count)
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
        """Return the live items after position `after` that can be read without waiting; empty if the next is a gap."""
        if after < self._dropped:
            return []
        return list(enumerate(self._items[after - self._dropped :], after + 1))

    def _grow(self, size: int) -> None:
        self.size += size
        self._streams.grow(size)

    def _wake_soon(self, size: int) -> None:
        """Wake the readers for a delta of `size` bytes, at most `WAKE_EVERY` seconds from now."""
        self._pending_bytes += size
        if self._pending_bytes >= WAKE_BYTES:
            self._wake_now()
        elif self._alarm is None:
            # This reads the clock, since the loop's time may not advance within a turn of the loop. Readers must get
            # the last delta before a pipeline blocks the loop.
            left = self._next_wake_at - monotonic()
            if left <= 0:
                self._wake_now()
            else:
                self._alarm = asyncio.get_running_loop().call_later(left, self._wake_now)

    def _wake_now(self) -> None:
        self._next_wake_at = monotonic() + WAKE_EVERY
        self._wake()

    def _wake(self) -> None:
        self._pending_bytes = 0
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        # A reader that begins to wait after this waits for the next change.
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            if not change.done():
                change.set_result(None)


def _bytes_of(answer: RunResult | BaseException) -> int:
    """The approximate bytes of an answer. It contains the text of messages twice: in events, and in the messages."""
    if not isinstance(answer, RunResult):
        return 0
    return sum(len(event.data) for event in answer.events) + sum(map(sys.getsizeof, answer.assistant_messages))


def _events(ended: Ended) -> tuple[NewEvent, ...]:
    return ended.answer.events if isinstance(ended.answer, RunResult) else ()


def _item_after_live(ended: Ended, after: int, item_count: int) -> Read | None:
    """Return the item after position `after` if all live items are read: an event, the ending, or None."""
    if after == THE_END:
        return None
    events = _events(ended)
    if after - item_count < len(events):
        return after + 1, events[after - item_count]
    return THE_END, ended


class Reader:
    """Iterates over the items of a run's stream after position `after`. If it is released, `resume` reads the rest."""

    __slots__ = ("_after", "_resume", "_resumed", "_run_id", "_stream")

    def __init__(self, stream: RunStream, run_id: UUID, after: int, resume: Resume) -> None:
        self._stream = stream
        self._run_id = run_id
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
                self._resumed = self._resume(self._run_id, self._after)
            else:
                if found is None:
                    raise StopAsyncIteration
                self._after = found[0]
                return found
        return await anext(self._resumed)

    def ready(self) -> list[Read]:
        """Read and return the live items that are available without waiting."""
        found = self._stream.ready(self._after)
        if found:
            self._after = found[-1][0]
        return found


async def replay(run: StoredRun, after: int, answer: RunResult | DomainError) -> AsyncIterator[Read]:
    """Iterate over the items after position `after` that the store has, up to `answer`. The run must have ended.

    It omits the first item (`RunStarted`).
    """
    if run.streamed is None:  # the run's process died, so the number of live items is unknown
        if after < THE_END:
            yield after, Gap(None)
        item_count = after
    else:
        item_count = 1 + run.streamed
        if after < item_count:
            yield item_count, Gap(item_count - after)
            after = item_count
    ended = Ended(answer)
    while (found := _item_after_live(ended, after, item_count)) is not None:
        after = found[0]
        yield found


class Streams:
    """The streams of a process: those of live runs, and for `KEPT_FOR` seconds those of ended runs.

    Together they use at most `ALL_BYTES`. To make room, the oldest streams of ended runs are released first, then the
    oldest items of the stream that grows. A stream is released even if it has readers, which continue with the store.
    `size` is the approximate number of bytes in use. `hides` returns whether readers must not get events of a type.
    """

    def __init__(self, hides: Callable[[str], bool] = lambda event_type: False) -> None:
        self.hides = hides
        self.size = 0
        self._streams: dict[UUID, RunStream] = {}
        self._ended: deque[tuple[float, UUID, RunStream]] = deque()

    def __len__(self) -> int:
        return len(self._streams)

    def get(self, run_id: UUID) -> RunStream | None:
        """Return the stream of a run; None if there is none."""
        return self._streams.get(run_id)

    def open(self, run_id: UUID, *, in_store: bool = True) -> RunStream:
        """Return the stream of a run, and create it if there is none. `in_store` is False for runs without a thread.

        If a run is adopted again, an ended stream of its last attempt is replaced.
        """
        stream = self._streams.get(run_id)
        if stream is not None:
            if not stream.is_over:
                return stream
            self._forget(run_id, stream)
        stream = self._streams[run_id] = RunStream(self, in_store=in_store)
        return stream

    def close(self, run_id: UUID, now: float) -> None:
        """Keep the stream of a run that has ended for `KEPT_FOR` seconds. `now` is the loop's time.

        Streams without items are removed at once. So are streams that ended with `StoreUnavailable`, since the store
        now has the ending.
        """
        stream = self._streams.get(run_id)
        if stream is None:
            return
        if stream.item_count and not stream.is_cut:
            self._ended.append((now + KEPT_FOR, run_id, stream))
        else:
            self._forget(run_id, stream)  # its current readers can still read it to the end
        self.tidy(now)
        self.grow(0)

    def tidy(self, now: float) -> None:
        """Release the streams that were kept for `KEPT_FOR` seconds. `now` is the loop's time."""
        while self._ended and self._ended[0][0] <= now:
            self._release_oldest()

    def grow(self, size: int) -> None:
        """Add `size` bytes to the memory in use, and release ended streams if it exceeds `ALL_BYTES`."""
        self.size += size
        while self.size > ALL_BYTES and self._ended:
            self._release_oldest()

    def _release_oldest(self) -> None:
        _, run_id, stream = self._ended.popleft()
        self._forget(run_id, stream)
        stream.release()

    def _forget(self, run_id: UUID, stream: RunStream) -> None:
        """Remove a stream. It may be removed already, if it was closed twice or replaced."""
        if self._streams.get(run_id) is stream:
            del self._streams[run_id]
            self.size -= stream.size


class StreamOutput:
    """The `LiveOutput` of a watched run: it puts what the pipeline sends into the stream."""

    __slots__ = ("_stream",)

    def __init__(self, stream: RunStream) -> None:
        self._stream = stream

    def send_delta(self, message_id: UUID, content: str) -> None:
        """Put the next piece of a message into the stream."""
        if type(content) is str and content.isascii():  # the usual case, at half the cost of the other
            self._stream.put(Delta(message_id, content), len(content))
            return
        text = _utf_8(content)
        self._stream.put(Delta(message_id, text.decode()), len(text))

    def send_reasoning(self, event_id: UUID, content: str) -> None:
        """Put the next piece of reasoning into the stream, unless it is private."""
        if self._stream.hides(MODEL_REASONING):
            return
        text = _utf_8(content)
        self._stream.put(ReasoningDelta(event_id, text.decode()), len(text))

    def send_activity(self, event: NewEvent) -> None:
        """Put an event that is not stored yet into the stream, unless it is large or private."""
        if len(event.data) <= MAX_ACTIVITY and not self._stream.hides(event.event_type):
            self._stream.put(Activity(event), len(event.data))

    async def update_status(self, status: object) -> None:
        """Put a status into the stream, then let the event loop run once, so that readers can read it.

        Values other than text and `StatusEvent` are ignored, since a status must not fail a run.
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
    """Encode a pipeline's text. Converts other types to text, and replaces lone surrogates by `?`."""
    text = value if isinstance(value, str) else str(value)
    return text.encode("utf-8", "replace")
