"""Clients that disconnect before the answer: the run continues, or is cancelled if the operator wants that."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.api.conversation import CHAT, RUNS, STREAM, body
from tests.serving import Served
from tests.waiting import eventually

CANCELS = ("--app", "tests.apps.scripted:app", "--on-disconnect", "cancel")


@pytest.fixture(scope="module")
def cancelling() -> Iterator[Served]:
    with Served(*CANCELS) as server:
        yield server


@pytest.fixture(scope="module")
def continuing() -> Iterator[Served]:
    with Served("--app", "tests.apps.scripted:app") as server:
        yield server


def do(client: httpx.Client, message: str) -> None:
    """Send a message of another contact."""
    assert client.post(CHAT, json=body(message, "other")).status_code == 200


def leave(served: Served, path: str, message: str, door: str, **headers: str) -> str:
    """Send a message, and disconnect while its pipeline holds. Returns the id of the run."""
    with served.client() as other, served.client() as client:
        request = client.build_request("POST", path, json=body(message, door), headers=headers)
        if path == STREAM:
            answer = client.send(request, stream=True)
            do(other, f"reached {door}")
            answer.close()
            return answer.headers["x-run-id"]
        with pytest.raises(httpx.ReadTimeout):
            client.send(client.build_request("POST", path, json=body(message, door), headers=headers, timeout=1.0))
        return ""


def status(client: httpx.Client, run_id: str) -> str:
    shown: dict[str, Any] = client.get(f"{RUNS}/{run_id}").json()
    return str(shown["status"])


def test_a_client_that_leaves_a_stream_cancels_its_run(cancelling: Served) -> None:
    door = str(uuid4())
    run_id = leave(cancelling, STREAM, f"use 7; hold {door}; send late", door)
    with cancelling.client() as client:
        eventually(lambda: status(client, run_id) == "cancelled")
        answer = client.post(CHAT, json=body("see", door)).json()
        assert answer["assistant_messages"] == [f'["use 7; hold {door}; send late", "see"]']


def test_a_client_that_leaves_before_the_answer_cancels_its_run(cancelling: Served) -> None:
    door = str(uuid4())
    leave(cancelling, CHAT, f"hold {door}; send late", door)
    with cancelling.client() as client:
        answer = client.post(CHAT, json=body("see", door)).json()  # the thread is free
        assert answer["assistant_messages"] == [f'["hold {door}; send late", "see"]']
        thread = client.get(f"/api/v1/threads/{answer['thread_id']}/events").json()["events"]
        assert "late" not in [event["event_data"].get("content") for event in thread]


def test_a_run_with_an_idempotency_key_continues_without_its_client(cancelling: Served) -> None:
    door, key = str(uuid4()), str(uuid4())
    run_id = leave(cancelling, STREAM, f"hold {door}; send kept", door, **{"idempotency-key": key})
    with cancelling.client() as client:
        do(client, f"open {door}")
        again = client.post(STREAM, json=body(f"hold {door}; send kept", door), headers={"idempotency-key": key})
        assert again.headers["x-run-id"] == run_id
        assert "kept" in again.text


def test_by_default_a_run_continues_without_its_client(continuing: Served) -> None:
    door = str(uuid4())
    run_id = leave(continuing, STREAM, f"hold {door}; send kept", door)
    with continuing.client() as client:
        do(client, f"open {door}")
        eventually(lambda: status(client, run_id) == "completed")


def test_a_client_that_reads_to_the_end_cancels_nothing(cancelling: Served) -> None:
    with cancelling.client() as client:
        for path in (CHAT, STREAM):
            answer = client.post(path, json=body("send done", str(uuid4())))
            assert status(client, answer.headers["x-run-id"]) == "completed"
