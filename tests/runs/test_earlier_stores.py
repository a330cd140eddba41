"""Stores of plugins for an earlier version of jimsapi, which know nothing of titles, archives and totals of usage."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import date, timedelta
from typing import Any, cast
from uuid import UUID

import pytest

from jimsapi import JimsApp, ThreadContext
from jimsapi.asgi.connection import Request
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.errors import RunCancelled
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.lists import Lists
from jimsapi.runs.lookup import Runs
from jimsapi.runs.service import RunService
from jimsapi.runs.threads import ThreadService
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import StoreLacks, StoreUnusable
from jimsapi.threads.event import EventRow, NewEvent
from jimsapi.threads.facts import NO_SUMMARY, Rating, ThreadChange
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import RunFilter, ThreadPage
from jimsapi.threads.search import ThreadFilter, parse_query
from jimsapi.threads.store import ThreadStore
from jimsapi.threads.usage import UsageHolder
from jimsapi.wire.errors import error_content
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
        with pytest.raises(StoreLacks, match="'thread_usage'"):
            await threads.thread_usage(PUBLIC.identity, run.thread_id)
        with pytest.raises(StoreLacks, match="'usage'"):
            await threads.usage(PUBLIC.identity, UsageHolder("ann"), day, day)


async def test_threads_of_an_earlier_store_are_listed_without_titles() -> None:
    async with serving(Scripted(), cast(ThreadStore, EarlierStore())) as service:
        message = inbound("hi")
        result = await service.chat(message, PUBLIC)
        threads = ThreadService(service)
        page = await threads.threads(PUBLIC.identity, message.contact_id, 10, None)
        assert [thread.thread_id for thread in page.threads] == [result.thread_id]
        assert await threads.summaries(page.threads) == [NO_SUMMARY]


class FirstStore(EarlierStore):
    """A store from before forks, titles, ratings, searches, and lists of runs and contacts."""

    create = fork = change_thread = rate = feedback = search = runs = contacts = property()


async def test_what_a_store_lacks_is_named() -> None:
    async with serving(Scripted(), cast(ThreadStore, FirstStore())) as service:
        thread_id = (await service.chat(inbound("hi"), PUBLIC)).thread_id
        threads, lists, who = ThreadService(service), Lists(service), PUBLIC.identity
        query = parse_query("hi")
        assert query is not None
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "create": lambda: service.create_thread("ann", PUBLIC),
            "fork": lambda: threads.fork(who, thread_id),
            "change_thread": lambda: threads.change(who, thread_id, ThreadChange(title="t")),
            "rate": lambda: threads.rate(who, thread_id, uuid7(), Rating(1)),
            "feedback": lambda: threads.feedback(who, thread_id),
            "search": lambda: threads.search(who, query, "ann", 10, None),
            "runs": lambda: lists.runs(PUBLIC, 10, None, RunFilter(contact_id="ann")),
            "contacts": lambda: lists.contacts(PUBLIC, 10, None, "ann"),
        }
        for name, call in calls.items():
            with pytest.raises(StoreLacks, match=rf"FirstStore.*'{name}'.*upgrade its plugin"):
                await call()


async def test_a_store_that_cannot_delete_old_threads_does_not_start_if_it_has_to() -> None:
    class Keeps(MemoryStore):
        expire = property()

    with pytest.raises(StoreUnusable, match="--expire-threads"):
        async with serving(Scripted(), cast(ThreadStore, Keeps()), limits=RunLimits(expire_threads=timedelta(days=90))):
            pass


@pytest.mark.parametrize("options", [(True,), (None, ThreadFilter(parent=UUID(int=1))), (None, ThreadFilter({"a": 1}))])
async def test_a_filter_that_a_store_lacks_is_not_ignored(options: tuple[Any, ...]) -> None:
    async with serving(Scripted(), cast(ThreadStore, EarlierStore())) as service:
        with pytest.raises(StoreLacks, match=r"EarlierStore.*'threads'"):
            await ThreadService(service).threads(PUBLIC.identity, "ann", 10, None, *options)


async def test_a_title_that_cannot_be_stored_does_not_cost_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        ctx.title = "Marsupials"
        ctx.send_message("Hello")

    store = cast(ThreadStore, FirstStore())
    async with store, RunService(JimsApp(pipeline), store, [DefaultResolver()]) as service:
        result = await service.chat(inbound("hi"), PUBLIC)
    assert [event.data for event in result.events] == [b'{"role":"assistant","content":"Hello"}']
    assert "its title is not stored: The store FirstStore does not have the method 'change_thread'" in caplog.text


def test_what_a_store_lacks_is_501() -> None:
    request = Request({"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}, None)  # type: ignore[arg-type]
    content = error_content(request, StoreLacks("OldStore", "the method 'fork'"))
    assert content.status == 501
    assert content.content["detail"].startswith("The store OldStore does not have the method 'fork'")


async def test_an_app_whose_runs_may_start_again_needs_a_store_that_can_do_that() -> None:
    async def answer(ctx: ThreadContext) -> None:
        ctx.send_message("hi")

    store = MemoryStore()
    del store.max_restarts
    with pytest.raises(StoreUnusable, match="memory: cannot start runs again, which the app needs for restarts=1"):
        await RunService(JimsApp(answer, restarts=1), store, [DefaultResolver()]).__aenter__()
    async with RunService(JimsApp(answer), store, [DefaultResolver()]) as service:
        assert (await service.chat(inbound("hi"), PUBLIC)).assistant_messages == ["hi"]
