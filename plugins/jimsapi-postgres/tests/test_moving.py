"""`jimsapi store` with PostgreSQL: copies to SQLite and back, faults, statistics, vacuum, and upgrades."""

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import orjson
import pytest
from database import Postgres
from jimsapi_postgres.schema import SCHEMA_VERSION, TABLES
from jimsapi_postgres.store import PostgresStore

from jimsapi.stores.sqlite import SQLiteStore
from jimsapi.testing.store import OTHER_OWNER, make_plan
from jimsapi.testing.store.transfers import MOMENT, ended_run, foreign_thread, use, whole_thread
from jimsapi.threads.ids import uuid7
from jimsapi.threads.transfer import ThreadRefused, WholeEvent, WholeThread
from tests.command import python_path, refusal, run_command
from tests.docs.snippets import blocks
from tests.serving import Served

pytestmark = pytest.mark.anyio

PLUGIN = Path(__file__).parents[1]
VEDANA = Path(__file__).with_name("vedana.sql").read_text()
OF_JIMS = ("threads", "thread_events")
EACH_ROW = "SELECT '{table}', r.ctid, r.xmin, replace(r::text, chr(10), ' ') FROM {table} r ORDER BY r.ctid"


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command("store", *arguments, cwd=folder, path=PLUGIN, env={"PYTHONUTF8": "1"})


def printed(folder: Path, *arguments: str) -> str:
    ran = command(folder, *arguments)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def digest(text: str) -> str:
    """The digest of both stores of a copy that is equal."""
    [found, other] = re.findall(r"\b[0-9a-f]{32}\b", text)
    assert found == other
    assert text.endswith("The stores are equal.\n")
    return str(found)


def each_row(postgres: Postgres, database: str) -> list[str]:
    return [line for table in OF_JIMS for line in postgres.psql(EACH_ROW.format(table=table), database).splitlines()]


@pytest.fixture
def second(postgres: Postgres) -> Iterator[str]:
    """The URL of another empty database."""
    with postgres.database() as name:
        yield postgres.url(name)


async def fill(url: str) -> None:
    async with PostgresStore(url) as store:
        await use(store)
        await store.import_threads([foreign_thread(), whole_thread()])


async def test_a_copy_to_sqlite_and_back_is_equal(url: str, second: str, tmp_path: Path) -> None:
    await fill(url)
    there = digest(printed(tmp_path, "copy", url, "sqlite:///jims.db"))
    assert digest(printed(tmp_path, "copy", "sqlite:///jims.db", second)) == there
    assert digest(printed(tmp_path, "copy", url, second)) == there


MANY = 100_000


async def test_a_copy_of_100_000_threads_there_and_back_is_equal(url: str, second: str, tmp_path: Path) -> None:
    samples = [foreign_thread(), whole_thread(), whole_thread(contact_id="ann"), whole_thread(events=[])]
    async with PostgresStore(url) as store:
        await use(store)
        for _ in range(0, MANY, 1000):
            await store.import_threads([_another(samples[number % 4]) for number in range(1000)])
    there = digest(copied(tmp_path, url, "sqlite:///jims.db"))
    assert digest(copied(tmp_path, "sqlite:///jims.db", second)) == there
    found = orjson.loads(printed(tmp_path, "stats", second, "--json"))
    assert found["threads"] == MANY + 3


def _another(thread: WholeThread) -> WholeThread:
    """Return the same thread with other identifiers of the thread and its runs, which are unique in a store."""
    runs = [msgspec.structs.replace(run, run_id=uuid7()) for run in thread.runs]
    return msgspec.structs.replace(thread, thread_id=uuid7(), runs=runs)


def copied(folder: Path, source: str, target: str) -> str:
    """Copy a large store, and return what the command printed."""
    ran = subprocess.run(
        [sys.executable, "-m", "jimsapi", "store", "copy", source, target],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": python_path(PLUGIN)},
        capture_output=True,
        text=True,
        timeout=1800,
        check=True,
    )
    return ran.stdout


def test_a_database_of_vedana_is_copied_with_no_row_changed(
    postgres: Postgres, database: str, url: str, second: str, tmp_path: Path
) -> None:
    postgres.psql(f"ALTER DATABASE {database} SET timezone = 'America/New_York'")
    postgres.psql(VEDANA, database)
    before = each_row(postgres, database)
    there = digest(printed(tmp_path, "copy", url, "sqlite:///jims.db"))
    assert each_row(postgres, database) == before
    assert digest(printed(tmp_path, "copy", "sqlite:///jims.db", second)) == there
    columns = "thread_id, contact_id, external_id, created_at, thread_config"
    query = f"SELECT {columns} FROM threads ORDER BY thread_id; SELECT * FROM thread_events ORDER BY 1, 2"
    assert postgres.psql(query, second.rpartition("/")[2]) == postgres.psql(query, database)


def test_a_database_of_vedana_is_upgraded_with_no_row_changed(
    postgres: Postgres, database: str, url: str, tmp_path: Path
) -> None:
    postgres.psql(VEDANA, database)
    rows, dump = each_row(postgres, database), postgres.dump(database)
    for name in ("check", "stats", "vacuum"):
        assert "needs 10; upgrade them with `jimsapi store migrate`" in refusal(command(tmp_path, name, url))
    listed = printed(tmp_path, "migrate", url, "--dry-run")
    assert (each_row(postgres, database), postgres.dump(database)) == (rows, dump)
    assert "version 10: CREATE TABLE IF NOT EXISTS jimsapi_runs\n" in listed
    assert "version 10: CREATE INDEX CONCURRENTLY jimsapi_events_order ON thread_events" in listed
    assert "ix_threads_contact_id" not in listed
    assert "version 10: CREATE OR REPLACE FUNCTION jimsapi_context\n" in listed
    assert listed.endswith(f"would be upgraded from version 0 to {SCHEMA_VERSION}\n")
    upgraded = command(tmp_path, "migrate", url)
    assert f"upgraded from version 0 to {SCHEMA_VERSION}" in upgraded.stdout
    assert f"upgrading the schema to version {SCHEMA_VERSION}" in upgraded.stderr
    assert each_row(postgres, database) == rows
    assert printed(tmp_path, "migrate", url).endswith("there is nothing to do\n")
    assert "no faults found" in printed(tmp_path, "check", url)


async def test_a_copy_goes_on_after_a_kill(url: str, tmp_path: Path) -> None:
    threads = [whole_thread(contact_id=f"contact {number}") for number in range(20_000)]
    async with SQLiteStore(tmp_path / "jims.db", durability="relaxed") as store:
        await use(store)
        await store.import_threads(threads)
    with subprocess.Popen(
        [sys.executable, "-m", "jimsapi", "store", "copy", "sqlite:///jims.db", url],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": python_path(PLUGIN)},
    ) as copying:
        async with PostgresStore(url) as store:
            while not await store.count_threads():
                await asyncio.sleep(0.01)
            copying.send_signal(signal.SIGKILL)
            copying.wait()
            assert 0 < await store.count_threads() < 20_003
    first = digest(printed(tmp_path, "copy", "sqlite:///jims.db", url))
    assert digest(printed(tmp_path, "copy", "sqlite:///jims.db", url)) == first


async def test_a_store_that_a_server_serves_is_not_copied(
    url: str, tmp_path: Path, server: Callable[..., Served]
) -> None:
    with server(url) as served:
        with served.client() as client:
            assert client.post("/api/v1/chat", json={"contact_id": "ann", "message": "count"}).status_code == 200
        for arguments in ((url, "sqlite:///jims.db"), ("sqlite:///jims.db", url)):
            async with SQLiteStore(tmp_path / "jims.db"):
                pass
            assert "is in use, or was a moment ago (servers: 1): stop" in refusal(command(tmp_path, "copy", *arguments))
        assert "no faults found" in printed(tmp_path, "check", url)
        assert "bytes after" in printed(tmp_path, "vacuum", url)
        assert orjson.loads(printed(tmp_path, "stats", url, "--json"))["runs"] == {"completed": 1}
        assert served.stop() == 0


async def test_open_runs_of_a_dead_server_are_refused(url: str, tmp_path: Path) -> None:
    async with PostgresStore(url) as store:
        await store.accept(make_plan(owner=OTHER_OWNER))
    assert "has open runs, which a killed server left (1)" in refusal(
        command(tmp_path, "copy", url, "sqlite:///jims.db")
    )


async def test_a_thread_that_postgresql_cannot_store_is_named(url: str) -> None:
    bad = [
        whole_thread(events=[WholeEvent(uuid7(), MOMENT, "rag.step", None, None, b'{"score": NaN}')]),
        whole_thread(thread_config=b'{"text": "\\u0000"}'),
        whole_thread(contact_id="a\0b"),
        whole_thread(events=[WholeEvent(uuid7(), MOMENT, "x" * 256, None, None, None)]),
        whole_thread(runs=[ended_run(error="\0")]),
    ]
    async with PostgresStore(url) as store:
        for thread in bad:
            good = whole_thread()
            with pytest.raises(ThreadRefused, match=f"the thread {thread.thread_id} cannot be stored: PostgreSQL: "):
                await store.import_threads([good, thread])
            assert await store.export_by_id([thread.thread_id]) == []
            assert len(await store.export_by_id([good.thread_id])) == 1


async def test_statistics_count_everything(url: str, tmp_path: Path) -> None:
    await fill(url)
    found = orjson.loads(printed(tmp_path, "stats", url, "--json"))
    assert (found["schema"], found["threads"], found["events"], found["contacts"]) == (SCHEMA_VERSION, 5, 19, 3)
    assert found["runs"] == {"cancelled": 1, "completed": 2, "failed": 3}
    assert set(found["tables"]) == set(TABLES)
    assert found["size"] == sum(found["tables"].values())
    assert (found["outbox"], found["dead_letters"], found["webhooks"], found["sinks"]) == (0, 0, 1, {})
    assert found["subscriptions"] == 2


FAULTS = {
    "UPDATE jimsapi_runs SET finished_at = NULL WHERE status = 'cancelled'": "runs with a status that does not fit",
    "DELETE FROM threads WHERE contact_id IS NULL": "missing threads of which there are events: 1, for example",
    "UPDATE jimsapi_runs SET thread_id = gen_random_uuid() WHERE status = 'cancelled'": "runs without a thread: 1,",
    "UPDATE jimsapi_threads SET thread_id = gen_random_uuid()": "titles or metadata without a thread: 3,",
    "UPDATE jimsapi_feedback SET event_id = gen_random_uuid()": "ratings without an event: 3,",
    "UPDATE jimsapi_thread_usage SET thread_id = gen_random_uuid()": "totals of usage without a thread: 3,",
    """
    INSERT INTO jimsapi_dead_letters (sink, thread_id, event_id, reason, failed_at)
    VALUES ('s', gen_random_uuid(), gen_random_uuid(), 'no', now())
    """: "dead letters without an event: 1, for example 1",
    """
    INSERT INTO jimsapi_outbox (thread_id, event_id) SELECT thread_id, gen_random_uuid() FROM threads LIMIT 1
    """: "rows of the outbox with a thread and without an event: 1,",
    "DROP INDEX jimsapi_runs_running; UPDATE jimsapi_runs SET status = 'running', finished_at = NULL": (
        "threads with two running runs: 2,"
    ),
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'jimsapi_events_order'::regclass": (
        "indexes that are not valid: 1, for example jimsapi_events_order"
    ),
    "UPDATE jimsapi_subscriptions SET thread_id = gen_random_uuid()": "another thread than that of their run: 2,",
}


@pytest.mark.parametrize("statement", FAULTS)
async def test_faults_are_found(postgres: Postgres, database: str, url: str, tmp_path: Path, statement: str) -> None:
    await fill(url)
    assert "no faults found" in printed(tmp_path, "check", url)
    postgres.psql(statement, database)
    ran = command(tmp_path, "check", url)
    assert ran.returncode == 1
    assert FAULTS[statement] in ran.stdout
    assert ran.stdout.count("\n") == 1
    assert "has 1 fault; docs/moving.md" in ran.stderr


async def test_a_role_that_may_not_vacuum_is_told(postgres: Postgres, database: str, url: str, tmp_path: Path) -> None:
    await fill(url)
    postgres.psql("CREATE ROLE reader LOGIN", database)
    try:
        postgres.psql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader", database)
        line = refusal(command(tmp_path, "vacuum", postgres.url(database, "reader")))
        assert "run the command with the role that owns the tables" in line
    finally:
        postgres.psql("DROP OWNED BY reader; DROP ROLE reader", database)


PAGE = "docs/moving.md"
COPY, CHECK, STATS, VACUUM, MIGRATE = blocks(PAGE, "sh")
[OUTPUT] = blocks(PAGE, "text")


async def test_the_commands_of_the_page_print_what_it_shows(url: str, tmp_path: Path) -> None:
    async with SQLiteStore(tmp_path / "jims.db", durability="relaxed") as store:
        await use(store)
    script = COPY.replace("postgresql://chat@db.example.org/chat", url)
    shown = printed(tmp_path, *shlex.split(script)[2:])
    assert re.sub(r"[0-9a-f]{32}|\d+", "N", shown).split()[4:] == re.sub(r"[0-9a-f]{32}|\d+", "N", OUTPUT).split()[4:]
    for block, found in (
        (CHECK, "no faults found"),
        (STATS, '"threads":3'),
        (VACUUM, "bytes after"),
        (MIGRATE, "nothing"),
    ):
        for line in block.splitlines():
            assert found in printed(tmp_path, *shlex.split(line)[2:])
            assert found in printed(tmp_path, *shlex.split(line.replace("sqlite:///jims.db", url))[2:])


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    url = "postgresql://me:s3cret@127.0.0.1:1/chat"
    for name in ("check", "stats", "vacuum", "migrate"):
        line = refusal(command(tmp_path, name, url))
        assert "s3cret" not in line
        assert "postgresql://127.0.0.1:1/chat" in line
