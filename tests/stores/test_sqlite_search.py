"""The index of searches in SQLite: what writes to it and when, and events of other JIMS programs."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from jimsapi.stores.sqlite import SQLiteStore, search
from jimsapi.testing.store import OWNER, completed, fill, make_event, make_plan
from jimsapi.testing.store.searches import found_ids, said
from jimsapi.threads.errors import StoreLacks
from jimsapi.threads.event import utc_now
from jimsapi.threads.facts import ThreadChange
from jimsapi.threads.ids import uuid7
from tests.stores.databases import JIMS_SCHEMA
from tests.stores.test_sqlite_jims import THREADS

pytestmark = pytest.mark.anyio

EVENT = """
    INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
    VALUES (?, ?, ?, 'comm.user_message', ?)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "threads.db"


@pytest.fixture
def outside(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's connection, whose SQLite may lack FTS5."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def say(connection: sqlite3.Connection, thread_id: UUID, text: str, age: timedelta = timedelta(0)) -> None:
    """Store a message as another JIMS program does."""
    time = (utc_now() - age).isoformat(" ", "microseconds")
    connection.execute(EVENT, (thread_id.hex, uuid7().hex, time, f'{{"role": "user", "content": "{text}"}}'))


def indexed(connection: sqlite3.Connection) -> int:
    """Return the number of threads in the index."""
    return int(connection.execute("SELECT count(*) FROM jimsapi_search_threads").fetchone()[0])


async def test_chats_never_write_to_the_index(path: Path, outside: sqlite3.Connection) -> None:
    async with SQLiteStore(path) as store:
        for number in range(3):
            plan = make_plan(f"contact {number}", text="fox")
            thread_id = (await store.accept(plan)).thread.thread_id
            await store.finish(plan.run_id, OWNER, completed(make_event()))
            await store.change_thread(thread_id, None, ThreadChange(title="Fox"))
        assert outside.execute("SELECT name FROM sqlite_schema WHERE name LIKE 'jimsapi_search%'").fetchall() == [
            ("jimsapi_search_threads",),
            ("jimsapi_search_numbers",),
        ]
        assert indexed(outside) == 0
        assert len(await found_ids(store, "fox", "contact 1")) == 1
        assert indexed(outside) == 1


async def test_the_file_has_no_words_of_deleted_messages(path: Path, outside: sqlite3.Connection) -> None:
    words = "SELECT count(*) FROM jimsapi_search_data WHERE instr(block, 'wombat')"
    async with SQLiteStore(path) as store:
        for number in range(3):
            await fill(store, [said("wombat")], contact_id=f"contact {number}")
            await found_ids(store, "wombat", f"contact {number}")
        assert outside.execute(words).fetchone()[0]
        for number in range(3):
            await store.delete_contact(f"contact {number}")
        assert outside.execute(words).fetchone()[0] == 0


async def test_messages_of_other_programs_are_found_also_after_newer_ones(
    path: Path, outside: sqlite3.Connection
) -> None:
    async with SQLiteStore(path) as store:
        thread_id = await fill(store, [said("ours")])
        assert await found_ids(store, "ours") == [thread_id]
        say(outside, thread_id, "theirs")
        assert await found_ids(store, "theirs") == [thread_id]
        for seconds in (1, 10, 30, 50):
            say(outside, thread_id, f"late{seconds}", timedelta(seconds=seconds))
            assert await found_ids(store, f"late{seconds}") == [thread_id]
            assert await found_ids(store, "ours") == [thread_id]


async def test_a_message_that_comes_later_than_a_minute_after_its_time_may_not_be_found(
    path: Path, outside: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SETTLED_AFTER", timedelta(0))
    async with SQLiteStore(path) as store:
        thread_id = await fill(store, [said("ours")])
        assert await found_ids(store, "ours") == [thread_id]
        say(outside, thread_id, "late", timedelta(seconds=30))
        assert await found_ids(store, "late") == []


@pytest.mark.parametrize("at_once", [1, 2, 3, 7])
async def test_long_threads_enter_the_index_in_several_transactions(
    path: Path, outside: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(search, "MESSAGES_AT_ONCE", at_once)
    monkeypatch.setattr(search, "COMPARED_AT_ONCE", 2)
    async with SQLiteStore(path) as store:
        threads = [await fill(store, [said(f"fox n{number}") for number in range(10)]) for _ in range(5)]
        say(outside, threads[0], "old fox", timedelta(days=1))
        for number in range(10):
            assert await found_ids(store, f"n{number}") == threads[::-1]
        assert await found_ids(store, "old") == threads[:1]
        rows = outside.execute("SELECT count(*), count(DISTINCT event_id) FROM jimsapi_search").fetchone()
        comm = outside.execute("SELECT count(*) FROM thread_events WHERE event_type LIKE 'comm.%'").fetchone()[0]
        assert rows[0] == comm


async def test_nothing_of_a_deleted_thread_stays_in_the_index(path: Path, outside: sqlite3.Connection) -> None:
    async with SQLiteStore(path) as store:
        kept, deleted = await fill(store, [said("fox")]), await fill(store, [said("fox secret")])
        await store.change_thread(deleted, None, ThreadChange(title="Secret"))
        assert await found_ids(store, "secret") == [deleted]
        await store.delete_thread(deleted, None)
        assert indexed(outside) == 1
        assert outside.execute("SELECT count(*) FROM jimsapi_search WHERE words LIKE '%secret%'").fetchone() == (0,)
        assert await store.expire(timedelta(seconds=-60)) == 0 + 1
        assert indexed(outside) == 0
        assert await found_ids(store, "fox") == []
        assert kept != deleted


async def test_threads_that_another_program_deletes_are_not_found(path: Path, outside: sqlite3.Connection) -> None:
    async with SQLiteStore(path) as store:
        first, second = await fill(store, [said("fox")]), await fill(store, [said("fox")])
        assert await found_ids(store, "fox") == [second, first]
        outside.execute("DELETE FROM thread_events WHERE thread_id = ?", (second.hex,))
        outside.execute("DELETE FROM threads WHERE thread_id = ?", (second.hex,))
        assert await found_ids(store, "fox") == [first]


async def test_tables_of_jims_are_searched_whatever_identifiers_became_in_them(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(JIMS_SCHEMA)
        for day, thread_id in enumerate(THREADS, 1):
            connection.execute(
                "INSERT INTO threads VALUES (?, 'ann', NULL, ?, '{}')", (thread_id.hex, f"2025-02-{day:02d} 09:00:00")
            )
            say(connection, thread_id, "fox", timedelta(days=day))
    async with SQLiteStore(path) as store:
        everything = [thread.thread_id for thread in (await store.threads("ann", 10, None)).threads]
        for _ in range(2):
            assert await found_ids(store, "fox") == everything


async def test_a_python_without_fts5_says_so_and_only_when_somebody_searches(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_CREATE", "CREATE VIRTUAL TABLE IF NOT EXISTS jimsapi_search USING fts99(words)")
    async with SQLiteStore(path) as store:
        thread_id = await fill(store, [said("fox")])
        with pytest.raises(StoreLacks, match="FTS5"):
            await found_ids(store, "fox")
        assert (await store.threads("ann", 10, None)).threads[0].thread_id == thread_id
        await store.delete_thread(thread_id, None)


async def test_a_message_that_is_not_json_is_left_out(path: Path, outside: sqlite3.Connection) -> None:
    async with SQLiteStore(path) as store:
        thread_id = await fill(store, [said("fox")])
        outside.execute(EVENT, (thread_id.hex, uuid7().hex, utc_now().isoformat(" "), "{fox"))
        outside.execute(
            EVENT, (thread_id.hex, uuid7().hex, utc_now().isoformat(" "), '{"content": "bird \\ud800 \\u0000x"}')
        )
        outside.execute(EVENT, (thread_id.hex, uuid7().hex, utc_now().isoformat(" "), None))
        assert await found_ids(store, "bird x") == [thread_id]
        assert await found_ids(store, "fox") == [thread_id]
