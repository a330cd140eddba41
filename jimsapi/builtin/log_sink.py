"""A sink that logs stored events at debug level: their types and identifiers, never their data."""

import logging
from collections.abc import Sequence

from jimsapi.plugins import hookimpl
from jimsapi.threads import Event

logger = logging.getLogger("jimsapi.events")


class LogSink:
    """Logs one line for each event."""

    name = "log"

    async def deliver(self, events: Sequence[Event]) -> None:
        for event in events:
            logger.debug("stored %s in thread %s as %s", event.event_type, event.thread_id, event.event_id)


@hookimpl
def jimsapi_event_sink() -> LogSink | None:
    # Without debug logs the sink would only cost time.
    return LogSink() if logger.isEnabledFor(logging.DEBUG) else None
