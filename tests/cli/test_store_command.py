"""`jimsapi store`: what it copies, finds, prints and changes, and when it refuses."""

import asyncio
import os
import pty
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from jimsapi.stores.sqlite import SQLiteStore
from jimsapi.testing.store import OTHER_OWNER, make_plan
from jimsapi.testing.store.transfers import all_whole, foreign_thread, use, whole_thread
from tests.command import python_path, refusal, run_command
from tests.serving import Served
from tests.stores.databases import JIMS_SCHEMA

A, B = "sqlite:///a.db", "sqlite:///b.db"
BOT = "async def app(ctx):\n    ctx.send_message('Hi')\n"


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command("store", *arguments, cwd=folder)


def printed(folder: Path, *arguments: str) -> str:
    ran = command(folder, *arguments)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


async def _fill(path: Path) -> None:
    async with SQLiteStore(path, durability="relaxed") as store:
        await use(store)
        await store.import_threads([foreign_thread(), whole_thread()])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the database `a.db`, which five threads, six runs and three ratings are in."""
    asyncio.run(_fill(tmp_path / "a.db"))
    return tmp_path


def rows(folder: Path, name: str, table: str) -> list[Any]:
    with closing(sqlite3.connect(folder / name)) as connection:
        return connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()


def change(folder: Path, *statements: str, name: str = "a.db") -> None:
    with closing(sqlite3.connect(folder / name)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_a_copy_has_the_rows_of_the_original(folder: Path) -> None:
    lines = printed(folder, "copy", A, B).splitlines()
    assert lines[0].endswith("/a.db")
    assert lines[1].endswith("/b.db")
    counts = {line.rsplit(maxsplit=2)[0]: line.split()[-2:] for line in lines[3:-1]}
    assert counts.pop("digest") == [lines[-2].split()[-1]] * 2
    assert counts == {
        "threads": ["5", "5"],
        "events": ["19", "19"],
        "runs": ["6", "6"],
        "ratings": ["3", "3"],
        "usage totals": ["7", "7"],
        "keys": ["2", "2"],
        "subscriptions": ["2", "2"],
    }
    assert lines[-1] == "The stores are equal."
    for table in (
        "threads", "thread_events", "jimsapi_feedback", "jimsapi_idempotency", "jimsapi_caller_usage",
        "jimsapi_subscriptions",
    ):  # fmt: skip
        assert rows(folder, "a.db", table) == rows(folder, "b.db", table)


def test_a_copy_that_was_killed_is_completed(folder: Path) -> None:
    asyncio.run(_copy_some(folder))
    before = rows(folder, "b.db", "threads")
    assert "The stores are equal." in printed(folder, "copy", A, B)
    assert set(before) < set(rows(folder, "b.db", "threads"))
    files = [(folder / "b.db").stat().st_size, rows(folder, "b.db", "thread_events")]
    assert "The stores are equal." in printed(folder, "copy", A, B)
    assert files == [(folder / "b.db").stat().st_size, rows(folder, "b.db", "thread_events")]


async def _copy_some(folder: Path) -> None:
    async with SQLiteStore(folder / "a.db") as store, SQLiteStore(folder / "b.db") as copy:
        await copy.import_threads((await all_whole(store))[1:3])


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE thread_events SET event_data = '{}' WHERE event_type = 'rag.number'", "content that is not equal"),
        ("UPDATE threads SET created_at = '2025-03-01 12:00:01' WHERE contact_id IS NULL", "content that is not equal"),
        ("DELETE FROM threads WHERE contact_id IS NULL", "b.db has the thread .*, which .*a.db does not have"),
        ("DELETE FROM jimsapi_caller_usage", "CallerUsage.* does not have"),
    ],
)
def test_a_target_that_has_something_else_is_refused(folder: Path, statement: str, reason: str) -> None:
    printed(folder, "copy", A, B)
    change(folder, statement)
    before = rows(folder, "b.db", "thread_events")
    assert re.search(reason, refusal(command(folder, "copy", A, B)))
    assert rows(folder, "b.db", "thread_events") == before


def test_open_runs_of_a_killed_server_are_refused_until_a_server_has_ended_them(folder: Path) -> None:
    async def leave() -> None:
        async with SQLiteStore(folder / "a.db", durability="relaxed") as store:
            await store.accept(make_plan(owner=OTHER_OWNER))
            await store.accept(make_plan(owner=OTHER_OWNER, background=True))

    asyncio.run(leave())
    assert "a.db has open runs, which a killed server left (2): start a server" in refusal(
        command(folder, "copy", A, B)
    )
    with serving(folder) as served:
        while "queued" in run_command("runs", "list", "--store", A, cwd=folder).stdout:
            pass
        assert served.stop() == 0
    assert "The stores are equal." in printed(folder, "copy", A, B)


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    (folder / "bot.py").write_text(BOT, encoding="utf-8")
    with Served("--app", "bot:app", "--store", A, folder=folder) as served:
        yield served


def test_a_store_that_a_server_uses_is_neither_copied_nor_vacuumed_nor_migrated(folder: Path) -> None:
    printed(folder, "copy", A, B)
    with serving(folder):
        for arguments in (("copy", A, "sqlite:///c.db"), ("copy", B, A)):
            assert "while a server uses it" in refusal(command(folder, *arguments))
        for name in ("vacuum", "migrate"):
            assert "not possible while a server uses the database" in refusal(command(folder, name, A))
        assert "no faults found" in printed(folder, "check", A)
        assert orjson.loads(printed(folder, "stats", A, "--json"))["threads"] == 5
        assert "nothing to do" in printed(folder, "migrate", A, "--dry-run")
    assert not (folder / "c.db").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("copy", A, A), "named twice"),
        (("copy", "sqlite:///none.db", B), "there is no database"),
        (("copy", A, "redis://me:secret@host/1"), r"redis://\*\*\*@host/1: no installed plugin keeps threads there"),
        (("check", "sqlite:///none.db"), "there is no database"),
        (("vacuum", "sqlite:///none.db"), "there is no database"),
        (("migrate", "sqlite:///none.db"), "there is no database"),
        (("stats", "memory:"), "does not have the method 'find_faults'"),
    ],
)
def test_what_is_not_possible_is_refused(folder: Path, arguments: tuple[str, ...], reason: str) -> None:
    line = refusal(command(folder, *arguments))
    assert re.search(reason, line)
    assert "secret" not in line
    assert {path.name for path in folder.iterdir()} <= {"a.db", "a.db.lock", "a.db-wal", "a.db-shm"}


def test_the_commands_take_the_store_of_the_server_if_no_url_is_given(folder: Path) -> None:
    assert "no faults found" in printed(folder, "check", "--store", A)
    ran = run_command("store", "stats", "--json", cwd=folder, env={"JIMS_STORE": A})
    assert orjson.loads(ran.stdout)["threads"] == 5


def test_the_statistics_count_everything(folder: Path) -> None:
    found = orjson.loads(printed(folder, "stats", A, "--json"))
    assert (found["schema"], found["threads"], found["events"], found["contacts"]) == (10, 5, 19, 3)
    assert found["runs"] == {"cancelled": 1, "completed": 2, "failed": 3}
    assert found["size"] == sum(
        path.stat().st_size for path in folder.glob("a.db*") if path.suffix in (".db", ".db-wal")
    )
    assert found["tables"]["thread_events"] > 0
    assert (found["outbox"], found["dead_letters"], found["webhooks"], found["sinks"]) == (0, 0, 1, {})
    assert found["subscriptions"] == 2
    shown = printed(folder, "stats", A)
    assert re.search(r"^runs failed +3$", shown, re.MULTILINE)


async def _delete_all(path: Path) -> None:
    async with SQLiteStore(path, durability="relaxed") as store:
        threads = [whole_thread(events=[], thread_config=b'{"text": "%s"}' % (b"long " * 10_000)) for _ in range(20)]
        await store.import_threads(threads)
        for thread in threads:
            await store.delete_thread(thread.thread_id, None)


def test_a_vacuum_makes_the_file_smaller(folder: Path) -> None:
    asyncio.run(_delete_all(folder / "a.db"))
    threads = rows(folder, "a.db", "threads")
    found = re.search(r"(\d+) bytes before, (\d+) bytes after", printed(folder, "vacuum", A))
    assert found is not None
    before, after = map(int, found.groups())
    assert after == (folder / "a.db").stat().st_size < before - 500_000
    assert rows(folder, "a.db", "threads") == threads


FAULTS = {
    "UPDATE jimsapi_runs SET finished_at = NULL WHERE status = 'cancelled'": "runs with a status that does not fit",
    "DELETE FROM threads WHERE contact_id IS NULL": "missing threads of which there are events: 1, for example",
    "UPDATE jimsapi_runs SET thread_id = hex(randomblob(16)) WHERE status = 'cancelled'": "runs without a thread: 1,",
    "UPDATE jimsapi_threads SET thread_id = 'f' || substr(thread_id, 2)": "titles or metadata without a thread: 3,",
    "UPDATE jimsapi_feedback SET event_id = 'f' || substr(event_id, 2)": "ratings without an event: 3,",
    "UPDATE jimsapi_thread_usage SET thread_id = 'f' || substr(thread_id, 2)": "totals of usage without a thread: 3,",
    "INSERT INTO jimsapi_dead_letters VALUES (7, 's', 'a', 'b', NULL, 'no', '2026-01-01', 0)": "dead letters without",
    "INSERT INTO jimsapi_outbox SELECT 9, thread_id, 'b', NULL, '2026' FROM threads LIMIT 1": "an event: 1, for",
    "UPDATE jimsapi_runs SET status = 'running', finished_at = NULL": "threads with two running runs: 2,",
    "UPDATE jimsapi_subscriptions SET thread_id = 'f' || substr(thread_id, 2)": "subscriptions with another thread",
}


@pytest.mark.parametrize("statement", FAULTS)
def test_faults_are_found_and_nothing_is_changed(folder: Path, statement: str) -> None:
    if "'running'" in statement:  # the index prevents that
        change(folder, "DROP INDEX jimsapi_runs_running")
    change(folder, statement)
    before = [rows(folder, "a.db", table) for table in ("threads", "thread_events", "jimsapi_runs")]
    ran = command(folder, "check", A)
    assert ran.returncode == 1
    assert re.search(r"^jimsapi: sqlite:.*/a.db has 1 fault; docs/moving.md says what to do", ran.stderr)
    assert FAULTS[statement] in ran.stdout
    assert ran.stdout.count("\n") == 1
    assert [rows(folder, "a.db", table) for table in ("threads", "thread_events", "jimsapi_runs")] == before


def test_rows_of_the_outbox_of_a_deleted_thread_are_no_fault(folder: Path) -> None:
    change(folder, "INSERT INTO jimsapi_outbox VALUES (9, 'a', 'b', NULL, '2026-01-01')")
    assert "no faults found" in printed(folder, "check", A)


def test_a_damaged_file_is_a_fault(folder: Path) -> None:
    change(folder, "PRAGMA writable_schema = ON", "DROP INDEX jimsapi_events_order")
    change(folder, "CREATE INDEX jimsapi_events_order ON thread_events (thread_id, created_at, event_id)")
    with closing(sqlite3.connect(folder / "a.db")) as connection:
        [page] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'jimsapi_events_order'").fetchone()
        [size] = connection.execute("PRAGMA page_size").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (folder / "a.db").open("r+b") as file:
        file.seek((page - 1) * size + size - 200)
        file.write(bytes(100))
    ran = command(folder, "check", A)
    assert ran.returncode == 1
    assert "the file is damaged: " in ran.stdout


def test_a_dry_run_lists_the_statements_that_upgrade_a_jims_database_and_changes_nothing(tmp_path: Path) -> None:
    _make_jims_database(tmp_path)
    before = (tmp_path / "a.db").read_bytes()
    assert "store migrate" in refusal(command(tmp_path, "stats", A))
    listed = printed(tmp_path, "migrate", A, "--dry-run").splitlines()
    assert listed[0] == "version 10: CREATE TABLE jimsapi_schema (version INTEGER NOT NULL)"
    assert "version 10: CREATE INDEX jimsapi_runs_thread ON jimsapi_runs (thread_id)" in listed
    assert listed[-1].endswith("a.db: would be upgraded from version 0 to 10")
    assert (tmp_path / "a.db").read_bytes() == before
    threads = rows(tmp_path, "a.db", "threads"), rows(tmp_path, "a.db", "thread_events")
    assert printed(tmp_path, "migrate", A).endswith("a.db: upgraded from version 0 to 10\n")
    assert (rows(tmp_path, "a.db", "threads"), rows(tmp_path, "a.db", "thread_events")) == threads
    assert printed(tmp_path, "migrate", A).endswith("there is nothing to do\n")
    assert "no faults found" in printed(tmp_path, "check", A)


def test_a_database_of_another_version_is_refused_by_each_command(folder: Path) -> None:
    for version, reason in ((9, "`jimsapi store copy` of that commit"), (11, "upgrade jimsapi")):
        change(folder, f"UPDATE jimsapi_schema SET version = {version}")
        before = (folder / "a.db").read_bytes()
        for arguments in (("check", A), ("migrate", A), ("migrate", A, "--dry-run"), ("copy", A, B)):
            assert reason in refusal(command(folder, *arguments))
        assert (folder / "a.db").read_bytes() == before


def test_a_terminal_shows_how_far_a_copy_is(folder: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "jimsapi", "store", "copy", A, B],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": python_path(folder)},
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    ) as ran:
        output, _ = ran.communicate(timeout=20)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert ran.returncode == 0
    assert "threads copied [####################] 5 of 5 (100%)" in shown
    assert "b.db" in shown
    assert shown.endswith("\r")
    assert "\r" not in output


def _make_jims_database(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "a.db")) as connection, connection:
        connection.executescript(JIMS_SCHEMA)
        for thread_id in ("0" * 31 + "7", "1234567812345678" * 2, "1" + "2" * 27 + "e123"):
            connection.execute(
                "INSERT INTO threads VALUES (?, NULL, NULL, '2025-02-01 09:00:00', '{\"n\": 1.0}')", (thread_id,)
            )
            connection.execute(
                "INSERT INTO thread_events VALUES (?, ?, '2025-02-01 12:00:00', 'rag.step', 'rag', NULL, '1.50')",
                (thread_id, "9" * 32),
            )


def test_a_jims_database_is_copied_with_its_numbers_and_times(tmp_path: Path) -> None:
    _make_jims_database(tmp_path)
    original = rows(tmp_path, "a.db", "threads"), rows(tmp_path, "a.db", "thread_events")
    assert "The stores are equal." in printed(tmp_path, "copy", A, B)
    assert (rows(tmp_path, "a.db", "threads"), rows(tmp_path, "a.db", "thread_events")) == original
    copied = rows(tmp_path, "b.db", "thread_events")
    assert {UUID(row[0]) for row in copied} >= {UUID(int=7)}
    assert [row[2:6] for row in copied] == [("2025-02-01 12:00:00.000000", "rag.step", "rag", None)] * 3
    assert [row[6] for row in copied] == [b"1.5"] * 3
    assert "The stores are equal." in printed(tmp_path, "copy", B, "sqlite:///c.db")
