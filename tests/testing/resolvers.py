"""A resolver in many versions: one that keeps the contract, and some that each break one thing.

The tests install this module as the distribution `acme-desk`; the option `--desk-version` chooses.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from jimsapi import ByExternalId, Inbound, New, Options, hookimpl, option
from jimsapi.plugins import ResolverContext
from jimsapi.threads.run import Selector

logger = logging.getLogger("acme_desk")


class DeskOptions(Options, prefix="desk"):
    number: int | None = option(help="The desk whose threads these are.")
    version: str = option("Sound", help="The class that is built.")


class Sound:
    """One thread for each contact at the desk; messages of other kinds are not its own."""

    name = "desk"

    def __init__(self, number: int | None) -> None:
        self.number = number
        self.slots = asyncio.Semaphore(3)

    async def resolve(self, inbound: Inbound) -> Sequence[Selector] | None:
        if inbound.thread_id is not None or inbound.event_type != "comm.user_message":
            return None
        async with self.slots:
            await self.look_up()
        return self.selectors(inbound)

    async def look_up(self) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def selectors(self, inbound: Inbound) -> Sequence[Selector]:
        name = f"desk:{self.number}:{inbound.contact_id}"
        return [ByExternalId(name), New(external_id=name)]


class Nameless(Sound):
    name = ""


class AlwaysThere(Sound):
    """It is built whether it is configured or not."""


class GivesAnIterator(Sound):
    def selectors(self, inbound: Inbound) -> Any:
        return iter(super().selectors(inbound))


class GivesNothing(Sound):
    def selectors(self, inbound: Inbound) -> Sequence[Selector]:
        return []


class GivesNames(Sound):
    def selectors(self, inbound: Inbound) -> Any:
        return [inbound.contact_id]


class NeverNew(Sound):
    def selectors(self, inbound: Inbound) -> Sequence[Selector]:
        return super().selectors(inbound)[:1]


class ClaimsEverything(Sound):
    async def resolve(self, inbound: Inbound) -> Sequence[Selector] | None:
        return self.selectors(inbound) if inbound.thread_id is None else None


class IgnoresTheThread(Sound):
    async def resolve(self, inbound: Inbound) -> Sequence[Selector] | None:
        return self.selectors(inbound)


class OneThreadForAll(Sound):
    def selectors(self, inbound: Inbound) -> Sequence[Selector]:
        return [ByExternalId("desk"), New(external_id="desk")]


class FoldsCase(Sound):
    def selectors(self, inbound: Inbound) -> Sequence[Selector]:
        name = f"desk:{inbound.contact_id.lower()}"
        return [ByExternalId(name), New(external_id=name)]


class RemembersOnItself(Sound):
    async def resolve(self, inbound: Inbound) -> Sequence[Selector] | None:
        self.inbound = inbound
        selectors = await super().resolve(inbound)
        return None if selectors is None else self.selectors(self.inbound)


class OnlyAscii(Sound):
    def selectors(self, inbound: Inbound) -> Sequence[Selector]:
        inbound.contact_id.encode("ascii")
        return super().selectors(inbound)


class ChangesTheMessage(Sound):
    def selectors(self, inbound: Inbound) -> Sequence[Selector]:
        inbound.message = inbound.message.strip() + "!"
        return super().selectors(inbound)


class SwallowsCancellation(Sound):
    async def look_up(self) -> None:
        with suppress(asyncio.CancelledError):
            await super().look_up()


class LogsWhatWasSaid(Sound):
    def selectors(self, inbound: Inbound) -> Sequence[Selector]:
        logger.debug("resolving %s", inbound)
        return super().selectors(inbound)


class TakesContext(Sound):
    """One thread for each caller and counter, which a header names."""

    headers = ("x-counter",)

    async def resolve(  # type: ignore[override] # the second parameter is the protocol's other form
        self, inbound: Inbound, context: ResolverContext
    ) -> Sequence[Selector] | None:
        if await super().resolve(inbound) is None:
            return None
        assert await context.last_thread() is None or context.identity.subject != "caller"
        name = f"{context.identity.subject}:{context.headers.get('x-counter') or 1 / 0}:{inbound.contact_id}"
        return [ByExternalId(name), New(external_id=name)]


class LeavesATask(Sound):
    async def __aenter__(self) -> None:
        self.task = asyncio.create_task(asyncio.Event().wait())

    async def __aexit__(self, *_: object) -> None:
        pass


@hookimpl
def jimsapi_options() -> type[Options]:
    return DeskOptions


@hookimpl
def jimsapi_thread_resolver(settings: Any) -> Any:
    options = settings.get(DeskOptions)
    version = globals()[options.version]
    return version(options.number) if options.number is not None or version is AlwaysThere else None
