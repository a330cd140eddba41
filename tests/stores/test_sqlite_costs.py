"""What a turn costs in SQLite grows neither with the thread nor with the contact; counted in instructions, not time."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest

from jimsapi.stores.sqlite import reads, usage, writes
from jimsapi.stores.sqlite.rows import id_hex
from jimsapi.stores.sqlite.schema import open_writer
from jimsapi.testing.store import OWNER, completed, make_event, make_key, make_plan
from jimsapi.threads.errors import KeyUsed
from jimsapi.threads.event import utc_now
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ById, Idempotency, Latest, New, Selector
from jimsapi.threads.store import KEEP_KEYS
from jimsapi.threads.usage import UsageHolder

SHORT, LONG = 400, 100_000
SHAPES = {
    "talk": ["comm.assistant_message"],
    "own types": ["rag.query_processed"],
    "one state": ["state.set.mood"],
    "ten states": [f"state.set.{number}" for number in range(10)],
    "usual": ["comm.user_message", "rag.query_processed", "state.set.mood", "comm.assistant_message"],
}
MANY_THREADS = 20_000
MANY_KEYS = 20_000
BIG = UUID(int=7)
"""A caller."""
_CONTACT_USAGE = "INSERT INTO jimsapi_contact_usage VALUES ('ann', '2026-11-28', 'm', ?, 1, 1, 1, 1, 1)"
_CALLER_USAGE = "INSERT INTO jimsapi_caller_usage VALUES (?, '2026-11-28', 'm', 1, 1, 1, 1, 1)"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path = tmp_path_factory.mktemp("costs") / "large.db"
    connection = open_writer(str(path), "relaxed")
    connection.execute("BEGIN")
    for shape, types in SHAPES.items():
        for length in (SHORT, LONG):
            _add_thread(connection, _thread(shape, length), shape)
            _add_events(connection, _thread(shape, length), types, length)
    _add_many_threads(connection)
    _add_many_keys(connection)
    connection.execute("COMMIT")
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def analysed(database: sqlite3.Connection) -> sqlite3.Connection:
    database.execute("ANALYZE")
    return database


@pytest.mark.parametrize("shape", SHAPES)
def test_a_turn_in_a_long_thread_costs_as_one_in_a_short_thread(database: sqlite3.Connection, shape: str) -> None:
    _compare_lengths(database, shape)


def test_a_contact_with_many_threads_costs_as_one_with_few(database: sqlite3.Connection) -> None:
    _compare_contacts(database)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_turn_costs_the_same_after_analyze(analysed: sqlite3.Connection, shape: str) -> None:
    _compare_lengths(analysed, shape)


def test_a_contact_costs_the_same_after_analyze(analysed: sqlite3.Connection) -> None:
    _compare_contacts(analysed)


def test_a_turn_without_a_key_never_looks_for_keys(database: sqlite3.Connection) -> None:
    statements: list[str] = []
    database.set_trace_callback(statements.append)
    try:
        _turn_steps(database, ById(_thread("usual", SHORT)))
    finally:
        database.set_trace_callback(None)
    assert len(statements) == 12  # with BEGIN and ROLLBACK
    assert not any("idempotency" in statement for statement in statements)


def test_a_key_costs_little_among_many(database: sqlite3.Connection) -> None:
    thread = ById(_thread("usual", SHORT))
    plain, keyed = _turn_steps(database, thread), _turn_steps(database, thread, idempotency=make_key())
    print(f"{plain} instructions without a key, {keyed} with one of {MANY_KEYS}")
    assert keyed <= plain + 200


def test_a_budget_reads_its_contact_at_a_cost_that_other_contacts_and_days_do_not_raise(
    database: sqlite3.Connection,
) -> None:
    today = date(2026, 11, 28)

    def read() -> None:
        assert len(usage.read_usage(database, UsageHolder("ann", BIG), today, today)) == 1
        assert len(usage.read_usage(database, UsageHolder(caller=BIG), today, today)) == 1

    database.execute("BEGIN")
    try:
        database.execute(_CONTACT_USAGE, (id_hex(BIG),))
        database.execute(_CALLER_USAGE, (id_hex(BIG),))
        few = _count(database, read)
        database.executemany(_CONTACT_USAGE.replace("'ann'", "?"), [(f"c{n}", id_hex(BIG)) for n in range(20_000)])
        database.executemany(
            _CALLER_USAGE.replace("'2026-11-28'", "?"), [(id_hex(BIG), f"1900-01-{n:08}") for n in range(20_000)]
        )
        assert _count(database, read) <= few + 100
    finally:
        database.execute("ROLLBACK")


def test_a_retry_is_told_its_run_at_a_cost_that_many_keys_do_not_raise(database: sqlite3.Connection) -> None:
    plan = make_plan(selectors=(ById(_thread("usual", SHORT)),), idempotency=make_key())
    again = make_plan(idempotency=plan.idempotency)

    def retry() -> None:
        with pytest.raises(KeyUsed):
            writes.accept(database, again, None, KEEP_KEYS)

    database.execute("BEGIN")
    try:
        writes.accept(database, plan, None, KEEP_KEYS)
        assert _count(database, retry) <= 200
    finally:
        database.execute("ROLLBACK")


@pytest.mark.parametrize("analysed_before", [False, True])
def test_a_purge_reads_no_run_that_arrived_after_its_cutoff(tmp_path: Path, analysed_before: bool) -> None:
    with closing(open_writer(str(tmp_path / "jims.db"), "relaxed")) as connection:
        connection.execute("BEGIN")
        for number in range(500):
            plan = make_plan(str(number), selectors=(New(),))
            thread = writes.NewThread(uuid7(), make_event(), None, b"{}")
            writes.accept(connection, plan, thread, KEEP_KEYS)
            writes.finish(connection, plan.run_id, OWNER, completed())
        connection.execute("COMMIT")
        if analysed_before:
            connection.execute("ANALYZE")
        assert _count(connection, partial(writes.purge, connection, utc_now() - timedelta(days=1), 1000)) <= 50
        assert writes.purge(connection, utc_now(), 400) == 400
        assert writes.purge(connection, utc_now(), 400) == 100


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_is_looked_up_in_a_long_thread_as_in_a_short_one(database: sqlite3.Connection, shape: str) -> None:
    short, long = (_look_up_steps(database, _thread(shape, length)) for length in (SHORT, LONG))
    assert long <= 1.3 * short


def _look_up_steps(connection: sqlite3.Connection, thread_id: UUID) -> int:
    plan = make_plan(selectors=(ById(thread_id),))
    connection.execute("BEGIN")
    try:
        writes.accept(connection, plan, None, KEEP_KEYS)
        writes.finish(connection, plan.run_id, OWNER, completed(*[make_event() for _ in range(5)]))
        return _count(connection, partial(reads.read_run, connection, plan.run_id, None, None))
    finally:
        connection.execute("ROLLBACK")


def _compare_lengths(connection: sqlite3.Connection, shape: str) -> None:
    short, long = (_turn_steps(connection, ById(_thread(shape, length))) for length in (SHORT, LONG))
    print(f"{shape}: {short} instructions at {SHORT} events, {long} at {LONG}: {long / short:.2f}")
    assert long <= 1.3 * short


def _compare_contacts(connection: sqlite3.Connection) -> None:
    few, many = (_turn_steps(connection, Latest(), contact) for contact in ("few", "many"))
    print(f"{few} instructions with one thread, {many} with {MANY_THREADS}")
    assert many <= 1.3 * few
    first, second = (
        _count(connection, partial(reads.read_threads, connection, contact, 1, None)) for contact in ("few", "many")
    )
    assert second <= first + 100


def _turn_steps(
    connection: sqlite3.Connection,
    selector: Selector,
    contact_id: str = "ann",
    idempotency: Idempotency | None = None,
) -> int:
    """Instructions of an accept and a finish, undone afterwards."""
    plan = make_plan(contact_id, selectors=(selector,), idempotency=idempotency)

    def turn() -> None:
        accepted = writes.accept(connection, plan, None, KEEP_KEYS)
        assert accepted.snapshot is not None
        settled = writes.finish(connection, plan.run_id, OWNER, completed(make_event()))
        assert settled.counted

    connection.execute("BEGIN")
    try:
        return _count(connection, turn)
    finally:
        connection.execute("ROLLBACK")


def _count(connection: sqlite3.Connection, work: Callable[[], object]) -> int:
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    connection.set_progress_handler(tick, 1)
    try:
        work()
    finally:
        connection.set_progress_handler(None, 0)
    return count


def _thread(shape: str, length: int) -> UUID:
    return UUID(int=(list(SHAPES).index(shape) + 1 << 32) | length << 4 | 0xF)


def _add_thread(connection: sqlite3.Connection, thread_id: UUID, contact_id: str) -> None:
    connection.execute(
        "INSERT INTO threads VALUES (?, ?, NULL, '2025-01-01 00:00:00.000000', '{}')", (thread_id.hex, contact_id)
    )


def _add_events(connection: sqlite3.Connection, thread_id: UUID, types: list[str], count: int) -> None:
    connection.executemany(
        """
        INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
        VALUES (?, printf('%031xf', ?), strftime('%Y-%m-%d %H:%M:%f000', 1735689600 + ? / 1000.0, 'unixepoch'), ?, ?)
        """,
        ((thread_id.hex, number, number, types[number % len(types)], '{"content":"Hello"}') for number in range(count)),
    )


def _add_many_keys(connection: sqlite3.Connection) -> None:
    connection.executemany(
        "INSERT INTO jimsapi_idempotency (key, body, run_id, used_at) VALUES (?, ?, ?, '2025-01-01 00:00:00.000000')",
        ((uuid7().hex, uuid7().hex, uuid7().hex) for _ in range(MANY_KEYS)),
    )


def _add_many_threads(connection: sqlite3.Connection) -> None:
    for contact_id, count in (("few", 1), ("many", MANY_THREADS)):
        connection.executemany(
            """
            INSERT INTO threads (thread_id, contact_id, created_at, thread_config)
            VALUES (?, ?, strftime('%Y-%m-%d %H:%M:%f000', 1735689600 + ? / 1000.0, 'unixepoch'), '{}')
            """,
            ((uuid7().hex, contact_id, number) for number in range(count)),
        )
