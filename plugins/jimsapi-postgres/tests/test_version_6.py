"""A database of version 6: it is upgraded while servers of that version work, whose usage counts, too."""

from pathlib import Path

import pytest
from database import Postgres
from jimsapi_postgres import rows
from jimsapi_postgres.connections import Connector, Link
from jimsapi_postgres.schema import prepare
from jimsapi_postgres.store import PostgresStore
from jimsapi_postgres.url import parse_url

from jimsapi.testing.store import OWNER, completed, make_event, make_plan
from jimsapi.threads import ModelTotal, UsageTotal

pytestmark = pytest.mark.anyio

VERSION_6 = Path(__file__).with_name("version_6.sql").read_text()
APPEND = "SELECT verdict FROM jimsapi_append_5($1, $2, $3, $4, $5)"
DELETE = "SELECT thread_count FROM jimsapi_delete_2(NULL, $1, NULL, '{}', 500)"


async def test_what_older_servers_store_and_delete_counts_beside_newer_ones(
    postgres: Postgres, database: str, url: str
) -> None:
    await prepare(parse_url(url), wait=10)
    postgres.psql(VERSION_6, database)
    old = Link(Connector(parse_url(url)))
    plan, usage = make_plan(), make_event("model.usage", {"model": "m", "input_tokens": 3})
    await old.run(lambda connection: connection.fetch(rows.ACCEPT, *rows.accept_arguments([plan])))
    assert await prepare(parse_url(url), wait=10) == 6
    async with PostgresStore(url) as store:
        finishing = [(plan.run_id, OWNER, completed(usage))]
        await old.run(lambda connection: connection.fetch(rows.FINISH, *rows.finish_arguments(finishing)))
        thread_id = (await store.run(plan.run_id, None, None)).thread_id
        assert await store.thread_usage(thread_id, None) == [ModelTotal("m", UsageTotal(1, 3))]
        more = make_event("model.usage", {"model": "m", "input_tokens": 4})
        appended = (thread_id, None, [more.event_id], [more.event_type], [more.data])
        assert await old.run(lambda connection: connection.fetchval(APPEND, *appended)) == "stored"
        assert await store.thread_usage(thread_id, None) == [ModelTotal("m", UsageTotal(2, 7))]
        assert await old.run(lambda connection: connection.fetchval(DELETE, "ann")) == 1
    for table in ("thread", "contact"):
        assert postgres.psql(f"SELECT count(*) FROM jimsapi_{table}_usage", database) == "0"
    assert postgres.psql("SELECT calls, input FROM jimsapi_caller_usage", database) == "2|7"
    await old.close()
