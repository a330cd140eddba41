"""a2a-sdk, the official Python client, uses an agent by both bindings."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from a2a.client import Client
from a2a.client.errors import A2AClientError
from a2a.types import (
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTasksRequest,
    Part,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.utils.errors import InvalidParamsError, TaskNotCancelableError, TaskNotFoundError, UnsupportedOperationError
from a2a_sdk import BINDINGS, SILENCE, connected, events, request, send, state, streamed, texts

from tests.plugins.distributions import install
from tests.serving import ROOT, Served

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("binding", BINDINGS)]

HERE = Path(__file__).parent
ANN, BEA = {"x-user": "talker"}, {"x-user": "ann-talks"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agent")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    install(folder, "jimsapi-users", (ROOT / "tests" / "apps" / "jimsapi_users.py").read_text())
    (folder / "a2a_agent.py").write_text((HERE / "a2a_agent.py").read_text())
    files = f"file://{folder}/files"
    options = ("--app", "a2a_agent:app", "--drain-time", "2", "--files-store", files, "--files-types", "text/*")
    with Served(*options, folder=folder, env={"AGENT_FOLDER": str(folder)}) as server:
        yield server


@pytest.fixture
async def client(served: Served, binding: str) -> AsyncIterator[Client]:
    """A client of Ann's that blocks until a task ends."""
    async with connected(served.url, binding, streaming=False, headers=ANN) as client:
        yield client


@pytest.fixture
async def streaming(served: Served, binding: str) -> AsyncIterator[Client]:
    async with connected(served.url, binding, headers=ANN) as client:
        yield client


async def ended(client: Client, task_id: str) -> Any:
    """Return a task when it has ended."""
    while state(task := await client.get_task(GetTaskRequest(id=task_id))) in ("submitted", "working"):
        await asyncio.sleep(0.01)
    return task


async def test_a_message_is_answered_by_a_task_with_artifacts(client: Client) -> None:
    task = await send(client, "Hello 😀")
    assert (state(task), texts(task)) == ("completed", ["You said: Hello 😀"])
    assert task.context_id
    again = await client.get_task(GetTaskRequest(id=task.id))
    assert (again.id, again.context_id, texts(again)) == (task.id, task.context_id, texts(task))
    assert again.status.timestamp.ToDatetime() == task.status.timestamp.ToDatetime()


async def test_a_context_goes_on_and_keeps_its_name(client: Client) -> None:
    first = await send(client, "one")
    second = await send(client, "two", context_id=first.context_id)
    assert (second.context_id, second.id != first.id) == (first.context_id, True)
    named = f"ü/{uuid4()}"
    assert (await send(client, "one", context_id=named)).context_id == named


async def test_a_stream_has_the_task_first_and_then_what_becomes_of_it(streaming: Client, folder: Path) -> None:
    name = str(uuid4())
    stream = []
    async for event in streaming.send_message(request(f"hold {name}")):
        stream.append(event)
        if event.HasField("artifact_update"):
            (folder / name).touch()
    assert stream[0].HasField("task")
    told, text = streamed(stream)
    assert (told[-1], text) == ("completed", "Hello")
    assert "working" in told


async def test_a_task_that_takes_longer_than_the_client_waits_in_silence_is_answered(
    client: Client, streaming: Client, folder: Path
) -> None:
    name = str(uuid4())
    asyncio.get_running_loop().call_later(SILENCE + 0.3, (folder / name).touch)
    stream, task = await asyncio.gather(events(streaming, f"hold {name}"), send(client, f"hold {name}"))
    told, text = streamed(stream)
    assert (told[-1], text) == ("completed", "Hello")
    assert (state(task), texts(task)) == ("completed", ["Hello"])


async def test_a_task_that_is_returned_at_once_is_read_later_and_by_a_subscription(
    client: Client, streaming: Client, folder: Path
) -> None:
    name = str(uuid4())
    task = await send(client, f"hold {name}", at_once=True)
    assert state(task) in ("submitted", "working")
    stream = []
    async for event in streaming.subscribe(SubscribeToTaskRequest(id=task.id)):
        stream.append(event)
        (folder / name).touch()
    told, text = streamed(stream)
    assert stream[0].task.id == task.id
    assert (told[-1], text) == ("completed", "Hello")
    with pytest.raises(UnsupportedOperationError):
        _ = [event async for event in streaming.subscribe(SubscribeToTaskRequest(id=task.id))]


async def test_a_client_that_hangs_up_leaves_the_task_to_go_on(
    served: Served, binding: str, client: Client, folder: Path
) -> None:
    name = str(uuid4())
    async with connected(served.url, binding, headers=ANN) as leaving:
        async for event in leaving.send_message(request(f"hold {name}")):
            task_id = event.task.id
            break
    (folder / name).touch()
    assert texts(await ended(client, task_id)) == ["Hello"]


async def test_a_question_is_input_that_the_task_requires(client: Client) -> None:
    asked = await send(client, "ask")
    assert state(asked) == "input_required"
    assert asked.status.message.parts[0].text == "Which city?"
    answered = await send(client, "Perth", task_id=asked.id, context_id=asked.context_id)
    assert (answered.id, state(answered), texts(answered)) == (asked.id, "completed", ["It rains in Perth"])
    assert state(await client.get_task(GetTaskRequest(id=asked.id))) == "completed"


async def test_a_question_is_streamed_and_answered_in_a_stream(streaming: Client) -> None:
    asked = await events(streaming, "ask")
    assert streamed(asked)[0][-1] == "input_required"
    task = asked[0].task
    told, text = streamed(await events(streaming, "Perth", task_id=task.id, context_id=task.context_id))
    assert (told[-1], text) == ("completed", "It rains in Perth")


async def test_a_task_is_cancelled_once(client: Client) -> None:
    task = await send(client, f"hold {uuid4()}", at_once=True)
    cancelled = await client.cancel_task(CancelTaskRequest(id=task.id))
    assert (cancelled.id, state(cancelled)) == (task.id, "canceled")
    with pytest.raises(TaskNotCancelableError):
        await client.cancel_task(CancelTaskRequest(id=task.id))


async def test_a_task_that_fails_says_so(client: Client) -> None:
    assert state(await send(client, "fail")) == "failed"


async def test_tasks_are_listed_newest_first_in_pages(client: Client) -> None:
    context = str(uuid4())
    made = [(await send(client, f"number {number}", context_id=context)).id for number in range(3)]
    page = await client.list_tasks(ListTasksRequest(context_id=context, page_size=2))
    assert [task.id for task in page.tasks] == made[:0:-1]
    rest = await client.list_tasks(ListTasksRequest(context_id=context, page_size=2, page_token=page.next_page_token))
    assert ([task.id for task in rest.tasks], rest.next_page_token) == (made[:1], "")
    assert page.total_size == 3
    completed = ListTasksRequest(context_id=context, status=TaskState.TASK_STATE_COMPLETED, include_artifacts=True)
    assert texts((await client.list_tasks(completed)).tasks[0]) == ["You said: number 2"]
    failed = await client.list_tasks(ListTasksRequest(context_id=context, status=TaskState.TASK_STATE_FAILED))
    assert list(failed.tasks) == []


async def test_a_message_that_is_sent_again_is_answered_once(client: Client) -> None:
    message_id, context = str(uuid4()), str(uuid4())
    first = await send(client, "once", message_id=message_id, context_id=context)
    again = await send(client, "once", message_id=message_id, context_id=context)
    assert again.id == first.id
    with pytest.raises(InvalidParamsError):
        await send(client, "another", message_id=message_id, context_id=context)
    assert len((await client.list_tasks(ListTasksRequest(context_id=context))).tasks) == 1


async def test_the_history_has_as_much_as_the_client_wants(client: Client) -> None:
    asked = await send(client, "ask")
    await send(client, "Perth", task_id=asked.id, context_id=asked.context_id)
    whole = await client.get_task(GetTaskRequest(id=asked.id))
    assert whole.history[0].parts[0].text == "ask"
    assert len((await client.get_task(GetTaskRequest(id=asked.id, history_length=1))).history) == 1
    assert len((await client.get_task(GetTaskRequest(id=asked.id, history_length=0))).history) == 0


async def test_the_agent_sends_files(client: Client, streaming: Client) -> None:
    task = await send(client, "report 5")
    [text, file] = task.artifacts
    [part] = file.parts
    assert (text.parts[0].text, part.raw, part.filename, part.media_type) == (
        "Here it is.",
        b"xxxxx",
        "report.txt",
        "text/plain",
    )
    got = await client.get_task(GetTaskRequest(id=task.id))
    assert [list(artifact.parts) for artifact in got.artifacts] == [list(artifact.parts) for artifact in task.artifacts]
    [large] = [
        event.artifact_update.artifact.parts[0]
        for event in await events(streaming, "report 100000")
        if event.artifact_update.artifact.parts and event.artifact_update.artifact.parts[0].filename
    ]
    async with httpx.AsyncClient(headers=ANN, trust_env=False) as http:
        assert (await http.get(large.url)).content == b"x" * 100_000


async def test_files_reach_the_agent(client: Client) -> None:
    parts = [Part(text="files"), Part(raw=b"Hello", filename="a.txt", media_type="text/plain")]
    task = await send(client, "", parts=parts)
    assert texts(task) == ["a.txt text/plain Hello"]


async def test_data_of_the_agent_is_an_artifact(client: Client) -> None:
    [artifact] = (await send(client, "data")).artifacts
    data = artifact.parts[0].data.struct_value
    assert (data["city"], data["degrees"]) == ("Perth", 31)


async def test_another_caller_finds_no_task(served: Served, binding: str, client: Client) -> None:
    task = await send(client, f"hold {uuid4()}", at_once=True)
    config = TaskPushNotificationConfig(task_id=task.id, url=f"{served.url}/")
    async with connected(served.url, binding, streaming=False, headers=BEA) as other:
        for call in (
            other.get_task(GetTaskRequest(id=task.id)),
            other.cancel_task(CancelTaskRequest(id=task.id)),
            other.create_task_push_notification_config(config),
            other.list_task_push_notification_configs(ListTaskPushNotificationConfigsRequest(task_id=task.id)),
            send(other, "mine", task_id=task.id),
        ):
            with pytest.raises(TaskNotFoundError):
                await call
        assert list((await other.list_tasks(ListTasksRequest(context_id=task.context_id))).tasks) == []
    await client.cancel_task(CancelTaskRequest(id=task.id))


async def test_faults_of_a_client_are_typed_errors(client: Client) -> None:
    for task_id in (str(uuid4()), "no such task", "x" * 10_000):
        with pytest.raises(TaskNotFoundError):
            await client.get_task(GetTaskRequest(id=task_id))
    with pytest.raises(TaskNotFoundError):
        await send(client, "Hello", task_id=str(uuid4()))
    done = await send(client, "Hello")
    with pytest.raises(UnsupportedOperationError):
        await send(client, "more", task_id=done.id, context_id=done.context_id)
    with pytest.raises((InvalidParamsError, A2AClientError)):
        await client.list_tasks(ListTasksRequest(page_token="no such page"))


async def test_push_configurations_are_kept_replaced_listed_and_deleted(client: Client) -> None:
    task = await send(client, f"hold {uuid4()}", at_once=True)
    given = TaskPushNotificationConfig(task_id=task.id, id="ü 1", url="https://example.com/hook", token="t")
    given.authentication.scheme, given.authentication.credentials = "Bearer", "secret"
    assert await client.create_task_push_notification_config(given) == given
    unnamed = TaskPushNotificationConfig(task_id=task.id, url="https://example.com/other")
    made = await client.create_task_push_notification_config(unnamed)
    assert made.id
    given.token = "newer"
    assert await client.create_task_push_notification_config(given) == given
    found = await client.get_task_push_notification_config(
        GetTaskPushNotificationConfigRequest(task_id=task.id, id=given.id)
    )
    assert found == given
    wanted = ListTaskPushNotificationConfigsRequest(task_id=task.id)
    listed = await client.list_task_push_notification_configs(wanted)
    assert {config.id for config in listed.configs} == {given.id, made.id}
    for _ in range(2):
        await client.delete_task_push_notification_config(
            DeleteTaskPushNotificationConfigRequest(task_id=task.id, id=given.id)
        )
    with pytest.raises(TaskNotFoundError):
        await client.get_task_push_notification_config(
            GetTaskPushNotificationConfigRequest(task_id=task.id, id=given.id)
        )
    listed = await client.list_task_push_notification_configs(wanted)
    assert list(listed.configs) == [made]
    await client.cancel_task(CancelTaskRequest(id=task.id))
