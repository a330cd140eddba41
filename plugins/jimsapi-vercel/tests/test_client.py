"""The AI SDK's own chat and transport, as they come from npm, talk to a server: today's, and the oldest that can."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.apps.watched import ODD_TEXT
from tests.node import run_node
from tests.serving import Served

PROGRAMS = Path(__file__).parent
KEY = "pages-key"

pytestmark = pytest.mark.parametrize("sdk", ["ai", "ai-5"])


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served("--app", "tests.apps.watched:app", "--api-key", KEY) as server:
        yield server


def run(served: Served, program: str, sdk: str, key: str = KEY, **scenario: Any) -> Any:
    headers = {"authorization": f"Bearer {key}"}
    chat = {"api": f"{served.url}/ai-sdk/chat", "id": f"ü/{uuid4()}"}
    return run_node(PROGRAMS / program, sdk=sdk, headers=headers, **chat, **scenario)


def converse(served: Served, sdk: str, *turns: str, key: str = KEY) -> Any:
    """What a page shows after each turn."""
    return run(served, "converse.mjs", sdk, key, turns=turns)


def parts(shown: Any, message: int = -1) -> list[Any]:
    """The parts of a message, without the mark of the step, in which there is nothing, and names that are random."""
    found = [part for part in shown["messages"][message]["parts"] if part["type"] != "step-start"]
    return [{name: value for name, value in part.items() if name != "id"} for part in found]


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said, "state": "done"}


def test_a_page_that_was_loaded_again_shows_the_same(served: Served, sdk: str) -> None:
    told = run(served, "reload.mjs", sdk, turns=["Hello", "work", "buttons", "stream Hel lo"])

    def shown(messages: Any) -> list[Any]:
        return [(message["role"], parts({"messages": [message]})) for message in messages]

    assert shown(told["messages"]) == shown(told["before"])
    assert [one.get("metadata") for one in told["messages"]] == [one.get("metadata") for one in told["before"]]


def test_a_file_that_the_pipeline_sends_is_shown(tmp_path: Path, sdk: str) -> None:
    store = f"file://{tmp_path}/files"
    with Served("--app", "tests.apps.scripted:app", "--api-key", KEY, "--files-store", store) as server:
        [shown] = converse(server, sdk, "file Hello")
        assert shown["error"] is None
        said, file = parts(shown)
        assert (said, file["type"], file["mediaType"]) == (text("Hello"), "file", "text/plain")
        with server.client(headers={"authorization": f"Bearer {KEY}"}) as client:
            assert client.get(file["url"]).text == "Hello"


def test_what_an_agent_does_is_shown(served: Served, sdk: str) -> None:
    shown, seen = converse(served, sdk, "work", "see")
    assert seen["error"] is None
    of_server = {"type": "dynamic-tool", "providerExecuted": True}
    search = {**of_server, "toolName": "search", "input": {"q": "quokka"}}
    broken = {**of_server, "toolName": "broken", "input": {}}
    random = {"sourceId", "toolCallId"}
    found = [{name: value for name, value in part.items() if name not in random} for part in parts(shown)]
    assert found == [
        {"type": "reasoning", "text": "They ask.", "state": "done"},
        {**search, "state": "output-available", "output": {"found": 1}},
        {**broken, "state": "output-error", "errorText": "LookupError: no index"},
        {"type": "source-url", "url": "https://example.org/q", "title": "Quokkas"},
        {"type": "source-document", "mediaType": "text/plain", "title": "The handbook"},
        text("Quokkas are happy."),
    ]
    usage = {"inputTokens": 820, "outputTokens": 50, "totalTokens": 870, "cachedInputTokens": 800}
    assert shown["messages"][-1]["metadata"] == {"usage": usage}


def statuses(shown: Any) -> list[str]:
    return [part["data"]["status"] for part in shown["data"] if part["type"] == "data-status"]


def test_a_conversation_of_three_turns_is_one_thread(served: Served, sdk: str) -> None:
    turns = converse(served, sdk, "Hello 😀", "stream Hel lo", "see")
    assert [(turn["status"], turn["error"]) for turn in turns] == [("ready", None)] * 3
    shown = turns[-1]
    assert [message["role"] for message in shown["messages"]] == ["user", "assistant"] * 3
    assert parts(shown, 1) == [text("You said: Hello 😀")]
    assert parts(shown, 3) == [text("Hello")]
    seen = json.loads(parts(shown)[0]["text"])
    assert seen == {"asked": ["Hello 😀", "stream Hel lo", "see"], "answered": 2}


def test_it_is_told_of_progress_buttons_and_events(served: Served, sdk: str) -> None:
    plainly, buttons, processed = converse(served, sdk, "plainly", "buttons", "event rag.query_processed")
    assert statuses(plainly) == ["Reading", "Thinking hard", "Searching"]
    assert plainly["data"][-1]["data"] == {"status": "Searching", "type": "search"}
    assert parts(plainly) == []  # statuses are transient
    with_buttons = {"role": "assistant", "content": "Choose", "buttons": [{"text": "Yes"}]}
    assert parts(buttons) == [
        text("Choose"),
        {"type": "data-comm.assistant_message_with_buttons", "data": with_buttons},
    ]
    assert parts(processed) == [{"type": "data-rag.query_processed", "data": {"seen": True}}]


def test_any_text_arrives_as_it_is(served: Served, sdk: str) -> None:
    [shown] = converse(served, sdk, "oddly")
    assert statuses(shown) == ["Reading", ODD_TEXT.replace("\ud800", "?")]
    assert parts(shown) == [text(ODD_TEXT.replace("\ud800", "").replace("\0", ""))]


def test_a_pipeline_that_fails_is_an_error_and_the_conversation_goes_on(served: Served, sdk: str) -> None:
    failed, went_on = converse(served, sdk, "raise out of coffee", "see")
    assert (failed["status"], failed["error"]) == ("error", "Pipeline error: out of coffee")
    assert (went_on["status"], went_on["error"]) == ("ready", None)
    assert json.loads(parts(went_on)[0]["text"]) == {"asked": ["raise out of coffee", "see"], "answered": 0}


def test_a_refusal_is_shown_as_an_error(served: Served, sdk: str) -> None:
    [shown] = converse(served, sdk, "hello", key="wrong")
    assert (shown["status"], shown["error"]) == ("error", '{"detail":"Unauthorized"}')


@pytest.mark.parametrize("leaves", [False, True], ids=["while the first page reads", "after the first page left"])
def test_a_page_that_is_loaded_again_reads_the_answer_from_its_beginning(
    served: Served, sdk: str, leaves: bool
) -> None:
    name = str(uuid4())
    shown = run(served, "resume.mjs", sdk, holding=f"hold {name}", release=f"open {name}", next="see", leaves=leaves)
    answer = text(json.dumps({"asked": [f"hold {name}"], "answered": 0}))
    assert parts(shown["again"]) == [answer]
    assert statuses(shown["again"]) == ["Reading"]
    if leaves:
        assert shown["first"]["finished"][0]["isAbort"]
    else:
        assert shown["again"]["messages"] == shown["first"]["messages"]
    assert shown["afterwards"]["messages"] == []  # nothing is under way any more
    assert json.loads(parts(shown["next"])[0]["text"]) == {"asked": [f"hold {name}", "see"], "answered": 1}


def test_a_run_that_is_cancelled_leaves_no_error(served: Served, sdk: str) -> None:
    shown = run(served, "cancel.mjs", sdk, holding=f"hold {uuid4()}", runs=f"{served.url}/api/v1/runs")
    assert shown["cancelled"] == 202
    assert (shown["told"]["status"], shown["told"]["error"]) == ("ready", None)
    assert parts(shown["told"]) == []
