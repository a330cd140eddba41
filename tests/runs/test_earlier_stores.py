"""Stores of plugins for an earlier version of jimsapi, which know nothing of titles, archives and totals of usage."""

from collections.abc import Sequence
from datetime import date
from typing import cast
from uuid import UUID

import pytest

from jimsapi.runs.errors import RunCancelled
from jimsapi.runs.identity import PUBLIC
from jimsapi.runs.lookup import Runs
from jimsapi.runs.threads import ThreadService
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.event import EventRow, NewEvent
from jimsapi.threads.facts import NO_SUMMARY
from jimsapi.threads.run import ThreadPage
from jimsapi.threads.store import ThreadStore
from jimsapi.threads.usage import UsageHolder
from tests.apps.scripted import Scripted
from tests.runs.serving import ended, inbound, serving, texts

pytestmark = pytest.mark.anyio


class EarlierStore(MemoryStore):
    """A store without `summaries`, and without a choice between archived threads and others."""

    summaries = property()  # reading it raises AttributeError

    async def threads(self, contact_id: str, limit: int, after: str | None) -> ThreadPage:  # type: ignore[override]
        return await super().threads(contact_id, limit, after)


class StoreWithoutTotals(MemoryStore):
    """A store that keeps no totals of usage, and whose `append` has no fourth parameter."""

    usage = thread_usage = add_usage = property()

    async def append(self, thread_id: UUID, acting_for: str | None, events: Sequence[NewEvent]) -> list[EventRow]:  # type: ignore[override]
        return await super().append(thread_id, acting_for, events)


async def test_usage_in_an_earlier_store_is_stored_and_has_no_totals() -> None:
    bot, day = Scripted(), date(2026, 11, 28)
    async with serving(bot, cast(ThreadStore, StoreWithoutTotals())) as service:
        await service.answer_once(inbound("use 7; send a"), PUBLIC).wait_for_answer()
        run = service.begin(inbound("use 7; hold on"), PUBLIC)
        await bot.reached["on"].wait()
        await Runs(service).cancel(PUBLIC, run.run_id)
        with pytest.raises(RunCancelled):
            await run.answer
        await ended(service)
        assert run.thread_id is not None
        assert "model.usage" in await texts(service, run.thread_id)
        threads = ThreadService(service)
        assert await threads.thread_usage(PUBLIC.identity, run.thread_id) == []
        assert await threads.usage(PUBLIC.identity, UsageHolder("ann"), day, day) == []


async def test_threads_of_an_earlier_store_are_listed_without_titles() -> None:
    async with serving(Scripted(), cast(ThreadStore, EarlierStore())) as service:
        message = inbound("hi")
        result = await service.chat(message, PUBLIC)
        threads = ThreadService(service)
        page = await threads.threads(PUBLIC.identity, message.contact_id, 10, None)
        assert [thread.thread_id for thread in page.threads] == [result.thread_id]
        assert await threads.summaries(page.threads) == [NO_SUMMARY]
