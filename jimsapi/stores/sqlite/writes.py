"""The writes to an SQLite database of threads. Each function is one operation of the writer, and is atomic.

Nearly all functions raise their errors before they write anything, so that the writer rarely has to undo an operation.
"""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, assert_never
from uuid import UUID

import msgspec
import orjson

from jimsapi.stores.sqlite import search
from jimsapi.stores.sqlite.outbox import add_to_outbox, add_webhook
from jimsapi.stores.sqlite.reads import (
    NEWEST_TIME,
    event_by_id,
    latest_thread,
    load_snapshot,
    message_by_id,
    newest_time,
    oldest_event,
    thread_by_external_id,
    thread_by_id,
    visible_thread,
)
from jimsapi.stores.sqlite.rows import (
    ThreadRow,
    contact_of,
    first_id_after,
    id_hex,
    id_text,
    json_value,
    thread_record,
    time_text,
)
from jimsapi.stores.sqlite.usage import count_usage
from jimsapi.threads.errors import DomainError, IdentifierTaken, QueueFull, RunClosed, ThreadNotFound
from jimsapi.threads.event import EventRow, NewEvent, row_id, time_after, times_after, utc_now
from jimsapi.threads.facts import Created, ThreadPlan
from jimsapi.threads.outbox import WEBHOOK_HOLD
from jimsapi.threads.run import (
    COMPLETED,
    QUEUED,
    RUNNING,
    Accepted,
    AdoptedRun,
    ByExternalId,
    ById,
    ContextLimits,
    Idempotency,
    Latest,
    New,
    Outcome,
    RunPlan,
    RunStatus,
    Settled,
    Snapshot,
    Started,
    ThreadQuery,
    ThreadRecord,
)
from jimsapi.threads.storable import storable_text
from jimsapi.threads.transitions import (
    KeyHolder,
    Start,
    accepted_status,
    answer_again,
    cancel_counts,
    enters_late,
    finish_counts,
    has_context,
    interrupted_error,
    is_adoptable,
    is_full,
    judge_start,
    keys_known_since,
    may_restart,
    may_see,
    orphan_status,
    select_thread,
    stored_events,
    was_active,
)
from jimsapi.threads.window import end_with

_LATEST = Latest()

_INSERT_THREAD = """
    INSERT INTO threads (thread_id, contact_id, external_id, created_at, thread_config) VALUES (?, ?, ?, ?, ?)
"""
_INSERT_METADATA = "INSERT INTO jimsapi_threads (thread_id, metadata) VALUES (?, ?)"
_INSERT_EVENT = """
    INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data) VALUES (?, ?, ?, ?, ?)
"""
_INSERT_RUN = """
    INSERT INTO jimsapi_runs
        (run_id, thread_id, seq, owner, status, created_new_thread, message, accepted_at, started_at,
         message_id, continues, caller, background, webhook_url)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_RUN = """
    SELECT thread_id, owner, status, created_new_thread, message, message_id, continues
    FROM jimsapi_runs WHERE run_id = ?
"""
_KEY_HOLDER = """
    SELECT r.run_id, k.body, r.status, r.started_at, r.continues, r.thread_id, r.message_id
    FROM jimsapi_idempotency k CROSS JOIN jimsapi_runs r ON r.run_id = k.run_id
    WHERE k.key = ? AND k.used_at >= ?
"""
_STORE_KEY = "INSERT OR REPLACE INTO jimsapi_idempotency (key, body, run_id, used_at) VALUES (?, ?, ?, ?)"
_QUEUE = """
    SELECT count(*), coalesce(max(seq), 0) FROM (
        SELECT seq FROM jimsapi_runs INDEXED BY jimsapi_runs_running WHERE thread_id = ? AND status = 'running'
        UNION ALL
        SELECT seq FROM jimsapi_runs INDEXED BY jimsapi_runs_waiting WHERE thread_id = ? AND status = 'queued'
    )
"""
_OPEN_OF_THREAD = """
    SELECT run_id, seq FROM jimsapi_runs INDEXED BY jimsapi_runs_running WHERE thread_id = ? AND status = 'running'
    UNION ALL
    SELECT run_id, seq FROM jimsapi_runs INDEXED BY jimsapi_runs_waiting WHERE thread_id = ? AND status = 'queued'
    ORDER BY seq
"""
_OLDEST_OF_THREAD = f"SELECT run_id FROM ({_OPEN_OF_THREAD} LIMIT 1)"
# Follows `is_next`: the oldest run that waits, if none runs.
_MAY_START = """
    SELECT run_id FROM jimsapi_runs INDEXED BY jimsapi_runs_waiting
    WHERE thread_id = ? AND status = 'queued' AND NOT EXISTS (
        SELECT 1 FROM jimsapi_runs INDEXED BY jimsapi_runs_running WHERE thread_id = ? AND status = 'running'
    )
    ORDER BY seq LIMIT 1
"""
_OPEN = """
    SELECT run_id, thread_id, status, message, background, caller, webhook_url, restarts, message_id, seq
    FROM jimsapi_runs INDEXED BY jimsapi_runs_running WHERE status = 'running' AND (owner = ?) = ?
    UNION ALL
    SELECT run_id, thread_id, status, message, background, caller, webhook_url, restarts, message_id, seq
    FROM jimsapi_runs INDEXED BY jimsapi_runs_waiting WHERE status = 'queued' AND (owner = ?) = ?
    ORDER BY thread_id, seq
"""
_ADOPT = "UPDATE jimsapi_runs SET owner = ? WHERE run_id = ?"
_RESTART = """
    UPDATE jimsapi_runs
    SET status = 'queued', started_at = NULL, continues = 1, restarts = restarts + 1, owner = ?, message = ?
    WHERE run_id = ?
"""
_START = "UPDATE jimsapi_runs SET status = 'running', started_at = ?, message = NULL WHERE run_id = ?"
_FINISH = """
    UPDATE jimsapi_runs
    SET status = ?, finished_at = ?, error = ?, failure = ?, sent_at = ?, sent = ?, streamed = ? WHERE run_id = ?
"""
# The row has the time of the thread's newest event, and the run that may start when this running one ends (`is_next`).
_TO_FINISH = f"""
    SELECT thread_id, owner, status, webhook_url IS NOT NULL,
        ({NEWEST_TIME.replace("?", "run.thread_id")}),
        (
            SELECT run_id FROM jimsapi_runs INDEXED BY jimsapi_runs_waiting
            WHERE thread_id = run.thread_id AND status = 'queued' ORDER BY seq LIMIT 1
        )
    FROM jimsapi_runs run WHERE run_id = ?
"""
_END = "UPDATE jimsapi_runs SET status = ?, finished_at = ?, message = NULL WHERE run_id = ?"
_INTERRUPT = """
    UPDATE jimsapi_runs SET status = 'interrupted', finished_at = ?, error = ?, message = NULL WHERE run_id = ?
"""
_BEAT = """
    INSERT INTO jimsapi_owners (owner, beat_at) VALUES (?, ?)
    ON CONFLICT (owner) DO UPDATE SET beat_at = excluded.beat_at
"""
_HOLD = timedelta(seconds=WEBHOOK_HOLD)
_WEBHOOKS_ARE_DUE = "UPDATE jimsapi_webhooks SET due_at = ?1 WHERE calls = 0"
_NEXT_THREADS = "SELECT thread_id FROM threads WHERE thread_id > ? ORDER BY thread_id LIMIT ?"
_PURGE = """
    DELETE FROM jimsapi_runs WHERE run_id IN (
        SELECT run_id FROM jimsapi_runs WHERE run_id < ? AND finished_at < ? LIMIT ?
    )
"""
_PURGE_KEYS = """
    DELETE FROM jimsapi_idempotency WHERE key IN (
        SELECT key FROM jimsapi_idempotency INDEXED BY jimsapi_idempotency_used WHERE used_at < ? LIMIT ?
    )
"""
# A key is stored at the time at which its run is accepted. The index on the times finds it.
_DELETE_KEYS = """
    DELETE FROM jimsapi_idempotency WHERE key IN (
        SELECT k.key
        FROM jimsapi_runs r
        CROSS JOIN jimsapi_idempotency k INDEXED BY jimsapi_idempotency_used ON k.used_at = r.accepted_at
        WHERE r.thread_id = ? AND k.run_id = r.run_id
    )
"""


class NewThread(msgspec.Struct, frozen=True):
    """The parts of the thread that `accept` creates if no selector finds one."""

    thread_id: UUID
    created: NewEvent
    external_id: str | None
    config: bytes


def accept(
    connection: sqlite3.Connection, plan: RunPlan, new_thread: NewThread | None, keep_keys: timedelta
) -> Accepted:
    """`ThreadStore.accept`. `new_thread` must not be None if a selector is `New`."""
    changes = connection.total_changes
    try:
        return _accept_now(connection, plan, new_thread, keep_keys)
    except (DomainError, sqlite3.IntegrityError):
        if connection.total_changes != changes:  # the run was new, since `_accept_now` writes it first
            raise
        accepted = _accepted_before(connection, plan)
        if accepted is None:
            raise
        return accepted


def _accept_now(
    connection: sqlite3.Connection, plan: RunPlan, new_thread: NewThread | None, keep_keys: timedelta
) -> Accepted:
    """Accept a run. If it is already stored, raises `sqlite3.IntegrityError` before anything is written."""
    now = utc_now()
    if plan.idempotency is None:
        return _accept_message(connection, plan, new_thread, now)
    interrupted = _interrupted(connection, plan.idempotency, keys_known_since(now, keep_keys))
    if interrupted is None:
        accepted = _accept_message(connection, plan, new_thread, now)
    else:
        accepted = _accept_again(connection, plan, *interrupted, now)
    _store_key(connection, plan.idempotency, plan.run_id, now)
    return accepted


def _accept_message(
    connection: sqlite3.Connection, plan: RunPlan, new_thread: NewThread | None, now: datetime
) -> Accepted:
    row = select_thread(plan, lambda selector: _find(connection, selector, plan.contact_id, now), contact_of)
    if not isinstance(row, New):
        return _accept_into(connection, plan, row, now)
    assert new_thread is not None
    return _accept_new(connection, plan, new_thread, now)


def _accept_new(connection: sqlite3.Connection, plan: RunPlan, new: NewThread, now: datetime) -> Accepted:
    thread = id_hex(new.thread_id)
    created_at = _next_creation(connection, plan.contact_id, is_first=plan.selectors[0] == _LATEST)
    status = accepted_status(0, is_greeted=plan.conversation_start)
    events = [new.created, *plan.beside, plan.message] if status is RUNNING else [new.created]
    _insert_run(connection, plan, thread, 1, status, True, now)
    connection.execute(
        _INSERT_THREAD, (thread, plan.contact_id, new.external_id, time_text(created_at), json_value(new.config))
    )
    stored = _append(connection, thread, events, plan.run_id, None, now)
    record = ThreadRecord(new.thread_id, plan.contact_id, created_at.astimezone(UTC), new.config)
    return Accepted(record, True, status, Snapshot(stored[:], False), stored)


def _accept_into(connection: sqlite3.Connection, plan: RunPlan, row: ThreadRow, now: datetime) -> Accepted:
    thread = id_text(row[0])
    status, seq = _place_in_queue(connection, plan, thread)
    stored: list[EventRow] = []
    snapshot: Snapshot | None = None
    entering = [*plan.beside, plan.message]
    if status is QUEUED and (taken := _stored(connection, thread, entering)):
        raise IdentifierTaken([UUID(str(row.event_id)) for row in taken])
    _insert_run(connection, plan, thread, seq, status, False, now)
    if status is RUNNING:
        stored = _append(connection, thread, entering, plan.run_id, newest_time(connection, thread), now)
        snapshot = load_snapshot(connection, thread, plan.context)
    return Accepted(thread_record(row), False, status, snapshot, stored)


def _accept_again(
    connection: sqlite3.Connection, plan: RunPlan, row: ThreadRow, message_id: UUID, now: datetime
) -> Accepted:
    """Accept a run that answers the message of an interrupted one."""
    thread = id_text(row[0])
    if not may_see(contact_of(row), plan.acting_for):
        raise ThreadNotFound(UUID(thread))
    plan = answer_again(plan, message_id)
    message = message_by_id(connection, thread, message_id)
    if not message:  # another program deleted it
        return _accept_into(connection, plan, row, now)
    status, seq = _place_in_queue(connection, plan, thread)
    snapshot: Snapshot | None = None
    if status is RUNNING:
        snapshot = end_with(load_snapshot(connection, thread, plan.context), message)
    _insert_run(connection, plan, thread, seq, status, False, now, continues=True)
    return Accepted(thread_record(row), False, status, snapshot, [])


def _interrupted(
    connection: sqlite3.Connection, idempotency: Idempotency, known_since: datetime
) -> tuple[ThreadRow, UUID] | None:
    """Return the thread and message of the interrupted run with a key; None if the key is free.

    Raises `KeyUsed` or `KeyMismatch`.
    """
    found = connection.execute(_KEY_HOLDER, (id_hex(idempotency.key), time_text(known_since))).fetchone()
    if found is None:
        return None
    run_id, body, status, started_at, continues, thread, message_id = found
    row = thread_by_id(connection, thread)
    holder = KeyHolder(UUID(run_id), UUID(body), RunStatus(status), started_at is not None, bool(continues))
    if row is None or not holder.is_continued_by(idempotency.body):
        return None
    return row, UUID(message_id)


def _store_key(connection: sqlite3.Connection, idempotency: Idempotency, run_id: UUID, now: datetime) -> None:
    connection.execute(_STORE_KEY, (id_hex(idempotency.key), id_hex(idempotency.body), id_hex(run_id), time_text(now)))


def _place_in_queue(connection: sqlite3.Connection, plan: RunPlan, thread: str) -> tuple[RunStatus, int]:
    """Return the status of a new run of a thread, and its position in the queue. Raises `QueueFull`."""
    open_runs, last_seq = connection.execute(_QUEUE, (thread, thread)).fetchone()
    if is_full(open_runs, plan.queue_limit):
        (oldest,) = connection.execute(_OLDEST_OF_THREAD, (thread, thread)).fetchone()
        raise QueueFull(plan.queue_limit, UUID(oldest))
    return accepted_status(open_runs, is_greeted=False), last_seq + 1


def _accepted_before(connection: sqlite3.Connection, plan: RunPlan) -> Accepted | None:
    """Return the result of an earlier call with the same run, which the service repeats because it did not get it."""
    run = connection.execute(_RUN, (id_hex(plan.run_id),)).fetchone()
    if run is None:
        return None
    thread, _, status, created_new_thread, _, message_id, continues = run
    row = thread_by_id(connection, thread)
    if row is None:
        raise ThreadNotFound(UUID(thread))
    snapshot: Snapshot | None = None
    stored = oldest_event(connection, thread) if created_new_thread and not continues else []
    if status == RUNNING:
        snapshot, entered = _entered(connection, thread, UUID(message_id), continues, plan.context)
        stored += entered
    elif has_context(RunStatus(status), bool(created_new_thread), bool(continues)):
        snapshot = load_snapshot(connection, thread, plan.context)
    return Accepted(thread_record(row), bool(created_new_thread), RunStatus(status), snapshot, stored)


def _entered(
    connection: sqlite3.Connection, thread: str, message_id: UUID, continues: bool, context: ContextLimits
) -> tuple[Snapshot, list[EventRow]]:
    """Return the context of a run whose message is in the thread, and the message's rows if this run added them."""
    snapshot = load_snapshot(connection, thread, context)
    message = message_by_id(connection, thread, message_id)
    if not message:  # another program deleted it
        return snapshot, []
    return (end_with(snapshot, message), []) if continues else (snapshot, message)


def _find(
    connection: sqlite3.Connection, selector: ById | Latest | ByExternalId, contact_id: str, now: datetime
) -> ThreadRow | None:
    """Return the thread that a selector finds, without checking permissions."""
    match selector:
        case Latest(active_within):
            row = latest_thread(connection, contact_id)
            if row is None or active_within is None:
                return row
            return row if was_active(_newest_activity(connection, row), now, active_within) else None
        case ById(thread_id):
            return thread_by_id(connection, id_hex(thread_id))
        case ByExternalId(external_id):
            return thread_by_external_id(connection, external_id)
        case _:  # a plugin's resolver may return anything
            assert_never(selector)


def find_thread(connection: sqlite3.Connection, query: ThreadQuery) -> ThreadRecord:
    """`ThreadStore.find_thread`. It only reads, and is here beside the look-up that `accept` uses."""
    row = select_thread(query, lambda selector: _find(connection, selector, query.contact_id, utc_now()), contact_of)
    if isinstance(row, New):
        raise ThreadNotFound
    return thread_record(row)


def _newest_activity(connection: sqlite3.Connection, row: ThreadRow) -> datetime:
    """Return the time of a thread's newest event. A thread of another JIMS program may not have an event yet."""
    newest = newest_time(connection, id_text(row[0]))
    return thread_record(row).created_at.replace(tzinfo=None) if newest is None else newest


def _next_creation(connection: sqlite3.Connection, contact_id: str, *, is_first: bool = False) -> datetime:
    """Return the time of a new thread: in the process's local time, as JIMS stores it.

    It is always later than that of the contact's newest thread, since local time goes back in autumn and `Latest`
    compares these times. `is_first`: the contact has no thread, since `Latest` found none.
    """
    now = datetime.now()
    if is_first:
        return now
    row = latest_thread(connection, contact_id)
    return now if row is None else time_after(datetime.fromisoformat(row[2]), now)


def start(
    connection: sqlite3.Connection, run_id: UUID, owner: UUID, events: Sequence[NewEvent], context: ContextLimits
) -> Started | None:
    """`ThreadStore.start`."""
    run = connection.execute(_RUN, (id_hex(run_id),)).fetchone()
    if run is None:
        raise RunClosed
    thread, owned_by, status, _, message_text, message_id, continues = run
    is_oldest = _next_run(connection, thread) == run_id
    decision = judge_start(status, is_owner=owned_by == id_hex(owner), is_oldest=is_oldest)
    if decision is Start.AGAIN:
        snapshot, entered = _entered(connection, thread, UUID(message_id), continues, context)
        return Started(snapshot, _stored(connection, thread, events) + entered)
    if decision is Start.LATER:
        return None
    now = utc_now()
    message = _load_message(message_text)
    entered_before = message_by_id(connection, thread, message[-1].event_id) if continues else []
    entering = events if entered_before else [*events, *message]
    stored = _append(connection, thread, entering, run_id, newest_time(connection, thread), now)
    connection.execute(_START, (time_text(now), id_hex(run_id)))
    count_usage(connection, thread, run_id, events, now)
    snapshot = load_snapshot(connection, thread, context)
    return Started(end_with(snapshot, entered_before) if entered_before else snapshot, stored)


def finish(connection: sqlite3.Connection, run_id: UUID, owner: UUID, outcome: Outcome) -> Settled:
    """`ThreadStore.finish`."""
    run = connection.execute(_TO_FINISH, (id_hex(run_id),)).fetchone()
    if run is None:
        return Settled(False, None, None)
    thread, owned_by, status, has_webhook, newest, next_run = run
    if not finish_counts(status, is_owner=owned_by == id_hex(owner)):
        return Settled(False, RunStatus(status), _next_run(connection, thread))
    now = utc_now()
    stored: list[EventRow] = []
    if events := stored_events(outcome):
        stored = _append(connection, thread, events, run_id, newest and datetime.fromisoformat(newest), now)
        count_usage(connection, thread, run_id, events, now)
    sent = len(stored) if outcome.status is COMPLETED else 0
    sent_at = stored[0].created_at if sent else None
    # The text of a pipeline's exception may have lone surrogates, which a database text cannot have.
    error = None if outcome.error is None else storable_text(outcome.error)
    failure = None if outcome.failure is None else outcome.failure.value
    end = (outcome.status.value, time_text(now), error, failure, sent_at, sent, outcome.streamed)
    connection.execute(_FINISH, (*end, id_hex(run_id)))
    if has_webhook:
        add_webhook(connection, id_hex(run_id), now + _HOLD)
    return Settled(True, outcome.status, next_run and UUID(next_run), stored)


def create(connection: sqlite3.Connection, plan: ThreadPlan) -> Created:
    """`ThreadStore.create`."""
    thread = id_hex(plan.thread_id)
    earlier = thread_by_id(connection, thread)
    if earlier is not None:
        return Created(thread_record(earlier), _stored(connection, thread, plan.events))
    created_at = _next_creation(connection, plan.contact_id)
    connection.execute(
        _INSERT_THREAD, (thread, plan.contact_id, None, time_text(created_at), json_value(plan.thread_config))
    )
    connection.execute(_INSERT_METADATA, (thread, plan.metadata.decode()))
    stored = _append(connection, thread, plan.events, None, None, utc_now())
    record = ThreadRecord(plan.thread_id, plan.contact_id, created_at.astimezone(UTC), plan.thread_config)
    return Created(record, stored)


def append(
    connection: sqlite3.Connection,
    thread_id: UUID,
    acting_for: str | None,
    events: Sequence[NewEvent],
    run_id: UUID | None,
) -> list[EventRow]:
    """`ThreadStore.append`."""
    visible_thread(connection, thread_id, acting_for)
    thread = id_hex(thread_id)
    found = _stored(connection, thread, events)
    if len(found) == len(events):
        return found
    if found:
        raise IdentifierTaken([UUID(str(row.event_id)) for row in found])
    now = utc_now()
    stored = _append(connection, thread, events, run_id, newest_time(connection, thread), now)
    count_usage(connection, thread, run_id, events, now)
    return stored


def cancel(connection: sqlite3.Connection, run_id: UUID) -> Settled:
    """`ThreadStore.cancel`."""
    run = connection.execute(_RUN, (id_hex(run_id),)).fetchone()
    if run is None:
        return Settled(False, None, None)
    thread, _, status, *_ = run
    if not cancel_counts(status):
        return Settled(False, RunStatus(status), _next_run(connection, thread))
    now = utc_now()
    connection.execute(_END, (RunStatus.CANCELLED, time_text(now), id_hex(run_id)))
    add_webhook(connection, id_hex(run_id), now + _HOLD)
    return Settled(True, RunStatus.CANCELLED, _next_run(connection, thread))


def heartbeat(connection: sqlite3.Connection, owner: UUID, live: Collection[UUID]) -> list[UUID]:
    """`ThreadStore.heartbeat`."""
    now = utc_now()
    connection.execute(_BEAT, (id_hex(owner), time_text(now)))
    # The event loop may change `live` meanwhile, so this does not iterate over it. A run is in `live` before it is in a
    # row, so the rows are read first.
    rows = connection.execute(_OPEN, (id_hex(owner), True) * 2).fetchall()
    orphans = [run for run in rows if UUID(run[0]) not in live]
    for run_id, _, status, *_ in orphans:
        connection.execute(_END, (orphan_status(status), time_text(now), run_id))
        add_webhook(connection, run_id, now)
    threads = dict.fromkeys(thread for _, thread, *_ in orphans)
    may_start = (_next_run(connection, thread) for thread in threads)
    return [run_id for run_id in may_start if run_id is not None]


class _Orphan(NamedTuple):
    """A row of `_OPEN`."""

    run_id: str
    thread: str
    status: str
    message: str
    background: int
    caller: str | None
    webhook_url: str | None
    restarts: int
    message_id: str
    seq: int

    @property
    def waits(self) -> bool:
        return is_adoptable(self.status, background=bool(self.background))

    def may_restart(self, max_restarts: int) -> bool:
        background = bool(self.background)
        return may_restart(self.status, background=background, restarts=self.restarts, max_restarts=max_restarts)


def recover(connection: sqlite3.Connection, owner: UUID, max_restarts: int) -> int:
    """`ThreadStore.recover`. Only this process has the database open, so every other owner is dead."""
    now = utc_now()
    recovered = 0
    for run in map(_Orphan._make, connection.execute(_OPEN, (id_hex(owner), False) * 2).fetchall()):
        if run.waits or (run.may_restart(max_restarts) and _message_of(connection, run)):
            continue
        if enters_late(run.status):
            message = _load_message(run.message)
            if not _stored(connection, run.thread, message[-1:]):
                _append(connection, run.thread, message, UUID(run.run_id), newest_time(connection, run.thread), now)
        connection.execute(_INTERRUPT, (time_text(now), interrupted_error(run.restarts), run.run_id))
        add_webhook(connection, run.run_id, now)
        recovered += 1
    connection.execute(_WEBHOOKS_ARE_DUE, (time_text(now),))  # dead processes call none
    connection.execute("DELETE FROM jimsapi_owners WHERE owner != ?", (id_hex(owner),))
    connection.execute(_BEAT, (id_hex(owner), time_text(now)))
    return recovered


def adopt(connection: sqlite3.Connection, owner: UUID, max_restarts: int) -> list[AdoptedRun]:
    """`ThreadStore.adopt`. As for `recover`, every other owner is dead."""
    adopted: list[AdoptedRun] = []
    for run in map(_Orphan._make, connection.execute(_OPEN, (id_hex(owner), False) * 2).fetchall()):
        if run.waits:
            message = _load_message(run.message)
            connection.execute(_ADOPT, (id_hex(owner), run.run_id))
        elif run.may_restart(max_restarts) and (message := _message_of(connection, run)):
            connection.execute(_RESTART, (id_hex(owner), _dump_message(message), run.run_id))
        else:
            continue
        row = thread_by_id(connection, run.thread)
        adopted.append(
            AdoptedRun(
                UUID(run.run_id),
                UUID(run.thread),
                None if row is None else contact_of(row),
                message[-1],
                None if run.caller is None else UUID(run.caller),
                run.webhook_url,
                tuple(message[:-1]),
                run.restarts + (not run.waits),
            )
        )
    return adopted


def _message_of(connection: sqlite3.Connection, run: _Orphan) -> list[NewEvent]:
    """Return the events beside the message of a run that has started, then the message; none if its thread lacks it."""
    rows = message_by_id(connection, run.thread, UUID(run.message_id))
    return [NewEvent(row_id(row), row.event_type, _json_text(row)) for row in rows]


def _json_text(row: EventRow) -> bytes:
    data = row.data or b"null"
    return data.encode() if isinstance(data, str) else data


def delete_thread(connection: sqlite3.Connection, thread_id: UUID, acting_for: str | None) -> list[UUID]:
    """`ThreadStore.delete_thread`."""
    visible_thread(connection, thread_id, acting_for)
    return _delete(connection, [id_hex(thread_id)])


def delete_contact(connection: sqlite3.Connection, contact_id: str) -> list[UUID]:
    """`ThreadStore.delete_contact`."""
    threads = connection.execute("SELECT thread_id FROM threads WHERE contact_id = ?", (contact_id,)).fetchall()
    connection.execute("DELETE FROM jimsapi_contact_usage WHERE contact_id = ?", (contact_id,))
    return _delete(connection, [id_text(thread) for (thread,) in threads])


def expire(connection: sqlite3.Connection, cutoff: datetime, after: str, limit: int) -> tuple[int, str | None]:
    """Delete those of the next `limit` threads after the identifier `after` that have no event since `cutoff` (UTC).

    Returns their number, and the last identifier if there may be more threads.
    """
    threads = [thread for (thread,) in connection.execute(_NEXT_THREADS, (after, limit)).fetchall()]
    expired = 0
    for thread in threads:
        newest = newest_time(connection, thread)
        if newest is not None and newest < cutoff and not _open_runs(connection, thread):
            _delete(connection, [thread])
            expired += 1
    return expired, threads[-1] if len(threads) == limit else None


def purge_webhooks(connection: sqlite3.Connection) -> None:
    """Delete the webhooks of runs that were purged or deleted."""
    connection.execute(
        "DELETE FROM jimsapi_webhooks AS w WHERE NOT EXISTS (SELECT 1 FROM jimsapi_runs r WHERE r.run_id = w.run_id)"
    )


def purge(connection: sqlite3.Connection, cutoff: datetime, limit: int) -> int:
    """Delete at most `limit` runs that ended before `cutoff` (UTC). Returns their number."""
    return connection.execute(_PURGE, (first_id_after(cutoff), time_text(cutoff), limit)).rowcount


def purge_keys(connection: sqlite3.Connection, used_before: datetime, limit: int) -> int:
    """Delete at most `limit` idempotency keys that were used before a time (UTC). Returns their number."""
    return connection.execute(_PURGE_KEYS, (time_text(used_before), limit)).rowcount


def _append(
    connection: sqlite3.Connection,
    thread: str,
    events: Sequence[NewEvent],
    run_id: UUID | None,
    newest: datetime | None,
    now: datetime,
) -> list[EventRow]:
    """Append events of a run to a thread whose newest event has the time `newest`. Raises `IdentifierTaken`."""
    stored: list[EventRow] = []
    rows: list[tuple[str, str, str, str, str | bytes]] = []
    for event, created_at in zip(events, times_after(newest, now, len(events)), strict=True):
        event_id, time = id_hex(event.event_id), time_text(created_at)
        stored.append(EventRow(event_id, time, event.event_type, event.data))
        rows.append((thread, event_id, time, event.event_type, json_value(event.data)))
    try:
        connection.executemany(_INSERT_EVENT, rows)
    except sqlite3.IntegrityError:
        # Some of the events may be written already (the writer undoes that). Events from before have older times.
        first = str(stored[0].created_at)
        older = [row for row in _stored(connection, thread, events) if str(row.created_at) < first]
        if older:
            raise IdentifierTaken([UUID(str(row.event_id)) for row in older]) from None
        raise
    add_to_outbox(connection, thread, stored, run_id)
    return stored


def _insert_run(
    connection: sqlite3.Connection,
    plan: RunPlan,
    thread: str,
    seq: int,
    status: RunStatus,
    created_new_thread: bool,
    now: datetime,
    *,
    continues: bool = False,
) -> None:
    time = time_text(now)
    waits = status is QUEUED
    # Binding a plain string or number costs sqlite3 half as much as binding an enum or a bool.
    connection.execute(
        _INSERT_RUN,
        (
            id_hex(plan.run_id),
            thread,
            seq,
            id_hex(plan.owner),
            status.value,
            int(created_new_thread),
            _dump_message([*plan.beside, plan.message]) if waits else None,
            time,
            None if waits else time,
            id_hex(plan.message.event_id),
            int(continues),
            None if plan.caller is None else id_hex(plan.caller),
            int(plan.background),
            plan.webhook_url,
        ),
    )


def _next_run(connection: sqlite3.Connection, thread: str) -> UUID | None:
    """Return the run of a thread that may start now, if there is one."""
    row = connection.execute(_MAY_START, (thread, thread)).fetchone()
    return None if row is None else UUID(row[0])


def _open_runs(connection: sqlite3.Connection, thread: str) -> list[UUID]:
    """Return the open runs of a thread, oldest first."""
    return [UUID(run_id) for run_id, _ in connection.execute(_OPEN_OF_THREAD, (thread, thread))]


def _delete(connection: sqlite3.Connection, threads: Iterable[str]) -> list[UUID]:
    open_runs: list[UUID] = []
    for thread in threads:
        open_runs += _open_runs(connection, thread)
        connection.execute(_DELETE_KEYS, (thread,))
        connection.execute("DELETE FROM jimsapi_runs WHERE thread_id = ?", (thread,))
        connection.execute("DELETE FROM thread_events WHERE thread_id = ?", (thread,))
        connection.execute("DELETE FROM jimsapi_threads WHERE thread_id = ?", (thread,))
        connection.execute("DELETE FROM jimsapi_feedback WHERE thread_id = ?", (thread,))
        connection.execute("DELETE FROM jimsapi_dead_letters WHERE thread_id = ?", (thread,))
        connection.execute("DELETE FROM jimsapi_subscriptions WHERE thread_id = ?", (thread,))
        search.forget(connection, thread)
        connection.execute("DELETE FROM jimsapi_thread_usage WHERE thread_id = ?", (thread,))
        connection.execute("DELETE FROM threads WHERE thread_id = ?", (thread,))
    return open_runs


def _stored(connection: sqlite3.Connection, thread: str, events: Iterable[NewEvent]) -> list[EventRow]:
    """Return those of the events that are already in the thread."""
    found = (event_by_id(connection, thread, event.event_id) for event in events)
    return [row for row in found if row is not None]


def _dump_message(entering: Sequence[NewEvent]) -> str:
    """Encode a message that waits, then the events beside it. `entering` has the message last."""
    return orjson.dumps([part for event in (entering[-1], *entering[:-1]) for part in _parts(event)]).decode()


def _parts(event: NewEvent) -> tuple[str, str, orjson.Fragment]:
    return id_hex(event.event_id), event.event_type, orjson.Fragment(event.data)


def _load_message(text: str) -> list[NewEvent]:
    """Return the events beside a message that waits, then the message."""
    parts = orjson.loads(text)
    events = [NewEvent(UUID(parts[at]), parts[at + 1], orjson.dumps(parts[at + 2])) for at in range(0, len(parts), 3)]
    return [*events[1:], events[0]]
