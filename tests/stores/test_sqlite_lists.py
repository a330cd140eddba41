"""The lists of runs and contacts in an SQLite database with many runs, and with those of other programs."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from jimsapi.stores.sqlite import SQLiteStore, lists
from jimsapi.stores.sqlite.schema import open_writer
from jimsapi.testing.store import OWNER, completed, make_event, make_plan
from jimsapi.threads.run import OPEN, ById, RunFilter, RunStatus
from tests.stores.databases import JIMS_SCHEMA

pytestmark = pytest.mark.anyio

MANY = 25_000
FAILED, WAITING = 3, 7
"""The numbers of the runs that did not complete, from the oldest one on."""
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
RUN = """
    INSERT INTO jimsapi_runs (
        run_id, thread_id, seq, owner, status, created_new_thread, accepted_at, message_id, continues, background
    ) VALUES (?, ?, 1, '', ?, 0, ?, '', 0, 0)
"""
DIGITS = [UUID(text) for text in ("00000000000000000000000000000042", "12345678123456781234567812345678")]
"""Identifiers that a column of JIMS has as an integer, and as a number that lost its last digits."""


def run_id(number: int) -> UUID:
    """The identifier of a run that was accepted `number` seconds after `FIRST`."""
    milliseconds = int(FIRST.timestamp() * 1000) + 1000 * number
    return UUID(int=(milliseconds << 80) | (7 << 76) | (2 << 62) | 0xF)


def status(number: int) -> RunStatus:
    return {FAILED: RunStatus.FAILED, WAITING: RunStatus.QUEUED}.get(number, RunStatus.COMPLETED)


@pytest.fixture(scope="module", params=[False, True], ids=["fresh", "analysed"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A database of a contact for each hundred runs."""
    with closing(open_writer(str(tmp_path_factory.mktemp("lists") / "large.db"), "relaxed")) as connection:
        connection.execute("BEGIN")
        threads = [(UUID(int=(number << 8) | 0xF).hex, f"c{number}") for number in range(MANY // 100)]
        connection.executemany("INSERT INTO threads VALUES (?, ?, NULL, '2026-01-01 00:00:00', '{}')", threads)
        rows = [
            (
                run_id(number).hex,
                threads[number // 100][0],
                status(number),
                f"{FIRST + timedelta(seconds=number):%Y-%m-%d %H:%M:%S.000000}",
            )
            for number in range(MANY)
        ]
        connection.executemany(RUN, rows)
        connection.execute("COMMIT")
        if request.param:
            connection.execute("ANALYZE")
        yield connection


def steps(connection: sqlite3.Connection, work: Callable[[], object]) -> int:
    """The number of SQLite's instructions, in hundreds."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    connection.set_progress_handler(tick, 100)
    try:
        work()
    finally:
        connection.set_progress_handler(None, 0)
    return count


def test_pages_end_early_and_reach_a_run_that_is_far_back(database: sqlite3.Connection) -> None:
    after: str | None = None
    pages: list[list[UUID]] = []
    while not pages or after is not None:
        page = lists.read_runs(database, None, 10, after, RunFilter((RunStatus.FAILED,)))
        pages.append([run.run_id for run in page.runs])
        after = page.next
    assert pages == [[], [], [run_id(FAILED)]]


def test_no_page_costs_more_than_the_runs_that_it_examines(database: sqlite3.Connection) -> None:
    most = steps(database, lambda: lists.read_runs(database, None, 10, None, RunFilter((RunStatus.FAILED,))))
    for only, listed in (
        (RunFilter(), 10),
        (RunFilter(OPEN), 1),
        (RunFilter(contact_id="c0"), 10),
        (RunFilter((RunStatus.QUEUED,), contact_id="c0"), 1),
        (RunFilter(thread_id=UUID(int=0xF)), 10),
        (RunFilter(accepted_from=FIRST + timedelta(days=3)), 0),
        (RunFilter(accepted_before=FIRST - timedelta(days=3)), 0),
    ):
        page = lists.read_runs(database, None, 10, None, only)
        assert len(page.runs) == listed
        assert steps(database, lambda: lists.read_runs(database, None, 10, None, only)) < most / 10  # noqa: B023
    assert steps(database, lambda: lists.read_contacts(database, None, 10, None)) < most / 10


def test_a_page_of_a_contact_with_many_long_threads_reads_only_the_newest_runs(database: sqlite3.Connection) -> None:
    every = steps(database, lambda: lists.read_runs(database, None, 10, None, RunFilter((RunStatus.FAILED,))))
    with closing(database.execute("BEGIN")):
        database.execute("UPDATE threads SET contact_id = 'of all'")
        try:
            only = RunFilter(contact_id="of all")
            page = lists.read_runs(database, None, 10, None, only)
            assert [run.run_id for run in page.runs] == [run_id(MANY - 1 - number) for number in range(10)]
            assert steps(database, lambda: lists.read_runs(database, None, 10, None, only)) < every / 5
        finally:
            database.execute("ROLLBACK")


def test_a_page_of_a_contact_with_very_many_threads_examines_no_more_than_any_other(tmp_path: Path) -> None:
    most = lists.THREADS_MERGED
    with closing(open_writer(str(tmp_path / "threads.db"), "relaxed")) as connection:
        connection.execute("BEGIN")
        rows = [(UUID(int=(number << 8) | 0xF).hex, "ann") for number in range(20 * most)]
        connection.executemany("INSERT INTO threads VALUES (?, ?, NULL, '2026-01-01 00:00:00', '{}')", rows)
        for number in range(3):
            at = f"{FIRST + timedelta(seconds=number):%Y-%m-%d %H:%M:%S.000000}"
            connection.execute(RUN, (run_id(number).hex, rows[number][0], status(number), at))
        connection.execute("COMMIT")
        page = lists.read_runs(connection, None, 10, None, RunFilter(contact_id="ann"))
        assert [run.run_id for run in page.runs] == [run_id(number) for number in (2, 1, 0)]
        assert lists.read_runs(connection, None, 10, None, RunFilter(contact_id="bob")).runs == []
        spent = steps(connection, lambda: lists.read_runs(connection, None, 10, None, RunFilter(contact_id="ann")))
        assert spent < most / 5  # hundreds of instructions: 20 a thread that is looked at


async def test_a_run_of_a_thread_that_another_program_deleted_is_not_listed(store: SQLiteStore, path: Path) -> None:
    plans = [make_plan(contact) for contact in ("ann", "bob")]
    for plan in plans:
        await store.accept(plan)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM threads WHERE contact_id = 'bob'")
    for only in (RunFilter(), RunFilter(OPEN)):
        assert [run.run_id for run in (await store.runs(None, 10, None, only)).runs] == [plans[0].run_id]
    assert [contact.contact_id for contact in (await store.contacts(None, 10, None)).contacts] == ["ann"]


async def test_threads_of_other_programs_are_counted_and_their_runs_listed(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(JIMS_SCHEMA)
        for contact_id, thread_id in (("ann", DIGITS[0]), ("ann", DIGITS[1]), (None, UUID(int=1 << 100))):
            row = (thread_id.hex, contact_id, "2026-01-01 00:00:00", "{}")
            connection.execute("INSERT INTO threads VALUES (?, ?, NULL, ?, ?)", row)
    async with SQLiteStore(path) as store:
        plans = [make_plan(selectors=(ById(thread_id),)) for thread_id in DIGITS]
        for plan in plans:
            await store.accept(plan)
            await store.finish(plan.run_id, OWNER, completed(make_event()))
        for only in (RunFilter(), RunFilter(contact_id="ann")):
            listed = (await store.runs(None, 10, None, only)).runs
            assert [run.run_id for run in listed] == [plan.run_id for plan in reversed(plans)]
        [ann] = (await store.contacts(None, 10, None)).contacts
        assert (ann.contact_id, ann.threads) == ("ann", 2)
        assert ann.active_at is not None
