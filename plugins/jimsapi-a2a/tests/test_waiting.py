"""Clients that wait: what keeps their connections alive, what goes on without them, and what survives the server."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from a2a_calls import VERSION, call, events, result, send, state, stream, summary, text_message, texts

from jimsapi import create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import StoreUnavailable
from jimsapi.threads.run import Outcome, Settled
from tests.apps.scripted import Scripted
from tests.serving import Served
from tests.waiting import PATIENCE

pytestmark = pytest.mark.anyio

SOON = 0.02


@pytest.fixture
def bot(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """The bot of a server that does not wait seconds before it keeps a connection alive."""
    monkeypatch.setattr("jimsapi_a2a.sending.ANSWER_WITHIN", SOON)
    monkeypatch.setattr("jimsapi_a2a.encoding.KEEP_ALIVE", SOON)
    return Scripted()


@pytest.fixture
async def client(bot: Scripted) -> AsyncIterator[TestClient]:
    async with TestClient(create_api(bot, store="memory:")) as client:
        yield client


def request(method: str, params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


CALLS = [
    ("/a2a", request("SendMessage", text_message("hold door; send done"))),
    ("/a2a/message:send", text_message("hold door; send done")),
]


@pytest.mark.parametrize(("path", "body"), CALLS)
async def test_a_blocking_request_gets_spaces_until_its_task_ends(
    client: TestClient, bot: Scripted, path: str, body: dict[str, Any]
) -> None:
    async with client.stream("POST", path, json=body, headers=VERSION) as response:
        assert response.status_code == 200
        chunks = response.aiter_bytes()
        async with asyncio.timeout(PATIENCE):
            pieces = [await anext(chunks) for _ in range(2)]
        assert set(b"".join(pieces)) == set(b" ")
        bot.opened["door"].set()
        pieces += [piece async for piece in chunks]
    answer = json.loads(b"".join(pieces))
    task = answer.get("result", answer)["task"]
    assert (state(task), texts(task)) == ("COMPLETED", ["done"])


async def test_a_silent_stream_gets_comments(client: TestClient, bot: Scripted) -> None:
    body = request("SendStreamingMessage", text_message("stream Hel; hold door; stream lo"))
    async with client.stream("POST", "/a2a", json=body, headers=VERSION) as response:
        lines = response.aiter_lines()
        found: list[str] = []
        async with asyncio.timeout(PATIENCE):
            while not found or not found[-1].startswith(":"):
                found.append(await anext(lines))
        bot.opened["door"].set()
        found += [line async for line in lines]
    got = [json.loads(line[6:])["result"] for line in found if line.startswith("data: ")]
    assert summary(got) == ["task WORKING", "Hel", "+lo", "+.", "statusUpdate COMPLETED"]


async def test_a_task_that_fails_late_is_answered_as_a_task(client: TestClient, bot: Scripted) -> None:
    sending = asyncio.create_task(call(client, "SendMessage", text_message("hold door; raise oh")))
    await bot.reached["door"].wait()
    await asyncio.sleep(2 * SOON)
    bot.opened["door"].set()
    assert state((await sending).json()["result"]["task"]) == "FAILED"


@pytest.fixture
def lost_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is not available when the first run ends. The run service stores the ending a second later."""
    finish = MemoryStore.finish
    lost: list[UUID] = []

    async def losing(store: MemoryStore, run_id: UUID, owner: UUID, outcome: Outcome) -> Settled:
        if not lost:
            lost.append(run_id)
            raise StoreUnavailable("password=hunter2")
        return await finish(store, run_id, owner, outcome)

    monkeypatch.setattr(MemoryStore, "finish", losing)


@pytest.mark.usefixtures("lost_once")
async def test_an_answer_that_is_not_stored_yet_is_an_error_that_may_be_repeated(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jimsapi_a2a.sending.ANSWER_WITHIN", PATIENCE)
    params = text_message("send done", message_id="m", contextId="c")
    refused = await call(client, "SendMessage", params)
    assert refused.json()["error"]["data"][0]["reason"] == "UNAVAILABLE"
    assert "hunter2" not in refused.text
    while "error" in (answer := (await call(client, "SendMessage", params)).json()):
        await asyncio.sleep(SOON)
    task = answer["result"]["task"]
    assert (state(task), texts(task)) == ("COMPLETED", ["done"])
    assert len((await result(client, "ListTasks", {"contextId": "c"}))["tasks"]) == 1


@pytest.mark.usefixtures("lost_once")
@pytest.mark.parametrize(("path", "body"), CALLS)
async def test_an_answer_that_is_not_stored_late_is_a_task_that_works(
    client: TestClient, bot: Scripted, path: str, body: dict[str, Any]
) -> None:
    sending = asyncio.create_task(client.post(path, json=body, headers=VERSION))
    await bot.reached["door"].wait()
    await asyncio.sleep(2 * SOON)
    bot.opened["door"].set()
    answer = (await sending).json()
    assert state(answer.get("result", answer)["task"]) == "WORKING"


@pytest.mark.usefixtures("lost_once")
async def test_a_stream_that_ends_before_its_task_ends_with_an_error(client: TestClient) -> None:
    by_rpc = await call(client, "SendStreamingMessage", text_message("stream Hel"))
    last = json.loads(by_rpc.text.strip().rpartition("data: ")[2])
    assert last["error"]["data"][0]["reason"] == "UNAVAILABLE"
    assert last["id"] == json.loads(by_rpc.request.content)["id"]


@pytest.mark.usefixtures("lost_once")
async def test_a_stream_by_http_ends_with_an_error_of_its_own_name(client: TestClient) -> None:
    by_http = await client.post("/a2a/message:stream", json=text_message("stream Hel"), headers=VERSION)
    event, data = by_http.text.strip().splitlines()[-2:]
    assert event == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"]["status"] == "UNAVAILABLE"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A real server, with a store that its next process opens."""
    store = f"sqlite:///{tmp_path / 'threads.db'}"
    options = ("--app", "a2a_bot:app", "--store", store, "--api-key", "the-key-of-this-suite", "--drain-time", "2")
    with Served(*options, folder=Path(__file__).parent) as server:
        yield server


def agent(server: Served) -> httpx.AsyncClient:
    return server.async_client(headers={"authorization": "Bearer the-key-of-this-suite"})


async def test_a_task_goes_on_when_its_client_hangs_up(served: Served) -> None:
    async with agent(served) as client:
        for path, context in (("/a2a/message:send", "c"), ("/a2a/message:stream", "d")):
            body = text_message(f"hold {context}; send done", contextId=context)
            sending = asyncio.create_task(client.post(path, json=body, headers=VERSION))
            await send(client, f"reached {context}")
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            await send(client, f"open {context}")
            seen = await send(client, "see", contextId=context)
            [_, task] = (await result(client, "ListTasks", {"contextId": context, "includeArtifacts": True}))["tasks"]
            assert (state(task), texts(task)) == ("COMPLETED", ["done"])
            assert state(seen) == "COMPLETED"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_tasks_survive_the_server(served: Served, number: int) -> None:
    async with agent(served) as client:
        done = await send(client, "send kept", contextId="c")
        asked = await send(client, "ask Refund?", contextId="named by the client")
        at_once = {"returnImmediately": True}
        held = await send(client, "hold door", contextId="h", configuration=at_once)
        await send(client, "reached door")
        waits = await send(client, "send later", contextId="h", message_id="later", configuration=at_once)
    served.stop(number)
    served.start()
    async with agent(served) as client:
        assert await result(client, "GetTask", {"id": done["id"]}) == done
        assert await result(client, "GetTask", {"id": asked["id"]}) == asked
        interrupted = await result(client, "GetTask", {"id": held["id"]})
        assert state(interrupted) == "FAILED"
        assert interrupted["status"]["message"]["parts"][0]["text"]
        while state(later := await result(client, "GetTask", {"id": waits["id"]})) in ("SUBMITTED", "WORKING"):
            await asyncio.sleep(0.05)
        assert (state(later), texts(later)) == ("COMPLETED", ["later"])
        answered = await send(client, "yes", taskId=asked["id"])
        assert (answered["id"], answered["contextId"]) == (asked["id"], "named by the client")
        assert (state(answered), texts(answered)) == ("COMPLETED", ["answered: yes"])
        assert await send(client, "send kept", message_id=done["history"][0]["messageId"], contextId="c") == done


async def test_a_stream_is_resumed_at_the_next_process(served: Served) -> None:
    async with agent(served) as client:
        asked = (await stream(client, "ask Refund?"))[0]["task"]
    served.stop(signal.SIGKILL)
    served.start()
    async with agent(served) as client:
        watched = events(await call(client, "SubscribeToTask", {"id": asked["id"]}))
        assert summary(watched) == ["task INPUT_REQUIRED Refund?"]
        found = await stream(client, "yes", taskId=asked["id"])
        assert summary(found)[-1] in ("statusUpdate COMPLETED", "task COMPLETED")
