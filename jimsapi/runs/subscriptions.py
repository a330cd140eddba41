"""Notifies the receivers that plugins have subscribed to runs (`jimsapi.threads.subscriptions`).

The store keeps each subscription until its receiver has learnt the last notice. A process looks at those whose run has
ended in it at once, and at all others from time to time. So a receiver is notified also if the process of the run dies,
if another process answers the next message, and if the run had ended before the subscription was added.

The calls follow the rules of webhooks (`jimsapi.runs.webhooks`): public addresses only, signed if there is a secret,
and retried. This module imports the HTTP client when the first subscription needs it.
"""

import asyncio
import importlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, cast
from uuid import UUID

import msgspec

from jimsapi.runs.plugin_code import PLUGIN_EXITS, own_task_is_cancelled
from jimsapi.runs.tasks import EndlessTask, ServiceTask
from jimsapi.threads.errors import InputRefused, RunNotFound, StoreLacks, StoreUnavailable
from jimsapi.threads.event import EPOCH, utc_now
from jimsapi.threads.ids import derived_id
from jimsapi.threads.store import ThreadStore
from jimsapi.threads.subscriptions import Subscription, SubscriptionStore

if TYPE_CHECKING:
    from jimsapi.runs.webhooks import Receivers, Resolver  # imports an HTTP client

logger = logging.getLogger("jimsapi.webhooks")

LOOK_EVERY = 5.0
"""Seconds after which a process looks for subscriptions that are due."""
WAKES_WITHIN = 60.0
"""Seconds up to which a process looks exactly when a subscription is due again."""
PAUSE = 0.02
"""Seconds between two looks, so that a busy process does not look after each of its runs."""
HOLD = 30.0
"""Seconds for which a process has a subscription that it took: more than one call needs."""
LOOK_AGAIN_AFTER = 10.0
"""Seconds after which a subscription without a notice is due again. One whose notice is told is due less often."""
LOOK_AGAIN_AT_LATEST = 600.0
AT_ONCE = 16
AT_ONCE_TO_A_HOST = 4
AT_ONCE_FOR_A_CALLER = 8
WAIT_FOR_OTHERS = 1.0
"""Seconds after which a subscription is due again if too many calls to its host, or for its caller, are open."""
WAITING_APART = 0.025
"""Seconds between the times at which those are due that wait for the same host or caller. Each look reads and writes,
so thousands that wait for a receiver without answers would keep the store busy."""
WAIT_AT_LONGEST = 300.0


class Notice(msgspec.Struct, frozen=True):
    """What a receiver is called with.

    - `key` says what the notice is about. A receiver is not notified of the same key twice in a row.
    - `url` is the address of the receiver, which `Subscriptions.check` has accepted. `body` is the body of the call.
    - `headers` are further headers, with names in lower case; `content-type` is one of them. They may contain secrets,
      so no log and no `repr` shows them.
    - `last`: no other notice follows.
    """

    key: str
    url: str
    body: bytes
    headers: Mapping[str, str]
    last: bool

    def __repr__(self) -> str:
        return f"Notice({self.key!r}, last={self.last})"


class Notifier(Protocol):
    """What a plugin gives to `RunService.use_notifier`. `kind` is the kind of its subscriptions."""

    kind: str

    async def notice(self, subscription: Subscription) -> Notice | None:
        """Return what the receiver should know now; None if there is nothing yet.

        It is called again and again, and may be called in several processes. Raises `RunNotFound` if there will never
        be a notice again: the subscription is then deleted. If it raises another error, it is called again later.
        """


class Subscriptions:
    """Keeps subscriptions in the store, and calls their receivers.

    - `keys`: each key makes a signature. Without keys, calls are not signed.
    - `allow_private` permits addresses that are not public, and URLs without TLS.
    - `retry_after`: seconds between a failed call and the next one; None for those of webhooks.

    `outcomes` counts notices as `delivered`, `failed` and `refused` (the host has no permitted address).
    """

    def __init__(
        self,
        keys: Sequence[bytes] = (),
        *,
        allow_private: bool = False,
        resolver: "Resolver | None" = None,
        retry_after: Sequence[float] | None = None,
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self.store: ThreadStore | None = None
        self._keys = tuple(keys)
        self._allow_private = allow_private
        self._resolver = resolver
        self._retry_after = retry_after
        self._receivers: Receivers | None = None
        self._notifiers: dict[str, Notifier] = {}
        self._started = False
        self._looking = EndlessTask(self._look, "subscriptions that are due")
        self._look_now = asyncio.Event()
        self._active = False
        """Whether the store may have a subscription that is not settled."""
        self._added = 0
        self._changed_threads: set[UUID] = set()
        self._tasks: dict[UUID, ServiceTask[None]] = {}
        self._due_again: set[UUID] = set()
        self._open: Counter[tuple[str, int]] = Counter()
        self._last_waiting: dict[tuple[str, int], float] = {}
        """When the last subscription is due that waits for a host or caller, as the loop's time."""
        self._settled_down = asyncio.Event()
        self._settled_down.set()

    def use(self, notifier: Notifier) -> None:
        """Notify the receivers of a plugin. Raises `ValueError` if another plugin has the same kind."""
        if notifier.kind in self._notifiers:
            raise ValueError(f"two plugins notify subscriptions of the kind {notifier.kind!r}")
        self._notifiers[notifier.kind] = notifier
        if self._started and len(self._notifiers) == 1:
            self._looking.start()

    @property
    def is_supported(self) -> bool:
        """Whether the store keeps subscriptions."""
        return self.store is not None and self.store.subscriptions is not None

    async def check(self, url: str, field: str) -> None:
        """Check the URL of a receiver, the value of `field` in a request. Raises `InputRefused` if it is invalid.

        A call checks the addresses of the host.
        """
        (await self._callers()).check(url, field)

    async def add(self, subscription: Subscription, limit: int) -> bool:
        """Add a subscription, as `SubscriptionStore.add` does, and look soon whether there is a notice.

        Raises `RunNotFound`, `StoreLacks` or `StoreUnavailable`.
        """
        added = await self._kept.add(subscription, limit)
        if added:
            self._added += 1
            self._active = True
            self._look_now.set()
        return added

    async def of_run(self, run_id: UUID, kind: str) -> list[Subscription]:
        """Return the subscriptions of a run in the order of their names. Raises `StoreLacks` or `StoreUnavailable`."""
        return await self._kept.of_run(run_id, kind)

    async def remove(self, run_id: UUID, kind: str, name: str) -> bool:
        """Delete a subscription. Returns whether there was one. Raises `StoreLacks` or `StoreUnavailable`.

        A call that is open goes on.
        """
        return await self._kept.remove(run_id, kind, name)

    def changed(self, thread_id: UUID) -> None:
        """Look soon at the subscriptions of a thread that has new events, or a run that has ended. Does not wait."""
        if self._active and self._notifiers:
            self._changed_threads.add(thread_id)
            self._settled_down.clear()
            self._look_now.set()

    def start(self) -> None:
        """Look for subscriptions that are due, in the running loop, as soon as a plugin notifies receivers."""
        self._started = True
        if self._notifiers:
            self._looking.start()

    async def flush(self, seconds: float) -> None:
        """Wait up to `seconds` until the receivers of the runs that have ended were called once."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._settled_down.wait()

    async def stop(self) -> None:
        """Stop all calls. What is not delivered is left to another process or the next start."""
        await self._looking.stop(1.0)
        tasks = dict(self._tasks)
        for task in tasks.values():
            task.end()
        if tasks:
            await asyncio.wait(tasks.values(), timeout=1.0)
        if self._receivers is not None:
            await self._receivers.close()

    @property
    def _kept(self) -> SubscriptionStore:
        if self.store is None or self.store.subscriptions is None:
            raise StoreLacks(type(self.store).__name__, "subscriptions")
        return self.store.subscriptions

    async def _callers(self) -> "Receivers":
        if self._receivers is None:
            # In a thread, since the import takes a while, and the event loop answers others meanwhile.
            webhooks = await asyncio.to_thread(importlib.import_module, "jimsapi.runs.webhooks")
            if self._receivers is None:
                self._receivers = webhooks.Receivers(
                    self._keys, allow_private=self._allow_private, resolver=self._resolver
                )
                self._retry_after = webhooks.RETRY_AFTER if self._retry_after is None else self._retry_after
        return cast("Receivers", self._receivers)

    async def _look(self) -> None:
        if not self.is_supported:
            await asyncio.Event().wait()
        loop = asyncio.get_running_loop()
        with suppress(StoreUnavailable):
            await self._kept.recover()
        counted_at = -LOOK_EVERY
        while True:
            self._look_now.clear()
            with suppress(StoreUnavailable):  # the runs log the outage
                await self._wake()
                while await self._take():
                    pass
                if loop.time() - counted_at >= LOOK_EVERY:
                    await self._note_activity()
                    counted_at = loop.time()
            self._note_rest()
            await asyncio.sleep(PAUSE)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._look_now.wait()

    async def _wake(self) -> None:
        """Make the subscriptions of the threads due in which runs have ended."""
        threads, self._changed_threads = self._changed_threads, set()
        if threads:
            try:
                await self._kept.wake(threads)
            except StoreUnavailable:
                self._changed_threads |= threads
                raise

    async def _take(self) -> bool:
        """Begin with subscriptions that are due. Returns whether there may be more, and room for them."""
        room = AT_ONCE - len(self._tasks)
        if room <= 0:
            return False
        taken = await self._kept.take(room, HOLD)
        for subscription in taken:
            if subscription.subscription_id in self._tasks:
                self._due_again.add(subscription.subscription_id)
            else:
                self._begin(subscription)
        return len(taken) == room

    async def _note_activity(self) -> None:
        added = self._added
        count = await self._kept.count()
        self._active = count > 0 or added != self._added

    def _note_rest(self) -> None:
        """Note whether the receivers of all runs that have ended here were called once."""
        if not (self._changed_threads or self._tasks or self._look_now.is_set()):
            self._settled_down.set()

    def _begin(self, subscription: Subscription) -> None:
        loop = asyncio.get_running_loop()
        name = f"subscription to run {subscription.run_id}"
        task = ServiceTask.begin(self._attend(subscription), loop=loop, name=name)
        self._tasks[subscription.subscription_id] = task
        self._settled_down.clear()

        def done(_: object) -> None:
            self._tasks.pop(subscription.subscription_id, None)
            if subscription.subscription_id in self._due_again:  # its run ended while it was called
                self._due_again.discard(subscription.subscription_id)
                self._changed_threads.add(subscription.thread_id)
            self._look_now.set()

        task.add_done_callback(done)

    async def _attend(self, subscription: Subscription) -> None:
        """Call the receiver of a subscription if there is a notice, and store when it is due again."""
        try:
            await self._notify(subscription)
        except RunNotFound:
            await self._forget(subscription)
        except StoreUnavailable:
            pass  # it is due again when its hold is over
        except (Exception, *PLUGIN_EXITS):
            if own_task_is_cancelled():
                await self._hand_over(subscription)
                raise
            logger.exception(
                "run %s: the notice of a subscription of %s failed", subscription.run_id, subscription.kind
            )

    async def _notify(self, subscription: Subscription) -> None:
        notifier = self._notifiers.get(subscription.kind)
        notice = None if notifier is None else await notifier.notice(subscription)
        if notice is None or (notice.key == subscription.notice and not subscription.calls):
            await self._wait(subscription, notice)
            return
        calls = subscription.calls if notice.key == subscription.notice else 0
        if calls and subscription.pause:  # the thread has changed meanwhile
            await self._delay(subscription, subscription.pause, subscription.notice, calls)
            return
        receivers = await self._callers()
        sharing = _sharing(subscription, notice)
        if full := [each for each in sharing if self._open[each] >= each[1]]:
            await self._delay(subscription, self._place_in_line(full), subscription.notice, subscription.calls)
            return
        self._open.update(sharing)
        try:
            await self._call(receivers, subscription, notice, calls)
        finally:
            self._open.subtract(sharing)
            self._open += Counter()  # without those that are 0
            for each in sharing:
                if each not in self._open:
                    self._last_waiting.pop(each, None)

    def _place_in_line(self, full: Sequence[tuple[str, int]]) -> float:
        """Return the seconds after which a subscription is due again that waits for the calls of others."""
        now = asyncio.get_running_loop().time()
        places = [self._last_waiting.get(each, 0.0) + WAITING_APART for each in full]
        place = min(max(now + WAIT_FOR_OTHERS, *places), now + WAIT_AT_LONGEST)
        self._last_waiting.update(dict.fromkeys(full, place))
        return place - now

    async def _call(self, receivers: "Receivers", subscription: Subscription, notice: Notice, calls: int) -> None:
        from jimsapi.runs.webhooks import Undelivered, spread

        identifier = derived_id("notice", str(subscription.subscription_id), notice.key)
        try:
            url = receivers.check(notice.url)  # an earlier process with other options may have accepted it
            await receivers.call(url, notice.body, notice.headers, f"notice_{identifier.hex}")
            outcome = "delivered"
        except InputRefused as refused:
            outcome = "refused"
            logger.warning("run %s: a receiver is not called: %s", subscription.run_id, refused.message)
        except Undelivered as fault:
            pauses = self._retry_after or ()
            if fault.retry and calls < len(pauses):
                delay = max(pauses[calls] * spread(), fault.delay * spread())
                text = "run %s: the receiver at %s is called again in %.0f s: %s"
                logger.info(text, subscription.run_id, _host_of(notice.url), delay, fault)
                await self._delay(subscription, delay, notice.key, calls + 1)
                return
            outcome = fault.outcome
            text = "run %s: the notice for the receiver at %s is given up after %d calls: %s"
            logger.error(text, subscription.run_id, _host_of(notice.url), calls + 1, fault)
        self.outcomes[outcome] += 1
        await self._told(subscription, notice)

    async def _told(self, subscription: Subscription, notice: Notice) -> None:
        """Store that a notice was delivered or given up."""
        if notice.last:
            await self._kept.settle(subscription.subscription_id, notice.key)
        else:
            await self._delay(subscription, LOOK_AGAIN_AFTER, notice.key, 0)

    async def _wait(self, subscription: Subscription, notice: Notice | None) -> None:
        """Store when a subscription without a new notice is due again."""
        if notice is not None and notice.last:
            await self._kept.settle(subscription.subscription_id, notice.key)
            return
        delay = LOOK_AGAIN_AFTER
        if notice is not None:  # the next one needs a message, whose run makes the subscription due
            delay = min(max(delay, _age(subscription) / 10), LOOK_AGAIN_AT_LATEST)
        await self._delay(subscription, delay, subscription.notice, 0 if notice is None else subscription.calls)

    async def _delay(self, subscription: Subscription, seconds: float, notice: str | None, calls: int) -> None:
        await self._kept.delay(subscription.subscription_id, seconds, notice, calls)
        if seconds < WAKES_WITHIN:
            asyncio.get_running_loop().call_later(seconds, self._look_now.set)

    async def _forget(self, subscription: Subscription) -> None:
        with suppress(StoreUnavailable):
            await self._kept.remove(subscription.run_id, subscription.kind, subscription.name)

    async def _hand_over(self, subscription: Subscription) -> None:
        """Let another process, or the next start, call the receiver at once. A call that was cut off may come twice."""
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(0.5):
                await self._kept.delay(subscription.subscription_id, 0.0, subscription.notice, subscription.calls)


def _sharing(subscription: Subscription, notice: Notice) -> list[tuple[str, int]]:
    """Return with whom a call shares the calls that are open, and how many these may have."""
    sharing = [(f"host {_host_of(notice.url)}", AT_ONCE_TO_A_HOST)]
    if subscription.caller is not None:
        sharing.append((f"caller {subscription.caller}", AT_ONCE_FOR_A_CALLER))
    return sharing


def _host_of(url: str) -> str:
    """Return the host of a URL for logs and limits. The rest of it may have a secret."""
    return url.partition("://")[2].partition("/")[0].partition("?")[0].partition("#")[0]


def _age(subscription: Subscription) -> float:
    """Return the age of a subscription in seconds: its identifier begins with the time in milliseconds."""
    made = (subscription.subscription_id.int >> 80) / 1000
    return max(0.0, (utc_now() - EPOCH).total_seconds() - made)
