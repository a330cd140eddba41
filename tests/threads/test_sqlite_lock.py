"""One process at a time has an SQLite database open, whatever becomes of its lock file and of its name."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jimsapi.testing.store import OWNER, make_plan
from jimsapi.threads.errors import StoreUnavailable, StoreUnusable
from jimsapi.threads.sqlite import SQLiteStore

pytestmark = pytest.mark.anyio

LOAD = Path(__file__).with_name("sqlite_load.py")
LOCKER = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jims.db"


async def test_the_refusal_names_the_process_and_the_way_out(path: Path) -> None:
    with holder(LOAD, path, "idle") as process, pytest.raises(StoreUnusable) as refused:
        await open_and_close(path)
    assert str(refused.value) == (
        f"cannot open {path}: it is locked by process {process.pid}; stop that server, or use PostgreSQL "
        "(--store postgresql://…) for several processes"
    )


async def test_neither_a_removed_lock_file_nor_another_name_lets_a_second_process_in(path: Path) -> None:
    with holder(LOAD, path, "idle") as process:
        path.with_name("jims.db.lock").unlink()
        alias = path.with_name("alias.db")
        alias.hardlink_to(path)
        for name in (path, alias):
            with pytest.raises(StoreUnusable, match=f"locked by process {process.pid};"):
                await open_and_close(name)
    await open_and_close(alias)


async def test_a_second_store_of_the_same_process_is_refused_under_another_name_too(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await store.accept(make_plan())
        alias = path.with_name("alias.db")
        alias.hardlink_to(path)
        with pytest.raises(StoreUnusable, match=f"locked by process {os.getpid()};"):
            await open_and_close(alias)
        # Had the refused one closed a descriptor of the database, SQLite's locks would be gone, and with them the log
        # when another program closes the database.
        program = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM threads').fetchone()"
        subprocess.run([sys.executable, "-c", program, path], check=True)
        assert path.with_name("jims.db-wal").exists()
        await store.accept(make_plan())


async def test_a_lock_file_that_was_removed_is_made_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lock = path.with_name("jims.db.lock")
    async with SQLiteStore(path) as store:
        for _ in range(2):
            lock.unlink()
            await store.heartbeat(OWNER, [])
            assert lock.read_text() == f"{os.getpid()}\n"
    assert [record.getMessage() for record in caplog.records] == [f"{lock} was removed; it is made again"] * 2


async def test_a_store_whose_lock_file_another_process_took_commits_nothing_until_that_has_ended(path: Path) -> None:
    lock = path.with_name("jims.db.lock")
    async with SQLiteStore(path) as store:
        lock.unlink()
        with holder("-c", LOCKER, lock):
            with pytest.raises(StoreUnavailable, match="locked by another process") as refused:
                await store.accept(make_plan())
            assert refused.value.reason == "locked by another program"
        assert (await store.accept(make_plan())).created_new_thread


async def test_other_programs_read_and_write_beside_the_lock(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await store.accept(make_plan())
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("UPDATE threads SET external_id = 'x'")
        assert other.execute("SELECT count(*) FROM threads").fetchone() == (1,)
        other.close()
        await store.accept(make_plan("bob"))


@contextmanager
def holder(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process that has opened something, and says so; killed in the end."""
    child = subprocess.Popen(
        [sys.executable, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        yield child
    finally:
        child.kill()
        child.communicate()


async def open_and_close(path: Path) -> None:
    async with SQLiteStore(path):
        pass
