"""The PostgreSQL store: several processes, one database."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, cast
from uuid import UUID

import msgspec

from jimsapi.runs import ServiceTask
from jimsapi.threads import (
    KEEP_KEYS,
    MAX_FORKS,
    MAX_QUESTIONS,
    MODEL_USAGE,
    NO_FILTER,
    NO_RUN_FILTER,
    NOBODY,
    OPENING,
    PAGE_BYTES,
    QUESTION_ASKED,
    TICK,
    USER_MESSAGE,
    Accepted,
    Activity,
    AdoptedRun,
    ByExternalId,
    ById,
    CommitRecord,
    ContactPage,
    ContextLimits,
    Created,
    DayTotal,
    Event,
    EventNotFound,
    EventPage,
    EventRow,
    Feedback,
    ForkPlan,
    IdentifierTaken,
    InvalidCursor,
    Latest,
    Migration,
    ModelTotal,
    New,
    NewEvent,
    Outcome,
    Rating,
    Record,
    RecordKind,
    RunClosed,
    RunFilter,
    RunNotFound,
    RunPage,
    RunPlan,
    RunStatus,
    SearchPage,
    SearchQuery,
    Selector,
    Settled,
    Started,
    StoredRun,
    StoreStats,
    StoreUnavailable,
    ThreadChange,
    ThreadFacts,
    ThreadFilter,
    ThreadNotFound,
    ThreadPage,
    ThreadPlan,
    ThreadQuery,
    ThreadRecord,
    ThreadSummary,
    UsageHolder,
    WholeThread,
    decode_cursor,
    encode_cursor,
    end_with,
    ends_of_questions,
    may_see,
    orphan_status,
    select_thread,
    take_page,
    uuid7,
)
from jimsapi_postgres import maintenance, rows, schema, transfer
from jimsapi_postgres.connections import STATEMENT_TIMEOUT, Connection, Connector, Link, Pool, Work
from jimsapi_postgres.errors import DAMAGED, DENIED, DISK_FULL, ConnectionLost, NotConnected, as_unusable
from jimsapi_postgres.lanes import BY_IDS, Lanes
from jimsapi_postgres.lists import read_contacts, read_runs
from jimsapi_postgres.outbox import PostgresOutbox
from jimsapi_postgres.peers import RECOVER, RECOVERED_AT_ONCE, SILENCE, Peers
from jimsapi_postgres.search import (
    LAST_NUMBER,
    Position,
    add_to_index,
    filtered_threads,
    find_stale,
    read_search_cursor,
    search,
)
from jimsapi_postgres.subscriptions import PostgresSubscriptions, forget_deleted
from jimsapi_postgres.url import parse_url

T = TypeVar("T")

LANES = 2
POOL = 3
DELETIONS = 2
"""Maximum number of deletions at a time. They may take long, and must leave connections for other operations."""
PING_TIMEOUT = 5.0
FAULT_SHOWN_FOR = 10.0
"""Seconds for which `ping` fails after a full disk, a damaged table or denied access to a table. The small write of
`ping` goes to another table, so it may succeed in spite of the fault."""
CLOSE_WITHIN = 5.0
WAIT_FOR_UPGRADE = 45.0
DELETE_TIMEOUT = 300.0
"""Seconds that one transaction of a deletion may take in the database."""
DELETED_AT_ONCE = 500
"""Threads of a contact that are deleted in one transaction, which holds a lock for each."""
KEEP_OWNERS = timedelta(hours=1)
"""How long the row of a process without heartbeats and open runs is kept. If the process was only suspended, its next
heartbeat adds the row again."""
EXPIRED_AT_ONCE = 100
PURGED_AT_ONCE = 1000
ADOPTED_AT_ONCE = 1000

_EVENT = "e.event_id, e.created_at, e.event_type, e.event_data::json"
_THREAD = "t.thread_id, t.contact_id, t.created_at, t.thread_config::json"

# A page and a context end when their text exceeds a limit. The least size of a row's text is known without fetching it,
# so the query leaves out rows that are certainly beyond the end.
_WITHIN = "WHERE position <= 2 OR weight - size <= {limit}"

_BY_ID = f"SELECT {_THREAD} FROM threads t WHERE t.thread_id BETWEEN $1 AND $1 ORDER BY t.thread_id LIMIT 1"
_LATEST = f"""
    SELECT {_THREAD} FROM threads t WHERE t.contact_id = $1 ORDER BY t.created_at DESC, t.thread_id DESC LIMIT 1
"""
_BY_EXTERNAL_ID = f"SELECT {_THREAD} FROM threads t WHERE t.external_id = $1 ORDER BY t.created_at DESC LIMIT 1"
_WAS_ACTIVE = """
    SELECT e.created_at >= clock_timestamp()::timestamp - $2::float8 * interval '1 second' FROM thread_events e
    WHERE e.thread_id = $1
    ORDER BY e.created_at DESC, e.event_id DESC
    LIMIT 1
"""
_THREADS = f"""
    SELECT thread_id, contact_id, created_at, thread_config FROM (
        SELECT n.*, row_number() OVER w AS position, sum(n.size) OVER w AS weight
        FROM (
            SELECT {_THREAD}, pg_column_size(t.thread_config) / 16 AS size FROM threads t
            WHERE t.contact_id = $1 AND (t.created_at, t.thread_id) < ($2, $3)
                AND ($5::boolean IS NULL OR $5 = EXISTS (
                    SELECT FROM jimsapi_threads f WHERE f.thread_id = t.thread_id AND f.archived_at IS NOT NULL
                ))
            ORDER BY t.created_at DESC, t.thread_id DESC
            LIMIT $4
        ) n
        WINDOW w AS (ORDER BY n.created_at DESC, n.thread_id DESC ROWS UNBOUNDED PRECEDING)
    ) page
    {_WITHIN.format(limit=PAGE_BYTES)}
"""
_EVENTS = f"""
    SELECT event_id, created_at, event_type, event_data, created_at AT TIME ZONE current_setting('TimeZone') FROM (
        SELECT n.*, row_number() OVER w AS position, sum(n.size) OVER w AS weight
        FROM (
            SELECT {_EVENT}, coalesce(pg_column_size(e.event_data) - 4, 0) AS size FROM thread_events e
            WHERE e.thread_id = $1 AND (e.created_at, e.event_id) > ($2, $3)
            ORDER BY e.created_at, e.event_id
            LIMIT $4
        ) n
        WINDOW w AS (ORDER BY n.created_at, n.event_id ROWS UNBOUNDED PRECEDING)
    ) page
    {_WITHIN.format(limit=PAGE_BYTES)}
"""
_BEFORE = f"""
    SELECT {_EVENT} FROM thread_events e
    WHERE e.thread_id = $1 AND (e.created_at, e.event_id) < ($2, $3)
    ORDER BY e.created_at DESC, e.event_id DESC
    LIMIT $4
"""
_START = "SELECT part, verdict, id, at, kind, data, taken FROM jimsapi_start($1, $2, $3, $4, $5, $6, $7)"
_APPEND = "SELECT verdict, first_at, taken FROM jimsapi_append($1, $2, $3, $4, $5, $6)"
_ADOPT = """
    SELECT run_id, thread_id, contact_id, message_id, message_type, message_data, caller, webhook_url, beside, restarts
    FROM jimsapi_adopt($1, $2, $3, $4, $5)
"""
# `start` needs the owner, so two calls that claim a run differ only in which of them locks its row first.
_CLAIM = """
    WITH claimed AS (
        UPDATE jimsapi_runs r SET owner = $2
        WHERE r.run_id = $1 AND r.finished_at IS NULL AND r.status = 'queued' AND r.owner IN ($2, $3)
            AND NOT EXISTS (
                SELECT FROM jimsapi_runs o
                WHERE o.thread_id = r.thread_id AND o.finished_at IS NULL AND o.seq < r.seq
            )
        RETURNING r.*
    )
    SELECT
        r.run_id, r.thread_id, t.contact_id::text, r.message_id, r.message_type::text, r.message_data, r.caller,
        r.webhook_url, r.beside, r.restarts
    FROM claimed r JOIN threads t ON t.thread_id = r.thread_id
"""
_UNCLAIMED = """
    SELECT r.run_id FROM jimsapi_runs r
    WHERE r.owner = $1 AND r.finished_at IS NULL AND r.status = 'queued'
        AND r.accepted_at < clock_timestamp() - $2::interval
        AND NOT EXISTS (
            SELECT FROM jimsapi_runs o
            WHERE o.thread_id = r.thread_id AND o.finished_at IS NULL AND o.seq < r.seq
        )
    ORDER BY r.accepted_at, r.seq
    LIMIT $3
"""
_END = "SELECT run_id, counted, status, next_run FROM jimsapi_end($1, $2, $3, $4, $5)"
# The idempotency keys of the threads that the function deletes are deleted, too. A key is stored while its run is
# accepted, which takes at most the timeout of a statement, so the index on the times finds it. All parts of the
# statement read the tables as they were before it.
_DELETE = f"""
    WITH of_threads AS MATERIALIZED (
        SELECT t.thread_id FROM threads t
        WHERE t.thread_id = $1::uuid AND ($3::text IS NULL OR t.contact_id = $3)
        UNION ALL (
            SELECT t.thread_id FROM threads t
            WHERE $1 IS NULL AND t.contact_id = $2::text
            ORDER BY t.created_at, t.thread_id
            LIMIT $5::int
        )
    ),
    of_runs AS MATERIALIZED (
        SELECT r.run_id, r.accepted_at FROM jimsapi_runs r
        WHERE r.thread_id = ANY (ARRAY(SELECT thread_id FROM of_threads)) AND r.finished_at IS NULL
        UNION ALL
        SELECT r.run_id, r.accepted_at FROM jimsapi_runs r
        WHERE r.thread_id = ANY (ARRAY(SELECT thread_id FROM of_threads)) AND r.finished_at IS NOT NULL
    ),
    deleted_keys AS (
        DELETE FROM jimsapi_idempotency k USING of_runs r
        WHERE k.run_id = r.run_id
            AND k.used_at BETWEEN r.accepted_at - interval '{STATEMENT_TIMEOUT:g} s' AND r.accepted_at
    )
    SELECT closed, thread_count FROM jimsapi_delete($1, $2, $3, $4, $5)
"""
_BEAT = """
    INSERT INTO jimsapi_owners (owner, beat_at) VALUES ($1, clock_timestamp())
    ON CONFLICT (owner) DO UPDATE SET beat_at = excluded.beat_at
"""
_OPEN_RUNS = """
    SELECT run_id FROM jimsapi_runs WHERE owner = $1 AND finished_at IS NULL AND adoption IS DISTINCT FROM $2
"""
_RUN = """
    SELECT
        t.contact_id, r.caller, r.thread_id, r.status, r.created_new_thread, r.accepted_at, r.started_at, r.finished_at,
        r.error, r.failure, r.streamed, r.message_id, r.restarts, r.sent_at, r.sent
    FROM jimsapi_runs r JOIN threads t ON t.thread_id = r.thread_id
    WHERE r.run_id = $1
"""
_BETWEEN = """
    SELECT e.event_id, e.created_at, e.event_type, e.event_data::json,
        e.created_at AT TIME ZONE current_setting('TimeZone')
    FROM thread_events e
    WHERE e.thread_id = $1 AND e.created_at BETWEEN $2 AND $3
    ORDER BY e.created_at, e.event_id
"""
# One statement is one transaction. It needs no lock: of two threads that are created at once, either may be the newest.
_CREATE = """
    WITH made AS (
        INSERT INTO threads (thread_id, contact_id, created_at, thread_config)
        SELECT
            $1::uuid, $2::text,
            greatest($3::timestamp, (
                SELECT n.created_at FROM threads n WHERE n.contact_id = $2::text
                ORDER BY n.created_at DESC, n.thread_id DESC
                LIMIT 1
            ) + interval '1 microsecond'),
            $4::json
        WHERE NOT EXISTS (SELECT FROM threads t WHERE t.thread_id = $1::uuid)
        ON CONFLICT DO NOTHING
        RETURNING thread_id
    ), told AS (
        INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
        SELECT
            made.thread_id, e.id, now()::timestamp + (e.position - 1) * interval '1 microsecond', e.kind, e.data
        FROM made, unnest($5::uuid[], $6::text[], $7::json[]) WITH ORDINALITY e (id, kind, data, position)
        RETURNING thread_id, event_id, created_at
    ), kept AS (
        INSERT INTO jimsapi_outbox (thread_id, event_id)
        SELECT told.thread_id, told.event_id FROM told
        WHERE EXISTS (SELECT FROM jimsapi_sinks)
        ORDER BY told.created_at
    )
    INSERT INTO jimsapi_threads (thread_id, metadata) SELECT made.thread_id, $8::json FROM made
"""
_FORK = "SELECT verdict FROM jimsapi_fork($1, $2, $3, $4, $5, $6, $7)"
_CHANGE_THREAD = """
    SELECT title, archived_at, metadata, parent_id, parent_event_id FROM jimsapi_change_thread($1, $2, $3, $4, $5, $6)
"""
_EXPIRE = "SELECT expired, last FROM jimsapi_expire($1, $2, $3)"
_RATE = "SELECT verdict FROM jimsapi_rate($1, $2, $3, $4, $5)"
_FEEDBACK = """
    SELECT f.event_id, f.rating, f.comment, f.given_at
    FROM jimsapi_feedback f JOIN thread_events e ON e.thread_id = f.thread_id AND e.event_id = f.event_id
    WHERE f.thread_id = $1 AND (e.created_at, e.event_id) > ($2, $3)
    ORDER BY e.created_at, e.event_id
    LIMIT $4
"""
_POSITION = """
    SELECT e.created_at, e.event_id FROM thread_events e WHERE e.thread_id = $1 AND e.event_id = $2
    ORDER BY e.event_id
    LIMIT 1
"""
_THREAD_USAGE = """
    SELECT model, calls, input, output, cached, cost FROM jimsapi_thread_usage WHERE thread_id = $1 ORDER BY model
"""
_CONTACT_USAGE = """
    SELECT day, model, sum(calls), sum(input), sum(output), sum(cached), sum(cost) FROM jimsapi_contact_usage
    WHERE contact_id = $1 AND day BETWEEN $2 AND $3 AND ($4::uuid IS NULL OR caller = $4)
    GROUP BY day, model
    ORDER BY day, model
"""
_CALLER_USAGE = """
    SELECT day, model, calls, input, output, cached, cost FROM jimsapi_caller_usage
    WHERE caller = $1 AND day BETWEEN $2 AND $3
    ORDER BY day, model
"""
_ADD_USAGE = "SELECT jimsapi_add_usage($1, $2, $3, $4)"
_SUMMARIES = f"""
    SELECT
        f.title, f.archived_at, f.metadata, f.parent_id, f.parent_event_id,
        (
            SELECT e.created_at AT TIME ZONE current_setting('TimeZone') FROM thread_events e
            WHERE e.thread_id = i.thread
            ORDER BY e.created_at DESC, e.event_id DESC
            LIMIT 1
        ),
        (
            SELECT count(*) FROM (
                SELECT FROM jimsapi_threads c WHERE c.parent_id = i.thread ORDER BY c.parent_id LIMIT {MAX_FORKS}
            ) forks
        ),
        o.*, n.*,
        ARRAY(
            SELECT e.event_data::json FROM thread_events e
            WHERE e.thread_id = i.thread AND e.event_type = '{QUESTION_ASKED}'
            ORDER BY e.created_at DESC, e.event_id DESC
            LIMIT {MAX_QUESTIONS}
        )
    FROM unnest($1::uuid[]) WITH ORDINALITY i (thread, item)
    LEFT JOIN jimsapi_threads f ON f.thread_id = i.thread
    LEFT JOIN LATERAL (
        SELECT {_EVENT} FROM (
            SELECT event_id FROM (
                SELECT event_id, created_at, event_type FROM thread_events
                WHERE thread_id = i.thread AND substr(event_type, 1, 5) = 'comm.'
                ORDER BY created_at, event_id
                LIMIT {OPENING}
            ) opening
            ORDER BY event_type <> '{USER_MESSAGE}', created_at, event_id
            LIMIT 1
        ) first JOIN thread_events e ON e.thread_id = i.thread AND e.event_id = first.event_id
    ) o ON true
    LEFT JOIN LATERAL (
        SELECT {_EVENT} FROM thread_events e
        WHERE e.thread_id = i.thread AND substr(e.event_type, 1, 5) = 'comm.'
        ORDER BY e.created_at DESC, e.event_id DESC
        LIMIT 1
    ) n ON true
    ORDER BY i.item
"""
_PURGE = """
    DELETE FROM jimsapi_runs WHERE run_id = ANY (ARRAY(
        SELECT r.run_id FROM jimsapi_runs r
        WHERE r.finished_at IS NOT NULL AND r.finished_at < now() - $1::interval
        ORDER BY r.finished_at
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    ))
"""
_PURGE_OWNERS = """
    DELETE FROM jimsapi_owners o
    WHERE o.beat_at < clock_timestamp() - $1::interval
        AND NOT EXISTS (SELECT FROM jimsapi_runs r WHERE r.finished_at IS NULL AND r.owner = o.owner)
"""
_PURGE_WEBHOOKS = """
    DELETE FROM jimsapi_webhooks w WHERE NOT EXISTS (SELECT FROM jimsapi_runs r WHERE r.run_id = w.run_id)
"""
_PURGE_KEYS = """
    DELETE FROM jimsapi_idempotency WHERE key = ANY (ARRAY(
        SELECT k.key FROM jimsapi_idempotency k
        WHERE k.used_at < now() - $1::interval
        ORDER BY k.used_at
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    ))
"""

_MISSING_TABLES = """
    SELECT string_agg(name, ', ')
    FROM unnest(ARRAY[
        'threads', 'thread_events', 'jimsapi_threads', 'jimsapi_feedback',
            'jimsapi_search', 'jimsapi_search_threads', 'jimsapi_thread_usage', 'jimsapi_contact_usage',
            'jimsapi_caller_usage', 'jimsapi_outbox', 'jimsapi_sinks', 'jimsapi_dead_letters', 'jimsapi_webhooks',
            'jimsapi_subscriptions', 'jimsapi_runs', 'jimsapi_owners', 'jimsapi_idempotency'
    ]) name
    WHERE to_regclass(name) IS NULL
"""

_FIRST_ID = UUID(int=0)
_LAST_ID = UUID(int=(1 << 128) - 1)
_FIRST_TIME = datetime.min
_LAST_TIME = datetime.max


class PostgresStore:
    """Stores threads in PostgreSQL, in the tables of JIMS, which other JIMS programs can use at the same time.

    `url` is `postgresql://…`, or one of the forms of SQLAlchemy. Any number of processes may open the same database.
    Raises `ValueError` if the URL is invalid. The store connects when its context is entered.
    """

    shareable = True

    def __init__(self, url: str) -> None:
        self._target = parse_url(url)
        self.name = self._target.name
        self.keep_keys = KEEP_KEYS
        self.max_restarts = 0
        self.on_commit: Callable[[CommitRecord], None] | None = None
        self.on_turn: Callable[[UUID], None] | None = None
        self.outbox = PostgresOutbox(self._do, self._write)
        self.subscriptions = PostgresSubscriptions(self._do, self._write)
        self._owners: set[UUID] = set()
        self._waiting: set[UUID] = set()
        self._owner: UUID | None = None
        self._adoption = uuid7()
        self._lanes: Lanes | None = None
        self._pool: Pool | None = None
        self._housekeeping: Pool | None = None
        self._deletions = asyncio.Semaphore(DELETIONS)
        self._peers: Peers | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._recent_fault: StoreUnavailable | None = None
        self._fault_shown_until = 0.0

    async def __aenter__(self) -> Self:
        await schema.prepare(self._target, wait=WAIT_FOR_UPGRADE)
        connector = Connector(self._target)
        links = [Link(connector) for _ in range(LANES)]
        try:
            for link in links:
                await link.run(_probe)
        except Exception as error:
            for link in links:
                link.drop()
            raise as_unusable(self.name, error) from error
        self._pool = Pool(connector, POOL)
        # Heartbeats have a separate connection. If they had to wait for one, a busy process would count as dead.
        self._housekeeping = Pool(connector, 1)
        self._lanes = Lanes(links, self._report, lambda: self.keep_keys)
        self._peers = Peers(connector, self._owners, self._waiting, self._notify_turn, lambda: self.max_restarts)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        lanes, pool, housekeeping, peers = self._lanes, self._pool, self._housekeeping, self._peers
        self._lanes = self._pool = self._housekeeping = self._peers = None
        if lanes is None or pool is None or housekeeping is None or peers is None:
            return
        await peers.close()
        await lanes.close(CLOSE_WITHIN)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_WITHIN)
        await pool.close()
        await housekeeping.close()

    async def ping(self) -> None:
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                # Only a write shows whether a failure is over.
                failing = self._lanes is not None and self._lanes.failing
                await self._do(_probe)
                if failing or self._recent_fault is not None:
                    await self._do(_touch)
                if self._lanes is not None:
                    self._lanes.failing = False
        except TimeoutError:
            message = f"PostgreSQL: {self.name} did not answer within {PING_TIMEOUT:g} s"
            raise StoreUnavailable(message, "no answer") from None
        if self._recent_fault is not None:
            if asyncio.get_running_loop().time() < self._fault_shown_until:
                raise StoreUnavailable(*self._recent_fault.args)
            self._recent_fault = None

    async def accept(self, plan: RunPlan) -> Accepted:
        if plan.owner is not self._owner and plan.owner != NOBODY:
            self._owner = plan.owner
            self._owners.add(plan.owner)
        try:
            accepted = await self._open_lanes().accept(plan)
        except StoreUnavailable as error:
            self._note_fault(error)
            raise
        if accepted.snapshot is None and plan.owner != NOBODY:
            self._waiting.add(plan.run_id)
        return accepted

    async def start(
        self, run_id: UUID, owner: UUID, events: Sequence[NewEvent], context: ContextLimits
    ) -> Started | None:
        ids = [event.event_id for event in events]
        types = [event.event_type for event in events]
        data = [event.data for event in events]
        limits = rows.context_arguments(context)

        async def start(connection: Connection) -> Started | None:
            found = await connection.fetch(_START, run_id, owner, ids, types, data, *limits)
            _, verdict, _, _, _, _, taken = found[0]
            match verdict:
                case "closed":
                    raise RunClosed
                case "waits":
                    return None
                case "taken":
                    raise IdentifierTaken([rows.as_uuid(event_id) for event_id in taken])
            parts = [(row[0], *row[2:6]) for row in found[1:]]
            stored = [rows.event_row(row[1:]) for row in parts if row[0] == rows.ENTERED]
            snapshot = rows.read_snapshot(parts, context)
            continued = [rows.event_row(row[1:]) for row in parts if row[0] == rows.CONTINUED]
            return Started(end_with(snapshot, continued) if continued else snapshot, stored)

        try:
            started = await self._write(start)
        except RunClosed:
            self._waiting.discard(run_id)
            raise
        if started is not None:
            self._waiting.discard(run_id)
        return started

    async def finish(self, run_id: UUID, owner: UUID, outcome: Outcome) -> Settled:
        try:
            settled = await self._open_lanes().finish(run_id, owner, outcome)
        except StoreUnavailable as error:
            self._note_fault(error)
            raise
        if settled.status is not RunStatus.QUEUED:  # the result of `start` may have been lost
            self._waiting.discard(run_id)
        return settled

    async def append(
        self, thread_id: UUID, acting_for: str | None, events: Sequence[NewEvent], run_id: UUID | None = None
    ) -> list[EventRow]:
        ids = [event.event_id for event in events]
        types = [event.event_type for event in events]
        data = [event.data for event in events]

        async def append(connection: Connection) -> list[EventRow]:
            verdict, first_at, taken = await connection.fetchrow(
                _APPEND, thread_id, acting_for, ids, types, data, run_id
            )
            match verdict:
                case "missing":
                    raise ThreadNotFound(thread_id)
                case "taken":
                    raise IdentifierTaken([rows.as_uuid(event_id) for event_id in taken])
                case "known":
                    found = await connection.fetch(BY_IDS, thread_id, ids)
                    return [rows.event_row(row) for row in found]
            return rows.event_rows(events, first_at)

        return await self._write(append)

    async def cancel(self, run_id: UUID) -> Settled:
        async def cancel(connection: Connection) -> Settled:
            row = await connection.fetchrow(_END, [run_id], None, "cancelled", "cancelled", list(self._owners))
            return rows.settled(row[1], row[2], row[3], [])

        settled = await self._write(cancel)
        self._waiting.discard(run_id)
        return settled

    async def heartbeat(self, owner: UUID, live: Collection[UUID]) -> list[UUID]:
        self._owners.add(owner)

        async def beat(connection: Connection) -> list[UUID]:
            await connection.execute(_BEAT, owner)
            # A run that `adopt` took over is not an orphan, even if the result of `adopt` was lost.
            found = await connection.fetch(_OPEN_RUNS, owner, self._adoption)
            open_runs = [rows.as_uuid(row[0]) for row in found]
            orphans = [run_id for run_id in open_runs if run_id not in live]
            if not orphans:
                return []
            self._waiting.difference_update(orphans)
            ends = [orphan_status(status).value for status in (RunStatus.RUNNING, RunStatus.QUEUED)]
            ended = await connection.fetch(_END, orphans, owner, *ends, list(self._owners))
            may_start = (row[3] for row in ended if row[1] and row[3] is not None)
            return [rows.as_uuid(run_id) for run_id in dict.fromkeys(may_start)]

        return await self._write(beat, self._housekeeping)

    async def recover(self, owner: UUID) -> int:
        self._owners.add(owner)

        async def recover(connection: Connection) -> int:
            await connection.execute(_BEAT, owner)
            recovered = 0
            while ended := await connection.fetchval(RECOVER, owner, SILENCE, RECOVERED_AT_ONCE, self.max_restarts):
                recovered += ended
            return recovered

        return await self._write(recover, self._housekeeping)

    async def adopt(self, owner: UUID) -> list[AdoptedRun]:
        if owner != NOBODY:
            self._owners.add(owner)

        async def adopt(connection: Connection) -> list[AdoptedRun]:
            now = await connection.fetchval("SELECT clock_timestamp()")
            if self._peers is not None and self._peers.was_disconnected(now):
                return []
            found = await connection.fetch(_ADOPT, owner, self._adoption, SILENCE, ADOPTED_AT_ONCE, self.max_restarts)
            return [rows.adopted_run(row) for row in found]

        adopted = await self._write(adopt, self._housekeeping)
        self._adoption = uuid7()  # after a lost result the next call repeats the same adoption
        return adopted

    async def claim(self, run_id: UUID, owner: UUID) -> AdoptedRun | None:
        async def claim(connection: Connection) -> AdoptedRun | None:
            row = await connection.fetchrow(_CLAIM, run_id, owner, NOBODY)
            return None if row is None else rows.adopted_run(row)

        return await self._write(claim)

    async def unclaimed(self, older_than: timedelta, limit: int) -> list[UUID]:
        async def read(connection: Connection) -> list[UUID]:
            found = await connection.fetch(_UNCLAIMED, NOBODY, older_than, limit)
            return [rows.as_uuid(row[0]) for row in found]

        return await self._do(read, self._housekeeping)

    async def run(self, run_id: UUID, acting_for: str | None, caller: UUID | None) -> StoredRun:
        async def read(connection: Connection) -> StoredRun:
            row = await connection.fetchrow(_RUN, run_id)
            if row is None or not may_see(row[0], acting_for) or caller not in (None, row[1]):
                raise RunNotFound(run_id)
            contact_id, _, *run, sent_at, sent = row
            found: list[Any] = []
            if sent:
                found = await connection.fetch(_BETWEEN, row[2], sent_at, sent_at + (sent - 1) * TICK)
            # Keyed by time, since another program may have stored an event with the same time.
            events = {event[1]: rows.event_record(event) for event in found}
            return rows.stored_run(run_id, contact_id, run, list(events.values()))

        return await self._do(read)

    async def runs(
        self, acting_for: str | None, limit: int, after: str | None, only: RunFilter = NO_RUN_FILTER
    ) -> RunPage:
        async def read(connection: Connection) -> RunPage:
            if only.thread_id is not None:
                await _visible_thread(connection, only.thread_id, acting_for)
            return await read_runs(acting_for, limit, after, only, connection)

        return await self._do(read)

    async def contacts(self, acting_for: str | None, limit: int, after: str | None) -> ContactPage:
        return await self._do(partial(read_contacts, acting_for, limit, after))

    async def find_thread(self, query: ThreadQuery) -> ThreadRecord:
        async def find(connection: Connection) -> ThreadRecord:
            found: dict[Selector, Any] = {}
            for selector in query.selectors:
                if isinstance(selector, New):
                    break
                found[selector] = await _find(connection, selector, query.contact_id)
                if found[selector] is not None:
                    break
            row = select_thread(query, found.get, lambda row: cast("str | None", row[1]))
            if isinstance(row, New):
                raise ThreadNotFound
            return rows.thread_record(*row)

        return await self._do(find)

    async def events_by_id(self, thread_id: UUID, event_ids: Sequence[UUID]) -> list[EventRow]:
        found = await self._do(lambda connection: connection.fetch(BY_IDS, thread_id, list(event_ids)))
        return [rows.event_row(row) for row in found]

    async def thread(self, thread_id: UUID, acting_for: str | None) -> ThreadRecord:
        return await self._do(lambda connection: _visible_thread(connection, thread_id, acting_for))

    async def threads(
        self,
        contact_id: str,
        limit: int,
        after: str | None,
        archived: bool | None = None,
        only: ThreadFilter = NO_FILTER,
    ) -> ThreadPage:
        edge = (_LAST_TIME, _LAST_ID) if after is None else _read_cursor("threads", after)
        if only == NO_FILTER:
            found = await self._do(
                lambda connection: connection.fetch(_THREADS, contact_id, *edge, limit + 1, archived)
            )
        else:
            found = await self._do(partial(filtered_threads, contact_id, edge, limit + 1, archived, only))
        page, more = take_page(found, limit, _text_column)
        return ThreadPage(
            [rows.thread_record(*row) for row in page],
            _write_cursor("threads", page[-1][2], page[-1][0]) if more else None,
        )

    async def search(
        self,
        query: SearchQuery,
        contact_id: str,
        limit: int,
        after: str | None,
        archived: bool | None = None,
        only: ThreadFilter = NO_FILTER,
    ) -> SearchPage:
        """Search, after the index was brought up to date. The first search of a contact adds all its messages."""
        before = LAST_NUMBER if after is None else read_search_cursor(after)
        position: Position | None = (_FIRST_TIME, _FIRST_ID)
        while position is not None:
            stale, position = await self._do(partial(find_stale, contact_id, position))
            while stale:
                stale = await self._write(partial(add_to_index, contact_id, stale))
        return await self._do(partial(search, query, contact_id, limit, before, archived, only))

    async def events(self, thread_id: UUID, acting_for: str | None, limit: int, after: str | None) -> EventPage:
        async def read(connection: Connection) -> list[Any]:
            await _visible_thread(connection, thread_id, acting_for)
            # The cursor is checked after the thread, so that its error does not reveal whether a thread exists.
            edge = (_FIRST_TIME, _FIRST_ID) if after is None else _read_cursor("events", after)
            found: list[Any] = await connection.fetch(_EVENTS, thread_id, *edge, limit + 1)
            return found

        page, more = take_page(await self._do(read), limit, _text_column)
        return EventPage(
            [rows.event_record(row) for row in page],
            _write_cursor("events", page[-1][1], page[-1][0]) if more else None,
        )

    async def load_events(self, thread_id: UUID, before: Event | None, limit: int) -> list[EventRow]:
        edge = (_LAST_TIME, _LAST_ID) if before is None else (before.created_at, before.event_id)
        found = await self._do(lambda connection: connection.fetch(_BEFORE, thread_id, *edge, max(0, limit)))
        return [rows.event_row(row) for row in reversed(found)]

    async def create(self, plan: ThreadPlan) -> Created:
        ids = [event.event_id for event in plan.events]
        types = [event.event_type for event in plan.events]
        data = [event.data for event in plan.events]
        now = datetime.now()  # JIMS stores the creation time of threads in the process's local time
        arguments = (plan.thread_id, plan.contact_id, now, plan.thread_config, ids, types, data, plan.metadata)

        async def create(connection: Connection) -> Created:
            await connection.execute(_CREATE, *arguments)
            found = await connection.fetch(BY_IDS, plan.thread_id, ids)
            thread = await _visible_thread(connection, plan.thread_id, None)
            return Created(thread, [rows.event_row(row) for row in found])

        return await self._write(create)

    async def fork(self, plan: ForkPlan) -> ThreadRecord:
        arguments = (
            plan.thread_id,
            plan.parent_id,
            plan.acting_for,
            plan.event_id,
            plan.before,
            plan.keeps_external_id,
            datetime.now(),
        )

        async def fork(connection: Connection) -> ThreadRecord:
            match await connection.fetchval(_FORK, *arguments):
                case "missing":
                    raise ThreadNotFound(plan.parent_id)
                case "no event":
                    raise EventNotFound(plan.event_id)
            return await _visible_thread(connection, plan.thread_id, None)

        return await self._write(fork)

    async def change_thread(self, thread_id: UUID, acting_for: str | None, change: ThreadChange) -> ThreadFacts:
        sets_title = change.title is not msgspec.UNSET
        title, archived, metadata = (
            None if value is msgspec.UNSET else value for value in (change.title, change.archived, change.metadata)
        )
        row = await self._write(
            lambda connection: connection.fetchrow(
                _CHANGE_THREAD, thread_id, acting_for, sets_title, title, archived, metadata
            )
        )
        if row is None:
            raise ThreadNotFound(thread_id)
        return rows.thread_facts(*row)

    async def rate(self, thread_id: UUID, acting_for: str | None, event_id: UUID, rating: Rating | None) -> None:
        value, comment = (None, None) if rating is None else (rating.rating, rating.comment)
        verdict = await self._write(
            lambda connection: connection.fetchval(_RATE, thread_id, acting_for, event_id, value, comment)
        )
        match verdict:
            case "missing":
                raise ThreadNotFound(thread_id)
            case "no event":
                raise EventNotFound(event_id)

    async def feedback(
        self, thread_id: UUID, acting_for: str | None, limit: int | None = None, after: UUID | None = None
    ) -> list[Feedback]:
        async def read(connection: Connection) -> list[Any]:
            await _visible_thread(connection, thread_id, acting_for)
            edge: Any = (_FIRST_TIME, _FIRST_ID)
            if after is not None:
                edge = await connection.fetchrow(_POSITION, thread_id, after)
                if edge is None:
                    raise EventNotFound(after)
            found: list[Any] = await connection.fetch(_FEEDBACK, thread_id, *edge, limit)
            return found

        return [
            Feedback(rows.as_uuid(event_id), Rating(rating, comment), given_at.astimezone(UTC))
            for event_id, rating, comment, given_at in await self._do(read)
        ]

    async def summaries(self, thread_ids: Sequence[UUID]) -> list[ThreadSummary]:
        async def read(connection: Connection) -> list[ThreadSummary]:
            found = await connection.fetch(_SUMMARIES, list(thread_ids))
            summaries = [rows.thread_summary(row) for row in found]
            return await _with_questions(connection, thread_ids, summaries, [row[-1] for row in found])

        return await self._do(read)

    async def thread_usage(self, thread_id: UUID, acting_for: str | None) -> list[ModelTotal]:
        async def read(connection: Connection) -> list[Any]:
            await _visible_thread(connection, thread_id, acting_for)
            found: list[Any] = await connection.fetch(_THREAD_USAGE, thread_id)
            return found

        return [ModelTotal(model, rows.usage_total(figures)) for model, *figures in await self._do(read)]

    async def usage(self, holder: UsageHolder, first: date, last: date) -> list[DayTotal]:
        query: str = _CALLER_USAGE
        arguments: tuple[Any, ...] = (holder.caller, first, last)
        if holder.contact_id is not None:
            query, arguments = _CONTACT_USAGE, (holder.contact_id, first, last, holder.caller)
        found = await self._do(lambda connection: connection.fetch(query, *arguments))
        return [DayTotal(day, model, rows.usage_total(figures)) for day, model, *figures in found]

    async def add_usage(self, run_id: UUID, contact_id: str, caller: UUID, events: Sequence[NewEvent]) -> None:
        data = [event.data for event in events if event.event_type == MODEL_USAGE]
        await self._write(lambda connection: connection.fetchval(_ADD_USAGE, run_id, contact_id, caller, data))

    async def delete_thread(self, thread_id: UUID, acting_for: str | None) -> list[UUID]:
        closed, thread_count = await self._delete(thread_id, None, acting_for)
        if not thread_count:
            raise ThreadNotFound(thread_id)
        return closed

    async def delete_contact(self, contact_id: str) -> list[UUID]:
        """Delete all threads of a contact, 500 in each transaction.

        If a transaction fails, the threads of earlier ones stay deleted. Another call deletes the rest. The last
        transaction waits for forks of the contact, and finds no more threads.
        """
        closed: list[UUID] = []
        while True:
            more, thread_count = await self._delete(None, contact_id, None)
            closed += more
            if not thread_count:
                return closed

    async def expire(self, older_than: timedelta) -> int:
        age = min(older_than, timedelta(seconds=rows.LONG_AGO))
        expired, after = 0, _FIRST_ID
        while True:
            count, last = await self._write(
                lambda connection: connection.fetchrow(_EXPIRE, after, age, EXPIRED_AT_ONCE),  # noqa: B023
                self._housekeeping,
            )
            expired += int(count)
            if last is None:
                return expired
            after = rows.as_uuid(last)

    async def purge(self, older_than: timedelta) -> int:
        await self._purge(_PURGE_KEYS, self.keep_keys)
        await self._write(lambda connection: connection.execute(_PURGE_WEBHOOKS), self._housekeeping)
        await self._write(lambda connection: connection.execute(_PURGE_OWNERS, KEEP_OWNERS), self._housekeeping)
        purged = await self._purge(_PURGE, older_than)
        await self._write(forget_deleted, self._housekeeping)
        return purged

    async def activity(self) -> Activity:
        return await self._do(transfer.read_activity)

    async def count_threads(self) -> int:
        return await self._do(transfer.count_threads)

    async def export_threads(self, after: UUID | None, limit: int) -> list[WholeThread]:
        return await self._do(partial(transfer.export_threads, after=after, limit=limit))

    async def export_by_id(self, thread_ids: Sequence[UUID]) -> list[WholeThread]:
        return await self._do(partial(transfer.export_by_id, thread_ids=thread_ids))

    async def import_threads(self, threads: Sequence[WholeThread]) -> int:
        return await self._write(partial(transfer.import_threads, threads=threads))

    async def export_records(self, kind: RecordKind, after: Record | None, limit: int) -> list[Record]:
        return await self._do(partial(transfer.export_records, kind=kind, after=after, limit=limit))

    async def import_records(self, records: Sequence[Record]) -> None:
        await self._write(partial(transfer.import_records, records=records))

    async def find_faults(self) -> Sequence[str]:
        return await maintenance.find_faults(self._target)

    async def stats(self) -> StoreStats:
        return await maintenance.read_stats(self._target)

    async def vacuum(self) -> tuple[int, int]:
        return await maintenance.vacuum(self._target)

    async def pending_migration(self) -> Migration:
        return await maintenance.pending_migration(self._target)

    async def migrate(self) -> Migration:
        return await maintenance.migrate(self._target)

    async def _purge(self, query: str, older_than: timedelta) -> int:
        age = min(older_than, timedelta(seconds=rows.LONG_AGO))
        purged = 0
        while True:
            status = await self._write(
                lambda connection: connection.execute(query, age, PURGED_AT_ONCE), self._housekeeping
            )
            count = int(status.split()[-1])  # "DELETE 17"
            purged += count
            if count < PURGED_AT_ONCE:
                return purged

    async def _delete(
        self, thread_id: UUID | None, contact_id: str | None, acting_for: str | None
    ) -> tuple[list[UUID], int]:
        """Delete a thread, or some threads of a contact. Returns the runs that were open, and the number of threads."""

        async def delete(connection: Connection) -> tuple[list[UUID], int]:
            # Without an explicit transaction: if this process were suspended within one, its locks would stay.
            await connection.execute(f"SET statement_timeout = '{DELETE_TIMEOUT:g}s'")
            arguments = (thread_id, contact_id, acting_for, list(self._owners), DELETED_AT_ONCE)
            try:
                closed, thread_count = await connection.fetchrow(_DELETE, *arguments, timeout=DELETE_TIMEOUT)
            finally:
                await connection.execute(f"SET statement_timeout = '{STATEMENT_TIMEOUT:g}s'")
            return [rows.as_uuid(run_id) for run_id in closed], thread_count

        async with self._deletions:
            return await self._write(delete)

    def _open_lanes(self) -> Lanes:
        if self._lanes is None:
            raise StoreUnavailable("the store is not open")
        return self._lanes

    async def _write(self, work: Work[T], pool: Pool | None = None) -> T:
        began = asyncio.get_running_loop().time()
        failed = False
        try:
            return await self._do(work, pool)
        except StoreUnavailable:
            failed = True
            raise
        finally:
            self._report(CommitRecord(1, asyncio.get_running_loop().time() - began, failed))

    async def _do(self, work: Work[T], pool: Pool | None = None) -> T:
        """Do work on a connection of a pool, in a separate task, so that cancelling the caller does not cancel it."""
        pool = pool or self._pool
        if pool is None:
            raise StoreUnavailable("the store is not open")
        task = ServiceTask.begin(pool.run_with_retry(work), loop=asyncio.get_running_loop())
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        try:
            return await asyncio.shield(task)
        except (ConnectionLost, NotConnected) as error:
            raise StoreUnavailable(*error.args) from error  # the subclasses are internal to this package
        except StoreUnavailable as error:
            self._note_fault(error)
            raise

    def _note_fault(self, error: StoreUnavailable) -> None:
        if error.reason in (DENIED, DISK_FULL, DAMAGED):
            self._recent_fault = error
            self._fault_shown_until = asyncio.get_running_loop().time() + FAULT_SHOWN_FOR

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # marks the error as retrieved, since the caller may have been cancelled

    def _report(self, record: CommitRecord) -> None:
        if self.on_commit is not None:
            self.on_commit(record)

    def _notify_turn(self, run_id: UUID) -> None:
        if self.on_turn is not None:
            self.on_turn(run_id)


async def _find(connection: Connection, selector: ById | Latest | ByExternalId, contact_id: str) -> Any:
    """Return the row of the thread that a selector finds, without checking permissions; None if there is none."""
    match selector:
        case ById(thread_id):
            return await connection.fetchrow(_BY_ID, thread_id)
        case ByExternalId(external_id):
            return await connection.fetchrow(_BY_EXTERNAL_ID, external_id)
        case Latest(active_within):
            row = await connection.fetchrow(_LATEST, contact_id)
            if row is None or active_within is None:
                return row
            age = min(active_within.total_seconds(), rows.LONG_AGO)
            active = await connection.fetchval(_WAS_ACTIVE, row[0], age)
            return None if active is False else row


async def _visible_thread(connection: Connection, thread_id: UUID, acting_for: str | None) -> ThreadRecord:
    row = await connection.fetchrow(_BY_ID, thread_id)
    if row is None or not may_see(row[1], acting_for):
        raise ThreadNotFound(thread_id)
    return rows.thread_record(*row)


async def _with_questions(
    connection: Connection, thread_ids: Sequence[UUID], summaries: list[ThreadSummary], asked: Sequence[Sequence[bytes]]
) -> list[ThreadSummary]:
    """Return summaries with the number of open questions. `asked` has the questions of each thread. Most have none."""
    now = datetime.now(UTC)
    for number, (thread_id, questions) in enumerate(zip(thread_ids, asked, strict=True)):
        ends = ends_of_questions([EventRow(thread_id, now, QUESTION_ASKED, data) for data in questions], now)
        if ends:
            found = await connection.fetch(BY_IDS, thread_id, [end for pair in ends for end in pair])
            ended = {rows.as_uuid(row[0]) for row in found}
            count = sum(ended.isdisjoint(pair) for pair in ends)
            summaries[number] = msgspec.structs.replace(summaries[number], questions=count)
    return summaries


async def _probe(connection: Connection) -> None:
    await connection.fetchval("SELECT version FROM jimsapi_schema")
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        raise StoreUnavailable("PostgreSQL: the server is a standby, which accepts no writes", "read-only")
    if missing := await connection.fetchval(_MISSING_TABLES):
        raise StoreUnavailable(
            f"PostgreSQL: tables are missing: {missing}; restore them, or restart the server, which creates new ones",
            "tables or functions missing",
        )


async def _touch(connection: Connection) -> None:
    await connection.execute(_BEAT, _FIRST_ID)  # no process has this owner


def _text_column(row: Any) -> bytes | None:
    text: bytes | None = row[3]
    return text


def _write_cursor(kind: str, created_at: datetime, row_id: UUID) -> str:
    return encode_cursor(kind, created_at.isoformat(" ", "microseconds"), row_id.hex)


def _read_cursor(kind: str, cursor: str) -> tuple[datetime, UUID]:
    cursor_kind, created_at, row_id = decode_cursor(cursor, 3)
    try:
        position = datetime.fromisoformat(created_at)
        identifier = UUID(row_id)
    except ValueError:
        raise InvalidCursor from None
    if cursor_kind != kind or position.tzinfo is not None:
        raise InvalidCursor
    return position, identifier
