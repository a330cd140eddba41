"""A database of version 3: how the kinds of failures get into it beside servers of that version."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from database import Postgres
from jimsapi_postgres import rows
from jimsapi_postgres.connections import Connector, Link
from jimsapi_postgres.schema import prepare
from jimsapi_postgres.store import PostgresStore
from jimsapi_postgres.url import parse_url

from jimsapi.runs.errors import PipelineFailed, RunTimedOut
from jimsapi.runs.result import failure_of, stored_result
from jimsapi.testing.store import OTHER_OWNER, OWNER, completed, contents, make_event, make_plan
from jimsapi.threads.run import FailureKind, Outcome, RunPlan, RunStatus
from jimsapi.threads.store import ThreadStore

pytestmark = pytest.mark.anyio

VERSION_3 = Path(__file__).with_name("version_3.sql").read_text()
# What a server of version 3 asks where a newer one asks something else.
ACCEPT = f"SELECT item FROM jimsapi_accept_2({', '.join(f'${number}' for number in range(1, 25))})"
FINISH = f"""
    SELECT counted, status, next_run, first_at, taken
    FROM jimsapi_finish_2({", ".join(f"${number}" for number in range(1, 11))})
    ORDER BY item
"""
ACCEPT_AND_FINISH = f"""
    SELECT NULL::boolean, verdict, id, NULL::timestamp, NULL::uuid[], data, first_at
    FROM jimsapi_accept_alike_3({", ".join(f"${number}" for number in range(1, 17))})
    UNION ALL
    SELECT counted, status, next_run, first_at, taken, NULL, NULL
    FROM jimsapi_finish_2({", ".join(f"${number}" for number in range(17, 27))})
"""
FAILURE = "SELECT status, error FROM jimsapi_runs WHERE run_id = $1"

BY_PIPELINE = PipelineFailed(ValueError("no"))
TOO_LONG = RunTimedOut(30)


class OldServer:
    """What a server of version 3 does, on one connection, whose statements stay prepared."""

    def __init__(self, url: str) -> None:
        self._link = Link(Connector(parse_url(url)))

    async def ask(self, query: str, *arguments: Any) -> list[Any]:
        found: list[Any] = await self._link.run(lambda connection: connection.fetch(query, *arguments))
        return found

    async def accept(self, *plans: RunPlan) -> None:
        await self.ask(ACCEPT, *rows.accept_arguments(plans)[:24])

    async def finish(self, *ends: tuple[RunPlan, Outcome]) -> None:
        finishing = [(plan.run_id, plan.owner, outcome) for plan, outcome in ends]
        found = await self.ask(FINISH, *rows.finish_arguments(finishing)[:10])
        assert [row[0] for row in found] == [True] * len(ends)

    async def close(self) -> None:
        await self._link.close()


@pytest.fixture
async def old(postgres: Postgres, database: str, url: str) -> AsyncIterator[OldServer]:
    await prepare(parse_url(url), wait=10)
    postgres.psql(VERSION_3, database)
    server = OldServer(url)
    yield server
    await server.close()


def failed(error: Exception) -> Outcome:
    """The end of a failed run as a server of version 3 knows it."""
    return Outcome(RunStatus.FAILED, (), str(error))


async def expect(store: ThreadStore, plan: RunPlan, kind: FailureKind | None, error: Exception) -> None:
    """Whether a run has this kind in the store, and ended with this error for whoever reads it."""
    found = await store.run(plan.run_id, None, None)
    answer = stored_result(found)
    assert found.failure is kind
    assert (type(answer), str(answer)) == (type(error), str(error))


async def test_failures_of_older_servers_before_and_after_an_upgrade_are_told_from_their_text(
    old: OldServer, postgres: Postgres, database: str, url: str
) -> None:
    before, late = ([make_plan(f"{name} {number}") for number in range(3)] for name in ("before", "late"))
    await old.accept(*before, *late)
    await old.finish((before[0], failed(BY_PIPELINE)), (before[1], failed(TOO_LONG)), (before[2], completed()))
    stored = postgres.psql("SELECT ctid, xmin, * FROM jimsapi_runs ORDER BY run_id", database)
    assert await prepare(parse_url(url), wait=10) == 3
    assert postgres.psql("SELECT version, serves_from FROM jimsapi_schema", database) == "9|1"
    after = postgres.psql("SELECT ctid, xmin, * FROM jimsapi_runs ORDER BY run_id", database)
    assert after == "\n".join(f"{row}|" for row in stored.splitlines())  # no row was written anew

    async with PostgresStore(url) as store:
        await old.finish(
            (late[0], failed(BY_PIPELINE)), (late[1], failed(TOO_LONG)), (late[2], completed(make_event()))
        )
        for plans in (before, late):
            await expect(store, plans[0], None, BY_PIPELINE)
            await expect(store, plans[1], None, TOO_LONG)
            completed_run = await store.run(plans[2].run_id, None, None)
            assert (completed_run.status, failure_of(completed_run)) == (RunStatus.COMPLETED, None)
        assert len((await store.run(late[2].run_id, None, None)).events) == 1


async def test_an_older_server_reads_what_a_newer_one_stores(old: OldServer, url: str) -> None:
    async with PostgresStore(url) as store:
        for error, kind in ((BY_PIPELINE, FailureKind.PIPELINE), (TOO_LONG, FailureKind.TIMEOUT)):
            plan = make_plan(kind.value)
            await store.accept(plan)
            await store.finish(plan.run_id, OWNER, Outcome(RunStatus.FAILED, (), str(error), failure=kind))
            await expect(store, plan, kind, error)
            assert [tuple(row) for row in await old.ask(FAILURE, plan.run_id)] == [("failed", str(error))]


async def test_both_kinds_of_servers_end_runs_of_one_thread(old: OldServer, url: str) -> None:
    async with PostgresStore(url) as store:
        plans = [make_plan("ann", str(number), owner=(OWNER, OTHER_OWNER)[number % 2]) for number in range(4)]
        for plan in plans:
            thread_id = (await store.accept(plan)).thread.thread_id
        for plan in plans:
            if plan is not plans[0]:
                await store.start(plan.run_id, plan.owner, (), plan.context)
            if plan.owner == OWNER:
                outcome = Outcome(RunStatus.FAILED, (), str(BY_PIPELINE), failure=FailureKind.PIPELINE)
                assert (await store.finish(plan.run_id, OWNER, outcome)).counted
            else:
                await old.finish((plan, failed(BY_PIPELINE)))
        assert await contents(store, thread_id) == ["0", "1", "2", "3"]
        for plan in plans:
            await expect(store, plan, FailureKind.PIPELINE if plan.owner == OWNER else None, BY_PIPELINE)


async def test_an_older_server_accepts_and_ends_runs_in_one_call(old: OldServer, url: str) -> None:
    running, new = [make_plan(f"running {number}") for number in range(3)], make_plan("new")
    await old.accept(*running)
    await prepare(parse_url(url), wait=10)
    finishing = [(plan.run_id, plan.owner, failed(TOO_LONG)) for plan in running]
    arguments = rows.alike_arguments([new], only_new=True)
    found = await old.ask(ACCEPT_AND_FINISH, *arguments, *rows.finish_arguments(finishing)[:10])
    assert [row[0] for row in found[-3:]] == [True] * 3
    async with PostgresStore(url) as store:
        assert (await store.run(new.run_id, None, None)).status is RunStatus.RUNNING
        for plan in running:
            await expect(store, plan, None, TOO_LONG)
