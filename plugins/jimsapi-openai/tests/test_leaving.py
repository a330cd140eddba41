"""Clients that disconnect before the answer: the run continues, or is cancelled if the operator wants that."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.serving import Served
from tests.waiting import eventually

PATH = "/v1/chat/completions"
CHAT = "/api/v1/chat"


@pytest.fixture(scope="module", params=["continue", "cancel"])
def choice(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def client(choice: str) -> Iterator[httpx.Client]:
    with (
        Served("--app", "tests.apps.scripted:app", "--openai-on-disconnect", choice) as server,
        server.client() as client,
    ):
        yield client


def do(client: httpx.Client, message: str) -> None:
    """Send a message in another conversation."""
    assert client.post(CHAT, json={"contact_id": "other", "message": message}).status_code == 200


def message_of(door: str, message: str, streamed: bool) -> dict[str, Any]:
    return {"model": "any", "stream": streamed, "user": door, "messages": [{"role": "user", "content": message}]}


def contents(client: httpx.Client, contact: str) -> list[str]:
    """The texts in the only thread of a contact."""
    [thread] = client.get("/api/v1/threads", params={"contact_id": contact}).json()["threads"]
    events = client.get(f"/api/v1/threads/{thread['thread_id']}/events").json()["events"]
    return [event["event_data"]["content"] for event in events if event["event_type"].startswith("comm.")]


def test_the_run_of_a_stream_that_a_client_leaves(client: httpx.Client, choice: str) -> None:
    door = str(uuid4())
    with client.stream("POST", PATH, json=message_of(door, f"hold {door}; send late", True)) as answer:
        do(client, f"reached {door}")
    run = f"/api/v1/runs/{answer.headers['x-run-id']}"
    if choice == "continue":
        do(client, f"open {door}")
    ending = {"continue": "completed", "cancel": "cancelled"}[choice]
    eventually(lambda: client.get(run).json()["status"] == ending)
    assert contents(client, door)[1:] == (["late"] if choice == "continue" else [])


def test_the_run_of_a_whole_answer_that_a_client_leaves(client: httpx.Client, choice: str) -> None:
    door = str(uuid4())
    with pytest.raises(httpx.ReadTimeout):
        client.post(PATH, json=message_of(door, f"hold {door}; send late", False), timeout=1.0)
    if choice == "continue":
        do(client, f"open {door}")
    client.post(CHAT, json={"contact_id": door, "message": "send next"})  # it waits for the run before it
    between = ["late"] if choice == "continue" else []
    assert contents(client, door)[1:] == [*between, "send next", "next"]


def response_of(message: str, **options: Any) -> dict[str, Any]:
    return {"model": "any", "stream": True, "input": message, **options}


@pytest.mark.parametrize("background", [False, True])
def test_the_run_of_a_response_that_a_client_leaves(client: httpx.Client, choice: str, background: bool) -> None:
    door = str(uuid4())
    body = response_of(f"hold {door}; send late", user=door, background=background)
    with client.stream("POST", "/v1/responses", json=body) as answer:
        do(client, f"reached {door}")
    run_id = answer.headers["x-run-id"]
    continues = background or choice == "continue"
    if continues:
        do(client, f"open {door}")
    ending = "completed" if continues else "cancelled"
    path = f"/v1/responses/resp_{run_id.replace('-', '')}"
    eventually(lambda: client.get(path).json()["status"] == ending)
    assert contents(client, door)[1:] == (["late"] if continues else [])
