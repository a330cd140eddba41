"""Begins a new thread every day."""

from typing import TYPE_CHECKING

from jimsapi import Options, hookimpl, option
from jimsapi.plugins import Settings, StartError

if TYPE_CHECKING:
    from jimsapi_daily.resolver import DailyResolver


class DailyOptions(Options, prefix="daily"):
    """`--daily-timezone`, and a variable and a keyword of the same name."""

    timezone: str | None = option(help="The time zone in which days begin, for example Europe/Berlin.")


@hookimpl
def jimsapi_options() -> type[Options]:
    return DailyOptions


@hookimpl
def jimsapi_thread_resolver(settings: Settings) -> "DailyResolver | None":
    """Return the resolver, or None if it is not configured."""
    timezone = settings.get(DailyOptions).timezone
    if timezone is None:
        return None
    from zoneinfo import ZoneInfo

    from jimsapi_daily.resolver import DailyResolver

    try:
        return DailyResolver(ZoneInfo(timezone))
    except (OSError, ValueError, LookupError):
        raise StartError(
            f"--daily-timezone: there is no time zone {timezone!r}: give UTC or, e.g., Europe/Berlin"
        ) from None
