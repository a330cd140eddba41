"""MCP's own clients, in both eras: they list, call, follow, cancel, read, and come back after they died."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from mcp_clients import CLIENTS, McpClient, Performance, Talk, converse, text_of

from tests.serving import Served

KEY = "editors-key"
HEADERS = {"authorization": f"Bearer {KEY}"}
CANCELS_BY_LEAVING = [client for client in CLIENTS if client.era == "modern"]
CANCELS_BY_WORD = [client for client in CLIENTS if client.era == "legacy"]

everyone = pytest.mark.parametrize("client", CLIENTS, ids=str)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served("--app", "tests.apps.watched:app", "--api-key", KEY) as server:
        yield server


def perform(served: Served, client: McpClient, *steps: Any) -> Performance:
    return Performance(client, f"{served.url}/mcp", *steps, headers=HEADERS)


def talk(served: Served, client: McpClient, *steps: Any) -> Talk:
    return converse(client, f"{served.url}/mcp", *steps, headers=HEADERS)


def say(message: str, thread: str | None = None, **more: Any) -> dict[str, Any]:
    """The step that says a message in a thread."""
    return {"call": "chat", "arguments": {"message": message, **({"thread": thread} if thread else {})}, **more}


def release(served: Served, name: str) -> None:
    """Let the pipelines go on that hold at a name."""
    with served.client(headers=HEADERS) as api:
        message = {"contact_id": "releasing", "message": f"open {name}"}
        assert api.post("/api/v1/chat", json=message).status_code == 200


def structured(called: Any) -> Any:
    return called["result"]["structuredContent"]


def conversation(called: Any) -> Any:
    """What `see` has seen."""
    return json.loads(text_of(called))


@everyone
def test_it_agrees_on_the_newest_version_of_its_era(served: Served, client: McpClient) -> None:
    assert talk(served, client).connected["version"] == client.version


@everyone
def test_it_lists_the_tools_and_what_they_take(served: Served, client: McpClient) -> None:
    [listed] = talk(served, client, {"list": "tools"}).results
    tools = {tool["name"]: tool for tool in listed["tools"]}
    assert list(tools) == ["chat", "chat_start", "chat_get", "chat_cancel"]
    assert tools["chat"]["inputSchema"]["required"] == ["message"]
    assert all(tool["description"] for tool in tools.values())


@everyone
def test_it_converses_in_one_thread(served: Served, client: McpClient) -> None:
    thread = f"ü/{uuid4()}"
    hello, failed, seen = talk(
        served, client, {"list": "tools"}, say("Hello 😀", thread), say("raise no coffee", thread), say("see", thread)
    ).results[1:]
    assert text_of(hello) == structured(hello)["text"] == "You said: Hello 😀"
    assert (structured(hello)["status"], structured(failed)["status"]) == ("completed", "failed")
    assert (hello["result"].get("isError", False), failed["result"]["isError"]) == (False, True)
    assert "no coffee" in text_of(failed)
    assert conversation(seen) == {"asked": ["Hello 😀", "raise no coffee", "see"], "answered": 1}
    assert len({structured(one)["thread_id"] for one in (hello, failed, seen)}) == 1


@everyone
def test_it_continues_a_thread_by_its_identifier(served: Served, client: McpClient) -> None:
    [hello] = talk(served, client, say("Hello")).results
    [seen] = talk(served, client, say("see", structured(hello)["thread_id"])).results
    assert conversation(seen) == {"asked": ["Hello", "see"], "answered": 1}


@everyone
def test_it_follows_the_progress_of_a_call(served: Served, client: McpClient) -> None:
    [streamed, unfollowed] = talk(served, client, say("stream Hel lo", progress=True), say("stream Hel lo")).results
    assert [one["message"] for one in streamed["progress"]][:3] == ["Reading", "Speaking", "Hel"]
    numbers = [one["progress"] for one in streamed["progress"]]
    assert numbers == sorted(set(numbers))
    assert (text_of(streamed), text_of(unfollowed), unfollowed["progress"]) == ("Hello", "Hello", [])


@everyone
def test_it_learns_what_is_wrong_with_a_call(served: Served, client: McpClient) -> None:
    unknown, wrong = talk(
        served,
        client,
        {"call": "refund", "arguments": {}},
        {"call": "chat", "arguments": {"message": 5}},
    ).results
    assert unknown["error"]["code"] == -32602
    assert "refund" in unknown["error"]["message"]
    assert wrong["result"]["isError"]
    assert "message" in text_of(wrong)


@everyone
def test_a_call_that_it_cancels_is_cancelled_here(served: Served, client: McpClient) -> None:
    thread, name = f"talk {uuid4()}", str(uuid4())
    cancelled, seen = talk(
        served, client, say(f"hold {name}", thread, progress=True, cancel_at="Reading"), say("see", thread)
    ).results
    assert cancelled == {"progress": [{"progress": 1, "message": "Reading"}], "cancelled": True}
    assert conversation(seen) == {"asked": [f"hold {name}", "see"], "answered": 0}


@pytest.mark.parametrize("client", CANCELS_BY_LEAVING, ids=str)
def test_a_call_ends_with_a_client_that_dies(served: Served, client: McpClient) -> None:
    thread, name = f"talk {uuid4()}", str(uuid4())
    with perform(served, client, say(f"hold {name}", thread, progress=True)) as first:
        first.wait_for("progress")
        first.kill()
    [seen] = talk(served, client, say("see", thread)).results
    assert conversation(seen) == {"asked": [f"hold {name}", "see"], "answered": 0}


@pytest.mark.parametrize("client", CANCELS_BY_WORD, ids=str)
def test_a_call_goes_on_if_its_client_dies_without_a_word(served: Served, client: McpClient) -> None:
    thread, name = f"talk {uuid4()}", str(uuid4())
    with perform(served, client, say(f"hold {name}", thread, progress=True)) as first:
        first.wait_for("progress")
        first.kill()
    release(served, name)
    got, seen = talk(
        served, client, {"call": "chat_get", "arguments": {"thread": thread, "wait": 30}}, say("see", thread)
    ).results
    assert conversation(got) == {"asked": [f"hold {name}"], "answered": 0}
    assert conversation(seen) == {"asked": [f"hold {name}", "see"], "answered": 1}


@everyone
def test_a_client_that_died_reads_what_it_had_started(served: Served, client: McpClient) -> None:
    name = str(uuid4())
    start = {"call": "chat_start", "arguments": {"message": f"hold {name}"}}
    with perform(served, client, start, say(f"hold {name}", progress=True)) as first:
        started = structured(first.wait_for("step"))
        first.wait_for("progress")
        first.kill()
    assert started["status"] in ("queued", "running")
    get: dict[str, Any] = {"call": "chat_get", "arguments": {"run_id": started["run_id"]}}
    [working] = talk(served, client, get).results
    assert structured(working) == {**started, "status": "running"}
    release(served, name)
    [got] = talk(served, client, {**get, "arguments": {**get["arguments"], "wait": 30}}).results
    assert structured(got)["status"] == "completed"
    assert conversation(got) == {"asked": [f"hold {name}"], "answered": 0}


@everyone
def test_it_cancels_what_it_has_started(served: Served, client: McpClient) -> None:
    name = str(uuid4())
    [started] = talk(served, client, {"call": "chat_start", "arguments": {"message": f"hold {name}"}}).results
    run = {"run_id": structured(started)["run_id"]}
    cancelled, got, unknown = talk(
        served,
        client,
        {"call": "chat_cancel", "arguments": run},
        {"call": "chat_get", "arguments": {**run, "wait": 30}},
        {"call": "chat_cancel", "arguments": {"run_id": str(uuid4())}},
    ).results
    assert not cancelled["result"].get("isError")
    assert structured(got)["status"] == "cancelled"
    assert unknown["result"]["isError"]


@everyone
def test_it_reads_a_thread_as_a_resource(served: Served, client: McpClient) -> None:
    templates, hello = talk(served, client, {"list": "templates"}, say("Hello")).results
    assert [one["uriTemplate"] for one in templates["resourceTemplates"]] == ["jims://threads/{id}"]
    uri = f"jims://threads/{structured(hello)['thread_id']}"
    listed, read, unknown = talk(
        served, client, {"list": "resources"}, {"read": uri}, {"read": f"jims://threads/{uuid4()}"}
    ).results
    assert uri in [one["uri"] for one in listed["resources"]]
    [content] = read["contents"]
    assert content["uri"] == uri
    assert "Hello" in content["text"]
    assert "You said: Hello" in content["text"]
    # The newest client in TypeScript shows -32002 as -32602.
    assert unknown["error"]["code"] == (-32002 if str(client) in ("mcp-legacy", "sdk-legacy") else -32602)
