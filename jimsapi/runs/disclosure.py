"""What callers may read of a run, in every protocol and in a stored run: the text of an exception, and its events."""

import logging
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TypeVar
from uuid import UUID

import msgspec

from jimsapi.runs.errors import PipelineFailed, exception_text
from jimsapi.threads.event import NewEvent
from jimsapi.threads.run import EventRecord, FailureKind, StoredRun

AnyEvent = TypeVar("AnyEvent", NewEvent, EventRecord)

logger = logging.getLogger("jimsapi.runs")

HIDDEN_TOOL_ERROR = "the tool failed"


def _unchanged(text: str) -> str:
    return text


@lru_cache(maxsize=1024)  # each event of each run is asked for, and an app has few types of events
def _match(event_type: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(event_type, pattern) for pattern in patterns)


class Disclosure(msgspec.Struct, frozen=True):
    """Makes the text of a pipeline's failure that is stored, streamed or sent, and leaves out private events.

    If `hide` is set, the text has the run's identifier instead of the exception. The log has the exception, with its
    traceback and the same identifier. `redact` removes secrets from a text. `private_events` are those of the app.
    """

    hide: bool = False
    redact: Callable[[str], str] = _unchanged
    private_events: tuple[str, ...] = ()

    def failure(self, run_id: UUID, cause: BaseException) -> PipelineFailed:
        """Return the error for the caller of a run. Its text is also stored."""
        return PipelineFailed.with_text(self._text(run_id, str(PipelineFailed(cause))))

    def tool_error(self, run_id: UUID | None, cause: BaseException) -> str:
        """Return the text of an exception with which a tool call ended, for its event.

        If it is hidden, the log has it: the pipeline may handle it, and nothing else would show why the tool failed.
        """
        if not self.hide:
            return self.redact(f"{type(cause).__name__}: {exception_text(cause)}")
        logger.warning("run %s: a tool failed", run_id, exc_info=cause)
        return HIDDEN_TOOL_ERROR

    def stored(self, run: StoredRun) -> StoredRun:
        """Return a run as its reader may see it. A process with other options may have stored its error."""
        if self.private_events:
            run = msgspec.structs.replace(run, events=list(self.public(run.events)))
        if run.error is None or run.failure is not FailureKind.PIPELINE:
            return run
        return msgspec.structs.replace(run, error=self._text(run.run_id, run.error))

    def public(self, events: Iterable[AnyEvent]) -> Iterable[AnyEvent]:
        """Return those events that callers may read."""
        patterns = self.private_events
        return [event for event in events if not _match(event.event_type, patterns)] if patterns else events

    def is_private(self, event_type: str) -> bool:
        """Return whether callers must not read events of this type."""
        return _match(event_type, self.private_events)

    def _text(self, run_id: UUID, text: str) -> str:
        return f"{PipelineFailed.PREFIX}reference {run_id}" if self.hide else self.redact(text)
