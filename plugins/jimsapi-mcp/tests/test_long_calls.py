"""Calls that last: all clients at once in a call whose pipeline says nothing meanwhile.

`make test-long` lets them last 180 seconds. Clients in TypeScript give up after 60 seconds without news, if they let
progress extend a call, as they do here; all other limits are those that the clients have by themselves.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest
from mcp_clients import CLIENTS, RUN_WITHIN, Performance, text_of

from tests.serving import Served

SECONDS = float(os.environ.get("JIMSAPI_MCP_CALL_SECONDS", "9"))


@pytest.fixture
def served() -> Iterator[Served]:
    with Served("--app", "tests.apps.watched:app") as server:
        yield server


def test_all_clients_wait_for_the_answer_of_a_long_call(served: Served) -> None:
    name = str(uuid4())
    call = {"call": "chat", "arguments": {"message": f"hold {name}"}, "progress": True}
    with ExitStack() as stack, served.client() as api:
        waiting = [
            stack.enter_context(Performance(client, f"{served.url}/mcp", call, within=SECONDS + RUN_WITHIN))
            for client in CLIENTS
        ]
        for performance in waiting:
            assert performance.wait_for("progress")["message"] == "Reading"
        time.sleep(SECONDS)  # the length of the call is what this is about
        api.post("/api/v1/chat", json={"contact_id": "releasing", "message": f"open {name}"}).raise_for_status()
        for performance in waiting:
            [result] = performance.finish().results
            assert text_of(result) == f'{{"asked": ["hold {name}"], "answered": 0}}'
