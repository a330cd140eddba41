"""The requests of the client, before they are sent."""

from collections.abc import Mapping, Sequence
from mimetypes import guess_type
from typing import Any, TypedDict
from urllib.parse import urlencode
from uuid import UUID, uuid4

import msgspec
import orjson

MAX_KEY = 255


class MessageFields(TypedDict, total=False):
    """The optional fields of a message. A field that is None is not sent.

    - `contact_id`: the person who writes, as your system identifies them. If your key is bound to one contact, omit it.
    - `thread_id`: the thread to continue. Without it, the message continues the contact's newest thread, or begins a
      new one.
    - `thread_config`: the configuration of a new thread.
    - `idempotency_key`: 1 to 255 visible ASCII characters. Messages with the same key within 24 hours have one run. The
      client generates a key for a message without one.
    - `webhook_url`: the server calls it when the run has ended.
    - `metadata`: values for the pipeline, which are stored with the message.
    - `files`: the identifiers of files of the contact.
    - `answers`: the answers to open questions (`Result.questions`), by their identifiers. The message may then be
      empty.
    """

    contact_id: str | None
    thread_id: UUID | str | None
    thread_config: Mapping[str, Any] | None
    event_type: str | None
    run_conversation_start_on_new_thread: bool | None
    webhook_url: str | None
    metadata: Mapping[str, Any] | None
    files: Sequence[str] | None
    answers: Mapping[str, Any] | None
    idempotency_key: str | None


class Request(msgspec.Struct, frozen=True):
    """A request, without the parts that all requests share. `read_timeout` is in seconds."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes | None
    read_timeout: float


def message_request(path: str, message: str, fields: MessageFields, read_timeout: float) -> Request:
    """Return the request that sends a message.

    Raises `TypeError` if a field cannot be encoded as JSON, and `ValueError` for an invalid idempotency key.
    """
    key = fields.get("idempotency_key") or str(uuid4())
    if len(key) > MAX_KEY or not (key.isascii() and key.isprintable()):
        raise ValueError(f"An idempotency key has 1 to {MAX_KEY} visible characters of ASCII.")
    given = {name: value for name, value in fields.items() if value is not None and name != "idempotency_key"}
    if message or "answers" not in given:
        given["message"] = message
    content = orjson.dumps(given)
    headers = {"content-type": "application/json", "idempotency-key": key}
    return Request("POST", path, headers, content, read_timeout)


def upload_request(content: bytes, name: str, kind: str | None, contact_id: str | None, read_timeout: float) -> Request:
    """Return the request that stores a file. Without `kind`, the ending of the name gives its media type."""
    kind = kind or guess_type(name)[0] or "application/octet-stream"
    query = {"name": name, **({} if contact_id is None else {"contact_id": contact_id})}
    return Request("POST", f"/api/v1/files?{urlencode(query)}", {"content-type": kind}, content, read_timeout)


def run_path(run_id: UUID | str, suffix: str = "") -> str:
    """Return the path of a run. Raises `ValueError` if `run_id` is not a UUID."""
    return f"/api/v1/runs/{run_id if isinstance(run_id, UUID) else UUID(run_id)}{suffix}"
