"""What the SQLite store does when its disk, its file, its neighbours or its own process fail it."""

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from jimsapi.stores.sqlite import SQLiteStore
from jimsapi.stores.sqlite import store as sqlite_store
from jimsapi.stores.sqlite import writer as sqlite_writer
from jimsapi.stores.sqlite.schema import FIRST_VERSION, SCHEMA_VERSION, Durability
from jimsapi.testing.store import (
    OTHER_OWNER,
    OWNER,
    all_events,
    all_threads,
    completed,
    contents,
    look_at,
    make_event,
    make_plan,
)
from jimsapi.threads.errors import IdentifierTaken, QueueFull, StoreUnavailable, StoreUnusable
from jimsapi.threads.event import NewEvent
from jimsapi.threads.run import Accepted, ContextLimits, Outcome, RunStatus
from jimsapi.threads.store import CommitRecord

pytestmark = pytest.mark.anyio

LOAD = Path(__file__).with_name("sqlite_load.py")
MANY_BYTES = "x" * 400_000


# Opening


async def test_a_second_process_is_refused_and_pointed_to_postgresql(path: Path) -> None:
    alias = path.with_name("alias.db")
    alias.symlink_to(path)
    child = subprocess.Popen([sys.executable, LOAD, path, "idle"], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        for way in (path, alias):
            with pytest.raises(StoreUnusable, match="PostgreSQL"):
                await _open_and_close(way)
    finally:
        child.kill()
        child.communicate()
    await _open_and_close(alias)


async def test_a_second_store_in_the_same_process_is_refused_until_the_first_is_closed(path: Path) -> None:
    async with SQLiteStore(path):
        with pytest.raises(StoreUnusable):
            await _open_and_close(path)
    await _open_and_close(path)


async def test_what_cannot_be_opened_is_told_in_one_line(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("Not a database at all. " * 100)
    newer, unreleased = tmp_path / "newer.db", tmp_path / "unreleased.db"
    for database, version in ((newer, SCHEMA_VERSION + 1), (unreleased, FIRST_VERSION - 1)):
        await _open_and_close(database)
        _execute(database, f"UPDATE jimsapi_schema SET version = {version}")
    foreign = tmp_path / "foreign.db"
    _execute(foreign, "CREATE TABLE threads (id INTEGER, created_at TEXT, contact_id TEXT, external_id TEXT)")
    locked = tmp_path / "locked.db"
    holder = sqlite3.connect(locked, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    for path, said in (
        (tmp_path / "missing" / "jims.db", "no folder"),
        (tmp_path, "is a folder"),
        (text, "not an SQLite database"),
        (newer, "upgrade jimsapi"),
        (unreleased, "export it with `jimsapi store copy` of that commit"),
        (foreign, "lacks thread_config, thread_id"),
        (locked, "another program holds it locked"),
        (Path("/proc/jims.db"), "permissions"),
    ):
        with pytest.raises(StoreUnusable, match=said) as refused:
            await _open_and_close(path)
        assert "\n" not in str(refused.value)
        assert str(path) in str(refused.value)
    holder.close()
    await _open_and_close(locked)


async def test_a_database_that_was_refused_is_left_as_it_was(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    _execute(foreign, "CREATE TABLE threads (id INTEGER PRIMARY KEY)")
    before = foreign.read_bytes()
    with pytest.raises(StoreUnusable):
        await _open_and_close(foreign)
    assert foreign.read_bytes() == before


async def test_an_opening_that_is_cancelled_lets_the_next_one_in(path: Path) -> None:
    opening = asyncio.ensure_future(SQLiteStore(path).__aenter__())
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    for _ in range(200):
        try:
            await _open_and_close(path)
            break
        except StoreUnusable:
            await asyncio.sleep(0.01)
    else:
        pytest.fail("the lock is still held")


@pytest.mark.parametrize(("durability", "level"), [("durable", 2), ("relaxed", 1)])
async def test_durability_decides_whether_every_commit_is_synced(
    path: Path, durability: Durability, level: int
) -> None:
    async with SQLiteStore(path, durability=durability) as store:
        found = await store._write(lambda connection: connection.execute("PRAGMA synchronous").fetchone()[0])
    assert found == level


# Closing


async def test_closing_answers_what_waits_and_leaves_one_file(path: Path) -> None:
    store = SQLiteStore(path)
    await store.__aenter__()
    callers = [asyncio.ensure_future(store.accept(make_plan(str(number)))) for number in range(30)]
    await asyncio.sleep(0)
    await store.__aexit__(None, None, None)
    assert len(await asyncio.gather(*callers)) == 30
    assert not path.with_name("jims.db-wal").exists()
    async with SQLiteStore(path) as again:
        for number in range(30):
            assert len(await all_threads(again, str(number))) == 1


async def test_closing_waits_for_a_writer_that_is_busy(path: Path) -> None:
    let_go = threading.Event()
    store = SQLiteStore(path)
    await store.__aenter__()
    writer = store._writer
    assert writer is not None
    busy = store._write(lambda _: let_go.wait(30))
    while not writer._busy:
        await asyncio.sleep(0)
    waiting = [asyncio.ensure_future(store.accept(make_plan(str(number)))) for number in range(5)]
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(store.__aexit__(None, None, None))
    while not writer._closing:
        await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await store.accept(make_plan("late"))
    let_go.set()
    assert await busy
    assert len(await asyncio.gather(*waiting)) == 5
    await asyncio.wait_for(closing, 30)


async def test_closing_empties_the_log_though_another_program_has_the_file_open(path: Path) -> None:
    async with SQLiteStore(path) as store:
        neighbour = sqlite3.connect(path)
        neighbour.execute("SELECT * FROM threads").fetchall()
        await store.accept(make_plan())
    assert path.with_name("jims.db-wal").stat().st_size == 0
    neighbour.close()


async def test_a_closed_store_is_unavailable_and_can_be_opened_again(path: Path) -> None:
    store = SQLiteStore(path)
    for _ in range(2):
        async with store:
            await store.accept(make_plan())
        for call in (store.accept(make_plan()), store.ping(), store.threads("ann", 1, None), store.cancel(uuid4())):
            with pytest.raises(StoreUnavailable):
                await call


# Crashes


async def test_a_killed_process_loses_nothing_that_it_acknowledged(path: Path) -> None:
    acknowledged: dict[str, list[str]] = {}
    for _ in range(3):
        child = subprocess.Popen([sys.executable, LOAD, path, "load"], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(400)]
        child.send_signal(signal.SIGKILL)
        lines += child.communicate()[0].splitlines(keepends=True)
        for line in lines:
            if line.startswith("done") and line.endswith("\n"):
                _, thread_id, *said = line.split()
                acknowledged.setdefault(thread_id, []).extend(said)
    assert sum(map(len, acknowledged.values())) > 1000
    async with SQLiteStore(path) as store:
        await store.recover(OWNER)
        assert await store.recover(OTHER_OWNER) == 0
        for thread_id, said in acknowledged.items():
            stored = [event.event_id.hex for event in await all_events(store, UUID(thread_id))]
            assert len(set(stored)) == len(stored)
            assert set(said) <= set(stored)
        assert (await store.accept(make_plan("client-0"))).status is RunStatus.RUNNING


async def test_runs_of_an_earlier_process_are_interrupted(path: Path) -> None:
    running, waiting = make_plan(text="one"), make_plan(text="two")
    async with SQLiteStore(path) as store:
        thread_id = (await store.accept(running)).thread.thread_id
        await store.accept(waiting)
    async with SQLiteStore(path) as store:
        assert await store.recover(OTHER_OWNER) == 2
        assert await contents(store, thread_id) == ["one", "two"]
        for plan in (running, waiting):
            assert (await look_at(store, plan.run_id)).status is RunStatus.INTERRUPTED


# A store that cannot work for a while


async def test_a_database_locked_from_outside_is_unavailable_and_then_works_again(
    path: Path, store: SQLiteStore
) -> None:
    reports: list[CommitRecord] = []
    plan = make_plan()
    await store.accept(plan)
    store.on_commit = reports.append
    neighbour = sqlite3.connect(path, isolation_level=None)
    neighbour.execute("BEGIN IMMEDIATE")
    refused = await asyncio.gather(
        store.finish(plan.run_id, OWNER, completed(make_event())),
        store.accept(make_plan("bob")),
        store.ping(),
        return_exceptions=True,
    )
    assert [type(error) for error in refused] == [StoreUnavailable] * 3
    assert "locked" in str(refused[0])
    assert all(report.failed for report in reports)
    assert len((await store.threads("ann", 10, None)).threads) == 1
    neighbour.execute("ROLLBACK")
    neighbour.close()
    await store.ping()
    assert (await store.finish(plan.run_id, OWNER, completed(make_event()))).counted
    assert not reports[-1].failed


async def test_a_full_database_is_unavailable_and_then_works_again(store: SQLiteStore) -> None:
    plan = make_plan()
    thread_id = (await store.accept(plan)).thread.thread_id
    pages = await store._write(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    await _limit_pages(store, pages)
    large = make_event(data=MANY_BYTES)
    together = await asyncio.gather(
        store.finish(plan.run_id, OWNER, completed(large)), store.accept(make_plan("bob")), return_exceptions=True
    )
    assert [type(error) for error in together] == [StoreUnavailable] * 2
    assert "full" in str(together[0])
    assert (await look_at(store, plan.run_id)).status is RunStatus.RUNNING
    await _limit_pages(store, 1_000_000)
    assert (await store.finish(plan.run_id, OWNER, completed(large))).counted
    assert (await store.accept(make_plan("bob"))).created_new_thread
    assert len(await all_events(store, thread_id)) == 3


async def test_only_a_commit_that_changed_something_shows_that_a_full_database_works_again(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grow(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO threads VALUES ('a', 'b', NULL, '2024-01-01', ?)", (MANY_BYTES,))

    await _limit_pages(store, 1)
    monkeypatch.setattr(sqlite_store, "_touch", grow)  # as on a disk on which not even one page fits
    with pytest.raises(StoreUnavailable):
        await store._write(grow)
    for _ in range(2):
        await store.cancel(uuid4())  # of no run: it changes nothing
        with pytest.raises(StoreUnavailable, match="full"):
            await store.ping()
    await _limit_pages(store, 1_000_000)
    await store.ping()


async def test_a_disk_that_refuses_to_write_is_unavailable_and_then_works_again(path: Path, store: SQLiteStore) -> None:
    plan = make_plan()
    await store.accept(plan)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = path.with_name("jims.db-wal").stat().st_size
    large = completed(make_event(data=MANY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(StoreUnavailable):
            await store.finish(plan.run_id, OWNER, large)
        with pytest.raises(StoreUnavailable):
            await store.ping()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    await store.ping()
    assert (await store.finish(plan.run_id, OWNER, large)).counted


async def test_a_writer_that_hangs_fails_the_ping(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "PING_TIMEOUT", 0.05)
    let_go = threading.Event()
    hanging = store._write(lambda _: let_go.wait(30))
    with pytest.raises(StoreUnavailable, match="did not answer"):
        await store.ping()
    let_go.set()
    assert await hanging
    monkeypatch.undo()
    await store.ping()


async def test_a_ping_overtakes_what_waits_to_be_written(store: SQLiteStore) -> None:
    crowd = [asyncio.create_task(store.accept(make_plan(str(number)))) for number in range(2000)]
    await asyncio.sleep(0)
    await store.ping()
    assert sum(task.done() for task in crowd) < len(crowd) / 2
    await asyncio.gather(*crowd)


# Batches


async def test_what_is_to_be_first_overtakes_what_a_turn_of_the_second_thread_has_left(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "LONG_TURN", 0.0)
    crowd = [asyncio.ensure_future(store.purge(timedelta(0))) for _ in range(20)]
    async with asyncio.timeout(20):
        while not any(purging.done() for purging in crowd):
            await asyncio.sleep(0)
        await store._write(lambda connection: None, first=True)
    assert not all(purging.done() for purging in crowd)
    await asyncio.gather(*crowd)


async def test_what_waits_together_is_committed_together(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_writer, "TURN", 60.0)
    monkeypatch.setattr(sqlite_writer, "COLLECT_FOR", 60.0)
    reports: list[CommitRecord] = []
    store.on_commit = reports.append
    await asyncio.gather(*[store.accept(make_plan(str(number))) for number in range(50)])
    assert [report.operations for report in reports] == [50]


async def test_what_turns_of_the_loop_bring_one_after_another_is_committed_together(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "TURN", 60.0)
    monkeypatch.setattr(sqlite_writer, "COLLECT_FOR", 60.0)
    reports: list[CommitRecord] = []
    store.on_commit = reports.append
    await asyncio.gather(*[_accept_later(store, turns) for turns in range(20)])
    assert [report.operations for report in reports] == [20]


async def test_a_loop_that_brings_more_and_more_does_not_hold_up_the_first(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "COLLECT_FOR", 0.0)
    reports: list[CommitRecord] = []
    store.on_commit = reports.append
    await asyncio.gather(*[_accept_later(store, turns) for turns in range(20)])
    assert reports[0].operations < 20 == sum(report.operations for report in reports)


@pytest.mark.parametrize("more_waits", [False, True])
async def test_a_listener_that_fails_does_not_hold_up_what_comes_next(store: SQLiteStore, more_waits: bool) -> None:
    def fail(report: CommitRecord) -> None:
        raise ValueError("a listener's own fault")

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    store.on_commit = fail
    writer = store._writer
    assert writer is not None
    async with asyncio.timeout(20):
        first = asyncio.ensure_future(store.accept(make_plan("first")))
        if more_waits:
            while not writer._busy:
                await asyncio.sleep(0)
            await store.accept(make_plan("while the first is committed"))
        await first
        await store.accept(make_plan("next"))


async def _accept_later(store: SQLiteStore, turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    await store.accept(make_plan(f"contact-{turns}"))


async def test_a_faulty_operation_does_not_fail_its_batch(store: SQLiteStore) -> None:
    def write_then_break(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE jimsapi_schema SET version = 77")
        raise ValueError("broken")

    plan = make_plan("bob")
    await store.accept(plan)
    before, poison, broken, taken, after = await asyncio.gather(
        store.accept(make_plan("ann")),
        store._write(lambda connection: connection.execute("INSERT INTO nowhere VALUES (1)")),
        store._write(write_then_break),
        store.finish(plan.run_id, OWNER, completed(make_event(), NewEvent(plan.message.event_id, "x", b"{}"))),
        store.accept(make_plan("cid")),
        return_exceptions=True,
    )
    assert isinstance(poison, sqlite3.OperationalError)
    assert isinstance(broken, ValueError)
    assert isinstance(taken, IdentifierTaken)
    assert isinstance(before, Accepted)
    assert isinstance(after, Accepted)
    for contact_id, events in (("ann", 2), ("bob", 2), ("cid", 2)):
        (thread,) = await all_threads(store, contact_id)
        assert len(await all_events(store, thread.thread_id)) == events
    version = await store._write(lambda connection: connection.execute("SELECT version FROM jimsapi_schema").fetchone())
    assert version == (SCHEMA_VERSION,)
    assert (await store.finish(plan.run_id, OWNER, Outcome(RunStatus.FAILED))).counted


async def test_two_runs_of_a_thread_are_never_running_whatever_the_code_does(store: SQLiteStore) -> None:
    await store.accept(make_plan())
    await store.accept(make_plan())
    with pytest.raises(sqlite3.IntegrityError):
        await store._write(lambda connection: connection.execute("UPDATE jimsapi_runs SET status = 'running'"))


# Who does what: see the module docstring of the writer.


async def test_a_busy_event_loop_keeps_a_turn_from_nothing_but_its_commits(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "IDLE_WITHIN", 0.0)
    executed: list[tuple[str, bool]] = []  # a statement, and whether the event loop's thread executed it
    await _trace(store, lambda statement: executed.append((statement, threading.current_thread() is loop_thread)))
    loop_thread = threading.current_thread()
    plans = [make_plan(str(number)) for number in range(20)]
    await asyncio.gather(*[store.accept(plan) for plan in plans])
    await asyncio.gather(*[store.finish(plan.run_id, OWNER, completed(make_event())) for plan in plans])
    await _trace(store, None)
    elsewhere = [statement for statement, in_loop in executed if not in_loop]
    assert elsewhere[:2] == ["COMMIT", "COMMIT"]  # then comes what ends the trace
    assert len(executed) > 20 * 8


async def test_what_may_take_long_takes_no_brief_operation_along_into_the_second_thread(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "IDLE_WITHIN", 0.0)
    executed: list[tuple[str, bool]] = []
    await _trace(store, lambda statement: executed.append((statement, threading.current_thread() is loop_thread)))
    loop_thread = threading.current_thread()
    before = [store.accept(make_plan(f"before {number}")) for number in range(20)]
    after = [store.accept(make_plan(f"after {number}")) for number in range(20)]
    await asyncio.gather(*before, store.purge(timedelta(0)), *after)
    await _trace(store, None)
    where = {in_loop for statement, in_loop in executed if "INTO jimsapi_runs" in statement}
    assert where == {True}
    assert any("DELETE FROM jimsapi_runs" in statement and not in_loop for statement, in_loop in executed)


@pytest.mark.parametrize("one_fails", [False, True])
async def test_a_batch_of_the_second_thread_ends_in_time_and_leaves_the_rest_to_the_next(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, one_fails: bool
) -> None:
    monkeypatch.setattr(sqlite_writer, "LONG_TURN", 0.0)
    monkeypatch.setattr(sqlite_writer, "COLLECT_FOR", 60.0)
    reports: list[CommitRecord] = []
    done: list[int] = []
    store.on_commit = reports.append
    operations = [store._write(_noting(done, number, fails=one_fails and not number)) for number in range(5)]
    results = await asyncio.gather(*operations, return_exceptions=True)
    assert [type(result) for result in results] == [ValueError if one_fails else type(None)] + [type(None)] * 4
    assert done == list(range(one_fails, 5))
    assert [report.operations for report in reports] == [1] * 5


@pytest.mark.parametrize("brief", [False, True])
async def test_what_is_left_of_a_batch_stays_before_what_came_later(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, brief: bool
) -> None:
    for turn in ("TURN", "LONG_TURN"):
        monkeypatch.setattr(sqlite_writer, turn, 0.0)
    done: list[int] = []
    operations = []
    for number in range(30):
        operations.append(store._write(_noting(done, number), brief=brief))
        if number % 3 == 2:
            await asyncio.sleep(0.001)
    await asyncio.gather(*operations)
    assert done == list(range(30))


async def test_what_is_brief_and_what_may_take_long_have_transactions_of_their_own_in_turn(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds in ("TURN", "LONG_TURN", "COLLECT_FOR"):
        monkeypatch.setattr(sqlite_writer, seconds, 60.0)
    reports: list[CommitRecord] = []
    store.on_commit = reports.append
    done: list[int] = []
    await asyncio.gather(*[store._write(_noting(done, number), brief=number % 2 == 0) for number in range(40)])
    assert done == [*range(0, 40, 2), *range(1, 40, 2)]
    assert [report.operations for report in reports] == [20, 20]


async def test_a_locked_database_is_waited_for_once_by_all_of_a_kind(
    path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "LOCK_WAIT", 0.05)
    reports: list[CommitRecord] = []
    store.on_commit = reports.append
    neighbour = sqlite3.connect(path, isolation_level=None)
    neighbour.execute("BEGIN IMMEDIATE")
    waiting = [store._write(_noting([], number), brief=number % 2 == 0) for number in range(20)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    neighbour.execute("ROLLBACK")
    neighbour.close()
    assert {type(result) for result in results} == {StoreUnavailable}
    assert [report.operations for report in reports] == [10, 10]


async def test_a_commit_that_fails_fails_only_what_was_in_it(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_once() -> None:
        monkeypatch.setattr(store._writer, "_check", lambda: None)
        raise StoreUnavailable("not now")

    monkeypatch.setattr(sqlite_writer, "LONG_TURN", 0.0)
    monkeypatch.setattr(store._writer, "_check", fail_once)
    done: list[int] = []
    operations = [store._write(_noting(done, number)) for number in range(5)]
    async with asyncio.timeout(20):
        results = await asyncio.gather(*operations, return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] + [type(None)] * 4
    assert done == list(range(5))


def _noting(done: list[int], number: int, *, fails: bool = False) -> Callable[[sqlite3.Connection], None]:
    """Work that writes something, and puts its number into a list."""

    def work(connection: sqlite3.Connection) -> None:
        if fails:
            raise ValueError("broken")
        connection.execute("UPDATE jimsapi_schema SET version = version")
        done.append(number)

    return work


@pytest.mark.parametrize("loop_rests", [True, False])
async def test_a_lone_operation_leaves_an_event_loop_that_rests_alone_and_no_other(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, loop_rests: bool
) -> None:
    monkeypatch.setattr(sqlite_writer, "IDLE_WITHIN", 60.0 if loop_rests else 0.0)
    in_loop: list[bool] = []
    await _trace(store, lambda _: in_loop.append(threading.current_thread() is loop_thread))
    loop_thread = threading.current_thread()
    plan = make_plan()
    await store.accept(plan)
    await store.finish(plan.run_id, OWNER, completed(make_event()))
    by_loop, by_thread = in_loop.count(True), in_loop.count(False)
    await _trace(store, None)
    assert (by_loop == 0) == loop_rests
    assert by_thread == 2 or loop_rests


@pytest.mark.parametrize("before", ["one", "one that is slow", "several", "one that may take long"])
async def test_operations_that_come_one_by_one_do_not_wait_for_others(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    monkeypatch.setattr(sqlite_writer, "IDLE_WITHIN", 60.0)
    monkeypatch.setattr(sqlite_writer, "QUICK", 0.0 if before == "one that is slow" else 60.0)
    count, brief = 3 if before == "several" else 1, before != "one that may take long"
    await asyncio.gather(*[store._write(lambda _: None, brief=brief) for _ in range(count)])
    monkeypatch.setattr(sqlite_writer, "IDLE_WITHIN", 0.0)  # from now on, operations that wait are done by the loop
    began = threading.Event()

    def work(_: sqlite3.Connection) -> bool:
        began.set()
        return threading.current_thread() is threading.main_thread()

    writing = store._write(work, brief=True)  # and then the loop has no further turn
    assert began.wait(10.0 if before == "one" else 0.05) == (before == "one")
    assert await writing == (before != "one")


async def test_a_lone_operation_that_is_refused_or_fails_is_undone(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_then_break(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE jimsapi_schema SET version = 77")
        raise ValueError("broken")

    monkeypatch.setattr(sqlite_writer, "IDLE_WITHIN", 60.0)
    plan = make_plan()
    await store.accept(plan)
    with pytest.raises(ValueError, match="broken"):
        await store._write(write_then_break, brief=True)
    with pytest.raises(IdentifierTaken):
        await store.finish(plan.run_id, OWNER, completed(make_event(), NewEvent(plan.message.event_id, "x", b"{}")))
    with pytest.raises(QueueFull):
        await store.accept(make_plan(queue_limit=0))
    version = await store._write(lambda connection: connection.execute("SELECT version FROM jimsapi_schema").fetchone())
    assert version == (SCHEMA_VERSION,)
    assert len(await all_events(store, (await all_threads(store, "ann"))[0].thread_id)) == 2
    assert (await store.finish(plan.run_id, OWNER, completed(make_event()))).counted


async def test_what_may_take_long_leaves_the_event_loop_alone(store: SQLiteStore) -> None:
    threads: set[threading.Thread] = set()
    await store.accept(make_plan())
    await _trace(store, lambda _: threads.add(threading.current_thread()))
    await asyncio.gather(store.delete_contact("ann"), store.accept(make_plan("bob")))
    await store.purge(timedelta(0))
    await store.accept(make_plan("ann", context=ContextLimits(events=0)))
    await _trace(store, None)
    assert len(threads) == 1
    assert threading.current_thread() not in threads


async def test_the_event_loop_turns_while_another_program_holds_the_database(path: Path, store: SQLiteStore) -> None:
    waits = await store._write(lambda connection: connection.execute("PRAGMA busy_timeout").fetchone(), brief=True)
    assert waits == (0,)
    neighbour = sqlite3.connect(path, isolation_level=None)
    neighbour.execute("BEGIN IMMEDIATE")
    accepting = asyncio.ensure_future(store.accept(make_plan()))
    turns = 0
    while not accepting.done():
        await asyncio.sleep(0.01)
        turns += 1
        if turns == 20:
            neighbour.execute("ROLLBACK")
    assert turns >= 20
    assert (await accepting).created_new_thread
    neighbour.close()


async def test_a_large_batch_is_committed_in_parts_and_none_is_open_while_the_event_loop_does_something_else(
    path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "TURN", 0.0)
    reports: list[CommitRecord] = []
    store.on_commit = reports.append
    accepting = asyncio.gather(*[store.accept(make_plan(str(number))) for number in range(20)])
    neighbour = sqlite3.connect(path, isolation_level=None, timeout=5)
    while not accepting.done():
        await asyncio.sleep(0)
        neighbour.execute("BEGIN IMMEDIATE")  # it waits here for the second thread alone
        neighbour.execute("ROLLBACK")
    neighbour.close()
    assert [report.operations for report in reports] == [1] * 20
    assert all(accepted.created_new_thread for accepted in await accepting)


async def test_an_interruption_of_the_event_loop_fails_no_operation_and_leaves_the_store_at_work(
    store: SQLiteStore,
) -> None:
    interrupt = [KeyboardInterrupt()]

    def interrupted(_: sqlite3.Connection) -> str:
        if interrupt:
            raise interrupt.pop()
        return "done"

    raised: list[BaseException] = []
    writer = store._writer
    assert writer is not None
    begin = writer._begin

    def begin_and_survive() -> None:
        try:
            begin()
        except KeyboardInterrupt as error:  # it would end the loop of this test
            raised.append(error)

    writer._begin = begin_and_survive  # type: ignore[method-assign]
    async with asyncio.timeout(20):
        together = [store._write(interrupted, brief=True) for _ in range(2)]
        assert [await operation for operation in together] == ["done", "done"]
        assert len(raised) == 1
        assert (await store.accept(make_plan())).created_new_thread


async def test_closing_does_what_a_turn_of_the_second_thread_has_left(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "LONG_TURN", 0.0)
    store = SQLiteStore(path)
    await store.__aenter__()
    done: list[int] = []
    callers = [store._write(_noting(done, number)) for number in range(20)]
    async with asyncio.timeout(20):
        await store.__aexit__(None, None, None)
        await asyncio.gather(*callers)
    assert done == list(range(20))


async def test_closing_commits_what_is_left_of_a_batch(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_writer, "TURN", 0.0)
    store = SQLiteStore(path)
    await store.__aenter__()
    callers = [asyncio.ensure_future(store.accept(make_plan(str(number)))) for number in range(30)]
    while store._writer is None or not store._writer._busy:
        await asyncio.sleep(0)
    callers += [asyncio.ensure_future(store.accept(make_plan(f"late {number}"))) for number in range(5)]
    await asyncio.sleep(0)
    await store.__aexit__(None, None, None)
    assert all(accepted.created_new_thread for accepted in await asyncio.gather(*callers))


async def _trace(store: SQLiteStore, called: Callable[[str], object] | None) -> None:
    await store._write(lambda connection: connection.set_trace_callback(called))


async def _open_and_close(path: Path) -> None:
    async with SQLiteStore(path):
        pass


async def _limit_pages(store: SQLiteStore, pages: int) -> None:
    await store._write(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone())


def _execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()
