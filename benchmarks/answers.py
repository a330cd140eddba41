"""The answers that all servers must give alike, asked for before anything is measured."""

import json
import re
from uuid import UUID

from benchmarks.serving import KEY, Server

JSON = {"content-type": "application/json"}
WITH_KEY = {**JSON, "authorization": f"Bearer {KEY}"}
QUESTION = json.dumps({"contact_id": "somebody", "message": "Hello?"}).encode()
FAULTY = (b"{", b"[]", b'{"contact_id":"somebody"}', QUESTION[:-1] + b',"thread_id":"none"}')
ROUTES = 1000
PART = f"/things{ROUTES // 2}/chair/parts/7"


def check_chat(name: str, server: Server, path: str = "/api/v1/chat") -> None:
    """Hold a server to a chat's answer at `path`, and to whom it refuses there. Raises `AssertionError`."""
    healthy = server.ask("GET", "/healthz")
    assert healthy[0] == 200, (name, healthy)
    assert json.loads(healthy[2]) == {"status": "ok"}, (name, healthy)
    status, kind, body = server.ask("POST", path, QUESTION, WITH_KEY)
    assert (status, kind) == (200, "application/json"), (name, status, kind, body)
    answer = json.loads(body)
    UUID(answer.pop("thread_id"))
    event = {"event_type": "comm.assistant_message", "event_data": {"role": "assistant", "content": "Hello?"}}
    expected = {"created_new_thread": True, "assistant_messages": ["Hello?"], "events": [event]}
    assert answer == expected, (name, answer)
    for headers in (JSON, {**JSON, "authorization": "Bearer wrong"}):
        refused = server.ask("POST", path, QUESTION, headers)
        assert refused[0] == 401, (name, refused)
    for faulty in FAULTY:
        refused = server.ask("POST", path, faulty, WITH_KEY)
        assert refused[0] in (400, 422), (name, faulty, refused)  # Litestar says 400


def check_framework(name: str, server: Server) -> None:
    """Hold a server to what `apps/peers.py` asks of each, but for the many routes. Raises `AssertionError`."""
    check_chat(name, server, "/messages")
    status, kind, body = server.ask("GET", "/hello")
    assert (status, kind, body) == (200, "application/json", b'{"hello":"world"}'), (name, status, kind, body)
    missing = server.ask("GET", "/nowhere")
    assert missing[0] == 404, (name, missing)
    status, kind, body = server.ask("GET", "/stream")
    events = re.sub(rb"\r\n", rb"\n", body)
    expected = b"".join(b"data: %d\n\n" % number for number in range(10))
    assert (status, kind.partition(";")[0], events) == (200, "text/event-stream", expected), (name, status, kind, body)


def check_parts(name: str, server: Server) -> None:
    """Hold a server to a path's parameters among many routes. Raises `AssertionError`."""
    for part in (PART, "/things0/chair/parts/7", f"/things{ROUTES - 1}/chair/parts/7"):
        status, kind, body = server.ask("GET", part)
        assert (status, kind) == (200, "application/json"), (name, status, kind, body)
        assert json.loads(body) == {"thing": "chair", "part": 7}, (name, body)
    missing = server.ask("GET", f"/things{ROUTES}/chair/parts/7")
    assert missing[0] == 404, (name, missing)
