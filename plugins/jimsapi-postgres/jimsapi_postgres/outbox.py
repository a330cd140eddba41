"""The outbox of a PostgreSQL database.

Positions are taken in order, but transactions commit in another one. So a reader that sees position 7 may see position
6 later, or never, if its transaction was undone. A transaction gets its identifier before its position, as
`jimsapi_keep` says. So when a reader has seen a gap, it takes an identifier itself, which is higher than that of each
transaction that may fill the gap. It passes the gap when all transactions with lower identifiers have ended: then the
missing rows would be there.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import msgspec

from jimsapi.threads import (
    MAX_REASON,
    WEBHOOKS_OF_A_CALLER,
    DeadLetter,
    DueWebhook,
    EventRow,
    OutboxBatch,
    OutboxEvent,
    Refused,
    SinkState,
    decode_cursor,
    encode_cursor,
    row_id,
    storable_text,
)
from jimsapi_postgres import rows
from jimsapi_postgres.connections import Connection

logger = logging.getLogger("jimsapi.postgres")

Execute = Callable[[Callable[[Connection], Awaitable[Any]]], Awaitable[Any]]

HISTORY_THREADS = 100
"""The most threads whose history one call reads."""
DELETED_AT_ONCE = 5000
"""The most rows that one call deletes after all sinks have passed them."""
COUNTED = 10_000
"""Up to so many rows that wait are counted. Of more, the difference of the positions is shown."""
REGISTER_WITHIN = 15.0
"""Seconds that the registration of a sink waits for the transactions that are open. Those of chats take less."""
LOOK_EVERY = 0.05
LONG_GAP = 60.0
"""Seconds after which a gap is logged."""

_NO_ID = UUID(int=0)
_HAS_SINK = "SELECT EXISTS (SELECT FROM jimsapi_sinks WHERE name = $1)"
# The row is in no thread. It has a position after all rows of transactions that did not know of a sink.
_MARK = f"INSERT INTO jimsapi_outbox (thread_id, event_id) VALUES ('{_NO_ID}', '{_NO_ID}') RETURNING position"
_REGISTER = "INSERT INTO jimsapi_sinks (name, position) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_TIME = "(e.created_at AT TIME ZONE current_setting('TimeZone')) AT TIME ZONE 'UTC'"
_EVENT = f"e.event_id, {_TIME}, e.event_type::text, e.event_data::json"
# As a subquery with a limit, a join cannot read more than the rows that it needs.
_JOIN_EVENT = """
    LEFT JOIN LATERAL (
        SELECT * FROM thread_events e
        WHERE e.thread_id = {of}.thread_id AND e.event_id BETWEEN {of}.event_id AND {of}.event_id
        ORDER BY e.event_id
        LIMIT 1
    ) e ON true
    LEFT JOIN LATERAL (
        SELECT t.contact_id FROM threads t WHERE t.thread_id BETWEEN {of}.thread_id AND {of}.thread_id
        ORDER BY t.thread_id
        LIMIT 1
    ) t ON true
"""
_STATES = f"""
    SELECT
        s.name,
        (
            SELECT CASE WHEN n.counted < {COUNTED} THEN n.counted ELSE (
                SELECT o.position - s.position FROM jimsapi_outbox o ORDER BY o.position DESC LIMIT 1
            ) END
            FROM (
                SELECT count(*) AS counted FROM (
                    SELECT FROM jimsapi_outbox o WHERE o.position > s.position AND o.thread_id <> '{_NO_ID}'
                    LIMIT {COUNTED}
                ) o
            ) n
        ),
        (
            SELECT o.added_at FROM jimsapi_outbox o WHERE o.position > s.position AND o.thread_id <> '{_NO_ID}'
            ORDER BY o.position
            LIMIT 1
        ),
        (SELECT count(*) FROM jimsapi_dead_letters d WHERE d.sink = s.name),
        s.history, CASE WHEN s.held_until > clock_timestamp() THEN s.owner END, s.held_until
    FROM jimsapi_sinks s ORDER BY s.name
"""
_HOLD = """
    UPDATE jimsapi_sinks SET owner = $2, held_until = clock_timestamp() + $3::float8 * interval '1 second'
    WHERE name = $1 AND (owner IS NULL OR owner = $2 OR held_until <= clock_timestamp())
    RETURNING true
"""
_RELEASE = "UPDATE jimsapi_sinks SET owner = NULL WHERE name = $1 AND owner = $2"
_SINK = "SELECT position, history, history_after, rewinds FROM jimsapi_sinks WHERE name = $1"
_ROWS = f"""
    SELECT
        o.position, o.thread_id, t.contact_id, o.run_id, {_EVENT},
        pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint
    FROM (SELECT * FROM jimsapi_outbox WHERE position > $1 ORDER BY position LIMIT $2) o
    {_JOIN_EVENT.format(of="o")}
    ORDER BY o.position
"""
_AGAIN = f"""
    SELECT d.number, d.thread_id, t.contact_id, d.run_id, {_EVENT}
    FROM (SELECT * FROM jimsapi_dead_letters WHERE sink = $1 AND again ORDER BY number LIMIT $2) d
    {_JOIN_EVENT.format(of="d")}
    ORDER BY d.number
"""
_THREADS = "SELECT t.thread_id, t.contact_id FROM threads t WHERE t.thread_id >= $1 ORDER BY t.thread_id LIMIT $2"
_HISTORY = f"""
    SELECT {_EVENT}, e.created_at FROM thread_events e
    WHERE e.thread_id = $1 AND (e.created_at, e.event_id) > ($2::timestamp, $3::uuid)
    ORDER BY e.created_at, e.event_id
    LIMIT $4
"""
_HERE = "SELECT $1::timestamptz AT TIME ZONE current_setting('TimeZone')"
# The row is locked, so that no other process works for the sink until the transaction ends.
_IS_HELD = """
    SELECT true FROM jimsapi_sinks WHERE name = $1 AND owner = $2 AND held_until > clock_timestamp() FOR UPDATE
"""
# Every statement locks dead letters in the order of their numbers, so that none waits for another in a circle.
_CHOSEN = """
    SELECT d.number FROM jimsapi_dead_letters d
    WHERE d.sink = $1 AND ($2::bigint[] IS NULL OR d.number = ANY ($2::bigint[]))
    ORDER BY d.number
    FOR UPDATE
"""
_PASS_AGAIN = f"DELETE FROM jimsapi_dead_letters WHERE number = ANY (ARRAY({_CHOSEN}))"
_PASS_HISTORY = """
    UPDATE jimsapi_sinks SET history = CASE WHEN $2 <> '' THEN history END, history_after = $2
    WHERE name = $1 AND rewinds = $3
"""
_PASS_ROWS = "UPDATE jimsapi_sinks SET position = $2 WHERE name = $1"
_DELETE_PASSED = """
    DELETE FROM jimsapi_outbox
    WHERE position <= (SELECT min(position) FROM jimsapi_sinks)
        AND position < (SELECT o.position FROM jimsapi_outbox o ORDER BY o.position LIMIT 1) + $1
"""
_BURY = """
    INSERT INTO jimsapi_dead_letters (sink, thread_id, event_id, run_id, reason, failed_at)
    SELECT $1, $2, $3, $4, $5, clock_timestamp()
    WHERE EXISTS (SELECT FROM thread_events e WHERE e.thread_id = $2 AND e.event_id BETWEEN $3 AND $3)
"""
_REWIND = """
    UPDATE jimsapi_sinks SET history = $2, history_after = NULL, rewinds = rewinds + 1 WHERE name = $1 RETURNING true
"""
_LETTERS = f"""
    SELECT d.number, d.thread_id, d.event_id, d.run_id, e.event_type::text, d.reason, d.failed_at, d.again
    FROM jimsapi_dead_letters d
    {_JOIN_EVENT.format(of="d")}
    WHERE d.sink = $1 AND d.number > $3 AND e.event_id IS NOT NULL
    ORDER BY d.number
    LIMIT $2
"""
_REPLAY = f"UPDATE jimsapi_dead_letters SET again = true WHERE number = ANY (ARRAY({_CHOSEN})) RETURNING number"
_DROP = f"DELETE FROM jimsapi_dead_letters WHERE number = ANY (ARRAY({_CHOSEN})) RETURNING number"
_CLEAR = """
    DELETE FROM jimsapi_outbox
    WHERE position = ANY (ARRAY(SELECT o.position FROM jimsapi_outbox o ORDER BY o.position LIMIT $1))
        AND NOT EXISTS (SELECT FROM jimsapi_sinks)
"""
_TAKE_IDENTIFIER = "SELECT pg_current_xact_id()::text::bigint"
_OLDEST_OPEN = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
# Each step of `callers` seeks the next caller. $1 is a random one to begin with, so that all have their turn. Runs that
# were purged or deleted have no URL; their webhooks are deleted.
_TAKE_WEBHOOKS = """
    WITH RECURSIVE callers (caller) AS (
        (SELECT w.caller FROM jimsapi_webhooks w ORDER BY w.caller LIMIT 1)
        UNION ALL
        SELECT following.caller
        FROM callers
        CROSS JOIN LATERAL (
            SELECT w.caller FROM jimsapi_webhooks w WHERE w.caller > callers.caller ORDER BY w.caller LIMIT 1
        ) following
    ),
    due AS MATERIALIZED (
        SELECT d.run_id
        FROM (SELECT c.caller FROM callers c ORDER BY c.caller < $1::uuid, c.caller) c
        CROSS JOIN LATERAL (
            SELECT w.run_id FROM jimsapi_webhooks w
            WHERE w.caller = c.caller AND w.due_at <= clock_timestamp()
            ORDER BY w.due_at
            LIMIT $2
            FOR UPDATE SKIP LOCKED
        ) d
        LIMIT $3
    ),
    called AS MATERIALIZED (
        SELECT d.run_id, r.webhook_url FROM due d LEFT JOIN jimsapi_runs r ON r.run_id = d.run_id
    ),
    forgotten AS (
        DELETE FROM jimsapi_webhooks w USING called c WHERE w.run_id = c.run_id AND c.webhook_url IS NULL
    )
    UPDATE jimsapi_webhooks w SET due_at = clock_timestamp() + $4::float8 * interval '1 second'
    FROM called c
    WHERE w.run_id = c.run_id AND c.webhook_url IS NOT NULL
    RETURNING w.run_id, c.webhook_url, w.calls
"""
_DELAY_WEBHOOKS = """
    UPDATE jimsapi_webhooks w SET due_at = clock_timestamp() + $3::float8 * interval '1 second', calls = u.calls
    FROM unnest($1::uuid[], $2::int[]) u (run_id, calls)
    WHERE w.run_id = u.run_id
    RETURNING w.run_id
"""
_END_WEBHOOK = "DELETE FROM jimsapi_webhooks WHERE run_id = $1"
_AFTER_THREAD = datetime.max
"""A time after all events of a thread."""


class _Gap(msgspec.Struct):
    """The first position that a sink misses, and an identifier that is higher than those of all that may fill the gap.

    `seen_at` is the loop's time; `logged`: the log has named the gap.
    """

    first: int
    identifier: int
    seen_at: float
    logged: bool = False


class PostgresOutbox:
    """An `Outbox` in PostgreSQL. `do` and `write` do work on a connection; `write` also reports it as a commit."""

    lasting = True

    def __init__(self, do: Execute, write: Execute) -> None:
        self._do = do
        self._write = write
        self._gaps: dict[str, _Gap] = {}

    async def register(self, sink: str) -> None:
        async def register(connection: Connection) -> int | None:
            if await connection.fetchval(_HAS_SINK, sink):
                return None
            async with connection.transaction():
                await connection.execute(_REGISTER, sink, await connection.fetchval(_MARK))
            return int(await connection.fetchval(_TAKE_IDENTIFIER))

        identifier = await self._write(register)
        if identifier is not None:
            await self._until_ended(identifier)

    async def _until_ended(self, identifier: int) -> None:
        """Wait for the transactions that began before a sink was there, and do not add their events to the outbox.

        When they have ended, a sink that reads the history finds these events.
        """
        until = asyncio.get_running_loop().time() + REGISTER_WITHIN
        oldest_open = 0
        while oldest_open < identifier and asyncio.get_running_loop().time() < until:
            oldest_open = await self._do(lambda connection: connection.fetchval(_OLDEST_OPEN))
            await asyncio.sleep(0 if oldest_open >= identifier else LOOK_EVERY)

    async def remove(self, sink: str) -> bool:
        async def remove(connection: Connection) -> bool:
            async with connection.transaction():
                found = await connection.fetchval("DELETE FROM jimsapi_sinks WHERE name = $1 RETURNING true", sink)
                await connection.execute(_DROP, sink, None)
            return found is not None

        found = bool(await self._write(remove))
        clear: Any = "DELETE 1"
        while clear != "DELETE 0":  # in parts, as a sink may have lagged for days
            clear = await self._write(lambda connection: connection.execute(_CLEAR, DELETED_AT_ONCE))
        return found

    async def sinks(self) -> list[SinkState]:
        found = await self._do(lambda connection: connection.fetch(_STATES))
        return [
            SinkState(
                name,
                waiting,
                oldest and oldest.astimezone(UTC),
                dead,
                history and history.astimezone(UTC),
                None if owner is None else rows.as_uuid(owner),
                None if owner is None else held_until.astimezone(UTC),
            )
            for name, waiting, oldest, dead, history, owner, held_until in found
        ]

    async def hold(self, sink: str, owner: UUID, seconds: float) -> bool:
        return bool(await self._do(lambda connection: connection.fetchval(_HOLD, sink, owner, seconds)))

    async def release(self, sink: str, owner: UUID) -> None:
        await self._write(lambda connection: connection.execute(_RELEASE, sink, owner))

    async def read(self, sink: str, limit: int) -> OutboxBatch:
        batch: OutboxBatch = await self._do(partial(self._read, sink, limit))
        return batch

    async def _read(self, sink: str, limit: int, connection: Connection) -> OutboxBatch:
        found = await connection.fetchrow(_SINK, sink)
        if found is None:
            return OutboxBatch([], None)
        position, history, after, rewinds = found
        again = await connection.fetch(_AGAIN, sink, limit)
        if again:
            numbers = ",".join(str(row[0]) for row in again)
            return OutboxBatch(_events(again), encode_cursor("again", numbers), replayed=True)
        if history is not None:
            events, after = await _history(connection, history, after or "", limit)
            return OutboxBatch(events, encode_cursor("history", f"{rewinds} {after}"))
        passable = await self._passable(sink, position, limit, connection)
        if not passable:
            return OutboxBatch([], None)
        return OutboxBatch(_events(passable), encode_cursor("outbox", str(passable[-1][0])))

    async def _passable(self, sink: str, position: int, limit: int, connection: Connection) -> Sequence[Any]:
        """Return the next rows, up to a gap that a transaction may still fill."""
        found = await connection.fetch(_ROWS, position, limit)
        if not found or found[0][0] == position + 1:
            self._gaps.pop(sink, None)
            return _without_gaps(found)
        *_, oldest_open, next_known = found[0]
        gap = self._gaps.get(sink)
        # A server that was restored from a backup may have begun with lower identifiers.
        if gap is None or gap.first != position + 1 or gap.identifier >= next_known:
            identifier = int(await connection.fetchval(_TAKE_IDENTIFIER))
            self._gaps[sink] = _Gap(position + 1, identifier, asyncio.get_running_loop().time())
            return []
        if oldest_open < gap.identifier:
            self._log_long(sink, gap)
            return []
        return _without_gaps(found)

    def _log_long(self, sink: str, gap: _Gap) -> None:
        if not gap.logged and asyncio.get_running_loop().time() - gap.seen_at > LONG_GAP:
            gap.logged = True
            text = (
                "event sink %s waits for a transaction that has been open for %g s, perhaps of another program or "
                "another database: see pg_stat_activity"
            )
            logger.warning(text, sink, LONG_GAP)

    async def advance(self, sink: str, owner: UUID, after: str, refused: Sequence[Refused] = ()) -> bool:
        kind, position = decode_cursor(after, 2)

        async def advance(connection: Connection) -> bool:
            async with connection.transaction():
                if not await connection.fetchval(_IS_HELD, sink, owner):
                    return False
                if kind == "again":
                    await connection.execute(_PASS_AGAIN, sink, [int(number) for number in position.split(",")])
                elif kind == "history":
                    rewinds, _, history_after = position.partition(" ")
                    await connection.execute(_PASS_HISTORY, sink, history_after, int(rewinds))
                else:
                    await connection.execute(_PASS_ROWS, sink, int(position))
                for refusal in refused:
                    event = refusal.event
                    reason = storable_text(refusal.reason[:MAX_REASON])
                    await connection.execute(_BURY, sink, event.thread_id, row_id(event.row), event.run_id, reason)
            if kind == "outbox":
                await connection.execute(_DELETE_PASSED, DELETED_AT_ONCE)
            return True

        return bool(await self._write(advance))

    async def rewind(self, sink: str, since: datetime) -> bool:
        return bool(await self._write(lambda connection: connection.fetchval(_REWIND, sink, since)))

    async def dead_letters(self, sink: str, limit: int, after: int = 0) -> list[DeadLetter]:
        found = await self._do(lambda connection: connection.fetch(_LETTERS, sink, limit, after))
        return [
            DeadLetter(
                number,
                rows.as_uuid(thread_id),
                rows.as_uuid(event_id),
                None if run_id is None else rows.as_uuid(run_id),
                event_type,
                reason,
                failed_at.astimezone(UTC),
                again,
            )
            for number, thread_id, event_id, run_id, event_type, reason, failed_at, again in found
            if event_type is not None
        ]

    async def replay(self, sink: str, numbers: Sequence[int] | None = None) -> int:
        return len(await self._write(lambda connection: connection.fetch(_REPLAY, sink, numbers)))

    async def drop(self, sink: str, numbers: Sequence[int] | None = None) -> int:
        return len(await self._write(lambda connection: connection.fetch(_DROP, sink, numbers)))

    async def take_webhooks(self, limit: int, seconds: float) -> list[DueWebhook]:
        arguments = (uuid4(), WEBHOOKS_OF_A_CALLER, limit, seconds)
        found = await self._write(lambda connection: connection.fetch(_TAKE_WEBHOOKS, *arguments))
        return [DueWebhook(rows.as_uuid(run_id), url, calls) for run_id, url, calls in found if url is not None]

    async def delay_webhooks(self, calls: Mapping[UUID, int], seconds: float) -> int:
        arguments = (list(calls), list(calls.values()), seconds)
        return len(await self._write(lambda connection: connection.fetch(_DELAY_WEBHOOKS, *arguments)))

    async def end_webhook(self, run_id: UUID) -> None:
        await self._write(lambda connection: connection.execute(_END_WEBHOOK, run_id))

    async def count_webhooks(self) -> int:
        return int(await self._do(lambda connection: connection.fetchval("SELECT count(*) FROM jimsapi_webhooks")))


def _events(found: Sequence[Any]) -> list[OutboxEvent]:
    """Return the events of rows, without those that were deleted."""
    return [_event(row[1], row[2], row[3], row[4:8]) for row in found if row[4] is not None]


def _event(thread_id: Any, contact_id: str | None, run_id: Any, row: Sequence[Any]) -> OutboxEvent:
    event: EventRow = rows.event_row(row)
    return OutboxEvent(rows.as_uuid(thread_id), contact_id, None if run_id is None else rows.as_uuid(run_id), event)


def _without_gaps(found: Sequence[Any]) -> Sequence[Any]:
    """Return rows up to the first gap between two of them."""
    for number, row in enumerate(found):
        if row[0] != found[0][0] + number:
            return found[:number]
    return found


async def _history(connection: Connection, since: datetime, after: str, limit: int) -> tuple[list[OutboxEvent], str]:
    """Return events since a time, thread by thread, and the position after them; "" if there are no more.

    A position is the thread, time and identifier of an event.
    """
    thread, *last = after.split("|")
    last_thread = UUID(thread) if thread else _NO_ID
    threads = await connection.fetch(_THREADS, last_thread, HISTORY_THREADS)
    first: tuple[datetime, UUID] = await connection.fetchval(_HERE, since), _NO_ID
    events: list[OutboxEvent] = []
    for thread_id, contact_id in threads:
        begin = (datetime.fromisoformat(last[0]), UUID(last[1])) if last and thread_id == last_thread else first
        found = await connection.fetch(_HISTORY, thread_id, *begin, limit - len(events))
        events += [_event(thread_id, contact_id, None, row[:4]) for row in found]
        if len(events) == limit:
            return events, _position(thread_id, found[-1][4], found[-1][0])
    if len(threads) < HISTORY_THREADS:
        return events, ""
    return events, _position(threads[-1][0], _AFTER_THREAD, _NO_ID)


def _position(thread_id: UUID, time: datetime, event_id: UUID) -> str:
    return f"{thread_id.hex}|{time.isoformat()}|{event_id.hex}"
