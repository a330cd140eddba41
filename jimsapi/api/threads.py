"""The routes of threads: read and delete threads, events and contacts."""

from datetime import datetime
from typing import Annotated, Any, TypeVar, cast
from uuid import UUID

import msgspec

from jimsapi.asgi.connection import Request
from jimsapi.asgi.errors import Fault, ValidationError
from jimsapi.asgi.response import JSONResponse, Response
from jimsapi.asgi.routing import Router
from jimsapi.runs.identity import THREADS, Admission
from jimsapi.runs.threads import ThreadService
from jimsapi.threads.identity import Identity
from jimsapi.threads.run import EventRecord, ThreadRecord
from jimsapi.threads.storable import stored_json
from jimsapi.wire.answer import LOOKUP_REFUSALS

Limit = Annotated[int, msgspec.Meta(ge=1, le=1000, description="The maximum number of items in a page.")]
Contact = Annotated[
    str | None, msgspec.Meta(description="The contact. The default is the one that the caller is bound to.")
]


class PageQuery(msgspec.Struct):
    """The page: `after` is the `next` of the previous page."""

    limit: Limit = 100
    after: str | None = None


class ContactQuery(msgspec.Struct):
    """The contact of the threads."""

    contact_id: Contact = None


class ContactPageQuery(ContactQuery):
    """The contact of the threads, and the page."""

    limit: Limit = 100
    after: str | None = None


class ThreadItem(msgspec.Struct):
    """A thread."""

    thread_id: UUID
    contact_id: str | None
    created_at: datetime
    thread_config: dict[str, Any]


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
    """The routes of threads, events and contacts."""
    router = Router()
    tags = ("threads",)
    lookup_responses = {**LOOKUP_REFUSALS, 404: "There is no such thread."}

    @router.get(
        "/api/v1/threads",
        scope=THREADS,
        query=ContactPageQuery,
        response=ThreadList,
        responses=LOOKUP_REFUSALS,
        tags=tags,
    )
    async def list_threads(request: Request) -> Response:
        """List a contact's threads, newest first."""
        query, contact_id = _contact_of(request, ContactPageQuery)
        page = await threads.threads(_identity(request), contact_id, query.limit, query.after)
        return JSONResponse({"threads": [_thread(thread) for thread in page.threads], "next": page.next})

    @router.get("/api/v1/threads/{id:uuid}", scope=THREADS, response=ThreadItem, responses=lookup_responses, tags=tags)
    async def get_thread(request: Request) -> Response:
        """Show one thread."""
        return JSONResponse(_thread(await threads.thread(_identity(request), request.path_params["id"])))

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
        page = await threads.events(_identity(request), request.path_params["id"], query.limit, query.after)
        return JSONResponse({"events": [_event(event) for event in page.events], "next": page.next})

    @router.delete("/api/v1/threads/{id:uuid}", scope=THREADS, status=204, responses=lookup_responses, tags=tags)
    async def delete_thread(request: Request) -> Response:
        """Delete a thread with all its events. Its open runs are cancelled."""
        await threads.delete_thread(_identity(request), request.path_params["id"])
        return Response(status=204)

    @router.delete(
        "/api/v1/contacts", scope=THREADS, query=ContactQuery, status=204, responses=LOOKUP_REFUSALS, tags=tags
    )
    async def delete_contact(request: Request) -> Response:
        """Delete all threads of a contact, if there are any."""
        _, contact_id = _contact_of(request, ContactQuery)
        await threads.delete_contact(_identity(request), contact_id)
        return Response(status=204)

    return router


def _identity(request: Request) -> Identity:
    return cast(Admission, request.admission).identity


Query = TypeVar("Query", bound=ContactQuery)


def _contact_of(request: Request, model: type[Query]) -> tuple[Query, str]:
    """The query, and the contact: the one in the query, else the one that the caller is bound to.

    Raises `ValidationError` if there is neither: a request must not apply to the threads of all contacts.
    """
    own_contact = _identity(request).contact_id
    omitted = "contact_id" not in request.query and own_contact is None
    missing: Fault = {"type": "missing", "loc": ["query", "contact_id"], "msg": "Field required", "input": None}
    faults = [missing] if omitted else []
    try:
        query = request.typed_query(model)
    except ValidationError as invalid:
        raise ValidationError([*faults, *invalid.faults]) from None
    contact_id = own_contact if query.contact_id is None else query.contact_id
    if contact_id is None:
        raise ValidationError([missing])
    return query, contact_id


def _thread(thread: ThreadRecord) -> dict[str, Any]:
    return {
        "thread_id": thread.thread_id,
        "contact_id": thread.contact_id,
        "created_at": _utc(thread.created_at),
        "thread_config": stored_json(thread.thread_config),
    }


def _event(event: EventRecord) -> dict[str, Any]:
    return {
        "event_id": event.event_id,
        "created_at": _utc(event.created_at),
        "event_type": event.event_type,
        "event_data": None if event.event_data is None else stored_json(event.event_data),
    }


def _utc(time: datetime) -> str:
    """A time with the zone UTC in the format of RFC 3339: `2026-01-31T12:00:00.000000Z`."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
