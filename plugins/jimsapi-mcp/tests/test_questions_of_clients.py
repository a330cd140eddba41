"""Questions of a pipeline in MCP's own clients: forms for a person, or texts for a model if the client has no forms."""

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from mcp_clients import CLIENTS, McpClient, Performance, Talk, converse, text_of

from tests.serving import Served

HERE = Path(__file__).parent

Results = Mapping[str, Any]


@pytest.fixture(scope="module")
def paid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with what was paid."""
    return tmp_path_factory.mktemp("asking") / "paid"


@pytest.fixture(scope="module")
def served(paid: Path) -> Iterator[Served]:
    with Served("--app", "registering:app", folder=HERE, env={"PAID": str(paid)}) as server:
        yield server


@pytest.fixture(scope="module", params=CLIENTS, ids=str)
def client(request: pytest.FixtureRequest) -> McpClient:
    found: McpClient = request.param
    return found


def say(message: str, thread: str, **more: Any) -> dict[str, Any]:
    """The step that says a message in a thread."""
    return {"call": "chat", "arguments": {"message": message, "thread": thread, **more}}


def accept(**content: Any) -> dict[str, Any]:
    """What a person does who sends a form."""
    return {"action": "accept", "content": content}


def perform(served: Served, client: McpClient, steps: Results, answers: Any = None) -> tuple[Talk, Results]:
    talk = converse(client, f"{served.url}/mcp", *steps.values(), answers=answers)
    return talk, dict(zip(steps, talk.results, strict=True))


@pytest.fixture(scope="module")
def filled(served: Served, client: McpClient, paid: Path) -> tuple[Talk, Results, str]:
    """A client that shows forms, after its person has done everything with them; the last is what was paid."""
    paid.write_text("")
    pay, race, declined, later = (f"talk {uuid4()}" for _ in range(4))
    steps = {
        "paid": {**say("20", pay), "progress": True},
        "registered": say("Register me", race),
        "corrected": say("Register me", race),
        "declined": say("30", declined),
        "put_off": say("40", later),
        "answered_later": say("no", later),
    }
    answers = (
        accept(answer="yes"),
        accept(answer="very"),
        accept(name="Ann", age=30, size="M", news=True),
        accept(name="Ben", age=3),
        accept(name="Ben", age=33),
        {"action": "decline"},
        {"action": "cancel"},
    )
    return *perform(served, client, steps, answers), paid.read_text()


def fields(question: Any) -> Any:
    return question["requestedSchema"]["properties"]


def questions(called: Any) -> Any:
    return called["result"]["structuredContent"]["questions"]


def test_a_person_answers_forms_within_one_call(filled: tuple[Talk, Results, str]) -> None:
    talk, results, paid = filled
    assert [one["message"] for one in talk.asked[:2]] == ["Pay 20?", "Are you happy?"]
    choice = {"type": "string", "enum": ["yes", "no"]}
    assert [fields(one)["answer"] for one in talk.asked[:2]] == [choice, {"type": "string"}]
    assert text_of(results["paid"]) == "R-20: very"
    assert paid == "20\n"


def test_progress_goes_on_after_a_form(filled: tuple[Talk, Results, str], client: McpClient) -> None:
    numbers = [one["progress"] for one in filled[1]["paid"]["progress"]]
    assert numbers[0] == 1
    # In 2026-07-28 the call is made again after each form, and some clients give each call a token of its own.
    again = {1} if client.era == "modern" else set()
    assert all(later == before + 1 or later in again for before, later in pairwise(numbers))


def test_a_form_has_the_fields_of_the_question(filled: tuple[Talk, Results, str]) -> None:
    talk, results, _ = filled
    kinds = {name: field["type"] for name, field in fields(talk.asked[2]).items()}
    assert kinds == {"name": "string", "age": "integer", "news": "boolean", "size": "string"}
    assert talk.asked[2]["requestedSchema"]["required"] == ["name", "age"]
    assert json.loads(text_of(results["registered"])) == {"name": "Ann", "age": 30, "size": "M", "news": True}


def test_a_person_whose_answer_does_not_fit_is_asked_again_with_the_reason(filled: tuple[Talk, Results, str]) -> None:
    talk, results, _ = filled
    first, again = talk.asked[3:5]
    assert first["message"] == "Who are you?"
    assert again["message"].startswith("Who are you?\n\n")
    assert "age" in again["message"]
    assert json.loads(text_of(results["corrected"])) == {"name": "Ben", "age": 33}


def test_a_person_who_declines_is_not_asked_again(filled: tuple[Talk, Results, str]) -> None:
    talk, results, paid = filled
    assert [one["message"] for one in talk.asked[5:]] == ["Pay 30?", "Pay 40?"]
    assert "declined" in text_of(results["declined"])
    assert questions(results["declined"]) == []
    assert "30" not in paid


def test_a_question_that_a_person_puts_off_is_answered_by_a_later_message(filled: tuple[Talk, Results, str]) -> None:
    _, results, paid = filled
    assert "Pay 40?" in text_of(results["put_off"])
    assert [one["text"] for one in questions(results["put_off"])] == ["Pay 40?"]
    assert text_of(results["answered_later"]) == "not paid"
    assert "40" not in paid


def test_a_client_without_forms_answers_by_later_calls_also_what_it_was_asked_before_it_died(
    served: Served, client: McpClient, paid: Path
) -> None:
    paid.write_text("")
    pay, left = f"talk {uuid4()}", f"talk {uuid4()}"
    with Performance(client, f"{served.url}/mcp", say("50", left), answers=[None]) as thinking:
        assert thinking.wait_for("asked")["message"] == "Pay 50?"
        thinking.kill()
    steps = {
        "asked": say("20", pay),
        "approved": say("Yes", pay),
        "paid": say("very", pay),
        "found": {"call": "chat_get", "arguments": {"thread": left}},
        "answered": say("", left, answers={"$question_id": "yes"}),
        "done": say("so so", left),
    }
    _, results = perform(served, client, steps)
    [question] = questions(results["asked"])
    assert (question["text"], question["options"]) == ("Pay 20?", ["yes", "no"])
    assert "Pay 20?" in text_of(results["asked"])
    assert not results["asked"]["result"].get("isError")
    assert "Are you happy?" in text_of(results["approved"])
    assert text_of(results["paid"]) == "R-20: very"
    assert [one["text"] for one in questions(results["found"])] == ["Pay 50?"]
    assert text_of(results["done"]) == "R-50: so so"
    assert paid.read_text() == "20\n50\n"
