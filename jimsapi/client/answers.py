"""What the API says: runs, their results, and the items of their streams.

The `id` of an item is its place in its run's stream; `watch` goes on after it.
"""

from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from .errors import ClientError

T = TypeVar("T")


class ChatEvent(msgspec.Struct, frozen=True):
    """An event that a run has stored, as its result shows it."""

    event_type: str
    event_data: Any


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a message, and the last item of a stream.

    `assistant_messages` are the texts that the run said, `events` all that it sent, those among them. `run_id` is None
    if something between us and the server took the header away that names the run.
    """

    thread_id: UUID
    created_new_thread: bool
    assistant_messages: list[str]
    events: list[ChatEvent]
    run_id: UUID | None = None
    id: str = ""


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A thread has taken the message. The first item of a stream that is watched from its beginning."""

    run_id: UUID
    thread_id: UUID
    created_new_thread: bool
    id: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What the pipeline is doing: `status` for a person, `type` an identifier for a program."""

    status: str
    type: str
    id: str = ""


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """The next piece of a message, whose event will have the identifier `message_id`."""

    message_id: UUID
    content: str
    id: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event that the run has stored. Events come after all statuses and deltas."""

    event_id: UUID
    event_type: str
    event_data: Any
    id: str = ""


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """The server keeps so many statuses and deltas no more; None: it cannot say how many. Events are never missed."""

    missed: int | None
    id: str = ""


Item = Started | Status | Delta | Event | Gap | Result
"""What a stream is made of. An error is raised instead."""


class RunFault(msgspec.Struct, frozen=True):
    """Why a run has no result, and the HTTP status that goes with it."""

    detail: str
    status: int


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run: `queued`, `running`, `completed`, `failed`, `cancelled` or `interrupted`.

    `result` is there once it has completed, `error` if it ended in another way. `begin` gives it without times.
    """

    run_id: UUID
    thread_id: UUID
    status: str
    accepted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    result: Result | None = None
    error: RunFault | None = None


def decode(content: bytes, kind: type[T]) -> T:
    """An answer's body, or an event's data. Raises `ClientError` for what is not of the API's making."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise ClientError(f"This is no answer of jimsapi's: look at the URL. ({error})") from error
