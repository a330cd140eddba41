"""Edited messages and other answers: a client sends its conversation cut, and the server forks the thread."""

from collections.abc import Sequence
from typing import cast
from uuid import UUID

import msgspec

from jimsapi.asgi.connection import Connection
from jimsapi.runs.identity import Admission
from jimsapi.runs.service import RunService
from jimsapi.threads.errors import ThreadNotFound
from jimsapi.threads.event import NewEvent, row_id
from jimsapi.threads.run import ById, Selector, ThreadQuery
from jimsapi.threads.window import COMM_PREFIX
from jimsapi.wire.history import NEWEST, event_json
from jimsapi.wire.speech import message_role, message_text
from jimsapi.wire.turn import ThreadNames, Turn


class Replaced(msgspec.Struct, frozen=True):
    """A message of the user that the message of a turn takes the place of, with all that follows it.

    `message_id` is its identifier as the client knows it, `position` the number of the user's messages before it in the
    client's conversation, and `text` its text if the client did not change it.
    """

    message_id: str
    position: int
    text: str | None = None


async def branch(
    request: Connection, service: RunService, names: ThreadNames, turn: Turn, replaced: Replaced
) -> Sequence[Selector] | None:
    """Fork the thread of a turn before a message that it replaces, and return selectors for the fork.

    The client's name of the conversation then stands for the fork. Returns None, and forks nothing, if the thread does
    not have the message: the turn then continues the conversation as usual.

    Raises as `ThreadNames.contact` does, and `StoreUnavailable`.
    """
    identity = cast(Admission, request.admission).identity
    contact = names.contact(request, turn)
    selectors = names.selectors(request, turn, contact)
    if selectors is None:
        return None
    try:
        thread = await service.store.find_thread(ThreadQuery(contact, tuple(selectors), identity.contact_id))
        rows = await service.store.load_events(thread.thread_id, None, NEWEST)
        messages = [
            NewEvent(row_id(row), row.event_type, event_json(row.data))
            for row in rows
            if row.event_type.startswith(COMM_PREFIX)
        ]
        of_user = [message for message in messages if message_role(message) == "user"]
        message_id = _find(replaced, of_user, is_cut=len(rows) == NEWEST)
        if message_id is None:
            return None
        fork = await service.fork(
            thread.thread_id, identity.contact_id, message_id, before=True, keeps_external_id=True
        )
    except ThreadNotFound:
        return None
    return (ById(fork.thread_id),)


def _find(replaced: Replaced, messages: Sequence[NewEvent], *, is_cut: bool) -> UUID | None:
    """Return the identifier of the message among those of the user, oldest first. `is_cut`: the oldest are missing."""
    for message in messages:
        if str(message.event_id) == replaced.message_id:
            return message.event_id
    # A client that sends only its newest message has none before it, whatever its position is.
    if (replaced.position == 0 or is_cut) and replaced.text is not None:
        equal = [message for message in messages if message_text(message) == replaced.text]
        return equal[-1].event_id if equal else None
    return messages[replaced.position].event_id if replaced.position < len(messages) and not is_cut else None
