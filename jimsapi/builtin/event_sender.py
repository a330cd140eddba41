"""Sends events to a URL. This module imports an HTTP client. Import it only if a URL is configured."""

import asyncio
import base64
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self
from uuid import UUID

import httpx
import orjson

from jimsapi.plugins import Secret
from jimsapi.runs import EventRefused, signatures
from jimsapi.threads import CLOUD_EVENTS_TYPE, SinkEvent, cloud_event_of, event_object, sink_event_id

CALLS_AT_ONCE = 16
CALL_TIMEOUT = 5.0
"""Seconds for each step of a call: to connect, to send, and to wait for more of the response."""
READ_AT_MOST = 65_536
"""Bytes of a response."""
READ_WITHIN = 1.0
"""Seconds for the rest of a response whose status is known. The connection of a response that is not complete by then
is closed, and the next call makes a new one."""
REFUSALS = frozenset({400, 413, 415, 422})
"""The statuses by which a receiver says that it will never accept the event. After any other one it comes again."""
DELIVER_WITHIN = 9.0
"""Seconds after which the calls of a batch are given up. The caller of `deliver` would cancel it after 10 seconds."""
CALL_EXPECTED = 1.0
"""Seconds that are kept free for a call, unless calls of the batch took longer."""
REMEMBERED_FOR = 60.0
"""Seconds for which an accepted event is remembered after it last came. Pauses between two attempts are shorter."""
REMEMBERED_AT_MOST = 10_000
"""Events. A batch has at most 500."""

Key = tuple[UUID | None, UUID, UUID | None]
"""The thread of an event, the event, and the run. An event of the history has no run, so a rewind sends it again."""

_REASONS: dict[type[BaseException], str] = {
    httpx.ConnectTimeout: f"no connection within {CALL_TIMEOUT:g} s",
    httpx.ConnectError: "the receiver closed the connection during the TLS handshake",
    httpx.WriteTimeout: f"the receiver did not read the call within {CALL_TIMEOUT:g} s",
    httpx.ReadTimeout: f"no response within {CALL_TIMEOUT:g} s",
    httpx.WriteError: "the receiver closed the connection while the call was sent",
    httpx.ReadError: "the receiver closed the connection without a response",
    TimeoutError: f"the response had not begun when the time for the batch, {DELIVER_WITHIN:g} s, was over",
}

_HOST = re.compile(r"[A-Za-z0-9._:-]+")


class UnexpectedStatus(Exception):
    """The receiver answered with a status that is neither a success nor a refusal."""


class DeliveryUnfinished(TimeoutError):
    """The time for a batch was too short for all of its events. The caller then delivers fewer at a time."""


class AcceptedEvents:
    """The events that the receiver accepted from a batch that did not succeed, so that they soon come again.

    An event is forgotten some time after it last came. It may come again much later, since an operator wants it sent
    again, or since another process has delivered the rest of the batch meanwhile.
    """

    def __init__(self) -> None:
        self._times: dict[Key, float] = {}
        """When each last came, the oldest first."""

    def add(self, key: Key) -> None:
        self._times.pop(key, None)
        self._times[key] = time.monotonic()
        if len(self._times) > REMEMBERED_AT_MOST:
            del self._times[next(iter(self._times))]

    def came_again(self, key: Key) -> bool:
        """Return whether the event is one of them, and if it is, remember it for longer."""
        known = key in self._times
        if known:
            self.add(key)
        return known

    def discard(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._times.pop(key, None)

    def forget_old(self) -> None:
        oldest = time.monotonic() - REMEMBERED_FOR
        for key, last in list(self._times.items()):
            if last > oldest:
                return
            del self._times[key]


class Delivery:
    """The state of one batch: what was refused, how many events are left for later, and the time."""

    def __init__(self) -> None:
        self.calls = asyncio.Semaphore(CALLS_AT_ONCE)
        self.refused: list[tuple[SinkEvent, int]] = []
        self.left = 0
        self._time = asyncio.get_running_loop().time
        self.until = self._time() + DELIVER_WITHIN
        """In the time of the event loop."""
        self._longest_call = CALL_EXPECTED

    def has_time(self) -> bool:
        """Return whether a call that starts now ends in time, even if it takes as long as the longest one did."""
        return self._time() + self._longest_call <= self.until

    @contextmanager
    def timed_call(self) -> Iterator[None]:
        started = self._time()
        try:
            yield
        finally:
            self._longest_call = max(self._longest_call, self._time() - started)


class EventSender:
    """Sends each event in a request of its own: those of a thread in order, and those of several threads at once.

    `url` may have a user and a password, which are sent as Basic authentication. `keys`: each key makes a signature.
    `as_cloud_events`: the body is a CloudEvent in the structured mode of HTTP. Raises `ValueError`, which shows no part
    of the URL, if no request can be sent to `url`.
    """

    name = "event-webhook"
    durable = True

    def __init__(self, url: str, keys: Sequence[bytes], *, as_cloud_events: bool = False) -> None:
        self._url, self._authorization = _address_and_authorization(url)
        self._keys = tuple(keys)
        self._as_cloud_events = as_cloud_events
        # httpx's client would log whole URLs, so this uses only its transport. `Delivery` limits the calls: a limit of
        # connections would count one for ever if a call is cancelled at the moment at which it gets its connection.
        self._transport = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_keepalive_connections=CALLS_AT_ONCE))
        self._accepted = AcceptedEvents()

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

        Raises `UnexpectedStatus`, `httpx.TransportError` or `TimeoutError` if some have to be sent again, of which
        `DeliveryUnfinished` says that some were not sent. When the same events come again soon, the accepted ones among
        them are not sent again.
        """
        self._accepted.forget_old()
        threads: dict[UUID | None, list[SinkEvent]] = {}
        for event in events:
            threads.setdefault(event.thread_id, []).append(event)
        delivery = Delivery()
        sending = [self._send_in_order(thread, delivery) for thread in threads.values()]
        results = await asyncio.gather(*sending, return_exceptions=True)
        if delivery.refused:  # first, since the refused events would be sent again after any other error
            statuses = ", ".join(sorted({str(status) for _, status in delivery.refused}))
            raise EventRefused(f"the receiver answered {statuses}", [event for event, _ in delivery.refused])
        for result in results:
            if isinstance(result, BaseException):
                raise _with_reason(result)
        if delivery.left:
            raise DeliveryUnfinished(
                f"{delivery.left} of {len(events)} events come later, since the receiver is too slow for all at once"
            )
        self._accepted.discard(map(_key, events))

    async def _send_in_order(self, events: Sequence[SinkEvent], delivery: Delivery) -> None:
        """Send the events of a thread, and stop before one for which the time is too short."""
        for number, event in enumerate(events):
            if self._accepted.came_again(_key(event)):
                continue
            async with delivery.calls:
                if not delivery.has_time():
                    delivery.left += len(events) - number
                    return
                with delivery.timed_call():
                    status = await self._send(event, delivery.until)
            if status in REFUSALS:
                delivery.refused.append((event, status))
            elif not 200 <= status < 300:
                raise UnexpectedStatus(f"the answer was {status}")
            else:
                self._accepted.add(_key(event))

    async def _send(self, event: SinkEvent, until: float) -> int:
        """Send one event, and return the status of the response. Raises `TimeoutError` if there is none in time."""
        sent_id = sink_event_id(event)
        body, content_type = self._body(event)
        timestamp = int(time.time())
        headers = {
            "content-type": content_type,
            "user-agent": "jimsapi",
            "webhook-id": sent_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures(self._keys, sent_id, timestamp, body),
        }
        if self._authorization is not None:
            headers["authorization"] = self._authorization.reveal()
        request = httpx.Request(
            "POST",
            self._url,
            headers=headers,
            content=body,
            extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), CALL_TIMEOUT)},
        )
        async with asyncio.timeout_at(until):
            try:
                response = await self._transport.handle_async_request(request)
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                # The receiver has closed a connection that it had kept. It drops what it receives twice.
                response = await self._transport.handle_async_request(request)
        try:
            # The status is known, and the rest of the response does not matter.
            read_until = asyncio.get_running_loop().time() + READ_WITHIN
            with suppress(httpx.TransportError, TimeoutError):
                async with asyncio.timeout_at(min(until, read_until)):
                    await _read_some(response)
        finally:
            await response.aclose()
        return response.status_code

    def _body(self, event: SinkEvent) -> tuple[bytes, str]:
        """Return the body for an event, and its content type."""
        if self._as_cloud_events:
            return orjson.dumps(cloud_event_of(event)), CLOUD_EVENTS_TYPE
        fields = event_object(event)
        data = {name: fields[name] for name in ("thread_id", "event_id", "contact_id", "run_id", "event_data")}
        payload = {"type": event.event_type, "timestamp": fields["created_at"], "data": data}
        return orjson.dumps(payload), "application/json"


async def _read_some(response: httpx.Response) -> None:
    """Read the body, so that the connection can be used again, unless it is too large for that."""
    left = READ_AT_MOST
    assert isinstance(response.stream, httpx.AsyncByteStream)  # as the transport is asynchronous
    async for chunk in response.stream:  # `aiter_raw` would close the response at its end
        left -= len(chunk)
        if left < 0:
            return


def _with_reason(error: BaseException) -> BaseException:
    """Return an error of a call with a text for the log, since most of the HTTP client's errors have none."""
    reason = None if str(error) else _REASONS.get(type(error))
    return error if reason is None else type(error)(reason)


def _key(event: SinkEvent) -> Key:
    return event.thread_id, event.event_id, event.run_id


def _address_and_authorization(url: str) -> tuple[httpx.URL, Secret | None]:
    """Return a URL without its user and password, and the header that sends these."""
    try:
        address = httpx.URL(url)
        host = address.raw_host.decode()
        valid = bool(address.host and _HOST.fullmatch(host) and host.encode("idna"))
    except (httpx.InvalidURL, ValueError):
        valid = False
    if not valid:
        raise ValueError("it is not a URL with a valid host")
    if not address.userinfo:
        return address, None
    if not (address.username and address.password):
        # A text before the @ that is not clearly a password would be shown, for example by `jimsapi config`.
        raise ValueError("it has a user without a password, or a password without a user; give user:password@")
    login = f"{address.username}:{address.password}".encode()
    return address.copy_with(userinfo=b""), Secret(f"Basic {base64.b64encode(login).decode()}")
