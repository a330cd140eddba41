"""Push notifications: a receiver learns what becomes of a task, by whatever way its configuration came."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest
from a2a_calls import VERSION, error, result, text_message

from jimsapi import create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.stores.memory import MemoryStore
from jimsapi.stores.sqlite.store import SQLiteStore
from tests.plugins.distributions import install
from tests.runs.receiver import SECRET, Call, Receiver, answer
from tests.serving import ROOT, Served

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
INVALID_PARAMS = -32602
PARSE_ERROR = -32700
NOT_FOUND = -32001
NOT_SUPPORTED = -32003
SECRETS = ("bearer-of-the-receiver", "token-of-the-receiver", "key-in-the-url")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("push")
    install(folder, "jimsapi-users", (ROOT / "tests" / "apps" / "jimsapi_users.py").read_text())
    shutil.copy(HERE / "a2a_agent.py", folder)
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    """An agent that signs its calls and calls private addresses."""
    options = ("--app", "a2a_agent:app", "--webhook-secret", SECRET, "--webhook-allow-private", "--drain-time", "2")
    with Served(*options, "--verbose", folder=folder, env={"AGENT_FOLDER": str(folder)}) as server:
        yield server
        log = server.stderr
    assert not [secret for secret in SECRETS if secret in log]


@pytest.fixture
async def client(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with served.async_client(headers={"x-user": "talker"}) as client:
        yield client


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


def to(receiver: Receiver, **fields: Any) -> dict[str, Any]:
    """A configuration with every secret that it can have."""
    url = receiver.url(target=f"/hook?key={SECRETS[2]}")
    authentication = {"scheme": "Bearer", "credentials": SECRETS[0]}
    return {"url": url, "token": SECRETS[1], "authentication": authentication, **fields}


async def send(client: httpx.AsyncClient, text: str, *, push: Any = None, at_once: bool = True, **fields: Any) -> Any:
    """Send a message with a configuration, and return its task."""
    configuration: dict[str, Any] = {"returnImmediately": at_once}
    if push is not None:
        configuration["taskPushNotificationConfig"] = push
    return (await result(client, "SendMessage", {**text_message(text, **fields), "configuration": configuration}))[
        "task"
    ]


def told(one: Call) -> Any:
    """The task that a call tells. The receiver has verified who calls."""
    body = one.verified()
    assert list(body) == ["task"]
    return body["task"]


def state(task: Any) -> str:
    return str(task["status"]["state"]).removeprefix("TASK_STATE_").lower()


async def settled(client: httpx.AsyncClient, task_id: str) -> Any:
    """Return a task when it is over or waits."""
    while state(task := await result(client, "GetTask", {"id": task_id})) in ("submitted", "working"):
        await asyncio.sleep(0.01)
    return task


# What a receiver is told.


async def test_the_receiver_of_a_message_gets_the_task_with_its_credentials(
    client: httpx.AsyncClient, receiver: Receiver
) -> None:
    task = await send(client, "Hello", push=to(receiver))
    one = await receiver.call()
    assert one.headers["authorization"] == f"Bearer {SECRETS[0]}"
    assert one.headers["x-a2a-notification-token"] == SECRETS[1]
    assert one.headers["content-type"] == "application/a2a+json"
    shown = told(one)
    assert (shown["id"], shown["contextId"], state(shown)) == (task["id"], task["contextId"], "completed")
    assert shown["artifacts"][0]["parts"] == [{"text": "You said: Hello"}]


@pytest.mark.parametrize(("text", "expected"), [("fail", "failed"), ("Hello", "completed")])
async def test_how_a_task_ended_is_told(
    client: httpx.AsyncClient, receiver: Receiver, text: str, expected: str
) -> None:
    await send(client, text, push=to(receiver), at_once=False)
    assert state(told(await receiver.call())) == expected


async def test_a_task_that_is_cancelled_is_told(client: httpx.AsyncClient, receiver: Receiver) -> None:
    task = await send(client, f"hold {uuid4()}", push=to(receiver))
    assert state(await result(client, "CancelTask", {"id": task["id"]})) == "canceled"
    assert state(told(await receiver.call())) == "canceled"


async def test_a_question_is_told_and_then_the_end_of_the_task(client: httpx.AsyncClient, receiver: Receiver) -> None:
    task = await send(client, "ask", push=to(receiver))
    asked = told(await receiver.call())
    assert (asked["id"], state(asked)) == (task["id"], "input_required")
    assert asked["status"]["message"]["parts"][0] == {"text": "Which city?"}
    await send(client, "Perth", taskId=task["id"])
    done = told(await receiver.call())
    assert (done["id"], state(done)) == (task["id"], "completed")
    assert done["artifacts"][0]["parts"] == [{"text": "It rains in Perth"}]
    assert receiver.calls.empty()


async def test_a_question_that_is_cancelled_is_told(client: httpx.AsyncClient, receiver: Receiver) -> None:
    task = await send(client, "ask", push=to(receiver))
    assert state(told(await receiver.call())) == "input_required"
    await result(client, "CancelTask", {"id": task["id"]})
    assert state(told(await receiver.call())) == "canceled"


async def test_a_question_that_another_protocol_answers_is_told_too(
    client: httpx.AsyncClient, receiver: Receiver
) -> None:
    root = {"x-user": "root"}
    task = await send(client, "ask", push=to(receiver))
    assert state(told(await receiver.call())) == "input_required"
    run = (await client.get(f"/api/v1/runs/{task['id']}", headers=root)).json()
    [question] = run["result"]["questions"]
    body = {
        "contact_id": (await client.get(f"/api/v1/threads/{run['thread_id']}", headers=root)).json()["contact_id"],
        "thread_id": run["thread_id"],
        "answers": {question["question_id"]: "Perth"},
    }
    assert (await client.post("/api/v1/chat", json=body, headers=root)).status_code == 200
    done = told(await receiver.call())
    assert (done["id"], state(done)) == (task["id"], "completed")


async def test_a_configuration_that_comes_after_the_end_is_told_the_end(
    client: httpx.AsyncClient, receiver: Receiver
) -> None:
    task = await send(client, "Hello", at_once=False)
    assert state(task) == "completed"
    await result(client, "CreateTaskPushNotificationConfig", {"taskId": task["id"], **to(receiver)})
    assert state(told(await receiver.call())) == "completed"


async def test_a_configuration_of_a_stream_is_told_too(client: httpx.AsyncClient, receiver: Receiver) -> None:
    params = {**text_message("Hello"), "configuration": {"taskPushNotificationConfig": to(receiver)}}
    response = await client.post("/a2a/message:stream", json=params, headers=VERSION)
    assert "TASK_STATE_COMPLETED" in response.text
    assert state(told(await receiver.call())) == "completed"


async def test_a_message_that_is_sent_again_has_its_configuration_once(
    client: httpx.AsyncClient, receiver: Receiver
) -> None:
    same: dict[str, Any] = {"message_id": str(uuid4())}
    task = await send(client, "ask", push=to(receiver), **same)
    assert state(told(await receiver.call())) == "input_required"
    assert (await send(client, "ask", push=to(receiver), **same))["id"] == task["id"]
    listed = await result(client, "ListTaskPushNotificationConfigs", {"taskId": task["id"]})
    assert len(listed["configs"]) == 1
    await send(client, "Perth", taskId=task["id"])
    assert state(told(await receiver.call())) == "completed"
    await send(client, "ask", push=to(receiver), **same)  # by a client that has not learnt the end
    assert state(told(await receiver.call())) == "completed"
    assert receiver.calls.empty()


# Several receivers.


async def test_a_receiver_that_refuses_for_good_does_not_stop_the_others(
    client: httpx.AsyncClient, receiver: Receiver, folder: Path
) -> None:
    name = str(uuid4())
    async with Receiver(answer(410)) as gone, Receiver(None) as silent:
        task = await send(client, f"hold {name}", push=to(gone, id="1"))
        for number, one in enumerate((silent, receiver), start=2):
            params = {"taskId": task["id"], **to(one, id=f"{number}")}
            await result(client, "CreateTaskPushNotificationConfig", params)
        (folder / name).touch()
        assert state(told(await receiver.call())) == "completed"
        await gone.call()
        await silent.call()
        assert gone.calls.empty()


async def test_a_receiver_that_is_deleted_is_told_nothing(
    client: httpx.AsyncClient, receiver: Receiver, folder: Path
) -> None:
    name = str(uuid4())
    async with Receiver() as deleted:
        task = await send(client, f"hold {name}", push=to(deleted, id="deleted"))
        await result(client, "CreateTaskPushNotificationConfig", {"taskId": task["id"], **to(receiver)})
        await result(client, "DeleteTaskPushNotificationConfig", {"taskId": task["id"], "id": "deleted"})
        (folder / name).touch()
        assert state(told(await receiver.call())) == "completed"
        assert deleted.calls.empty()


async def test_a_task_has_a_limited_number_of_configurations(client: httpx.AsyncClient) -> None:
    task = await send(client, f"hold {uuid4()}")
    base = {"taskId": task["id"], "url": "https://example.com/"}
    for number in range(10):
        await result(client, "CreateTaskPushNotificationConfig", {**base, "id": f"{number}"})
    refused = await error(client, "CreateTaskPushNotificationConfig", base)
    assert refused["code"] == INVALID_PARAMS
    assert "delete one of them first" in refused["message"]
    await result(client, "CreateTaskPushNotificationConfig", {**base, "id": "3", "token": "newer"})
    first = await result(client, "ListTaskPushNotificationConfigs", {"taskId": task["id"], "pageSize": 7})
    rest = {"taskId": task["id"], "pageToken": first["nextPageToken"]}
    second = await result(client, "ListTaskPushNotificationConfigs", rest)
    assert [config["id"] for page in (first, second) for config in page["configs"]] == [f"{n}" for n in range(10)]
    assert second["nextPageToken"] == ""
    by_other_names = {"task_id": task["id"], "page_size": 2, "page_token": "1"}
    third = await result(client, "ListTaskPushNotificationConfigs", by_other_names)
    assert [config["id"] for config in third["configs"]] == ["2", "3"]
    path = f"/a2a/tasks/{task['id']}/pushNotificationConfigs"
    page = {"pageSize": 2, "pageToken": first["nextPageToken"]}
    by_http = (await client.get(path, params=page, headers=VERSION)).json()
    assert [config["id"] for config in by_http["configs"]] == ["7", "8"]
    assert (await client.get(path, params={"pageSize": -1}, headers=VERSION)).status_code == 400
    await result(client, "CancelTask", {"id": task["id"]})


async def test_an_answer_with_one_configuration_too_many_is_refused_before_it_counts(client: httpx.AsyncClient) -> None:
    task = await send(client, "ask")
    assert state(await settled(client, task["id"])) == "input_required"
    for number in range(10):
        config = {"taskId": task["id"], "id": f"{number}", "url": "https://example.com/"}
        await result(client, "CreateTaskPushNotificationConfig", config)
    answer = text_message("Perth", taskId=task["id"])
    more = {"taskPushNotificationConfig": {"url": "https://example.com/more"}}
    refused = await error(client, "SendMessage", {**answer, "configuration": more})
    assert (refused["code"], "delete one of them first" in refused["message"]) == (INVALID_PARAMS, True)
    assert state(await settled(client, task["id"])) == "input_required"
    known = {"taskPushNotificationConfig": {"id": "3", "url": "https://example.com/"}}
    await result(client, "SendMessage", {**answer, "configuration": known})
    assert state(await settled(client, task["id"])) == "completed"


# Who may see a configuration.


async def test_an_operator_sees_the_task_and_none_of_the_credentials(
    client: httpx.AsyncClient, receiver: Receiver, folder: Path
) -> None:
    name = str(uuid4())
    root = {"x-user": "root"}
    task = await send(client, f"hold {name}", push=to(receiver, id="mine"))
    wanted = {"taskId": task["id"], "id": "mine"}
    assert (await result(client, "GetTask", {"id": task["id"]}, **root))["id"] == task["id"]
    listed = await result(client, "ListTaskPushNotificationConfigs", {"taskId": task["id"]}, **root)
    assert listed["configs"] == []
    assert (await error(client, "GetTaskPushNotificationConfig", wanted, **root))["code"] == NOT_FOUND
    await result(client, "DeleteTaskPushNotificationConfig", wanted, **root)
    async with Receiver() as other:
        await result(client, "CreateTaskPushNotificationConfig", {**to(other), **wanted}, **root)
        assert (await result(client, "GetTaskPushNotificationConfig", wanted))["url"] == to(receiver)["url"]
        (folder / name).touch()
        assert state(told(await receiver.call())) == "completed"
        assert state(told(await other.call())) == "completed"


@pytest.mark.parametrize("user", ["ann-talks", "bea"])
async def test_another_caller_learns_nothing_of_a_task(client: httpx.AsyncClient, user: str) -> None:
    task = await send(client, f"hold {uuid4()}")
    other = {"x-user": user}
    for method in ("Create{}Config", "Get{}Config", "List{}Configs", "Delete{}Config"):
        told = set()
        for task_id in (task["id"], str(uuid4())):
            params = {"taskId": task_id, "id": "mine", "url": "https://example.com/"}
            refused = await error(client, method.format("TaskPushNotification"), params, **other)
            assert refused["code"] == NOT_FOUND
            told.add(refused["message"].replace(task_id, "ID"))
        assert len(told) == 1
    await result(client, "CancelTask", {"id": task["id"]})


# What is refused.

FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"url": ""}, "url"),
    ({"url": "no url"}, "url"),
    ({"url": "ftp://example.com/"}, "url"),
    ({"url": "https://user:password@example.com/"}, "url"),
    ({"url": "https://example.com/" + "x" * 3000}, "url"),
    ({"url": 7}, "url"),
    ({"url": "https://example.com/\ud800"}, "url"),
    ({"id": "x" * 300}, "id"),
    ({"id": "a\0b"}, "id"),
    ({"id": ["a"]}, "id"),
    ({"token": "a\r\nx-evil: 1"}, "token"),
    ({"token": "ü"}, "token"),
    ({"token": "x" * 10_000}, "token"),
    ({"authentication": "Bearer x"}, "authentication"),
    ({"authentication": {"scheme": "Bea rer", "credentials": "x"}}, "authentication.scheme"),
    ({"authentication": {"scheme": "Bearer", "credentials": "x\n"}}, "authentication.credentials"),
    ({"authentication": {"credentials": "x"}}, "authentication.scheme"),
    ({"authentication": {"scheme": {"a": 1}}}, "authentication.scheme"),
]


@pytest.mark.parametrize(("fields", "field"), FAULTS)
async def test_a_faulty_configuration_is_refused_with_its_field_and_no_run(
    client: httpx.AsyncClient, fields: dict[str, Any], field: str
) -> None:
    given = {"url": "https://example.com/", **fields}
    context = str(uuid4())
    configuration = {"taskPushNotificationConfig": given}
    params = {**text_message("Hello", contextId=context), "configuration": configuration}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params})
    headers = {**VERSION, "content-type": "application/json"}
    refused = (await client.post("/a2a", content=body, headers=headers)).json()["error"]
    if "\\ud800" in body:  # which is not JSON
        assert refused["code"] == PARSE_ERROR
    else:
        assert refused["code"] == INVALID_PARAMS
        [violation] = next(detail["fieldViolations"] for detail in refused["data"] if "fieldViolations" in detail)
        assert violation["field"].endswith(f"configuration.taskPushNotificationConfig.{field}")
    assert (await result(client, "ListTasks", {"contextId": context}))["tasks"] == []


async def test_a_private_address_is_refused_unless_the_operator_allows_it() -> None:
    async with TestClient(create_api(_echo, store="memory:")) as client:
        for url in ("https://10.0.0.1/", "https://[::1]/", "http://example.com/", "https://127.0.0.1/"):
            configuration = {"taskPushNotificationConfig": {"url": url}}
            refused = await error(client, "SendMessage", {**text_message("Hello"), "configuration": configuration})
            assert refused["code"] == INVALID_PARAMS
            assert "The URL of a webhook should" in refused["message"]


async def _echo(ctx: Any) -> None:
    ctx.send_message("Hello")


async def test_a_server_whose_store_keeps_no_subscriptions_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryStore, "subscriptions", None, raising=False)
    monkeypatch.setattr(MemoryStore, "__setattr__", _without_subscriptions)
    async with TestClient(create_api(_echo, store="memory:")) as client:
        await _has_no_push(client)


async def test_an_operator_can_switch_push_notifications_off(tmp_path: Path) -> None:
    settings = {"store": f"sqlite:///{tmp_path}/a.db", "webhook_allow_private": True, "drain_time": 2}
    to_dead = {"url": "http://127.0.0.1:9/"}
    async with TestClient(create_api(_echo, **settings)) as client:
        await send(client, "Hello", push=to_dead, at_once=False)
    api = create_api(_echo, **settings, a2a_push="off")
    async with TestClient(api) as client:
        await _has_no_push(client)
        assert api.service is not None
        assert not api.service.subscriptions.outcomes
        assert await cast(SQLiteStore, api.service.store).subscriptions.count() == 1


async def _has_no_push(client: TestClient) -> None:
    card = (await client.get("/.well-known/agent-card.json")).json()
    assert card["capabilities"]["pushNotifications"] is False
    task = await send(client, "Hello", at_once=False)
    params = {"taskId": task["id"], "id": "x", "url": "https://example.com/"}
    for method in ("Create{}Config", "Get{}Config", "List{}Configs", "Delete{}Config"):
        refused = await error(client, method.format("TaskPushNotification"), params)
        assert refused["code"] == NOT_SUPPORTED
    configuration = {"taskPushNotificationConfig": {"url": "https://example.com/"}}
    refused = await error(client, "SendMessage", {**text_message("Hello"), "configuration": configuration})
    assert refused["code"] == NOT_SUPPORTED


def _without_subscriptions(store: MemoryStore, name: str, value: Any) -> None:
    if name != "subscriptions":
        object.__setattr__(store, name, value)
