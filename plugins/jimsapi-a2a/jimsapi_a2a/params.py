"""The parameters of A2A's methods, in the JSON form of its Protocol Buffers (specification, section 5.5)."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from jimsapi.asgi import convert_body
from jimsapi_a2a.errors import invalid

MAX_ID = 255
"""Characters of a client's identifier of a message or of a context."""
MAX_PAGE = 100
"""The most tasks of a page (specification, section 3.1.4)."""
_MOST_HISTORY = 2**31 - 1

STATES = (
    "TASK_STATE_SUBMITTED",
    "TASK_STATE_WORKING",
    "TASK_STATE_COMPLETED",
    "TASK_STATE_FAILED",
    "TASK_STATE_CANCELED",
    "TASK_STATE_INPUT_REQUIRED",
    "TASK_STATE_REJECTED",
    "TASK_STATE_AUTH_REQUIRED",
)
"""The states of a task, by their names in JSON."""

HistoryLength = Annotated[int, msgspec.Meta(ge=0, le=_MOST_HISTORY)] | None


class Part(msgspec.Struct, rename="camel"):
    """A part of a message. It has one of `text`, `raw` (base64), `url` and `data`."""

    text: str | None = None
    raw: str | None = None
    url: str | None = None
    data: Any | UnsetType = UNSET
    filename: str | None = None
    media_type: str | None = None


class Message(msgspec.Struct, rename="camel"):
    """A message of a client."""

    message_id: str
    role: str
    parts: list[Part]
    context_id: str | None = None
    task_id: str | None = None
    metadata: dict[str, Any] | None = None
    extensions: list[str] | None = None
    reference_task_ids: list[str] | None = None


class Configuration(msgspec.Struct, rename="camel"):
    """How the client wants its answer."""

    accepted_output_modes: list[str] | None = None
    task_push_notification_config: dict[str, Any] | None = None
    history_length: HistoryLength = None
    return_immediately: bool | None = None


class SendMessage(msgspec.Struct, rename="camel"):
    """The parameters of `SendMessage` and `SendStreamingMessage`."""

    message: Message
    configuration: Configuration | None = None
    metadata: dict[str, Any] | None = None


class TaskQuery(msgspec.Struct, rename="camel"):
    """The parameters of `GetTask`, beside the identifier of the task."""

    history_length: HistoryLength = None


class GetTask(TaskQuery, rename="camel", kw_only=True):
    """The parameters of `GetTask`."""

    id: str


class NamedTask(msgspec.Struct, rename="camel"):
    """The parameters of `CancelTask` and `SubscribeToTask`."""

    id: str


class ListTasks(msgspec.Struct, rename="camel"):
    """The parameters of `ListTasks`."""

    context_id: str | None = None
    status: str | None = None
    page_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] | None = None
    page_token: str | None = None
    history_length: HistoryLength = None
    status_timestamp_after: str | None = None
    include_artifacts: bool | None = None

    def states(self) -> tuple[str, ...]:
        """Return the states that tasks of the list may have. Raises `A2AError` if there is no such state."""
        if not self.status or self.status == "TASK_STATE_UNSPECIFIED":
            return STATES
        if self.status not in STATES:
            raise invalid("status", f"There is no state {self.status[:100]!r}; the states are {', '.join(STATES)}")
        return (self.status,)

    def updated_from(self) -> datetime | None:
        """Return the time from which on tasks of the list have changed, in UTC; None for any. Raises `A2AError`."""
        if not self.status_timestamp_after:
            return None
        try:
            time = datetime.fromisoformat(self.status_timestamp_after)
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        except (ValueError, OverflowError):
            text = "This is not a time as ISO 8601 writes it, such as 2026-01-31T10:30:00Z"
            raise invalid("statusTimestampAfter", text) from None


class ConfigPage(msgspec.Struct, rename="camel"):
    """The parameters of `ListTaskPushNotificationConfigs`, beside the identifier of the task."""

    page_size: Annotated[int, msgspec.Meta(ge=0, le=MAX_PAGE)] | None = None
    page_token: str | None = None


def send_message(params: Any) -> SendMessage:
    """Return the parameters of a message. Raises `ValidationError`, or `A2AError` if a required part is empty."""
    body = convert_body(params, SendMessage)
    message = body.message
    if message.role != "ROLE_USER":
        raise invalid("message.role", "A message to this agent has the role ROLE_USER")
    if not message.parts:
        raise invalid("message.parts", "A message needs one part or more")
    _check_id("message.messageId", message.message_id)
    message.context_id = message.context_id or None  # Protocol Buffers do not distinguish an empty text from none
    message.task_id = message.task_id or None
    if message.context_id is not None:
        _check_id("message.contextId", message.context_id)
    return body


def _check_id(field: str, text: str) -> None:
    if not 0 < len(text) <= MAX_ID or not text.isprintable():
        raise invalid(field, f"This must be a text of 1 to {MAX_ID} printable characters")
