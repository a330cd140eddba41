"""Two server processes on one database, over HTTP: one queue for each thread, outages, a server's death."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any
from uuid import uuid4

import httpx
import pytest
from database import Postgres

from tests.serving import Served

pytestmark = pytest.mark.anyio

CHAT = "/api/v1/chat"
RUNS = "/api/v1/runs"
PATIENCE = 60.0
CLIENTS, CONTACTS = 12, 9
"""Callers, and those they write to: the first ones have one to themselves, the others share the last."""
ENOUGH = 20
"""Answers on each side of an outage."""
UNAVAILABLE = {"detail": "The store is not available; try again later"}
SAID = "SELECT event_data ->> 'content' FROM thread_events WHERE event_type = 'comm.{who}_message'"
OPEN = "SELECT count(*) FROM jimsapi_runs WHERE finished_at IS NULL"


@pytest.fixture(scope="module")
def shared(postgres: Postgres) -> Iterator[str]:
    """The name of a database for the tests that share two servers."""
    with postgres.database() as name:
        yield name


@pytest.fixture(scope="module")
def two(postgres: Postgres, shared: str, server: Callable[..., Served]) -> Iterator[tuple[Served, Served]]:
    with server(postgres.url(shared)) as first, server(postgres.url(shared)) as second:
        yield first, second


async def test_fifty_first_messages_through_two_servers_make_one_thread(
    two: tuple[Served, Served], postgres: Postgres, shared: str
) -> None:
    async with two[0].async_client() as first, two[1].async_client() as second:
        for contact_id in ("ann", "bob", "cid"):  # once may be luck
            calls = [_tell((first, second)[number % 2], contact_id=contact_id) for number in range(50)]
            answers = await asyncio.gather(*calls)
            assert len({answer["thread_id"] for answer in answers}) == 1
            assert sum(answer["created_new_thread"] for answer in answers) == 1
            _assert_one_after_another(answers, 0)
            threads = postgres.psql(f"SELECT count(*) FROM threads WHERE contact_id = '{contact_id}'", shared)
            assert threads == "1"


async def test_a_hundred_messages_through_two_servers_are_answered_one_after_another(
    two: tuple[Served, Served], postgres: Postgres, shared: str
) -> None:
    async with two[0].async_client() as first, two[1].async_client() as second:
        thread_id = (await _tell(first, contact_id="dan"))["thread_id"]
        calls = [_tell((first, second)[number % 2], contact_id="dan", thread_id=thread_id) for number in range(100)]
        _assert_one_after_another(await asyncio.gather(*calls), 1)
    stored = f"FROM thread_events WHERE thread_id = '{thread_id}'"
    kinds = postgres.psql(f"SELECT event_type {stored} ORDER BY created_at", shared).split()
    turn = ["comm.user_message", "rag.seen", "comm.assistant_message"]
    assert kinds == ["jims.lifecycle.thread_created", *turn * 101]
    assert postgres.psql(f"SELECT count(DISTINCT created_at) {stored}", shared) == "304"


async def test_fifty_equal_requests_through_two_servers_make_one_run(
    two: tuple[Served, Served], postgres: Postgres, shared: str
) -> None:
    body = {"contact_id": "eve", "message": "see"}
    async with two[0].async_client() as first, two[1].async_client() as second:
        for key in ("k1", "k2"):
            calls = [
                (first, second)[number % 2].post(CHAT, json=body, headers={"idempotency-key": key})
                for number in range(50)
            ]
            answers = await asyncio.gather(*calls)
            assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
        others = {**body, "message": "count"}
        for client in (first, second):
            refused = await client.post(CHAT, json=others, headers={"idempotency-key": "k1"})
            assert refused.status_code == 422
    runs = "SELECT count(*) FROM jimsapi_runs r JOIN threads USING (thread_id) WHERE contact_id = 'eve'"
    assert postgres.psql(runs, shared) == "2"


async def test_a_run_is_looked_at_watched_and_cancelled_through_the_other_server(two: tuple[Served, Served]) -> None:
    async with two[0].async_client() as first, two[1].async_client() as second:
        answered = await first.post(RUNS, json={"contact_id": "fay", "message": "stream a b"})
        at_home, from_afar = [await _until_ended(client, answered.json()["run_id"]) for client in (first, second)]
        assert from_afar == at_home
        assert from_afar["result"]["assistant_messages"] == ["ab"]
        stream = await second.get(f"{RUNS}/{answered.json()['run_id']}/stream")
        assert _names(stream.text) == ["started", "gap", "event", "result"]

        begun = await first.post(RUNS, json={"contact_id": "fay", "message": "hold for ever"})
        run = f"{RUNS}/{begun.json()['run_id']}"
        await _chat(first, contact_id="gus", message="reached for ever")
        assert (await second.get(run)).json()["status"] == "running"
        watching = [asyncio.create_task(client.get(f"{run}/stream")) for client in (first, second)]
        assert (await second.post(f"{run}/cancel")).status_code == 202
        async with asyncio.timeout(PATIENCE):
            streams = [_names((await watched).text) for watched in watching]
        assert streams == [["started", "error"], ["started", "gap", "error"]]
        for client in (first, second):
            shown = (await client.get(run)).json()
            assert (shown["status"], shown["error"]["status"]) == ("cancelled", 409)
        # The thread goes on, through either.
        assert (await _chat(second, contact_id="fay", message="see"))["thread_id"] == begun.json()["thread_id"]


class Load:
    """Callers of two servers that send one message after another."""

    def __init__(self, clients: tuple[httpx.AsyncClient, httpx.AsyncClient]) -> None:
        self.acknowledged: set[str] = set()
        self.refused = 0
        self.threads: set[str] = set()
        self.over = False
        self._clients = clients
        self._numbers = count()

    async def call(self, caller: int) -> None:
        """Be one caller."""
        contact_id = f"contact {min(caller, CONTACTS - 1)}"
        client = self._clients[caller % 2]
        while not self.over:
            message = f"{next(self._numbers)} of {contact_id}"
            answer = await client.post(CHAT, json={"contact_id": contact_id, "message": message})
            if answer.status_code == 200:
                assert answer.json()["assistant_messages"] == [f"You said: {message}"]
                self.acknowledged.add(message)
                self.threads.add(answer.json()["thread_id"])
            else:
                refusal = (answer.status_code, answer.json(), answer.headers.get("retry-after"))
                assert refusal == (503, UNAVAILABLE, "5")
                self.refused += 1

    async def goes_on(self) -> None:
        """Wait until more messages were answered."""
        enough = len(self.acknowledged) + ENOUGH
        await _until(lambda: len(self.acknowledged) >= enough)

    async def is_refused(self) -> None:
        """Wait until more messages were refused."""
        enough = self.refused + ENOUGH
        await _until(lambda: self.refused >= enough)


async def test_servers_outlive_restarts_of_postgresql_under_load_and_lose_nothing(
    own_postgres: Postgres, server: Callable[..., Served]
) -> None:
    url = own_postgres.url()
    with server(url) as first, server(url) as second:
        async with first.async_client() as one, second.async_client() as other:
            load = Load((one, other))
            async with asyncio.TaskGroup() as callers:
                for caller in range(CLIENTS):
                    callers.create_task(load.call(caller))
                for end in (own_postgres.stop, own_postgres.crash):
                    await load.goes_on()
                    await asyncio.to_thread(end)
                    await load.is_refused()
                    ready, page = await asyncio.gather(one.get("/readyz"), other.get("/api/v1/threads?contact_id=x"))
                    assert ready.status_code == 503
                    assert (page.status_code, page.json(), page.headers["retry-after"]) == (503, UNAVAILABLE, "5")
                    await asyncio.to_thread(own_postgres.start)
                    await load.goes_on()
                load.over = True
            for client in (one, other):
                assert (await client.get("/readyz")).status_code == 200
                for thread_id in load.threads:
                    await _chat(client, contact_id="anybody", thread_id=thread_id, message=f"last {uuid4()}")
        await _until(lambda: own_postgres.psql(OPEN) == "0")
        said = [own_postgres.psql(SAID.format(who=who)).split("\n") for who in ("user", "assistant")]
    asked, answered = map(Counter, said)
    assert {*asked.values(), *answered.values()} == {1}
    assert {f"You said: {message}" for message in load.acknowledged} <= answered.keys()
    assert answered.keys() <= {f"You said: {message}" for message in asked}
    assert len(load.threads) == CONTACTS


async def test_what_a_killed_server_worked_on_is_interrupted_by_the_other_and_its_thread_goes_on(
    postgres: Postgres, database: str, url: str, server: Callable[..., Served]
) -> None:
    def statuses() -> list[str]:
        return postgres.psql("SELECT status FROM jimsapi_runs ORDER BY seq, accepted_at", database).split()

    with ExitStack() as stack:
        killed, living = server(url), server(url)
        for served in (killed, living):
            served.command[1:3] = ["-m", "impatient"]
            stack.enter_context(served)
        async with killed.async_client() as lost, living.async_client() as client:
            left = [asyncio.create_task(_chat(lost, contact_id="ann", message="hold a"))]
            await _until(lambda: statuses() == ["running"])
            left.append(asyncio.create_task(_chat(lost, contact_id="ann", message="behind it")))
            await _until(lambda: statuses() == ["running", "queued"])
            waiting = asyncio.create_task(_chat(client, contact_id="ann", message="see"))
            await _until(lambda: statuses() == ["running", "queued", "queued"])
            await asyncio.to_thread(killed.stop, signal.SIGKILL)
            for caller in left:
                with pytest.raises(httpx.TransportError):
                    await caller
            async with asyncio.timeout(PATIENCE):
                seen = json.loads((await waiting)["assistant_messages"][0])
        assert seen == {"asked": ["hold a", "behind it", "see"], "answered": 0}
        assert statuses() == ["interrupted", "interrupted", "completed"]


async def test_what_waited_in_the_background_of_a_killed_server_is_answered_by_the_other(
    postgres: Postgres, database: str, url: str, server: Callable[..., Served]
) -> None:
    with ExitStack() as stack:
        killed, living = server(url), server(url)
        for served in (killed, living):
            served.command[1:3] = ["-m", "impatient"]
            stack.enter_context(served)
        async with killed.async_client() as lost, living.async_client() as client:
            begun = [
                await lost.post(
                    RUNS, json={"contact_id": "ann", "message": message}, headers={"idempotency-key": message}
                )
                for message in ("hold a", "see", "count")
            ]
            assert [answer.status_code for answer in begun] == [202] * 3
            await asyncio.to_thread(killed.stop, signal.SIGKILL)
            held, *waiting = [await _until_ended(client, answer.json()["run_id"]) for answer in begun]
            assert (held["status"], held["result"]) == ("interrupted", None)
            assert [run["status"] for run in waiting] == ["completed"] * 2
            seen = json.loads(waiting[0]["result"]["assistant_messages"][0])
            assert seen == {"asked": ["hold a", "see"], "answered": 0}
            # A key whose run is done has its answer; one whose run was interrupted starts a run on the same message.
            again = await client.post(
                CHAT, json={"contact_id": "ann", "message": "see"}, headers={"idempotency-key": "see"}
            )
            assert again.json() == waiting[0]["result"]
            retried = await client.post(
                RUNS, json={"contact_id": "ann", "message": "hold a"}, headers={"idempotency-key": "hold a"}
            )
            assert retried.json()["run_id"] != held["run_id"]
            await _chat(client, contact_id="bob", message="open a")
            assert (await _until_ended(client, retried.json()["run_id"]))["status"] == "completed"
    asked = postgres.psql(SAID.format(who="user") + " ORDER BY created_at", database).split("\n")
    assert asked == ["hold a", "see", "count", "open a"]


async def _until_ended(client: httpx.AsyncClient, run_id: str) -> Any:
    """How a run is shown once it has ended."""
    async with asyncio.timeout(PATIENCE):
        while True:
            shown = await client.get(f"{RUNS}/{run_id}")
            assert shown.status_code == 200, shown.text
            if shown.json()["finished_at"]:
                return shown.json()
            await asyncio.sleep(0.05)


def _names(stream: str) -> list[str]:
    """The names of server-sent events."""
    return [line.removeprefix("event: ") for line in stream.splitlines() if line.startswith("event: ")]


async def _chat(client: httpx.AsyncClient, **body: Any) -> Any:
    answer = await client.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def _tell(client: httpx.AsyncClient, **to: Any) -> Any:
    """Ask the witness. It fails if it sees another run of the thread at work."""
    return await _chat(client, message="tell", **to)


def _assert_one_after_another(answers: list[Any], before: int) -> None:
    """Assert that each saw all that was said before it, and nothing else, after `before` turns."""
    seen = [json.loads(answer["assistant_messages"][0]) for answer in answers]
    turns = sorted((told["asked"], told["answered"]) for told in seen)
    assert turns == [(turn + 1, turn) for turn in range(before, before + len(answers))]


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.01)
