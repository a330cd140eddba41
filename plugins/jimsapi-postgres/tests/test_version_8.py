"""A database of version 8: its subscriptions are kept, and deleted also by servers that know of none."""

from pathlib import Path

import pytest
from database import Postgres
from jimsapi_postgres.connections import Connector, Link
from jimsapi_postgres.schema import prepare
from jimsapi_postgres.store import PostgresStore
from jimsapi_postgres.url import parse_url

from jimsapi.testing.store import make_plan
from jimsapi.threads import Subscription, uuid7

pytestmark = pytest.mark.anyio

VERSION_8 = Path(__file__).with_name("version_8.sql").read_text()
DELETE = "SELECT thread_count FROM jimsapi_delete_2(NULL, $1, NULL, '{}', 500)"


async def test_an_older_server_deletes_the_subscriptions_of_its_threads(
    postgres: Postgres, database: str, url: str
) -> None:
    await prepare(parse_url(url), wait=10)
    postgres.psql(VERSION_8, database)
    old = Link(Connector(parse_url(url)))
    assert await old.run(lambda connection: connection.fetchval(DELETE, "nobody")) == 0
    assert await prepare(parse_url(url), wait=10) == 8
    async with PostgresStore(url) as store:
        plan = make_plan()
        accepted = await store.accept(plan)
        subscription = Subscription(uuid7(), plan.run_id, accepted.thread.thread_id, "test", "first", None, b"{}")
        assert await store.subscriptions.add(subscription, 1)
        assert await old.run(lambda connection: connection.fetchval(DELETE, "ann")) == 1
        assert postgres.psql("SELECT count(*) FROM jimsapi_subscriptions", database) == "0"
    await old.close()
