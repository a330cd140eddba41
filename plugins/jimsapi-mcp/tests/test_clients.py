"""MCP's own clients, in both eras: they list, call, follow, cancel, read, and come back after they died.

Each client begins once and does all that the tests look at: most of a test's time is the start of a process.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest
from mcp_clients import CLIENTS, McpClient, Performance, Talk, converse, text_of

from tests.serving import Served

KEY = "editors-key"
HEADERS = {"authorization": f"Bearer {KEY}"}

Results = Mapping[str, Any]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served("--app", "tests.apps.watched:app", "--api-key", KEY) as server:
        yield server


@pytest.fixture(scope="module", params=CLIENTS, ids=str)
def client(request: pytest.FixtureRequest) -> McpClient:
    found: McpClient = request.param
    return found


def perform(served: Served, client: McpClient, steps: Mapping[str, Any]) -> tuple[Talk, Results]:
    """What a client has written, and the results of its steps by their names."""
    talk = converse(client, f"{served.url}/mcp", *steps.values(), headers=HEADERS)
    return talk, dict(zip(steps, talk.results, strict=True))


def say(message: str, thread: str | None = None, **more: Any) -> dict[str, Any]:
    """The step that says a message in a thread."""
    return {"call": "chat", "arguments": {"message": message, **({"thread": thread} if thread else {})}, **more}


def use(tool: str, **arguments: Any) -> dict[str, Any]:
    """The step that calls another tool."""
    return {"call": tool, "arguments": arguments}


@pytest.fixture(scope="module")
def met(served: Served, client: McpClient) -> tuple[Talk, Results]:
    """A client that has done everything once."""
    thread, other, held = f"ü/{uuid4()}", f"talk {uuid4()}", str(uuid4())
    return perform(
        served,
        client,
        {
            "tools": {"list": "tools"},
            "templates": {"list": "templates"},
            "hello": say("Hello 😀", thread),
            "failed": say("raise no coffee", thread),
            "seen": say("see", thread),
            "seen_by_identifier": say("see", "$thread_id"),
            "threads": {"list": "resources"},
            "read": {"read": "jims://threads/$thread_id"},
            "unread": {"read": f"jims://threads/{uuid4()}"},
            "streamed": say("stream Hel lo", progress=True),
            "unfollowed": say("stream Hel lo"),
            "unknown_tool": use("refund"),
            "wrong_argument": use("chat", message=5),
            "left": say(f"hold {held}", other, progress=True, cancel_at="Reading"),
            "seen_after_leaving": say("see", other),
            "started": use("chat_start", message=f"hold {held}"),
            "stopped": use("chat_cancel", run_id="$run_id"),
            "got": use("chat_get", run_id="$run_id", wait=30),
            "unknown_run": use("chat_cancel", run_id=str(uuid4())),
        },
    )


@pytest.fixture
def results(met: tuple[Talk, Results]) -> Results:
    return met[1]


def structured(called: Any) -> Any:
    return called["result"]["structuredContent"]


def conversation(called: Any) -> Any:
    """What `see` has seen."""
    return json.loads(text_of(called))


def test_it_agrees_on_the_newest_version_of_its_era(met: tuple[Talk, Results], client: McpClient) -> None:
    assert (met[0].connected["version"], met[0].connected["server"]) == (client.version, "watched")


def test_it_lists_the_tools_and_what_they_take(results: Results) -> None:
    tools = {tool["name"]: tool for tool in results["tools"]["tools"]}
    assert list(tools) == ["chat", "chat_start", "chat_get", "chat_cancel"]
    assert tools["chat"]["inputSchema"]["required"] == ["message"]
    assert all(tool["description"] for tool in tools.values())


def test_it_converses_in_one_thread(results: Results) -> None:
    hello, failed, seen = results["hello"], results["failed"], results["seen"]
    assert text_of(hello) == structured(hello)["text"] == "You said: Hello 😀"
    assert (structured(hello)["status"], structured(failed)["status"]) == ("completed", "failed")
    assert (hello["result"].get("isError", False), failed["result"]["isError"]) == (False, True)
    assert "no coffee" in text_of(failed)
    asked = ["Hello 😀", "raise no coffee", "see"]
    assert conversation(seen) == {"asked": asked, "answered": 1}
    assert conversation(results["seen_by_identifier"]) == {"asked": [*asked, "see"], "answered": 2}
    assert len({structured(one)["thread_id"] for one in (hello, failed, seen)}) == 1


def test_it_follows_the_progress_of_a_call(results: Results) -> None:
    streamed, unfollowed = results["streamed"], results["unfollowed"]
    assert [one["message"] for one in streamed["progress"]][:3] == ["Reading", "Speaking", "Hel"]
    numbers = [one["progress"] for one in streamed["progress"]]
    assert numbers == sorted(set(numbers))
    assert (text_of(streamed), text_of(unfollowed), unfollowed["progress"]) == ("Hello", "Hello", [])


def test_it_learns_what_is_wrong_with_a_call(results: Results) -> None:
    assert results["unknown_tool"]["error"]["code"] == -32602
    assert "refund" in results["unknown_tool"]["error"]["message"]
    assert results["wrong_argument"]["result"]["isError"]
    assert "message" in text_of(results["wrong_argument"])


def test_a_call_that_it_cancels_is_cancelled_here(results: Results) -> None:
    assert results["left"] == {"progress": [{"progress": 1, "message": "Reading"}], "cancelled": True}
    assert conversation(results["seen_after_leaving"])["answered"] == 0


def test_it_cancels_what_it_has_started(results: Results) -> None:
    assert structured(results["started"])["status"] in ("queued", "running")
    assert not results["stopped"]["result"].get("isError")
    assert structured(results["got"])["status"] == "cancelled"
    assert results["unknown_run"]["result"]["isError"]


def test_it_reads_a_thread_as_a_resource(results: Results, client: McpClient) -> None:
    assert [one["uriTemplate"] for one in results["templates"]["resourceTemplates"]] == ["jims://threads/{id}"]
    uri = f"jims://threads/{structured(results['hello'])['thread_id']}"
    assert uri in [one["uri"] for one in results["threads"]["resources"]]
    [content] = results["read"]["contents"]
    said = [(one["role"], one["text"]) for one in json.loads(content["text"])["messages"]]
    assert (content["uri"], said[:2]) == (uri, [("user", "Hello 😀"), ("assistant", "You said: Hello 😀")])
    # The newest client in TypeScript shows -32002 as -32602.
    code = -32002 if str(client) in ("mcp-legacy", "sdk-legacy") else -32602
    assert results["unread"]["error"]["code"] == code


def test_a_client_that_died_reads_what_it_had_begun(served: Served, client: McpClient) -> None:
    started, called, other = str(uuid4()), str(uuid4()), f"talk {uuid4()}"
    steps = (use("chat_start", message=f"hold {started}"), say(f"hold {called}", other, progress=True))
    with Performance(client, f"{served.url}/mcp", *steps, headers=HEADERS) as first:
        begun = structured(first.wait_for("step"))
        first.wait_for("progress")
        first.kill()
    get = use("chat_get", run_id=begun["run_id"])
    _, results = perform(
        served,
        client,
        {
            "working": get,
            "open": say(f"open {started}"),
            "ended": use("chat_get", run_id=begun["run_id"], wait=30),
            "open_call": say(f"open {called}"),
            "call": use("chat_get", thread=other, wait=30),
            "seen": say("see", other),
        },
    )
    assert structured(results["working"]) == {**begun, "status": "running"}
    assert structured(results["ended"])["status"] == "completed"
    assert conversation(results["ended"]) == {"asked": [f"hold {started}"], "answered": 0}
    # Clients of 2026-07-28 cancel a call by disconnecting, and a crash disconnects, too.
    ended = "cancelled" if client.era == "modern" else "completed"
    assert structured(results["call"])["status"] == ended
    answered = 0 if client.era == "modern" else 1
    assert conversation(results["seen"]) == {"asked": [f"hold {called}", "see"], "answered": answered}
