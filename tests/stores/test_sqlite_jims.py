"""A database that other JIMS programs made is taken over as it is, and they go on using it beside us."""

import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from jimsapi.stores.sqlite import SQLiteStore, maintenance, schema
from jimsapi.testing.store import (
    OWNER,
    all_events,
    all_threads,
    completed,
    fill,
    make_event,
    make_plan,
)
from jimsapi.testing.store.transfers import nothing
from jimsapi.threads.copying import copy_store
from jimsapi.threads.errors import IdentifierTaken, StoreUnusable
from jimsapi.threads.event import NewEvent, decode_row
from jimsapi.threads.maintenance import Migration, SchemaChange
from jimsapi.threads.run import ByExternalId, ById, ContextLimits, Latest, New
from tests.stores.databases import JIMS_SCHEMA

pytestmark = pytest.mark.anyio

USUAL = UUID("06b0f3c5a1e27d4080001f2e3d4c5b6a")
DIGITS = UUID("00000000000000000000000000000042")
LONG_DIGITS = UUID("12345678123456781234567812345678")
EXPONENT = UUID("1234567812345678123456781234e123")
INFINITE = UUID("123456781234567812345678123e5678")
THREADS = (USUAL, DIGITS, LONG_DIGITS, EXPONENT, INFINITE)
MESSAGE = '{"role": "user", "content": "a"}'
ONE_SECOND = "2025-03-01 12:00:00"


def _event_id(number: int) -> UUID:
    return UUID(f"06b0f3c5a1e27d40800000000000{number:04x}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "vedana.db"
    connection = sqlite3.connect(path)
    connection.executescript(JIMS_SCHEMA)
    with connection:
        for day, thread_id in enumerate(THREADS, 1):
            connection.execute(
                "INSERT INTO threads VALUES (?, 'ann', ?, ?, ?)",
                (thread_id.hex, f"tg:{day}", f"2025-02-{day:02d} 09:00:00.123456", '{"lang": "\\u00e9"}'),
            )
            for number in range(12):
                _insert(connection, thread_id, _event_id(number), "comm.user_message", MESSAGE)
            _insert(connection, thread_id, UUID(int=0x77), "rag.step", "null")
            _insert(connection, thread_id, UUID("9" * 32), "rag.step", None)
        connection.execute(
            "INSERT INTO threads VALUES (?, NULL, NULL, '2025-02-01 09:00:00.000000', '{}')", (UUID(int=1 << 100).hex,)
        )
    connection.close()
    return path


def _insert(connection: sqlite3.Connection, thread_id: UUID, event_id: UUID, event_type: str, data: str | None) -> None:
    connection.execute(
        "INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data) VALUES (?, ?, ?, ?, ?)",
        (thread_id.hex, event_id.hex, ONE_SECOND, event_type, data),
    )


def _dump(path: Path) -> dict[str, Any]:
    connection = sqlite3.connect(path)
    dump = {
        "threads": connection.execute("SELECT *, typeof(thread_id) FROM threads ORDER BY rowid").fetchall(),
        "events": connection.execute(
            "SELECT *, typeof(thread_id), typeof(event_id) FROM thread_events ORDER BY rowid"
        ).fetchall(),
        # SQLite makes a table of its own for AUTOINCREMENT.
        "schema": set(
            connection.execute(
                "SELECT sql FROM sqlite_master WHERE name NOT LIKE '%jimsapi%' AND name <> 'sqlite_sequence'"
            )
        ),
    }
    connection.close()
    return dump


async def test_taking_over_changes_no_row_and_no_table(path: Path) -> None:
    before = _dump(path)
    for _ in range(2):
        async with SQLiteStore(path) as store:
            await store.ping()
    assert _dump(path) == before


async def test_an_upgrade_that_fails_leaves_the_database_as_it_was(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE jimsapi_idempotency (theirs TEXT)")
        before = list(connection.iterdump())
        with pytest.raises(StoreUnusable, match="jimsapi_idempotency"):
            await SQLiteStore(path).__aenter__()
        assert list(connection.iterdump()) == before


async def test_a_later_version_adds_its_statements_to_a_database_of_this_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SQLiteStore(path):
        pass
    before, later = _dump(path), schema.SCHEMA_VERSION + 1
    monkeypatch.setitem(schema.MIGRATIONS, later, ("CREATE TABLE jimsapi_more (n INTEGER)",))
    for module in (schema, maintenance):
        monkeypatch.setattr(module, "SCHEMA_VERSION", later)
    store = SQLiteStore(path)
    with pytest.raises(StoreUnusable, match="jimsapi store migrate"):
        await store.stats()
    expected = Migration(later - 1, later, [SchemaChange(later, "CREATE TABLE jimsapi_more (n INTEGER)")])
    assert await store.pending_migration() == await store.migrate() == expected
    assert await store.pending_migration() == Migration(later, later, [])
    assert ((await store.stats()).schema, _dump(path)) == (later, before)


async def test_a_copy_has_every_thread_and_changes_no_row_of_the_original(path: Path, tmp_path: Path) -> None:
    before = _dump(path)
    async with SQLiteStore(path) as store, SQLiteStore(tmp_path / "copy.db", durability="relaxed") as copy:
        there, copied = await copy_store(store, copy, nothing)
        assert there == copied
        assert (there.threads, there.events) == (6, 70)
        assert [thread.thread_id for thread in await all_threads(copy, "ann")] == [
            thread.thread_id for thread in await all_threads(store, "ann")
        ]
    assert _dump(path) == before


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_events_of_one_second_are_paged_without_loss(store: SQLiteStore, limit: int) -> None:
    for thread in await all_threads(store, "ann"):
        events = await all_events(store, thread.thread_id, limit)
        assert len(events) == 14
        assert len({event.event_id for event in events}) == 14
        assert {event.created_at for event in events} == {datetime.fromisoformat(ONE_SECOND).replace(tzinfo=UTC)}
        assert {event.event_id for event in events} >= {_event_id(number) for number in range(12)}


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_threads_whose_identifiers_became_numbers_are_paged_and_found(store: SQLiteStore, limit: int) -> None:
    threads = await all_threads(store, "ann", limit)
    assert len(threads) == 5
    assert threads[3].thread_id == DIGITS
    assert threads[4].thread_id == USUAL
    for thread in threads:
        assert await store.thread(thread.thread_id, "ann") == thread
        local = thread.created_at.astimezone()
        assert (local.hour, local.minute, local.microsecond) == (9, 0, 123456)
    for thread_id in THREADS:
        assert orjson.loads((await store.thread(thread_id, None)).thread_config) == {"lang": "é"}


async def test_a_threads_time_is_kept_local_and_shown_in_utc(
    path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        theirs = await store.thread(USUAL, None)
        ours = await store.thread(await fill(store, [], "bob"), None)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert theirs.created_at == datetime(2025, 2, 1, 14, 0, 0, 123456, tzinfo=UTC)
    assert abs(datetime.now(UTC) - ours.created_at) < timedelta(minutes=30)
    neighbour = sqlite3.connect(path)
    (stored,) = neighbour.execute("SELECT created_at FROM threads WHERE contact_id = 'bob'").fetchone()
    neighbour.close()
    shift = ours.created_at.replace(tzinfo=None) - datetime.fromisoformat(stored)
    assert shift in (timedelta(hours=4), timedelta(hours=5))


@pytest.mark.parametrize("thread_id", THREADS)
async def test_a_taken_over_thread_is_continued(store: SQLiteStore, thread_id: UUID) -> None:
    plan = make_plan(selectors=(ById(thread_id),))
    accepted = await store.accept(plan)
    assert accepted.snapshot is not None
    assert len(accepted.snapshot.rows) == 15
    assert not accepted.snapshot.truncated
    shown = accepted.thread.thread_id
    decoded = [decode_row(shown, row) for row in accepted.snapshot.rows]
    assert decoded[-1].event_id == plan.message.event_id
    settled = await store.finish(plan.run_id, OWNER, completed(make_event()))
    assert settled.counted
    events = await all_events(store, thread_id)
    assert len(events) == 16
    assert all(earlier.created_at <= later.created_at for earlier, later in pairwise(events))
    assert events[-2].created_at < events[-1].created_at
    assert (await store.thread(shown, None)).thread_id == shown
    assert await store.delete_thread(thread_id, None) == []
    assert len(await all_threads(store, "ann")) == 4


@pytest.mark.parametrize("limits", [ContextLimits(events=3), ContextLimits(events=2, bytes=60)])
async def test_a_context_is_cut_between_events_of_one_second(store: SQLiteStore, limits: ContextLimits) -> None:
    for thread_id in THREADS:
        plan = make_plan(selectors=(ById(thread_id),), context=limits)
        accepted = await store.accept(plan)
        await store.finish(plan.run_id, OWNER, completed())
        assert accepted.snapshot is not None
        assert accepted.snapshot.truncated
        ids = [decode_row(thread_id, row).event_id for row in accepted.snapshot.rows]
        events = [event.event_id for event in await all_events(store, thread_id)]
        assert ids == [one for one in events if one in ids]
        assert len(ids) == (6 if limits.bytes > 60 else 1)


async def test_events_of_one_second_can_be_loaded_back_to_the_first(store: SQLiteStore) -> None:
    for thread_id in THREADS:
        loaded: list[UUID] = []
        before = None
        while rows := await store.load_events(thread_id, before, 5):
            events = [decode_row(thread_id, row) for row in rows]
            loaded = [event.event_id for event in events] + loaded
            before = events[0]
        assert loaded == [event.event_id for event in await all_events(store, thread_id)]


async def test_taken_over_threads_are_selected(store: SQLiteStore) -> None:
    for selectors, expected in (((Latest(), New()), INFINITE), ((ByExternalId("tg:2"),), DIGITS)):
        plan = make_plan(selectors=selectors)
        accepted = await store.accept(plan)
        await store.finish(plan.run_id, OWNER, completed())
        assert not accepted.created_new_thread
        assert accepted.thread == await store.thread(expected, None)


async def test_a_thread_without_a_contact_is_nobodys(store: SQLiteStore) -> None:
    thread_id = UUID(int=1 << 100)
    assert (await store.thread(thread_id, None)).contact_id is None
    assert await all_threads(store, "") == []
    accepted = await store.accept(make_plan("", selectors=(ById(thread_id),)))
    assert accepted.thread.contact_id is None


@pytest.mark.parametrize("value", [5, -1, 0.1, 1.0, 1e300, 18446744073709551615, "5", None, [1], {"n": 1.0}])
async def test_data_that_is_a_bare_number_stays_what_it_is(store: SQLiteStore, value: Any) -> None:
    thread_id = await fill(store, [make_event("rag.score", value)], "bob")
    found = (await all_events(store, thread_id))[-1].event_data
    assert found is not None
    assert repr(orjson.loads(found)) == repr(value)


async def test_another_program_writes_beside_us(path: Path, store: SQLiteStore) -> None:
    plan = make_plan("bob")
    thread_id = (await store.accept(plan)).thread.thread_id
    neighbour = sqlite3.connect(path)
    with neighbour:
        neighbour.execute(
            "INSERT INTO thread_events (thread_id, event_id, event_type, event_data) VALUES (?, ?, 'comm.other', '{}')",
            (thread_id.hex, _event_id(1).hex),
        )
    neighbour.close()
    with pytest.raises(IdentifierTaken) as refused:
        await store.finish(plan.run_id, OWNER, completed(make_event(), NewEvent(_event_id(1), "x", b"{}")))
    assert refused.value.event_ids == {_event_id(1)}
    await store.finish(plan.run_id, OWNER, completed(make_event()))
    assert "comm.other" in {event.event_type for event in await all_events(store, thread_id)}


async def test_events_come_after_those_of_a_clock_that_is_ahead(path: Path, store: SQLiteStore) -> None:
    thread_id = await fill(store, [], "bob")
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).replace(tzinfo=None)
    neighbour = sqlite3.connect(path)
    with neighbour:
        neighbour.execute(
            "INSERT INTO thread_events (thread_id, event_id, created_at, event_type) VALUES (?, ?, ?, 'rag.late')",
            (thread_id.hex, _event_id(1).hex, str(tomorrow)),
        )
    plan = make_plan("bob")
    await store.accept(plan)
    await store.finish(plan.run_id, OWNER, completed(make_event()))
    assert [event.event_type for event in await all_events(store, thread_id)][-3:] == [
        "rag.late",
        "comm.user_message",
        "comm.assistant_message",
    ]


async def test_a_new_thread_is_the_latest_though_the_clock_went_back(path: Path, store: SQLiteStore) -> None:
    before = await fill(store, [], "bob")
    neighbour = sqlite3.connect(path)
    with neighbour:
        neighbour.execute("UPDATE threads SET created_at = '2999-01-01 00:00:00.000000'")
    neighbour.close()
    made = await fill(store, [], "bob")
    assert [thread.thread_id for thread in await all_threads(store, "bob")] == [made, before]
    assert (await store.accept(make_plan("bob"))).thread.thread_id == made


async def test_what_we_make_other_programs_can_read_and_write(tmp_path: Path) -> None:
    path = tmp_path / "ours.db"
    async with SQLiteStore(path) as store:
        thread_id = await fill(store, [make_event()], "ann")
    ours, theirs = sqlite3.connect(path), sqlite3.connect(":memory:")
    theirs.executescript(JIMS_SCHEMA)
    for table in ("threads", "thread_events"):
        query = f"SELECT name, \"notnull\" FROM pragma_table_info('{table}')"
        assert ours.execute(query).fetchall() == theirs.execute(query).fetchall()
    with ours:
        ours.execute(
            "INSERT INTO thread_events (thread_id, event_id, event_type, event_data) VALUES (?, ?, 'comm.x', 'null')",
            (thread_id.hex, UUID(int=5).hex),
        )
    rows = ours.execute("SELECT event_id, created_at, event_data FROM thread_events ORDER BY created_at").fetchall()
    assert all(len(event_id) == 32 for event_id, _, _ in rows)
    assert all(datetime.fromisoformat(created_at) for _, created_at, _ in rows)
    (created_at,) = ours.execute("SELECT created_at FROM threads").fetchone()
    assert datetime.strptime(created_at, "%Y-%m-%d %H:%M:%S.%f") <= datetime.now()
    ours.close()
    theirs.close()
