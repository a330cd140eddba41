"""Publishes every stored event to a NATS server."""

from typing import TYPE_CHECKING

from jimsapi import Options, Secret, hookimpl, option
from jimsapi.plugins import Settings

if TYPE_CHECKING:
    from jimsapi_nats.sink import NatsSink


class NatsOptions(Options, prefix="nats"):
    """`--nats-url`, `--nats-subject`, and variables and keywords of the same names."""

    url: Secret | None = option(help="The URL of the NATS server, for example nats://user:password@localhost:4222.")
    subject: str = option("jims.events", help="The subject of the messages.")


@hookimpl
def jimsapi_options() -> type[Options]:
    return NatsOptions


@hookimpl
def jimsapi_event_sink(settings: Settings) -> "NatsSink | None":
    """Return the sink, or None if it is not configured. The URL is a secret because it may have a password."""
    options = settings.get(NatsOptions)
    if options.url is None:
        return None
    from jimsapi_nats.sink import NatsSink

    return NatsSink(options.url, options.subject)
