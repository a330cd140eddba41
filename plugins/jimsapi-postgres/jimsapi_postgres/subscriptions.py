"""The subscriptions of a PostgreSQL database."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any
from uuid import UUID

import msgspec

from jimsapi.threads import RunNotFound, Subscription
from jimsapi_postgres import rows
from jimsapi_postgres.connections import Connection

Execute = Callable[[Callable[[Connection], Awaitable[Any]]], Awaitable[Any]]

_COLUMNS = "subscription_id, run_id, thread_id, kind, name, caller, data, notice, calls"
# Calls for the same run come one after another, so that together they do not exceed the limit.
_LOCK_RUN = "SELECT pg_advisory_xact_lock(uuid_hash_extended($1, 9))"
_HAS_RUN = "SELECT EXISTS (SELECT FROM jimsapi_runs r WHERE r.run_id = $1)"
_OTHERS = "SELECT count(*) FROM jimsapi_subscriptions WHERE run_id = $1 AND kind = $2 AND name <> $3"
_ADD = f"""
    INSERT INTO jimsapi_subscriptions ({_COLUMNS}, due_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, clock_timestamp())
    ON CONFLICT (run_id, kind, name) DO UPDATE SET
        subscription_id = excluded.subscription_id, thread_id = excluded.thread_id, caller = excluded.caller,
        data = excluded.data, notice = excluded.notice, calls = excluded.calls, due_at = excluded.due_at, call_at = NULL
"""
_OF_RUN = f"SELECT {_COLUMNS} FROM jimsapi_subscriptions WHERE run_id = $1 AND kind = $2 ORDER BY name"
_REMOVE = "DELETE FROM jimsapi_subscriptions WHERE run_id = $1 AND kind = $2 AND name = $3 RETURNING true"
_TAKE = f"""
    UPDATE jimsapi_subscriptions s SET due_at = clock_timestamp() + $2::float8 * interval '1 second'
    FROM (
        SELECT d.subscription_id, d.due_at AS was_due_at, r.run_id IS NOT NULL AS has_run
        FROM (
            SELECT w.subscription_id, w.run_id, w.due_at FROM jimsapi_subscriptions w
            WHERE w.due_at <= clock_timestamp()
            ORDER BY w.due_at
            LIMIT $1
            FOR UPDATE SKIP LOCKED
        ) d
        LEFT JOIN jimsapi_runs r ON r.run_id = d.run_id
    ) due
    WHERE s.subscription_id = due.subscription_id
    RETURNING {", ".join(f"s.{column}" for column in _COLUMNS.split(", "))},
        greatest(extract(epoch FROM s.call_at - clock_timestamp()), 0)::float8, due.has_run, due.was_due_at
"""
_FORGET = "DELETE FROM jimsapi_subscriptions WHERE subscription_id = ANY ($1::uuid[])"
_FORGET_DELETED = """
    DELETE FROM jimsapi_subscriptions WHERE subscription_id = ANY (ARRAY(
        SELECT s.subscription_id FROM jimsapi_subscriptions s
        WHERE NOT EXISTS (SELECT FROM jimsapi_runs r WHERE r.run_id = s.run_id)
        ORDER BY s.subscription_id
        FOR UPDATE
    ))
"""
_WAKE = """
    UPDATE jimsapi_subscriptions SET due_at = clock_timestamp() WHERE subscription_id = ANY (ARRAY(
        SELECT s.subscription_id FROM jimsapi_subscriptions s
        WHERE s.thread_id = ANY ($1::uuid[]) AND s.due_at IS NOT NULL
        ORDER BY s.subscription_id
        FOR UPDATE
    ))
    RETURNING true
"""
_OF_THREADS = """
    SELECT EXISTS (SELECT FROM jimsapi_subscriptions s WHERE s.thread_id = ANY ($1::uuid[]) AND s.due_at IS NOT NULL)
"""
_ANY_DUE = "SELECT EXISTS (SELECT FROM jimsapi_subscriptions s WHERE s.due_at <= clock_timestamp())"
_DELAY = """
    UPDATE jimsapi_subscriptions
    SET due_at = n.due_at, notice = $3, calls = $4::int, call_at = CASE WHEN $4::int > 0 THEN n.due_at END
    FROM (SELECT clock_timestamp() + $2::float8 * interval '1 second' AS due_at) n
    WHERE subscription_id = $1 AND jimsapi_subscriptions.due_at IS NOT NULL
"""
_SETTLE = "UPDATE jimsapi_subscriptions SET due_at = NULL, notice = $2, calls = 0 WHERE subscription_id = $1"
_COUNT = "SELECT count(*) FROM jimsapi_subscriptions WHERE due_at IS NOT NULL"


class PostgresSubscriptions:
    """A `SubscriptionStore` in PostgreSQL. `do` and `write` do work on a connection; `write` also reports a commit.

    Most calls of `take` and `wake` find nothing, so they look before they write.
    """

    def __init__(self, do: Execute, write: Execute) -> None:
        self._do = do
        self._write = write

    async def add(self, subscription: Subscription, limit: int) -> bool:
        run_id, kind, name = subscription.run_id, subscription.kind, subscription.name

        async def add(connection: Connection) -> bool:
            async with connection.transaction():
                await connection.execute(_LOCK_RUN, run_id)
                if not await connection.fetchval(_HAS_RUN, run_id):
                    raise RunNotFound(run_id)
                if await connection.fetchval(_OTHERS, run_id, kind, name) >= limit:
                    return False
                await connection.execute(
                    _ADD,
                    subscription.subscription_id,
                    run_id,
                    subscription.thread_id,
                    kind,
                    name,
                    subscription.caller,
                    subscription.data.decode(),
                    subscription.notice,
                    subscription.calls,
                )
            return True

        return bool(await self._write(add))

    async def of_run(self, run_id: UUID, kind: str) -> list[Subscription]:
        found = await self._do(lambda connection: connection.fetch(_OF_RUN, run_id, kind))
        return [_subscription(row) for row in found]

    async def remove(self, run_id: UUID, kind: str, name: str) -> bool:
        return bool(await self._write(lambda connection: connection.fetchval(_REMOVE, run_id, kind, name)))

    async def take(self, limit: int, seconds: float) -> list[Subscription]:
        if not await self._do(lambda connection: connection.fetchval(_ANY_DUE)):
            return []
        found = await self._write(lambda connection: connection.fetch(_TAKE, limit, seconds))
        deleted = [row[0] for row in found if not row[-2]]
        if deleted:
            await self._write(lambda connection: connection.execute(_FORGET, deleted))
        found.sort(key=lambda row: row[-1])
        return [msgspec.structs.replace(_subscription(row[:-3]), pause=row[-3] or 0.0) for row in found if row[-2]]

    async def wake(self, thread_ids: Collection[UUID]) -> int:
        threads = list(thread_ids)
        if not await self._do(lambda connection: connection.fetchval(_OF_THREADS, threads)):
            return 0
        return len(await self._write(lambda connection: connection.fetch(_WAKE, threads)))

    async def delay(self, subscription_id: UUID, seconds: float, notice: str | None, calls: int) -> None:
        await self._write(lambda connection: connection.execute(_DELAY, subscription_id, seconds, notice, calls))

    async def settle(self, subscription_id: UUID, notice: str | None) -> None:
        await self._write(lambda connection: connection.execute(_SETTLE, subscription_id, notice))

    async def count(self) -> int:
        return int(await self._do(lambda connection: connection.fetchval(_COUNT)))

    async def recover(self) -> None:
        """Do nothing: other processes may have taken what is not due."""


async def forget_deleted(connection: Connection) -> None:
    """Delete the subscriptions of runs that were purged or deleted."""
    await connection.execute(_FORGET_DELETED)


def _subscription(row: Sequence[Any]) -> Subscription:
    subscription, run, thread, kind, name, caller, data, notice, calls = row
    return Subscription(
        rows.as_uuid(subscription),
        rows.as_uuid(run),
        rows.as_uuid(thread),
        kind,
        name,
        None if caller is None else rows.as_uuid(caller),
        data.encode(),
        notice,
        calls,
    )
