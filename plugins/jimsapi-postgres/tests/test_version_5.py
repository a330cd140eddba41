"""A database of version 5: how facts of threads get into it beside servers of that version."""

from pathlib import Path

import pytest
from database import Postgres
from jimsapi_postgres.connections import Connector, Link
from jimsapi_postgres.schema import prepare
from jimsapi_postgres.store import PostgresStore
from jimsapi_postgres.url import parse_url

from jimsapi.testing.store import fill, make_event
from jimsapi.threads import ThreadChange, ThreadFacts

pytestmark = pytest.mark.anyio

VERSION_5 = Path(__file__).with_name("version_5.sql").read_text()
DELETE = "SELECT thread_count FROM jimsapi_delete_2($1, NULL, NULL, '{}', 500)"


async def test_an_older_server_deletes_what_newer_ones_know_of_a_thread(
    postgres: Postgres, database: str, url: str
) -> None:
    await prepare(parse_url(url), wait=10)
    postgres.psql(VERSION_5, database)
    old = Link(Connector(parse_url(url)))
    assert await old.run(lambda connection: connection.fetchval("SELECT version FROM jimsapi_schema")) == 5
    assert await prepare(parse_url(url), wait=10) == 5
    async with PostgresStore(url) as store:
        thread_id = await fill(store, [make_event()])
        await store.change_thread(thread_id, None, ThreadChange(title="t"))
        assert await old.run(lambda connection: connection.fetchval(DELETE, thread_id)) == 1
        (summary,) = await store.summaries([thread_id])
        assert summary.facts == ThreadFacts()
    assert postgres.psql("SELECT count(*) FROM jimsapi_threads", database) == "0"
    await old.close()
