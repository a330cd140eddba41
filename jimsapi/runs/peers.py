"""Live streams between the processes of one command (`--workers`), by Unix sockets in a folder that they share.

The process that works on a run has its live items, and the store has the rest. A process that is asked for the stream
of another one's run asks its peers, and reads the live items from the one that has them. Nothing is sent while nobody
reads.

A question is the identifier of a run and a position. The answer is the live items after that position, each with its
length, its position and its kind. It ends with `_END` when the store has the rest, and without it if the process ends.
"""

import asyncio
import os
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from jimsapi.runs.stream import (
    Activity,
    Delta,
    Gap,
    Live,
    Read,
    ReasoningDelta,
    RunStarted,
    RunStream,
    Status,
    StreamReleased,
)

_KINDS: tuple[type[Live], ...] = (RunStarted, Status, Delta, ReasoningDelta, Activity, Gap)
_QUESTION = struct.Struct("!16sQ")
_HEAD = struct.Struct("!IQB")
_END = 255
_numbers = count()
ANSWER_WITHIN = 5.0
"""Seconds that a peer has to say whether it has a stream."""

FindStream = Callable[[UUID], RunStream | None]


class Peers:
    """The processes whose sockets are in `folder`, which only their user can enter."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / f"{os.getpid()}-{next(_numbers)}.sock"  # the path of a socket must be short
        self._server: asyncio.Server | None = None
        self._answering: set[asyncio.Task[None]] = set()

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
                    if stream is not None:
                        await _send(stream, after, reader, writer)
            finally:
                self._answering.discard(task)
                writer.close()

        self._own.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(answer, self._own)
        self._own.chmod(0o600)

    async def close(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.close()
            self._own.unlink(missing_ok=True)
        for task in self._answering:
            task.cancel()

    async def watch(self, run_id: UUID, after: int) -> AsyncGenerator[Read, None]:
        """Iterate over the live items of a run after a position, if a peer works on it.

        It ends when the store has the rest, or if no peer has the stream, or not any more.
        """
        for path in self._others():
            async with aclosing(_ask(path, run_id, after)) as items:
                async for found in items:
                    after = found[0]
                    yield found

    def _others(self) -> list[Path]:
        return sorted(path for path in self._folder.glob("*.sock") if path != self._own)


async def _send(stream: RunStream, after: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send the live items of a stream after a position, until it has ended or the peer has hung up."""
    hung_up = asyncio.ensure_future(reader.read(1))
    try:
        while (found := await _next(stream, after, hung_up)) is not None:
            after, item = found
            if type(item) not in _KINDS:
                break
            body = msgspec.msgpack.encode(item)
            writer.write(_HEAD.pack(len(body), after, _KINDS.index(type(item))) + body)
            await writer.drain()
        if not hung_up.done():
            writer.write(_HEAD.pack(0, after, _END))
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


async def _ask(path: Path, run_id: UUID, after: int) -> AsyncGenerator[Read, None]:
    """Iterate over the items that the peer at a socket has of a run."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            reader, writer = await asyncio.open_unix_connection(path)
    except (OSError, TimeoutError):
        return  # it has ended, or has not started yet
    try:
        writer.write(_QUESTION.pack(run_id.bytes, after))
        await writer.drain()
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                size, position, kind = _HEAD.unpack(await reader.readexactly(_HEAD.size))
                if kind == _END:
                    return
                item: Live = msgspec.msgpack.decode(await reader.readexactly(size), type=_KINDS[kind])
                yield position, item
    finally:
        writer.close()
