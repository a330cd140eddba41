"""A durable sink that publishes every event to a stream of NATS JetStream."""

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID

import nats.errors
import orjson
from nats.aio.client import Client
from nats.js.api import StreamInfo
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from jimsapi.plugins import StartError
from jimsapi.runs import EventRefused
from jimsapi.threads import CLOUD_EVENTS_TYPE, SinkEvent, cloud_event_of, event_object, sink_event_id
from jimsapi_nats.connection import NotConnected, Servers, logger
from jimsapi_nats.stream import StreamClient, receives

THREADS_AT_ONCE = 64
ACKNOWLEDGED_WITHIN = 3.0
"""Seconds for which the sink waits until the server acknowledges an event."""
DELIVER_WITHIN = 9.0
"""Seconds in which a batch must end. The caller of `deliver` cancels it after 10 seconds."""
HEADERS_AT_MOST = 512
"""Bytes. The server counts the headers of a message as a part of it."""
MESSAGE_TOO_LARGE = 10054
"""The error code of JetStream for a message that is larger than the stream accepts."""


class NotAcknowledged(ConnectionError):
    """The server did not acknowledge an event, so that it has to be published again."""


class DeliveryUnfinished(TimeoutError):
    """The time for a batch was too short for all of its events. The caller then delivers fewer at a time."""


class Delivery:
    """The state of one batch. It ends before its time is over, and at the first event that fails."""

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(THREADS_AT_ONCE)
        self.refused: list[tuple[SinkEvent, str]] = []
        self.has_failed = False
        self.left = 0
        self._until = time.monotonic() + DELIVER_WITHIN

    def has_time(self) -> bool:
        """Return whether an event that is published now is acknowledged in time, or fails in time."""
        return time.monotonic() + ACKNOWLEDGED_WITHIN <= self._until


class EventPublisher(StreamClient):
    """Publishes each event to a subject, and waits until the stream has stored it.

    An event is published only when the one before it in its thread is stored. Otherwise the loss of one message would
    change the order, since that event is published again. The header `Nats-Msg-Id` is the same whenever an event is
    published, so JetStream ignores what it has stored a short time ago.

    `as_cloud_events`: a message is a CloudEvent in the structured mode, as the NATS protocol binding 1.0.2 specifies.
    The header `content-type` names it, which the next version of the binding specifies.
    """

    name = "nats"
    durable = True

    def __init__(self, servers: Servers, subject: str, stream: str, *, as_cloud_events: bool = False) -> None:
        super().__init__(servers, "jimsapi events", subject, stream)
        self._as_cloud_events = as_cloud_events

    async def deliver(self, events: Sequence[SinkEvent]) -> None:
        """Publish events. Raises `EventRefused` for those that are too large for the server or the stream.

        Raises `NotConnected`, `NotAcknowledged`, an error of the client library or `DeliveryUnfinished` if some have to
        be published again.
        """
        threads: dict[UUID | None, list[SinkEvent]] = {}
        for event in events:
            threads.setdefault(event.thread_id, []).append(event)
        delivery = Delivery()
        publishing = [self._publish_in_order(thread, delivery) for thread in threads.values()]
        results = await asyncio.gather(*publishing, return_exceptions=True)
        if delivery.refused:  # first, since the refused events would be published again after any other error
            raise EventRefused(delivery.refused[0][1], [event for event, _ in delivery.refused])
        for result in results:
            if isinstance(result, BaseException):
                raise result
        if delivery.left:
            raise DeliveryUnfinished(f"{delivery.left} of {len(events)} events come later, since the server is slow")

    async def _publish_in_order(self, events: Sequence[SinkEvent], delivery: Delivery) -> None:
        """Publish the events of a thread, one after another."""
        for number, event in enumerate(events):
            async with delivery.places:
                if delivery.has_failed:
                    return
                if not delivery.has_time():
                    delivery.left += len(events) - number
                    return
                try:
                    reason = await self._publish(event)
                except BaseException:
                    delivery.has_failed = True
                    raise
            if reason is not None:
                delivery.refused.append((event, reason))

    async def _publish(self, event: SinkEvent) -> str | None:
        """Publish an event, and wait until the stream has it. Returns why it never will; None if it has it."""
        headers = {"Nats-Msg-Id": sink_event_id(event)}
        if self._as_cloud_events:
            payload = orjson.dumps(cloud_event_of(event))
            headers["content-type"] = CLOUD_EVENTS_TYPE
        else:
            payload = orjson.dumps(event_object(event))

        async def publish(client: Client) -> str | None:
            if len(payload) > client.max_payload - HEADERS_AT_MOST:
                return f"it has {len(payload)} bytes, and the server accepts messages of {client.max_payload}"
            try:
                await client.jetstream().publish(
                    self._subject, payload, timeout=ACKNOWLEDGED_WITHIN, stream=self._stream, headers=headers
                )
            except APIError as error:
                if error.err_code == MESSAGE_TOO_LARGE:
                    return f"it has {len(payload)} bytes, which is more than the stream {self._stream} accepts"
                raise
            return None

        try:
            return await self._connection.call(publish)
        except NoStreamResponseError:
            raise NotAcknowledged(f"no stream of the NATS server receives the subject {self._subject}") from None
        except nats.errors.TimeoutError:
            text = f"the NATS server did not acknowledge an event within {ACKNOWLEDGED_WITHIN:g} s"
            raise NotAcknowledged(text) from None

    async def _check_stream(self) -> None:
        """Raise `StartError` if the server lacks the stream, or if the stream does not receive the events."""
        if not self._connection.is_open:
            logger.warning("event sink %s: the NATS server cannot be reached, and events wait until it can", self.name)
            return
        create = f"nats stream add {self._stream} --subjects {self._subject}"

        async def look(client: Client) -> StreamInfo:
            return await client.jetstream().stream_info(self._stream)

        try:
            info = await self._connection.call(look)
        except NotFoundError:
            raise StartError(
                f"--nats-stream: the NATS server has no stream {self._stream}; create it, for example with: {create}"
            ) from None
        except (NotConnected, nats.errors.Error) as error:
            text = "event sink %s cannot look at the stream %s now, and events wait until it has them: %s"
            logger.warning(text, self.name, self._stream, type(error).__name__)
            return
        subjects = info.config.subjects or []
        if not any(receives(pattern, self._subject) for pattern in subjects):
            raise StartError(
                f"--nats-stream: the stream {self._stream} receives {', '.join(subjects) or 'no subject'}, and not "
                f"{self._subject}; add that subject to the stream, or change --nats-prefix"
            )
