"""The subscriptions of an SQLite database."""

import sqlite3
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from jimsapi.stores.sqlite.rows import id_hex, time_text
from jimsapi.threads.errors import RunNotFound
from jimsapi.threads.event import utc_now
from jimsapi.threads.subscriptions import Subscription

Execute = Callable[[Callable[[sqlite3.Connection], Any]], Awaitable[Any]]

_COLUMNS = "subscription_id, run_id, thread_id, kind, name, caller, data, notice, calls"
_OTHERS = "SELECT count(*) FROM jimsapi_subscriptions WHERE run_id = ? AND kind = ? AND name <> ?"
_ADD = f"""
    INSERT INTO jimsapi_subscriptions ({_COLUMNS}, due_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (run_id, kind, name) DO UPDATE SET
        subscription_id = excluded.subscription_id, thread_id = excluded.thread_id, caller = excluded.caller,
        data = excluded.data, notice = excluded.notice, calls = excluded.calls, due_at = excluded.due_at, call_at = NULL
"""
_OF_RUN = f"SELECT {_COLUMNS} FROM jimsapi_subscriptions WHERE run_id = ? AND kind = ? ORDER BY name"
_REMOVE = "DELETE FROM jimsapi_subscriptions WHERE run_id = ? AND kind = ? AND name = ?"
_ANY_DUE = "SELECT EXISTS (SELECT 1 FROM jimsapi_subscriptions WHERE due_at <= ?)"
_FORGET_DELETED = """
    DELETE FROM jimsapi_subscriptions AS s WHERE NOT EXISTS (SELECT 1 FROM jimsapi_runs r WHERE r.run_id = s.run_id)
"""
_DUE = f"""
    SELECT {_COLUMNS}, call_at, EXISTS (SELECT 1 FROM jimsapi_runs r WHERE r.run_id = s.run_id)
    FROM jimsapi_subscriptions s WHERE due_at <= ? ORDER BY due_at LIMIT ?
"""
_HOLD = "UPDATE jimsapi_subscriptions SET due_at = ? WHERE subscription_id = ?"
_FORGET = "DELETE FROM jimsapi_subscriptions WHERE subscription_id = ?"
_OF_THREAD = "SELECT EXISTS (SELECT 1 FROM jimsapi_subscriptions WHERE thread_id = ? AND due_at IS NOT NULL)"
_WAKE = "UPDATE jimsapi_subscriptions SET due_at = ? WHERE thread_id = ? AND due_at IS NOT NULL"
_DELAY = """
    UPDATE jimsapi_subscriptions SET due_at = ?1, notice = ?2, calls = ?3, call_at = CASE WHEN ?3 > 0 THEN ?1 END
    WHERE subscription_id = ?4 AND due_at IS NOT NULL
"""
_SETTLE = "UPDATE jimsapi_subscriptions SET due_at = NULL, notice = ?, calls = 0 WHERE subscription_id = ?"
_COUNT = "SELECT count(*) FROM jimsapi_subscriptions WHERE due_at IS NOT NULL"
_RECOVER = "UPDATE jimsapi_subscriptions SET due_at = ? WHERE due_at IS NOT NULL AND calls = 0"


class SQLiteSubscriptions:
    """A `SubscriptionStore` in an SQLite database. `read` and `write` execute work on a connection.

    Most calls of `take` and `wake` find nothing, so they read first: a write would sync the disk.
    """

    def __init__(self, read: Execute, write: Execute) -> None:
        self._read = read
        self._write = write

    async def add(self, subscription: Subscription, limit: int) -> bool:
        return bool(await self._write(partial(_add, subscription=subscription, limit=limit)))

    async def of_run(self, run_id: UUID, kind: str) -> list[Subscription]:
        found: list[Subscription] = await self._read(partial(_of_run, run_id=run_id, kind=kind))
        return found

    async def remove(self, run_id: UUID, kind: str, name: str) -> bool:
        return bool(await self._write(partial(_execute, _REMOVE, (id_hex(run_id), kind, name))))

    async def take(self, limit: int, seconds: float) -> list[Subscription]:
        if not await self._read(partial(_value, _ANY_DUE, (time_text(utc_now()),))):
            return []
        taken: list[Subscription] = await self._write(partial(_take, limit=limit, seconds=seconds))
        return taken

    async def wake(self, thread_ids: Collection[UUID]) -> int:
        threads = await self._read(partial(_with_subscriptions, thread_ids=list(thread_ids)))
        return int(await self._write(partial(_wake, threads=threads))) if threads else 0

    async def delay(self, subscription_id: UUID, seconds: float, notice: str | None, calls: int) -> None:
        due_at = time_text(utc_now() + timedelta(seconds=seconds))
        await self._write(partial(_execute, _DELAY, (due_at, notice, calls, id_hex(subscription_id))))

    async def settle(self, subscription_id: UUID, notice: str | None) -> None:
        await self._write(partial(_execute, _SETTLE, (notice, id_hex(subscription_id))))

    async def count(self) -> int:
        return int(await self._read(partial(_value, _COUNT, ())))

    async def recover(self) -> None:
        if await self.count():
            await self._write(partial(_execute, _RECOVER, (time_text(utc_now()),)))


def forget_deleted(connection: sqlite3.Connection) -> None:
    """Delete the subscriptions of runs that were purged or deleted."""
    connection.execute(_FORGET_DELETED)


def _execute(statement: str, arguments: tuple[Any, ...], connection: sqlite3.Connection) -> int:
    return connection.execute(statement, arguments).rowcount


def _value(statement: str, arguments: tuple[Any, ...], connection: sqlite3.Connection) -> Any:
    return connection.execute(statement, arguments).fetchone()[0]


def _add(connection: sqlite3.Connection, subscription: Subscription, limit: int) -> bool:
    run, kind, name = id_hex(subscription.run_id), subscription.kind, subscription.name
    if connection.execute("SELECT 1 FROM jimsapi_runs WHERE run_id = ?", (run,)).fetchone() is None:
        raise RunNotFound(subscription.run_id)
    if connection.execute(_OTHERS, (run, kind, name)).fetchone()[0] >= limit:
        return False
    columns = (
        id_hex(subscription.subscription_id),
        run,
        id_hex(subscription.thread_id),
        kind,
        name,
        None if subscription.caller is None else id_hex(subscription.caller),
        subscription.data.decode(),
        subscription.notice,
        subscription.calls,
        time_text(utc_now()),
    )
    connection.execute(_ADD, columns)
    return True


def _of_run(connection: sqlite3.Connection, run_id: UUID, kind: str) -> list[Subscription]:
    return [_subscription(row) for row in connection.execute(_OF_RUN, (id_hex(run_id), kind))]


def _take(connection: sqlite3.Connection, limit: int, seconds: float) -> list[Subscription]:
    now = utc_now()
    until = time_text(now + timedelta(seconds=seconds))
    taken: list[Subscription] = []
    for *row, call_at, has_run in connection.execute(_DUE, (time_text(now), limit)).fetchall():
        if has_run:
            connection.execute(_HOLD, (until, row[0]))
            pause = 0.0 if call_at is None else max(0.0, (datetime.fromisoformat(call_at) - now).total_seconds())
            taken.append(msgspec.structs.replace(_subscription(row), pause=pause))
        else:
            connection.execute(_FORGET, (row[0],))
    return taken


def _with_subscriptions(connection: sqlite3.Connection, thread_ids: Collection[UUID]) -> list[str]:
    return [thread for thread in map(id_hex, thread_ids) if connection.execute(_OF_THREAD, (thread,)).fetchone()[0]]


def _wake(connection: sqlite3.Connection, threads: Collection[str]) -> int:
    now = time_text(utc_now())
    return sum(connection.execute(_WAKE, (now, thread)).rowcount for thread in threads)


def _subscription(row: Any) -> Subscription:
    subscription, run, thread, kind, name, caller, data, notice, calls = row
    return Subscription(
        UUID(subscription),
        UUID(run),
        UUID(thread),
        kind,
        name,
        None if caller is None else UUID(caller),
        data.encode(),
        notice,
        calls,
    )
