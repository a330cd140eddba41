"""The floor of streams: the same events from an ASGI app written by hand, without a framework, a run or a store.

It does what nobody can leave out: check the key in constant time, read and parse the body, encode each event, watch for
the client's leaving, send a comment after 15 seconds of silence.
"""

import asyncio
import hmac
import os
from typing import Any
from uuid import uuid4

import orjson

from benchmarks.apps.peers import PIECE
from benchmarks.apps.raw import AUTHORIZATION, HEALTHY, HEALTHY_HEADERS, answer, is_valid

KEEP_ALIVE = 15.0
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


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
    elif scope["path"] == "/api/v1/chat/stream" and scope["method"] == "POST":
        await stream(scope, receive, send)
    else:
        await answer(send, 404, {"detail": "Not Found"})


async def stream(scope: Any, receive: Any, send: Any) -> None:
    """Do what the message says."""
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
    fields = orjson.loads(body)
    if not is_valid(fields):
        await answer(send, 422, {"detail": "Unprocessable Entity"})
        return
    run_id, thread_id = str(uuid4()), str(uuid4())
    identifiers = (b"x-request-id", os.urandom(8).hex().encode()), (b"x-run-id", run_id.encode())
    await send({"type": "http.response.start", "status": 200, "headers": [*STREAM_HEADERS, *identifiers]})
    await tell(send, "started", {"run_id": run_id, "thread_id": thread_id, "created_new_thread": True}, "1")
    if fields["message"] == "wait":
        await wait(receive, send)
    else:
        await speak(send, thread_id, int(fields["message"]))


async def wait(receive: Any, send: Any) -> None:
    """Keep the connection open until the client leaves."""
    leaving = asyncio.create_task(left(receive))
    while not (await asyncio.wait({leaving}, timeout=KEEP_ALIVE))[0]:
        await send({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})


async def left(receive: Any) -> None:
    """Return once the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def speak(send: Any, thread_id: str, pieces: int) -> None:
    """Say a message in pieces, then all that there is to say of it in the end."""
    message_id = str(uuid4())
    for number in range(pieces):
        await tell(send, "delta", {"message_id": message_id, "content": PIECE}, str(number + 2))
        await asyncio.sleep(0)
    said = PIECE * pieces
    event = {"event_type": "comm.assistant_message", "event_data": {"role": "assistant", "content": said}}
    await tell(send, "event", {"event_id": message_id, **event}, str(pieces + 2))
    result = {"thread_id": thread_id, "created_new_thread": True, "assistant_messages": [said], "events": [event]}
    await tell(send, "result", result, "end")
    await send({"type": "http.response.body", "body": b""})


async def tell(send: Any, name: str, data: Any, position: str) -> None:
    """Send an event."""
    body = b"event: %s\ndata: %s\nid: %s\n\n" % (name.encode(), orjson.dumps(data), position.encode())
    await send({"type": "http.response.body", "body": body, "more_body": True})
