"""Edited messages and other answers: a client sends its conversation changed, and the server forks the thread."""

from collections.abc import Collection, Sequence
from typing import Protocol, cast
from uuid import UUID

import msgspec

from jimsapi.asgi.connection import Connection
from jimsapi.runs.admission import Admission
from jimsapi.runs.service import RunService
from jimsapi.threads.errors import ThreadNotFound
from jimsapi.threads.event import MESSAGE_CLIENT_ID, EventRow, NewEvent, row_id
from jimsapi.threads.facts import ForkPlan
from jimsapi.threads.questions import decode_data
from jimsapi.threads.run import ThreadQuery
from jimsapi.threads.window import COMM_PREFIX
from jimsapi.wire.history import NEWEST, event_data_json, newest_events
from jimsapi.wire.speech import message_role, message_text
from jimsapi.wire.turn import ThreadNames, Turn, request_key

MOST_PARENTS = 10
"""How many parents of a thread may be the branch that a client shows."""
FIRST_READ = 50
"""How many events are read of a thread first. If its newest messages show that nothing changed, no more are read."""


class StoredMessage(msgspec.Struct, frozen=True):
    """A message of a thread.

    `client_id` is its identifier at the client that sent it, None if that protocol has none. `key` is the idempotency
    key of its request.
    """

    event_id: UUID
    is_of_user: bool
    text: str
    client_id: str | None = None
    key: str | None = None

    def is_one_of(self, message_ids: Collection[str]) -> bool:
        """Return whether one of these is the identifier of the message, at the client or in the thread."""
        return str(self.event_id) in message_ids or (self.client_id is not None and self.client_id in message_ids)


class Change(Protocol):
    """What a client's request shows of a change of its conversation. A class for each way of a protocol."""

    def replaced_in(self, messages: Sequence[StoredMessage], *, is_cut: bool) -> UUID | None:
        """Return the message of the user that the message of the turn replaces, or None.

        `messages` are those of the thread, oldest first. `is_cut`: the oldest are missing.
        """

    def leaves(self, messages: Sequence[StoredMessage]) -> bool:
        """Return whether the newest messages of a thread show that nothing has changed."""

    @property
    def follows(self) -> str | None:
        """The identifier of the message after which the client goes on, which tells the branch that it shows.

        None if there is none, or if the newest branch is meant.
        """


class Replaced(msgspec.Struct, frozen=True):
    """The message of the user that the message of a turn replaces, with all that follows it.

    For protocols whose clients say what they replace. `message_id` is its identifier as the client knows it, `position`
    the number of the user's messages before it in the client's conversation, and `text` its text if the client did not
    change it.
    """

    message_id: str
    position: int
    text: str | None = None

    def replaced_in(self, messages: Sequence[StoredMessage], *, is_cut: bool) -> UUID | None:
        """Find the message by its identifier, else by its position or its text."""
        of_user = [message for message in messages if message.is_of_user]
        for message in reversed(of_user):
            if message.is_one_of((self.message_id,)):
                return message.event_id
        # A client that sends only its newest message has none before it, whatever its position is.
        if (self.position == 0 or is_cut) and self.text is not None:
            equal = [message for message in of_user if message.text == self.text]
            return equal[-1].event_id if equal else None
        return of_user[self.position].event_id if self.position < len(of_user) and not is_cut else None

    def leaves(self, messages: Sequence[StoredMessage]) -> bool:
        """Return False: the client says that it replaces a message."""
        return False

    @property
    def follows(self) -> str | None:
        """None: the client goes on in the newest branch."""
        return None


class Listed(msgspec.Struct, frozen=True):
    """The messages of a client's whole conversation, for protocols whose clients show a change only by this list.

    `message_id` and `text` are those of the message of the turn, and `earlier` the identifiers of all messages before
    it, of the user and others. `follows` is the newest of them, and `newest_of_user` the newest of the user. All
    identifiers are the client's or the thread's.
    """

    message_id: str
    text: str
    earlier: frozenset[str] = frozenset()
    follows: str | None = None
    newest_of_user: str | None = None

    def replaced_in(self, messages: Sequence[StoredMessage], *, is_cut: bool) -> UUID | None:
        """Return the message that the thread has in the place of the message of the turn, or None.

        - The thread has a message with the identifier of the turn's: the client wants another answer to it, or has
          edited it in its place. If the list has no other message, its client may also be one that sends no earlier
          messages and uses an identifier twice. So it then counts only with the same text.
        - Otherwise, the newest message of the thread that is in the list tells where the client goes on. If a message
          of the user follows there that came from a client of such lists, then the new one replaces it.
          A message without a client's identifier came through another channel, and the client may not know it yet.
        - If the thread does not have the user's newest message before it, nobody can tell where the client goes on, and
          the message replaces nothing.
        """
        for message in reversed(messages):
            if message.is_of_user and message.is_one_of((self.message_id,)):
                is_sure = bool(self.earlier) or message.text == self.text or str(message.event_id) == self.message_id
                return message.event_id if is_sure else None
        found: UUID | None = None
        before = self.newest_of_user
        if before is not None and not any(message.is_one_of((before,)) for message in messages):
            return None
        for message in reversed(messages):
            if message.is_one_of(self.earlier):
                return found
            if message.is_of_user and message.client_id is not None:
                found = message.event_id
        return None  # nothing of the list is in the thread

    def leaves(self, messages: Sequence[StoredMessage]) -> bool:
        """Return whether the thread has no message of the user after the one that the client goes on after."""
        for message in reversed(messages):
            if self.follows is not None and message.is_one_of((self.follows,)):
                return True
            if message.is_of_user:
                return False
        return False


async def branch(
    request: Connection, service: RunService, names: ThreadNames, turn: Turn, change: Change
) -> ForkPlan | None:
    """Return the fork in which a turn goes on that replaces a message: it ends before that message.

    If the client goes on in an older branch, it is a fork of that branch. When `begin_turn` has made the fork, the
    client's name of the conversation stands for it.

    Returns None if the turn replaces no message, or if it repeats an earlier request with
    the same idempotency key. The turn then continues the conversation as usual.

    Raises as `ThreadNames.contact` does, and `StoreUnavailable`.
    """
    identity = cast(Admission, request.admission).identity
    contact = names.contact(request, turn)
    selectors = names.selectors(request, turn, contact)
    if selectors is None:
        return None
    key = request_key(request, turn)
    try:
        thread = await service.store.find_thread(ThreadQuery(contact, tuple(selectors), identity.contact_id))
        messages, is_cut = await _messages(service, thread.thread_id, FIRST_READ)
        if change.leaves(messages):
            return None
        if is_cut:
            messages, is_cut = await _messages(service, thread.thread_id, NEWEST)
        if key is not None and any(message.key == key for message in messages):
            return None
        thread_id = await _shown_branch(service, thread.thread_id, messages, change.follows)
        if thread_id != thread.thread_id:
            messages, is_cut = await _messages(service, thread_id, NEWEST)
        message_id = change.replaced_in(messages, is_cut=is_cut)
        if message_id is None and thread_id == thread.thread_id:
            return None
        return await service.plan_fork(
            thread_id, identity.contact_id, message_id, before=message_id is not None, keeps_external_id=True
        )
    except ThreadNotFound:
        return None


async def _shown_branch(
    service: RunService, thread_id: UUID, messages: Sequence[StoredMessage], follows: str | None
) -> UUID:
    """Return the thread that the client shows: the one with these messages, or a parent that has `follows`.

    A client that shows the branches of a conversation may go on in an older one.
    """
    if follows is None or any(message.is_one_of((follows,)) for message in messages):
        return thread_id
    try:
        event_id = UUID(follows)
    except ValueError:
        return thread_id
    shown = thread_id
    for _ in range(MOST_PARENTS):
        [summary] = await service.store.summaries([shown])
        if summary.facts.parent is None:
            return thread_id
        shown = summary.facts.parent.thread_id
        if await service.store.events_by_id(shown, [event_id]):
            return shown
    return thread_id


async def _messages(service: RunService, thread_id: UUID, limit: int) -> tuple[list[StoredMessage], bool]:
    """Return the messages among the newest events of a thread, and whether it may have older events."""
    rows, is_cut = await newest_events(service, thread_id, limit)
    sent = {sent.message_id: sent for row in rows if (sent := _sent(row)) is not None}
    messages: list[StoredMessage] = []
    for row in rows:
        if row.event_type.startswith(COMM_PREFIX):
            event = NewEvent(row_id(row), row.event_type, event_data_json(row.data))
            known = sent.get(event.event_id, _Sent(event.event_id))
            is_of_user = message_role(event) == "user"
            messages.append(StoredMessage(event.event_id, is_of_user, message_text(event), known.client_id, known.key))
    return messages, is_cut


class _Sent(msgspec.Struct):
    """The data of an event `message.client_id`."""

    message_id: UUID
    client_id: str | None = None
    key: str | None = None


def _sent(row: EventRow) -> _Sent | None:
    return decode_data(row, _Sent) if row.event_type == MESSAGE_CLIENT_ID else None
