"""Copies everything of one store to another, and compares the two.

The copy may be interrupted at any time: each batch is one transaction of the target, and the next copy adds what the
target does not have. Before it adds anything, it refuses a target that has something else.
"""

from collections.abc import AsyncIterator, Callable

import msgspec

from jimsapi.threads.errors import DomainError
from jimsapi.threads.transfer import (
    RECORDS,
    KeyRecord,
    PortableStore,
    Record,
    RecordKind,
    SubscriptionRecord,
    WholeThread,
    digest_record,
    digest_thread,
)

THREADS_AT_ONCE = 200
"""The most threads in one transaction of the target."""
RECORDS_AT_ONCE = 1000
_DIGESTS = 1 << 128

Report = Callable[[str, int, int], None]
"""Called with what was done, with how many threads since the last call, and the number of all threads."""


class CopyRefused(DomainError):
    """The stores cannot be copied as they are. Nothing was changed. The message says why and what to do."""


class Contents(msgspec.Struct):
    """How much a store has, and a digest of all of it, which is equal for stores with equal contents."""

    threads: int = 0
    events: int = 0
    runs: int = 0
    ratings: int = 0
    usage_totals: int = 0
    keys: int = 0
    subscriptions: int = 0
    digest: int = 0

    def add_thread(self, thread: WholeThread) -> None:
        """Count a thread."""
        self.threads += 1
        self.events += len(thread.events)
        self.runs += len(thread.runs)
        self.ratings += len(thread.feedback)
        self.usage_totals += len(thread.usage)
        self._add(digest_thread(thread))

    def add_record(self, record: Record) -> None:
        """Count a record."""
        if isinstance(record, KeyRecord):
            self.keys += 1
        elif isinstance(record, SubscriptionRecord):
            self.subscriptions += 1
        else:
            self.usage_totals += 1
        self._add(digest_record(record))

    def _add(self, digest: int) -> None:
        self.digest = (self.digest + digest) % _DIGESTS  # a sum, since stores have different orders


async def copy_store(source: PortableStore, target: PortableStore, report: Report) -> tuple[Contents, Contents]:
    """Copy everything of `source` to `target`. Returns what the two have afterwards.

    Raises:
        CopyRefused: a store is in use or has open runs, or the target has something that the source does not have.
        ThreadRefused: the target cannot store a thread. What was copied before stays.
    """
    if source.name == target.name:
        raise CopyRefused(f"{source.name} is named twice; name two stores")
    for store in (source, target):
        await _refuse_activity(store)
    await _refuse_lost_subscriptions(source, target)
    present = await _refuse_other_threads(source, target, report)
    for kind in RECORDS:
        await _refuse_other_records(source, target, kind)
    total = await source.count_threads()
    if present < total:
        async for threads in _threads(source):
            await target.import_threads(threads)
            report("copied", len(threads), total)
    for kind in RECORDS:
        await _copy_records(source, target, kind)
    return await measure(source, report), await measure(target, report)


async def measure(store: PortableStore, report: Report) -> Contents:
    """Return how much a store has, and the digest of it. It reads everything."""
    contents = Contents()
    total = await store.count_threads()
    async for threads in _threads(store):
        for thread in threads:
            contents.add_thread(thread)
        report(f"read in {store.name}", len(threads), total)
    for kind in RECORDS:
        async for records in _records(store, kind):
            for record in records:
                contents.add_record(record)
    return contents


async def _refuse_activity(store: PortableStore) -> None:
    activity = await store.activity()
    if activity.processes:
        raise CopyRefused(
            f"{store.name} is in use, or was a moment ago (servers: {activity.processes}): stop the servers, wait half "
            "a minute, and run the command again"
        )
    if activity.open_runs:
        raise CopyRefused(
            f"{store.name} has open runs, which a killed server left ({activity.open_runs}): start a server on it, "
            "which ends or continues them, stop it when `jimsapi runs list --status queued --status running` is empty, "
            "and run the command again"
        )


async def _refuse_lost_subscriptions(source: PortableStore, target: PortableStore) -> None:
    """Raise `CopyRefused` if the source has subscriptions, and the target keeps none."""
    if _keeps(target, SubscriptionRecord):
        return
    async for _ in _each(source, SubscriptionRecord):
        raise CopyRefused(
            f"{target.name} keeps no subscriptions, such as the push notification configurations of A2A, and "
            f"{source.name} has some: name another store as the target"
        )


async def _refuse_other_threads(source: PortableStore, target: PortableStore, report: Report) -> int:
    """Return the number of threads of the target. Raises `CopyRefused` if the source lacks one, or it differs."""
    total = await target.count_threads()
    async for threads in _threads(target):
        found = await source.export_by_id([thread.thread_id for thread in threads])
        expected = {thread.thread_id: digest_thread(thread) for thread in found}
        for thread in threads:
            digest = expected.get(thread.thread_id)
            if digest is None:
                raise _other(source, target, f"the thread {thread.thread_id}, which {source.name} does not have")
            if digest != digest_thread(thread):
                raise _other(source, target, f"the thread {thread.thread_id} with a content that is not equal")
        report("compared", len(threads), total)
    return total


async def _refuse_other_records(source: PortableStore, target: PortableStore, kind: RecordKind) -> None:
    """Raise `CopyRefused` if the target has a record that the source does not have, or not so."""
    expected = _each(source, kind)  # both have the same order
    async for record in _each(target, kind):
        if await _next_from(expected, _order(record)) != record:
            raise _other(source, target, f"a record ({kind.__name__}) that {source.name} does not have")


async def _next_from(records: AsyncIterator[Record], position: tuple[object, ...]) -> Record | None:
    """Return the next of the records that is at this position or after it."""
    async for record in records:
        if _order(record) >= position:
            return record
    return None


def _order(record: Record) -> tuple[object, ...]:
    return tuple(part.encode() if isinstance(part, str) else part for part in record.position)


def _other(source: PortableStore, target: PortableStore, what: str) -> CopyRefused:
    return CopyRefused(
        f"{target.name} has {what}: this is not a part of a copy, or one of the stores was used since then; name an "
        "empty database as the target, and run the command again"
    )


async def _copy_records(source: PortableStore, target: PortableStore, kind: RecordKind) -> None:
    async for records in _records(source, kind):
        await target.import_records(records)


async def _threads(store: PortableStore) -> AsyncIterator[list[WholeThread]]:
    """Read all threads, in batches."""
    after = None
    while threads := await store.export_threads(after, THREADS_AT_ONCE):
        yield threads
        after = threads[-1].thread_id


async def _records(store: PortableStore, kind: RecordKind) -> AsyncIterator[list[Record]]:
    """Read all records of a kind, in batches."""
    if not _keeps(store, kind):
        return
    after: Record | None = None
    while records := await store.export_records(kind, after, RECORDS_AT_ONCE):
        yield records
        after = records[-1]


def _keeps(store: PortableStore, kind: RecordKind) -> bool:
    """Return whether a store keeps records of a kind. A store of a plugin may keep no subscriptions."""
    return kind is not SubscriptionRecord or store.subscriptions is not None


async def _each(store: PortableStore, kind: RecordKind) -> AsyncIterator[Record]:
    async for records in _records(store, kind):
        for record in records:
            yield record
