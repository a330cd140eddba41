"""How a database gets its tables: from nothing, from JIMS's with rows, by several at once, beside servers at work."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from database import Postgres
from jimsapi_postgres import maintenance, schema
from jimsapi_postgres.schema import FIRST_VERSION, INDEXES, SCHEMA_VERSION, Change, Index, Script, prepare
from jimsapi_postgres.store import PostgresStore
from jimsapi_postgres.url import parse_url

from jimsapi.testing.store import OWNER, completed, make_event, make_key, make_plan
from jimsapi.threads.errors import StoreUnusable
from jimsapi.threads.facts import ForkPlan, Rating, ThreadChange
from jimsapi.threads.ids import uuid7
from jimsapi.threads.maintenance import Migration
from jimsapi.threads.outbox import Refused
from jimsapi.threads.search import SearchQuery

pytestmark = pytest.mark.anyio

JIMS = Path(__file__).with_name("jims_schema.sql").read_text()
ROWS = """
    INSERT INTO threads
    SELECT gen_random_uuid(), 'contact ' || n % 7, CASE WHEN n % 3 = 0 THEN 'tg:' || n END,
        timestamp '2025-02-01 09:00:00.123456' + n * interval '1 hour', '{"lang": "\\u00e9", "n": 1.0}'
    FROM generate_series(1, 50) n;
    INSERT INTO thread_events (thread_id, event_id, event_type, event_data)
    SELECT thread_id, gen_random_uuid(), (ARRAY['comm.user_message', 'rag.step', 'state.set.mood'])[1 + n % 3],
        CASE WHEN n % 5 > 0 THEN '{"role":  "user", "content": "a", "b": 1.0}'::json END
    FROM threads, generate_series(1, 10) n;
"""
OF_JIMS = "table_name IN ('threads', 'thread_events')"
COLUMNS = f"""
    SELECT table_name, column_name, ordinal_position, column_default, is_nullable, data_type, character_maximum_length
    FROM information_schema.columns WHERE {OF_JIMS} ORDER BY 1, 3
"""
INDEXES_OF_JIMS = (
    "SELECT indexdef FROM pg_indexes WHERE indexname NOT LIKE 'jimsapi%' AND tablename NOT LIKE 'jimsapi%' ORDER BY 1"
)
CONSTRAINTS = """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conrelid IN ('threads'::regclass, 'thread_events'::regclass) ORDER BY 1, 2
"""
ALL_ROWS = (
    "SELECT t.ctid, t.xmin, t.* FROM threads t ORDER BY 1; SELECT e.ctid, e.xmin, e.* FROM thread_events e ORDER BY 1"
)
VALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE indisvalid"
WAITS_FOR_A_LOCK = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
INDEX_NAMES = {index.name for index in INDEXES}
EVERYTHING = "SELECT oid, relname FROM pg_class WHERE relname LIKE '%jimsapi%' ORDER BY 2"


async def test_an_empty_database_gets_the_tables_of_jims(postgres: Postgres, database: str, url: str) -> None:
    assert await prepare(parse_url(url), wait=0) == 0
    with postgres.database() as of_jims:
        postgres.psql(JIMS, of_jims)
        for query in (COLUMNS, INDEXES_OF_JIMS, CONSTRAINTS):
            assert postgres.psql(query, database) == postgres.psql(query, of_jims)


async def test_taking_over_changes_no_row_and_no_table(postgres: Postgres, database: str, url: str) -> None:
    postgres.psql(JIMS + ROWS, database)
    before = [postgres.psql(query, database) for query in (ALL_ROWS, COLUMNS, INDEXES_OF_JIMS, CONSTRAINTS)]
    for _ in range(2):
        async with PostgresStore(url) as store:
            await store.ping()
    assert [postgres.psql(query, database) for query in (ALL_ROWS, COLUMNS, INDEXES_OF_JIMS, CONSTRAINTS)] == before
    assert set(postgres.psql(VALID, database).split()) >= INDEX_NAMES


async def test_a_second_upgrade_does_nothing(postgres: Postgres, database: str, url: str) -> None:
    assert await prepare(parse_url(url), wait=0) == 0
    before = postgres.psql(EVERYTHING, database)
    assert await prepare(parse_url(url), wait=0) == SCHEMA_VERSION
    assert postgres.psql(EVERYTHING, database) == before


@pytest.mark.parametrize("given", ["", JIMS + ROWS], ids=["empty", "of JIMS"])
async def test_of_many_that_start_at_once_one_upgrades(postgres: Postgres, database: str, url: str, given: str) -> None:
    postgres.psql(given or "SELECT 1", database)
    found = await asyncio.gather(*[prepare(parse_url(url), wait=30) for _ in range(8)])
    assert set(found) <= {0, SCHEMA_VERSION}
    assert postgres.psql("SELECT count(*) FROM jimsapi_schema", database) == "1"
    assert set(postgres.psql(VALID, database).split()) >= INDEX_NAMES


async def test_whoever_waits_too_long_for_another_says_so(url: str) -> None:
    locker = await asyncpg.connect(url)
    await locker.execute("SELECT pg_advisory_lock($1)", schema.LOCK_KEY)
    with pytest.raises(StoreUnusable, match="another process is upgrading"):
        await prepare(parse_url(url), wait=0.1)
    await locker.close()


async def test_an_upgrade_that_was_cut_off_is_done_again(postgres: Postgres, database: str, url: str) -> None:
    postgres.psql(JIMS + ROWS, database)
    # As a cut-off build leaves it: there, and invalid.
    postgres.psql(
        "CREATE UNIQUE INDEX jimsapi_events_order ON thread_events (thread_id, created_at, event_id)", database
    )
    postgres.psql(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'jimsapi_events_order'::regclass", database
    )
    assert await prepare(parse_url(url), wait=0) == 0
    assert set(postgres.psql(VALID, database).split()) >= INDEX_NAMES
    assert "UNIQUE" not in postgres.psql(
        "SELECT indexdef FROM pg_indexes WHERE indexname = 'jimsapi_events_order'", database
    )


async def test_programs_that_are_at_work_go_on_during_an_upgrade(
    postgres: Postgres, database: str, url: str, outside: Any
) -> None:
    postgres.psql(JIMS + ROWS, database)
    writer = await asyncpg.connect(url)
    thread_id = await writer.fetchval("SELECT thread_id FROM threads LIMIT 1")
    insert = "INSERT INTO thread_events (thread_id, event_id, event_type) VALUES ($1, gen_random_uuid(), 'comm.x')"
    async with writer.transaction():
        await writer.execute(insert, thread_id)
        upgrade = asyncio.ensure_future(prepare(parse_url(url), wait=0))
        other = await asyncpg.connect(url, command_timeout=10)
        while not await other.fetchval(WAITS_FOR_A_LOCK):
            await asyncio.sleep(0.01)
        for _ in range(10):  # an index is being built, and waits for the open transaction
            await other.execute(insert, thread_id)
        assert not upgrade.done()
    await upgrade
    await other.close()
    await writer.close()
    async with PostgresStore(url) as store:
        plan = make_plan()
        await store.accept(plan)
        assert await prepare(parse_url(url), wait=0) == SCHEMA_VERSION
        await outside.execute("DELETE FROM jimsapi_schema")
        assert await prepare(parse_url(url), wait=0) == 0  # beside a server at work
        assert (await store.finish(plan.run_id, OWNER, completed(make_event()))).counted


async def test_a_newer_schema_serves_an_older_server_if_it_says_so(postgres: Postgres, database: str, url: str) -> None:
    await prepare(parse_url(url), wait=0)
    postgres.psql("UPDATE jimsapi_schema SET version = 99", database)
    async with PostgresStore(url) as store:
        await store.ping()
    postgres.psql("UPDATE jimsapi_schema SET serves_from = 98", database)
    with pytest.raises(StoreUnusable, match=r"newer jimsapi-postgres.*pip install --upgrade"):
        await PostgresStore(url).__aenter__()


async def test_a_database_of_a_commit_before_the_first_release_is_refused(
    postgres: Postgres, database: str, url: str
) -> None:
    await prepare(parse_url(url), wait=0)
    postgres.psql(f"UPDATE jimsapi_schema SET version = {FIRST_VERSION - 1}, serves_from = 1", database)
    with pytest.raises(StoreUnusable, match=r"\(schema 9\); export it with `jimsapi store copy` of that commit"):
        await PostgresStore(url).__aenter__()


def _add_version(patch: pytest.MonkeyPatch, *changes: Change) -> int:
    later = FIRST_VERSION + 1
    patch.setattr(schema, "MIGRATIONS", {**schema.MIGRATIONS, later: changes})
    for module in (schema, maintenance):
        patch.setattr(module, "SCHEMA_VERSION", later)
    return later


async def test_a_later_version_adds_its_changes_beside_servers_of_this_one(url: str, outside: Any) -> None:
    async with PostgresStore(url) as store:
        plan = make_plan()
        await store.accept(plan)
        with pytest.MonkeyPatch.context() as patch:
            later = _add_version(patch, Script("functions"), Index("jimsapi_later", "jimsapi_owners (beat_at)"))
            with pytest.raises(StoreUnusable, match=f"needs {later}; upgrade them with `jimsapi store migrate`"):
                await store.stats()
            done = await store.pending_migration()
            assert (done.found, done.newest, {change.version for change in done.changes}) == (later - 1, later, {later})
            assert done.changes[-1].statement == "CREATE INDEX CONCURRENTLY jimsapi_later ON jimsapi_owners (beat_at)"
            assert await store.migrate() == done
            assert await store.pending_migration() == Migration(later, later, [])
            assert (await store.stats()).schema == later
        assert "jimsapi_later" in [row[0] for row in await outside.fetch(VALID)]
        assert (await store.finish(plan.run_id, OWNER, completed(make_event()))).counted
    async with PostgresStore(url) as store:
        await store.ping()


async def test_an_upgrade_that_is_cut_off_leaves_the_version_as_it_was(
    url: str, outside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prepare(parse_url(url), wait=0)
    _add_version(monkeypatch, Script("functions"), Index("jimsapi_later", "jimsapi_nothing (beat_at)"))
    with pytest.raises(StoreUnusable, match="jimsapi_nothing"):
        await prepare(parse_url(url), wait=0)
    assert await outside.fetchval("SELECT version FROM jimsapi_schema") == FIRST_VERSION


async def test_a_large_database_is_left_to_the_command(postgres: Postgres, database: str, url: str) -> None:
    postgres.psql(JIMS + ROWS, database)
    with pytest.raises(StoreUnusable, match="jimsapi db upgrade"):
        await prepare(parse_url(url), wait=0, large=1)
    await prepare(parse_url(url), wait=0, large=None)
    assert await prepare(parse_url(url), wait=0, large=1) == SCHEMA_VERSION


async def test_tables_that_are_not_jimss_are_left_alone(postgres: Postgres, database: str, url: str) -> None:
    postgres.psql("CREATE TABLE threads (id int)", database)
    with pytest.raises(StoreUnusable, match="'threads' is not JIMS's"):
        await PostgresStore(url).__aenter__()
    assert postgres.psql("SELECT relname FROM pg_class WHERE relname LIKE 'jimsapi%'", database) == ""


async def test_a_database_that_cannot_hold_every_text_is_refused(postgres: Postgres) -> None:
    name = "latin"
    postgres.psql(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(StoreUnusable, match="LATIN1"):
        await PostgresStore(postgres.url(name)).__aenter__()
    postgres.psql(f"DROP DATABASE {name}")


@contextmanager
def _role(postgres: Postgres, database: str) -> Iterator[str]:
    postgres.psql("CREATE ROLE serving LOGIN")
    try:
        yield postgres.url(database, user="serving")
    finally:
        postgres.psql("DROP OWNED BY serving", database)
        postgres.psql("DROP ROLE serving")


async def test_a_role_without_the_right_to_make_tables_serves_what_another_made(
    postgres: Postgres, database: str, url: str
) -> None:
    postgres.psql(JIMS + ROWS, database)
    with _role(postgres, database) as serving:
        with pytest.raises(StoreUnusable, match=r"permission denied.*jimsapi db upgrade"):
            await PostgresStore(serving).__aenter__()
        await prepare(parse_url(url), wait=0)
        postgres.psql("GRANT SELECT ON jimsapi_schema TO serving", database)
        with pytest.raises(StoreUnusable, match=r"lacks.*INSERT on jimsapi_runs"):
            await PostgresStore(serving).__aenter__()
        postgres.psql("GRANT SELECT, INSERT, DELETE ON threads, thread_events TO serving", database)
        ours = "jimsapi_runs, jimsapi_owners, jimsapi_idempotency, jimsapi_threads, jimsapi_feedback"
        postgres.psql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {ours} TO serving", database)
        with pytest.raises(StoreUnusable, match=r"lacks.*INSERT on jimsapi_search"):
            await PostgresStore(serving).__aenter__()
        index = "jimsapi_search, jimsapi_search_threads"
        postgres.psql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {index} TO serving", database)
        usage = "jimsapi_thread_usage, jimsapi_contact_usage, jimsapi_caller_usage"
        postgres.psql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {usage} TO serving", database)
        with pytest.raises(StoreUnusable, match=r"lacks.*INSERT on jimsapi_outbox"):
            await PostgresStore(serving).__aenter__()
        outbox = "jimsapi_outbox, jimsapi_sinks, jimsapi_dead_letters, jimsapi_webhooks"
        postgres.psql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {outbox} TO serving", database)
        with pytest.raises(StoreUnusable, match=r"lacks.*INSERT on jimsapi_subscriptions"):
            await PostgresStore(serving).__aenter__()
        postgres.psql("GRANT SELECT, INSERT, UPDATE, DELETE ON jimsapi_subscriptions TO serving", database)
        async with PostgresStore(serving) as store:
            await store.outbox.register("audit")
            assert await store.outbox.hold("audit", OWNER, 60.0)
            plan = make_plan(idempotency=make_key(), webhook_url="https://example.com")
            thread_id = (await store.accept(plan)).thread.thread_id
            await store.finish(plan.run_id, OWNER, completed(make_event("model.usage")))
            await store.add_usage(uuid7(), "ann", uuid7(), [make_event("model.usage")])
            await store.heartbeat(OWNER, set())
            await store.recover(OWNER)
            await store.adopt(OWNER)
            await store.purge(timedelta(0))
            await store.fork(ForkPlan(thread_id=uuid7(), parent_id=thread_id, acting_for=None))
            await store.change_thread(thread_id, None, ThreadChange(title="Named"))
            await store.rate(thread_id, None, plan.message.event_id, Rating(1))
            found = await store.search(SearchQuery((("named",),)), plan.contact_id, 10, None)
            assert [match.thread.thread_id for match in found.matches] == [thread_id]
            batch = await store.outbox.read("audit", 1)
            assert batch.after is not None
            assert await store.outbox.advance("audit", OWNER, batch.after, [Refused(batch.events[0], "no")])
            assert await store.outbox.replay("audit") == 1
            await store.outbox.rewind("audit", datetime(2000, 1, 1, tzinfo=UTC))
            await store.outbox.take_webhooks(1, 1.0)
            await store.expire(timedelta(days=1))
            await store.delete_thread(thread_id, None)
            assert await store.outbox.remove("audit")
            await store.ping()


async def test_a_schema_of_its_own_is_used(postgres: Postgres, database: str, url: str) -> None:
    postgres.psql("CREATE SCHEMA chat; CREATE TABLE threads (id int)", database)
    for parameters in ("?search_path=chat", "?options=-csearch_path%3Dchat"):
        async with PostgresStore(url + parameters) as store:
            plan = make_plan()
            await store.accept(plan)
            await store.finish(plan.run_id, OWNER, completed(make_event()))
    assert postgres.psql("SELECT count(*) FROM chat.thread_events", database) == "5"
