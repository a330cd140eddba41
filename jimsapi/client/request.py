"""What is asked of the API, before anything is sent."""

from collections.abc import Mapping
from typing import Any, TypedDict
from uuid import UUID, uuid4

import msgspec
import orjson

MAX_KEY = 255


class MessageFields(TypedDict, total=False):
    """What may be said with a message; None is the same as leaving it out.

    `contact_id` is the person, by the caller's own system; whose credentials are bound to one contact may leave it out.
    Without a `thread_id` the contact's newest thread goes on, or a new one begins, which gets `thread_config`.
    `idempotency_key` is 1 to 255 visible characters of ASCII; the client makes one for each message that has none. A
    message that is sent again with the same key within 24 hours is answered once. `webhook_url` is called by the server
    when the run has ended.
    """

    contact_id: str | None
    thread_id: UUID | str | None
    thread_config: Mapping[str, Any] | None
    event_type: str | None
    run_conversation_start_on_new_thread: bool | None
    webhook_url: str | None
    idempotency_key: str | None


class Request(msgspec.Struct, frozen=True):
    """A request, without what all have in common. `patience` is for how many seconds the server may be silent."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes | None
    patience: float


def message_request(path: str, message: str, fields: MessageFields, patience: float) -> Request:
    """A message. Raises `TypeError` or `ValueError` for what is no JSON, or a key that no header can hold."""
    key = fields.get("idempotency_key") or str(uuid4())
    if len(key) > MAX_KEY or not (key.isascii() and key.isprintable()):
        raise ValueError(f"An idempotency key has 1 to {MAX_KEY} visible characters of ASCII.")
    given = {name: value for name, value in fields.items() if value is not None and name != "idempotency_key"}
    content = orjson.dumps({**given, "message": message})
    headers = {"content-type": "application/json", "idempotency-key": key}
    return Request("POST", path, headers, content, patience)


def run_path(run_id: UUID | str, what: str = "") -> str:
    """The path of a run. Raises `ValueError` for what is no identifier."""
    return f"/api/v1/runs/{run_id if isinstance(run_id, UUID) else UUID(run_id)}{what}"
