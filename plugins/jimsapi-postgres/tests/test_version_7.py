"""A database of version 7: durable sinks receive what its servers store while they work beside newer ones."""

from pathlib import Path

import pytest
from database import Postgres
from jimsapi_postgres import rows
from jimsapi_postgres.connections import Connector, Link
from jimsapi_postgres.schema import prepare
from jimsapi_postgres.store import PostgresStore
from jimsapi_postgres.url import parse_url

from jimsapi.testing.store import OTHER_OWNER, OWNER, completed, make_event, make_plan
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import RunStatus

pytestmark = pytest.mark.anyio

VERSION_7 = Path(__file__).with_name("version_7.sql").read_text()
SILENT = "INSERT INTO jimsapi_owners VALUES ($1, '-infinity')"
RECOVER = "SELECT jimsapi_recover_2($1, interval '20 s', 1000, false)"
ADOPT = "SELECT run_id FROM jimsapi_adopt_5($1, $2, interval '20 s', 1000)"
DELETE = "SELECT thread_count FROM jimsapi_delete_2(NULL, $1, NULL, '{}', 500)"


async def test_a_sink_receives_what_an_older_server_stores(postgres: Postgres, database: str, url: str) -> None:
    await prepare(parse_url(url), wait=10)
    postgres.psql(VERSION_7, database)
    old = Link(Connector(parse_url(url)))
    before, later = make_plan(), make_plan(text="Later")
    await old.run(lambda connection: connection.fetch(rows.ACCEPT, *rows.accept_arguments([before])))
    finishing = [(before.run_id, OWNER, completed(make_event()))]
    await old.run(lambda connection: connection.fetch(rows.FINISH, *rows.finish_arguments(finishing)))
    assert await prepare(parse_url(url), wait=10) == 7
    async with PostgresStore(url) as store:
        await store.outbox.register("audit")
        await old.run(lambda connection: connection.fetch(rows.ACCEPT, *rows.accept_arguments([later])))
        batch = await store.outbox.read("audit", 10)
        assert [(event.run_id, event.row.event_type) for event in batch.events] == [(later.run_id, "comm.user_message")]
        assert await old.run(lambda connection: connection.fetchval(DELETE, "ann")) == 1
        assert (await store.outbox.read("audit", 10)).events == []
    await old.close()


async def test_an_older_server_takes_over_what_waits_and_starts_nothing_again(store: PostgresStore, url: str) -> None:
    started = make_plan(text="one", owner=OTHER_OWNER, background=True)
    waiting = make_plan(text="two", owner=OTHER_OWNER, background=True)
    for plan in (started, waiting):
        await store.accept(plan)
    old = Link(Connector(parse_url(url)))
    await old.run(lambda connection: connection.execute(SILENT, OTHER_OWNER))
    assert await old.run(lambda connection: connection.fetchval(RECOVER, OWNER)) == 1
    adopted = await old.run(lambda connection: connection.fetch(ADOPT, OWNER, uuid7()))
    assert [tuple(row) for row in adopted] == [(waiting.run_id,)]
    assert (await store.run(started.run_id, None, None)).status is RunStatus.INTERRUPTED
    await old.close()
