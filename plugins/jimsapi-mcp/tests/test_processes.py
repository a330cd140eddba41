"""Two processes that serve one port: each request may reach another process than the one before it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp_wire import FORMS, PATH, TASKS, chat, legacy, modern, result, text, tool

from tests.plugins.modules import load
from tests.serving import Served
from tests.waiting import eventually

DATABASE = Path(__file__).resolve().parents[2] / "jimsapi-postgres" / "tests" / "database.py"
ROUNDS = 4
"""So many connections nearly surely reach both processes."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    paid = {"PAID": str(tmp_path_factory.mktemp("paid") / "paid.txt")}
    with load(DATABASE).Postgres(fsync="off") as postgres, postgres.database() as name:
        options = ("--app", "tests.apps.asking:app", "--store", postgres.url(name), "--workers", "2")
        with Served(*options, env=paid) as served:
            eventually(lambda: "2 workers serve the port" in served.stderr)
            yield served


def post(server: Served, request: Any) -> Any:
    """Send a request over a connection of its own."""
    with server.client() as client:
        return client.post(PATH, **request)


def accepted(asked: Any, answer: str) -> dict[str, Any]:
    [name] = asked["requestedSchema"]["properties"]
    return {"action": "accept", "content": {name: answer}}


def test_any_process_takes_the_answer_to_a_question(server: Served) -> None:
    for _ in range(ROUNDS):
        params: Any = chat("12")
        for answer in ("yes", "good"):
            asked = result(post(server, modern("tools/call", params, capabilities=FORMS)))
            [(key, request)] = asked["inputRequests"].items()
            entered = {key: accepted(request["params"], answer)}
            params = {**chat("12"), "inputResponses": entered, "requestState": asked["requestState"]}
        paid = result(post(server, modern("tools/call", params, capabilities=FORMS)))
        assert "good" in text(paid)


def test_any_process_takes_the_answer_of_an_earlier_client_whose_call_waits(server: Served) -> None:
    begin = {"protocolVersion": "2025-11-25", "capabilities": FORMS, "clientInfo": {"name": "t", "version": "1"}}
    session = post(server, legacy("initialize", begin)).headers["mcp-session-id"]
    for _ in range(ROUNDS // 2):  # each has two forms
        request = legacy("tools/call", chat("12"), session=session)
        with server.client() as client, client.stream("POST", PATH, **request) as answer:
            answers = iter(("perhaps", "yes", "good"))  # the first one is asked for again
            for line in answer.iter_lines():
                if not line.startswith("data: "):
                    continue
                found = json.loads(line.removeprefix("data: "))
                if found.get("method") == "elicitation/create":
                    entered = accepted(found["params"], next(answers))
                    body = {"jsonrpc": "2.0", "id": found["id"], "result": entered}
                    headers = legacy("x", session=session)["headers"]
                    assert post(server, {"json": body, "headers": headers}).status_code == 202
            assert "good" in text(found["result"])


def test_a_task_is_read_and_answered_by_any_process(server: Served) -> None:
    capabilities = {**FORMS, **TASKS}
    task = result(post(server, modern("tools/call", chat("12"), capabilities=capabilities)))
    named = {"taskId": task["taskId"]}
    answers = iter(("yes", "good"))
    seen: set[str] = set()
    last: dict[str, Any] = {}

    def ended() -> bool:
        last.update(result(post(server, modern("tasks/get", named, capabilities=capabilities))))
        for key, request in last.pop("inputRequests", {}).items():
            assert key not in seen
            seen.add(key)
            params = {**named, "inputResponses": {key: accepted(request["params"], next(answers))}}
            result(post(server, modern("tasks/update", params, capabilities=capabilities)))
        return bool(last["status"] == "completed")

    eventually(ended)
    assert "good" in text(last["result"])
    found = result(post(server, modern("tools/call", tool("chat_get", run_id=task["taskId"]))))
    assert text(found) == text(last["result"])
