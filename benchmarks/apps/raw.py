"""The floor: the same answers from an ASGI app written by hand, without a framework, a store or metrics.

It does what nobody can leave out: route, check the key in constant time, read and parse the body, check every field,
build and encode the answer; and where ours is compared with "the same by hand", it sends the same identifiers. It
answers chats, and what `peers.py` asks of all frameworks.
"""

import asyncio
import hmac
import itertools
import os
from typing import Any
from uuid import UUID, uuid4

import orjson

from benchmarks.apps.peers import EVENTS, HELLO, PAUSE, ROUTES

AUTHORIZATION = b"Bearer " + os.environ["BENCHMARK_KEY"].encode()
JSON_TYPE = (b"content-type", b"application/json")
HEALTHY = b'{"status":"ok"}'
HEALTHY_HEADERS = [(b"content-length", b"15"), JSON_TYPE]
STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
PARTS = {f"things{number}" for number in range(ROUTES)}
REQUEST_ID, numbers = os.urandom(8).hex().encode() + b"-%d", itertools.count(1)
OPTIONAL_FIELDS = {"thread_config": dict, "event_type": str, "run_conversation_start_on_new_thread": bool}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI entry."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/healthz" and scope["method"] == "GET":
        await send({"type": "http.response.start", "status": 200, "headers": HEALTHY_HEADERS.copy()})
        await send({"type": "http.response.body", "body": HEALTHY})
    elif scope["path"] in ("/api/v1/chat", "/messages") and scope["method"] == "POST":
        await say_back(scope, receive, send)
    elif scope["path"] == "/hello" and scope["method"] == "GET":
        await answer(send, 200, HELLO)
    elif scope["path"] == "/stream" and scope["method"] == "GET":
        await stream(send)
    else:
        await part(scope, send)


async def part(scope: Any, send: Any) -> None:
    """Give the parameters of a path back."""
    match scope["path"][1:].split("/"):
        case [name, thing, "parts", number] if name in PARTS and number.isdecimal() and scope["method"] == "GET":
            await answer(send, 200, {"thing": thing, "part": int(number)})
        case _:
            await answer(send, 404, {"detail": "Not Found"})


async def stream(send: Any) -> None:
    """Count."""
    await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS.copy()})
    for number in range(EVENTS):
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def say_back(scope: Any, receive: Any, send: Any) -> None:
    """Say back what was said. A chat has a run as well."""
    headers = dict(scope["headers"])
    if not hmac.compare_digest(headers.get(b"authorization", b""), AUTHORIZATION):
        await answer(send, 401, {"detail": "Unauthorized"})
        return
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        fields = None
    if headers.get(b"content-type") != b"application/json" or not is_valid(fields):
        await answer(send, 422, {"detail": "Unprocessable Entity"})
        return
    if PAUSE:
        await asyncio.sleep(PAUSE)
    said = fields["message"]
    event = {"event_type": "comm.assistant_message", "event_data": {"role": "assistant", "content": said}}
    value = {"thread_id": uuid4(), "created_new_thread": True, "assistant_messages": [said], "events": [event]}
    identifiers = [(b"x-request-id", REQUEST_ID % next(numbers))]
    if scope["path"] == "/api/v1/chat":
        identifiers.append((b"x-run-id", str(uuid4()).encode()))
    await answer(send, 200, value, identifiers)


def is_valid(fields: Any) -> bool:
    """Whether a body has the fields of a chat, each of its type."""
    if not isinstance(fields, dict):
        return False
    if not isinstance(fields.get("contact_id"), str) or not isinstance(fields.get("message"), str):
        return False
    thread_id = fields.get("thread_id")
    if thread_id is not None:
        try:
            UUID(thread_id)
        except (ValueError, TypeError, AttributeError):
            return False
    return all(name not in fields or isinstance(fields[name], kind) for name, kind in OPTIONAL_FIELDS.items())


async def answer(send: Any, status: int, value: Any, headers: Any = ()) -> None:
    """Send an answer in JSON."""
    body = orjson.dumps(value)
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, JSON_TYPE, *headers]})
    await send({"type": "http.response.body", "body": body})
