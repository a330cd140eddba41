"""The real jims-core reads and continues threads that hold what only jimsapi knows: files, tools, questions and forks.

JIMS programs hand the events `comm.*` and `context.*` of a thread to a model as they are.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from jims_process import Jims

from tests.serving import Served

BOT = """
from jimsapi import JimsApp


async def answer(ctx):
    text = ctx.get_last_user_message()
    for question, agreed in ctx.answered.items():
        ctx.send_message(f"{question}: {agreed}")
    if ctx.answered:
        return
    if text.startswith("refund"):
        await ctx.ask(text, f"May I {text}?", options=["yes", "no"])
    ctx.title = "Marsupials"
    ctx.reasoning("The person asks about animals.")
    async with ctx.tool("search", {"q": text}) as call:
        call.result = {"found": "a secret of the tool"}
    ctx.source(url="https://example.org/quokka", title="Quokka")
    ctx.usage(model="m", input_tokens=812, output_tokens=44)
    ctx.set_state("mood", {"n": len(ctx.events)})
    ctx.send_event("context.note", {"role": "system", "content": "a note for models"})
    files = [(await file.read()).decode() for file in ctx.files]
    heard = [message["content"] for message in ctx.history]
    ctx.send_event("bot.read", {"files": files, "heard": heard, "of_jims": ctx.get_state("of_jims")})
    ctx.send_message(f"answer to {text}")


app = JimsApp(answer)
"""
OURS = {
    "answer.source",
    "message.files",
    "message.metadata",
    "model.reasoning",
    "model.usage",
    "question.answered",
    "question.asked",
    "tool.call",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new database, which our server and the program on jims-core share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jims.db'}"
    url: str = request.getfixturevalue("url")
    return url


@pytest.fixture
def served(store: str, tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "bot.py").write_text(BOT)
    files = ("--files-store", f"file://{tmp_path / 'files'}")
    with Served("--app", "bot", "--store", store, *files, folder=tmp_path) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


@pytest.fixture
def jims(jims_process: Jims, store: str, served: Served) -> Iterator[Jims]:
    """A program on jims-core at the database of the server, which has made the tables."""
    jims_process.open(store)
    yield jims_process
    jims_process.close()


def turn(jims: Jims, store: str, thread_id: str, text: str) -> Any:
    """Let jims-core answer a message. In SQLite its times are whole seconds, so its turns begin with one."""
    if store.startswith("sqlite"):
        time.sleep(1 - time.time() % 1)
    return jims.ask("turn", thread_id, text)


def chat(client: httpx.Client, message: str | None = None, **fields: Any) -> Any:
    said = {} if message is None else {"message": message}
    answer = client.post("/api/v1/chat", json={"contact_id": "ann", **said, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(client: httpx.Client, thread_id: str) -> list[dict[str, Any]]:
    page = client.get(f"/api/v1/threads/{thread_id}/events?limit=1000").json()
    assert page["next"] is None
    found: list[dict[str, Any]] = page["events"]
    return found


def types(found: list[dict[str, Any]]) -> list[str]:
    return [event["event_type"] for event in found]


def of_type(found: list[dict[str, Any]], event_type: str) -> list[Any]:
    return [event["event_data"] for event in found if event["event_type"] == event_type]


def converse(client: httpx.Client) -> tuple[str, str]:
    """Let a thread have all that threads of ours can have. Returns it, and the question that is open in it."""
    headers = {"content-type": "text/plain"}
    params = {"contact_id": "ann", "name": "animals.txt"}
    file = client.post("/api/v1/files", params=params, content=b"bytes of a file", headers=headers).json()
    first = chat(client, "quokkas", files=[file["file_id"]], metadata={"page": "a page"})
    thread_id: str = first["thread_id"]
    [asked] = chat(client, "refund 20", thread_id=thread_id)["questions"]
    chat(client, thread_id=thread_id, answers={asked["question_id"]: "yes"})
    [left_open] = chat(client, "refund 30", thread_id=thread_id)["questions"]
    answer = events(client, thread_id)[-1]["event_id"]
    feedback = f"/api/v1/threads/{thread_id}/events/{answer}/feedback"
    client.put(feedback, json={"rating": -1, "comment": "a comment"}).raise_for_status()
    client.patch(f"/api/v1/threads/{thread_id}", json={"metadata": {"stars": 5}}).raise_for_status()
    return thread_id, left_open["question_id"]


def expect_messages_only(read: list[dict[str, Any]]) -> None:
    """Check that a model gets messages, each with a role and a text and nothing else."""
    for message in read:
        assert message.keys() == {"role", "content"}
        assert all(isinstance(value, str) for value in message.values())


def test_a_model_of_jims_core_reads_only_the_messages_of_such_a_thread(
    client: httpx.Client, jims: Jims, store: str
) -> None:
    thread_id, _ = converse(client)
    before = types(events(client, thread_id))
    assert set(before) >= OURS
    by_jims = turn(jims, store, thread_id, "from the bot")
    expect_messages_only(by_jims["history"])
    expect_messages_only(by_jims["context"])
    said = ["quokkas", "answer to quokkas", "refund 20", "refund 20: yes", "refund 30", "from the bot"]
    assert [message["content"] for message in by_jims["history"]] == said
    assert [message["content"] for message in by_jims["context"]] == [said[0], "a note for models", *said[1:]]
    assert by_jims["last"] == "from the bot"
    assert by_jims["types"] == [*before, "comm.user_message"]


def test_what_jims_core_appends_is_read_back_and_the_thread_goes_on(
    client: httpx.Client, jims: Jims, store: str
) -> None:
    thread_id, question_id = converse(client)
    before = events(client, thread_id)
    by_jims = turn(jims, store, thread_id, "from the bot")
    after = events(client, thread_id)
    assert after[: len(before)] == before
    assert types(after[len(before) :]) == [
        "comm.user_message",
        "rag.query_processed",
        "state.set.of_jims",
        "comm.assistant_message",
    ]
    assert [UUID(event["event_id"]).hex for event in after[-3:]] == by_jims["stored"]
    thread = client.get(f"/api/v1/threads/{thread_id}").json()
    assert (thread["title"], thread["metadata"], thread["preview"]) == (
        "Marsupials",
        {"stars": 5},
        "JIMS heard from the bot",
    )
    assert len(client.get(f"/api/v1/threads/{thread_id}/feedback").json()["feedback"]) == 1
    answered = chat(client, thread_id=thread_id, answers={question_id: "no"})
    assert answered["assistant_messages"] == ["refund 30: no"]
    [read] = of_type(chat(client, "wombats", thread_id=thread_id)["events"], "bot.read")
    assert read["heard"][-4:] == ["from the bot", "JIMS heard from the bot", "refund 30: no", "wombats"]
    assert read["of_jims"] == {"turns": 6}
    again = turn(jims, store, thread_id, "once more")
    expect_messages_only(again["history"])
    assert [message["content"] for message in again["history"]][-2:] == ["answer to wombats", "once more"]


def test_a_fork_is_a_thread_of_its_own_for_jims_core_too(client: httpx.Client, jims: Jims, store: str) -> None:
    thread_id, _ = converse(client)
    parent = events(client, thread_id)
    edited = next(event for event in parent if event["event_data"].get("content") == "refund 20")
    fork = client.post(f"/api/v1/threads/{thread_id}/fork", json={"before": edited["event_id"]}).json()["thread_id"]
    copied = events(client, fork)
    assert copied == parent[: len(copied)]
    assert UUID(jims.ask("latest", "ann")) == UUID(fork)
    assert [event[0] for event in jims.ask("read", fork)] == [UUID(event["event_id"]).hex for event in copied]
    by_jims = turn(jims, store, fork, "edited")
    expect_messages_only(by_jims["history"])
    expect_messages_only(by_jims["context"])
    assert [message["content"] for message in by_jims["history"]] == ["quokkas", "answer to quokkas", "edited"]
    assert events(client, thread_id) == parent
    [read] = of_type(chat(client, "wombats", thread_id=fork)["events"], "bot.read")
    assert read["heard"] == ["quokkas", "answer to quokkas", "edited", "JIMS heard edited", "wombats"]
    assert turn(jims, store, thread_id, "in the parent")["last"] == "in the parent"
    assert "edited" not in str(events(client, thread_id))
