"""A database of version 1: how it is upgraded beside its servers, and what those find afterwards."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from database import Postgres
from jimsapi_postgres import rows, schema
from jimsapi_postgres.connections import Connector, Link
from jimsapi_postgres.schema import prepare
from jimsapi_postgres.store import PostgresStore
from jimsapi_postgres.url import parse_url

from jimsapi.runs.errors import PipelineFailed, RunTimedOut
from jimsapi.runs.result import stored_result
from jimsapi.testing.store import OTHER_OWNER, OWNER, all_events, completed, contents, look_at, make_event, make_plan
from jimsapi.threads.errors import RunNotFound, StoreUnusable
from jimsapi.threads.run import ContextLimits, Outcome, RunPlan, RunStatus

pytestmark = pytest.mark.anyio

VERSION_1 = "".join(Path(__file__).with_name(name).read_text() for name in ("jims_schema.sql", "version_1.sql"))
# What a server of version 1 asks.
ACCEPT = (
    f"SELECT verdict, id FROM jimsapi_accept_1({', '.join(f'${number}' for number in range(1, 22))}) WHERE part = 0"
)
FINISH = "SELECT counted, status, first_at FROM jimsapi_finish_1($1, $2, $3, $4, $5, $6, $7, $8) ORDER BY item"
START = "SELECT part, verdict FROM jimsapi_start_1($1, $2, $3, $4, $5, $6, $7)"
END = "SELECT counted FROM jimsapi_end_1($1, $2, $3, $4, $5)"
RECOVER = "SELECT jimsapi_recover_1($1, $2, $3)"
DELETE = "SELECT jimsapi_delete_1($1, $2, $3, $4)"
ALL_ROWS = (
    "SELECT e.ctid, e.xmin, e.* FROM thread_events e ORDER BY 1; SELECT t.ctid, t.xmin, t.* FROM threads t ORDER BY 1"
)
SILENT = "INSERT INTO jimsapi_owners VALUES ($1, '-infinity')"
WAITS_FOR_A_LOCK = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


class OldServer:
    """What a server of version 1 does, on one connection, whose statements stay prepared."""

    def __init__(self, url: str) -> None:
        self._link = Link(Connector(parse_url(url)))

    async def ask(self, query: str, *arguments: Any) -> list[Any]:
        found: list[Any] = await self._link.run(lambda connection: connection.fetch(query, *arguments))
        return found

    async def accept(self, *plans: RunPlan) -> list[str]:
        return [row[0] for row in await self.ask(ACCEPT, *rows.accept_arguments(plans)[:21])]

    async def start(self, plan: RunPlan) -> str:
        context = rows.context_arguments(ContextLimits())
        found: str = (await self.ask(START, plan.run_id, plan.owner, [], [], [], *context))[0][1]
        return found

    async def finish(self, plan: RunPlan) -> bool:
        arguments = rows.finish_arguments([(plan.run_id, plan.owner, completed(make_event(), make_event()))])[:8]
        found: bool = (await self.ask(FINISH, *arguments))[0][0]
        return found

    async def fail(self, plan: RunPlan, error: Exception) -> bool:
        outcome = Outcome(RunStatus.FAILED, (), str(error))
        found: bool = (await self.ask(FINISH, *rows.finish_arguments([(plan.run_id, plan.owner, outcome)])[:8]))[0][0]
        return found

    async def delete(self, thread_id: UUID | None, contact_id: str | None) -> list[UUID] | None:
        found = (await self.ask(DELETE, thread_id, contact_id, None, [OWNER]))[0][0]
        return None if found is None else [rows.as_uuid(run_id) for run_id in found]

    async def close(self) -> None:
        await self._link.close()


@pytest.fixture
async def old(postgres: Postgres, database: str, url: str) -> AsyncIterator[OldServer]:
    postgres.psql(VERSION_1, database)
    server = OldServer(url)
    yield server
    await server.close()


async def test_an_upgrade_leaves_runs_and_rows_and_the_servers_that_are_at_work(
    old: OldServer, postgres: Postgres, database: str, url: str
) -> None:
    running, waiting, ended = make_plan("ann", "one"), make_plan("ann", "two"), make_plan("bob")
    for plan in (running, waiting, ended):
        await old.accept(plan)
    assert await old.finish(ended)
    before = postgres.psql(ALL_ROWS, database)
    assert await prepare(parse_url(url), wait=10) == 1
    assert postgres.psql(ALL_ROWS, database) == before
    assert postgres.psql("SELECT version, serves_from FROM jimsapi_schema", database) == "9|1"

    async with PostgresStore(url) as store:
        found = [await store.run(plan.run_id, None, None) for plan in (running, waiting, ended)]
        assert [run.status for run in found] == [RunStatus.RUNNING, RunStatus.QUEUED, RunStatus.COMPLETED]
        assert [(run.streamed, run.events) for run in found] == [(None, [])] * 3  # nobody noted what it sent
        assert await old.start(waiting) == "waits"
        assert await old.finish(running)
        assert not await old.finish(running)
        assert await old.start(waiting) == "started"
        assert await old.start(waiting) == "known"
        assert await old.finish(waiting)
        assert await old.accept(running, make_plan("cid"), make_plan("dan")) == ["known", "created", "created"]
        shown = await store.run(running.run_id, None, None)
        assert (shown.streamed, len(shown.events)) == (None, 2)
        thread_id = shown.thread_id
        assert await contents(store, thread_id) == ["one", "Hi", "Hi", "two", "Hi", "Hi"]
        # Both kinds of server work in one thread.
        mine, theirs = make_plan("ann", "three"), make_plan("ann", "four")
        assert (await store.accept(mine)).status is RunStatus.RUNNING
        assert await old.accept(theirs) == ["queued"]
        assert (await store.finish(mine.run_id, OWNER, completed())).next_run == theirs.run_id
        assert await old.start(theirs) == "started"
        assert [row[0] for row in await old.ask(END, [theirs.run_id], None, "cancelled", "cancelled", [])] == [True]
        again = make_plan("ann")
        assert await old.accept(again) == ["running"]
        assert await old.delete(thread_id, None) == [again.run_id]
        assert await old.delete(thread_id, None) is None
        assert await old.delete(None, "bob") == []
        assert await old.delete(None, "nobody") == []
        for run_id in (again.run_id, ended.run_id):
            with pytest.raises(RunNotFound):
                await store.run(run_id, None, None)


async def test_failures_of_old_servers_before_and_after_an_upgrade_are_told_from_their_text(
    old: OldServer, url: str
) -> None:
    before, late = ([make_plan(f"{name} {number}") for number in range(2)] for name in ("before", "late"))
    await old.accept(*before, *late)
    errors = [PipelineFailed(ValueError("no")), RunTimedOut(30)]
    for plan, error in zip(before, errors, strict=True):
        assert await old.fail(plan, error)
    async with PostgresStore(url) as store:
        for plan, error in zip(late, errors, strict=True):
            assert await old.fail(plan, error)
        for plans in (before, late):
            for plan, error in zip(plans, errors, strict=True):
                found = await store.run(plan.run_id, None, None)
                answer = stored_result(found)
                assert (found.failure, type(answer), str(answer)) == (None, type(error), str(error))


async def test_old_servers_leave_nothing_of_a_dead_new_one_open(old: OldServer, url: str) -> None:
    async with PostgresStore(url) as store:
        first, second = [make_plan(text=text, owner=OTHER_OWNER, background=True) for text in ("one", "two")]
        for plan in (first, second):
            thread_id = (await store.accept(plan)).thread.thread_id
        await old.ask(SILENT, OTHER_OWNER)
        assert (await old.ask(RECOVER, OWNER, timedelta(seconds=20), 1000))[0][0] == 2
        assert (await look_at(store, second.run_id)).status is RunStatus.INTERRUPTED
        assert await contents(store, thread_id) == ["one", "two"]
        assert len(await all_events(store, thread_id)) == 3


async def test_an_upgrade_waits_for_long_transactions_and_nobody_for_the_upgrade(old: OldServer, url: str) -> None:
    reader, probe = await asyncpg.connect(url), await asyncpg.connect(url)
    async with reader.transaction():
        await reader.execute("SELECT count(*) FROM jimsapi_runs")  # as a backup, it goes on for long
        upgrade = asyncio.ensure_future(prepare(parse_url(url), wait=30))
        for _ in range(2):  # while it waits for the lock, and while it has given up for a moment
            while not await probe.fetchval(WAITS_FOR_A_LOCK):
                await asyncio.sleep(0.01)
            async with asyncio.timeout(30):
                assert await old.accept(make_plan(str(uuid4()))) == ["created"]
            while await probe.fetchval(WAITS_FOR_A_LOCK):
                await asyncio.sleep(0.01)
        assert not upgrade.done()
    assert await upgrade == 1
    await reader.close()
    await probe.close()


async def test_a_large_database_of_version_1_is_left_to_the_command(old: OldServer, url: str) -> None:
    await old.accept(make_plan())
    with pytest.raises(StoreUnusable, match="jimsapi db upgrade"):
        await prepare(parse_url(url), wait=10, large=1)
    assert await prepare(parse_url(url), wait=10, large=None) == 1
    assert await prepare(parse_url(url), wait=10, large=1) == len(schema.MIGRATIONS)


async def test_half_an_upgrade_serves_no_old_server_and_is_gone_on_with(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut_off(connection: Any) -> None:
        raise ConnectionError

    known = schema.MIGRATIONS
    monkeypatch.setattr(schema, "MIGRATIONS", (known[0], cut_off))
    with pytest.raises(StoreUnusable):
        await prepare(parse_url(url), wait=0)
    monkeypatch.setattr(schema, "MIGRATIONS", known[:1])
    with pytest.raises(StoreUnusable, match="newer jimsapi-postgres"):
        await prepare(parse_url(url), wait=0)
    monkeypatch.setattr(schema, "MIGRATIONS", known)
    assert await prepare(parse_url(url), wait=10) == 1
    async with PostgresStore(url) as store:
        await store.accept(make_plan())
