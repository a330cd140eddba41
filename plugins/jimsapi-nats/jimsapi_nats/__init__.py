"""NATS for jimsapi: `--nats-url`.

This module has the options and the hooks. The hooks import the rest of the package only for a URL.
"""

import re
from typing import TYPE_CHECKING, Any, Literal

from jimsapi import Options, Secret, hookimpl, option
from jimsapi.plugins import OptionError, Settings

if TYPE_CHECKING:
    from jimsapi.runs import RunService
    from jimsapi_nats.link import NatsLink
    from jimsapi_nats.sink import EventPublisher
    from jimsapi_nats.work import WorkStream

_PREFIX = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_STREAM = re.compile(r"[A-Za-z0-9_-]+")


class NatsOptions(Options, prefix="nats"):
    """A NATS server, by which replicas show each other's live streams, and which may receive all events and runs."""

    url: Secret | None = option(
        help="The NATS server, such as nats://user:password@localhost:4222; several of a cluster are separated by "
        "commas."
    )
    stream: str | None = option(help="Publish every stored event to this JetStream stream, which you create.")
    format: Literal["json", "cloudevents"] = option(
        "json", help="Whether --nats-stream receives objects of this server's own, or CloudEvents."
    )
    work: str | None = option(help="Leave background runs to workers, by this JetStream stream, which you create.")
    prefix: str = option("jims", help="The beginning of all subjects, such as jims.events.")

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        if not _PREFIX.fullmatch(self.prefix):
            raise OptionError("--nats-prefix may have letters, digits, - and _, in parts that are separated by dots")
        for flag, stream in (("--nats-stream", self.stream), ("--nats-work", self.work)):
            if stream is None:
                continue
            if not _STREAM.fullmatch(stream):
                raise OptionError(f"{flag} is not the name of a stream: it may have letters, digits, - and _")
            if self.url is None:
                raise OptionError(f"{flag} needs --nats-url, the NATS server that has the stream")


@hookimpl
def jimsapi_options() -> type[Options]:
    return NatsOptions


@hookimpl
def jimsapi_event_sink(settings: Settings) -> "EventPublisher | None":
    options = settings.get(NatsOptions)
    if options.url is None or options.stream is None:
        return None
    from jimsapi_nats.connection import servers_of
    from jimsapi_nats.sink import EventPublisher

    as_cloud_events = options.format == "cloudevents"
    subject = f"{options.prefix}.events"
    return EventPublisher(servers_of(options.url), subject, options.stream, as_cloud_events=as_cloud_events)


@hookimpl
def jimsapi_replica_link(settings: Settings) -> "NatsLink | None":
    options = settings.get(NatsOptions)
    if options.url is None:
        return None
    from jimsapi_nats.connection import servers_of
    from jimsapi_nats.link import NatsLink

    return NatsLink(servers_of(options.url), f"{options.prefix}.live")


@hookimpl
def jimsapi_routes(service: "RunService", settings: Settings) -> "WorkStream | None":
    options = settings.get(NatsOptions)
    if options.url is None or options.work is None:
        return None
    from jimsapi_nats.connection import servers_of
    from jimsapi_nats.work import WorkStream

    queue = WorkStream(servers_of(options.url), f"{options.prefix}.work", options.work)
    service.use_workers(queue)
    return queue
