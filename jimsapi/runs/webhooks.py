"""Webhooks: the server calls the `webhook_url` of a message when its run has ended.

The calls follow Standard Webhooks 1.0.0 (https://github.com/standard-webhooks/standard-webhooks): they are signed, and
failed calls are retried. Callers choose the URL, so it is not trusted: a call connects to public addresses only,
follows no redirect, reads only the status, and has a time limit.

The store has the webhooks of all runs that have ended (`jimsapi.threads.outbox`), until they are called. A process
calls those of its own runs at once, and looks for others that are due: those of dead processes, and those for which it
had no room.

This module imports an HTTP client. Import it only if webhooks are configured.
"""

import asyncio
import logging
import random
import socket
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import cast
from uuid import UUID

import httpx

from jimsapi.runs.plugin_code import PLUGIN_EXITS, own_task_is_cancelled
from jimsapi.runs.signing import signatures, webhook_id
from jimsapi.runs.tasks import EndlessTask, ServiceTask
from jimsapi.threads.errors import InputRefused, RunNotFound, StoreUnavailable
from jimsapi.threads.outbox import WEBHOOK_HOLD, Outbox
from jimsapi.threads.run import OPEN, StoredRun
from jimsapi.threads.store import ThreadStore

logger = logging.getLogger("jimsapi.webhooks")

MAX_URL = 2_000
"""Characters."""
RETRY_AFTER = (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0)
"""Seconds between a failed call and the next one. After the last value, the webhook has failed."""
LONGEST_RETRY_AFTER = 7200.0
"""The most seconds between two calls that a receiver can request with `Retry-After`."""
CALL_TIMEOUT = 15.0
"""Seconds for one call, from resolving the host name to reading the status."""
CONNECT_TIMEOUT = 5.0
"""Seconds to connect to one address of a receiver. After that, the next address is tried."""
ADDRESSES = 3
"""The most addresses of a receiver that one call tries."""
CALLS_AT_ONCE = 16
CALLS_AT_ONCE_TO_A_HOST = 4
PENDING_LIMIT = 1000
"""The most webhooks that wait in this process. Others wait in the store, where callers take turns."""
PENDING_OF_A_HOST = 100
"""The most webhooks for one host that wait in this process."""
LOOK_EVERY = 5.0
"""Seconds after which a process looks for webhooks that are due. It then also keeps those that wait in it."""
TAKEN_AT_ONCE = 64
"""The most webhooks that a process takes from the store at once."""

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Resolves a host and port to addresses. Raises `OSError` or `UnicodeError` if there are none."""

_RETRIED_STATUSES = frozenset({408, 409, 425, 429})  # and 5xx

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are the address of IPv4
_UNICAST = IPv6Network("2000::/3")  # all publicly routed addresses
_SPECIAL_6 = tuple(map(IPv6Network, ("2001::/23", "2002::/16", "3fff::/20")))  # Teredo and such, 6to4, documentation
_SPECIAL_4 = (
    IPv4Network("192.0.0.0/24"),  # RFC 6890
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
    IPv4Network("168.63.129.16/32"),  # the host below a machine of Azure
)


def is_public(address: str) -> bool:
    """Return whether an IP address is public, also if it is an IPv4 address written as an IPv6 address."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        embedded = IPv4Address(int(ip) & 0xFFFF_FFFF) if ip in _NAT64 else ip.ipv4_mapped
        if embedded is None:
            return ip in _UNICAST and ip.is_global and not any(ip in network for network in _SPECIAL_6)
        ip = embedded
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _SPECIAL_4)


class Undelivered(Exception):
    """A call failed. The message says why and does not quote the URL.

    `retry`: the call may be retried, at the earliest after the `delay` in seconds that the receiver requested.
    `outcome` is how the webhook is counted if the call is not retried.
    """

    def __init__(self, reason: str, *, retry: bool = False, delay: float = 0.0, outcome: str = "failed") -> None:
        super().__init__(reason)
        self.retry = retry
        self.delay = delay
        self.outcome = outcome


class Receivers:
    """Calls URLs that callers chose, and signs the calls as Standard Webhooks 1.0.0 describes.

    A call connects to public addresses only, follows no redirect, reads only the status, and has a time limit.

    - `keys`: each key makes a signature. Without keys, calls are not signed.
    - `allow_private` permits addresses that are not public, and URLs without TLS.
    """

    def __init__(self, keys: Sequence[bytes], *, allow_private: bool = False, resolver: Resolver | None = None) -> None:
        self._keys = tuple(keys)
        self._allow_private = allow_private
        self._resolve = resolver or self._look_up
        # httpx's client would log whole URLs, use proxies and keep cookies, so this uses only its transport.
        # Connections are not reused: the next webhook with the same address may have another host.
        self._transport = httpx.AsyncHTTPTransport(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        )
        # These threads are separate, so that a name server that does not answer does not block asyncio's threads. A
        # lookup may take longer than its call, so there are twice as many threads as calls.
        self._threads = ThreadPoolExecutor(2 * CALLS_AT_ONCE, "webhook names")

    def check(self, url: str, field: str = "webhook_url") -> httpx.URL:
        """Parse a URL, the value of `field`. Raises `InputRefused` if it is invalid. The call checks the host."""
        try:
            parsed = httpx.URL(url) if len(url) <= MAX_URL else None
            host = "" if parsed is None else parsed.host
        except (httpx.InvalidURL, UnicodeError):  # `UnicodeError`: a name with a faulty `xn--`
            raise _refusal(field, "is not a URL") from None
        if parsed is None:
            raise _refusal(field, f"should have at most {MAX_URL} characters")
        if parsed.scheme != "https" and not (self._allow_private and parsed.scheme == "http"):
            raise _refusal(field, "should begin with https://")
        if not host:
            raise _refusal(field, "should name a host")
        if parsed.port is not None and not 0 < parsed.port < 65536:
            raise _refusal(field, "should name a port from 1 to 65535")
        if parsed.userinfo:
            raise _refusal(field, "should contain no user and no password")
        if not self._allow_private and _is_private_literal(host):
            raise _refusal(field, "should have a public address")
        return parsed

    async def call(self, url: httpx.URL, body: bytes, headers: Mapping[str, str], webhook_id: str) -> None:
        """Make one call. Raises `Undelivered` if it fails.

        `headers` has the content type. `webhook_id` is the same for each call that repeats an earlier one.
        """
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                response = await self._post(url, body, headers, webhook_id)
        except TimeoutError:
            raise Undelivered(f"no answer within {CALL_TIMEOUT:g} s", retry=True) from None
        except httpx.ConnectError as error:
            raise Undelivered(f"no connection: {error}", retry=True) from None
        except httpx.TransportError as error:
            raise Undelivered(type(error).__name__, retry=True) from None
        if response.is_success:
            return
        status = response.status_code
        retry = status in _RETRIED_STATUSES or status >= 500
        raise Undelivered(f"the answer was {status}", retry=retry, delay=_retry_after(response.headers))

    async def close(self) -> None:
        """Close the connections. No call may be open."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._transport.aclose()

    async def _post(self, url: httpx.URL, body: bytes, headers: Mapping[str, str], webhook_id: str) -> httpx.Response:
        """Resolve the host, send the request, and return the answer without its body.

        Raises `Undelivered` or `httpx.TransportError`.
        """
        try:
            found = await self._resolve(url.raw_host.decode(), url.port or (443 if url.scheme == "https" else 80))
        except (OSError, UnicodeError):
            raise Undelivered("its host name cannot be resolved", retry=True) from None
        addresses = [address for address in found if self._allow_private or is_public(address)]
        if not addresses:
            raise Undelivered("its host has no public address", outcome="refused")
        *others, last = addresses[:ADDRESSES]
        for address in others:
            with suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._send(url, address, body, headers, webhook_id)
        return await self._send(url, last, body, headers, webhook_id)

    async def _send(
        self, url: httpx.URL, address: str, body: bytes, headers: Mapping[str, str], webhook_id: str
    ) -> httpx.Response:
        """Send the request to `address`, which was checked. Resolving the host again could return another address."""
        request = httpx.Request(
            "POST",
            url.copy_with(host=address),
            headers={**headers, "host": url.netloc.decode(), "user-agent": "jimsapi", **self._signed(webhook_id, body)},
            content=body,
            extensions={
                # Certificates have the host's name without a final dot.
                "sni_hostname": url.raw_host.decode().rstrip("."),
                "timeout": {"connect": CONNECT_TIMEOUT},  # `CALL_TIMEOUT` limits the whole call
            },
        )
        response = await self._transport.handle_async_request(request)
        # The body is not read, since its size is unknown. In a task of its own: if httpcore is cancelled while it
        # closes a response, its pool loses a place.
        await asyncio.shield(asyncio.create_task(response.aclose()))
        return response

    def _signed(self, webhook_id: str, body: bytes) -> dict[str, str]:
        """Return the headers by which a receiver recognizes a call that comes again, and verifies its sender."""
        timestamp = int(time.time())
        headers = {"webhook-id": webhook_id, "webhook-timestamp": str(timestamp)}
        if self._keys:
            headers["webhook-signature"] = signatures(self._keys, webhook_id, timestamp, body)
        return headers

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Webhook:
    """The webhook of a run that has ended, and the number of its calls."""

    __slots__ = ("called_here", "calls", "run_id", "timer", "url")

    def __init__(self, run_id: UUID, url: httpx.URL, calls: int = 0) -> None:
        self.run_id = run_id
        self.url = url
        self.calls = calls
        self.called_here = False
        self.timer: asyncio.TimerHandle | None = None


class Webhooks:
    """Calls webhooks, and retries each until it is delivered or has failed.

    - `keys`: each key makes a signature.
    - `store`: the store of the runs.
    - `body` makes the payload of a run that has ended, and `content_type` is its type.
    - `allow_private` permits addresses that are not public, and URLs without TLS.
    - `retry_after`: seconds between a failed call and the next one.

    `outcomes` counts webhooks as `delivered`, `failed`, `refused` (the host has no permitted address) and `dropped`
    (the run was deleted, or the process ended and the store does not last). `in_store` is how many the store had when
    it was last asked.
    """

    def __init__(
        self,
        keys: Sequence[bytes],
        store: ThreadStore,
        body: Callable[[StoredRun], bytes],
        *,
        content_type: str = "application/json",
        allow_private: bool = False,
        resolver: Resolver | None = None,
        retry_after: Sequence[float] = RETRY_AFTER,
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self._store = store
        self._body = body
        self._content_type = content_type
        self._receivers = Receivers(keys, allow_private=allow_private, resolver=resolver)
        self._retry_after = tuple(retry_after)
        self._pending: set[Webhook] = set()
        self._ready: dict[str, deque[Webhook]] = {}
        self._calls: Counter[str] = Counter()
        self._tasks: set[ServiceTask[None]] = set()
        self._of_hosts: Counter[str] = Counter()
        self.in_store = 0
        self._left: set[UUID] = set()
        self._not_called: set[UUID] = set()  # and will not be, although the store has them
        self._room = asyncio.Event()
        self._looking = EndlessTask(self._look, "webhooks that are due")
        self._uncalled = 0
        self._all_called = asyncio.Event()
        self._all_called.set()

    def check(self, url: str) -> httpx.URL:
        """Parse the URL of a webhook, as `Receivers.check` does."""
        return self._receivers.check(url)

    def start(self) -> None:
        """Look for webhooks that are due, in the running loop."""
        self._outbox: Outbox | None = self._store.outbox
        if self._outbox is not None:
            self._looking.start()

    @property
    def waiting(self) -> int:
        """The number of webhooks in this process that are neither delivered nor given up."""
        return len(self._pending)

    def put(self, run_id: UUID, url: str) -> None:
        """Queue a call of `url` for a run that has ended. Does not wait."""
        try:
            webhook = Webhook(run_id, self.check(url))
        except InputRefused as refused:  # an earlier process with other options accepted it
            self.outcomes["refused"] += 1
            self._not_called.add(run_id)
            logger.warning("run %s: its webhook is not called: %s", run_id, refused.message)
            return
        if len(self._pending) >= PENDING_LIMIT or self._of_hosts[webhook.url.host] >= PENDING_OF_A_HOST:
            self._leave(webhook)
        else:
            self._add(webhook)

    def _leave(self, webhook: Webhook) -> None:
        """Leave a webhook in the store, because many others wait."""
        if self._outbox is None:
            self.outcomes["dropped"] += 1
            logger.error("run %s: its webhook at %s is dropped: too many wait", webhook.run_id, webhook.url.host)
        else:
            self._left.add(webhook.run_id)

    def _add(self, webhook: Webhook) -> None:
        self._pending.add(webhook)
        self._of_hosts[webhook.url.host] += 1
        self._uncalled += 1
        self._all_called.clear()
        self._enqueue(webhook)

    async def flush(self, seconds: float) -> None:
        """Wait up to `seconds` until every webhook was called once. Retries are not awaited."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._all_called.wait()

    async def stop(self) -> None:
        """Stop all calls. What is not delivered is left to another process or the next start."""
        await self._looking.stop(1.0)
        for webhook in self._pending:
            if webhook.timer is not None:
                webhook.timer.cancel()
        self._ready.clear()
        for task in self._tasks:
            task.end()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        await self._hand_over()
        await self._receivers.close()

    async def _hand_over(self) -> None:
        """Leave what this process has not delivered to other processes, or the next start.

        They call those at once that were not called yet. The others have their pause, as after any failed call.
        """
        count = len(self._pending)
        if self._outbox is not None and not self._outbox.lasting:
            count = await self._outbox.count_webhooks()
        uncalled = {webhook.run_id: 0 for webhook in self._pending if not webhook.calls}
        called = [webhook for webhook in self._pending if webhook.calls]
        self._pending.clear()
        if not count:
            return
        if self._outbox is None or not self._outbox.lasting:
            self.outcomes["dropped"] += count
            logger.error("dropped undelivered webhooks at shutdown: %d; they will not be retried", count)
            return
        logger.info("undelivered webhooks at shutdown: %d; another process, or the next start, calls them", count)
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._outbox.delay_webhooks(uncalled, 0.0)
                for webhook in called:  # a call was cut off
                    await self._outbox.delay_webhooks({webhook.run_id: webhook.calls}, self._pause_of(webhook))

    async def _look(self) -> None:
        while True:
            self._room.clear()
            with suppress(StoreUnavailable):  # the runs log the outage
                await self._keep()
                while await self._take():
                    pass
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._room.wait()

    async def _keep(self) -> None:
        """Let no other process take the webhooks that wait here for a call, and those that have no room here do so."""
        assert self._outbox is not None
        waiting = {webhook.run_id: webhook.calls for webhook in self._pending if webhook.timer is None}
        if waiting:
            await self._outbox.delay_webhooks(waiting, WEBHOOK_HOLD)
        for run_id in list(self._not_called):
            await self._outbox.end_webhook(run_id)
            self._not_called.discard(run_id)
        if self._left:
            left, self._left = dict.fromkeys(self._left, 0), set()
            await self._outbox.delay_webhooks(left, 0.0)
        self.in_store = await self._outbox.count_webhooks()

    async def _take(self) -> bool:
        """Take webhooks that are due from the store. Returns whether there may be more, and room for them."""
        assert self._outbox is not None
        room = PENDING_LIMIT - len(self._pending)
        if room <= 0:
            return False
        here = {webhook.run_id for webhook in self._pending}
        wanted = min(room, TAKEN_AT_ONCE)
        taken = await self._outbox.take_webhooks(wanted, WEBHOOK_HOLD)
        no_room: dict[UUID, int] = {}
        for due in taken:
            if due.run_id in here:
                continue
            try:
                webhook = Webhook(due.run_id, self.check(due.url), due.calls)
            except InputRefused as refused:
                self.outcomes["refused"] += 1
                logger.warning("run %s: its webhook is not called: %s", due.run_id, refused.message)
                await self._outbox.end_webhook(due.run_id)
                continue
            if self._of_hosts[webhook.url.host] < PENDING_OF_A_HOST:
                self._add(webhook)
            else:
                no_room[due.run_id] = due.calls
        if no_room:
            await self._outbox.delay_webhooks(no_room, LOOK_EVERY)
        return len(taken) == wanted

    def _enqueue(self, webhook: Webhook) -> None:
        self._ready.setdefault(webhook.url.host, deque()).append(webhook)
        self._start_calls()

    def _start_calls(self) -> None:
        """Start as many calls as the limits allow. Hosts take turns, so that a slow host does not block others."""
        while len(self._tasks) < CALLS_AT_ONCE:
            host = next((host for host in self._ready if self._calls[host] < CALLS_AT_ONCE_TO_A_HOST), None)
            if host is None:
                return
            waiting = self._ready.pop(host)
            webhook = waiting.popleft()
            if waiting:
                self._ready[host] = waiting  # at the end of the order
            self._calls[host] += 1
            loop = asyncio.get_running_loop()
            task = ServiceTask.begin(self._call(webhook), loop=loop, name=f"webhook of run {webhook.run_id}")
            self._tasks.add(task)
            task.add_done_callback(partial(self._called, host))

    def _called(self, host: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(cast(ServiceTask[None], task))
        self._calls[host] -= 1
        if not self._calls[host]:
            del self._calls[host]
        self._start_calls()

    async def _call(self, webhook: Webhook) -> None:
        """Make one call. After that, the webhook has ended or waits for a retry."""
        webhook.timer = None
        webhook.calls += 1
        try:
            await self._deliver(webhook)
            await self._end(webhook, "delivered")
        except Undelivered as fault:
            await self._retry_or_fail(webhook, fault)
        except (Exception, *PLUGIN_EXITS):
            if own_task_is_cancelled():
                raise
            logger.exception("run %s: its webhook at %s failed inside the server", webhook.run_id, webhook.url.host)
            await self._end(webhook, "failed")
        if not webhook.called_here:
            webhook.called_here = True
            self._uncalled -= 1
            if not self._uncalled:
                self._all_called.set()

    async def _retry_or_fail(self, webhook: Webhook, fault: Undelivered) -> None:
        if not fault.retry or webhook.calls > len(self._retry_after):
            text = "run %s: its webhook at %s is given up after %d calls: %s"
            logger.error(text, webhook.run_id, webhook.url.host, webhook.calls, fault)
            await self._end(webhook, fault.outcome)
            return
        delay = max(self._pause_of(webhook), fault.delay * spread())
        text = "run %s: its webhook at %s is called again in %.0f s: %s"
        logger.info(text, webhook.run_id, webhook.url.host, delay, fault)
        loop = asyncio.get_running_loop()
        if await self._waits_in_store(webhook, delay):
            self._leave_memory(webhook)
            loop.call_later(delay, self._room.set)
        else:
            webhook.timer = loop.call_later(delay, self._enqueue, webhook)

    async def _waits_in_store(self, webhook: Webhook, delay: float) -> bool:
        """Let a webhook wait in the store. Returns whether the store has it."""
        if self._outbox is None:
            return False
        try:
            return await self._outbox.delay_webhooks({webhook.run_id: webhook.calls}, delay) > 0
        except StoreUnavailable:
            return False

    def _pause_of(self, webhook: Webhook) -> float:
        """Return the seconds until the next call of a webhook that was called."""
        pauses = self._retry_after or (0.0,)
        return pauses[min(webhook.calls, len(pauses)) - 1] * spread()

    def _leave_memory(self, webhook: Webhook) -> None:
        self._pending.discard(webhook)
        self._of_hosts[webhook.url.host] -= 1
        if not self._of_hosts[webhook.url.host]:
            del self._of_hosts[webhook.url.host]
        if self._left:
            self._room.set()

    async def _end(self, webhook: Webhook, outcome: str) -> None:
        if self._outbox is not None:
            try:
                await self._outbox.end_webhook(webhook.run_id)
            except StoreUnavailable:
                self._not_called.add(webhook.run_id)
        self._leave_memory(webhook)
        self.outcomes[outcome] += 1

    async def _deliver(self, webhook: Webhook) -> None:
        """Make one call. Raises `Undelivered` if it fails."""
        body = await self._payload(webhook.run_id)
        headers = {"content-type": self._content_type}
        await self._receivers.call(webhook.url, body, headers, webhook_id(webhook.run_id))

    async def _payload(self, run_id: UUID) -> bytes:
        """Return the body of a call. Raises `Undelivered`.

        Each call reads the run again: keeping thousands of bodies needs too much memory, and threads may be deleted.
        """
        try:
            run = await self._store.run(run_id, None, None)
        except RunNotFound:
            raise Undelivered("the run has been deleted", outcome="dropped") from None
        except StoreUnavailable:
            raise Undelivered("the store does not answer", retry=True) from None
        if run.status in OPEN:
            raise Undelivered("the run's end is not stored yet", retry=True)
        return self._body(run)


def spread() -> float:
    """Return a random factor, which spreads the retries of calls that failed at the same time."""
    return random.uniform(1.0, 1.1)


def _refusal(field: str, fault: str) -> InputRefused:
    """The error for an invalid URL. It does not quote the URL, whose query may have a secret."""
    return InputRefused(field, "webhook_url", f"The URL of a webhook {fault}", None)


def _is_private_literal(host: str) -> bool:
    try:
        return not is_public(host)
    except ValueError:  # it is a host name
        return False


def _retry_after(headers: httpx.Headers) -> float:
    """The seconds of the header `Retry-After` (RFC 9110, section 10.2.3); 0 if it is missing or invalid."""
    text = headers.get("retry-after", "")
    seconds = 0.0
    if text.isascii() and text.isdigit():
        seconds = float(text)
    else:
        with suppress(ValueError, TypeError, OverflowError):
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
