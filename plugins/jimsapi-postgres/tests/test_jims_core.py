"""The real jims-core, our server and our store on one database, turn by turn."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from database import Postgres
from jims_process import Jims
from jimsapi_postgres.store import PostgresStore

from jimsapi.testing.store import OWNER, completed, make_plan
from jimsapi.threads.run import ByExternalId, ById, New
from tests.serving import Served

pytestmark = pytest.mark.anyio

TURNS = 200
ZONES = ["America/New_York", "Asia/Kolkata"]


@pytest.fixture(params=ZONES[:1])
def database(postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[str]:
    with postgres.database() as name:
        postgres.psql(f"ALTER DATABASE {name} SET timezone = '{request.param}'")
        yield name


@pytest.mark.parametrize("database", ZONES, indirect=True)
def test_jims_core_and_a_server_alternate_in_one_thread(jims: Jims, url: str, server: Callable[..., Served]) -> None:
    began = datetime.now(UTC)
    thread_id = jims.ask("new", "ann", "tg:7")
    expected = [jims.ask("read", thread_id)[0][0]]
    with server(url, "--context-events", "0") as served, served.client() as client:
        for number in range(TURNS):
            expected.append(jims.ask("say", thread_id, f"of JIMS {number}"))
            answer = client.post("/api/v1/chat", json={"contact_id": "ann", "message": "tell"})
            assert answer.status_code == 200, answer.text
            assert UUID(answer.json()["thread_id"]).hex == thread_id
            seen = json.loads(answer.json()["assistant_messages"][0])
            assert seen["events"] == len(expected) + 1
            assert seen["newest"][:2] == expected[-2:]
            by_jims = jims.ask("newest", thread_id)
            expected += by_jims[1][1:]  # what the server stored
            assert by_jims == [len(expected), expected[-4:]]
            assert seen["newest"][2] == expected[-3]
        ours = list(_events(client, thread_id))
    by_jims = jims.ask("read", thread_id)
    assert [event[0] for event in by_jims] == expected
    assert [UUID(event["event_id"]).hex for event in ours] == expected
    assert [event[1:3] for event in by_jims] == [[event["event_type"], event["event_data"]] for event in ours]
    turn = ["comm.user_message", "comm.user_message", "rag.seen", "comm.assistant_message"]
    assert [event[1] for event in by_jims[1:]] == turn * TURNS
    for times in (
        [datetime.fromisoformat(event[3]) for event in by_jims],
        [datetime.fromisoformat(event["created_at"]) for event in ours],
    ):
        assert all(earlier < later for earlier, later in pairwise(times))
    assert began < times[0] < times[-1] < datetime.now(UTC)


async def test_what_jims_core_says_while_a_run_is_open_stands_between_its_message_and_its_answer(
    jims: Jims, url: str, server: Callable[..., Served]
) -> None:
    thread_id = jims.ask("new", "ann", "tg:7")
    with server(url) as served:
        async with served.async_client() as client:
            async with asyncio.TaskGroup() as runs:
                held = runs.create_task(_chat(client, "ann", "hold a"))
                await _chat(client, "bob", "reached a")
                waiting = runs.create_task(_chat(client, "ann", "see behind"))
                for number in range(5):
                    jims.ask("say", thread_id, str(number))
                await _chat(client, "bob", "open a")
            stored = jims.ask("read", thread_id)
    said = [event[2].get("content") for event in stored[1:]]
    at_first, later = (json.loads(run.result()["assistant_messages"][0])["asked"] for run in (held, waiting))
    assert at_first == ["hold a"]
    assert later == ["hold a", "0", "1", "2", "3", "4", "see behind"]
    assert said[:6] == later[:6]
    assert [message == "see behind" for message in said[6:]] == [False, True, False]
    times = [event[3] for event in stored]
    assert all(earlier < later for earlier, later in pairwise(map(datetime.fromisoformat, times)))


async def test_a_thread_of_each_is_found_by_the_other(jims: Jims, url: str) -> None:
    async with PostgresStore(url) as store:
        theirs = UUID(jims.ask("new", "ann", "tg:8"))
        found = await store.accept(make_plan(selectors=(ByExternalId("tg:8"),)))
        assert found.thread.thread_id == theirs
        assert orjson.loads(found.thread.thread_config) == {"lang": "é"}
        ours = (await store.accept(make_plan(selectors=(New(external_id="web:1"),)))).thread.thread_id
        assert jims.ask("new", "ann", "web:1") == ours.hex
        assert jims.ask("latest", "ann") == ours.hex
        assert [event[1] for event in jims.ask("read", ours.hex)] == [
            "jims.lifecycle.thread_created",
            "comm.user_message",
        ]
        await store.delete_thread(theirs, None)
        assert jims.ask("read", theirs.hex) is None
        assert (await store.accept(make_plan(selectors=(ById(ours),)))).thread.thread_id == ours


async def test_jims_core_starts_on_tables_that_the_store_made(jims_process: Jims, url: str) -> None:
    async with PostgresStore(url) as store:
        plan = make_plan()
        thread_id = (await store.accept(plan)).thread.thread_id
        jims_process.open(url)
        jims_process.ask("say", thread_id.hex, "of JIMS")
        assert len(jims_process.ask("read", thread_id.hex)) == 3
        jims_process.close()
        assert (await store.finish(plan.run_id, OWNER, completed())).counted


async def _chat(client: httpx.AsyncClient, contact_id: str, message: str) -> Any:
    answer = await client.post("/api/v1/chat", json={"contact_id": contact_id, "message": message})
    assert answer.status_code == 200, answer.text
    return answer.json()


def _events(client: httpx.Client, thread_id: str) -> Iterator[Any]:
    """All events of a thread, as the server shows them."""
    after: dict[str, str] = {}
    while True:
        page = client.get(f"/api/v1/threads/{thread_id}/events", params={"limit": "50", **after}).json()
        yield from page["events"]
        if page["next"] is None:
            return
        after = {"after": page["next"]}
