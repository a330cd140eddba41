"""The outbox of an SQLite database."""

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID, uuid4

from jimsapi.stores.sqlite.reads import utc
from jimsapi.stores.sqlite.rows import id_hex, id_text, time_text
from jimsapi.stores.sqlite.schema import HAS_SINKS, Connection
from jimsapi.threads.event import EventRow, row_id, utc_now
from jimsapi.threads.outbox import (
    MAX_REASON,
    WEBHOOKS_OF_A_CALLER,
    DeadLetter,
    DueWebhook,
    OutboxBatch,
    OutboxEvent,
    Refused,
    SinkState,
)
from jimsapi.threads.storable import storable_text
from jimsapi.threads.store import decode_cursor, encode_cursor

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]
Execute = Callable[[Work[Any]], Awaitable[Any]]

HISTORY_THREADS = 100
"""The most threads whose history one call reads, since other reads wait meanwhile."""
DELETED_AT_ONCE = 5000
"""The most rows that one call deletes after all sinks have passed them, since other writes wait meanwhile."""

_ADD = """
    INSERT INTO jimsapi_outbox (thread_id, event_id, run_id, added_at)
    SELECT ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM jimsapi_sinks)
"""
_ADD_THREAD = """
    INSERT INTO jimsapi_outbox (thread_id, event_id, added_at)
    SELECT thread_id, event_id, ?2 FROM thread_events INDEXED BY jimsapi_events_order
    WHERE thread_id = ?1 AND EXISTS (SELECT 1 FROM jimsapi_sinks) ORDER BY created_at, event_id
"""
_LAST = "SELECT coalesce(max(position), 0) FROM jimsapi_outbox"
_REGISTER = f"INSERT OR IGNORE INTO jimsapi_sinks (name, position) VALUES (?, ({_LAST}))"
_STATES = f"""
    SELECT
        name, ({_LAST}) - position,
        (
            SELECT o.added_at FROM jimsapi_outbox o WHERE o.position > s.position ORDER BY o.position LIMIT 1
        ),
        (SELECT count(*) FROM jimsapi_dead_letters d WHERE d.sink = s.name),
        history, CASE WHEN held_until > ?1 THEN owner END, held_until
    FROM jimsapi_sinks s ORDER BY name
"""
_HOLD = """
    UPDATE jimsapi_sinks SET owner = ?2, held_until = ?3
    WHERE name = ?1 AND (owner IS NULL OR owner = ?2 OR held_until <= ?4)
"""
_RELEASE = "UPDATE jimsapi_sinks SET owner = NULL WHERE name = ? AND owner = ?"
_SINK = "SELECT position, history, history_after, rewinds FROM jimsapi_sinks WHERE name = ?"
_IS_HELD = "SELECT 1 FROM jimsapi_sinks WHERE name = ? AND owner = ? AND held_until > ?"
_EVENT = "e.event_id, e.created_at, e.event_type, CAST(e.event_data AS BLOB)"
_ROWS = f"""
    SELECT o.position, o.thread_id, t.contact_id, o.run_id, {_EVENT}
    FROM (SELECT * FROM jimsapi_outbox WHERE position > ? ORDER BY position LIMIT ?) o
    LEFT JOIN thread_events e ON e.thread_id = o.thread_id AND e.event_id = o.event_id
    LEFT JOIN threads t ON t.thread_id = o.thread_id
    ORDER BY o.position
"""
_AGAIN = f"""
    SELECT d.number, d.thread_id, t.contact_id, d.run_id, {_EVENT}
    FROM (
        SELECT * FROM jimsapi_dead_letters INDEXED BY jimsapi_dead_letters_again
        WHERE sink = ? AND again = 1 ORDER BY number LIMIT ?
    ) d
    LEFT JOIN thread_events e ON e.thread_id = d.thread_id AND e.event_id = d.event_id
    LEFT JOIN threads t ON t.thread_id = d.thread_id
    ORDER BY d.number
"""
_THREADS = "SELECT thread_id, contact_id FROM threads WHERE thread_id >= ? ORDER BY thread_id LIMIT ?"
_HISTORY = f"""
    SELECT {_EVENT} FROM thread_events e INDEXED BY jimsapi_events_order
    WHERE thread_id = ? AND (created_at, event_id) > (?, ?) ORDER BY created_at, event_id LIMIT ?
"""
_END = "9"
"""A time after all events of a thread: times are text that begins with the year."""
_PASS_HISTORY = """
    UPDATE jimsapi_sinks
    SET history = CASE WHEN ?1 = '' THEN NULL ELSE history END, history_after = ?1 WHERE name = ?2 AND rewinds = ?3
"""
_DELETE_PASSED = """
    DELETE FROM jimsapi_outbox
    WHERE position <= (SELECT min(position) FROM jimsapi_sinks)
        AND position < (SELECT min(position) FROM jimsapi_outbox) + ?
        AND position < (SELECT max(position) FROM jimsapi_outbox)
"""
_BURY = """
    INSERT INTO jimsapi_dead_letters (sink, number, thread_id, event_id, run_id, reason, failed_at)
    SELECT ?1, (SELECT letters FROM jimsapi_sinks WHERE name = ?1), ?2, ?3, ?4, ?5, ?6
    WHERE EXISTS (SELECT 1 FROM thread_events WHERE thread_id = ?2 AND event_id = ?3)
"""
_NO_CALLER = "-"
"""It sorts before all digests. A run without auth has no caller."""
_ADD_WEBHOOK = f"""
    INSERT OR IGNORE INTO jimsapi_webhooks (run_id, caller, due_at)
    SELECT run_id, coalesce(caller, '{_NO_CALLER}'), ? FROM jimsapi_runs
    WHERE run_id = ? AND webhook_url IS NOT NULL
"""
_NEXT_CALLER = "SELECT min(caller) FROM jimsapi_webhooks WHERE caller > ?"
_DUE = """
    SELECT w.run_id, r.webhook_url, w.calls
    FROM (
        SELECT run_id, calls, due_at FROM jimsapi_webhooks INDEXED BY jimsapi_webhooks_due
        WHERE caller = ? AND due_at <= ? ORDER BY due_at LIMIT ?
    ) w
    LEFT JOIN jimsapi_runs r ON r.run_id = w.run_id
    ORDER BY w.due_at
"""
_ANY_DUE = """
    WITH RECURSIVE callers (caller) AS (
        SELECT min(caller) FROM jimsapi_webhooks
        UNION ALL
        SELECT (SELECT min(w.caller) FROM jimsapi_webhooks w WHERE w.caller > c.caller) FROM callers c
        WHERE c.caller IS NOT NULL
    )
    SELECT EXISTS (
        SELECT 1 FROM callers c WHERE (
            SELECT min(w.due_at) FROM jimsapi_webhooks w INDEXED BY jimsapi_webhooks_due WHERE w.caller = c.caller
        ) <= ?
    )
"""
_DELAY = "UPDATE jimsapi_webhooks SET due_at = ?, calls = ? WHERE run_id = ?"
_FORGET_WEBHOOK = "DELETE FROM jimsapi_webhooks WHERE run_id = ?"
_LETTERS = """
    SELECT d.number, d.thread_id, d.event_id, d.run_id, e.event_type, d.reason, d.failed_at, d.again
    FROM jimsapi_dead_letters d
    CROSS JOIN thread_events e ON e.thread_id = d.thread_id AND e.event_id = d.event_id
    WHERE d.sink = ? AND d.number > ? ORDER BY d.number LIMIT ?
"""


def add_to_outbox(connection: sqlite3.Connection, thread: str, rows: Iterable[EventRow], run_id: UUID | None) -> None:
    """Add stored events of a thread, which were just stored, to the outbox, if a sink is registered."""
    if getattr(connection, "may_have_sinks", True):
        run = None if run_id is None else id_hex(run_id)
        now = time_text(utc_now())
        connection.executemany(_ADD, [(thread, row.event_id, run, now) for row in rows])


def add_thread_to_outbox(connection: sqlite3.Connection, thread: str) -> None:
    """Add all events of a thread, which was just made, to the outbox, if a sink is registered."""
    connection.execute(_ADD_THREAD, (thread, time_text(utc_now())))


def add_webhook(connection: sqlite3.Connection, run: str, due_at: datetime) -> None:
    """Add the webhook of a run that has ended, if it has one."""
    connection.execute(_ADD_WEBHOOK, (time_text(due_at), run))


class SQLiteOutbox:
    """An `Outbox` in an SQLite database. `read` and `write` execute work on a connection; `write` in a transaction."""

    lasting = True

    def __init__(self, read: Execute, write: Execute) -> None:
        self._read = read
        self._write = write

    async def register(self, sink: str) -> None:
        await self._write(partial(_register, sink=sink))

    async def remove(self, sink: str) -> bool:
        return bool(await self._write(partial(_remove, sink=sink)))

    async def sinks(self) -> list[SinkState]:
        states: list[SinkState] = await self._read(_states)
        return states

    async def hold(self, sink: str, owner: UUID, seconds: float) -> bool:
        return bool(await self._write(partial(_hold, sink=sink, owner=owner, seconds=seconds)))

    async def release(self, sink: str, owner: UUID) -> None:
        await self._write(partial(_release, sink=sink, owner=owner))

    async def read(self, sink: str, limit: int) -> OutboxBatch:
        batch: OutboxBatch = await self._read(partial(_batch, sink=sink, limit=limit))
        return batch

    async def advance(self, sink: str, owner: UUID, after: str, refused: Sequence[Refused] = ()) -> bool:
        return bool(await self._write(partial(_advance, sink=sink, owner=owner, after=after, refused=refused)))

    async def rewind(self, sink: str, since: datetime) -> bool:
        return bool(await self._write(partial(_rewind, sink=sink, since=since)))

    async def dead_letters(self, sink: str, limit: int, after: int = 0) -> list[DeadLetter]:
        letters: list[DeadLetter] = await self._read(partial(_letters, sink=sink, limit=limit, after=after))
        return letters

    async def replay(self, sink: str, numbers: Sequence[int] | None = None) -> int:
        statement = "UPDATE jimsapi_dead_letters SET again = 1 WHERE sink = ?"
        return int(await self._write(partial(_for_each, statement=statement, sink=sink, numbers=numbers)))

    async def drop(self, sink: str, numbers: Sequence[int] | None = None) -> int:
        statement = "DELETE FROM jimsapi_dead_letters WHERE sink = ?"
        return int(await self._write(partial(_for_each, statement=statement, sink=sink, numbers=numbers)))

    async def take_webhooks(self, limit: int, seconds: float) -> list[DueWebhook]:
        if not await self._read(_any_due):  # a write would sync the disk
            return []
        taken: list[DueWebhook] = await self._write(partial(_take_webhooks, limit=limit, seconds=seconds))
        return taken

    async def delay_webhooks(self, calls: Mapping[UUID, int], seconds: float) -> int:
        return int(await self._write(partial(_delay_webhooks, calls=calls, seconds=seconds)))

    async def end_webhook(self, run_id: UUID) -> None:
        await self._write(partial(_end_webhook, run_id=run_id))

    async def count_webhooks(self) -> int:
        return int(await self._read(_count_webhooks))


def _register(connection: sqlite3.Connection, sink: str) -> None:
    if isinstance(connection, Connection):
        connection.may_have_sinks = True  # also if the transaction fails: rows are added only if there is a sink
    connection.execute(_REGISTER, (sink,))


def _remove(connection: sqlite3.Connection, sink: str) -> bool:
    found = connection.execute("DELETE FROM jimsapi_sinks WHERE name = ?", (sink,)).rowcount
    connection.execute("DELETE FROM jimsapi_dead_letters WHERE sink = ?", (sink,))
    if not connection.execute(HAS_SINKS).fetchone()[0]:
        connection.execute("DELETE FROM jimsapi_outbox")
    return found > 0


def _states(connection: sqlite3.Connection) -> list[SinkState]:
    states: list[SinkState] = []
    for name, waiting, oldest, dead, history, owner, held_until in connection.execute(_STATES, (time_text(utc_now()),)):
        states.append(
            SinkState(
                name,
                waiting,
                None if oldest is None else utc(oldest),
                dead,
                None if history is None else utc(history),
                None if owner is None else UUID(owner),
                None if owner is None else utc(held_until),
            )
        )
    return states


def _hold(connection: sqlite3.Connection, sink: str, owner: UUID, seconds: float) -> bool:
    now = utc_now()
    until = now + timedelta(seconds=seconds)
    return connection.execute(_HOLD, (sink, id_hex(owner), time_text(until), time_text(now))).rowcount > 0


def _release(connection: sqlite3.Connection, sink: str, owner: UUID) -> None:
    connection.execute(_RELEASE, (sink, id_hex(owner)))


def _batch(connection: sqlite3.Connection, sink: str, limit: int) -> OutboxBatch:
    found = connection.execute(_SINK, (sink,)).fetchone()
    if found is None:
        return OutboxBatch([], None)
    position, history, after, rewinds = found
    rows = connection.execute(_AGAIN, (sink, limit)).fetchall()
    if rows:
        return OutboxBatch(_events(rows), encode_cursor("again", ",".join(str(row[0]) for row in rows)), replayed=True)
    if history is not None:
        events, after = _history(connection, history, after or "", limit)
        return OutboxBatch(events, encode_cursor("history", f"{rewinds} {after}"))
    rows = connection.execute(_ROWS, (position, limit)).fetchall()
    if not rows:
        return OutboxBatch([], None)
    return OutboxBatch(_events(rows), encode_cursor("outbox", str(rows[-1][0])))


def _events(rows: Sequence[Any]) -> list[OutboxEvent]:
    """Return the events of rows, without those that were deleted."""
    return [
        OutboxEvent(UUID(thread), contact, None if run is None else UUID(run), EventRow(id_text(event), *rest))
        for _, thread, contact, run, event, *rest in rows
        if event is not None
    ]


def _history(connection: sqlite3.Connection, since: str, after: str, limit: int) -> tuple[list[OutboxEvent], str]:
    """Return events since a time, thread by thread, and the position after them; "" if there are no more.

    A position is the thread, time and identifier of an event.
    """
    last_thread, *last = after.split("|")
    threads = connection.execute(_THREADS, (last_thread, HISTORY_THREADS)).fetchall()
    events: list[OutboxEvent] = []
    for stored_id, contact in threads:
        thread = id_text(stored_id)
        begin = last if thread == last_thread else (since, "")
        for event, *rest in connection.execute(_HISTORY, (thread, *begin, limit - len(events))):
            events.append(OutboxEvent(UUID(thread), contact, None, EventRow(id_text(event), *rest)))
        if len(events) == limit:
            newest = events[-1].row
            return events, f"{thread}|{newest.created_at}|{newest.event_id}"
    if len(threads) < HISTORY_THREADS:
        return events, ""
    return events, f"{id_text(threads[-1][0])}|{_END}|"


def _advance(connection: sqlite3.Connection, sink: str, owner: UUID, after: str, refused: Sequence[Refused]) -> bool:
    now = time_text(utc_now())
    if connection.execute(_IS_HELD, (sink, id_hex(owner), now)).fetchone() is None:
        return False
    kind, position = decode_cursor(after, 2)
    if kind == "again":
        numbers = [(sink, int(number)) for number in position.split(",")]
        connection.executemany("DELETE FROM jimsapi_dead_letters WHERE sink = ? AND number = ?", numbers)
    elif kind == "history":
        rewinds, _, history_after = position.partition(" ")
        connection.execute(_PASS_HISTORY, (history_after, sink, int(rewinds)))
    else:
        connection.execute("UPDATE jimsapi_sinks SET position = ? WHERE name = ?", (int(position), sink))
        connection.execute(_DELETE_PASSED, (DELETED_AT_ONCE,))
    for refusal in refused:
        event = refusal.event
        run = None if event.run_id is None else id_hex(event.run_id)
        reason = storable_text(refusal.reason[:MAX_REASON])
        connection.execute("UPDATE jimsapi_sinks SET letters = letters + 1 WHERE name = ?", (sink,))
        connection.execute(_BURY, (sink, id_hex(event.thread_id), id_hex(row_id(event.row)), run, reason, now))
    return True


def _rewind(connection: sqlite3.Connection, sink: str, since: datetime) -> bool:
    time = time_text(since.astimezone(UTC).replace(tzinfo=None))
    statement = "UPDATE jimsapi_sinks SET history = ?, history_after = NULL, rewinds = rewinds + 1 WHERE name = ?"
    return connection.execute(statement, (time, sink)).rowcount > 0


def _letters(connection: sqlite3.Connection, sink: str, limit: int, after: int) -> list[DeadLetter]:
    return [
        DeadLetter(
            number, UUID(thread), UUID(event), None if run is None else UUID(run), kind, reason, utc(at), bool(again)
        )
        for number, thread, event, run, kind, reason, at, again in connection.execute(_LETTERS, (sink, after, limit))
    ]


def _for_each(connection: sqlite3.Connection, statement: str, sink: str, numbers: Sequence[int] | None) -> int:
    """Execute a statement for these dead letters of a sink. Returns the number of those that it found."""
    if numbers is None:
        return connection.execute(statement, (sink,)).rowcount
    return sum(connection.execute(f"{statement} AND number = ?", (sink, number)).rowcount for number in set(numbers))


def _any_due(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute(_ANY_DUE, (time_text(utc_now()),)).fetchone()[0])


def _take_webhooks(connection: sqlite3.Connection, limit: int, seconds: float) -> list[DueWebhook]:
    now = utc_now()
    taken: list[DueWebhook] = []
    # Callers are in the order of a digest. A random first one gives all of them their turn.
    first = id_hex(uuid4())
    for caller in (*_callers(connection, first), *_callers(connection, "", until=first)):
        at_once = min(WEBHOOKS_OF_A_CALLER, limit - len(taken))
        for run, url, calls in connection.execute(_DUE, (caller, time_text(now), at_once)).fetchall():
            if url is None:
                connection.execute(_FORGET_WEBHOOK, (run,))
            else:
                connection.execute(_DELAY, (time_text(now + timedelta(seconds=seconds)), calls, run))
                taken.append(DueWebhook(UUID(run), url, calls))
        if len(taken) == limit:
            break
    return taken


def _callers(connection: sqlite3.Connection, after: str, until: str = "~") -> Iterator[str]:
    """Yield the callers after one that have webhooks, in order."""
    caller: str | None = after
    while caller is not None:
        (caller,) = connection.execute(_NEXT_CALLER, (caller,)).fetchone()
        if caller is None or caller > until:
            return
        yield caller


def _delay_webhooks(connection: sqlite3.Connection, calls: Mapping[UUID, int], seconds: float) -> int:
    due_at = time_text(utc_now() + timedelta(seconds=seconds))
    cursor = connection.executemany(_DELAY, [(due_at, count, id_hex(run_id)) for run_id, count in calls.items()])
    return max(0, cursor.rowcount)


def _end_webhook(connection: sqlite3.Connection, run_id: UUID) -> None:
    connection.execute(_FORGET_WEBHOOK, (id_hex(run_id),))


def _count_webhooks(connection: sqlite3.Connection) -> int:
    count: int = connection.execute("SELECT count(*) FROM jimsapi_webhooks").fetchone()[0]
    return count
