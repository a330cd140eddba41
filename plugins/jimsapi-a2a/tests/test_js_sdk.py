"""@a2a-js/sdk, the official JavaScript client, uses an agent by both bindings."""

import shutil
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.node import run_node
from tests.plugins.distributions import install
from tests.serving import ROOT, Served

pytestmark = pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])

HERE = Path(__file__).parent
NONE: Any = {"artifact": {"parts": []}}
ANN, BEA = {"x-user": "talker"}, {"x-user": "ann-talks"}
COMPLETED = "TASK_STATE_COMPLETED"
INPUT_REQUIRED = "TASK_STATE_INPUT_REQUIRED"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agent")
    install(folder, "jimsapi-users", (ROOT / "tests" / "apps" / "jimsapi_users.py").read_text())
    shutil.copy(HERE / "a2a_agent.py", folder)
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    files = f"file://{folder}/files"
    options = ("--app", "a2a_agent:app", "--drain-time", "2", "--files-store", files, "--files-types", "text/*")
    with Served(*options, folder=folder, env={"AGENT_FOLDER": str(folder)}) as server:
        yield server


def converse(served: Served, binding: str, *calls: Any, headers: Any = None) -> Any:
    """Do one call after another, and return the results."""
    return run_node(
        HERE / "converse.mjs", url=served.url, binding=binding, headers=ANN if headers is None else headers, calls=calls
    )


def call(method: str, **params: Any) -> dict[str, Any]:
    return {"method": method, "params": params}


def say(
    text: str, *, stream: bool = False, parts: Any = None, configuration: Any = None, more: Any = None, **fields: Any
) -> dict[str, Any]:
    """A call that sends a message. `fields` are those of the message, and `more` those of the call."""
    message = {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": parts or [{"text": text}], **fields}
    params = {"message": message, "configuration": configuration or {}}
    return {"method": "sendMessageStream" if stream else "sendMessage", "params": params, **(more or {})}


def texts(task: Any) -> list[str]:
    return ["".join(part.get("text", "") for part in artifact["parts"]) for artifact in task["artifacts"]]


def streamed(events: Any) -> tuple[list[str], str]:
    """The states that a stream has told, and the text of its artifacts."""
    states, text = [], ""
    for event in events:
        if "task" in event:
            states.append(event["task"]["status"]["state"])
            text += "".join(texts({"artifacts": [], **event["task"]}))
        elif "statusUpdate" in event:
            states.append(event["statusUpdate"]["status"]["state"])
        elif "artifactUpdate" in event:
            text += "".join(part.get("text", "") for part in event["artifactUpdate"]["artifact"]["parts"])
    return states, text


def test_a_conversation_is_a_context_with_tasks(served: Served, binding: str) -> None:
    first, second, again, listed, page, none = converse(
        served,
        binding,
        say("Hello 😀"),
        say("two", contextId="$0.contextId"),
        call("getTask", id="$0.id"),
        call("listTasks", contextId="$0.contextId", includeArtifacts=True),
        call("listTasks", contextId="$0.contextId", pageSize=1),
        call("listTasks", contextId="$0.contextId", status="TASK_STATE_FAILED"),
    )
    assert (first["status"]["state"], texts(first)) == (COMPLETED, ["You said: Hello 😀"])
    assert second["contextId"] == first["contextId"]
    assert (again["id"], texts(again)) == (first["id"], texts(first))
    assert [task["id"] for task in listed["tasks"]] == [second["id"], first["id"]]
    assert texts(listed["tasks"][0]) == ["You said: two"]
    assert (len(page["tasks"]), bool(page["nextPageToken"])) == (1, True)
    assert none.get("tasks", []) == []


def test_a_stream_tells_the_task_and_then_what_becomes_of_it(served: Served, binding: str, folder: Path) -> None:
    name = str(uuid4())
    [events] = converse(served, binding, say(f"hold {name}", stream=True, more={"touch": str(folder / name)}))
    assert "task" in events[0]
    states, text = streamed(events)
    assert (states[-1], text) == (COMPLETED, "Hello")


def test_a_client_that_hangs_up_comes_back_by_a_subscription(served: Served, binding: str, folder: Path) -> None:
    name = str(uuid4())
    _, rest, task, ended = converse(
        served,
        binding,
        say(f"hold {name}", stream=True, more={"leave": 1}),
        {**call("resubscribeTask", id="$0.0.task.id"), "touch": str(folder / name)},
        call("getTask", id="$0.0.task.id"),
        call("resubscribeTask", id="$0.0.task.id"),
    )
    states, text = streamed(rest)
    assert (states[-1], text) == (COMPLETED, "Hello")
    assert texts(task) == ["Hello"]
    assert "UnsupportedOperationError" in ended["error"]


def test_a_question_is_answered_and_a_stream_of_one_too(served: Served, binding: str) -> None:
    asked, answered, stream, rest = converse(
        served,
        binding,
        say("ask"),
        say("Perth", taskId="$0.id", contextId="$0.contextId"),
        say("ask", stream=True),
        say("Oslo", stream=True, taskId="$2.0.task.id", contextId="$2.0.task.contextId"),
    )
    assert asked["status"]["state"] == INPUT_REQUIRED
    assert asked["status"]["message"]["parts"][0]["text"] == "Which city?"
    assert (answered["id"], answered["status"]["state"]) == (asked["id"], COMPLETED)
    assert texts(answered) == ["It rains in Perth"]
    assert streamed(stream)[0][-1] == INPUT_REQUIRED
    assert streamed(rest) == ([*streamed(rest)[0][:-1], COMPLETED], "It rains in Oslo")


def test_a_task_is_returned_at_once_and_cancelled(served: Served, binding: str) -> None:
    task, cancelled, again = converse(
        served,
        binding,
        say(f"hold {uuid4()}", configuration={"returnImmediately": True}),
        call("cancelTask", id="$0.id"),
        call("cancelTask", id="$0.id"),
    )
    assert task["status"]["state"] in ("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING")
    assert (cancelled["id"], cancelled["status"]["state"]) == (task["id"], "TASK_STATE_CANCELED")
    assert "TaskNotCancelableError" in again["error"]


def test_a_message_that_is_sent_again_is_answered_once(served: Served, binding: str) -> None:
    same: dict[str, Any] = {"messageId": str(uuid4()), "contextId": str(uuid4())}
    first, again, other, listed = converse(
        served,
        binding,
        say("once", **same),
        say("once", **same),
        say("another", **same),
        call("listTasks", contextId=same["contextId"]),
    )
    assert again["id"] == first["id"]
    assert other["error"]
    assert len(listed["tasks"]) == 1


def test_files_and_data_come_and_go(served: Served, binding: str) -> None:
    raw = {"raw": b64encode(b"Hello").decode(), "filename": "a.txt", "mediaType": "text/plain"}
    files, data, report, events = converse(
        served,
        binding,
        say("", parts=[{"text": "files"}, raw]),
        say("data"),
        say("report 5"),
        say("report 6", stream=True),
    )
    sent = {"filename": "report.txt", "mediaType": "text/plain"}
    assert report["artifacts"][1]["parts"] == [{"raw": b64encode(b"xxxxx").decode(), **sent}]
    streamed_parts = [part for event in events for part in event.get("artifactUpdate", NONE)["artifact"]["parts"]]
    assert {"raw": b64encode(b"xxxxxx").decode(), **sent} in streamed_parts
    assert texts(files) == ["a.txt text/plain Hello"]
    assert data["artifacts"][0]["parts"][0]["data"] == {"city": "Perth", "degrees": 31}


def test_a_task_that_fails_and_faults_of_the_client(served: Served, binding: str) -> None:
    failed, missing, ended, faulty = converse(
        served,
        binding,
        say("fail"),
        call("getTask", id=str(uuid4())),
        say("more", taskId="$0.id", contextId="$0.contextId"),
        say("Hello", configuration={"taskPushNotificationConfig": {"url": "no url"}}),
    )
    assert failed["status"]["state"] == "TASK_STATE_FAILED"
    assert "TaskNotFoundError" in missing["error"]
    assert "UnsupportedOperationError" in ended["error"]
    assert "url" in faulty["message"]


def test_push_configurations_are_kept_listed_and_deleted(served: Served, binding: str) -> None:
    secrets = {"token": "t", "authentication": {"scheme": "Bearer", "credentials": "secret"}}
    _, made, found, listed, deleted, missing, left = converse(
        served,
        binding,
        say(f"hold {uuid4()}", configuration={"returnImmediately": True}),
        call("createTaskPushNotificationConfig", taskId="$0.id", id="mine", url="https://example.com/", **secrets),
        call("getTaskPushNotificationConfig", taskId="$0.id", id="mine"),
        call("listTaskPushNotificationConfig", taskId="$0.id"),
        call("deleteTaskPushNotificationConfig", taskId="$0.id", id="mine"),
        call("getTaskPushNotificationConfig", taskId="$0.id", id="mine"),
        call("listTaskPushNotificationConfig", taskId="$0.id"),
    )
    assert made["authentication"] == {"scheme": "Bearer", "credentials": "secret"}
    assert found == made
    assert listed["configs"] == [made]
    assert deleted is None
    assert "TaskNotFoundError" in missing["error"]
    assert left.get("configs", []) == []


def test_another_caller_finds_no_task(served: Served, binding: str) -> None:
    [task] = converse(served, binding, say("Hello"))
    found, cancelled, answered, listed = converse(
        served,
        binding,
        call("getTask", id=task["id"]),
        call("cancelTask", id=task["id"]),
        say("mine", taskId=task["id"]),
        call("listTaskPushNotificationConfig", taskId=task["id"]),
        headers=BEA,
    )
    assert all("TaskNotFoundError" in refused["error"] for refused in (found, cancelled, answered, listed))
