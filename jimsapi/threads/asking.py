"""How the pipeline of one run asks questions, and computes results once."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from jimsapi.threads.errors import UnstorableEvent
from jimsapi.threads.event import Event, EventRow, NewEvent, row_id
from jimsapi.threads.ids import uuid7
from jimsapi.threads.questions import (
    CONTACT,
    ONCE_RESULT,
    QUESTION_ASKED,
    SCOPE,
    Question,
    QuestionAsked,
    TurnStore,
    answer_id,
    answered_value,
    closing_id,
    counts,
    expiry,
    load_question,
    once_id,
    question_id,
)
from jimsapi.threads.storable import Unstorable, dump_storable, json_values, load_stored

MOST_ATTEMPTS = 100
"""How many times a turn may ask a question whose answers are refused, or that closes or changes, so that it ends."""


class Asking:
    """Asks the questions of one run of a turn. `answers` are given by key, for tests."""

    def __init__(self, turn: UUID, store: TurnStore, answers: Mapping[str, Any]) -> None:
        self.turn = turn
        self._store = store
        self._answers = answers
        self._asked: dict[UUID, Event] = {}
        self._under_way = 0
        self._none_under_way = asyncio.Event()

    @property
    def events(self) -> list[Event]:
        """The events of the questions with which the run ends."""
        return list(self._asked.values())

    async def ask(self, question: Question, answer_type: type[Any] | None, convert: Callable[[Any, Any], Any]) -> Any:
        """Return the answer to a question. If there is none, raises `QuestionAsked`.

        `question` is asked if the turn has not asked one with its key, or has closed it without a valid answer. Calls
        that are under way at the same time, such as with `asyncio.gather`, ask all their questions before one raises.
        """
        self._under_way += 1
        self._none_under_way.clear()
        try:
            await asyncio.sleep(0)  # a pipeline that asks in a loop must not stop the server
            return await self._answer(question, answer_type, convert)
        except QuestionAsked as asked:
            ends_run = asked
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._none_under_way.set()
        await self._none_under_way.wait()
        raise ends_run

    async def _answer(
        self, question: Question, answer_type: type[Any] | None, convert: Callable[[Any, Any], Any]
    ) -> Any:
        if question.key in self._answers:
            return _converted(self._answers[question.key], answer_type, convert)
        for attempt in range(1, MOST_ATTEMPTS + 1):
            identifier = question_id(self.turn, question.key, attempt)
            found = await self._find(identifier, answer_id(identifier), closing_id(identifier))
            asked = found.get(identifier)
            known = None if asked is None else load_question(asked)
            if known is not None and not known.asks_the_same(question):
                continue  # the person has read, and maybe approved, something else
            answer = found.get(answer_id(identifier))
            if answer is not None and counts(answer, found.get(closing_id(identifier))):
                try:
                    return _converted(answered_value(answer), answer_type, convert)
                except Exception:  # the pipeline's own type refuses the answer, so the person is asked again
                    continue
            if asked is None:
                new = msgspec.structs.replace(question, question_id=identifier, turn=self.turn)
                self._end_with(new, identifier)
            is_open = known is not None and closing_id(identifier) not in found
            if known is not None and is_open and not known.has_expired(datetime.now(UTC)):
                self._end_with(known, uuid7())
        raise RuntimeError(f"the question {question.key!r} was asked {MOST_ATTEMPTS} times in one turn")

    async def recall(self, key: str) -> tuple[Any] | None:
        """Return the result that the turn has stored under `key`; None if there is none."""
        found = await self._find(once_id(self.turn, key))
        for row in found.values():
            return (load_stored(row.data or b"")["value"],)
        return None

    async def remember(self, key: str, value: Any) -> Any:
        """Store a result of the turn under `key`, and return it as later runs get it.

        Raises `UnstorableEvent` if it has no form in JSON.
        """
        try:
            copy = json_values(value)
            data = dump_storable({"key": key, "value": copy})
        except Unstorable as fault:
            raise UnstorableEvent(ONCE_RESULT, str(fault)) from fault
        stored = await self._store.append([NewEvent(once_id(self.turn, key), ONCE_RESULT, data)])
        return load_stored(stored[0].data or b"")["value"]  # that of another call, if it was faster

    async def _find(self, *event_ids: UUID) -> dict[UUID, EventRow]:
        rows = await self._store.find(event_ids)
        return {row_id(row): row for row in rows}

    def _end_with(self, question: Question, event_id: UUID) -> None:
        data = msgspec.to_builtins(question)
        event = Event(event_type=QUESTION_ASKED, event_data=data, event_id=event_id)
        self._asked.setdefault(question.question_id, event)
        raise QuestionAsked(question)


def _converted(value: Any, answer_type: type[Any] | None, convert: Callable[[Any, Any], Any]) -> Any:
    return value if answer_type is None else convert(value, answer_type)


def check_key(key: str) -> None:
    """Raise `TypeError` if `key` is not a text, or is empty, and `ValueError` if no store takes it."""
    if not isinstance(key, str) or not key:
        raise TypeError("a key must be a str, and not empty")
    try:
        dump_storable({"key": key})
    except Unstorable as fault:
        raise ValueError(f"the key cannot be stored: {fault}") from fault


def make_question(
    key: str,
    text: str,
    options: Sequence[str] | None,
    schema: Mapping[str, Any] | type[Any] | None,
    expires: float | None,
    answerable_by: str | None,
    stays_open: bool,
) -> Question:
    """Return a question that is not asked yet. Raises `TypeError` and `ValueError` for arguments that cannot be."""
    check_key(key)
    if not isinstance(text, str) or not text:
        raise TypeError("the text of a question must be a str, and not empty")
    if options is not None and schema is not None:
        raise ValueError("a question has options or a schema, not both")
    if options is not None and (isinstance(options, str) or not all(isinstance(one, str) for one in options)):
        raise TypeError("options must be a sequence of strings")
    if options is not None and not options:
        raise ValueError("options must not be empty")
    if answerable_by is not None and not answerable_by.startswith((SCOPE, CONTACT)):
        raise ValueError(f"answerable_by must begin with {SCOPE!r} or {CONTACT!r}, unlike {answerable_by!r}")
    return Question(
        question_id=UUID(int=0),
        key=key,
        text=text,
        turn=UUID(int=0),
        options=None if options is None else list(options),
        schema=None if schema is None else json_values(_json_schema(schema)),
        expires_at=expiry(expires),
        answerable_by=answerable_by,
        stays_open=stays_open,
    )


def _json_schema(schema: Mapping[str, Any] | type[Any]) -> dict[str, Any]:
    if isinstance(schema, Mapping):
        return dict(schema)
    made = getattr(schema, "model_json_schema", None)
    found: dict[str, Any] = msgspec.json.schema(schema) if made is None else made()
    return found


class TestStore:
    """A `TurnStore` in memory, for contexts that a test makes."""

    __test__ = False

    def __init__(self) -> None:
        self._rows: dict[UUID, EventRow] = {}

    async def find(self, event_ids: Sequence[UUID]) -> list[EventRow]:
        """Return those of these events that were appended."""
        return [self._rows[event_id] for event_id in event_ids if event_id in self._rows]

    async def append(self, events: Sequence[NewEvent]) -> list[EventRow]:
        """Keep events."""
        rows = [EventRow(event.event_id, datetime.now(), event.event_type, event.data) for event in events]
        self._rows.update((event.event_id, row) for event, row in zip(events, rows, strict=True))
        return rows
