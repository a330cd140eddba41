"""The index of searches in PostgreSQL: what writes to it and when, and events of other JIMS programs."""

import asyncio
import threading
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from jimsapi_postgres import search
from jimsapi_postgres.store import PostgresStore

from jimsapi.testing.store import OWNER, completed, fill, make_event, make_plan
from jimsapi.testing.store.searches import found_ids, said
from jimsapi.threads.facts import ThreadChange

pytestmark = pytest.mark.anyio

EVENT = """
    INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
    VALUES ($1, $2, now() - $3::interval, 'comm.user_message', $4)
"""


async def say(outside: Any, thread_id: UUID, data: str, age: timedelta = timedelta(0)) -> None:
    """Store a message as another JIMS program does."""
    await outside.execute(EVENT, thread_id, uuid4(), age, data)


async def indexed(outside: Any) -> int:
    """Return the number of threads in the index."""
    return int(await outside.fetchval("SELECT count(*) FROM jimsapi_search_threads"))


async def test_chats_never_write_to_the_index(store: PostgresStore, outside: Any) -> None:
    for number in range(3):
        plan = make_plan(f"contact {number}", text="fox")
        thread_id = (await store.accept(plan)).thread.thread_id
        await store.finish(plan.run_id, OWNER, completed(make_event()))
        await store.change_thread(thread_id, None, ThreadChange(title="Fox"))
    assert await indexed(outside) == 0
    assert len(await found_ids(store, "fox", "contact 1")) == 1
    assert await indexed(outside) == 1


async def test_messages_of_other_programs_are_found_also_after_newer_ones(store: PostgresStore, outside: Any) -> None:
    thread_id = await fill(store, [said("ours")])
    assert await found_ids(store, "ours") == [thread_id]
    await say(outside, thread_id, '{"content": "theirs"}')
    assert await found_ids(store, "theirs") == [thread_id]
    for seconds in (1, 10, 30, 50):
        await say(outside, thread_id, f'{{"content": "late{seconds}"}}', timedelta(seconds=seconds))
        assert await found_ids(store, f"late{seconds}") == [thread_id]
        assert await found_ids(store, "ours") == [thread_id]


async def test_a_message_that_postgresql_cannot_read_as_text_is_searched(store: PostgresStore, outside: Any) -> None:
    thread_id = await fill(store, [said("fox")])
    await say(outside, thread_id, '{"content": "bird \\u0000x \\ud800"}')
    await say(outside, thread_id, '{"content": NaN}'.replace("NaN", "5"))
    assert await found_ids(store, "bird x") == [thread_id]
    assert await found_ids(store, "fox") == [thread_id]


@pytest.mark.parametrize("at_once", [1, 3, 7])
async def test_long_threads_enter_the_index_in_several_transactions(
    store: PostgresStore, outside: Any, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(search, "MESSAGES_AT_ONCE", at_once)
    monkeypatch.setattr(search, "COMPARED_AT_ONCE", 2)
    monkeypatch.setattr(search, "FOUND_AT_ONCE", 2)
    threads = [await fill(store, [said(f"fox n{number}") for number in range(10)]) for _ in range(5)]
    await say(outside, threads[0], '{"content": "old fox"}', timedelta(days=1))
    for number in range(10):
        assert await found_ids(store, f"n{number}") == threads[::-1]
    assert await found_ids(store, "old") == threads[:1]
    comm = await outside.fetchval("SELECT count(*) FROM thread_events WHERE event_type LIKE 'comm.%'")
    assert await outside.fetchval("SELECT count(*) FROM jimsapi_search") == comm


async def test_several_processes_may_search_and_delete_at_once(url: str, outside: Any) -> None:
    async with PostgresStore(url) as store, PostgresStore(url) as other:
        threads = [await fill(store, [said(f"fox n{number}") for number in range(30)]) for _ in range(10)]
        searches = [found_ids(each, "fox") for each in (store, other) * 3]
        *found, _ = await asyncio.gather(*searches, other.delete_thread(threads[4], None))
        kept = [thread for thread in threads[::-1] if thread != threads[4]]
        assert all([thread for thread in one if thread != threads[4]] == kept for one in found)
        assert await found_ids(store, "fox") == kept
        assert await indexed(outside) == 9
        assert await outside.fetchval("SELECT count(DISTINCT number) FROM jimsapi_search") == 9


async def test_the_words_of_messages_are_not_computed_in_the_thread_of_the_event_loop(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()

    def words_of(text: str) -> list[str]:
        threads.add(threading.get_ident())
        return text.lower().split()

    monkeypatch.setattr(search, "words_of", words_of)
    thread_id = await fill(store, [said("fox") for _ in range(20)])
    assert await found_ids(store, "fox") == [thread_id]
    assert threads
    assert threading.get_ident() not in threads
