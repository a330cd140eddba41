"""Tasks outlive the process that works on them: their streams, their questions and their receivers."""

import asyncio
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from a2a.client import Client
from a2a.client.errors import A2AClientError
from a2a.types import (
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
    TaskPushNotificationConfig,
)
from a2a_sdk import BINDINGS, connected, request, send, state, streamed, texts

from tests.runs.receiver import SECRET, Receiver
from tests.serving import Served

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
KEY = {"authorization": "Bearer agents-key"}


class Before:
    """What clients of one binding have begun before the process ends. `name` is the file that a task waits for."""

    def __init__(self, binding: str) -> None:
        self.binding = binding
        self.name = str(uuid4())
        self.same = {"message_id": str(uuid4()), "context_id": str(uuid4())}
        self.cut: list[StreamResponse] = []

    async def begin(self, served: Served, receiver: Receiver) -> None:
        """Begin a task that waits for a file, one that asks, one that is over, and one whose stream somebody reads."""
        async with connected(served.url, self.binding, streaming=False, headers=KEY) as client:
            self.held: Task = await send(client, f"hold {self.name}", at_once=True, push=to(receiver))
            self.asked: Task = await send(client, "ask", push=to(receiver))
            self.once: Task = await send(client, "once", **self.same)
        async with connected(served.url, self.binding, headers=KEY) as client:
            async for event in client.send_message(request(f"hold {uuid4()}", push=to(receiver))):
                self.left = event.task
                break

    async def read_until(self, served: Served, is_read: asyncio.Event) -> None:
        """Read the stream of a task until the server ends it. `is_read` is set when its answer has begun."""
        async with connected(served.url, self.binding, headers=KEY) as client:
            with suppress(A2AClientError):
                async for event in client.subscribe(SubscribeToTaskRequest(id=self.held.id)):
                    self.cut.append(event)
                    if event.HasField("artifact_update"):
                        is_read.set()


def server(place: Path) -> Served:
    """An agent in a database of the folder."""
    given = ("--app", "a2a_agent:app", "--store", "sqlite:///agent.db", "--api-key", "agents-key")
    more = ("--webhook-secret", SECRET, "--webhook-allow-private", "--drain-time", "2")
    return Served(*given, *more, folder=place, env={"AGENT_FOLDER": str(place)})


def to(receiver: Receiver) -> TaskPushNotificationConfig:
    return TaskPushNotificationConfig(url=receiver.url(), token="t")


async def told(receiver: Receiver, count: int) -> set[tuple[str, str]]:
    """The next tasks that a receiver is told, each with its state."""
    tasks = [(await receiver.call()).verified()["task"] for _ in range(count)]
    return {(task["id"], task["status"]["state"].removeprefix("TASK_STATE_").lower()) for task in tasks}


async def current(client: Client, task_id: str) -> Task:
    return await client.get_task(GetTaskRequest(id=task_id))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_what_a_process_leaves_goes_on_in_the_next_one(tmp_path: Path, number: int) -> None:
    shutil.copy(HERE / "a2a_agent.py", tmp_path)
    all_before = [Before(binding) for binding in BINDINGS]
    async with Receiver() as receiver:
        with server(tmp_path) as served:
            async with Receiver(None) as away:
                for before in all_before:
                    await before.begin(served, receiver)
                assert await told(receiver, 2) == {(before.asked.id, "input_required") for before in all_before}
                async with connected(served.url, "JSONRPC", streaming=False, headers=KEY) as client:
                    unheard = await send(client, "Hello", push=to(away))
                await away.call()  # which it does not answer
                reading = [asyncio.Event() for _ in all_before]
                readers = [
                    asyncio.create_task(before.read_until(served, is_read))
                    for before, is_read in zip(all_before, reading, strict=True)
                ]
                async with asyncio.timeout(30):
                    await asyncio.gather(*(is_read.wait() for is_read in reading))
                await asyncio.to_thread(served.stop, number)
                await asyncio.gather(*readers)
            async with Receiver(port=away.port) as back:
                await asyncio.to_thread(served.start)
                assert await told(back, 1) == {(unheard.id, "completed")}
            for before in all_before:
                await check_questions(served, before)
            ends = {(before.asked.id, "completed") for before in all_before}
            ends |= {(before.left.id, "failed") for before in all_before}
            if number == signal.SIGTERM:  # a drain interrupts what does not end in time
                ends |= {(before.held.id, "failed") for before in all_before}
                assert all(streamed(before.cut)[0][-1] == "failed" for before in all_before)
            else:
                for before in all_before:
                    await check_stream(served, before, tmp_path)
                ends |= {(before.held.id, "completed") for before in all_before}
            assert await told(receiver, len(ends)) == ends
            assert receiver.calls.empty()


async def check_questions(served: Served, before: Before) -> None:
    """Check that a question waits in the next process, and that a message is not answered again there."""
    async with connected(served.url, before.binding, streaming=False, headers=KEY) as client:
        asked = await current(client, before.asked.id)
        assert (state(asked), asked.status.message.parts[0].text) == ("input_required", "Which city?")
        listed = await client.list_task_push_notification_configs(
            ListTaskPushNotificationConfigsRequest(task_id=asked.id)
        )
        assert [config.token for config in listed.configs] == ["t"]
        done = await send(client, "Perth", task_id=asked.id, context_id=asked.context_id)
        assert (done.id, state(done), texts(done)) == (asked.id, "completed", ["It rains in Perth"])
        assert (await send(client, "once", **before.same)).id == before.once.id


async def check_stream(served: Served, before: Before, place: Path) -> None:
    """Check that a stream that was cut goes on by a subscription, and has the whole text."""
    assert streamed(before.cut)[0][-1] in ("submitted", "working")
    stream: list[Any] = []
    async with connected(served.url, before.binding, headers=KEY) as client:
        async for event in client.subscribe(SubscribeToTaskRequest(id=before.held.id)):
            stream.append(event)
            (place / before.name).touch()
        states, text = streamed(stream)
        assert stream[0].task.id == before.held.id
        assert (states[-1], text) == ("completed", "Hello")
        assert texts(await current(client, before.held.id)) == ["Hello"]
