"""The resolver. It selects the thread of a message."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, tzinfo

from jimsapi import ByExternalId, Inbound, New
from jimsapi.threads import Selector


def now_in_utc() -> datetime:
    """Return the time now."""
    return datetime.now(UTC)


class DailyResolver:
    """Gives each contact one thread for each day of a time zone."""

    name = "daily"

    def __init__(self, timezone: tzinfo, clock: Callable[[], datetime] = now_in_utc) -> None:
        self._timezone = timezone
        self._clock = clock

    async def resolve(self, inbound: Inbound) -> Sequence[Selector] | None:
        """Select the contact's thread of this day. A message that names its thread is left to the next resolver."""
        if inbound.thread_id is not None:
            return None
        day = f"daily:{self._clock().astimezone(self._timezone):%Y-%m-%d}:{inbound.contact_id}"
        return [ByExternalId(day), New(external_id=day)]
