"""The lists of runs and contacts in a database with many runs and with those of other programs, and their commands."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from jimsapi_postgres import lists
from jimsapi_postgres.schema import prepare
from jimsapi_postgres.store import PostgresStore
from jimsapi_postgres.url import parse_url

from jimsapi.testing.store import make_plan
from jimsapi.threads.run import OPEN, ListedRun, RunFilter, RunStatus
from tests.command import run_command
from tests.serving import Served

pytestmark = pytest.mark.anyio

MANY, OLDER = 25_000, 75_000
FAILED, WAITING = 3, 7
"""The numbers of the runs that did not complete, from the oldest one on."""
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
RUNS = f"""
    INSERT INTO jimsapi_runs (
        run_id, thread_id, seq, owner, status, created_new_thread, message_id, message_type, accepted_at, finished_at
    )
    SELECT
        (lpad(to_hex(1767225600000 + 1000 * n::bigint), 12, '0') || '7000800000000000000f')::uuid,
        lpad(to_hex(n / 100 + 1), 32, '0')::uuid, 1, gen_random_uuid(),
        CASE n WHEN {FAILED} THEN 'failed' WHEN {WAITING} THEN 'queued' ELSE 'completed' END, false,
        gen_random_uuid(), 'x', timestamptz '2026-01-01 00:00:00+00' + n * interval '1 second',
        CASE n WHEN {WAITING} THEN NULL ELSE now() END
    FROM generate_series(0, {MANY - 1}) n
"""
THREADS = f"""
    INSERT INTO threads
    SELECT lpad(to_hex(n + 1), 32, '0')::uuid, 'c' || n, NULL, timestamp '2026-01-01', '{{}}'
    FROM generate_series(0, {MANY // 100 - 1}) n
"""


def run_id(number: int) -> UUID:
    """The identifier of a run that was accepted `number` seconds after `FIRST`."""
    milliseconds = int(FIRST.timestamp() * 1000) + 1000 * number
    return UUID(int=(milliseconds << 80) | (7 << 76) | (8 << 60) | 0xF)


@pytest.fixture(params=["fresh", "analysed"])
async def many(request: pytest.FixtureRequest, url: str) -> AsyncIterator[Any]:
    """A connection to a database with a contact for each hundred runs."""
    await prepare(parse_url(url), wait=None)
    connection = await asyncpg.connect(url)
    await connection.execute(THREADS)
    await connection.execute(RUNS)
    if request.param == "analysed":
        await connection.execute("ANALYZE")
    yield connection
    await connection.close()


class Counting:
    """A connection that counts the pages that its queries read."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.pages = 0

    async def fetch(self, query: str, *arguments: Any) -> Any:
        explained = await self._connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}", *arguments)
        plan = json.loads(explained)[0]["Plan"]
        self.pages += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        return await self._connection.fetch(query, *arguments)

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        return (await self.fetch(query, *arguments))[0][0]


async def test_pages_end_early_and_reach_a_run_that_is_far_back(many: Any) -> None:
    after: str | None = None
    pages: list[list[UUID]] = []
    while not pages or after is not None:
        page = await lists.read_runs(None, 10, after, RunFilter((RunStatus.FAILED,)), many)
        pages.append([run.run_id for run in page.runs])
        after = page.next
    assert pages == [[], [], [run_id(FAILED)]]


async def test_a_list_that_has_an_index_reads_few_pages(many: Any) -> None:
    for only, listed in (
        (RunFilter(OPEN), 1),
        (RunFilter(contact_id="c0"), 10),
        (RunFilter((RunStatus.QUEUED,), contact_id="c0"), 1),
        (RunFilter(thread_id=UUID(int=1)), 10),
        (RunFilter(accepted_from=FIRST + timedelta(days=3)), 0),
        (RunFilter(accepted_before=FIRST - timedelta(days=3)), 0),
    ):
        connection = Counting(many)
        page = await lists.read_runs(None, 10, None, only, connection)
        assert len(page.runs) == listed
        assert connection.pages < 150, only
    connection = Counting(many)
    assert len((await lists.read_contacts(None, 10, None, connection)).contacts) == 10
    assert connection.pages < 150


async def test_a_page_of_a_thread_or_contact_with_very_many_runs_reads_no_more_than_the_runs_that_it_examines(
    many: Any,
) -> None:
    await many.execute(
        RUNS.replace("generate_series(0, ", f"generate_series({-OLDER}, ").replace(f"{MANY - 1})", "-1)")
    )
    await many.execute("UPDATE jimsapi_runs SET thread_id = $1", UUID(int=1))
    await many.execute("VACUUM jimsapi_runs")
    every = Counting(many)
    await lists.read_runs(None, 10, None, RunFilter(), every)
    for only in (RunFilter(contact_id="c0"), RunFilter(thread_id=UUID(int=1))):
        connection = Counting(many)
        page = await lists.read_runs(None, 10, None, only, connection)
        assert [run.run_id for run in page.runs] == [run_id(MANY - 1 - number) for number in range(10)]
        assert connection.pages < 2 * every.pages, only
        after: str | None = None
        found: list[ListedRun] = []
        while not found or after is not None:
            page = await lists.read_runs(None, lists.RUNS_EXAMINED, after, only, many)
            found += page.runs
            after = page.next
        assert len(found) == MANY + OLDER
    assert (await lists.read_runs(None, 10, None, RunFilter(thread_id=UUID(int=2)), many)).runs == []


async def test_what_other_programs_delete_and_add_is_listed_as_it_is(store: PostgresStore, outside: Any) -> None:
    plans = [make_plan(contact) for contact in ("ann", "bob")]
    for plan in plans:
        await store.accept(plan)
    await outside.execute("DELETE FROM threads WHERE contact_id = 'bob'")
    for contact_id in (None, "cid"):
        insert = "INSERT INTO threads VALUES (gen_random_uuid(), $1, NULL, now(), '{}')"
        await outside.execute(insert, contact_id)
    for only in (RunFilter(), RunFilter(OPEN)):
        assert [run.run_id for run in (await store.runs(None, 10, None, only)).runs] == [plans[0].run_id]
    ann, cid = (await store.contacts(None, 10, None)).contacts
    assert (ann.contact_id, ann.threads, ann.active_at is not None) == ("ann", 1, True)
    assert (cid.contact_id, cid.threads, cid.active_at) == ("cid", 1, None)


def test_commands_list_runs_beside_a_server_and_cancel_one_that_it_works_on(url: str, tmp_path: Path) -> None:
    def command(*arguments: str) -> str:
        ran = run_command(*arguments, "--store", url, cwd=tmp_path)
        assert (ran.returncode, ran.stderr) == (0, "")
        return ran.stdout

    with Served("--app", "tests.apps.scripted:app", "--store", url) as served, served.client() as client:
        message = {"contact_id": "ann", "message": "hold door"}
        run = client.post("/api/v1/runs", json=message).raise_for_status().json()
        client.post("/api/v1/chat", json={"contact_id": "bob", "message": "reached door"}).raise_for_status()
        [listed] = [json.loads(line) for line in command("runs", "list", "--json", "--status", "running").splitlines()]
        assert (listed["run_id"], listed["contact_id"]) == (run["run_id"], "ann")
        assert command("runs", "cancel", run["run_id"]).startswith(
            f"cancelled the run {run['run_id']} in postgresql://"
        )
        ended = client.get(f"/api/v1/runs/{run['run_id']}/stream").text  # the stream of a run that holds would not end
        assert "The run was cancelled" in ended
        contacts = [json.loads(line)["contact_id"] for line in command("contacts", "list", "--json").splitlines()]
        assert contacts == ["ann", "bob"]
        assert command("threads", "delete", run["thread_id"], "--yes").startswith("deleted the thread")
        assert command("contacts", "list").splitlines()[1].endswith("bob")
