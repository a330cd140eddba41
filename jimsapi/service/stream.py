"""The live stream of a run: what it says while it works, for whoever watches.

What is told here is stored nowhere. How the run ended is no part of it: that is the run's `answer`, which stands when
the stream has ended.
"""

import asyncio
from collections import deque
from uuid import UUID

import msgspec

from jimsapi.threads.context import StatusEvent

MAX_ITEMS = 1000
MAX_BYTES = 256 * 1024
PLAIN_STATUS = "status"
"""The `kind` of a status that a pipeline gave as plain text."""


class RunStarted(msgspec.Struct, frozen=True):
    """A thread has taken the message: what may still go wrong is told to who watches. Always the first item."""

    run_id: UUID
    thread_id: UUID
    created_new_thread: bool


class Status(msgspec.Struct, frozen=True):
    """What the pipeline is doing: `text` for a person, `kind` a stable identifier for a program."""

    text: str
    kind: str


class Gap(msgspec.Struct, frozen=True):
    """So many items are not kept any more: the reader came too late for them."""

    missed: int


Item = RunStarted | Status
Read = tuple[int, Item | Gap]


class RunStream:
    """The newest items of a run, up to `MAX_ITEMS` and `MAX_BYTES`; the last one is kept, however large it is.

    A reader is a number: the position of the last item that it has had. So whoever puts never waits for a reader, and
    one that comes late or reads slowly costs nothing; what it missed it is told as a `Gap`.
    """

    __slots__ = ("_bytes", "_changed", "_dropped", "_ended", "_items")

    def __init__(self) -> None:
        self._items: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._dropped = 0
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, item: Item, size: int = 0) -> None:
        """Append an item of about `size` bytes. After the end it is dropped: nobody would read it."""
        if self._ended:
            return
        self._items.append((item, size))
        self._bytes += size
        while len(self._items) > MAX_ITEMS or (self._bytes > MAX_BYTES and len(self._items) > 1):
            self._bytes -= self._items.popleft()[1]
            self._dropped += 1
        self._wake()

    def end(self) -> None:
        """Let readers go once they have read what is here."""
        self._ended = True
        self._wake()

    async def next(self, after: int = 0) -> Read | None:
        """What follows on position `after`, as soon as there is something, and its position; None at the end.

        Positions count from 1. A gap has the position of the last item that it stands for.
        """
        while after >= self._dropped + len(self._items):
            if self._ended:
                return None
            await self._changed.wait()
        if after < self._dropped:
            return self._dropped, Gap(self._dropped - after)
        return after + 1, self._items[after - self._dropped][0]

    def _wake(self) -> None:
        # Wakes all that wait now; who waits next waits for the next change.
        self._changed.set()
        self._changed.clear()


class StatusRelay:
    """The status updater of a streamed run: what its pipeline says about its progress goes to the stream."""

    __slots__ = ("_stream",)

    def __init__(self, stream: RunStream) -> None:
        self._stream = stream

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
