"""Live streams between replicas, by a link that a plugin builds.

The process that works on a run has its live items, and the store has the rest. A process that is asked for the stream
of another one's run asks all replicas once. The one that has the stream answers. The reader then asks only that one,
again and again, for the items after the last one that it has. So nothing is sent while nobody reads, a slow reader
delays nobody, and a message that is lost or repeated changes no stream.

A question is the version of this format, the identifier of a run, a position, and whether the replica waits until it
has an item. An answer is whether more may come, and then live items.
"""

import asyncio
import logging
import math
import struct
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol, cast
from uuid import UUID

import msgspec

from jimsapi.runs.live_items import HEAD, KINDS, decode_item, encode_item, has_items_after
from jimsapi.runs.plugin_code import PLUGIN_EXITS, own_task_is_cancelled
from jimsapi.runs.shared_quota import NoticeLink, carries_notices
from jimsapi.runs.stream import Gap, Live, Read, RunStream, StreamReleased

logger = logging.getLogger("jimsapi.runs")

_VERSION = 1
_QUESTION = struct.Struct("!B16sQ?")
_MORE, _LAST = b"\x01", b"\x00"
MAX_QUESTION = _QUESTION.size
"""Bytes."""
MAX_ITEM = 256 * 1024
"""Bytes of an item. Readers of another replica miss a larger one, and know that they do."""
ENOUGH = 64 * 1024
"""Bytes of an answer after which the items that follow are left for the next one."""
MAX_ANSWER = len(_MORE) + ENOUGH + HEAD.size + MAX_ITEM
"""Bytes."""
SERVE_WITHIN = 10.0
"""Seconds that a link has to begin to serve."""
FOUND_WITHIN = 1.0
"""Seconds in which the replica that has a stream must answer a question to all."""
WAIT_AT_MOST = 15.0
"""Seconds for which a replica waits until it has an item."""
QUIET_FOR = 20.0
"""Seconds after which a reader gives up the replica, and looks into the store. The event loop of the replica may be
blocked, and another process may have ended its runs."""

READ_FOR = WAIT_AT_MOST + 15.0
"""Seconds after a question for which a run counts as read. The reader may be slow, and ask again only after a while."""

FindStream = Callable[[UUID], RunStream | None]
AnswerQuestion = Callable[[bytes], Awaitable[bytes | None]]


class ReplicaLink(Protocol):
    """Carries questions and answers between the replicas of a server: all processes that have the same store.

    A question has at most 64 bytes, and an answer one byte to 512 KiB. Both are opaque. The link may lose them. It must
    not change them, and must not mix up answers. `name` is its name in logs.

    With the methods of a `NoticeLink` as well, replicas count rate limits together.
    """

    name: str

    async def serve(self, answer: AnswerQuestion) -> None:
        """Begin to answer the questions of other replicas with `await answer(question)`, and return.

        jimsapi calls it once, before the first `ask`. An answer may take 15 seconds, so the link must not wait for it
        before it handles the next question. If the answer is None, send nothing: another replica has it. `answer` does
        not raise. The link stops when it is exited.
        """

    async def ask(self, question: bytes, replica: str | None) -> tuple[bytes, str] | None:
        """Return an answer, and the replica that gave it.

        `replica` is one that an earlier call returned: ask only that one. If it is None, ask all others, and return the
        first answer. Return None if no replica can be reached. If a replica may still answer, wait: jimsapi cancels the
        call after 1 to 20 seconds.
        """


class Replicas:
    """The other processes that answer messages with the same store, as far as a link reaches them."""

    def __init__(self, link: ReplicaLink, name: str | None = None) -> None:
        self._link = link
        self._name = name or link.name
        self._find: FindStream | None = None
        self._asking: set[asyncio.Future[_Answer | None]] = set()
        self._asked_at: dict[UUID, float] = {}
        """When other replicas asked last for the runs of this one, the oldest first."""
        self._watching_stopped = False
        self._failed = False

    @property
    def notice_link(self) -> NoticeLink | None:
        """The link, if it also carries notices."""
        return cast(NoticeLink, self._link) if carries_notices(self._link) else None

    async def serve(self, find: FindStream) -> None:
        """Answer the questions of others, until `close`. `find` returns the stream of a run of this process."""
        self._find = find
        try:
            async with asyncio.timeout(SERVE_WITHIN):
                await self._link.serve(self._answer)
        except (Exception, *PLUGIN_EXITS) as error:
            if own_task_is_cancelled():
                raise
            text = "replica link %s cannot serve, so other replicas show no live items of runs here: %s: %s"
            logger.error(text, self._name, type(error).__name__, error)

    def is_read(self, run_id: UUID) -> bool:
        """Return whether another replica reads the stream of a run of this process, or did a short time ago."""
        return time.monotonic() - self._asked_at.get(run_id, -math.inf) < READ_FOR

    def stop_watching(self) -> None:
        """End each `watch` now. Later ones end at once."""
        self._watching_stopped = True
        for asking in self._asking:
            asking.cancel()

    async def close(self) -> None:
        """Stop answering."""
        self._find = None

    async def watch(self, run_id: UUID, after: int) -> AsyncGenerator[Read, None]:
        """Iterate over the live items of a run after a position, if another replica works on it.

        It ends when the store has the rest, if no replica has the stream, if the replica ends, after `WAIT_AT_MOST`
        seconds without an item, and after `stop_watching`.
        """
        answer = await self._ask(run_id, after, None)
        while answer is not None:
            for position, item in answer.items:
                if position > after:
                    after = position
                    yield position, item
            if not answer.more:
                return
            answer = await self._ask(run_id, after, answer.replica)
            if answer is not None and not answer.items:
                return

    async def _answer(self, question: bytes) -> bytes | None:
        """Answer a question of another replica. None: this process does not have the stream."""
        if len(question) != _QUESTION.size or question[0] != _VERSION or self._find is None:
            return None
        _, run, after, waits = _QUESTION.unpack(question)
        run_id = UUID(bytes=run)
        stream = self._find(run_id)
        if stream is None or not has_items_after(stream, after):
            return _LAST if waits else None
        self._note_reader(run_id)
        return await _items_after(stream, after, WAIT_AT_MOST if waits else 0.0)

    def _note_reader(self, run_id: UUID) -> None:
        self._asked_at.pop(run_id, None)
        self._asked_at[run_id] = time.monotonic()
        oldest = time.monotonic() - READ_FOR
        while (first := next(iter(self._asked_at))) != run_id and self._asked_at[first] < oldest:
            del self._asked_at[first]

    async def _ask(self, run_id: UUID, after: int, replica: str | None) -> "_Answer | None":
        """Ask a replica for items, or all replicas. None: none has them, or this process stops watching."""
        if self._watching_stopped:
            return None
        question = _QUESTION.pack(_VERSION, run_id.bytes, after, replica is not None)
        asking = asyncio.ensure_future(self._call_link(question, replica))
        self._asking.add(asking)
        try:
            await asyncio.wait((asking,))
            return None if asking.cancelled() else asking.result()
        finally:
            self._asking.discard(asking)
            asking.cancel()

    async def _call_link(self, question: bytes, replica: str | None) -> "_Answer | None":
        try:
            async with asyncio.timeout(FOUND_WITHIN if replica is None else QUIET_FOR):
                found = await self._link.ask(question, replica)
            answer = None if found is None else _decoded(*found)
        except TimeoutError:
            return None
        except (Exception, *PLUGIN_EXITS) as error:
            if own_task_is_cancelled():
                raise
            if not self._failed:  # otherwise each reader would log it again and again
                logger.error("replica link %s failed: %s: %s", self._name, type(error).__name__, error)
            self._failed = True
            return None
        self._failed = False
        return answer


class _Answer(msgspec.Struct, frozen=True):
    """What a replica has answered. `more`: it may have more items later."""

    more: bool
    items: list[Read]
    replica: str


async def _items_after(stream: RunStream, after: int, seconds: float) -> bytes:
    """Return an answer with the live items after a position. Waits up to so many seconds for the first one."""
    try:
        async with asyncio.timeout(seconds):
            found = await stream.next(after)
    except TimeoutError:
        return _MORE
    except StreamReleased:
        return _LAST
    if found is None or not isinstance(found[1], KINDS):
        return _LAST
    parts = [_MORE, _encoded(found[0], found[1])]
    size = len(parts[1])
    for position, item in stream.ready(found[0]):
        if size >= ENOUGH or not isinstance(item, KINDS):
            break
        parts.append(_encoded(position, item))
        size += len(parts[-1])
    return b"".join(parts)


def _encoded(position: int, item: Live) -> bytes:
    encoded = encode_item(position, item)
    return encoded if len(encoded) <= HEAD.size + MAX_ITEM else encode_item(position, Gap(1))


def _decoded(answer: bytes, replica: str) -> _Answer:
    """Decode an answer. Raises an exception if it is not one."""
    items: list[Read] = []
    place = len(_MORE)
    while place < len(answer):
        size, position, kind = HEAD.unpack_from(answer, place)
        place += HEAD.size
        items.append((position, decode_item(kind, answer[place : place + size])))
        place += size
    return _Answer(answer[: len(_MORE)] == _MORE, items, replica)
