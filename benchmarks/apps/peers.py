"""What the apps of all frameworks share: settings, and what each has to answer.

- `GET /hello`: an object, encoded anew for every answer.
- `GET /things{n}/{thing}/parts/{part}`, for `ROUTES` numbers n, `part` an integer: the two parameters.
- `POST /messages`: for holders of the key, and with all fields of a chat checked, what the person said.
- `GET /stream`: `EVENTS` server-sent events.
"""

import hmac
import os
from typing import Any
from uuid import uuid4

AUTHORIZATION = "Bearer " + os.environ["BENCHMARK_KEY"]
ROUTES = int(os.environ.get("BENCHMARK_ROUTES", "0"))
PAUSE = float(os.environ.get("BENCHMARK_PAUSE", "0"))
"""Seconds that a pipeline takes, in the chats."""
EVENTS = 10
PIECE = "Hello "
"""What streams of chats say again and again."""
HELLO = {"hello": "world"}


def may_enter(authorization: str | None) -> bool:
    """Whether a caller has shown the key, found out in constant time."""
    return authorization is not None and hmac.compare_digest(authorization.encode(), AUTHORIZATION.encode())


def echo(said: str) -> dict[str, Any]:
    """The answer to a message."""
    event = {"event_type": "comm.assistant_message", "event_data": {"role": "assistant", "content": said}}
    return {"thread_id": str(uuid4()), "created_new_thread": True, "assistant_messages": [said], "events": [event]}
