"""The totals of usage in an SQLite database."""

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from jimsapi.stores.sqlite.reads import thread_by_id, visible_thread
from jimsapi.stores.sqlite.rows import contact_of, id_hex, time_text
from jimsapi.threads.event import NewEvent, utc_now
from jimsapi.threads.usage import (
    MAX_USAGE_CONTACT,
    NO_CALLER,
    DayTotal,
    ModelTotal,
    UsageHolder,
    UsageTotal,
    usage_by_model,
)

_ADD = """
    INSERT INTO {table} ({keys}, calls, input, output, cached, cost) VALUES ({places}, ?, ?, ?, ?, ?)
    ON CONFLICT ({keys}) DO UPDATE SET
        calls = calls + excluded.calls, input = input + excluded.input, output = output + excluded.output,
        cached = cached + excluded.cached, cost = cost + excluded.cost
"""


def _add(table: str, *keys: str) -> str:
    return _ADD.format(table=table, keys=", ".join(keys), places=", ".join("?" for _ in keys))


_ADD_TO_THREAD = _add("jimsapi_thread_usage", "thread_id", "model")
_ADD_TO_CONTACT = _add("jimsapi_contact_usage", "contact_id", "day", "model", "caller")
_ADD_TO_CALLER = _add("jimsapi_caller_usage", "caller", "day", "model")
_CALLER = "SELECT caller FROM jimsapi_runs WHERE run_id = ?"
_OF_THREAD = """
    SELECT model, calls, input, output, cached, cost FROM jimsapi_thread_usage WHERE thread_id = ? ORDER BY model
"""
_SUMS = "sum(calls), sum(input), sum(output), sum(cached), sum(cost)"
_OF_CONTACT = f"""
    SELECT day, model, {_SUMS} FROM jimsapi_contact_usage
    WHERE contact_id = ? AND day BETWEEN ? AND ? AND (?4 IS NULL OR caller = ?4) GROUP BY day, model ORDER BY day, model
"""
_OF_CALLER = """
    SELECT day, model, calls, input, output, cached, cost FROM jimsapi_caller_usage
    WHERE caller = ? AND day BETWEEN ? AND ? ORDER BY day, model
"""
_NOTE_RUN = "INSERT OR IGNORE INTO jimsapi_idempotency (key, body, run_id, used_at) VALUES (?1, ?1, ?1, ?2)"


def count_usage(
    connection: sqlite3.Connection, thread: str, run_id: UUID | None, events: Sequence[NewEvent], now: datetime
) -> None:
    """Add what stored events say of usage to the totals of their thread, its contact, and the caller of the run."""
    used = usage_by_model(events)
    if not used:
        return
    row = thread_by_id(connection, thread)
    found = None if run_id is None else connection.execute(_CALLER, (id_hex(run_id),)).fetchone()
    caller = id_hex(NO_CALLER) if found is None or found[0] is None else found[0]
    connection.executemany(_ADD_TO_THREAD, [(thread, model, *_figures(total)) for model, total in used.items()])
    _add_totals(connection, used, None if row is None else contact_of(row), caller, now)


def add_usage(
    connection: sqlite3.Connection, run_id: UUID, contact_id: str, caller: UUID, events: Sequence[NewEvent]
) -> None:
    """`ThreadStore.add_usage`. The run is noted among the idempotency keys, so that it counts once."""
    now = utc_now()
    if connection.execute(_NOTE_RUN, (id_hex(run_id), time_text(now))).rowcount:
        _add_totals(connection, usage_by_model(events), contact_id, id_hex(caller), now)


def read_thread_usage(connection: sqlite3.Connection, thread_id: UUID, acting_for: str | None) -> list[ModelTotal]:
    """`ThreadStore.thread_usage`."""
    visible_thread(connection, thread_id, acting_for)
    rows = connection.execute(_OF_THREAD, (id_hex(thread_id),)).fetchall()
    return [ModelTotal(model, UsageTotal(*figures)) for model, *figures in rows]


def read_usage(connection: sqlite3.Connection, holder: UsageHolder, first: date, last: date) -> list[DayTotal]:
    """`ThreadStore.usage`."""
    days = first.isoformat(), last.isoformat()
    caller = None if holder.caller is None else id_hex(holder.caller)
    if holder.contact_id is not None:
        rows = connection.execute(_OF_CONTACT, (holder.contact_id, *days, caller)).fetchall()
    else:
        rows = connection.execute(_OF_CALLER, (caller, *days)).fetchall()
    return [DayTotal(date.fromisoformat(day), model, UsageTotal(*figures)) for day, model, *figures in rows]


def _add_totals(
    connection: sqlite3.Connection, used: Mapping[str, UsageTotal], contact_id: str | None, caller: str, now: datetime
) -> None:
    day = now.date().isoformat()
    if contact_id is not None and len(contact_id.encode()) <= MAX_USAGE_CONTACT:
        rows = [(contact_id, day, model, caller, *_figures(total)) for model, total in used.items()]
        connection.executemany(_ADD_TO_CONTACT, rows)
    connection.executemany(_ADD_TO_CALLER, [(caller, day, model, *_figures(total)) for model, total in used.items()])


def _figures(total: UsageTotal) -> tuple[Any, ...]:
    return total.calls, total.input_tokens, total.output_tokens, total.cached_tokens, total.cost
