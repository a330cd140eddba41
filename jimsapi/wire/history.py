"""What was said in a conversation of another protocol, for clients that have lost it, for example by a reload."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, cast
from urllib.parse import quote
from uuid import UUID

import msgspec
import orjson

from jimsapi.asgi.connection import Connection
from jimsapi.runs.admission import Admission
from jimsapi.runs.errors import ScopeMissing
from jimsapi.runs.lookup import Runs
from jimsapi.runs.scopes import THREADS
from jimsapi.runs.service import RunService
from jimsapi.threads.errors import RunNotFound, ThreadNotFound
from jimsapi.threads.event import EventRow, NewEvent, position_of, row_id
from jimsapi.threads.message_files import MESSAGE_FILES, FileFacts, decode_files, files_by_message
from jimsapi.threads.questions import (
    ONCE_RESULT,
    QUESTION_ANSWERED,
    QUESTION_CLOSED,
    GivenAnswer,
    load_answer,
)
from jimsapi.threads.run import OPEN, Latest, RunFilter, ThreadQuery
from jimsapi.threads.storable import stored_json
from jimsapi.threads.window import COMM_PREFIX
from jimsapi.wire.speech import (
    BETWEEN_MESSAGES,
    MessagePiece,
    PersonAsked,
    SpokenItem,
    button_texts,
    message_role,
    message_text,
    stored_items,
    with_choices,
)
from jimsapi.wire.turn import ThreadNames, Turn

NEWEST = 1000
"""How many events of a thread a history is made of at most."""
NEWEST_BYTES = 4_194_304
"""How many bytes of data these events have at most, unless it is only one."""
EVENTS_AT_ONCE = 50
"""How many events are read at once. Each may have a mebibyte."""

RUNS_AT_ONCE = 10
"""How many open runs of a thread are read, of which the newest is resumed."""

_RECORDS = ("message.", "jims.", ONCE_RESULT, QUESTION_CLOSED)
"""The beginnings of types of events that say nothing."""


class UserSaid(msgspec.Struct, frozen=True):
    """A message of the user. `answer` is there if it is only the answer to a question."""

    message_id: UUID
    text: str
    files: list[FileFacts]
    answer: GivenAnswer | None = None


class Answered(msgspec.Struct, frozen=True):
    """What the pipeline said and did until the next message of the user. `answer_id` is that of its first event."""

    answer_id: UUID
    items: list[SpokenItem]


async def history_of(
    request: Connection, service: RunService, names: ThreadNames, turn: Turn
) -> list[UserSaid | Answered]:
    """Return what was said in the conversation that `turn` names, oldest first; empty if nothing was.

    It has no private events. A long conversation is cut: its newest `NEWEST` events are there, of at most
    `NEWEST_BYTES`.

    Raises `ScopeMissing` if the caller is bound to no contact and lacks the scope `threads`, `HTTPError` as
    `ThreadNames.contact` does, and `StoreUnavailable`.
    """
    identity = cast(Admission, request.admission).identity
    if identity.contact_id is None and not identity.may(THREADS):
        raise ScopeMissing(THREADS)
    contact = names.contact(request, turn)
    selectors = names.selectors(request, turn, contact) or (Latest(),)
    try:
        thread = await service.store.find_thread(ThreadQuery(contact, tuple(selectors), identity.contact_id))
    except ThreadNotFound:
        return []
    rows, _ = await newest_events(service, thread.thread_id, NEWEST)
    return list(said([row for row in rows if not service.disclosure.is_private(row.event_type)]))


async def open_run_of(request: Connection, service: RunService, names: ThreadNames, turn: Turn) -> UUID | None:
    """Return the newest open run of the conversation that `turn` names, whichever process works on it.

    None if there is none that the caller may see. Raises as `ThreadNames.contact` does, and `StoreUnavailable`.
    """
    admission = cast(Admission, request.admission)
    contact = names.contact(request, turn)
    selectors = names.selectors(request, turn, contact)
    if selectors is None:
        return None
    bound = admission.identity.contact_id
    try:
        thread = await service.store.find_thread(ThreadQuery(contact, tuple(selectors), bound))
        only = RunFilter(statuses=OPEN, thread_id=thread.thread_id)
        page = await service.store.runs(bound, RUNS_AT_ONCE, None, only)
        if not page.runs:
            return None
        return (await Runs(service).run(admission, page.runs[0].run_id)).run_id
    except (ThreadNotFound, RunNotFound):
        return None


async def newest_events(service: RunService, thread_id: UUID, limit: int) -> tuple[list[EventRow], bool]:
    """Return the newest events of a thread, oldest first, and whether there may be older ones.

    They are at most `limit`, and have at most `NEWEST_BYTES` bytes of data, unless it is only one event.
    """
    newest: list[EventRow] = []
    bytes_left = NEWEST_BYTES
    while len(newest) < limit:
        at_once = min(EVENTS_AT_ONCE, limit - len(newest))
        before = position_of(newest[-1]) if newest else None
        rows = await service.store.load_events(thread_id, before, at_once)
        for row in reversed(rows):
            bytes_left -= len(row.data or b"")
            if bytes_left < 0 and newest:
                return newest[::-1], True
            newest.append(row)
        if len(rows) < at_once:
            return newest[::-1], False
    return newest[::-1], True


def said(rows: Sequence[EventRow]) -> Iterator[UserSaid | Answered]:
    """Yield what the events of a thread say, oldest first. An answer to a question is a message of the user."""
    events = [NewEvent(row_id(row), row.event_type, event_data_json(row.data)) for row in rows]
    files = files_by_message(events)
    messages = {event.event_id for event in events if _is_of_user(event)}
    answer: list[NewEvent] = []
    for event in events:
        if decode_files(event) is not None:  # those of the user's messages say nothing among the events of an answer
            answer.append(event)
            continue
        if event.event_type.startswith(_RECORDS):
            continue
        given = _answer_in(event, messages)
        if given is None and event.event_id not in messages:
            answer.append(event)
            continue
        yield from _answered(answer)
        answer = []
        text = message_text(event) if given is None else _text_of_answer(given.value)
        yield UserSaid(event.event_id, text, files.get(event.event_id, []), given)
    yield from _answered(answer)


def _is_of_user(event: NewEvent) -> bool:
    return event.event_type.startswith(COMM_PREFIX) and message_role(event) == "user"


def _answer_in(event: NewEvent, messages: Collection[UUID]) -> GivenAnswer | None:
    """Return the answer to a question, unless one of the messages is the answer or came with it."""
    answer = load_answer(event) if event.event_type == QUESTION_ANSWERED else None
    return None if answer is None or answer.message_id in messages else answer


def _text_of_answer(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _answered(events: Sequence[NewEvent]) -> Iterator[Answered]:
    items = stored_items([event for event in events if event.event_type != QUESTION_ANSWERED])
    if items:
        first = next(event for event in events if event.event_type != MESSAGE_FILES)
        yield Answered(first.event_id, items)


def event_data_json(data: bytes | str | None) -> bytes:
    """Return the stored data of an event as JSON that every parser accepts."""
    return orjson.dumps(None if data is None else stored_json(data))


def text_of(items: Iterable[SpokenItem]) -> str:
    """Return the messages and questions of an answer as one text, as `one_text` does."""
    texts: list[str] = []
    for item in items:
        match item:
            case MessagePiece() | PersonAsked():
                texts.append(item.text)
            case NewEvent() if texts and (buttons := button_texts(item)):
                texts[-1] = with_choices(texts[-1], buttons)
    return BETWEEN_MESSAGES.join(text for text in texts if text)


def file_url(request: Connection, file: FileFacts) -> str:
    """Return the URL of a file of a message, as a path on this server.

    It names the contact that the request is about, `request.person`, if the caller has to.
    """
    url = request.link(f"/api/v1/files/{file.file_id}")
    person: str | None = getattr(request, "person", None)
    return f"{url}?contact_id={quote(person, safe='')}" if person is not None and must_name_contact(request) else url


def must_name_contact(request: Connection) -> bool:
    """Return whether the caller can read what is a contact's only if it names the contact."""
    identity = cast(Admission, request.admission).identity
    return identity.contact_id is None and not identity.may(THREADS)
