"""Nothing acknowledged is lost when files of an open SQLite database are removed, replaced, renamed or cut."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from jimsapi.stores.sqlite import SQLiteStore
from jimsapi.stores.sqlite import file as sqlite_file
from jimsapi.testing.store import OWNER, all_threads, completed, contents, make_event, make_plan
from jimsapi.threads.errors import StoreUnavailable, StoreUnusable
from tests.waiting import insist

pytestmark = pytest.mark.anyio

LOAD = Path(__file__).with_name("sqlite_load.py")
NEIGHBOUR = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("SELECT count(*) FROM threads").fetchone()
for line in iter(lambda: print("done", flush=True) or sys.stdin.readline(), ""):
    connection.execute(line)
"""


SEEN = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(*[text for (text,) in connection.execute("PRAGMA integrity_check")], sep="\\n")
print(*[text for (text,) in connection.execute("SELECT contact_id FROM threads ORDER BY contact_id")], sep="\\n")
"""


def seen_by_others(path: Path) -> list[str]:
    """What another process finds in the database: whether it is whole, and its contacts. So does the next start."""
    done = subprocess.run([sys.executable, "-c", SEEN, path], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def log_of(path: Path) -> Path:
    return path.with_name("jims.db-wal")


# The write-ahead log


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
@pytest.mark.parametrize("how", ["removed", "renamed", "replaced"])
async def test_a_lost_log_acknowledges_nothing_and_everything_in_it_is_rescued(
    path: Path, store: SQLiteStore, suffix: str, how: str
) -> None:
    plans = [make_plan(f"contact {number}") for number in range(20)]
    for plan in plans:
        await store.accept(plan)
    lost = path.with_name(path.name + suffix)
    if how == "renamed":
        lost.rename(path.with_name("aside"))
    else:
        lost.unlink()
    if how == "replaced":
        lost.touch()
    with pytest.raises(StoreUnavailable, match="was removed or replaced") as refused:
        await store.accept(make_plan("refused"))
    assert refused.value.reason == "write-ahead log removed"

    await insist(lambda: store.accept(make_plan("late")))
    await insist(store.ping)
    assert seen_by_others(path) == ["ok", *sorted(["late", *(plan.contact_id for plan in plans)])]
    assert (await store.finish(plans[0].run_id, OWNER, completed(make_event()))).counted


async def test_a_removed_log_is_noticed_though_the_folder_has_its_old_modification_time(
    path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "SETTLED", 50_000_000)
    await store.accept(make_plan("ann"))
    await asyncio.sleep(0.1)  # until the folder's time is trusted
    await store.accept(make_plan("bob"))
    before = path.parent.stat()
    log_of(path).unlink()
    os.utime(path.parent, ns=(before.st_atime_ns, before.st_mtime_ns))  # as rsync -a and cp -a do
    with pytest.raises(StoreUnavailable, match="was removed or replaced"):
        await store.accept(make_plan("refused"))


async def test_a_removed_log_is_noticed_by_the_next_commit_though_the_entries_were_checked_a_moment_ago(
    path: Path, store: SQLiteStore
) -> None:
    await asyncio.sleep(2 * sqlite_file.TICK / 1e9)
    files = store._files
    while not files._is_checked(path.parent.stat().st_ctime_ns):
        await store.ping()
    log_of(path).unlink()
    with pytest.raises(StoreUnavailable, match="was removed or replaced"):
        await store.accept(make_plan("refused"))


async def test_the_entries_are_checked_again_and_again_until_the_time_of_the_folder_is_trusted(
    path: Path, store: SQLiteStore
) -> None:
    await asyncio.sleep(2 * sqlite_file.TICK / 1e9)
    await store.ping()
    files = store._files
    for _ in range(3):
        checked_at = files._checked_at
        async with asyncio.timeout(30):
            while files._checked_at == checked_at:
                await store.ping()


async def test_a_process_killed_after_its_log_was_removed_has_lost_nothing_acknowledged(path: Path) -> None:
    child = subprocess.Popen([sys.executable, LOAD, path, "load"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(100)]
    log_of(path).unlink()
    while not log_of(path).exists() and len(lines) < 5000:  # the moment in which the loss is noticed and mended
        lines.append(child.stdout.readline())
    lines += [child.stdout.readline() for _ in range(100)]
    child.kill()
    lines += child.communicate()[0].splitlines()
    acknowledged = [line.split()[2:] for line in lines if line.startswith("done") and len(line.split()) == 4]
    connection = sqlite3.connect(path)
    stored = {event_id for (event_id,) in connection.execute("SELECT event_id FROM thread_events")}
    connection.close()
    assert len(acknowledged) >= 199
    assert {event_id for said in acknowledged for event_id in said} <= stored


async def test_a_log_that_another_program_shares_is_moved_at_once_and_begun_anew_when_that_has_left(
    path: Path, store: SQLiteStore
) -> None:
    await store.accept(make_plan("before"))
    with neighbour(path) as other:
        log_of(path).unlink()
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await store.accept(make_plan("refused"))
            await reopened(store)
        with pytest.raises(StoreUnavailable, match="when no other program has"):
            await store.accept(make_plan("refused"))
        copy = path.with_name("copy.db")
        shutil.copy(path, copy)  # a kill now would leave this
        connection = sqlite3.connect(copy)
        assert connection.execute("SELECT contact_id FROM threads").fetchall() == [("before",)]
        connection.close()
        assert other.poll() is None
    await insist(lambda: store.accept(make_plan("late")))
    assert len(await all_threads(store, "before")) == len(await all_threads(store, "late")) == 1


async def test_reads_alone_begin_a_new_log_when_the_program_that_prevented_it_has_left(
    path: Path, store: SQLiteStore
) -> None:
    await store.accept(make_plan("before"))
    with neighbour(path):
        log_of(path).unlink()
        with pytest.raises(StoreUnavailable):
            await store.accept(make_plan("refused"))
        await reopened(store)
        with pytest.raises(StoreUnavailable, match="waits for a new write-ahead log"):
            await store.threads("before", 10, None)
    assert len((await store.threads("before", 10, None)).threads) == 1


async def test_a_log_that_is_put_back_is_written_on(path: Path, store: SQLiteStore) -> None:
    with neighbour(path):
        aside = log_of(path).rename(path.with_name("aside"))
        with pytest.raises(StoreUnavailable):
            await store.accept(make_plan("refused"))
        aside.rename(log_of(path))
        await insist(lambda: store.accept(make_plan("late")))
    assert len(await all_threads(store, "late")) == 1


async def test_a_new_log_that_another_program_has_written_to_is_not_overwritten(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await store.accept(make_plan("ann"))
        await checkpoint(path, store)
        await store.accept(make_plan("bob"))
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink()
        with neighbour(path) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            other.stdin.write("UPDATE threads SET external_id = 'theirs'\n")
            other.stdin.flush()
            assert other.stdout.readline() == "done\n"
        written = log_of(path).read_bytes()
        with pytest.raises(StoreUnavailable):
            await store.accept(make_plan("refused"))
        await reopened(store)
        with pytest.raises(StoreUnavailable, match="another program has written to a new one"):
            await store.accept(make_plan("refused"))
        assert log_of(path).read_bytes() == written
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT contact_id, external_id FROM threads").fetchall() == [("ann", "theirs")]


async def test_a_store_that_closes_with_a_lost_log_keeps_all(path: Path) -> None:
    async with SQLiteStore(path) as store:
        thread_id = (await store.accept(make_plan(text="kept"))).thread.thread_id
        log_of(path).unlink()
    async with SQLiteStore(path) as store:
        assert await contents(store, thread_id) == ["kept"]


async def test_a_store_whose_reopening_was_cancelled_reopens_later_and_closes(path: Path) -> None:
    async with SQLiteStore(path) as store:
        for contact in ("ann", "bob"):
            await store.accept(make_plan(contact))
            log_of(path).unlink()
            with pytest.raises(StoreUnavailable):
                await store.accept(make_plan("refused"))
            assert store._reopening is not None
            store._reopening.cancel()
            if contact == "ann":
                await insist(lambda: store.accept(make_plan("late")))
                assert len(await all_threads(store, "late")) == 1
    async with SQLiteStore(path) as store:
        for contact in ("ann", "bob", "late"):
            assert len(await all_threads(store, contact)) == 1


async def test_closing_that_is_cancelled_while_the_store_reopens_lets_the_next_one_open(path: Path) -> None:
    store = await SQLiteStore(path).__aenter__()
    await store.accept(make_plan("ann"))
    log_of(path).unlink()
    with pytest.raises(StoreUnavailable):
        await store.accept(make_plan("refused"))
    closing = asyncio.create_task(store.__aexit__(None, None, None))
    await asyncio.sleep(0)
    assert store._reopening is not None
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    async with SQLiteStore(path) as store:
        assert len(await all_threads(store, "ann")) == 1


# The database


async def test_a_removed_file_takes_nothing_more_until_it_is_back(path: Path, store: SQLiteStore) -> None:
    await store.accept(make_plan())
    aside = path.rename(path.with_name("aside.db"))
    with pytest.raises(StoreUnavailable, match="removed or replaced"):
        await store.accept(make_plan("bob"))
    with pytest.raises(StoreUnavailable):
        await store.ping()
    aside.rename(path)
    await store.ping()
    assert (await store.accept(make_plan("bob"))).created_new_thread


async def test_a_replaced_file_takes_nothing_more(path: Path, store: SQLiteStore) -> None:
    await store.accept(make_plan())
    other = path.with_name("other.db")
    await open_and_close(other)
    other.rename(path)
    with pytest.raises(StoreUnavailable, match="restart the server") as refused:
        await store.accept(make_plan("bob"))
    assert refused.value.reason == "database file removed or replaced"


async def test_a_log_is_not_applied_to_a_backup_that_was_put_in_place_while_the_server_ran(path: Path) -> None:
    backup = await backed_up(path)
    async with SQLiteStore(path) as store:
        for number in range(20):
            await store.accept(make_plan(f"later {number}"))
        backup.replace(path)
        with pytest.raises(StoreUnavailable, match="before you put a backup in its place"):
            await store.accept(make_plan("refused"))
    assert len(list(path.parent.glob("jims.db-wal.orphan-*"))) == 1
    await open_and_close(path)
    assert seen_by_others(path) == ["ok", "saved"]


@pytest.mark.parametrize("backup_is_there", [True, False])
async def test_a_start_refuses_a_log_of_a_killed_process_beside_another_database_or_none(
    path: Path, backup_is_there: bool
) -> None:
    backup = await backed_up(path)
    child = subprocess.Popen([sys.executable, LOAD, path, "load"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(50):
        child.stdout.readline()
    child.kill()
    child.communicate()
    if backup_is_there:
        Path(shutil.copy(backup, path.with_name("copy.db"))).replace(path)
    else:
        path.unlink()
    log = log_of(path).read_bytes()
    for _ in range(2):
        with pytest.raises(StoreUnusable, match=f"remove {log_of(path)} and {path}-shm") as refused:
            await open_and_close(path)
        with pytest.raises(StoreUnusable) as refused_by_check:
            SQLiteStore(path).preflight()
        assert str(refused_by_check.value) == str(refused.value)
    assert log_of(path).read_bytes() == log
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()
    backup.replace(path)
    await open_and_close(path)
    assert seen_by_others(path) == ["ok", "saved"]


async def test_a_renamed_folder_takes_nothing_more_until_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    async with SQLiteStore(folder / "jims.db") as store:
        await store.accept(make_plan("before"))
        aside = folder.rename(tmp_path / "aside")
        with pytest.raises(StoreUnavailable, match="removed or replaced"):
            await store.accept(make_plan("bob"))
        aside.rename(folder)
        assert (await store.accept(make_plan("bob"))).created_new_thread
        assert len(await all_threads(store, "before")) == 1


async def test_a_cut_file_takes_nothing_more_and_the_message_says_what_to_do(path: Path, store: SQLiteStore) -> None:
    for number in range(20):
        await store.accept(make_plan(str(number)))
    await checkpoint(path, store)
    await store.accept(make_plan("seen whole"))
    os.truncate(path, path.stat().st_size // 2)
    for call in (store.accept(make_plan("bob")), store.ping()):
        with pytest.raises(StoreUnavailable, match=r"was cut to .*sqlite3 .*jims.db \.recover"):
            await call


async def test_a_file_that_is_short_only_while_another_program_checkpoints_is_written_on(
    path: Path, store: SQLiteStore
) -> None:
    for number in range(20):
        await store.accept(make_plan(str(number)))
    await checkpoint(path, store)
    await store.accept(make_plan("seen whole"))
    content = path.read_bytes()
    os.truncate(path, len(content) // 2)  # as long as a checkpoint has written the first page and not yet the others
    asyncio.get_running_loop().call_later(0.2, path.write_bytes, content)
    assert (await store.accept(make_plan("bob"))).created_new_thread
    await store.ping()
    assert seen_by_others(path)[0] == "ok"


async def test_a_file_that_was_vacuumed_is_written_on(path: Path, store: SQLiteStore) -> None:
    for _ in range(20):
        await store.accept(make_plan("gone", text="x" * 10_000))
    await checkpoint(path, store)
    await store.accept(make_plan("bob"))
    size = path.stat().st_size
    await store.delete_contact("gone")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("VACUUM")
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    assert path.stat().st_size < size
    assert (await store.accept(make_plan("cid"))).created_new_thread


# Who may read them


async def test_new_files_are_private_and_old_ones_keep_their_mode(path: Path) -> None:
    before = os.umask(0)
    try:
        async with SQLiteStore(path) as store:
            await store.accept(make_plan())
            files = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
            assert files == dict.fromkeys(["jims.db", "jims.db-wal", "jims.db-shm", "jims.db.lock"], 0o600)
        for file in path.parent.iterdir():
            file.chmod(0o660)
        async with SQLiteStore(path) as store:
            await store.accept(make_plan())
            files = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
            assert files == dict.fromkeys(["jims.db", "jims.db-wal", "jims.db-shm", "jims.db.lock"], 0o660)
    finally:
        os.umask(before)


async def reopened(store: SQLiteStore) -> None:
    """Wait until an attempt to open the log anew has ended."""
    while store._reopening is not None:
        await asyncio.sleep(0)


async def checkpoint(path: Path, store: SQLiteStore) -> None:
    other = sqlite3.connect(path)
    assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    other.close()


@contextmanager
def neighbour(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another program that has the database open."""
    child = subprocess.Popen(
        [sys.executable, "-c", NEIGHBOUR, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "done\n"
    yield child
    child.communicate()


async def backed_up(path: Path) -> Path:
    """A backup of a database with one thread."""
    async with SQLiteStore(path) as store:
        await store.accept(make_plan("saved"))
    return Path(shutil.copy(path, path.with_name("backup.db")))


async def open_and_close(path: Path) -> None:
    async with SQLiteStore(path):
        pass
