"""The three agents that refund orders: each over a real server, with its script and with a server of a model."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from examples.refunds import answer
from examples.refunds.model import Call, Message, Usage
from examples.refunds.pipeline import MOST_REPLIES
from examples.refunds.tools import use_tool
from jimsapi import ThreadContext
from jimsapi.client import Activity, Client, Delta, Item, Result
from tests.docs.snippets import blocks
from tests.examples.model_server import ModelServer, serving
from tests.serving import ROOT, Served
from tests.test_public_names import private_names

AGENTS = ("refunds", "refunds_pydantic_ai", "refunds_langgraph")
WANT = "I want my money back for order 17"


@pytest.fixture(scope="module")
def model() -> Iterator[tuple[ModelServer, dict[str, str]]]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module", params=[f"{agent}-{model}" for agent in AGENTS for model in ("script", "server")])
def jims(request: pytest.FixtureRequest, model: tuple[ModelServer, dict[str, str]]) -> Iterator[Client]:
    """A client of a served agent."""
    agent, kind = request.param.rsplit("-")
    none = {"OPENAI_BASE_URL": "", "OPENAI_API_KEY": ""}
    served = Served("--app", f"examples.{agent}:app", env=model[1] if kind == "server" else none)
    with served, Client(served.url) as client:
        yield client
    assert model[0].refusals == []


@pytest.fixture
def contact() -> str:
    return f"ann-{uuid4()}"


def ask(jims: Client, message: str, contact: str) -> list[Item]:
    """What a client gets that follows the run of a message."""
    return list(jims.stream(message, contact_id=contact))


def answer_to(jims: Client, result: Result, value: str, contact: str) -> Result:
    [question] = result.questions
    assert question.text == "Refund 25 EUR for order 17, the teapot?"
    return jims.chat(contact_id=contact, answers={str(question.question_id): value})


def types(result: Result) -> list[str]:
    return [event.event_type for event in result.events]


def test_an_order_is_found_with_a_tool_and_the_answer_is_streamed(jims: Client, contact: str) -> None:
    items = ask(jims, "What is order 18?", contact)
    result = items[-1]
    assert isinstance(result, Result)
    assert result.assistant_messages == ["Let me look.", "Order 18 is a kettle for 40 EUR."]
    assert len([item for item in items if isinstance(item, Delta)]) == 11  # a word each
    began = next(item for item in items if isinstance(item, Activity) and item.event_type == "tool.call")
    assert "result" not in began.event_data
    [call] = [event.event_data for event in result.events if event.event_type == "tool.call"]
    assert (call["name"], call["arguments"]) == ("find_order", {"number": 18})
    assert call["result"] == {"number": 18, "item": "kettle", "price": 40, "refunded": False}
    assert call["id"] == "call_1"


def test_each_reply_of_the_model_has_its_usage(jims: Client, contact: str) -> None:
    result = jims.chat("What is order 18?", contact_id=contact)
    used = [event.event_data for event in result.events if event.event_type == "model.usage"]
    assert len(used) == 2
    assert all(one["input_tokens"] >= 4 and one["model"] == "scripted" for one in used)


def test_the_tool_says_what_the_model_cannot_know(jims: Client, contact: str) -> None:
    result = jims.chat("What is order 99?", contact_id=contact)
    assert "there is no order 99" in result.assistant_messages[-1]
    [call] = [event.event_data for event in result.events if event.event_type == "tool.call"]
    assert "there is no order 99" in call["error"]


def test_a_refund_is_made_once_the_person_approves(jims: Client, contact: str) -> None:
    asked = jims.chat(WANT, contact_id=contact)
    assert asked.assistant_messages == ["Let me look."]
    done = answer_to(jims, asked, "yes", contact)
    assert done.assistant_messages == ["Done: you get 25 EUR back. Your receipt is R-17."]
    # The first run has found the order, and its calls are not made again.
    calls = [event.event_data["name"] for event in done.events if event.event_type == "tool.call"]
    assert calls == ["refund"]
    assert types(done).count("model.usage") == 1


def test_nothing_is_refunded_if_the_person_refuses(jims: Client, contact: str) -> None:
    asked = jims.chat(WANT.replace("17", "19"), contact_id=contact)
    [question] = asked.questions
    done = jims.chat(contact_id=contact, answers={str(question.question_id): "no"})
    assert done.assistant_messages == ["Then everything stays as it is."]
    assert "once.result" not in types(done)
    again = jims.chat("What is order 19?", contact_id=contact)
    assert again.assistant_messages[-1] == "Order 19 is a mug for 12 EUR."


def test_another_message_in_place_of_the_answer_begins_anew(jims: Client, contact: str) -> None:
    asked = jims.chat(WANT.replace("17", "18"), contact_id=contact)
    assert len(asked.questions) == 1
    other = jims.chat("Wait. What is order 19?", contact_id=contact)
    assert other.assistant_messages[-1] == "Order 19 is a mug for 12 EUR."
    assert not other.questions


def test_nobody_is_asked_about_a_refund_that_cannot_be(jims: Client, contact: str) -> None:
    result = jims.chat("Refund order 99 at once", contact_id=contact)
    assert not result.questions
    assert "there is no order 99" in result.assistant_messages[-1]


@pytest.mark.parametrize("values", [("yes", "no"), ("no", "yes")])
def test_each_of_two_calls_in_one_reply_is_approved_by_itself(
    jims: Client, contact: str, values: tuple[str, str]
) -> None:
    asked = jims.chat("Refund 20 and 20 at once", contact_id=contact)
    [question] = asked.questions
    second = jims.chat(contact_id=contact, answers={str(question.question_id): values[0]})
    [question] = second.questions
    third = jims.chat(contact_id=contact, answers={str(question.question_id): values[1]})
    assert third.assistant_messages
    assert not third.questions
    calls = [event for result in (asked, second, third) for event in result.events if event.event_type == "tool.call"]
    ended = sorted((event.event_data["id"], sorted(event.event_data["result"])) for event in calls)
    done = {"yes": ["amount", "receipt"], "no": ["refused"]}
    assert ended == [("call_1", done[values[0]]), ("call_2", done[values[1]])]


def test_a_call_that_had_ended_before_the_question_is_not_made_again(jims: Client, contact: str) -> None:
    asked = jims.chat("Please find 18, and refund 20 at once", contact_id=contact)
    [question] = asked.questions
    done = jims.chat(contact_id=contact, answers={str(question.question_id): "yes"})
    assert done.assistant_messages == ["Done: you get 9 EUR back. Your receipt is R-20."]
    calls = [event.event_data for event in (*asked.events, *done.events) if event.event_type == "tool.call"]
    assert [(call["id"], call["name"]) for call in calls] == [("call_1", "find_order"), ("call_2", "refund")]


def test_a_later_turn_knows_the_earlier_ones(jims: Client, contact: str) -> None:
    jims.chat("What is order 18?", contact_id=contact)
    asked = jims.chat("I want my money back", contact_id=contact)
    assert [question.text for question in asked.questions] == ["Refund 40 EUR for order 18, the kettle?"]


def test_callers_do_not_see_what_waits(jims: Client, contact: str) -> None:
    asked = jims.chat(WANT.replace("17", "18"), contact_id=contact)
    assert not any(kind.startswith("state.") for kind in types(asked))


@pytest.mark.parametrize("agent", AGENTS)
def test_the_model_reads_the_thread_and_is_not_called_again_after_an_approval(agent: str, contact: str) -> None:
    with (
        serving() as (model, env),
        Served("--app", f"examples.{agent}:app", env=env) as served,
        Client(served.url) as client,
    ):
        answer_to(client, client.chat(WANT, contact_id=contact), "yes", contact)
    roles = [merged([message["role"] for message in one]) for one in model.conversations]
    found = ["user", "assistant", "tool"]
    assert roles == [["user"], found, [*found, "assistant", "tool"]]
    assert "R-17" in model.conversations[-1][-1]["content"]


def merged(roles: list[str]) -> list[str]:
    """The same roles, without those that repeat: a text and a call may be one message or two."""
    return [role for number, role in enumerate(roles) if number == 0 or roles[number - 1] != role]


def test_the_commands_of_the_readme_refund_an_order(tmp_path: Path) -> None:
    want, approve = blocks("examples/refunds/README.md", "sh")
    with Served("--app", "examples.refunds:app") as served:
        command = f"{want.strip()}\necho\n{approve}".replace("http://localhost:8080", served.url)
        done = subprocess.run(
            ["bash", "-euc", command], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30
        )
    asked, answered = map(json.loads, done.stdout.splitlines())
    assert asked["questions"][0]["text"] == "Refund 25 EUR for order 17, the teapot?"
    assert answered["assistant_messages"] == ["Done: you get 25 EUR back. Your receipt is R-17."]


def test_a_model_that_calls_tools_for_ever_is_stopped() -> None:
    class Endless:
        async def reply(self, messages: Sequence[Message]) -> AsyncIterator[str | Call | Usage]:
            yield Call(f"call_{len(messages)}", "find_order", {"number": 17})

    ctx = ThreadContext.for_test("hello", resources=Endless())
    asyncio.run(answer(ctx))
    *calls, message = ctx.outgoing_events
    assert [event.event_type for event in calls] == ["tool.call"] * (MOST_REPLIES - 1)
    assert "I have not found an answer" in message.event_data["content"]


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("find_order", {}, "`number` must be a whole number"),
        ("find_order", {"number": "17"}, "`number` must be a whole number"),
        ("refund", {"number": 99}, "there is no order 99"),
        ("dance", {"number": 17}, "there is no tool dance"),
    ],
)
def test_a_model_reads_why_its_call_is_refused(name: str, arguments: dict[str, Any], error: str) -> None:
    ctx = ThreadContext.for_test("hello")
    assert asyncio.run(use_tool(ctx, Call("call_1", name, arguments))) == {"error": error}
    assert ctx.outgoing_events[-1].event_data["error"] == error


def test_the_examples_import_public_names_only() -> None:
    assert {agent: private_names(ROOT / "examples" / agent) for agent in (*AGENTS, "spreadsheets")} == {
        agent: set() for agent in (*AGENTS, "spreadsheets")
    }
