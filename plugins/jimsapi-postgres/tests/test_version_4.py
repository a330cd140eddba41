"""A database of version 4: it is upgraded while servers of that version work, which know nothing beside a message."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from database import Postgres
from jimsapi_postgres import rows
from jimsapi_postgres.connections import Connector, Link
from jimsapi_postgres.schema import prepare
from jimsapi_postgres.store import PostgresStore
from jimsapi_postgres.url import parse_url

from jimsapi.testing.store import OTHER_OWNER, OWNER, completed, event_types, make_event, make_key, make_plan
from jimsapi.threads.run import Outcome, RunPlan, RunStatus
from jimsapi.threads.store import KEEP_KEYS

pytestmark = pytest.mark.anyio

VERSION_4 = Path(__file__).with_name("version_4.sql").read_text()


def placeholders(count: int) -> str:
    return ", ".join(f"${number}" for number in range(1, count + 1))


# What a server of version 4 asks where a newer one asks something else.
ACCEPT = f"SELECT item, part, verdict, id FROM jimsapi_accept_2({placeholders(24)})"
ACCEPT_WITH_KEYS = f"SELECT item, part, verdict, id FROM jimsapi_accept_with_keys_2({placeholders(27)})"
START = f"SELECT part, verdict, id FROM jimsapi_start_1({placeholders(7)})"
ADOPT = "SELECT run_id FROM jimsapi_adopt_2($1, $2, $3, $4)"
RUNS = "SELECT ctid, xmin, run_id, status, message_data FROM jimsapi_runs ORDER BY run_id"
BESIDE = [("message.metadata", {"metadata": {"n": 1}})]


class OldServer:
    """What a server of version 4 does, on one connection, whose statements stay prepared."""

    def __init__(self, url: str) -> None:
        self._link = Link(Connector(parse_url(url)))

    async def ask(self, query: str, *arguments: Any) -> list[Any]:
        found: list[Any] = await self._link.run(lambda connection: connection.fetch(query, *arguments))
        return found

    async def accept(self, *plans: RunPlan) -> list[str]:
        found = await self.ask(ACCEPT, *rows.accept_arguments(plans)[:24])
        return [row[2] for row in found if row[1] == 0]

    async def accept_with_key(self, plan: RunPlan) -> str:
        arguments = rows.accept_arguments([plan])[:24]
        found = await self.ask(ACCEPT_WITH_KEYS, *rows.key_arguments([plan], KEEP_KEYS), *arguments)
        return str(found[0][2])

    async def start(self, run_id: UUID, owner: UUID) -> list[tuple[int, str | None]]:
        found = await self.ask(START, run_id, owner, [], [], [], 200, 1_048_576)
        return [(row[0], row[1]) for row in found]

    async def finish(self, plan: RunPlan, outcome: Outcome) -> None:
        [row] = await self.ask(rows.FINISH, *rows.finish_arguments([(plan.run_id, plan.owner, outcome)]))
        assert row[0]

    async def close(self) -> None:
        await self._link.close()


@pytest.fixture
async def old(postgres: Postgres, database: str, url: str) -> AsyncIterator[OldServer]:
    await prepare(parse_url(url), wait=10)
    postgres.psql(VERSION_4, database)
    server = OldServer(url)
    yield server
    await server.close()


async def test_an_upgrade_leaves_the_rows_and_the_servers_that_are_at_work(
    old: OldServer, postgres: Postgres, database: str, url: str
) -> None:
    running, waiting = make_plan(owner=OTHER_OWNER), make_plan(owner=OTHER_OWNER)
    assert await old.accept(running) == ["created"]
    assert await old.accept(waiting) == ["queued"]
    before = postgres.psql(RUNS, database)
    assert await prepare(parse_url(url), wait=10) == 4
    assert postgres.psql("SELECT version, serves_from FROM jimsapi_schema", database) == "9|1"
    assert postgres.psql(RUNS, database) == before

    async with PostgresStore(url) as store:
        await old.finish(running, completed(make_event("rag.old")))
        assert (0, "started") in await old.start(waiting.run_id, OTHER_OWNER)
        await old.finish(waiting, Outcome(RunStatus.FAILED, (), "no"))
        keyed = make_plan(idempotency=make_key(), owner=OTHER_OWNER)
        assert await old.accept_with_key(keyed) == "running"
        run = await store.run(keyed.run_id, None, None)
        assert run.status is RunStatus.RUNNING
        assert (await event_types(store, run.thread_id))[1:] == [
            "comm.user_message",
            "rag.old",
            "comm.user_message",
            "comm.user_message",
        ]


async def test_an_older_server_starts_a_message_with_what_is_beside_it(old: OldServer, url: str) -> None:
    async with PostgresStore(url) as store:
        running, waiting = make_plan(), make_plan(beside=BESIDE, background=True)
        thread_id = (await store.accept(running)).thread.thread_id
        await store.accept(waiting)
        await store.finish(running.run_id, OWNER, completed())
        [[adopted]] = await old.ask(ADOPT, OTHER_OWNER, make_plan().run_id, timedelta(), 10)
        assert rows.as_uuid(adopted) == waiting.run_id
        started = await old.start(waiting.run_id, OTHER_OWNER)
        assert started[0] == (0, "started")
        assert [part for part, _ in started].count(rows.ENTERED) == 2
        assert (await event_types(store, thread_id))[2:] == ["message.metadata", "comm.user_message"]
