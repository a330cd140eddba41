"""A database of version 2: what servers of that version find in it after an upgrade."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from database import Postgres
from jimsapi_postgres import rows, schema
from jimsapi_postgres.connections import Connector, Link
from jimsapi_postgres.schema import prepare
from jimsapi_postgres.store import PostgresStore
from jimsapi_postgres.url import parse_url

from jimsapi.testing.store import OWNER, all_threads, completed, contents, make_event, make_plan
from jimsapi.threads.errors import StoreUnusable
from jimsapi.threads.run import RunPlan, RunStatus

pytestmark = pytest.mark.anyio

VERSION_2 = f"""
    {Path(__file__).with_name("version_3.sql").read_text()}
    DROP FUNCTION jimsapi_accept_alike_3;
    UPDATE jimsapi_schema SET version = 2, serves_from = 1;
"""
# What a server of version 2 asks where a newer one asks something else.
ACCEPT_ALIKE = f"""
    SELECT item, part, verdict, id, at, kind, data, first_at
    FROM jimsapi_accept_alike_2({", ".join(f"${number}" for number in range(1, 16))})
"""


@pytest.fixture
async def old_server(url: str) -> AsyncIterator[Link]:
    link = Link(Connector(parse_url(url)))
    yield link
    await link.close()


async def _accept(old_server: Link, *plans: RunPlan) -> list[Any]:
    arguments = rows.alike_arguments(plans, only_new=False)[:15]
    found = await old_server.run(lambda connection: connection.fetch(ACCEPT_ALIKE, *arguments))
    return rows.read_alike(plans, arguments, found)


async def test_an_upgrade_that_is_cut_off_leaves_the_database_to_older_servers(
    postgres: Postgres, database: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut_off(connection: Any) -> None:
        raise ConnectionError

    await prepare(parse_url(url), wait=10)
    postgres.psql(VERSION_2, database)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS[:-1], cut_off))
    with pytest.raises(StoreUnusable):
        await prepare(parse_url(url), wait=10)
    assert postgres.psql("SELECT version, serves_from FROM jimsapi_schema", database) == "2|1"


async def test_an_upgrade_brings_what_newer_servers_ask_and_leaves_what_older_ones_do(
    old_server: Link, postgres: Postgres, database: str, url: str
) -> None:
    await prepare(parse_url(url), wait=10)
    postgres.psql(VERSION_2, database)
    assert await prepare(parse_url(url), wait=10) == 2
    assert postgres.psql("SELECT version, serves_from FROM jimsapi_schema", database) == "9|1"

    async with PostgresStore(url) as store:
        mine, theirs = make_plan("ann", "one"), make_plan("bob", "one")
        assert (await store.accept(mine)).status is RunStatus.RUNNING
        (created,) = await _accept(old_server, theirs)
        assert (created.created_new_thread, created.status) == (True, RunStatus.RUNNING)
        assert await contents(store, created.thread.thread_id) == ["one"]
        waiting, new = await _accept(old_server, make_plan("ann", "two"), make_plan("cid", "one"))
        assert (waiting.status, new.created_new_thread) == (RunStatus.QUEUED, True)
        assert len(await all_threads(store, "ann")) == 1
        for plan in (mine, theirs):
            assert (await store.finish(plan.run_id, OWNER, completed(make_event()))).counted
