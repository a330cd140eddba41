"""The routes of contacts: list them, and delete their threads."""

from datetime import datetime
from typing import Any, cast

import msgspec

from jimsapi.api.lookup import ContactQuery, Limit, contact_of, identity_of, utc_text
from jimsapi.asgi.connection import Request
from jimsapi.asgi.response import JSONResponse, Response
from jimsapi.asgi.routing import Router
from jimsapi.runs.admission import Admission
from jimsapi.runs.lists import Lists
from jimsapi.runs.scopes import THREADS
from jimsapi.runs.threads import ThreadService
from jimsapi.threads.run import ContactRecord
from jimsapi.wire.answer import LOOKUP_REFUSALS


class ContactListQuery(ContactQuery):
    """The page, or the only contact to show."""

    limit: Limit = 100
    after: str | None = None


class ContactItem(msgspec.Struct):
    """A contact: the number of its threads, and the time of their newest event."""

    contact_id: str
    thread_count: int
    active_at: datetime | None


class ContactList(msgspec.Struct):
    """A page of contacts, in an order that does not change."""

    contacts: list[ContactItem]
    next: str | None


def contact_routes(threads: ThreadService, lists: Lists) -> Router:
    """The routes of contacts."""
    router = Router()
    tags = ("threads",)

    @router.get(
        "/api/v1/contacts",
        scope=THREADS,
        query=ContactListQuery,
        response=ContactList,
        responses=LOOKUP_REFUSALS,
        tags=tags,
    )
    async def list_contacts(request: Request) -> Response:
        """List the contacts that have threads.

        A caller that is bound to a contact gets only this one. If the server admits every caller, `contact_id` is
        required.
        """
        query = request.typed_query(ContactListQuery)
        admission = cast(Admission, request.admission)
        if query.contact_id is not None:
            request.person = query.contact_id
        page = await lists.contacts(admission, query.limit, query.after, query.contact_id)
        return JSONResponse({"contacts": [contact_item(contact) for contact in page.contacts], "next": page.next})

    @router.delete(
        "/api/v1/contacts", scope=THREADS, query=ContactQuery, status=204, responses=LOOKUP_REFUSALS, tags=tags
    )
    async def delete_contact(request: Request) -> Response:
        """Delete all threads of a contact, if there are any."""
        _, contact_id = contact_of(request, ContactQuery)
        await threads.delete_contact(identity_of(request), contact_id)
        return Response(status=204)

    return router


def contact_item(contact: ContactRecord) -> dict[str, Any]:
    """Return a contact as the JSON object that clients get."""
    return {
        "contact_id": contact.contact_id,
        "thread_count": contact.threads,
        "active_at": contact.active_at and utc_text(contact.active_at),
    }
