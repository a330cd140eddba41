"""Live streams between the processes of one command (`--workers`), by Unix sockets in a folder that they share.

The process that works on a run has its live items, and the store has the rest. A process that is asked for the stream
of another one's run asks its peers, and reads the live items from the one that has them. Nothing is sent while nobody
reads.

A question is the identifier of a run and a position. The answer begins at once with `_HAS` or `_HAS_NOT`. After `_HAS`
come the live items after that position, each with its length, its position and its kind. The answer ends with `_END`
when the store has the rest, and without it if the process ends.
"""

import asyncio
import os
import struct
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

from jimsapi.runs.live_items import HEAD, KINDS, decode_item, encode_item, has_items_after
from jimsapi.runs.stream import Read, RunStream, StreamReleased

_QUESTION = struct.Struct("!16sQ")
_END = 255
_HAS, _HAS_NOT = b"\x01", b"\x00"
_numbers = count()
ANSWER_WITHIN = 1.0
"""Seconds that a peer has to answer whether it has a stream. One whose event loop is blocked does not answer."""
ASK_EVERY = 5.0
"""Minimum seconds between two questions for a run. It changes its process only if another one adopts it."""
QUIET_FOR = 20.0
"""Seconds without an item after which a watch ends, so that its reader looks into the store. The peer may be blocked,
and another process may have ended its runs."""

FindStream = Callable[[UUID], RunStream | None]
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Peers:
    """The processes whose sockets are in `folder`, which only their user can enter."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / f"{os.getpid()}-{next(_numbers)}.sock"  # the path of a socket must be short
        self._server: asyncio.Server | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._read: Counter[UUID] = Counter()
        self._watched: set[asyncio.StreamWriter] = set()
        self._watching_stopped = False

    async def serve(self, find: FindStream) -> None:
        """Answer the questions of peers, until `close`. `find` returns the stream of a run of this process."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._answering.add(task)
            try:
                with suppress(OSError, asyncio.IncompleteReadError):
                    run, after = _QUESTION.unpack(await reader.readexactly(_QUESTION.size))
                    stream = find(UUID(bytes=run))
                    if stream is None or not has_items_after(stream, after):
                        writer.write(_HAS_NOT)
                    else:
                        writer.write(_HAS)
                        with self._reading(UUID(bytes=run)):
                            await _send(stream, after, reader, writer)
            finally:
                self._answering.discard(task)
                writer.close()

        # Peers see the socket only when it listens: they remove one that refuses connections.
        unready = self._own.with_suffix(".new")
        unready.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(answer, unready)
        unready.chmod(0o600)
        unready.rename(self._own)

    def is_read(self, run_id: UUID) -> bool:
        """Return whether a peer reads the stream of a run of this process."""
        return run_id in self._read

    @contextmanager
    def _reading(self, run_id: UUID) -> Iterator[None]:
        self._read[run_id] += 1
        try:
            yield
        finally:
            self._read[run_id] -= 1
            if not self._read[run_id]:
                del self._read[run_id]

    def stop_watching(self) -> None:
        """End each `watch` now. Later ones end at once."""
        self._watching_stopped = True
        for writer in self._watched:
            writer.close()

    async def close(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.close()
            self._own.unlink(missing_ok=True)
        for task in self._answering:
            task.cancel()

    async def watch(self, run_id: UUID, after: int) -> AsyncGenerator[Read, None]:
        """Iterate over the live items of a run after a position, if a peer works on it.

        It ends when the store has the rest, if no peer has the stream, if the peer ends, after `QUIET_FOR` seconds
        without an item, and after `stop_watching`.
        """
        connection = await self._find(run_id, after)
        if connection is None:
            return
        reader, writer = connection
        self._watched.add(writer)
        try:
            if not self._watching_stopped:
                async with aclosing(_items(reader)) as items:
                    async for found in items:
                        yield found
        finally:
            self._watched.discard(writer)
            writer.close()

    async def _find(self, run_id: UUID, after: int) -> Connection | None:
        """Ask all peers at the same time. Returns the connection to the first one that has the stream."""
        if self._watching_stopped:
            return None
        asking = [asyncio.ensure_future(_ask(path, run_id, after)) for path in self._others()]
        found: Connection | None = None
        try:
            for answer in asyncio.as_completed(asking):
                if (found := await answer) is not None:
                    return found
            return None
        finally:
            _drop(asking, found)

    def _others(self) -> list[Path]:
        return sorted(path for path in self._folder.glob("*.sock") if path != self._own)


async def _send(stream: RunStream, after: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send the live items of a stream after a position, until it has ended or the peer has hung up."""
    hung_up = asyncio.ensure_future(reader.read(1))
    try:
        while (found := await _next(stream, after, hung_up)) is not None:
            after, item = found
            if not isinstance(item, KINDS):
                break
            writer.write(encode_item(after, item))
            await writer.drain()
        if not hung_up.done():
            writer.write(HEAD.pack(0, after, _END))
            await writer.drain()
    finally:
        hung_up.cancel()


async def _next(stream: RunStream, after: int, hung_up: "asyncio.Future[bytes]") -> Read | None:
    """Wait for the item after a position. None: there is none in memory, or the peer has hung up."""
    coming = asyncio.ensure_future(stream.next(after))
    try:
        either: list[asyncio.Future[Any]] = [coming, hung_up]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return coming.result() if coming.done() else None
    except StreamReleased:
        return None
    finally:
        coming.cancel()


async def _ask(path: Path, run_id: UUID, after: int) -> Connection | None:
    """Ask the peer at a socket for the items of a run. Returns the connection if it has them, else None."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(_QUESTION.pack(run_id.bytes, after))
                if await reader.readexactly(len(_HAS)) == _HAS:
                    return reader, writer
            except BaseException:
                writer.close()
                raise
            writer.close()
    except ConnectionRefusedError:
        _remove(path)  # its process was killed
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        pass  # it is ending, or its event loop is blocked
    return None


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _drop(asking: "Iterable[asyncio.Future[Connection | None]]", kept: Connection | None) -> None:
    """Close the connections of questions, except one that is kept, and cancel the questions that have no answer."""
    for question in asking:
        if not question.done():
            question.cancel()
        elif not question.cancelled() and (connection := question.result()) not in (None, kept):
            connection[1].close()


async def _items(reader: asyncio.StreamReader) -> AsyncGenerator[Read, None]:
    """Iterate over the items that a peer sends."""
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        while True:
            async with asyncio.timeout(QUIET_FOR):
                head = await reader.readexactly(HEAD.size)
            size, position, kind = HEAD.unpack(head)
            if kind == _END:
                return
            yield position, decode_item(kind, await reader.readexactly(size))
