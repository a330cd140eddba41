"""Prepares events before they are sent: adds tags, and removes texts that users may have written."""

import logging
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jimsapi.asgi import request_id
from jimsapi_sentry.requests import UNNAMED

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

FILTERED = "[Filtered]"
"""Replaces a text that was removed, as Sentry's own data scrubbing does."""

_MARK = "__jimsapi_sentry_call__"
_REPORTED = "__jimsapi_sentry_reported__"
_PERSONAL = ("breadcrumbs", "extra", "modules", "request", "user")


class PipelineCall:
    """One call of a pipeline, with the tags of its events."""

    def __init__(self, tags: dict[str, str]) -> None:
        self.tags = tags

    def mark(self, error: BaseException) -> None:
        """Mark `error` as raised in this call, for reports that are made later, outside the pipeline's task."""
        with suppress(Exception):  # an exception's class may refuse attributes
            setattr(error, _MARK, self)

    def is_first(self, error: BaseException) -> bool:
        """Return whether `error` is reported for the first time in this call. A pipeline may log an error and raise it.

        The mark is on the error and not on the call: otherwise both would refer to each other, and keep the frames of
        the traceback in memory.
        """
        if getattr(error, _REPORTED, None) is self:
            return False
        with suppress(Exception):
            setattr(error, _REPORTED, self)
        return True


current_call: ContextVar[PipelineCall | None] = ContextVar("jimsapi_sentry_call", default=None)
"""The call of the current task."""


class Cleaner:
    """Sentry's `before_send` hooks. If `personal` is true, they do not remove texts."""

    def __init__(self, *, personal: bool) -> None:
        self._personal = personal

    def clean_event(self, event: "Event", hint: "Hint") -> "Event | None":
        """Add tags to an event and remove its texts. Returns None to drop the event."""
        record: logging.LogRecord | None = hint.get("log_record")
        error: BaseException | None = (hint.get("exc_info") or (None, None))[1]
        if record is not None and error is None and not self._personal and not _is_of_jimsapi(record):
            return None  # the event would have no content without its message
        call = _call_of(error) or current_call.get()
        if call is not None and error is not None and not call.is_first(error):
            return None
        tags = event.setdefault("tags", {})
        tags.update(_tags(record, call))
        if event.get("transaction") == UNNAMED:  # the route is not known before the request is answered
            event.pop("transaction")
            event.pop("transaction_info", None)
        if not self._personal:
            _drop_personal(event)
            _drop_texts(event, record)
        return event

    def clean_transaction(self, event: "Event", hint: "Hint") -> "Event":
        """Remove personal data from a transaction."""
        if not self._personal:
            _drop_personal(event)
        return event


def _call_of(error: BaseException | None) -> PipelineCall | None:
    """The call that raised `error` or one of its causes. (A SystemExit becomes the cause of another error.)"""
    while error is not None:
        call = getattr(error, _MARK, None)
        if isinstance(call, PipelineCall):
            return call
        error = error.__cause__
    return None


def _tags(record: logging.LogRecord | None, call: PipelineCall | None) -> dict[str, str]:
    tags: dict[str, Any] = dict(call.tags) if call is not None else {}
    tags["request_id"] = request_id.get()
    if record is not None:
        if record.name == "jimsapi.runs" and isinstance(record.args, tuple) and record.args:
            first = record.args[0]
            tags["run_id"] = first if isinstance(first, UUID) else None
        for name in ("request_id", "run_id", "thread_id"):
            tags[name] = getattr(record, name, None) or tags.get(name)
    return {name: str(value) for name, value in tags.items() if value}


def _is_of_jimsapi(record: logging.LogRecord) -> bool:
    return record.name == "jimsapi" or record.name.startswith("jimsapi.")


def _drop_personal(event: "Event") -> None:
    for key in _PERSONAL:
        event.pop(key, None)  # type: ignore[misc] # the keys are those of an event


def _drop_texts(event: "Event", record: logging.LogRecord | None) -> None:
    exceptions: Any = event.get("exception")
    for exception in (exceptions or {}).get("values") or ():
        exception["value"] = FILTERED
        (exception.get("mechanism") or {}).pop("data", None)
    if record is None:
        return
    if _is_of_jimsapi(record):
        event["logentry"] = {"message": str(record.msg)}  # the format without its arguments
    else:
        event.pop("logentry", None)
