"""Rate limits that replicas share, by a link that a plugin builds.

Each replica counts for itself, so no message waits for another replica. It publishes what it has counted, at most every
`PUBLISH_EVERY` seconds, and the others count that, too. So a burst at several replicas may exceed a limit by what the
others admit before they know of it. What exceeds the limit is not forgiven: the buckets owe it, so the messages that
follow wait for so much longer.

A notice may be lost. Then the others admit what they would admit without the link.
"""

import asyncio
import logging
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from jimsapi.runs.admission import Admission
from jimsapi.runs.plugin_code import PLUGIN_EXITS, own_task_is_cancelled
from jimsapi.runs.quota import ROOM, Quota, QuotaKeys, QuotaLimits
from jimsapi.runs.tasks import EndlessTask

logger = logging.getLogger("jimsapi.runs")

_VERSION = b"\x01"
_COUNT = struct.Struct("!16s18si")
"""The two keys of a message, and how many messages a replica has counted with them."""
MAX_NOTICE = 64 * 1024
"""Bytes."""
_COUNTS_AT_MOST = (MAX_NOTICE - len(_VERSION)) // _COUNT.size
"""The counts of one notice."""
PUBLISH_EVERY = 0.1
"""Seconds between two notices."""
PUBLISH_WITHIN = 1.0
"""Seconds that a link has for a notice."""
LISTEN_WITHIN = 10.0
"""Seconds that a link has to begin to receive."""


class NoticeLink(Protocol):
    """A `ReplicaLink` that also carries notices: bytes that each replica sends to all others.

    A notice has at most 64 KiB. The link may lose it. It must not change it, and must not deliver it twice.
    """

    name: str

    async def listen(self, receive: Callable[[bytes], None]) -> None:
        """Begin to call `receive(notice)` for the notices of other replicas, and return.

        jimsapi calls it once, before the first `publish`. `receive` does not raise. The link stops when it is exited.
        """

    async def publish(self, notice: bytes) -> None:
        """Send a notice to all other replicas. If none can be reached now, drop it: a late notice counts wrongly."""


def carries_notices(link: object) -> bool:
    """Return whether a replica link is a `NoticeLink`."""
    return hasattr(link, "listen") and hasattr(link, "publish")


class SharedQuota(Quota):
    """A quota whose rate limits also count the messages that other replicas admit."""

    def __init__(self, limits: QuotaLimits, link: NoticeLink, room: int = ROOM) -> None:
        super().__init__(limits, room)
        self._link = link
        self._unpublished: dict[QuotaKeys, int] = {}
        self._counted = asyncio.Event()
        self._publisher = EndlessTask(self._work, f"limits by replica link {link.name}")
        self._failed = False

    async def start(self) -> None:
        """Count what others publish, and publish what this replica counts."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LISTEN_WITHIN):
                await self._link.listen(self._receive)
        except (Exception, *PLUGIN_EXITS) as error:
            if own_task_is_cancelled():
                raise
            text = "replica link %s cannot listen, so limits do not count what other replicas admit: %s: %s"
            logger.error(text, self._link.name, type(error).__name__, error)
        self._publisher.start()

    async def stop(self) -> None:
        """Publish what is left, and end."""
        await self._publisher.stop(1.0)
        await self._publish()

    def acquire(self, admission: Admission, contact_id: str, now: float, *, has_run: bool = True) -> QuotaKeys:
        keys = super().acquire(admission, contact_id, now, has_run=has_run)
        self._note(keys, 1)
        return keys

    def put_back(self, keys: QuotaKeys) -> None:
        super().put_back(keys)
        self._note(keys, -1)

    def _note(self, keys: QuotaKeys, messages: int) -> None:
        self._unpublished[keys] = self._unpublished.get(keys, 0) + messages
        self._counted.set()

    def _receive(self, notice: bytes) -> None:
        """Count what another replica has counted. A notice of another version counts nothing."""
        counts = notice[len(_VERSION) :]
        if notice[: len(_VERSION)] != _VERSION or len(counts) % _COUNT.size:
            return
        now = self._loop.time()
        for identity, contact, messages in _COUNT.iter_unpack(counts):
            self.count_elsewhere(QuotaKeys(identity, contact), messages, now)

    async def _work(self) -> None:
        while True:
            await self._counted.wait()
            await self._publish()
            await asyncio.sleep(PUBLISH_EVERY)

    async def _publish(self) -> None:
        self._counted.clear()
        counts, self._unpublished = self._unpublished, {}
        for notice in _notices(counts):
            await self._send(notice)

    async def _send(self, notice: bytes) -> None:
        try:
            async with asyncio.timeout(PUBLISH_WITHIN):
                await self._link.publish(notice)
        except (Exception, *PLUGIN_EXITS) as error:
            if own_task_is_cancelled():
                raise
            if not self._failed:  # otherwise it would log ten errors a second
                logger.error("replica link %s failed: %s: %s", self._link.name, type(error).__name__, error)
            self._failed = True
        else:
            self._failed = False


def _notices(counts: Mapping[QuotaKeys, int]) -> Iterator[bytes]:
    """Encode counts as notices. Messages that were put back at once need none."""
    encoded = [_COUNT.pack(keys.identity, keys.contact, messages) for keys, messages in counts.items() if messages]
    for first in range(0, len(encoded), _COUNTS_AT_MOST):
        yield _VERSION + b"".join(encoded[first : first + _COUNTS_AT_MOST])
