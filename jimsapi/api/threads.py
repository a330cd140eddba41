"""The routes of threads and their events: list, search, read, change, fork and delete."""

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, cast
from uuid import UUID

import msgspec
import orjson

from jimsapi.api.lookup import ContactQuery, Limit, PageQuery, contact_of, identity_of, utc_text
from jimsapi.asgi.connection import Request
from jimsapi.asgi.response import JSONResponse, Response
from jimsapi.asgi.routing import Router
from jimsapi.runs.admission import Admission
from jimsapi.runs.inbound import MAX_METADATA, check_text, thread_metadata
from jimsapi.runs.scopes import THREADS
from jimsapi.runs.threads import ThreadService
from jimsapi.threads.errors import InputRefused
from jimsapi.threads.event import EventRow, row_id
from jimsapi.threads.facts import MAX_TITLE, ThreadChange, ThreadSummary
from jimsapi.threads.run import EventRecord, ThreadRecord
from jimsapi.threads.search import (
    MAX_CONDITIONS,
    MAX_QUERY,
    Scalar,
    SearchQuery,
    ThreadFilter,
    ThreadMatch,
    message_text,
    parse_query,
    snippet,
)
from jimsapi.threads.storable import Unstorable, dump_storable, load_stored, storable_text, stored_json
from jimsapi.wire.answer import LOOKUP_REFUSALS
from jimsapi.wire.request import idempotency_key

_SEARCHABLE = r"[^\u0000-/:-@\[-`{-\u007f]"
"""A character that is not a sign of ASCII. A query without one is a mistake; one of other signs finds nothing."""
SearchText = Annotated[
    str,
    msgspec.Meta(
        max_length=MAX_QUERY,
        description="Words, and phrases in double quotes.",
        extra_json_schema={"pattern": _SEARCHABLE},
    ),
]
_NO_NUL = {"pattern": r"^[^\u0000]*$"}
_CONDITIONS = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean", "null"], **_NO_NUL},
    "propertyNames": _NO_NUL,
    "maxProperties": MAX_CONDITIONS,
}
MetadataText = Annotated[
    str,
    msgspec.Meta(
        max_length=2000,
        description="A JSON object of strings, numbers, booleans and nulls, of at most 2000 characters.",
        extra_json_schema={"contentMediaType": "application/json", "contentSchema": _CONDITIONS},
    ),
]
Metadata = Annotated[
    dict[str, Any], msgspec.Meta(description=f"At most {MAX_METADATA} bytes of JSON. It replaces what was there.")
]
Title = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TITLE)]

TITLE_LENGTH = 80
PREVIEW_LENGTH = 200
"""The most characters of a message that a list shows as the title and as the preview of its thread."""
SUMMARIES_AT_ONCE = 25
"""The threads of a list whose first and newest messages are in memory at once. Each may have a mebibyte."""


class ListQuery(ContactQuery):
    """The contact of the threads, the page, and what the threads must meet.

    - `archived`: only threads that are archived, or that are not.
    - `q`: only threads in which a message or the title has all these words. Words in double quotes are a phrase.
    - `metadata`: a JSON object. Only threads whose metadata has these keys with these values.
    - `parent`: only forks of this thread.
    """

    limit: Limit = 100
    after: str | None = None
    archived: bool | None = None
    q: SearchText | None = None
    metadata: MetadataText | None = None
    parent: UUID | None = None


class ParentItem(msgspec.Struct):
    """The thread that a thread was forked from, and the newest event that it got from it."""

    thread_id: UUID
    event_id: UUID


class MatchItem(msgspec.Struct):
    """Why a search found a thread: its newest message that matches, or its title (`event_id` is null).

    `text` is a part of that message or title, around the first word that the search looked for.
    """

    event_id: UUID | None
    text: str


class ThreadItem(msgspec.Struct):
    """A thread. `title` is the one that it was given, else the first words of the user's first message; `preview` is
    the beginning of its newest message; `active_at` is the time of its newest event. `forks` is the number of its
    forks, at most 1000; `questions` is the number of its open questions, among the newest 20. Only searches have
    `match`."""

    thread_id: UUID
    contact_id: str | None
    created_at: datetime
    thread_config: dict[str, Any]
    title: str | None
    preview: str | None
    active_at: datetime | None
    archived_at: datetime | None
    metadata: dict[str, Any]
    parent: ParentItem | None
    forks: int
    questions: int
    match: MatchItem | msgspec.UnsetType = msgspec.UNSET


class ThreadChanges(msgspec.Struct):
    """What to change of a thread. What is left out stays as it is; a `title` of null removes the title."""

    title: Title | msgspec.UnsetType | None = msgspec.UNSET
    archived: bool | msgspec.UnsetType = msgspec.UNSET
    metadata: Metadata | msgspec.UnsetType = msgspec.UNSET


class Fork(msgspec.Struct):
    """Where a fork ends: with the event `at`, or before the event `before`. Without both, it has all events."""

    at: UUID | None = None
    before: UUID | None = None


class ThreadList(msgspec.Struct):
    """A page of threads, newest first."""

    threads: list[ThreadItem]
    next: str | None


class EventItem(msgspec.Struct):
    """An event of a thread."""

    event_id: UUID
    created_at: datetime
    event_type: str
    event_data: Any


class EventList(msgspec.Struct):
    """A page of events, oldest first."""

    events: list[EventItem]
    next: str | None


def thread_routes(threads: ThreadService) -> Router:
    """The routes of threads and their events."""
    router = Router()
    tags = ("threads",)
    lookup_responses = {**LOOKUP_REFUSALS, 404: "There is no such thread."}

    @router.get(
        "/api/v1/threads",
        scope=THREADS,
        query=ListQuery,
        response=ThreadList,
        responses={**LOOKUP_REFUSALS, 501: "The store cannot search."},
        tags=tags,
    )
    async def list_threads(request: Request) -> Response:
        """List a contact's threads, newest first, or search them."""
        query, contact_id = contact_of(request, ListQuery)
        only = ThreadFilter(_wanted_metadata(query.metadata), query.parent)
        identity, limit, after = identity_of(request), query.limit, query.after
        if query.q is None:
            page = await threads.threads(identity, contact_id, limit, after, query.archived, only)
            return JSONResponse({"threads": await _thread_items(threads, page.threads), "next": page.next})
        wanted = _search_query(query.q)
        found = await threads.search(identity, wanted, contact_id, limit, after, query.archived, only)
        shown = await _thread_items(threads, [match.thread for match in found.matches])
        titles = [item["title"] for item in shown]
        # Not in the thread of the event loop: the messages may have some mebibytes.
        for item, match in zip(shown, await asyncio.to_thread(_matches, titles, found.matches, wanted), strict=True):
            item["match"] = match
        return JSONResponse({"threads": shown, "next": found.next})

    @router.get("/api/v1/threads/{id:uuid}", scope=THREADS, response=ThreadItem, responses=lookup_responses, tags=tags)
    async def get_thread(request: Request) -> Response:
        """Show one thread."""
        thread = await threads.thread(identity_of(request), request.path_params["id"])
        [shown] = await _thread_items(threads, [thread])
        return JSONResponse(shown)

    @router.patch(
        "/api/v1/threads/{id:uuid}",
        scope=THREADS,
        body=ThreadChanges,
        response=ThreadItem,
        responses=lookup_responses,
        tags=tags,
    )
    async def change_thread(request: Request) -> Response:
        """Give a thread a title or metadata, or archive it."""
        changes = await request.typed(ThreadChanges)
        identity, thread_id = identity_of(request), request.path_params["id"]
        await threads.change(identity, thread_id, _change(changes))
        [shown] = await _thread_items(threads, [await threads.thread(identity, thread_id)])
        return JSONResponse(shown)

    @router.post(
        "/api/v1/threads/{id:uuid}/fork",
        scope=THREADS,
        body=Fork,
        response=ThreadItem,
        status=201,
        responses={**lookup_responses, 404: "There is no such thread, or it has no such event."},
        tags=tags,
    )
    async def fork_thread(request: Request) -> Response:
        """Make a thread that begins as another one does.

        To edit a message, fork `before` it, and send the new message to the fork. Requests with the same
        `Idempotency-Key` get the same fork.
        """
        key = idempotency_key(request)
        fork = await request.typed(Fork)
        if fork.at is not None and fork.before is not None:
            raise InputRefused("before", "conflict", "Give `at` or `before`, and not both", str(fork.before))
        event_id = fork.at or fork.before
        before = fork.before is not None
        admission, thread_id = cast(Admission, request.admission), request.path_params["id"]
        if key is None:
            thread = await threads.fork(admission.identity, thread_id, event_id, before=before)
        else:
            thread = await threads.fork_once(admission, thread_id, event_id, key, before=before)
        [shown] = await _thread_items(threads, [thread])
        return JSONResponse(shown, 201, {"location": request.link(f"/api/v1/threads/{thread.thread_id}")})

    @router.get(
        "/api/v1/threads/{id:uuid}/events",
        scope=THREADS,
        query=PageQuery,
        response=EventList,
        responses=lookup_responses,
        tags=tags,
    )
    async def list_events(request: Request) -> Response:
        """List a thread's events, oldest first."""
        query = request.typed_query(PageQuery)
        page = await threads.events(identity_of(request), request.path_params["id"], query.limit, query.after)
        return JSONResponse({"events": [event_item(event) for event in page.events], "next": page.next})

    @router.delete("/api/v1/threads/{id:uuid}", scope=THREADS, status=204, responses=lookup_responses, tags=tags)
    async def delete_thread(request: Request) -> Response:
        """Delete a thread with all its events. Its open runs are cancelled."""
        await threads.delete_thread(identity_of(request), request.path_params["id"])
        return Response(status=204)

    return router


def _change(changes: ThreadChanges) -> ThreadChange:
    given = changes.metadata
    metadata = msgspec.UNSET if given is msgspec.UNSET else thread_metadata(given)
    return ThreadChange(changes.title, changes.archived, metadata)


async def _thread_items(threads: ThreadService, records: Sequence[ThreadRecord]) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    for start in range(0, len(records), SUMMARIES_AT_ONCE):
        part = records[start : start + SUMMARIES_AT_ONCE]
        summaries = await threads.summaries(part)
        shown += [thread_item(record, summary) for record, summary in zip(part, summaries, strict=True)]
    return shown


def thread_item(thread: ThreadRecord, summary: ThreadSummary) -> dict[str, Any]:
    """Return a thread as the JSON object that clients get."""
    facts = summary.facts
    return {
        "thread_id": thread.thread_id,
        "contact_id": thread.contact_id,
        "created_at": utc_text(thread.created_at),
        "thread_config": stored_json(thread.thread_config),
        "title": _words(summary.first, TITLE_LENGTH) if facts.title is None else facts.title,
        "preview": _words(summary.newest, PREVIEW_LENGTH),
        "active_at": summary.active_at and utc_text(summary.active_at),
        "archived_at": facts.archived_at and utc_text(facts.archived_at),
        "metadata": stored_json(facts.metadata),
        "parent": facts.parent and {"thread_id": facts.parent.thread_id, "event_id": facts.parent.event_id},
        "forks": summary.forks,
        "questions": summary.questions,
    }


def _search_query(text: str) -> SearchQuery:
    check_text("q", text)
    if not re.search(_SEARCHABLE, text):
        raise InputRefused("q", "no_words", "A search needs at least one letter or digit", text)
    return parse_query(text) or SearchQuery(())


def _wanted_metadata(text: str | None) -> dict[str, Scalar]:
    """Return the metadata that a list asks for. Raises `InputRefused`."""
    if text is None:
        return {}
    try:
        wanted = orjson.loads(text)
        dump_storable(wanted)
    except (orjson.JSONDecodeError, Unstorable):
        wanted = None
    if not isinstance(wanted, dict) or not all(isinstance(one, Scalar) for one in wanted.values()):
        message = 'Value should be a JSON object of strings, numbers, booleans and nulls, such as {"stars":5}'
        raise InputRefused("metadata", "json_object", message, None)
    if len(wanted) > MAX_CONDITIONS:
        raise InputRefused("metadata", "too_long", f"Object should have at most {MAX_CONDITIONS} keys", None)
    return wanted


def _matches(titles: Sequence[str | None], matches: Sequence[ThreadMatch], query: SearchQuery) -> list[dict[str, Any]]:
    return [_match(title, match, query) for title, match in zip(titles, matches, strict=True)]


def _match(title: str | None, match: ThreadMatch, query: SearchQuery) -> dict[str, Any]:
    event = match.event
    text = title if event is None else message_text(event)
    event_id = None if event is None else row_id(event)
    return {"event_id": event_id, "text": snippet(text or "", query, PREVIEW_LENGTH)}


def _words(message: EventRow | None, length: int) -> str | None:
    """Return the beginning of a message's text on one line, cut at a word if there is one."""
    data = None if message is None or message.data is None else load_stored(message.data)
    content = data.get("content") if isinstance(data, dict) else None
    if not isinstance(content, str):
        return None
    # A whole message may be long, and one of jims-core may have half a surrogate pair.
    words = " ".join(storable_text(content[: 4 * length]).split())
    if len(words) <= length and len(content) <= 4 * length:
        return words
    return (words[: length - 1].rpartition(" ")[0] or words[: length - 1]) + "…"


def event_item(event: EventRecord) -> dict[str, Any]:
    """Return an event as the JSON object that clients get."""
    return {
        "event_id": event.event_id,
        "created_at": utc_text(event.created_at),
        "event_type": event.event_type,
        "event_data": None if event.event_data is None else stored_json(event.event_data),
    }
