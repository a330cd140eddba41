"""The answers to questions: who may answer which question, and what enters the thread.

`Questions` knows the store and the announcer; it does not know the flow, which calls it.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from jimsapi.runs.announcer import Announcer
from jimsapi.runs.errors import QuestionClosed, QuestionNotFound, ScopeMissing
from jimsapi.runs.identity import Admission
from jimsapi.runs.inbound import Inbound, with_beside
from jimsapi.runs.live import LiveRun
from jimsapi.threads.errors import InputRefused, StoreUnavailable, ThreadNotFound
from jimsapi.threads.event import EventRow, NewEvent, id_with_room, message_event
from jimsapi.threads.questions import (
    CONTACT,
    MESSAGE_ANSWERS,
    QUESTION_ANSWERED,
    QUESTION_ASKED,
    QUESTION_CLOSED,
    SCOPE,
    Question,
    answer_id,
    answered_value,
    closing_id,
    load_question,
)
from jimsapi.threads.run import Selector, ThreadQuery, ThreadRecord
from jimsapi.threads.storable import Unstorable, dump_storable
from jimsapi.threads.store import ThreadStore
from jimsapi.threads.transitions import may_see

_USER = "comm.user"


class Answering:
    """The answers of one inbound message, checked: the thread, and the events that enter it when the run starts."""

    def __init__(self, thread: ThreadRecord, entering: tuple[NewEvent, ...], *, is_of_other_contact: bool) -> None:
        self.thread = thread
        self.entering = entering
        self.is_of_other_contact = is_of_other_contact


class Questions:
    """Checks the answers of inbound messages, and closes questions that another message supersedes."""

    def __init__(self, store: ThreadStore, announcer: Announcer) -> None:
        self.store = store
        self._announcer = announcer

    async def answer(self, run: LiveRun, selectors: Sequence[Selector]) -> Answering:
        """Check the answers of a run, and store all but the one that is the message of the run.

        Raises:
            ThreadNotFound, QuestionNotFound: there is none, or none that the caller may answer.
            QuestionClosed: a question was answered in another way, has expired, or was superseded.
            ScopeMissing: the caller lacks the scope that a question needs.
            InputRefused: a value is not an answer to its question.
        """
        inbound, admission = run.inbound, run.admission
        thread = await self.store.find_thread(ThreadQuery(inbound.contact_id, tuple(selectors), None))
        asked = await self._asked(thread, admission, inbound)
        is_of_other_contact = not may_see(thread.contact_id, admission.identity.contact_id)
        if is_of_other_contact and run.stream is not None:
            text = "The conversation is another contact's, so it is not streamed to you: answer by /api/v1/chat"
            raise InputRefused("answers", "not_streamed", text, None)
        turns = {question.turn for question, _ in asked}
        if len(turns) > 1:
            raise InputRefused("answers", "several_turns", "The questions are of several messages: answer each", None)
        answers = [_answer_event(question, value, admission) for question, value in asked]
        beside = {"turn": turns.pop(), "answers": {question.key: value for question, value in asked}}
        if inbound.message:
            message = message_event(inbound.event_type, inbound.message, id_with_room())
        else:
            message = answers.pop()
        for (question, _), event in zip(asked, answers, strict=False):
            await self._store_answer(thread, question, event)
        entering = with_beside(inbound, message, [(MESSAGE_ANSWERS, beside)])
        return Answering(thread, entering, is_of_other_contact=is_of_other_contact)

    async def _asked(self, thread: ThreadRecord, admission: Admission, inbound: Inbound) -> list[tuple[Question, Any]]:
        """Return the questions with the values that answer them."""
        found: list[tuple[Question, Any]] = []
        for text, value in (inbound.answers or {}).items():
            question = await self._open(thread, text, value, admission, inbound.contact_id)
            fault = question.fault_of(value)
            if fault is not None:
                raise InputRefused(f"answers.{text}", "not_an_answer", fault, value if isinstance(value, str) else None)
            found.append((question, value))
        return found

    async def _open(
        self, thread: ThreadRecord, text: str, value: Any, admission: Admission, contact_id: str
    ) -> Question:
        """Return a question that the caller may answer now with `value`, for the contact `contact_id`."""
        question_id = _question_id(text)
        rows = await self.store.events_by_id(
            thread.thread_id, [question_id, answer_id(question_id), closing_id(question_id)]
        )
        by_type = {row.event_type: row for row in rows}
        question = load_question(by_type[QUESTION_ASKED]) if QUESTION_ASKED in by_type else None
        if question is None:
            raise QuestionNotFound(text)
        _check_person(thread, question, admission, contact_id)
        if QUESTION_ANSWERED in by_type:
            if answered_value(by_type[QUESTION_ANSWERED]) != value:
                raise QuestionClosed(question_id, "it was answered in another way")
        elif QUESTION_CLOSED in by_type:
            raise QuestionClosed(question_id, "another message came instead of the answer")
        elif question.has_expired(datetime.now(UTC)):
            raise QuestionClosed(question_id, "it has expired")
        return question

    async def _store_answer(self, thread: ThreadRecord, question: Question, event: NewEvent) -> None:
        stored = await self.store.append(thread.thread_id, None, [event])
        if answered_value(stored[0]) != answered_value(event):  # another request was faster
            raise QuestionClosed(question.question_id, "it was answered in another way")
        self._announcer.stored(thread.thread_id, stored)

    async def supersede(self, thread: ThreadRecord, rows: Sequence[EventRow]) -> None:
        """Close the questions of the turn before the message with which `rows` end, unless they stay open.

        If the store is not available, they stay open: that must not cost the message its answer.
        """
        with suppress(StoreUnavailable, ThreadNotFound):
            await self._close_all(thread, _asked_before(rows))

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
                self._announcer.stored(thread.thread_id, stored)


def _question_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise QuestionNotFound(text[:100]) from None


def _check_person(thread: ThreadRecord, question: Question, admission: Admission, contact_id: str) -> None:
    """Raise an error if the caller may not answer the question. The error hides questions of other contacts."""
    identity = admission.identity
    named = question.answerable_by or ""
    if named.startswith(CONTACT):
        if contact_id != named.removeprefix(CONTACT):
            raise QuestionNotFound(str(question.question_id))
        return
    if not may_see(thread.contact_id, identity.contact_id):
        raise ThreadNotFound(thread.thread_id)
    if named.startswith(SCOPE) and not identity.may(named.removeprefix(SCOPE)):
        raise ScopeMissing(named.removeprefix(SCOPE))


def _answer_event(question: Question, value: Any, admission: Admission) -> NewEvent:
    identity = admission.identity
    answered_by = {"subject": identity.subject, "provider": admission.provider, "contact_id": identity.contact_id}
    data = {
        "question_id": question.question_id,
        "key": question.key,
        "value": value,
        "answered_by": answered_by,
    }
    try:
        return NewEvent(answer_id(question.question_id), QUESTION_ANSWERED, dump_storable(data))
    except Unstorable as fault:
        place = f"answers.{question.question_id}"
        raise InputRefused(place, "unstorable", f"Value cannot be stored: {fault}", None) from fault


def _asked_before(rows: Sequence[EventRow]) -> list[EventRow]:
    """Return the questions between the last two messages of the user. Most threads have none."""
    asked: list[EventRow] = []
    for index in range(len(rows) - 2, -1, -1):
        event_type = rows[index].event_type
        if event_type == QUESTION_ASKED:
            asked.append(rows[index])
        elif event_type.startswith(_USER):
            break
    return asked
