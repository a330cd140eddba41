"""One process at a time has an SQLite database open, whatever becomes of its lock file and of its name."""

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jimsapi.stores.sqlite import SQLiteStore
from jimsapi.testing.store import OWNER, make_plan
from jimsapi.threads.errors import StoreUnavailable, StoreUnusable

pytestmark = pytest.mark.anyio

LOAD = Path(__file__).with_name("sqlite_load.py")
LOCKER = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("open", flush=True)
sys.stdin.read()
"""


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
    alias.unlink()
    await open_and_close(path)


async def test_a_database_with_two_names_is_refused_since_each_has_a_log_of_its_own(path: Path) -> None:
    with holder(LOAD, path, "idle"):
        pass
    alias = path.with_name("alias.db")
    alias.hardlink_to(path)
    for name in (path, alias):
        for look in (open_and_close(name), preflight(name)):
            with pytest.raises(StoreUnusable, match="has 2 names"):
                await look
    alias.unlink()
    await open_and_close(path)


async def test_a_process_of_another_host_is_named_with_its_host(path: Path) -> None:
    lock = path.with_name("jims.db.lock")
    lock.write_text("1 elsewhere 4711\n")
    with holder("-c", LOCKER, lock), pytest.raises(StoreUnusable, match="by process 1 of the host or container else"):
        await open_and_close(path)


async def test_a_lock_file_that_cannot_be_made_again_is_not_locked_by_another_program(path: Path) -> None:
    lock = path.with_name("jims.db.lock")
    async with SQLiteStore(path) as store:
        lock.unlink()
        lock.mkdir()
        with pytest.raises(StoreUnavailable, match=r"check the permissions of .*\.lock, or") as refused:
            await store.accept(make_plan())
        assert refused.value.reason == "lock file cannot be made"
        lock.rmdir()
        assert (await store.accept(make_plan())).created_new_thread


@pytest.mark.parametrize("suffix", [".lock", "-wal", "-shm"])
async def test_a_folder_in_the_place_of_a_file_beside_the_database_is_refused_by_check_and_start(
    path: Path, suffix: str
) -> None:
    await open_and_close(path)
    beside = path.with_name(path.name + suffix)
    beside.unlink(missing_ok=True)
    beside.mkdir()
    for look in (open_and_close(path), preflight(path)):
        with pytest.raises(StoreUnusable, match=f"{beside}(,| is not a regular file; move it away)"):
            await look


async def test_a_pipe_in_the_place_of_the_database_is_refused_by_check_and_start(path: Path) -> None:
    os.mkfifo(path)
    for look in (open_and_close(path), preflight(path)):
        with pytest.raises(StoreUnusable, match="is not a regular file"):
            await look


async def test_a_file_of_one_byte_is_empty_for_check_and_start(path: Path) -> None:
    path.write_text("\n")
    await preflight(path)
    await open_and_close(path)


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
            assert lock.read_text() == f"{os.getpid()} {socket.gethostname()} {path.stat().st_ino}\n"
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


async def preflight(path: Path) -> None:
    SQLiteStore(path).preflight()


async def open_and_close(path: Path) -> None:
    async with SQLiteStore(path):
        pass
