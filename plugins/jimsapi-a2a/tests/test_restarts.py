"""Tasks outlive the process that works on them: their streams, their questions and their receivers."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from a2a.client.errors import A2AClientError
from a2a.types import GetTaskRequest, SubscribeToTaskRequest, TaskPushNotificationConfig
from a2a_sdk import BINDINGS, connected, events, request, send, state, streamed, texts

from tests.runs.receiver import SECRET, Call, Receiver
from tests.serving import Served

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
KEY = {"authorization": "Bearer agents-key"}
SIGNALS = [signal.SIGTERM, signal.SIGKILL]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copy(HERE / "a2a_agent.py", tmp_path)
    return tmp_path


def server(place: Path, *options: str) -> Served:
    """An agent in a database of the folder."""
    given = ("--app", "a2a_agent:app", "--store", "sqlite:///agent.db", "--api-key", "agents-key")
    more = ("--webhook-secret", SECRET, "--webhook-allow-private", "--drain-time", "0.2", *options)
    return Served(*given, *more, folder=place, env={"AGENT_FOLDER": str(place)})


@pytest.fixture
def served(place: Path) -> Iterator[Served]:
    with server(place) as served:
        yield served


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


def restart(served: Served, number: int) -> None:
    served.stop(number)
    served.start()


def to(receiver: Receiver) -> TaskPushNotificationConfig:
    return TaskPushNotificationConfig(url=receiver.url(), token="t")


def told(one: Call) -> tuple[str, str]:
    """The task that a call tells, and its state."""
    task = one.verified()["task"]
    assert one.headers["x-a2a-notification-token"] == "t"
    return task["id"], task["status"]["state"].removeprefix("TASK_STATE_").lower()


async def until_stopped(client: Any, task_id: str, served: Served, number: int) -> list[Any]:
    """Subscribe to a task, stop the server when its answer begins, and return what the stream had until then."""
    stream = []
    with suppress(A2AClientError):
        async for event in client.subscribe(SubscribeToTaskRequest(id=task_id)):
            stream.append(event)
            if event.HasField("artifact_update"):
                await asyncio.to_thread(served.stop, number)
    return stream


async def ended(client: Any, task_id: str) -> Any:
    async with asyncio.timeout(30):
        while state(task := await client.get_task(GetTaskRequest(id=task_id))) in ("submitted", "working"):
            await asyncio.sleep(0.01)
    return task


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize("number", SIGNALS)
async def test_a_stream_that_a_restart_cuts_goes_on_by_a_subscription(
    served: Served, place: Path, binding: str, number: int
) -> None:
    name = str(uuid4())
    async with connected(served.url, binding, streaming=False, headers=KEY) as client:
        task = await send(client, f"hold {name}", at_once=True)
    async with connected(served.url, binding, headers=KEY) as client:
        cut = await until_stopped(client, task.id, served, number)
    assert streamed(cut)[0][-1] in ("submitted", "working")
    served.start()
    async with connected(served.url, binding, headers=KEY) as client:
        stream = []
        async for event in client.subscribe(SubscribeToTaskRequest(id=task.id)):
            stream.append(event)
            (place / name).touch()
        told_states, text = streamed(stream)
        assert stream[0].task.id == task.id
        assert (told_states[-1], text) == ("completed", "Hello")
        assert texts(await client.get_task(GetTaskRequest(id=task.id))) == ["Hello"]


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_question_is_answered_after_a_restart(served: Served, binding: str) -> None:
    async with connected(served.url, binding, streaming=False, headers=KEY) as client:
        asked = await send(client, "ask")
    await asyncio.to_thread(restart, served, signal.SIGKILL)
    async with connected(served.url, binding, streaming=False, headers=KEY) as client:
        again = await client.get_task(GetTaskRequest(id=asked.id))
        assert (state(again), again.status.message.parts[0].text) == ("input_required", "Which city?")
        done = await send(client, "Perth", task_id=asked.id, context_id=asked.context_id)
        assert (done.id, state(done), texts(done)) == (asked.id, "completed", ["It rains in Perth"])


async def test_a_message_that_is_sent_again_after_a_restart_is_answered_once(served: Served) -> None:
    same = {"message_id": str(uuid4()), "context_id": str(uuid4())}
    async with connected(served.url, "JSONRPC", streaming=False, headers=KEY) as client:
        first = await send(client, "once", **same)
    await asyncio.to_thread(restart, served, signal.SIGKILL)
    async with connected(served.url, "JSONRPC", streaming=False, headers=KEY) as client:
        assert (await send(client, "once", **same)).id == first.id


@pytest.mark.parametrize("number", SIGNALS)
async def test_the_receiver_of_a_task_that_goes_on_in_the_next_process_is_told(
    served: Served, place: Path, receiver: Receiver, number: int
) -> None:
    name = str(uuid4())
    async with connected(served.url, "JSONRPC", streaming=False, headers=KEY) as client:
        task = await send(client, f"hold {name}", at_once=True, push=to(receiver))
    await asyncio.to_thread(restart, served, number)
    (place / name).touch()
    assert told(await receiver.call()) == (task.id, "completed")


@pytest.mark.parametrize("number", SIGNALS)
async def test_the_receiver_of_a_task_that_a_process_left_is_told_that_it_failed(
    served: Served, receiver: Receiver, number: int
) -> None:
    async with connected(served.url, "JSONRPC", headers=KEY) as client:
        async for event in client.send_message(request(f"hold {uuid4()}", push=to(receiver))):
            task_id = event.task.id
            break
    await asyncio.to_thread(restart, served, number)
    assert told(await receiver.call()) == (task_id, "failed")


async def test_a_question_that_is_answered_in_the_next_process_is_told(served: Served, receiver: Receiver) -> None:
    async with connected(served.url, "JSONRPC", streaming=False, headers=KEY) as client:
        asked = await send(client, "ask", push=to(receiver))
    assert told(await receiver.call()) == (asked.id, "input_required")
    await asyncio.to_thread(restart, served, signal.SIGKILL)
    async with connected(served.url, "JSONRPC", streaming=False, headers=KEY) as client:
        await send(client, "Perth", task_id=asked.id, context_id=asked.context_id)
    assert told(await receiver.call()) == (asked.id, "completed")
    assert receiver.calls.empty()


async def test_a_receiver_that_was_away_is_told_by_the_next_process(place: Path) -> None:
    async with Receiver(None) as away:
        port = away.port
        with server(place) as served:
            async with connected(served.url, "JSONRPC", streaming=False, headers=KEY) as client:
                task = await send(client, "Hello", push=to(away))
            await away.call()  # which it does not answer
            await asyncio.to_thread(served.stop, signal.SIGKILL)
            away.hang_up()
    async with Receiver(port=port) as back:
        with server(place):
            assert told(await back.call()) == (task.id, "completed")


async def test_configurations_are_there_after_a_restart(served: Served) -> None:
    async with connected(served.url, "JSONRPC", streaming=False, headers=KEY) as client:
        task = await send(client, "ask", push=TaskPushNotificationConfig(id="mine", url="https://example.com/"))
    await asyncio.to_thread(restart, served, signal.SIGTERM)
    async with httpx.AsyncClient(base_url=served.url, headers={**KEY, "a2a-version": "1.0"}) as client:
        listed = (await client.get(f"/a2a/tasks/{task.id}/pushNotificationConfigs")).json()
    assert [config["id"] for config in listed["configs"]] == ["mine"]


async def test_a_long_stream_of_a_task_has_its_whole_text_after_a_restart(served: Served, place: Path) -> None:
    name = str(uuid4())
    async with connected(served.url, "JSONRPC", streaming=False, headers=KEY) as client:
        task = await send(client, f"hold {name}", at_once=True)
    await asyncio.to_thread(restart, served, signal.SIGKILL)
    (place / name).touch()
    async with connected(served.url, "JSONRPC", streaming=False, headers=KEY) as client:
        assert texts(await ended(client, task.id)) == ["Hello"]
    async with connected(served.url, "JSONRPC", headers=KEY) as client:
        assert streamed(await events(client, "more", context_id=task.context_id))[1] == "You said: more"
