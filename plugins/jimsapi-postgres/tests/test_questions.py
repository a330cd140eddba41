"""A question outlives its process: another process, and another protocol, take its answer."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from database import Postgres

from tests.serving import Served

CHAT, AG_UI = "/api/v1/chat", "/ag-ui"


def ag_ui(client: httpx.Client, message: str, **more: Any) -> dict[str, Any]:
    """The last event of an answer to AG-UI's client."""
    said = [{"id": "1", "role": "user", "content": message}]
    answer = client.post(AG_UI, json={"threadId": "t-1", "runId": "r", "messages": said, **more})
    assert answer.status_code == 200, answer.text
    last: dict[str, Any] = httpx.Response(200, text=answer.text.rstrip().rpartition("data: ")[2]).json()
    return last


@pytest.fixture
def paid(tmp_path: Path) -> Path:
    return tmp_path / "paid"


def test_a_question_is_answered_on_another_process_by_another_protocol(url: str, paid: Path) -> None:
    options = ("--app", "tests.apps.asking:app", "--store", url, "--agui-contact-header", "x-person")
    person = {"x-person": "ann"}
    env = {"PAID": str(paid)}
    with Served(*options, env=env) as first, Served(*options, env=env) as second:
        with first.client(headers=person) as client:
            [interrupt] = ag_ui(client, "20")["outcome"]["interrupts"]
        assert first.process is not None
        first.process.kill()
        with second.client(headers=person) as client:
            [thread] = client.get("/api/v1/threads", params={"contact_id": "ann"}).json()["threads"]
            sent = {"contact_id": "ann", "thread_id": thread["thread_id"], "answers": {interrupt["id"]: "yes"}}
            [happy] = client.post(CHAT, json=sent).json()["questions"]
            resume = [{"interruptId": happy["question_id"], "status": "resolved", "payload": "very"}]
            assert ag_ui(client, "20", resume=resume)["outcome"] == {"type": "success"}
            events = client.get(f"/api/v1/threads/{thread['thread_id']}/events").json()["events"]
            assert events[-1]["event_data"]["content"] == "R-20: very"
    assert paid.read_text() == "20\n"


def test_two_processes_take_one_of_two_answers(url: str, paid: Path, postgres: Postgres, database: str) -> None:
    options = ("--app", "tests.apps.asking:app", "--store", url)
    env = {"PAID": str(paid)}
    with (
        Served(*options, env=env) as first,
        Served(*options, env=env) as second,
        first.client() as one,
        second.client() as other,
    ):
        for number in range(5):
            contact = f"c{number}"
            asked = one.post(CHAT, json={"contact_id": contact, "message": str(number)}).json()
            [question] = asked["questions"]
            statuses = [
                client.post(CHAT, json={"contact_id": contact, "answers": {question["question_id"]: value}}).status_code
                for client, value in ((one, "yes"), (other, "no"))
            ]
            assert statuses == [200, 409]
    answered = "SELECT count(*) FROM thread_events WHERE event_type = 'question.answered'"
    assert postgres.psql(answered, database) == "5"
    assert paid.read_text().splitlines() == [str(number) for number in range(5)]
