"""Stores of plugins for an earlier version of jimsapi, which know nothing of titles and archives."""

from typing import cast

import pytest

from jimsapi.runs.identity import PUBLIC
from jimsapi.runs.threads import ThreadService
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import StoreUnavailable
from jimsapi.threads.facts import NO_SUMMARY
from jimsapi.threads.run import ThreadPage
from jimsapi.threads.store import ThreadStore
from tests.apps.scripted import Scripted
from tests.runs.serving import inbound, serving

pytestmark = pytest.mark.anyio


class EarlierStore(MemoryStore):
    """A store without `create` and `summaries`, and without a choice between archived threads and others."""

    create = property()  # reading it raises AttributeError
    summaries = property()

    async def threads(self, contact_id: str, limit: int, after: str | None) -> ThreadPage:  # type: ignore[override]
        return await super().threads(contact_id, limit, after)


async def test_threads_of_an_earlier_store_are_listed_without_titles() -> None:
    async with serving(Scripted(), cast(ThreadStore, EarlierStore())) as service:
        message = inbound("hi")
        result = await service.chat(message, PUBLIC)
        threads = ThreadService(service)
        page = await threads.threads(PUBLIC.identity, message.contact_id, 10, None)
        assert [thread.thread_id for thread in page.threads] == [result.thread_id]
        assert await threads.summaries(page.threads) == [NO_SUMMARY]


async def test_an_earlier_store_creates_no_threads_without_runs() -> None:
    async with serving(Scripted(), cast(ThreadStore, EarlierStore())) as service:
        with pytest.raises(StoreUnavailable, match="for an earlier version"):
            await service.create_thread("ann", PUBLIC)
