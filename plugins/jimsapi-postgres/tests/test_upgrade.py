"""What an upgrade says when something stands in its way."""

from pathlib import Path

import asyncpg
import pytest
from database import Postgres
from jimsapi_postgres.schema import SCHEMA_VERSION, prepare
from jimsapi_postgres.store import PostgresStore
from jimsapi_postgres.url import parse_url

from jimsapi.testing.store import make_plan
from jimsapi.threads.errors import StoreUnusable

pytestmark = pytest.mark.anyio

JIMS = Path(__file__).with_name("jims_schema.sql").read_text()
WRITE = "INSERT INTO threads VALUES (gen_random_uuid(), 'ann', NULL, now(), '{}')"
LEAST = """
    CREATE ROLE serving LOGIN;
    GRANT SELECT ON jimsapi_schema TO serving;
    GRANT SELECT, INSERT, DELETE ON threads, thread_events TO serving;
    GRANT SELECT, INSERT, UPDATE, DELETE ON jimsapi_runs, jimsapi_owners, jimsapi_idempotency TO serving;
    GRANT SELECT, INSERT, UPDATE, DELETE ON jimsapi_threads, jimsapi_feedback TO serving;
    GRANT SELECT, INSERT, UPDATE, DELETE ON jimsapi_search, jimsapi_search_threads TO serving;
    GRANT SELECT, INSERT, UPDATE, DELETE ON jimsapi_thread_usage, jimsapi_contact_usage TO serving;
    GRANT SELECT, INSERT, UPDATE, DELETE ON jimsapi_caller_usage TO serving;
    GRANT SELECT, INSERT, UPDATE, DELETE ON jimsapi_outbox, jimsapi_sinks TO serving;
    GRANT SELECT, INSERT, UPDATE, DELETE ON jimsapi_dead_letters, jimsapi_webhooks TO serving;
    GRANT SELECT, INSERT, UPDATE, DELETE ON jimsapi_subscriptions TO serving;
    REVOKE EXECUTE ON FUNCTION jimsapi_accept FROM PUBLIC;
"""


async def test_a_start_that_an_open_transaction_holds_up_says_so_and_the_next_one_goes_on(
    postgres: Postgres, database: str, url: str
) -> None:
    postgres.psql(JIMS, database)
    idle = await asyncpg.connect(url)
    async with idle.transaction():
        await idle.execute(WRITE)
        with pytest.raises(StoreUnusable, match="pg_stat_activity"):
            await prepare(parse_url(url), wait=0.3)
    await idle.close()
    assert await prepare(parse_url(url), wait=0) == 0
    assert await prepare(parse_url(url), wait=0) == SCHEMA_VERSION


async def test_a_role_that_may_not_call_our_functions_is_told_at_the_start(
    postgres: Postgres, database: str, url: str
) -> None:
    await prepare(parse_url(url), wait=0)
    postgres.psql(LEAST, database)
    serving = postgres.url(database, user="serving")
    try:
        with pytest.raises(StoreUnusable, match=r"lacks EXECUTE on function jimsapi_accept"):
            await PostgresStore(serving).__aenter__()
        postgres.psql("GRANT EXECUTE ON FUNCTION jimsapi_accept TO serving", database)
        async with PostgresStore(serving) as store:
            await store.accept(make_plan())
    finally:
        postgres.psql("DROP OWNED BY serving; DROP ROLE serving", database)
