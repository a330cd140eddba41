"""Sends counts and times of requests and runs to a StatsD server."""

from typing import TYPE_CHECKING

from jimsapi import Options, hookimpl, option
from jimsapi.plugins import Settings, StartError

if TYPE_CHECKING:
    from jimsapi_statsd.observer import StatsdObserver


class StatsdOptions(Options, prefix="statsd"):
    """`--statsd-server`, `--statsd-prefix`, and variables and keywords of the same names."""

    server: str | None = option(help="The address of the StatsD server, written HOST:PORT.")
    prefix: str = option("jimsapi", help="The first part of the name of each metric.")


@hookimpl
def jimsapi_options() -> type[Options]:
    return StatsdOptions


@hookimpl
def jimsapi_observer(settings: Settings) -> "StatsdObserver | None":
    """Return the observer, or None if it is not configured."""
    options = settings.get(StatsdOptions)
    if options.server is None:
        return None
    from jimsapi_statsd.observer import StatsdObserver

    host, _, port = options.server.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise StartError(f"--statsd-server: {options.server!r} is not an address: give HOST:PORT")
    return StatsdObserver(host.strip("[]"), int(port), options.prefix)
