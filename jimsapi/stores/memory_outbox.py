"""The outbox of the memory store."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import UUID

import msgspec

from jimsapi.threads.event import EventRow, row_id, utc_now
from jimsapi.threads.outbox import (
    MAX_REASON,
    WEBHOOK_HOLD,
    WEBHOOKS_OF_A_CALLER,
    DeadLetter,
    DueWebhook,
    OutboxBatch,
    OutboxEvent,
    Refused,
    SinkState,
)
from jimsapi.threads.store import decode_cursor, encode_cursor

HistoryPage = tuple[list[OutboxEvent], str | None]
ReadHistory = Callable[[datetime, str, int], HistoryPage]
"""Reads the events of all threads since a time (UTC, without a time zone), after a position; "" is the beginning."""
KnowsEvent = Callable[[UUID, UUID], bool]


class _Sink(msgspec.Struct):
    name: str
    position: int
    owner: UUID | None = None
    held_until: datetime = datetime.min
    history: datetime | None = None
    history_after: str = ""
    rewinds: int = 0


class _Row(msgspec.Struct, frozen=True, gc=False):
    event: OutboxEvent
    added_at: datetime


class _Letter(msgspec.Struct):
    number: int
    event: OutboxEvent
    reason: str
    failed_at: datetime
    again: bool = False


class _Webhook(msgspec.Struct):
    run_id: UUID
    url: str
    caller: UUID | None
    due_at: datetime
    calls: int = 0


class MemoryOutbox:
    """An `Outbox` in the memory of the process.

    `has_event` and `has_run` return whether the store still has an event of a thread, and a run.
    """

    lasting = False

    def __init__(
        self,
        committed: Callable[[], None],
        read_history: ReadHistory,
        has_event: KnowsEvent,
        has_run: Callable[[UUID], bool],
    ) -> None:
        self.keeps = False
        """Whether a sink is registered, so that the store adds events."""
        self._committed = committed
        self._read_history = read_history
        self._has_event = has_event
        self._has_run = has_run
        self._webhooks: dict[int, _Webhook] = {}
        self._sinks: dict[str, _Sink] = {}
        self._rows: deque[_Row] = deque()
        self._passed = 0  # the position of the last row that was deleted; rows have consecutive positions
        self._letters: dict[str, list[_Letter]] = {}
        self._last_letter = 0

    def add(self, thread_id: UUID, contact_id: str | None, rows: Iterable[EventRow], run_id: UUID | None) -> None:
        """Add events that the store stored. Call it only if `keeps` is true."""
        now = utc_now()
        self._rows += [_Row(OutboxEvent(thread_id, contact_id, run_id, row), now) for row in rows]

    async def register(self, sink: str) -> None:
        if sink not in self._sinks:
            self._sinks[sink] = _Sink(sink, self._passed + len(self._rows))
            self._letters[sink] = []
        self.keeps = True
        self._committed()

    async def remove(self, sink: str) -> bool:
        found = self._sinks.pop(sink, None)
        self._letters.pop(sink, None)
        self.keeps = bool(self._sinks)
        self._delete_passed()
        self._committed()
        return found is not None

    async def sinks(self) -> list[SinkState]:
        return [self._state(self._sinks[name]) for name in sorted(self._sinks)]

    def _state(self, sink: _Sink) -> SinkState:
        index = sink.position - self._passed
        is_held = sink.owner is not None and sink.held_until > utc_now()
        return SinkState(
            sink.name,
            len(self._rows) - index,
            self._rows[index].added_at.replace(tzinfo=UTC) if index < len(self._rows) else None,
            len(self._existing(sink.name)),
            sink.history and sink.history.replace(tzinfo=UTC),
            sink.owner if is_held else None,
            sink.held_until.replace(tzinfo=UTC) if is_held else None,
        )

    async def hold(self, sink: str, owner: UUID, seconds: float) -> bool:
        found = self._sinks.get(sink)
        now = utc_now()
        if found is None or (found.owner not in (None, owner) and found.held_until > now):
            return False
        found.owner, found.held_until = owner, now + timedelta(seconds=seconds)
        self._committed()
        return True

    async def release(self, sink: str, owner: UUID) -> None:
        found = self._sinks.get(sink)
        if found is not None and found.owner == owner:
            found.owner = None
        self._committed()

    async def read(self, sink: str, limit: int) -> OutboxBatch:
        found = self._sinks.get(sink)
        if found is None:
            return OutboxBatch([], None)
        again = [letter for letter in self._letters[sink] if letter.again][:limit]
        if again:
            numbers = (str(letter.number) for letter in again)
            events = [letter.event for letter in again if self._exists(letter.event)]
            return OutboxBatch(events, encode_cursor("again", ",".join(numbers)), replayed=True)
        if found.history is not None:
            events, after = self._read_history(found.history, found.history_after, limit)
            return OutboxBatch(events, encode_cursor("history", f"{found.rewinds} {after or ''}"))
        begin = found.position - self._passed
        rows = list(islice(self._rows, begin, begin + limit))
        if not rows:
            return OutboxBatch([], None)
        after = encode_cursor("outbox", str(found.position + len(rows)))
        return OutboxBatch([row.event for row in rows if self._exists(row.event)], after)

    async def advance(self, sink: str, owner: UUID, after: str, refused: Sequence[Refused] = ()) -> bool:
        found = self._sinks.get(sink)
        if found is None or found.owner != owner or found.held_until <= utc_now():
            return False
        kind, position = decode_cursor(after, 2)
        letters = self._letters[sink]
        if kind == "again":
            done = set(map(int, position.split(",")))
            self._letters[sink] = letters = [letter for letter in letters if letter.number not in done]
        elif kind == "history":
            rewinds, _, history_after = position.partition(" ")
            if int(rewinds) == found.rewinds:
                found.history_after = history_after
                found.history = found.history if history_after else None
        else:
            found.position = int(position)
            self._delete_passed()
        for refusal in refused:
            self._last_letter += 1
            letters.append(_Letter(self._last_letter, refusal.event, refusal.reason[:MAX_REASON], utc_now()))
        self._committed()
        return True

    async def rewind(self, sink: str, since: datetime) -> bool:
        found = self._sinks.get(sink)
        if found is not None:
            found.history, found.history_after = since.astimezone(UTC).replace(tzinfo=None), ""
            found.rewinds += 1
        self._committed()
        return found is not None

    async def dead_letters(self, sink: str, limit: int, after: int = 0) -> list[DeadLetter]:
        letters = [letter for letter in self._existing(sink) if letter.number > after]
        return [
            DeadLetter(
                letter.number,
                letter.event.thread_id,
                row_id(letter.event.row),
                letter.event.run_id,
                letter.event.row.event_type,
                letter.reason,
                letter.failed_at.replace(tzinfo=UTC),
                letter.again,
            )
            for letter in letters[:limit]
        ]

    async def replay(self, sink: str, numbers: Sequence[int] | None = None) -> int:
        chosen = self._chosen(sink, numbers)
        for letter in chosen:
            letter.again = True
        self._committed()
        return len(chosen)

    async def drop(self, sink: str, numbers: Sequence[int] | None = None) -> int:
        chosen = self._chosen(sink, numbers)
        if chosen:
            dropped = {letter.number for letter in chosen}
            self._letters[sink] = [letter for letter in self._letters[sink] if letter.number not in dropped]
        self._committed()
        return len(chosen)

    def add_webhook(self, run_id: UUID, url: str, caller: UUID | None, *, at_once: bool) -> None:
        """Add the webhook of a run that has ended."""
        due_at = utc_now() if at_once else utc_now() + timedelta(seconds=WEBHOOK_HOLD)
        self._webhooks[run_id.int] = _Webhook(run_id, url, caller, due_at)

    async def take_webhooks(self, limit: int, seconds: float) -> list[DueWebhook]:
        now = utc_now()
        taken: list[_Webhook] = []
        of_callers: Counter[UUID | None] = Counter()
        for key, webhook in list(self._webhooks.items()):
            if not self._has_run(webhook.run_id):
                del self._webhooks[key]
            elif webhook.due_at <= now and of_callers[webhook.caller] < WEBHOOKS_OF_A_CALLER and len(taken) < limit:
                of_callers[webhook.caller] += 1
                taken.append(webhook)
        for webhook in taken:
            webhook.due_at = now + timedelta(seconds=seconds)
            self._webhooks[webhook.run_id.int] = self._webhooks.pop(webhook.run_id.int)  # to the end of the order
        self._committed()
        return [DueWebhook(webhook.run_id, webhook.url, webhook.calls) for webhook in taken]

    async def delay_webhooks(self, calls: Mapping[UUID, int], seconds: float) -> int:
        due_at = utc_now() + timedelta(seconds=seconds)
        found = [(webhook, count) for run_id, count in calls.items() if (webhook := self._webhooks.get(run_id.int))]
        for webhook, count in found:
            webhook.due_at, webhook.calls = due_at, count
        self._committed()
        return len(found)

    async def end_webhook(self, run_id: UUID) -> None:
        self._webhooks.pop(run_id.int, None)
        self._committed()

    async def count_webhooks(self) -> int:
        return len(self._webhooks)

    def _chosen(self, sink: str, numbers: Sequence[int] | None) -> list[_Letter]:
        return [letter for letter in self._existing(sink) if numbers is None or letter.number in numbers]

    def _existing(self, sink: str) -> list[_Letter]:
        return [letter for letter in self._letters.get(sink, []) if self._exists(letter.event)]

    def _exists(self, event: OutboxEvent) -> bool:
        return self._has_event(event.thread_id, row_id(event.row))

    def _delete_passed(self) -> None:
        end = self._passed + len(self._rows)
        slowest = min((sink.position for sink in self._sinks.values()), default=end)
        while self._passed < slowest:
            self._rows.popleft()
            self._passed += 1
