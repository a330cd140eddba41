"""The items of a conversation, which are events of its thread, in pages."""

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
import orjson

from jimsapi.asgi import HTTPError, Request
from jimsapi.runs import RunService
from jimsapi.threads import Event, EventRow, StoredRun, id_beside, row_id
from jimsapi.wire import event_data_json, said
from jimsapi_openai.ids import event_of
from jimsapi_openai.items import items_of

EVENTS_AT_ONCE = 100
"""The events of a thread that are read for a page; more if they make too few items."""
MOST_READS = 50
"""How often events are read for one page: a thread may have very many that make no item."""
RECENT = 200
"""The newest events of a thread among which a later message is looked for."""
BESIDE = 8
"""The events that are looked for beside a message: its metadata, its files, and answers."""
KNOWN = 10_000
"""The most ends of pages whose places in their threads are remembered."""

Limit = Annotated[int, msgspec.Meta(ge=1, le=100)]
Items = list[dict[str, Any]]


class ListQuery(msgspec.Struct):
    """The page of a list: it begins after the item with the identifier `after`."""

    limit: Limit = 20
    after: str | None = None


class ConversationItems:
    """Reads the items of conversations.

    A page that begins at the newest item costs the same in every thread. So does one that continues from the oldest,
    if this process has read the page before it; otherwise the thread is read up to there. No page reads more than
    `MOST_READS` times: it then has fewer items than its limit.
    """

    def __init__(self, service: RunService) -> None:
        self._service = service
        self._cursors: OrderedDict[tuple[UUID, str], str | None] = OrderedDict()

    async def item(self, request: Request, thread_id: UUID, item_id: str) -> dict[str, Any]:
        """Return one item. Raises `HTTPError` 404."""
        _, found, position = await self._find(request, thread_id, item_id)
        return found[position]

    async def newest(self, request: Request, thread_id: UUID, limit: int, after: str | None) -> dict[str, Any]:
        """Return a page, newest first. Raises `HTTPError` 404 if there is no item `after`."""
        items: Items = []
        before: EventRow | None = None
        if after is not None:
            before, of_event, position = await self._find(request, thread_id, after)
            items += reversed(of_event[:position])
        for _ in range(MOST_READS):
            rows = await self._service.store.load_events(thread_id, _as_event(before), EVENTS_AT_ONCE)
            if not rows:
                return page(items[:limit], has_more=len(items) > limit)
            items += reversed(await self._items(request, thread_id, rows))
            before = rows[0]
            if len(items) > limit:
                break
        return page(items[:limit], has_more=True)

    async def oldest(self, request: Request, thread_id: UUID, limit: int, after: str | None) -> dict[str, Any]:
        """Return a page, oldest first.

        Raises `HTTPError` 404 if there is no item `after`, and 422 if it is too far from the beginning to find it.
        """
        if after is not None:
            await self._find(request, thread_id, after)
        cursor = None if after is None else self._cursors.get((thread_id, after))
        items: Items = []
        found_after = after is None
        begins: dict[str, str | None] = {}
        for _ in range(MOST_READS):
            events = await self._service.store.events(thread_id, None, EVENTS_AT_ONCE, cursor)
            rows = [EventRow(one.event_id, one.created_at, one.event_type, one.event_data) for one in events.events]
            new = await self._items(request, thread_id, rows)
            begins.update(dict.fromkeys((item["id"] for item in new), cursor))
            if not found_after:
                position = _index(new, after)
                found_after, new = position < len(new), new[position + 1 :]
            items += new
            cursor = events.next
            if cursor is None or len(items) > limit:
                break
        if not found_after and cursor is not None:
            text = "The item is too far from the beginning to be found now: list the newest items first, without order"
            raise HTTPError(422, text)
        shown = items[:limit]
        has_more = cursor is not None or len(items) > limit
        if shown and has_more:
            self._remember(thread_id, shown[-1]["id"], begins[shown[-1]["id"]])
        return page(shown, has_more=has_more)

    async def of_events(self, request: Request, thread_id: UUID, event_ids: Sequence[UUID]) -> Items:
        """Return the items of events."""
        return await self._items(request, thread_id, await self._service.store.events_by_id(thread_id, event_ids))

    def _remember(self, thread_id: UUID, last_id: str, cursor: str | None) -> None:
        self._cursors[thread_id, last_id] = cursor
        while len(self._cursors) > KNOWN:
            self._cursors.popitem(last=False)

    async def _items(self, request: Request, thread_id: UUID, rows: Sequence[EventRow]) -> Items:
        """Return the items of events that follow each other. What is beside the first may be missing."""
        public = [row for row in rows if not self._service.disclosure.is_private(row.event_type)]
        if public and public[0].event_type.startswith("comm."):
            public = [*await self._beside(thread_id, public[0]), *public]
        return items_of(request, thread_id, said(public))

    async def _beside(self, thread_id: UUID, row: EventRow) -> list[EventRow]:
        ids = [id_beside(row_id(row), number) for number in range(1, BESIDE + 1)]
        found = await self._service.store.events_by_id(thread_id, ids)
        return [beside for beside in found if beside.event_type.startswith("message.")]

    async def _find(self, request: Request, thread_id: UUID, item_id: str) -> tuple[EventRow, Items, int]:
        """Return the event of an item, all items of that event, and the position of the item among them.

        Raises `HTTPError` 404 if the conversation does not have the item.
        """
        event_id = event_of(item_id)
        rows = [] if event_id is None else await self._service.store.events_by_id(thread_id, [event_id])
        found = await self._items(request, thread_id, rows)
        position = _index(found, item_id)
        if position == len(found):
            raise HTTPError(404, f"The conversation has no item {item_id[:150]!r}")
        return rows[0], found, position


def page(items: Items, *, has_more: bool) -> dict[str, Any]:
    """Return a page in OpenAI's format."""
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    return {"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": has_more}


def page_of(items: Items, limit: int, after: str | None) -> dict[str, Any]:
    """Return a page of a list that is known whole."""
    rest = items if after is None else items[_index(items, after) + 1 :]
    return page(rest[:limit], has_more=len(rest) > limit)


async def last_event_of(service: RunService, run: StoredRun) -> tuple[UUID | None, bool]:
    """Return the last event of a run, and whether no message of the user follows it in its thread.

    If very many events follow it, this assumes a message among them. The event is None if an older store keeps no
    message of a run, and the run has no events.
    """
    whole = await service.store.run(run.run_id, None, None)  # with private events, which callers do not see
    last = whole.events[-1].event_id if whole.events else whole.message_id
    rows = await service.store.load_events(run.thread_id, None, RECENT)
    ids = [row_id(row) for row in rows]
    return last, last in ids and not any(map(_is_of_user, rows[ids.index(last) + 1 :]))


def _is_of_user(row: EventRow) -> bool:
    """Return whether an event begins another turn: a message of the user, or an answer to a question."""
    if row.event_type == "question.answered":
        return True
    if not row.event_type.startswith("comm."):
        return False
    try:
        data = orjson.loads(event_data_json(row.data))
    except orjson.JSONDecodeError:  # another JIMS program stored it, with a text that is not Unicode
        return False
    return isinstance(data, dict) and data.get("role") == "user"


def _index(items: Items, item_id: str | None) -> int:
    """Return the position of an item; the number of items if it is not among them."""
    return next((index for index, item in enumerate(items) if item["id"] == item_id), len(items))


def _as_event(row: EventRow | None) -> Event | None:
    if row is None:
        return None
    created_at = row.created_at if isinstance(row.created_at, datetime) else datetime.fromisoformat(row.created_at)
    return Event(event_type=row.event_type, event_id=row_id(row), created_at=created_at.replace(tzinfo=None))
