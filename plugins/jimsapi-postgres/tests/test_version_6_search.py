"""A database of version 6: what its servers do beside newer ones is searched, and what they delete is not found."""

from pathlib import Path

import pytest
from database import Postgres
from jimsapi_postgres.connections import Connector, Link
from jimsapi_postgres.schema import prepare
from jimsapi_postgres.store import PostgresStore
from jimsapi_postgres.url import parse_url

from jimsapi.testing.store import fill, make_event
from jimsapi.threads import ForkPlan, SearchQuery, uuid7

pytestmark = pytest.mark.anyio

VERSION_6 = Path(__file__).with_name("version_6.sql").read_text()
DELETE = "SELECT thread_count FROM jimsapi_delete_2($1, NULL, NULL, '{}', 500)"
FORK = "SELECT verdict FROM jimsapi_fork_6($1, $2, NULL, NULL, false, false, now()::timestamp)"


async def test_what_an_older_server_stores_is_found_until_it_deletes_it(
    postgres: Postgres, database: str, url: str
) -> None:
    await prepare(parse_url(url), wait=10)
    postgres.psql(VERSION_6, database)
    old = Link(Connector(parse_url(url)))
    assert await old.run(lambda connection: connection.fetchval("SELECT version FROM jimsapi_schema")) == 6
    assert await prepare(parse_url(url), wait=10) == 6
    query, fork_id = SearchQuery((("hi",),)), uuid7()

    async with PostgresStore(url) as store:

        async def found() -> list[object]:
            return [match.thread.thread_id for match in (await store.search(query, "ann", 10, None)).matches]

        thread_id = await fill(store, [make_event()])
        assert await found() == [thread_id]
        assert await old.run(lambda connection: connection.fetchval(FORK, fork_id, thread_id)) == "made"
        assert await found() == [fork_id, thread_id]
        assert [summary.forks for summary in await store.summaries([thread_id])] == [1]
        assert await old.run(lambda connection: connection.fetchval(DELETE, fork_id)) == 1
        assert await found() == [thread_id]
        assert [summary.forks for summary in await store.summaries([thread_id])] == [0]
        again = await store.fork(ForkPlan(thread_id=uuid7(), parent_id=thread_id, acting_for=None))
        assert await found() == [again.thread_id, thread_id]
    for table in ("jimsapi_search_threads", "(SELECT DISTINCT number FROM jimsapi_search) numbers"):
        assert postgres.psql(f"SELECT count(*) FROM {table}", database) == "2"
    await old.close()
