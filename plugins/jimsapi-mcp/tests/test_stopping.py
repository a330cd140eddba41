"""A server that stops while a call waits: nothing is lost, and the next server goes on."""

import json
import signal
from pathlib import Path

from mcp_wire import FORMS, PATH, chat, legacy, modern, result, text, tool

from tests.serving import Served


def test_a_call_that_waits_for_a_person_ends_with_its_question_and_goes_on_after_the_restart(tmp_path: Path) -> None:
    options = ("--app", "tests.apps.asking:app", "--store", f"sqlite:///{tmp_path}/jims.db")
    paid = tmp_path / "paid.txt"
    begin = {"protocolVersion": "2025-11-25", "capabilities": FORMS, "clientInfo": {"name": "t", "version": "1"}}
    with Served(*options, env={"PAID": str(paid)}) as server:
        with server.client() as client:
            session = client.post(PATH, **legacy("initialize", begin)).headers["mcp-session-id"]
            with client.stream("POST", PATH, **legacy("tools/call", chat("12"), session=session)) as answer:
                found = (json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: "))
                form = next(found)
                assert form["method"] == "elicitation/create"
                assert server.process is not None
                server.process.send_signal(signal.SIGTERM)
                withdrawn, last = found
                assert (withdrawn["method"], withdrawn["params"]["requestId"]) == (
                    "notifications/cancelled",
                    form["id"],
                )
        assert server.process.wait(timeout=60) == 0
    structured = last["result"]["structuredContent"]
    assert [one["text"] for one in structured["questions"]] == ["Pay 12?"]
    with Served(*options, env={"PAID": str(paid)}) as server, server.client() as client:
        # The client has kept its session, and the form as well.
        entered = {"jsonrpc": "2.0", "id": form["id"], "result": {"action": "accept", "content": {"answer": "yes"}}}
        assert client.post(PATH, json=entered, headers={"mcp-session-id": session}).status_code == 202
        asked = result(
            client.post(PATH, **modern("tools/call", tool("chat_get", run_id=structured["run_id"], wait=20)))
        )
        assert [one["text"] for one in asked["structuredContent"]["questions"]] == ["Are you happy?"]
        done = result(client.post(PATH, **modern("tools/call", chat("very", thread=structured["thread_id"]))))
        assert text(done) == "R-12: very"
    assert paid.read_text() == "12\n"
