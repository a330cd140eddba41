"""An event sink in many versions: one that keeps the contract, and some that each break one thing.

The tests install this module as the distribution `acme-pail`; the option `--pail-version` chooses.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from jimsapi import Event, Options, Secret, hookimpl, option
from jimsapi.runs import EventRefused

logger = logging.getLogger("acme_pail")


class Place:
    """Where events go; it may be away."""

    away = False


class PailOptions(Options, prefix="pail"):
    file: Path | None = option(help="What events are written to.")
    token: Secret | None = option(help="What the place asks for.")
    version: str = option("Sound", help="The class that is built.")


class Sound:
    """Writes the ids of events to a file, a line each."""

    name = "pail"

    def __init__(self, path: Path | None, token: Secret | None) -> None:
        self.path = path
        self.token = token
        self.slots = asyncio.Semaphore(3)

    async def __aenter__(self) -> Self:
        assert self.path is not None
        self.file = self.path.open("ab", buffering=0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.file.close()

    async def deliver(self, events: Sequence[Event]) -> None:
        async with self.slots:
            await self.reach()
            self.write(events)

    async def reach(self) -> None:
        await asyncio.sleep(0)
        if Place.away:
            raise ConnectionError("the place is away")
        await asyncio.sleep(0)

    def write(self, events: Sequence[Event]) -> None:
        self.file.write(b"".join(str(event.event_id).encode() + b"\n" for event in events))


class Nameless(Sound):
    name = ""


class AlwaysThere(Sound):
    """It is built whether it is configured or not."""


class LosesTheLast(Sound):
    def write(self, events: Sequence[Event]) -> None:
        super().write(events[:-1] if len(events) > 1 else events)


class SmallBatches(Sound):
    def write(self, events: Sequence[Event]) -> None:
        super().write(events[:100])


class NewestFirst(Sound):
    def write(self, events: Sequence[Event]) -> None:
        super().write(events[::-1])


class WritesLate(Sound):
    """Writes the first batch when it is left, after all others."""

    first: Sequence[Event] | None = None

    def write(self, events: Sequence[Event]) -> None:
        if self.first is None:
            self.first = events
        else:
            super().write(events)

    async def __aexit__(self, *_: object) -> None:
        super().write(self.first or ())
        await super().__aexit__()


class OnlyMessages(Sound):
    def write(self, events: Sequence[Event]) -> None:
        assert all(isinstance(event.event_data, dict) for event in events)
        super().write(events)


class OnlyWhatWasSaid(Sound):
    def write(self, events: Sequence[Event]) -> None:
        super().write([event for event in events if event.event_type.startswith("comm.")])


class ChangesEvents(Sound):
    def write(self, events: Sequence[Event]) -> None:
        for event in events:
            event.event_data = str(event.event_data)
        super().write(events)


class SwallowsCancellation(Sound):
    async def reach(self) -> None:
        with suppress(asyncio.CancelledError):
            await super().reach()


class LeavesTasks(Sound):
    async def reach(self) -> None:
        try:
            await super().reach()
        except asyncio.CancelledError:
            self.task = asyncio.create_task(asyncio.Event().wait(), name="forgotten task")
            raise


class LosesSlots(Sound):
    def __init__(self, path: Path | None, token: Secret | None) -> None:
        super().__init__(path, token)
        self.slots = asyncio.Semaphore(100)

    async def reach(self) -> None:
        await self.slots.acquire()
        await super().reach()
        self.slots.release()


class SilentInAnOutage(Sound):
    async def deliver(self, events: Sequence[Event]) -> None:
        with suppress(ConnectionError):
            await super().deliver(events)


class GivesUpAfterAnOutage(Sound):
    gone = False

    async def reach(self) -> None:
        self.gone = self.gone or Place.away
        if self.gone:
            raise ConnectionError("the place is away")


class Spools(Sound):
    """Keeps every batch, and sends it from a task of its own, which begins with the first batch."""

    sender: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.kept: asyncio.Queue[Sequence[Event]] = asyncio.Queue()
        return await super().__aenter__()

    async def deliver(self, events: Sequence[Event]) -> None:
        self.kept.put_nowait(list(events))
        if self.sender is None:
            self.sender = asyncio.create_task(self.send())

    async def send(self) -> None:
        while True:
            events = await self.kept.get()
            while Place.away:
                await self.meet_an_outage(events)
            self.write(events)
            self.kept.task_done()

    async def meet_an_outage(self, events: Sequence[Event]) -> None:
        await asyncio.sleep(0.001)

    async def __aexit__(self, *_: object) -> None:
        await self.kept.join()
        if self.sender is not None:
            self.sender.cancel()
        await super().__aexit__()


class SpoolsAndForgets(Spools):
    async def deliver(self, events: Sequence[Event]) -> None:
        if not Place.away:
            await super().deliver(events)


class SpoolsAndSendsLate(Spools):
    late: Sequence[Event] = ()

    async def deliver(self, events: Sequence[Event]) -> None:
        if Place.away:
            self.late = events
        else:
            await super().deliver(events)

    async def __aexit__(self, *_: object) -> None:
        await super().deliver(self.late)
        await super().__aexit__()


class Durable(Sound):
    """Writes each event before it returns, and raises in an outage."""

    durable = True


class DurableAndLate(Spools):
    """It keeps what it gets in memory, which a durable sink must not."""

    durable = True

    async def send(self) -> None:
        await asyncio.sleep(0.05)
        await super().send()


class DurableAndSilent(SilentInAnOutage):
    durable = True


class DurableAndRefuses(Durable):
    """It takes an outage for a fault of the events."""

    async def deliver(self, events: Sequence[Event]) -> None:
        try:
            await super().deliver(events)
        except ConnectionError as error:
            raise EventRefused(str(error), events) from error


class DurableAndOutOfOrder(NewestFirst):
    durable = True


class LogsWhatWasSaid(Sound):
    def write(self, events: Sequence[Event]) -> None:
        logger.debug("writing %s", events)
        super().write(events)


class ShowsTheToken(Sound):
    def __repr__(self) -> str:
        return f"<pail {self.token.reveal() if self.token else None}>"


class LeavesTheFileOpen(Sound):
    async def __aexit__(self, *_: object) -> None:
        pass


class WorksOnce(Sound):
    closed = False

    async def deliver(self, events: Sequence[Event]) -> None:
        assert not WorksOnce.closed, "it was closed"
        await super().deliver(events)

    async def __aexit__(self, *_: object) -> None:
        WorksOnce.closed = True
        await super().__aexit__()


class StartsOnce(Sound):
    started = False

    async def __aenter__(self) -> Self:
        assert not StartsOnce.started, "it runs already"
        StartsOnce.started = True
        return await super().__aenter__()


@contextmanager
def outage() -> Iterator[None]:
    Place.away = True
    try:
        yield
    finally:
        Place.away = False


@hookimpl
def jimsapi_options() -> type[Options]:
    return PailOptions


@hookimpl
def jimsapi_event_sink(settings: Any) -> Any:
    options = settings.get(PailOptions)
    version = globals()[options.version]
    return version(options.file, options.token) if options.file or version is AlwaysThere else None
