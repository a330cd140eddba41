"""Sends events to a URL. This module imports an HTTP client. Import it only if a URL is configured."""

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx
import orjson

from jimsapi.runs import EventRefused, signatures
from jimsapi.threads import SinkEvent, event_object

CALLS_AT_ONCE = 16
CALL_TIMEOUT = 5.0
"""Seconds for each step of a call: to connect, to send, and to wait for more of the response."""
READ_AT_MOST = 65_536
"""Bytes of a response."""
REFUSALS = frozenset({400, 413, 415, 422})
"""The statuses by which a receiver says that it will never accept the event. After any other one it comes again."""


class UnexpectedStatus(Exception):
    """The receiver answered with a status that is neither a success nor a refusal."""


class EventSender:
    """Sends each event in a request of its own: those of a thread in order, and those of several threads at once.

    `keys`: each key makes a signature. `as_cloud_events`: the body is a CloudEvent in the structured mode of HTTP.
    """

    name = "event-webhook"
    durable = True

    def __init__(self, url: str, keys: Sequence[bytes], *, as_cloud_events: bool = False) -> None:
        self._url = httpx.URL(url)
        self._keys = tuple(keys)
        self._as_cloud_events = as_cloud_events
        # httpx's client would log whole URLs, so this uses only its transport.
        self._transport = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=CALLS_AT_ONCE))
        self._sent: set[tuple[UUID | None, UUID]] = set()
        """What was sent of a batch that failed, and will come again."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._url.host!r})"

    async def deliver(self, events: Sequence[SinkEvent]) -> None:
        """Send events. Raises `EventRefused` for those that the receiver will never accept.

        Raises `UnexpectedStatus` or `httpx.TransportError` if some events have to be sent again.
        """
        threads: dict[UUID | None, list[SinkEvent]] = {}
        for event in events:
            threads.setdefault(event.thread_id, []).append(event)
        calls = asyncio.Semaphore(CALLS_AT_ONCE)
        refused: list[tuple[UUID, int]] = []
        sending = [self._send_in_order(thread, calls, refused) for thread in threads.values()]
        results = await asyncio.gather(*sending, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        self._sent.clear()
        if refused:
            statuses = ", ".join(sorted({str(status) for _, status in refused}))
            raise EventRefused(f"the receiver answered {statuses}", [event_id for event_id, _ in refused])

    async def _send_in_order(
        self, events: Sequence[SinkEvent], calls: asyncio.Semaphore, refused: list[tuple[UUID, int]]
    ) -> None:
        for event in events:
            key = (event.thread_id, event.event_id)
            if key in self._sent:
                continue
            async with calls:
                status = await self._send(event)
            if status in REFUSALS:
                refused.append((event.event_id, status))
            elif not 200 <= status < 300:
                raise UnexpectedStatus(f"the answer was {status}")
            else:
                self._sent.add(key)

    async def _send(self, event: SinkEvent) -> int:
        """Send one event, and return the status of the response."""
        sent_id = _identifier(event)
        body, content_type = self._body(event, sent_id)
        timestamp = int(time.time())
        request = httpx.Request(
            "POST",
            self._url,
            headers={
                "content-type": content_type,
                "user-agent": "jimsapi",
                "webhook-id": sent_id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": signatures(self._keys, sent_id, timestamp, body),
            },
            content=body,
            extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), CALL_TIMEOUT)},
        )
        try:
            response = await self._transport.handle_async_request(request)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            # The receiver has closed a connection that it had kept. It drops what it receives twice.
            response = await self._transport.handle_async_request(request)
        try:
            await _read_some(response)
        finally:
            await response.aclose()
        return response.status_code

    def _body(self, event: SinkEvent, sent_id: str) -> tuple[bytes, str]:
        """Return the body for an event, and its content type."""
        fields = event_object(event)
        if not self._as_cloud_events:
            data = {name: fields[name] for name in ("thread_id", "event_id", "contact_id", "run_id", "event_data")}
            payload = {"type": event.event_type, "timestamp": fields["created_at"], "data": data}
            return orjson.dumps(payload), "application/json"
        envelope: dict[str, Any] = {
            "specversion": "1.0",
            "id": sent_id,
            "source": f"/threads/{event.thread_id}",
            "type": event.event_type,
            "time": fields["created_at"],
            "contactid": event.contact_id,
            "runid": event.run_id,
            "datacontenttype": "application/json",
            "data": event.event_data,
        }
        return orjson.dumps({name: value for name, value in envelope.items() if value is not None}), (
            "application/cloudevents+json"
        )


async def _read_some(response: httpx.Response) -> None:
    """Read the body, so that the connection can be used again, unless it is too large for that."""
    left = READ_AT_MOST
    async for chunk in response.aiter_raw():
        left -= len(chunk)
        if left < 0:
            return


def _identifier(event: SinkEvent) -> str:
    """Return the identifier of an event, which is the same whenever it is sent. A fork has events of its parent."""
    thread_id = UUID(int=0) if event.thread_id is None else event.thread_id
    return f"{thread_id.hex}_{event.event_id.hex}"
