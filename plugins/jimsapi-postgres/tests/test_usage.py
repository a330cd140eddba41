"""Totals of usage with several processes on one database: they share budgets, and none waits for another for ever."""

import asyncio
from contextlib import AsyncExitStack

import asyncpg
import pytest
from database import Postgres
from jimsapi_postgres.store import PostgresStore

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.testing.store import OWNER, completed, make_event, make_plan
from jimsapi.threads import New, NewEvent
from jimsapi.threads.ids import uuid7

pytestmark = pytest.mark.anyio

SHOP = uuid7()
WAITS = "SELECT true FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid)) LIMIT 1"
COUNTS = "SELECT coalesce(sum(calls), 0) FROM jimsapi_{}_usage"


async def spend(ctx: ThreadContext) -> None:
    ctx.usage(model="m", input_tokens=60, output_tokens=0)


def usage(model: str) -> NewEvent:
    return make_event("model.usage", {"model": model, "input_tokens": 1})


async def test_processes_share_the_budget_of_a_contact(url: str) -> None:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(TestClient(create_api(spend, store=url, token_budget="100/day")))
            for _ in range(2)
        ]
        body = {"contact_id": "ann", "message": "hi"}
        answers = [await clients[number % 2].post("/api/v1/chat", json=body) for number in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    left = ["40", "0", "0", "0"]
    assert [answer.headers["ratelimit"].partition("r=")[2].partition(";")[0] for answer in answers] == left


async def test_runs_that_use_the_same_models_in_other_orders_do_not_block_each_other(
    postgres: Postgres, database: str, url: str
) -> None:
    models = [f"model {number}" for number in range(5)]
    contacts = ["ann", "bob", "cem"]
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(PostgresStore(url)) for _ in range(3)]

        async def turns(number: int) -> None:
            store, direction = stores[number % 3], 1 if number % 2 else -1
            for contact in contacts[::direction] * 3:
                plan = make_plan(contact, caller=SHOP, selectors=(New(),))
                await store.accept(plan)
                await store.finish(plan.run_id, OWNER, completed(*map(usage, models[::direction])))

        await asyncio.gather(*map(turns, range(12)))
    assert postgres.psql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()", database) == "0"
    expected = str(12 * 9 * 5)
    assert [postgres.psql(COUNTS.format(table), database) for table in ("thread", "contact", "caller")] == [
        expected,
        expected,
        expected,
    ]


async def test_rows_are_locked_in_one_order_whatever_the_order_of_the_models(url: str) -> None:
    """Whoever waits for the first of its rows has locked no other, so that no circle of waits can form."""
    async with PostgresStore(url) as store, PostgresStore(url) as other:
        plans = [make_plan(contact, caller=SHOP) for contact in ("ann", "bob", "cem")]
        for plan in plans:
            await store.accept(plan)
        await store.finish(plans[0].run_id, OWNER, completed(usage("a"), usage("b")))
        holder = await asyncpg.connect(url)
        async with holder.transaction():
            await holder.execute("SELECT FROM jimsapi_caller_usage WHERE model = 'a' FOR UPDATE")
            waiting = asyncio.ensure_future(store.finish(plans[1].run_id, OWNER, completed(usage("b"), usage("a"))))
            while not await holder.fetchval(WAITS):
                await asyncio.sleep(0.01)
            assert (await other.finish(plans[2].run_id, OWNER, completed(usage("b")))).counted
            assert not waiting.done()
        assert (await waiting).counted
        await holder.close()


async def test_contacts_are_deleted_while_their_runs_end(postgres: Postgres, database: str, url: str) -> None:
    models = [f"model {number}" for number in range(5)]
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(PostgresStore(url)) for _ in range(2)]

        async def turns(number: int) -> None:
            for _ in range(10):
                plan = make_plan("ann", caller=SHOP, selectors=(New(),))
                await stores[number % 2].accept(plan)
                await stores[number % 2].finish(plan.run_id, OWNER, completed(*map(usage, models[::-1])))

        async def delete() -> None:
            for _ in range(10):
                await stores[0].delete_contact("ann")

        await asyncio.gather(*map(turns, range(6)), delete())
        await stores[0].delete_contact("ann")
    assert postgres.psql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()", database) == "0"
    assert [postgres.psql(COUNTS.format(table), database) for table in ("thread", "contact")] == ["0", "0"]
