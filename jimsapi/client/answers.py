"""The API's answers: runs, their results, and the items of their streams.

The `id` of an item is its position in its run's stream. `watch(run_id, after=id)` continues after it.
"""

from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from .errors import ClientError

T = TypeVar("T")


class ChatEvent(msgspec.Struct, frozen=True):
    """An event that a run stored, as it is in a `Result`."""

    event_type: str
    event_data: Any


class File(msgspec.Struct, frozen=True):
    """A file that the server has stored. Name it in a message: `files=[file.file_id]`. `size` is in bytes."""

    file_id: str
    name: str
    type: str
    size: int


class Question(msgspec.Struct, frozen=True):
    """A question that the run has asked. Send its answer as `answers={str(question_id): value}`.

    `options` are the possible answers, or `schema` is the JSON Schema of the answer. Without both it is a text.
    """

    question_id: UUID
    key: str
    text: str
    options: list[str] | None = None
    schema: dict[str, Any] | None = None
    expires_at: datetime | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a message, and the last item of a stream.

    `assistant_messages` has the texts of the assistant's messages. `events` has all events of the run, including these
    messages. `questions` are those with which the run ended. `run_id` is None if a proxy removed the header `X-Run-ID`.
    """

    thread_id: UUID
    created_new_thread: bool
    assistant_messages: list[str]
    events: list[ChatEvent]
    questions: list[Question] = []
    run_id: UUID | None = None
    id: str = ""


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A thread accepted the message. This is the first item of a stream that is read from its beginning."""

    run_id: UUID
    thread_id: UUID
    created_new_thread: bool
    id: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What the pipeline is doing: `status` is a text for people, `type` an identifier for programs."""

    status: str
    type: str
    id: str = ""


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """The next piece of a message. The message's event will have `message_id` as its `event_id`."""

    message_id: UUID
    content: str
    id: str = ""


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    """The next piece of what the model thinks. The event `model.reasoning` will have the same `event_id`."""

    event_id: UUID
    content: str
    id: str = ""


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent does now: `tool.call`, `model.usage` or `answer.source`.

    A tool call comes when it begins, and again with its result or error; late readers may miss the first. The
    `Event` with the same `event_id` replaces it. If the run fails, there is none.
    """

    event_id: UUID
    event_type: str
    event_data: Any
    id: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event that the run stored. Events come after all items that show progress."""

    event_id: UUID
    event_type: str
    event_data: Any
    id: str = ""


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """`missed` items before the events are no longer available; None if the server does not know how many.

    Events are never missed.
    """

    missed: int | None
    id: str = ""


Item = Started | Status | Delta | Reasoning | Activity | Event | Gap | Result
"""An item of a stream. Errors are not items: the client raises them."""


class RunFault(msgspec.Struct, frozen=True):
    """The reason why a run has no result, and the HTTP status that `chat` gets for it."""

    detail: str
    status: int


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run. Its `status` is `queued`, `running`, `completed`, `failed`, `cancelled` or `interrupted`.

    `result` is set if the run completed, `error` if it ended in another way. `event_ids` are the identifiers of the
    events in `result`. A run that `begin` returns has no times.
    """

    run_id: UUID
    thread_id: UUID
    status: str
    accepted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    result: Result | None = None
    error: RunFault | None = None
    event_ids: list[UUID] = []


def decode(content: bytes, kind: type[T]) -> T:
    """Decode an answer's body or an event's data. Raises `ClientError` if it is not an answer of the API."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise ClientError(f"This is not an answer of jimsapi: check the URL. ({error})") from error
