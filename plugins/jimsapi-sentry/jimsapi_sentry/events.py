"""What an event says when it leaves: tags to find it by, and nothing that a person may have said."""

import logging
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jimsapi.asgi.connection import request_id
from jimsapi_sentry.requests import UNNAMED

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

FILTERED = "[Filtered]"
"""Stands for a text that was left out, as in Sentry's own scrubbing."""

_MARK = "__jimsapi_sentry_call__"
_REPORTED = "__jimsapi_sentry_reported__"
_PERSONAL = ("breadcrumbs", "extra", "modules", "request", "user")


class PipelineCall:
    """One call of a pipeline: the tags of its events."""

    def __init__(self, tags: dict[str, str]) -> None:
        self.tags = tags

    def mark(self, error: BaseException) -> None:
        """Let what is reported of `error` later, outside of the pipeline's task, be known as of this call."""
        with suppress(Exception):  # an exception's class may refuse attributes
            setattr(error, _MARK, self)

    def is_first(self, error: BaseException) -> bool:
        """Whether `error` was not reported in this call before; a pipeline may log what it then raises.

        The error remembers it, not the call: the two would hold each other, and the frames of the traceback with them.
        """
        if getattr(error, _REPORTED, None) is self:
            return False
        with suppress(Exception):
            setattr(error, _REPORTED, self)
        return True


current_call: ContextVar[PipelineCall | None] = ContextVar("jimsapi_sentry_call", default=None)
"""The call in whose task we are."""


class Cleaner:
    """Sentry's `before_send`. `personal`: texts may stay."""

    def __init__(self, *, personal: bool) -> None:
        self._personal = personal

    def clean_event(self, event: "Event", hint: "Hint") -> "Event | None":
        """Tag an event and take texts out of it; None drops it."""
        record: logging.LogRecord | None = hint.get("log_record")
        error: BaseException | None = (hint.get("exc_info") or (None, None))[1]
        if record is not None and error is None and not self._personal and not _is_ours(record):
            return None  # without its message such a line says nothing
        call = _call_of(error) or current_call.get()
        if call is not None and error is not None and not call.is_first(error):
            return None
        tags = event.setdefault("tags", {})
        tags.update(_tags(record, call))
        if event.get("transaction") == UNNAMED:  # which route it is, is known when the request is answered
            event.pop("transaction")
            event.pop("transaction_info", None)
        if not self._personal:
            _drop_personal(event)
            _drop_texts(event, record)
        return event

    def clean_transaction(self, event: "Event", hint: "Hint") -> "Event":
        """Take what may be personal out of a transaction."""
        if not self._personal:
            _drop_personal(event)
        return event


def _call_of(error: BaseException | None) -> PipelineCall | None:
    """The call that raised `error`, or what `error` was raised from (a SystemExit comes as another error)."""
    while error is not None:
        call = getattr(error, _MARK, None)
        if isinstance(call, PipelineCall):
            return call
        error = error.__cause__
    return None


def _tags(record: logging.LogRecord | None, call: PipelineCall | None) -> dict[str, str]:
    found: dict[str, Any] = dict(call.tags) if call is not None else {}
    found["request_id"] = request_id.get()
    if record is not None:
        if record.name == "jimsapi.runs" and isinstance(record.args, tuple) and record.args:
            first = record.args[0]
            found["run_id"] = first if isinstance(first, UUID) else None
        for name in ("request_id", "run_id", "thread_id"):
            found[name] = getattr(record, name, None) or found.get(name)
    return {name: str(value) for name, value in found.items() if value}


def _is_ours(record: logging.LogRecord) -> bool:
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
    if _is_ours(record):
        event["logentry"] = {"message": str(record.msg)}  # what is filled in is left out
    else:
        event.pop("logentry", None)
