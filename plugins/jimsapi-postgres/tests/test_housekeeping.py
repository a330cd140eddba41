"""What housekeeping costs in PostgreSQL does not grow with the runs that have ended; counted in pages, not time."""

from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from jimsapi_postgres import store as store_module
from jimsapi_postgres.connections import Connector, Link
from jimsapi_postgres.peers import _NO_LONGER_WAITING, RECOVER, SILENCE
from jimsapi_postgres.schema import prepare
from jimsapi_postgres.store import _ADOPT, _OPEN_RUNS, _PURGE, _PURGE_KEYS, _PURGE_OWNERS, PostgresStore
from jimsapi_postgres.url import parse_url
from test_costs import _count

from jimsapi.testing.store import OWNER, make_key, make_plan
from jimsapi.threads.store import CommitRecord

pytestmark = pytest.mark.anyio

ENDED = """
    INSERT INTO jimsapi_runs (
        run_id, thread_id, seq, owner, status, created_new_thread, message_id, message_type, accepted_at, finished_at
    )
    SELECT gen_random_uuid(), gen_random_uuid(), 1, $1, 'completed', false, gen_random_uuid(), 'x', now(),
        now() - n * interval '1 second'
    FROM generate_series(1, 50000) n
"""
KEYS = """
    INSERT INTO jimsapi_idempotency
    SELECT gen_random_uuid(), gen_random_uuid(), run_id, finished_at FROM jimsapi_runs
"""


async def test_housekeeping_costs_the_same_beside_many_ended_runs(url: str) -> None:
    await prepare(parse_url(url), wait=0)
    link = Link(Connector(parse_url(url)))
    queries: list[tuple[str, list[Any]]] = [
        (_OPEN_RUNS, [OWNER, uuid4()]),
        (RECOVER, [uuid4(), SILENCE, 1000, 1]),
        (_ADOPT, [uuid4(), uuid4(), SILENCE, 1000, 1]),
        (_NO_LONGER_WAITING, [[uuid4(), uuid4()]]),
        (_PURGE, [timedelta(days=30), 1000]),
        (_PURGE_KEYS, [timedelta(hours=24), 1000]),
        (_PURGE_OWNERS, [timedelta(hours=1)]),
    ]

    async def costs(connection: Any) -> list[int]:
        for query, arguments in queries * 2:  # the second time plans and caches are warm
            await connection.fetch(query, *arguments)
        return [await _count(connection, query, *arguments) for query, arguments in queries]

    for table in ("jimsapi_runs", "jimsapi_idempotency"):
        no_statistics = f"ALTER TABLE {table} SET (autovacuum_enabled = off)"
        await link.run(partial(_execute, sql=no_statistics))
    await link.run(costs)  # planned while the table was empty
    await link.run(partial(_execute, sql=ENDED, arguments=(OWNER,)))
    await link.run(partial(_execute, sql=KEYS))
    pages = await link.run(costs)
    print(f"{pages} pages beside 50,000 ended runs, and as many keys")
    assert all(touched < 60 for touched in pages)
    await link.close()


async def test_old_runs_are_forgotten_whatever_the_age(url: str) -> None:
    async with PostgresStore(url) as store:
        plan = make_plan()
        await store.accept(plan)
        assert await store.cancel(plan.run_id)
        assert await store.purge(timedelta.max) == 0
        assert await store.purge(timedelta(seconds=-60)) == 1


async def test_old_keys_are_forgotten_in_batches(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PURGED_AT_ONCE", 10)
    async with PostgresStore(url) as store:
        plans = [make_plan(idempotency=make_key()) for _ in range(25)]
        for plan in plans:
            await store.accept(plan)
        store.keep_keys = timedelta(seconds=-60)
        commits: list[CommitRecord] = []
        store.on_commit = commits.append
        assert await store.purge(timedelta(days=1)) == 0
        # Three are for the keys; one each is for webhooks, dead processes and subscriptions; and one found no run.
        assert len(commits) == 7
        pool = store._pool
        assert pool is not None
        assert (
            await pool.run_with_retry(
                lambda connection: connection.fetchval("SELECT count(*) FROM jimsapi_idempotency")
            )
            == 0
        )


async def _execute(connection: Any, sql: str, arguments: tuple[Any, ...] = ()) -> None:
    await connection.execute(sql, *arguments)
