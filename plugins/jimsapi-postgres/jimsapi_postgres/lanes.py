"""Accepts messages and finishes runs in batches: each call to the database does all waiting operations.

A call is one transaction and one round trip, so the operations of a batch share the server's work and its sync to disk.
While the server does one call, this process collects the next batch. A second connection is used if a call takes long.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from jimsapi.runs import ServiceTask
from jimsapi.threads import (
    BESIDE,
    Accepted,
    CommitRecord,
    ContextLimits,
    Outcome,
    RunPlan,
    RunStatus,
    Settled,
    Snapshot,
    StoreUnavailable,
    ThreadNotFound,
    end_with,
    id_beside,
    stored_events,
)
from jimsapi_postgres import rows
from jimsapi_postgres.connections import Connection, Link
from jimsapi_postgres.errors import ConnectionLost, DataRefused, NotConnected

AT_ONCE = 32
"""Maximum number of operations in one call, which holds a lock for each. A larger call would hardly be cheaper for each
operation, and this process would be idle while all its clients wait for the same call."""
WORTH_SHARING = 8
"""How many messages and how many runs must wait before they share a transaction. With fewer, alternating calls are
cheaper: one kind collects while the call of the other kind runs."""
PATIENCE = 0.005
"""Seconds after which the other connection may start a call, since a lock may delay the current call."""
ONE_BY_ONE_WITHIN = 10.0
"""Seconds for doing the operations of a failed call one by one. The remaining operations fail after that."""

_AFFECT_ALL = ("0A", "28", "3D", "42", "53", "58")
"""Beginnings of SQLSTATEs for faults of the server, the database or the role, which affect every operation."""

_RUN = """
    SELECT
        r.thread_id, r.status, r.created_new_thread, r.message_id, r.continues, r.owner,
        t.contact_id, t.created_at, t.thread_config::json
    FROM jimsapi_runs r
    JOIN threads t ON t.thread_id = r.thread_id
    WHERE r.run_id = $1
"""
_OWNED_THREAD = "SELECT thread_id FROM jimsapi_runs WHERE run_id = $1 AND owner = $2"
_OLDEST = """
    SELECT event_id, created_at, event_type, event_data::json FROM thread_events
    WHERE thread_id = $1 ORDER BY created_at, event_id LIMIT 1
"""
_WITH_BESIDE = """
    SELECT e.event_id, e.created_at, e.event_type, e.event_data::json FROM thread_events e
    WHERE e.thread_id = $1 AND e.event_id BETWEEN $2 AND $3
    ORDER BY e.event_id
"""
BY_IDS = """
    SELECT e.event_id, e.created_at, e.event_type, e.event_data::json
    FROM unnest($2::uuid[]) WITH ORDINALITY i (id, position)
    JOIN thread_events e ON e.thread_id = $1 AND e.event_id = i.id
    WHERE e.thread_id = $1 AND e.event_id = ANY ($2)
    ORDER BY i.position
"""
CONTEXT = """
    SELECT part, event_id, created_at, event_type, event_data
    FROM jimsapi_context(ARRAY[$1::uuid], ARRAY[$2::int], ARRAY[$3::bigint])
"""


class _Operation:
    """One operation, and the future for its result."""

    __slots__ = ("future", "item")

    def __init__(self, item: Any, future: asyncio.Future[Any]) -> None:
        self.item = item
        self.future = future


class Lanes:
    """Does the operations of two queues in batches. Each link has one task that works on it.

    `report` is called with the record of each call that wrote. `keep_keys` returns for how long an idempotency key is
    stored. Cancelling a future that `accept` or `finish` returned does not cancel the operation.
    """

    def __init__(
        self, links: Sequence[Link], report: Callable[[CommitRecord], None], keep_keys: Callable[[], timedelta]
    ) -> None:
        self._links = links
        self._report = report
        self._keep_keys = keep_keys
        self._accepts: deque[_Operation] = deque()
        self._finishes: deque[_Operation] = deque()
        self._contacts_in_call: set[str] = set()
        self._maybe_finished: set[UUID] = set()
        self._only_new = False  # the last batch had only messages of new contacts, without keys
        self._busy_link: Link | None = None
        self._wake = asyncio.Event()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._tasks = [
            ServiceTask.begin(self._work(link), loop=self._loop, name="jimsapi-postgres-lane") for link in links
        ]
        self.failing = False
        """Whether the last call failed."""

    def accept(self, plan: RunPlan) -> asyncio.Future[Accepted]:
        """Accept a message with the next call. Returns a future for the result."""
        return self._submit(self._accepts, plan)

    def finish(self, run_id: UUID, owner: UUID, outcome: Outcome) -> asyncio.Future[Settled]:
        """Finish a run with the next call. Returns a future for the result."""
        return self._submit(self._finishes, (run_id, owner, outcome))

    async def close(self, seconds: float) -> None:
        """Do the waiting operations for up to `seconds`, reject the rest, and close the connections."""
        self._closing = True
        self._wake.set()
        _, unfinished = await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            if task in unfinished:
                task.end()
        if unfinished:
            await asyncio.wait(unfinished)
        for operation in (*self._accepts, *self._finishes):
            _reject(operation, StoreUnavailable("the store is closed"))
        for link in self._links:
            await link.close()

    def _submit(self, queue: deque[_Operation], item: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closing:
            future.set_exception(StoreUnavailable("the store is closed"))
            return future
        queue.append(_Operation(item, future))
        if self._busy_link is None:  # else that link's task checks the queues after its call
            self._wake.set()
        return future

    async def _work(self, link: Link) -> None:
        while True:
            if self._busy_link is not None:
                await self._sleep()
            elif batch := self._next_batch():
                await self._call(link, *batch)
            elif self._closing and not (self._accepts or self._finishes):
                self._wake.set()  # the other task may wait for it
                return
            else:
                await self._sleep()

    async def _sleep(self) -> None:
        self._wake.clear()
        await self._wake.wait()

    def _next_batch(self) -> "tuple[list[_Operation], _Call] | None":
        """Return the next batch and the function for it; None if nothing can be done now."""
        share = self._only_new and min(len(self._accepts), len(self._finishes)) >= WORTH_SHARING
        limit = AT_ONCE // 2 if share else AT_ONCE
        finishes = self._next_finishes(limit)
        if finishes and not share:
            return finishes, _finish
        accepts = self._next_accepts(limit)
        plans = [operation.item for operation in accepts]
        if not finishes:
            if not accepts:
                return None
            return accepts, partial(_accept_with_keys, keep_keys=self._keep_keys()) if _has_key(plans[0]) else _accept
        if accepts and not _has_key(plans[0]) and rows.are_alike(plans):
            return accepts + finishes, _accept_and_finish
        self._accepts.extendleft(reversed(accepts))
        return finishes, _finish

    def _next_finishes(self, limit: int) -> list[_Operation]:
        return [self._finishes.popleft() for _ in range(min(len(self._finishes), limit))]

    def _next_accepts(self, limit: int) -> list[_Operation]:
        """Remove waiting messages from the queue, either all with idempotency keys or all without.

        It skips messages of contacts that the other connection works on, since they would wait for its locks and could
        be stored out of order. To keep the order, it skips all later messages of a contact once it has skipped one.
        """
        batch: list[_Operation] = []
        skipped: list[_Operation] = []
        skipped_contacts = set(self._contacts_in_call)
        while self._accepts and len(batch) < limit:
            operation = self._accepts.popleft()
            plan = operation.item
            if plan.contact_id in skipped_contacts or (batch and _has_key(plan) is not _has_key(batch[0].item)):
                skipped_contacts.add(plan.contact_id)
                skipped.append(operation)
            else:
                batch.append(operation)
        self._accepts.extendleft(reversed(skipped))
        return batch

    async def _call(self, link: Link, batch: list[_Operation], call: "_Call") -> None:
        began = time.perf_counter()
        items = [operation.item for operation in batch]
        contacts = {item.contact_id for item in items if isinstance(item, RunPlan)}
        self._contacts_in_call |= contacts
        self._busy_link = link
        timer = self._loop.call_later(PATIENCE, self._allow_other_link, link)
        try:
            results = await self._call_results(link, items, call)
        except asyncio.CancelledError:
            for operation in batch:
                _reject(operation, StoreUnavailable("the store is closed"))
            raise
        except Exception as error:  # a bug must not stop the task or leave callers waiting
            results = [error] * len(batch)
        finally:
            timer.cancel()
            if self._busy_link is link:
                self._busy_link = None
            self._contacts_in_call -= contacts
        retries: list[_Operation] = []
        for operation, result in zip(batch, results, strict=True):
            if isinstance(result, rows.Again):
                retries.append(operation)
            elif isinstance(result, BaseException):
                _reject(operation, result)
            elif not operation.future.done():
                operation.future.set_result(result)
        self._accepts.extendleft(reversed(retries))
        if contacts:
            accepted = [result for result in results if isinstance(result, Accepted)]
            all_new = bool(accepted) and all(result.created_new_thread for result in accepted)
            self._only_new = all_new and not _has_key(items[0])
        self.failing = any(isinstance(result, StoreUnavailable) for result in results)
        done_count = len(batch) - len(retries)
        if done_count:
            self._report(CommitRecord(done_count, time.perf_counter() - began, self.failing))

    def _allow_other_link(self, link: Link) -> None:
        if self._busy_link is link:
            self._busy_link = None
            self._wake.set()

    async def _call_results(self, link: Link, items: list[Any], call: "_Call") -> list[Any]:
        """Return a result or an error for each item."""
        for attempt in (1, 2):
            try:
                return await link.run(partial(call, items=items, maybe_finished=self._maybe_finished))
            except ConnectionLost as error:
                self._note_maybe_finished(items)
                if attempt == 2:
                    return _same_for_all(error, items)
            except (StoreUnavailable, DataRefused) as error:
                if _affects_all(error):
                    return _same_for_all(error, items)
                break
            except Exception:  # an item cannot be encoded, or a result cannot be decoded
                self._note_maybe_finished(items)
                break
        return await self._one_by_one(link, items, call)

    def _note_maybe_finished(self, items: Iterable[Any]) -> None:
        """Remember runs that a lost call may have finished. Callers repeat `finish` until they get a result."""
        self._maybe_finished.update(item[0] for item in items if not isinstance(item, RunPlan))

    async def _one_by_one(self, link: Link, items: list[Any], call: "_Call") -> list[Any]:
        """Do each item alone after the call has failed, so that only the faulty item fails."""
        stop_at = time.monotonic() + ONE_BY_ONE_WITHIN
        results: list[Any] = []
        failure: Exception | None = None
        for item in items:
            if time.monotonic() > stop_at:
                failure = failure or StoreUnavailable("PostgreSQL: the operations take too long")
            if failure is not None:
                results.append(StoreUnavailable(*failure.args))
                continue
            try:
                results += await link.run(partial(call, items=[item], maybe_finished=self._maybe_finished))
            except Exception as error:
                if isinstance(error, ConnectionLost):
                    self._note_maybe_finished([item])
                results.append(error)
                if isinstance(error, ConnectionLost | NotConnected):
                    failure = error
        return results


def _has_key(plan: RunPlan) -> bool:
    return plan.idempotency is not None


class _Call(Protocol):
    """Does all items in one round trip. `maybe_finished` are runs that an earlier, lost call may have finished."""

    async def __call__(self, connection: Connection, items: list[Any], maybe_finished: set[UUID]) -> list[Any]: ...


async def _accept(connection: Connection, items: list[RunPlan], maybe_finished: set[UUID]) -> list[Any]:
    results: list[Any]
    if rows.are_alike(items):
        arguments = rows.alike_arguments(items, only_new=False)
        results = rows.read_alike(items, arguments, await connection.fetch(rows.ACCEPT_ALIKE, *arguments))
    else:
        arguments = rows.accept_arguments(items)
        found = await connection.fetch(rows.ACCEPT, *arguments)
        results = rows.read_accepted(items, arguments[rows.CREATED_IDS], found)
    for position, result in enumerate(results):
        if isinstance(result, rows.Known):
            results[position] = await _accepted_before(connection, items[position])
    return results


async def _accept_with_keys(
    connection: Connection, items: list[RunPlan], maybe_finished: set[UUID], keep_keys: timedelta
) -> list[Any]:
    arguments = rows.accept_arguments(items)
    found = await connection.fetch(rows.ACCEPT_WITH_KEYS, *rows.key_arguments(items, keep_keys), *arguments)
    results: list[Any] = rows.read_accepted(items, arguments[rows.CREATED_IDS], found)
    for position, result in enumerate(results):
        if isinstance(result, rows.Known):
            results[position] = await _accepted_before(connection, items[position])
        elif isinstance(result, rows.Alone):
            results[position : position + 1] = await _accept_with_keys(
                connection, [items[position]], maybe_finished, keep_keys
            )
    return results


async def _accepted_before(connection: Connection, plan: RunPlan) -> Accepted | Exception:
    """Return the result of an earlier call with the same run, whose result was lost.

    If another process has taken the run over meanwhile, there is no snapshot, and `start` rejects the run.
    """
    run = await connection.fetchrow(_RUN, plan.run_id)
    if run is None:
        return ThreadNotFound()
    thread_id, status, created_new_thread, message_id, continues, owner, *thread = run
    stored = await connection.fetch(_OLDEST, thread_id) if created_new_thread and not continues else []
    snapshot = None
    is_own = rows.as_uuid(owner) == plan.owner
    if is_own and status == RunStatus.RUNNING:
        snapshot = await _read_context(connection, thread_id, plan.context)
        message = await _read_message(connection, thread_id, message_id)
        if not continues:
            stored += message
        elif message:  # another program may have deleted it
            snapshot = end_with(snapshot, [rows.event_row(row) for row in message])
    elif is_own and created_new_thread and status == RunStatus.QUEUED and not continues:
        snapshot = await _read_context(connection, thread_id, plan.context)
    return Accepted(
        rows.thread_record(thread_id, *thread),
        created_new_thread,
        RunStatus(status),
        snapshot,
        [rows.event_row(row) for row in stored],
    )


async def _read_message(connection: Connection, thread_id: UUID, message_id: UUID) -> list[Any]:
    """Return the rows of the events beside a message, then that of the message; none if the thread has no such."""
    found = await connection.fetch(_WITH_BESIDE, thread_id, message_id, id_beside(message_id, BESIDE))
    is_there = bool(found) and rows.as_uuid(found[0][0]) == message_id
    return [*found[1:], found[0]] if is_there else []


async def _read_context(connection: Connection, thread_id: UUID, limits: ContextLimits) -> Snapshot:
    """Return the current context of a thread."""
    found = await connection.fetch(CONTEXT, thread_id, *rows.context_arguments(limits))
    return rows.read_snapshot(found, limits)


async def _finish(connection: Connection, items: list[rows.Finishing], maybe_finished: set[UUID]) -> list[Any]:
    found = await connection.fetch(rows.FINISH, *rows.finish_arguments(items))
    return await _read_settled(connection, items, found, maybe_finished)


async def _accept_and_finish(connection: Connection, items: list[Any], maybe_finished: set[UUID]) -> list[Any]:
    """Accept messages that are alike, and finish runs. If not all contacts are new, the messages have to be retried."""
    plans: list[RunPlan] = [item for item in items if isinstance(item, RunPlan)]
    finishing: list[rows.Finishing] = items[len(plans) :]
    if not finishing:
        return await _accept(connection, plans, maybe_finished)
    if not plans:
        return await _finish(connection, finishing, maybe_finished)
    arguments = rows.alike_arguments(plans, only_new=True)
    found = await connection.fetch(rows.ACCEPT_AND_FINISH, *arguments, *rows.finish_arguments(finishing))
    results: list[Any] = [rows.Again() for _ in plans]
    if len(found) > len(finishing):
        *_, config, first_at = found[0]
        results = list(rows.read_new(plans, arguments, config, first_at))
    settled = [row[:5] for row in found[-len(finishing) :]]
    return results + await _read_settled(connection, finishing, settled, maybe_finished)


async def _read_settled(
    connection: Connection, items: list[rows.Finishing], found: Sequence[Any], maybe_finished: set[UUID]
) -> list[Any]:
    results: list[Any] = list(rows.read_settled(items, found))
    if maybe_finished:
        checked = [position for position, (run_id, _, _) in enumerate(items) if run_id in maybe_finished]
        for position in checked:
            result = results[position]
            if isinstance(result, Settled) and not result.counted:
                results[position] = await _finished_before(connection, items[position], result)
        maybe_finished.difference_update(items[position][0] for position in checked)
    return results


async def _finished_before(connection: Connection, finishing: rows.Finishing, found: Settled) -> Settled:
    """Return the result of an earlier, lost call if it stored this outcome; else `found`."""
    run_id, owner, outcome = finishing
    if found.status is not outcome.status:
        return found
    thread_id = await connection.fetchval(_OWNED_THREAD, run_id, owner)
    if thread_id is None:
        return found
    stored: list[Any] = []
    if events := stored_events(outcome):
        stored = await connection.fetch(BY_IDS, thread_id, [event.event_id for event in events])
        if len(stored) != len(events):
            return found
    return Settled(True, found.status, found.next_run, [rows.event_row(row) for row in stored])


def _affects_all(error: Exception) -> bool:
    """Whether an error affects all operations, so that doing them one by one does not help."""
    state = getattr(error.__cause__, "sqlstate", None) or ""
    return isinstance(error, NotConnected) or state.startswith(_AFFECT_ALL)


def _same_for_all(error: Exception, items: Iterable[Any]) -> list[Any]:
    """Return a separate error for each item, since an exception that several tasks raise mixes their tracebacks."""
    return [StoreUnavailable(*error.args) for _ in items]


def _reject(operation: _Operation, error: BaseException) -> None:
    if isinstance(error, ConnectionLost | NotConnected):
        error = StoreUnavailable(*error.args)  # the subclasses are internal to this package
    if not operation.future.done():
        operation.future.set_exception(error)
