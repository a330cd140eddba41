"""AG-UI's own client from npm uses a server: the newest version, and the version that CopilotKit pins."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.apps.watched import ODD_TEXT
from tests.node import run_node
from tests.serving import Served

CONVERSE = Path(__file__).with_name("converse.mjs")
BRANCH = Path(__file__).with_name("branch.mjs")
KEY = "agents-key"

pytestmark = pytest.mark.parametrize("client", ["@ag-ui/client", "ag-ui-client-0"])


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served("--app", "tests.apps.watched:app", "--api-key", KEY) as server:
        yield server


def converse(served: Served, client: str, *turns: str, key: str = KEY, **scenario: Any) -> Any:
    headers = {"authorization": f"Bearer {key}"}
    thread = {"threadId": f"ü/{uuid4()}", "turns": turns}
    return run_node(CONVERSE, client=client, url=f"{served.url}/ag-ui", headers=headers, **thread, **scenario)


def steps(run: Any) -> list[str]:
    return [event["stepName"] for event in run["events"] if event["type"] == "STEP_STARTED"]


def said(conversation: Any, role: str = "assistant") -> list[str]:
    return [
        message["content"] for message in conversation["messages"] if message["role"] == role and "content" in message
    ]


def test_a_conversation_of_three_turns_is_one_thread(served: Served, client: str) -> None:
    talk = converse(served, client, "Hello 😀", "stream Hel lo", "see")
    assert [run["error"] for run in talk["runs"]] == [None] * 3
    assert [run["events"][-1]["type"] for run in talk["runs"]] == ["RUN_FINISHED"] * 3
    *answers, seen = said(talk)
    assert answers == ["You said: Hello 😀", "Hello"]
    assert json.loads(seen) == {"asked": ["Hello 😀", "stream Hel lo", "see"], "answered": 2}


def test_it_is_told_of_progress_buttons_and_events(served: Served, client: str) -> None:
    talk = converse(served, client, "plainly", "stream Hel lo", "buttons", "event rag.query_processed", "list")
    plainly, streamed, buttons, processed, listed = talk["runs"]
    assert steps(plainly) == ["Reading", "Thinking hard", "Searching"]
    assert [event["delta"] for event in streamed["events"] if "delta" in event] == ["Hel", "lo"]
    custom = [[event for event in run["events"] if event["type"] == "CUSTOM"] for run in (buttons, processed, listed)]
    with_buttons = {"role": "assistant", "content": "Choose", "buttons": [{"text": "Yes"}]}
    assert custom == [
        [{"type": "CUSTOM", "name": "comm.assistant_message_with_buttons", "value": with_buttons}],
        [{"type": "CUSTOM", "name": "rag.query_processed", "value": {"seen": True}}],
        [{"type": "CUSTOM", "name": "rag.list", "value": [1, 2]}],
    ]
    assert said(talk) == ["Hello", "Choose"]


def test_a_page_that_was_loaded_again_has_the_same_messages(served: Served, client: str) -> None:
    talk = converse(served, client, "Hello", "stream Hel lo", "work", "buttons", reload=True)
    assert [run["error"] for run in talk["runs"]] == [None] * 4

    def shown(messages: Any) -> list[Any]:
        calls = [[call["function"] for call in message.get("toolCalls", ())] for message in messages]
        told = [(message["role"], message.get("content")) for message in messages]
        return list(zip(told, calls, strict=True))

    assert shown(talk["reloaded"]) == shown(talk["messages"])


def test_what_an_agent_does_is_shown(served: Served, client: str) -> None:
    talk = converse(served, client, "work", "see")
    worked, seen = talk["runs"]
    assert (worked["error"], seen["error"]) == (None, None)
    reasoning, search, found, broken, failed, answer = talk["messages"][1:7]
    assert (reasoning["role"], reasoning["content"]) == ("reasoning", "They ask.")
    assert called(search) == ("search", '{"q":"quokka"}')
    assert (found["role"], found["content"]) == ("tool", '{"found":1}')
    assert called(broken) == ("broken", "{}")
    assert (failed["role"], failed["content"]) == ("tool", "LookupError: no index")
    assert answer["content"] == "Quokkas are happy."
    assert [found["toolCallId"], failed["toolCallId"]] == [call["toolCalls"][0]["id"] for call in (search, broken)]
    sources = [event["value"] for event in worked["events"] if event["type"] == "CUSTOM"]
    assert sources == [
        {"url": "https://example.org/q", "title": "Quokkas"},
        {"url": None, "title": "The handbook"},
    ]
    assert worked["events"][-1]["usage"] == [
        {"model": "m", "inputTokens": 812, "outputTokens": 44},
        {"model": "m", "inputTokens": 8, "outputTokens": 6},
    ]
    assert json.loads(said(talk)[-1]) == {"asked": ["work", "see"], "answered": 1}


def called(message: Any) -> tuple[str, str]:
    """The name and the arguments of the only call in a message of the assistant."""
    [call] = message["toolCalls"]
    return call["function"]["name"], call["function"]["arguments"]


def test_calls_with_the_same_id_of_a_model_are_two(served: Served, client: str) -> None:
    talk = converse(served, client, "work", "work")
    assert [run["error"] for run in talk["runs"]] == [None, None]
    calls = [message for message in talk["messages"] if message.get("toolCalls")]
    assert [called(message) for message in calls] == 2 * [("search", '{"q":"quokka"}'), ("broken", "{}")]
    assert len({message["id"] for message in talk["messages"]}) == len(talk["messages"])


def test_any_text_arrives_as_it_is(served: Served, client: str) -> None:
    talk = converse(served, client, "oddly")
    assert steps(talk["runs"][0]) == ["Reading", ODD_TEXT.replace("\ud800", "?")]
    assert said(talk) == [ODD_TEXT.replace("\ud800", "").replace("\0", "")]


def test_a_pipeline_that_fails_is_an_error_and_the_conversation_goes_on(served: Served, client: str) -> None:
    talk = converse(served, client, "raise out of coffee", "see")
    failed, went_on = talk["runs"]
    error = {"type": "RUN_ERROR", "message": "Pipeline error: out of coffee", "code": "500"}
    assert failed["events"][-1] == error
    assert went_on["error"] is None
    assert json.loads(said(talk)[-1]) == {"asked": ["raise out of coffee", "see"], "answered": 0}


def test_a_refusal_is_told_with_its_status_and_text(served: Served, client: str) -> None:
    talk = converse(served, client, "hello", key="wrong")
    assert talk["runs"][0]["error"] == {
        "message": 'HTTP 401: {"detail":"Unauthorized"}',
        "status": 401,
        "payload": {"detail": "Unauthorized"},
    }


@pytest.fixture(scope="module")
def continuing() -> Iterator[Served]:
    options = ("--app", "tests.apps.watched:app", "--api-key", KEY, "--agui-on-disconnect", "continue")
    with Served(*options) as server:
        yield server


def leave(served: Served, client: str, name: str, aside: str) -> Any:
    """What `see` sees after the run before it was left with `abortRun()`, and after `aside` in another thread."""
    talk = converse(served, client, f"hold {name}", "see", leaveAt="STEP_STARTED", aside=aside)
    left = [event["type"] for event in talk["runs"][0]["events"]]
    assert left[:2] == ["RUN_STARTED", "STEP_STARTED"]
    assert "RUN_FINISHED" not in left
    return json.loads(said(talk)[-1])


def test_a_run_that_it_aborts_is_cancelled(served: Served, client: str) -> None:
    name = str(uuid4())
    assert leave(served, client, name, "hello") == {"asked": [f"hold {name}", "see"], "answered": 0}


def test_a_run_that_it_leaves_is_answered_in_the_thread_if_the_operator_wants_that(
    continuing: Served, client: str
) -> None:
    name = str(uuid4())
    assert leave(continuing, client, name, f"open {name}") == {"asked": [f"hold {name}", "see"], "answered": 1}


def test_a_page_regenerates_an_answer_and_edits_a_message(served: Served, client: str) -> None:
    steps: list[dict[str, Any]] = [
        {"say": "one"},
        {"say": "see"},
        {"keep": 3},  # the last answer again
        {"keep": 2, "say": "SEE"},  # an edited message, which this client gives a new identifier
        {"reload": True},
        {"keep": 1},  # the first answer again
        {"say": "see"},
    ]
    headers = {"authorization": f"Bearer {KEY}"}
    thread = {"threadId": str(uuid4()), "steps": steps}
    shown = run_node(BRANCH, client=client, url=f"{served.url}/ag-ui", headers=headers, **thread)
    _, seen, again, edited, reloaded, first, last = shown
    assert again == seen
    assert json.loads(again[-1]) == {"asked": ["one", "see"], "answered": 1}
    assert edited == reloaded == ["one", "You said: one", "SEE", "You said: SEE"]
    assert first == ["one", "You said: one"]
    assert json.loads(last[-1]) == {"asked": ["one", "see"], "answered": 1}
