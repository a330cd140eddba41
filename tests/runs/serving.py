"""A run service for tests: over either store, with the scripted bot, its runs watched and looked at."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from jimsapi import Identity, Inbound, JimsApp
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs.admission import Admission
from jimsapi.runs.live import LiveRun
from jimsapi.runs.service import RunService
from jimsapi.runs.stream import (
    Activity,
    Delta,
    Ended,
    Gap,
    Item,
    Read,
    ReasoningDelta,
    RunStarted,
    RunStream,
    Status,
)
from jimsapi.stores.memory import MemoryStore
from jimsapi.stores.sqlite import SQLiteStore
from jimsapi.threads.event import NewEvent
from jimsapi.threads.run import StoredRun
from jimsapi.threads.store import ThreadStore
from tests.apps.scripted import Scripted

STORES = ("memory", "sqlite")


def make_store(kind: str, folder: Path) -> ThreadStore:
    """A store of one of `STORES`; one of SQLite keeps what it has in `folder`."""
    return MemoryStore() if kind == "memory" else SQLiteStore(folder / "threads.db", durability="relaxed")


@asynccontextmanager
async def serving(
    bot: Scripted, store: ThreadStore | None = None, *, name: str | None = None, adopts: bool = True, **options: Any
) -> AsyncIterator[RunService]:
    """A service of the bot, which greets new threads as they wish."""
    app = JimsApp(bot, conversation_start_pipeline=bot.greet, name=name)
    async with (
        MemoryStore() if store is None else store as opened,
        RunService(app, opened, [DefaultResolver()], **options) as service,
    ):
        if adopts:
            await service.adopt()
        yield service


def inbound(message: str = "hi", contact: str = "ann", **fields: Any) -> Inbound:
    return Inbound(contact_id=contact, message=message, **fields)


def caller(subject: str = "ann", provider: str | None = "test", **rights: Any) -> Admission:
    return Admission(Identity(subject, **rights), provider)


async def read_all(stream: RunStream, after: int = 0) -> list[Read]:
    """What follows on a position, up to the end."""
    found = []
    while (read := await stream.next(after)) is not None:
        after = read[0]
        found.append(read)
    return found


async def drained(items: AsyncIterator[Read] | None) -> list[Read]:
    """All that a reader gets."""
    assert items is not None
    return [read async for read in items]


def told(reads: Sequence[Read]) -> list[str]:
    """Items in short: `delta Hel`, `event comm.assistant_message`, `RunCancelled`."""
    return [_short(item) for _, item in reads]


def _short(item: Item) -> str:
    match item:
        case RunStarted():
            return "started"
        case Status(text, _):
            return f"status {text}"
        case Delta(_, content):
            return f"delta {content}"
        case ReasoningDelta(_, content):
            return f"reasoning {content}"
        case Activity(event):
            return f"activity {event.event_type} {event.data.decode()}"
        case Gap(missed):
            return f"gap {missed}"
        case NewEvent(_, event_type, data):
            return f"event {event_type} {data.decode()}"
        case Ended(answer):
            return type(answer).__name__


async def ended(service: RunService) -> None:
    """Wait until no run is open."""
    while service.open_runs:
        await asyncio.sleep(0)


async def taken(run: LiveRun) -> LiveRun:
    """Wait until a thread has taken a run."""
    while run.thread is None:
        await asyncio.sleep(0)
    return run


async def stored(service: RunService, run_id: UUID) -> StoredRun:
    return await service.store.run(run_id, None, None)


async def texts(service: RunService, thread_id: UUID) -> list[str]:
    """The types of a thread's events, in order, without the first, which says that it was made."""
    page = await service.store.events(thread_id, None, 1000, None)
    return [event.event_type.removeprefix("comm.") for event in page.events][1:]
