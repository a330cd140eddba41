"""The answers to questions: who may answer which question, and what enters the thread.

`Questions` knows the store and the announcer; it does not know the flow, which calls it.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import orjson

from jimsapi.runs.admission import Admission
from jimsapi.runs.announcer import Announcer
from jimsapi.runs.errors import QuestionClosed, QuestionNotFound, ScopeMissing
from jimsapi.runs.inbound import storable_json, with_beside
from jimsapi.runs.live import LiveRun
from jimsapi.threads.errors import InputRefused, StoreUnavailable, ThreadNotFound
from jimsapi.threads.event import (
    MESSAGE_CLIENT_ID,
    EventRow,
    NewEvent,
    id_beside,
    id_with_room,
    message_event,
    row_id,
)
from jimsapi.threads.ids import derived_id
from jimsapi.threads.questions import (
    CONTACT,
    MESSAGE_ANSWERS,
    NO_ANSWER,
    QUESTION_ANSWERED,
    QUESTION_ASKED,
    QUESTION_CLOSED,
    SCOPE,
    Question,
    answer_id,
    answered_message,
    answered_value,
    answers_beside,
    answers_event,
    answers_in_text,
    closing_id,
    counts,
    load_answer,
    load_question,
    message_in_turn,
)
from jimsapi.threads.run import Selector, Snapshot, ThreadQuery, ThreadRecord
from jimsapi.threads.storable import dump_storable
from jimsapi.threads.store import ThreadStore
from jimsapi.threads.transitions import may_see

_USER = "comm.user"
_MOST_BESIDE = 8
"""The number of events that are looked for beside the message of a turn. It has its metadata, its files and answers."""
MAX_ANSWERS = 100
"""The most answers that one message may have."""
ANSWERED = "it was answered already"
SUPERSEDED = "another message came instead of the answer"


class Answering:
    """The answers of one inbound message, checked: the thread, and the events that enter it when the run starts."""

    def __init__(self, thread: ThreadRecord, entering: tuple[NewEvent, ...], *, is_of_other_contact: bool) -> None:
        self.thread = thread
        self.entering = entering
        self.is_of_other_contact = is_of_other_contact


class Asked(msgspec.Struct, frozen=True):
    """A question, and the value that answers it. `message_id` is that of the message with which it was answered before.

    None if this is the first answer.
    """

    question: Question
    value: Any
    message_id: UUID | None


class Questions:
    """Checks the answers of inbound messages, and closes questions that another message supersedes."""

    def __init__(self, store: ThreadStore, announcer: Announcer) -> None:
        self.store = store
        self._announcer = announcer

    async def answer(self, run: LiveRun, selectors: Sequence[Selector]) -> Answering:
        """Check the answers of a run, and store all but the one that is the message of the run.

        Raises:
            QuestionNotFound: there is no such thread or question, or the caller may not answer it.
            QuestionClosed: a question was answered already, has expired, or was superseded.
            ScopeMissing: the caller lacks the scope that a question needs.
            InputRefused: a value is not an answer to its question.
        """
        inbound, admission = run.inbound, run.admission
        values = _by_question(inbound.answers or {})
        try:
            thread = await self.store.find_thread(ThreadQuery(inbound.contact_id, tuple(selectors), None))
        except ThreadNotFound:  # the error does not tell which threads exist
            raise QuestionNotFound(next(iter(values))) from None
        asked = await self._asked(thread, admission, inbound.contact_id, values)
        is_of_other_contact = not may_see(thread.contact_id, admission.identity.contact_id)
        if is_of_other_contact:
            _check_only_answers(run)
        turns = {each.question.turn for each in asked}
        if len(turns) > 1:
            raise InputRefused("answers", "several_turns", "The questions are of several messages: answer each", None)
        beside = {"turn": turns.pop(), "answers": {each.question.key: each.value for each in asked}}
        message = await self._message(thread, run, asked)
        entering = with_beside(inbound, message, [*_client_ids(run.entering), (MESSAGE_ANSWERS, beside)])
        return Answering(thread, entering, is_of_other_contact=is_of_other_contact)

    async def _message(self, thread: ThreadRecord, run: LiveRun, asked: Sequence["Asked"]) -> NewEvent:
        """Return the message of the run, and store the answers that are not this message.

        Each answer names its message. An answer that comes again has the message that it had, whose identifier the
        thread takes only once. So an answer begins one run at most.
        """
        *others, last = asked
        inbound = run.inbound
        message_id = _message_id(asked) if inbound.message else answer_id(last.question.question_id)
        for each in asked if inbound.message else others:
            event = _answer_event(each, run, message_id)
            if await self._store_answer(thread, each.question, event) != message_id and inbound.message:
                raise QuestionClosed(each.question.question_id, ANSWERED)  # another request was faster
        if inbound.message:
            return message_event(inbound.event_type, inbound.message, message_id)
        return _answer_event(last, run, message_id)

    async def _asked(
        self, thread: ThreadRecord, admission: Admission, contact_id: str, values: Mapping[UUID, Any]
    ) -> list["Asked"]:
        """Return the questions with the values that answer them."""
        found: list[Asked] = []
        for question_id, value in values.items():
            asked = await self._open(thread, question_id, value, admission, contact_id)
            fault = asked.question.fault_of(value)
            if fault is not None:
                place = f"answers.{question_id}"
                raise InputRefused(place, "not_an_answer", fault, value if isinstance(value, str) else None)
            found.append(asked)
        return found

    async def _open(
        self, thread: ThreadRecord, question_id: UUID, value: Any, admission: Admission, contact_id: str
    ) -> "Asked":
        """Return a question that the caller may answer now with `value`, for the contact `contact_id`."""
        rows = await self.store.events_by_id(
            thread.thread_id, [question_id, answer_id(question_id), closing_id(question_id)]
        )
        by_type = {row.event_type: row for row in rows}
        question = load_question(by_type[QUESTION_ASKED]) if QUESTION_ASKED in by_type else None
        if question is None or question.question_id != question_id:  # or a question that was asked again
            raise QuestionNotFound(question_id)
        _check_person(thread, question, admission, contact_id)
        answer, closing = by_type.get(QUESTION_ANSWERED), by_type.get(QUESTION_CLOSED)
        if answer is not None and counts(answer, closing):
            if answered_value(answer) != value:
                raise QuestionClosed(question_id, "it has another answer")
            return Asked(question, value, answered_message(answer))
        if closing is not None:
            raise QuestionClosed(question_id, SUPERSEDED)
        if question.has_expired(datetime.now(UTC)):
            raise QuestionClosed(question_id, "it has expired")
        return Asked(question, value, None)

    async def _store_answer(self, thread: ThreadRecord, question: Question, event: NewEvent) -> UUID:
        """Store an answer unless it is stored already. Returns the identifier of its message."""
        stored = await self.store.append(thread.thread_id, None, [event])
        if answered_value(stored[0]) != answered_value(event):  # another request was faster
            raise QuestionClosed(question.question_id, "it has another answer")
        self._announcer.stored(thread.thread_id, stored, thread.contact_id)
        return answered_message(stored[0])

    async def check_open(self, thread: ThreadRecord, entering: NewEvent) -> None:
        """Check the question of a run whose message is the answer `entering`, once the thread has accepted the run.

        Other requests may have been faster since the answer was checked, or while the run waited in the queue. If a
        process dies, two runs that waited with an answer to one question may be repeated: the one whose answer entered
        the thread goes on.

        Raises:
            QuestionClosed: a message has closed the question, or it has the answer of another request.
            StoreUnavailable: the question could not be read.
        """
        if entering.event_type != QUESTION_ANSWERED:  # an answer that came with a message was stored at once
            return
        given = load_answer(entering)
        assert given is not None  # this service has made it
        question_id = given.question_id
        rows = await self.store.events_by_id(thread.thread_id, [answer_id(question_id), closing_id(question_id)])
        by_type = {row.event_type: row for row in rows}
        answer, closing = by_type.get(QUESTION_ANSWERED), by_type.get(QUESTION_CLOSED)
        if closing is not None and (answer is None or not counts(answer, closing)):
            raise QuestionClosed(question_id, SUPERSEDED)
        stored = None if answer is None else load_answer(answer)
        if stored is not None and stored.request != given.request:
            raise QuestionClosed(question_id, ANSWERED)

    async def settle(
        self, run: LiveRun, thread: ThreadRecord, snapshot: Snapshot, asked: Sequence[EventRow]
    ) -> Snapshot:
        """Let a message answer the question in the events `asked`, or close the questions. Returns the run's context.

        Questions that stay open, or are answered, are not closed. If the store is not available, all stay open: that
        must not cost the message its answer.
        """
        with suppress(StoreUnavailable, ThreadNotFound):
            message_id = row_id(snapshot.rows[-1])  # not that of `entering`, if the request is a repetition
            if run.answers_in_text and await self._answer_in_text(run, thread, asked, message_id):
                return await self.of_turn(thread, snapshot, run.entering, message_id)
            await self._close_all(thread, asked)
        return snapshot

    async def of_turn(
        self, thread: ThreadRecord, snapshot: Snapshot, entering: Sequence[NewEvent], *more: UUID
    ) -> Snapshot:
        """Return the context of a run that the answers among `entering` begin.

        Messages that are only answers are not in it, and neither are those of `more`. The message that began the turn
        is the newest message of the user, after those that came meanwhile. It is there, with what is beside it, even if
        the context's limits have cut it.
        """
        answers = answers_in_text(snapshot.rows).union(more)
        rows = [row for row in snapshot.rows if not (row.event_type.startswith(_USER) and row_id(row) in answers)]
        begun = answers_beside(entering)
        if begun is not None:
            turn = begun[0]
            rows = [*await self._missing(thread, turn, {row_id(row) for row in rows}), *rows]
            rows = _with_turn_last(rows, turn, {event.event_id for event in entering})
        return msgspec.structs.replace(snapshot, rows=rows)

    async def _missing(self, thread: ThreadRecord, turn: UUID, known: Collection[UUID]) -> list[EventRow]:
        """Return the message of a turn and the events beside it, as far as they are not known."""
        wanted = [one for one in _ids_of_message(turn) if one not in known]
        with suppress(StoreUnavailable):
            found = await self.store.events_by_id(thread.thread_id, wanted)
            return [row for row in found if row.event_type.startswith("message.") or row_id(row) == turn]
        return []

    async def _answer_in_text(
        self, run: LiveRun, thread: ThreadRecord, asked: Sequence[EventRow], message_id: UUID
    ) -> bool:
        """Store the message of a run as the answer to the only open question in the events `asked`, if it is one."""
        questions = {question.question_id: question for row in asked if (question := load_question(row)) is not None}
        waiting = [one for one in questions.values() if await self._waits_for(thread, one, message_id)]
        if len(waiting) != 1:
            return False
        [question] = waiting
        value = question.answer_in(run.inbound.message)
        if value is NO_ANSWER and run.has_files and question.fault_of("") is None:
            value = ""  # a file is the answer
        if value is NO_ANSWER:
            return False
        try:
            found = await self._open(thread, question.question_id, value, run.admission, run.inbound.contact_id)
            event = _answer_event(found, run, message_id)
            if await self._store_answer(thread, found.question, event) != message_id:
                return False  # another message was faster
        except (QuestionNotFound, QuestionClosed, ScopeMissing, InputRefused):  # the message is one of its own
            return False
        run.answer_questions((answers_event(message_id, question, value), *run.entering))
        return True

    async def _waits_for(self, thread: ThreadRecord, question: Question, message_id: UUID) -> bool:
        """Return whether a question is open, or was answered by the message `message_id`, which is repeated."""
        identifiers = [answer_id(question.question_id), closing_id(question.question_id)]
        for row in await self.store.events_by_id(thread.thread_id, identifiers):
            return row.event_type == QUESTION_ANSWERED and answered_message(row) == message_id
        return not question.has_expired(datetime.now(UTC))

    async def _close_all(self, thread: ThreadRecord, asked: Sequence[EventRow]) -> None:
        for row in asked:
            question = load_question(row)
            if question is None or question.stays_open:
                continue
            identifiers = [answer_id(question.question_id), closing_id(question.question_id)]
            if not await self.store.events_by_id(thread.thread_id, identifiers):
                data = dump_storable({"question_id": str(question.question_id), "reason": "superseded"})
                closing = NewEvent(closing_id(question.question_id), QUESTION_CLOSED, data)
                stored = await self.store.append(thread.thread_id, None, [closing])
                self._announcer.stored(thread.thread_id, stored, thread.contact_id)


def _client_ids(entering: Sequence[NewEvent]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the type and data of the event with the client's identifier of a message, for a message with answers."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for event in entering[:-1]:
        if event.event_type == MESSAGE_CLIENT_ID:
            data = orjson.loads(event.data)
            found.append((event.event_type, {name: data[name] for name in data if name != "message_id"}))
    return found


def _ids_of_message(message_id: UUID) -> list[UUID]:
    """Return the identifiers that events beside a message may have, and that of the message."""
    return [*(id_beside(message_id, number) for number in range(1, _MOST_BESIDE + 1)), message_id]


def _with_turn_last(rows: list[EventRow], turn: UUID, entering: Collection[UUID]) -> list[EventRow]:
    """Return the rows of a context with the messages of the turn after those of later turns, if there are any.

    A question that stays open may be answered after other messages. The pipeline works on its own message again, and
    not on the newest one. The events `entering`, which began the run, stay at the end.
    """
    messages = [turn, *(message for row in rows if (message := message_in_turn(row, turn)) is not None)]
    of_turn = {one for message in messages for one in _ids_of_message(message)}
    known = of_turn.union(entering)
    later = rows[next((place for place, row in enumerate(rows) if row_id(row) == turn), len(rows)) :]
    if not any(row.event_type.startswith(_USER) and row_id(row) not in known for row in later):
        return rows
    others = [row for row in rows if row_id(row) not in known]
    own = [row for row in rows if row_id(row) in of_turn and row_id(row) not in entering]
    return [*others, *own, *(row for row in rows if row_id(row) in entering)]


def _by_question(answers: Mapping[str, Any]) -> dict[UUID, Any]:
    """Return the answers by the identifiers of their questions."""
    if len(answers) > MAX_ANSWERS:
        raise InputRefused("answers", "too_long", f"A message may have at most {MAX_ANSWERS} answers", None)
    values: dict[UUID, Any] = {}
    for text, value in sorted(answers.items()):  # in one order, whatever order a repeated request has
        try:
            question_id = UUID(text)
        except ValueError:
            raise QuestionNotFound(text[:100]) from None
        if question_id in values:
            raise InputRefused(f"answers.{text}", "duplicate", "The question is answered twice", None)
        values[question_id] = value
    return values


def _check_only_answers(run: LiveRun) -> None:
    """Raise `InputRefused` if a caller that may only answer in this thread sends or asks for anything else."""
    inbound = run.inbound
    if run.stream is not None:
        text = "The conversation is another contact's, so it is not streamed to you: answer by /api/v1/chat"
        raise InputRefused("answers", "not_streamed", text, None)
    for field in ("message", "metadata", "files", "webhook_url"):
        if getattr(inbound, field):
            text = "The conversation is another contact's: send only answers"
            raise InputRefused(field, "only_answers", text, None)


def _check_person(thread: ThreadRecord, question: Question, admission: Admission, contact_id: str) -> None:
    """Raise an error if the caller may not answer the question. The error hides questions of other contacts."""
    identity = admission.identity
    named = question.answerable_by or ""
    if named.startswith(CONTACT):
        if contact_id != named.removeprefix(CONTACT):
            raise QuestionNotFound(question.question_id)
        return
    if not may_see(thread.contact_id, identity.contact_id):
        raise QuestionNotFound(question.question_id)
    if named.startswith(SCOPE) and not identity.may(named.removeprefix(SCOPE)):
        raise ScopeMissing(named.removeprefix(SCOPE))


def _message_id(asked: Sequence[Asked]) -> UUID:
    """Return the identifier of the message that comes with answers: the one that they had, or a new one."""
    known = {each.message_id for each in asked}
    if len(known) > 1:
        again = next(each for each in asked if each.message_id is not None)
        raise QuestionClosed(again.question.question_id, ANSWERED)
    return known.pop() or id_with_room()


def _answer_event(asked: Asked, run: LiveRun, message_id: UUID) -> NewEvent:
    question, admission, identity = asked.question, run.admission, run.admission.identity
    answered_by = {"subject": identity.subject, "provider": admission.provider, "contact_id": identity.contact_id}
    data = {
        "question_id": question.question_id,
        "key": question.key,
        "value": asked.value,
        "answered_by": answered_by,
        "message_id": message_id,
    }
    if run.idempotency is not None:
        data["request"] = derived_id("answering", run.idempotency.key.hex)
    answer = storable_json(f"answers.{question.question_id}", data)
    return NewEvent(answer_id(question.question_id), QUESTION_ANSWERED, answer)


def asked_before(rows: Sequence[EventRow]) -> list[EventRow]:
    """Return the questions between the last two messages of the user, which the last one closes. Most have none."""
    asked: list[EventRow] = []
    for index in range(len(rows) - 2, -1, -1):
        event_type = rows[index].event_type
        if event_type == QUESTION_ASKED:
            asked.append(rows[index])
        elif event_type.startswith(_USER):
            break
    return asked
