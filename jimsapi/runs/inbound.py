"""Inbound messages, and the checks that they must pass before a store accepts them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

import msgspec

from jimsapi.runs.errors import ContactForbidden
from jimsapi.threads.errors import InputRefused
from jimsapi.threads.event import (
    MAX_EVENT_TYPE,
    MESSAGE_CLIENT_ID,
    MESSAGE_METADATA,
    USER_MESSAGE,
    NewEvent,
    beside_message,
    id_with_room,
    message_event,
)
from jimsapi.threads.identity import Identity
from jimsapi.threads.message_files import MESSAGE_FILES
from jimsapi.threads.questions import MESSAGE_ANSWERS, ONCE_RESULT, QUESTION_ANSWERED, QUESTION_ASKED, QUESTION_CLOSED
from jimsapi.threads.storable import Unstorable, dump_storable

MAX_CONTACT_ID = 2_000
"""Bytes of UTF-8."""
MAX_METADATA = 16_384
"""The most bytes of a thread's metadata as JSON. A list of threads shows the metadata of each."""

_RESERVED_DOMAINS = ("state.", "jims.")
_RESERVED_TYPES = {
    QUESTION_ASKED,
    QUESTION_ANSWERED,
    QUESTION_CLOSED,
    MESSAGE_ANSWERS,
    MESSAGE_CLIENT_ID,
    MESSAGE_FILES,
    MESSAGE_METADATA,
    ONCE_RESULT,
}
_NOT_RESERVED = {"not": {"anyOf": [{"enum": sorted(_RESERVED_TYPES)}, {"pattern": r"^(state|jims)\."}]}}
EventType = Annotated[str, msgspec.Meta(extra_json_schema=_NOT_RESERVED)]
_DEFAULT_CONFIG = {"interface": "api"}
_DEFAULT_CONFIG_TEXT = dump_storable(_DEFAULT_CONFIG)


class Inbound(msgspec.Struct, kw_only=True):
    """An inbound message: the decoded fields of the chat body.

    `contact_id` identifies the person in the caller's system. If `thread_id` is None, the server uses the contact's
    newest thread, or creates one, unless a plugin chooses another. A new thread gets `thread_config` and, if
    `run_conversation_start_on_new_thread` is set, the conversation start. `webhook_url` is called after the run has
    ended. `metadata` is any JSON object for the pipeline, which reads it as `ctx.metadata`; it is stored with the
    message. `answers` are the answers to open questions of the thread, by the questions' identifiers. With them,
    `message` may be empty, and is then no message. `files` are the identifiers of files of the contact.
    """

    # The digest of an idempotency key covers all fields (`keys.idempotency`). Add a new one at the end, and omit it
    # from the digest when it is not set. Otherwise the server rejects repeated requests from before the upgrade.

    contact_id: str
    message: str
    thread_id: UUID | None = None
    thread_config: dict[str, Any] = msgspec.field(default_factory=_DEFAULT_CONFIG.copy)
    event_type: EventType = USER_MESSAGE
    run_conversation_start_on_new_thread: bool = False
    webhook_url: str | None = None
    metadata: dict[str, Any] | None = None
    answers: dict[str, Any] | None = None
    files: list[str] | None = None


def check_inbound(inbound: Inbound) -> bytes:
    """Check that every store accepts an inbound message. Returns its `thread_config` as JSON text.

    `entering` checks its metadata.

    Raises:
        InputRefused: a field is invalid. The error names the first one.
    """
    check_contact_id(inbound.contact_id)
    check_text("message", inbound.message)
    if inbound.event_type != USER_MESSAGE:
        _check_event_type(inbound.event_type)
    if inbound.webhook_url is not None:
        check_text("webhook_url", inbound.webhook_url)
    if inbound.thread_config == _DEFAULT_CONFIG:
        return _DEFAULT_CONFIG_TEXT
    return storable_json("thread_config", inbound.thread_config)


def storable_json(field: str, value: Any) -> bytes:
    """Return the value of a request's field as JSON text. Raises `InputRefused` if it cannot be stored."""
    try:
        return dump_storable(value)
    except Unstorable as fault:
        raise InputRefused(field, "unstorable", f"Value cannot be stored: {fault}", None) from fault


def thread_metadata(value: Mapping[str, Any]) -> bytes:
    """Return the metadata of a thread as JSON text. Raises `InputRefused` if it cannot be stored or is too long."""
    text = storable_json("metadata", value)
    if len(text) > MAX_METADATA:
        raise InputRefused("metadata", "too_long", f"Object should have at most {MAX_METADATA} bytes as JSON", None)
    return text


def entering(
    inbound: Inbound, *, has_files: bool = False, more: Sequence[tuple[str, Mapping[str, Any]]] = ()
) -> tuple[NewEvent, ...]:
    """Return the events that enter the thread of an inbound message: those beside the message, then the message.

    Its files are not among them, since the server has to find or store them first. `has_files`: some came within it.
    `more` are further events beside it, as types and data.

    Raises:
        InputRefused: the metadata cannot be stored.
    """
    if not (inbound.metadata or inbound.files or has_files or more):
        return (message_event(inbound.event_type, inbound.message),)
    return with_beside(inbound, message_event(inbound.event_type, inbound.message, id_with_room()), more)


def with_beside(
    inbound: Inbound, message: NewEvent, more: Sequence[tuple[str, Mapping[str, Any]]]
) -> tuple[NewEvent, ...]:
    """Return the events beside a message, then the message: its metadata, and `more`, as types and data.

    Raises `InputRefused` as `entering` does.
    """
    metadata = [(MESSAGE_METADATA, {"metadata": inbound.metadata})] if inbound.metadata else []
    try:
        return (*beside_message(message.event_id, [*more, *metadata]), message)
    except Unstorable as fault:
        raise InputRefused("metadata", "unstorable", f"Value cannot be stored: {fault}", None) from fault


def _check_event_type(event_type: str) -> None:
    check_text("event_type", event_type)
    if len(event_type) > MAX_EVENT_TYPE:
        raise InputRefused(
            "event_type", "string_too_long", f"String should have at most {MAX_EVENT_TYPE} characters", event_type
        )
    if event_type in _RESERVED_TYPES:
        raise InputRefused(
            "event_type", "reserved_event_type", "Only the server stores events of this type", event_type
        )
    if event_type.startswith(_RESERVED_DOMAINS):
        raise InputRefused("event_type", "reserved_event_type", "The domains state and jims are reserved", event_type)


def check_contact_id(contact_id: str) -> None:
    """Check that every store accepts a contact's identifier. Raises `InputRefused` if not."""
    check_text("contact_id", contact_id)
    if len(contact_id) * 4 > MAX_CONTACT_ID and len(contact_id.encode()) > MAX_CONTACT_ID:
        raise InputRefused(
            "contact_id", "string_too_long", f"String should have at most {MAX_CONTACT_ID} bytes", contact_id
        )


def check_contact(identity: Identity, contact_id: str) -> None:
    """Check that an identity may act for a contact. Raises `ContactForbidden`, or `InputRefused` as above."""
    if identity.contact_id is not None and contact_id != identity.contact_id:
        raise ContactForbidden
    check_contact_id(contact_id)


def check_text(field: str, text: str) -> None:
    if "\0" in text:
        raise InputRefused(field, "string_contains_nul", "Text must not contain the character NUL", None)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputRefused(field, "string_unicode", "String should be valid Unicode", None) from None
