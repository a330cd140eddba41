"""Questions of a pipeline to a person, and results that a pipeline computes once.

A question needs no process while it waits for its answer. `ctx.ask` ends the run with the question. The answer begins
another run, in which the pipeline runs again from the top, and the same `ctx.ask` returns the answer.

A *turn* is a message and all answers to the questions that its runs asked. It has the identifier of the message. The
identifiers of a question, its answer and its closing are derived from the turn and the key, so that a thread can have
each of them only once, whichever process stores it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar
from uuid import UUID

import msgspec
import orjson

from jimsapi.threads.event import BESIDE, EventRow, NewEvent, id_beside, make_room, row_time
from jimsapi.threads.ids import derived_id

QUESTION_ASKED = "question.asked"
"""The data of a `Question`. A run that ends with a question that an earlier run asked has the event again, with another
identifier."""
QUESTION_ANSWERED = "question.answered"
"""`{"question_id", "key", "value", "answered_by", "message_id"}`. `message_id` is the message of the run that the
answer began. If the answer came without another message, it is the message itself. `request` is there if the request
had an idempotency key: it is the same for a request that is repeated."""
QUESTION_CLOSED = "question.closed"
"""`{"question_id", "reason"}`: another message came instead of the answer. An answer that follows on it in the thread
does not count: it waited in the queue behind that message when its process died."""
MESSAGE_ANSWERS = "message.answers"
"""`{"message_id", "turn", "answers"}`, beside a message that came with answers. `answers` has the values by key."""
ONCE_RESULT = "once.result"
"""`{"key", "value"}`."""

SCOPE, CONTACT = "scope:", "contact:"
"""The beginnings of `Question.answerable_by`."""


Decoded = TypeVar("Decoded")

NO_ANSWER = object()
"""What stands for a text that does not answer a question. It is not None, because None can be an answer."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question to a person.

    - `options` are the possible answers. If it is None and there is no `schema`, every text is one.
    - `schema` is the JSON Schema of the answer.
    - `expires_at` is in UTC; None means never.
    - `answerable_by` is `scope:NAME` or `contact:ID`; None means whoever may send messages to the thread.
    - `stays_open`: another message does not close the question.
    - `turn` is the identifier of the message that the run answered first.
    """

    question_id: UUID
    key: str
    text: str
    turn: UUID
    options: list[str] | None = None
    schema: dict[str, Any] | None = None
    expires_at: datetime | None = None
    answerable_by: str | None = None
    stays_open: bool = False

    def asks_the_same(self, other: "Question") -> bool:
        """Return whether a person who reads the other question reads this one, and has the same answers."""
        return (self.text, self.options, self.schema) == (other.text, other.options, other.schema)

    def has_expired(self, now: datetime) -> bool:
        """Return whether the question cannot be answered any more because of its age."""
        return self.expires_at is not None and now >= self.expires_at

    def shown(self) -> dict[str, Any]:
        """Return what clients get."""
        return {
            "question_id": self.question_id,
            "key": self.key,
            "text": self.text,
            "options": self.options,
            "schema": self.schema,
            "expires_at": self.expires_at,
        }

    def answer_in(self, text: str) -> Any:
        """Return the answer that a person has typed; `NO_ANSWER` if the text is no answer to this question.

        An option may be typed in capitals or not, and a form is JSON.
        """
        typed = text.strip()
        if self.options is not None:
            if text in self.options:
                return text
            return next((one for one in self.options if one.strip().casefold() == typed.casefold()), NO_ANSWER)
        if self.schema is None:
            return typed or NO_ANSWER
        try:
            value = orjson.loads(typed)
        except orjson.JSONDecodeError:
            value = typed
        return next((one for one in (value, typed) if self.fault_of(one) is None), NO_ANSWER)

    def fault_of(self, answer: Any) -> str | None:
        """Return why a value is not an answer to the question; None if it is one."""
        if self.options is not None:
            return None if answer in self.options else f"Answer with one of {orjson.dumps(self.options).decode()}"
        if self.schema is not None:
            return schema_fault(self.schema, answer)
        return None if isinstance(answer, str) else "Answer with a text"


class QuestionAsked(BaseException):
    """Ends a run with a question. `ctx.ask` raises it, and the service catches it.

    It is no `Exception`, so that a pipeline's `except Exception` does not catch it. Do not catch it.
    """

    def __init__(self, question: Question) -> None:
        super().__init__(f"the run ends with the question {question.key!r}")
        self.question = question


class Row(Protocol):
    """An event whose data is JSON text."""

    @property
    def event_type(self) -> str: ...

    @property
    def data(self) -> bytes | str | None: ...


class TurnStore(Protocol):
    """Reads and adds events of the thread of a run, while the run works."""

    async def find(self, event_ids: Sequence[UUID]) -> list[EventRow]:
        """Return those of these events that the thread has."""

    async def append(self, events: Sequence[NewEvent]) -> list[EventRow]:
        """Add events to the thread, as `ThreadStore.append` does."""


def question_id(turn: UUID, key: str, attempt: int) -> UUID:
    """Return the identifier of a question. `attempt` counts, since a question that was closed is asked again."""
    return derived_id("question", turn.hex, key, str(attempt))


def answer_id(question: UUID) -> UUID:
    """Return the identifier of the answer to a question. It may be a message, with events beside it."""
    return make_room(derived_id("answer", question.hex))


def closing_id(question: UUID) -> UUID:
    """Return the identifier of the event that closes a question without an answer."""
    return derived_id("closed", question.hex)


def once_id(turn: UUID, key: str) -> UUID:
    """Return the identifier of the result of `ctx.once`."""
    return derived_id("once", turn.hex, key)


def expiry(seconds: float | None) -> datetime | None:
    """Return the time in UTC after which a question cannot be answered. Raises `ValueError` if `seconds` is not > 0."""
    if seconds is None:
        return None
    if not seconds > 0:
        raise ValueError(f"a question must be open for more than 0 seconds, not {seconds}")
    return datetime.now(UTC) + timedelta(seconds=min(seconds, 1e9))


def answers_beside(beside: Sequence[NewEvent]) -> tuple[UUID, dict[str, Any]] | None:
    """Return the turn of a run that a person's answers began, and the answers by key; None for other runs."""
    for event in beside:
        if event.event_type == MESSAGE_ANSWERS:
            data = orjson.loads(event.data)
            return UUID(data["turn"]), data["answers"]
    return None


def answers_event(message_id: UUID, question: Question, value: Any) -> NewEvent:
    """Return the event `message.answers` of a message that is itself an answer. It is not stored."""
    data = {"message_id": message_id, "turn": question.turn, "answers": {question.key: value}}
    return NewEvent(id_beside(message_id, BESIDE), MESSAGE_ANSWERS, orjson.dumps(data))


def load_question(row: Row) -> Question | None:
    """Return the question in an event `question.asked`; None if a pipeline sent other data with this type."""
    return decode_data(row, Question)


def ends_of_questions(asked: Iterable[Row], now: datetime) -> list[tuple[UUID, UUID]]:
    """Return for each question in events `question.asked` the identifiers of the two events that may end it.

    The question is open if its thread has neither. Questions that have expired at `now` (UTC) are left out, and a
    question that several runs asked is there once.
    """
    questions = (load_question(row) for row in asked)
    ids = dict.fromkeys(one.question_id for one in questions if one is not None and not one.has_expired(now))
    return [(answer_id(one), closing_id(one)) for one in ids]


def count_open(asked: Iterable[Row], has_event: Callable[[UUID], bool], now: datetime) -> int:
    """Return how many of the questions in events `question.asked` are open at the time `now` (UTC).

    `has_event` returns whether their thread has an event.
    """
    return sum(not any(map(has_event, ends)) for ends in ends_of_questions(asked, now))


class GivenAnswer(msgspec.Struct, frozen=True):
    """The data of an event `question.answered` that other code reads."""

    question_id: UUID
    value: Any
    message_id: UUID
    request: UUID | None = None


class _OfMessage(msgspec.Struct):
    message_id: UUID
    turn: UUID | None = None


def load_answer(row: Row) -> GivenAnswer | None:
    """Return the answer from a `question.answered` event, or None if its data is malformed.

    A pipeline can send an event of this type itself.
    """
    return decode_data(row, GivenAnswer)


def answers_in_text(rows: Sequence[Row]) -> set[UUID]:
    """Return the identifiers of messages that are answers themselves, so that no `message.answers` is beside them."""
    given = (load_answer(row) for row in rows if row.event_type == QUESTION_ANSWERED)
    answers = {answer.message_id for answer in given if answer is not None}
    if answers:
        beside = (decode_data(row, _OfMessage) for row in rows if row.event_type == MESSAGE_ANSWERS)
        answers -= {one.message_id for one in beside if one is not None}
    return answers


def counts(answer: EventRow, closing: EventRow | None) -> bool:
    """Return whether an answer was in the thread before its question was closed."""
    return closing is None or row_time(answer) < row_time(closing)


def message_in_turn(row: Row, turn: UUID) -> UUID | None:
    """Return the message that came with answers of a turn, if `row` is the event `message.answers` beside it."""
    beside = decode_data(row, _OfMessage) if row.event_type == MESSAGE_ANSWERS else None
    return beside.message_id if beside is not None and beside.turn == turn else None


def turn_of_answers(row: Row) -> UUID | None:
    """Return the turn in an event `message.answers`; None for other events."""
    beside = decode_data(row, _OfMessage) if row.event_type == MESSAGE_ANSWERS else None
    return None if beside is None else beside.turn


def answered_value(row: EventRow | NewEvent) -> Any:
    """Return the value in an event `question.answered` that the server has stored."""
    return orjson.loads(row.data or b"")["value"]


def answered_message(row: Row) -> UUID:
    """Return the identifier of the message in an event `question.answered` that the server has stored."""
    return UUID(orjson.loads(row.data or b"")["message_id"])


def decode_data(row: Row, kind: type[Decoded]) -> Decoded | None:
    """Return the data of an event; None if a pipeline sent other data with its type."""
    try:
        return msgspec.json.decode(row.data or b"", type=kind)
    except ValueError:
        return None


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}


def schema_fault(schema: Mapping[str, Any], value: Any) -> str | None:
    """Return the first reason why a JSON value does not fit a JSON Schema; None if there is none.

    It checks `type`, `enum`, `const`, the limits of numbers and lengths, `required`, `properties`, `items`, `anyOf`,
    `oneOf` and local `$ref`s, which is what forms need. Other keywords are for the pipeline's own type.
    """
    try:
        return _fault(schema, value, schema, "the answer")
    except RecursionError:
        return "the answer cannot be checked: its schema refers to itself without end"


def _fault(schema: Any, value: Any, root: Mapping[str, Any], place: str) -> str | None:
    if not isinstance(schema, Mapping):
        return None
    if isinstance(reference := schema.get("$ref"), str):
        found = _referenced(root, reference)
        if found is None:
            return f"{place} cannot be checked: its schema has no {reference}"
        return _fault(found, value, root, place)
    forms = schema.get("anyOf") or schema.get("oneOf")
    if forms and all(_fault(form, value, root, place) is not None for form in forms):
        return f"{place} fits none of its forms"
    return (
        _type_fault(schema, value, place)
        or _limit_fault(schema, value, place)
        or _object_fault(schema, value, root, place)
        or _array_fault(schema, value, root, place)
    )


def _referenced(root: Mapping[str, Any], reference: str) -> Any:
    if reference == "#":
        return root
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _type_fault(schema: Mapping[str, Any], value: Any, place: str) -> str | None:
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(_has_type(value, name) for name in names):
            return f"{place} must be of the type {' or '.join(map(str, names))}"
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(allowed, list) and not any(value == one and _is_bool(value) == _is_bool(one) for one in allowed):
        return f"{place} must be one of {orjson.dumps(allowed).decode()}"
    return None


def _has_type(value: Any, name: str) -> bool:
    if _is_bool(value):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()  # as JSON Schema has it
    return isinstance(value, _TYPES.get(name, object))


def _is_bool(value: Any) -> bool:
    """Python takes True for 1; JSON does not."""
    return isinstance(value, bool)


def _limit_fault(schema: Mapping[str, Any], value: Any, place: str) -> str | None:
    """Return why a number, or the length of a text or list, is out of its limits."""
    size: int | float
    if isinstance(value, str | list):
        kind = "Length" if isinstance(value, str) else "Items"
        size, least, most, unit = len(value), f"min{kind}", f"max{kind}", " long"
    elif isinstance(value, int | float) and not _is_bool(value):
        size, least, most, unit = value, "minimum", "maximum", ""
        if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
            return f"{place} must be more than {schema['exclusiveMinimum']}"
        if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
            return f"{place} must be less than {schema['exclusiveMaximum']}"
    else:
        return None
    if least in schema and size < schema[least]:
        return f"{place} must be at least {schema[least]}{unit}"
    if most in schema and size > schema[most]:
        return f"{place} must be at most {schema[most]}{unit}"
    return None


def _object_fault(schema: Mapping[str, Any], value: Any, root: Mapping[str, Any], place: str) -> str | None:
    if not isinstance(value, dict):
        return None
    for name in schema.get("required", ()):
        if name not in value:
            return f"{place} lacks {name}"
    for name, part in schema.get("properties", {}).items():
        if name in value and (fault := _fault(part, value[name], root, f"{place}.{name}")):
            return fault
    return None


def _array_fault(schema: Mapping[str, Any], value: Any, root: Mapping[str, Any], place: str) -> str | None:
    if not isinstance(value, list) or "items" not in schema:
        return None
    faults = (_fault(schema["items"], item, root, f"{place}[{index}]") for index, item in enumerate(value))
    return next((fault for fault in faults if fault is not None), None)
