"""What the routes of threads, contacts, ratings and usage share: pages, the contact of a request, and times."""

from datetime import datetime
from typing import Annotated, TypeVar, cast

import msgspec

from jimsapi.asgi.connection import Request
from jimsapi.asgi.errors import Fault, ValidationError
from jimsapi.runs.admission import Admission
from jimsapi.threads.identity import Identity

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


def identity_of(request: Request) -> Identity:
    """Return the identity of an admitted caller."""
    return cast(Admission, request.admission).identity


Query = TypeVar("Query", bound=ContactQuery)


def contact_of(request: Request, model: type[Query]) -> tuple[Query, str]:
    """Return the query, and the contact: the one in the query, else the one that the caller is bound to.

    Raises `ValidationError` if there is neither: a request must not apply to the threads of all contacts.
    """
    own_contact = identity_of(request).contact_id
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
    request.person = contact_id
    return query, contact_id


def utc_text(time: datetime) -> str:
    """Return a time with the zone UTC in the format of RFC 3339: `2026-01-31T12:00:00.000000Z`."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
