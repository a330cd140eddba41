"""Questions of a pipeline in MCP's own clients: forms for a person, or texts for a model if the client has no forms."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from mcp_clients import CLIENTS, McpClient, Performance, Talk, converse, text_of

from tests.serving import Served

HERE = Path(__file__).parent
CHOICE = {"type": "string", "enum": ["yes", "no"]}
PAY = {"call": "chat", "arguments": {"message": "20"}}

pytestmark = pytest.mark.parametrize("client", CLIENTS, ids=str)


def accept(**content: Any) -> dict[str, Any]:
    """What a person does who sends a form."""
    return {"action": "accept", "content": content}


@pytest.fixture(scope="module")
def paid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("asking") / "paid"


@pytest.fixture(scope="module")
def _asking(paid: Path) -> Iterator[Served]:
    with Served("--app", "tests.apps.asking:app", env={"PAID": str(paid)}) as server:
        yield server


@pytest.fixture
def asking(_asking: Served, paid: Path) -> Served:
    """A bot that asks whether to pay, and then whether the person is happy; nothing is paid yet."""
    paid.write_text("")
    return _asking


@pytest.fixture(scope="module")
def registering() -> Iterator[Served]:
    """A bot that asks for a form."""
    with Served("--app", "registering:app", folder=HERE) as server:
        yield server


def talk(served: Served, client: McpClient, *steps: Any, answers: Any = None) -> Talk:
    return converse(client, f"{served.url}/mcp", *steps, answers=answers)


def fields(question: Any) -> Any:
    return question["requestedSchema"]["properties"]


def test_a_person_answers_its_forms_within_one_call(asking: Served, client: McpClient, paid: Path) -> None:
    answered = talk(asking, client, PAY, answers=[accept(answer="yes"), accept(answer="very")])
    assert [one["message"] for one in answered.asked] == ["Pay 20?", "Are you happy?"]
    assert [fields(one)["answer"] for one in answered.asked] == [CHOICE, {"type": "string"}]
    assert text_of(answered.results[0]) == "R-20: very"
    assert paid.read_text() == "20\n"


def test_progress_goes_on_after_a_form(asking: Served, client: McpClient) -> None:
    followed = talk(asking, client, {**PAY, "progress": True}, answers=[accept(answer="yes"), accept(answer="so so")])
    assert text_of(followed.results[0]) == "R-20: so so"
    numbers = [one["progress"] for one in followed.results[0]["progress"]]
    assert numbers[0] == 1
    # In 2026-07-28 the call is made again after each form, and some clients give each call a token of its own.
    again = {1} if client.era == "modern" else set()
    assert all(later == before + 1 or later in again for before, later in pairwise(numbers))


def test_a_form_has_the_fields_of_the_question(registering: Served, client: McpClient) -> None:
    call = {"call": "chat", "arguments": {"message": "Register me"}}
    answered = talk(registering, client, call, answers=[accept(name="Ann", age=30, size="M", news=True)])
    asked = fields(answered.asked[0])
    assert {name: field["type"] for name, field in asked.items()} == {
        "name": "string",
        "age": "integer",
        "news": "boolean",
        "size": "string",
    }
    assert answered.asked[0]["requestedSchema"]["required"] == ["name", "age"]
    assert json.loads(text_of(answered.results[0])) == {"name": "Ann", "age": 30, "size": "M", "news": True}


def test_a_person_who_declines_is_not_asked_again(asking: Served, client: McpClient, paid: Path) -> None:
    thread = f"talk {uuid4()}"
    pay = {"call": "chat", "arguments": {"message": "20", "thread": thread}}
    declined = talk(asking, client, pay, answers=[{"action": "decline"}])
    assert len(declined.asked) == 1
    assert "declined" in text_of(declined.results[0])
    assert declined.results[0]["result"]["structuredContent"]["questions"] == []
    assert paid.read_text() == ""


def test_a_question_that_a_person_puts_off_is_open_for_the_next_call(
    asking: Served, client: McpClient, paid: Path
) -> None:
    thread = f"talk {uuid4()}"
    pay = {"call": "chat", "arguments": {"message": "20", "thread": thread}}
    put_off = talk(asking, client, pay, answers=[{"action": "cancel"}])
    [question] = put_off.results[0]["result"]["structuredContent"]["questions"]
    assert "Pay 20?" in text_of(put_off.results[0])
    answers = {question["question_id"]: "no"}
    [answered] = talk(
        asking, client, {"call": "chat", "arguments": {"message": "", "answers": answers, "thread": thread}}
    ).results
    assert (text_of(answered), paid.read_text()) == ("not paid", "")


def test_a_client_without_forms_gets_the_question_as_text_and_answers_by_the_next_call(
    asking: Served, client: McpClient, paid: Path
) -> None:
    thread = f"talk {uuid4()}"

    def say(message: str) -> dict[str, Any]:
        return {"call": "chat", "arguments": {"message": message, "thread": thread}}

    pay, happy, done = talk(asking, client, say("20"), say("Yes"), say("very")).results
    assert "Pay 20?" in text_of(pay)
    [question] = pay["result"]["structuredContent"]["questions"]
    assert (question["text"], question["options"]) == ("Pay 20?", ["yes", "no"])
    assert not pay["result"].get("isError")
    assert "Are you happy?" in text_of(happy)
    assert (text_of(done), paid.read_text()) == ("R-20: very", "20\n")


def test_a_client_that_dies_while_its_person_thinks_finds_the_question_again(
    asking: Served, client: McpClient, paid: Path
) -> None:
    thread = f"talk {uuid4()}"
    pay = {"call": "chat", "arguments": {"message": "20", "thread": thread}}
    with Performance(client, f"{asking.url}/mcp", pay, answers=[None]) as thinking:
        assert thinking.wait_for("asked")["message"] == "Pay 20?"
        thinking.kill()
    [found] = talk(asking, client, {"call": "chat_get", "arguments": {"thread": thread}}).results
    [question] = found["result"]["structuredContent"]["questions"]
    again = {"message": "", "thread": thread, "answers": {question["question_id"]: "yes"}}
    answered = talk(asking, client, {"call": "chat", "arguments": again}, answers=[accept(answer="very")])
    assert [one["message"] for one in answered.asked] == ["Are you happy?"]
    assert (text_of(answered.results[0]), paid.read_text()) == ("R-20: very", "20\n")
