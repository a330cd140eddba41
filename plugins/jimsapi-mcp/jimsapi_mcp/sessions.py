"""The open calls of earlier clients in this process: which a notification cancels, and which wait for a person.

A call that waits also reads the store, so a response that another process receives reaches it, too.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from uuid import UUID
from weakref import WeakSet

import msgspec

from jimsapi.asgi import Request
from jimsapi_mcp.eras import Client
from jimsapi_mcp.messages import RequestId
from jimsapi_mcp.people import admission_of

FORMS_OF_A_PERSON = 20
"""How many forms one person may have open at once: a contact of a caller, or a session on a public server."""

CallKey = tuple[str | None, str, str, RequestId]
"""The caller, its session and the identifier of the request: clients number their requests alike."""
Person = tuple[str, ...]
"""Identifies who sees a form: a contact of a caller, or a session on a server without authentication."""


class Reaction(Enum):
    """What a person or a client did with a form."""

    ANSWERED = "answered"
    DISMISSED = "dismissed"
    DECLINED = "declined"
    REFUSED = "refused"
    INVALID = "invalid"
    CALL_CANCELLED = "call cancelled"


class FormResponse(msgspec.Struct, frozen=True):
    """The response to a form. `text` says why it was refused, or why it is not an answer."""

    reaction: Reaction
    text: str = ""


class TooManyForms(Exception):
    """A person, or all persons together, have as many forms open as a process keeps."""


class OpenCall(msgspec.Struct, weakref=True, eq=False):
    """A call that has no response yet.

    `key` is None if no notification can name the call. `run_id` is the run that works on it now; None before the first
    one. `form` is the response to the form that the person sees now. `received`: it has come, and the server works on
    it. `news` is set when there is something to look at.
    """

    key: CallKey | None = None
    run_id: UUID | None = None
    cancelled: bool = False
    form: asyncio.Future[FormResponse] | None = None
    received: bool = False
    news: asyncio.Event = msgspec.field(default_factory=asyncio.Event)


class OpenCalls:
    """The open calls of this process. A call is forgotten when nothing works on it any more.

    At most `most_forms` forms may be open at once.
    """

    def __init__(self, most_forms: int) -> None:
        self._most_forms = most_forms
        self._calls: WeakSet[OpenCall] = WeakSet()
        self._by_form: dict[str, OpenCall] = {}
        self._forms_of: Counter[Person] = Counter()

    def open(self, request: Request, client: Client, request_id: RequestId) -> OpenCall:
        """Return a new open call. Without a session it cannot be cancelled by a notification."""
        call = OpenCall(_key(request, client, request_id))
        if call.key is not None:
            self._calls.add(call)
        return call

    def find(self, request: Request, client: Client, request_id: RequestId) -> list[OpenCall]:
        """Return the open calls of this client with an identifier: several if it has sent a request twice."""
        key = _key(request, client, request_id)
        return [] if key is None else [call for call in self._calls if call.key == key]

    @contextmanager
    def showing(self, call: OpenCall, form_id: str, person: Person) -> Iterator[asyncio.Future[FormResponse]]:
        """Return a context in which the response to a form reaches its call. Raises `TooManyForms`."""
        if len(self._by_form) >= self._most_forms or self._forms_of[person] >= FORMS_OF_A_PERSON:
            raise TooManyForms
        call.form, call.received = asyncio.get_running_loop().create_future(), False
        self._by_form[form_id] = call
        self._forms_of[person] += 1
        try:
            yield call.form
        finally:
            call.form = None
            del self._by_form[form_id]
            self._forms_of[person] -= 1
            if not self._forms_of[person]:
                del self._forms_of[person]

    def receive(self, form_id: str) -> None:
        """Note that the response to a form has come. Follow it up with `respond`."""
        call = self._by_form.get(form_id)
        if call is not None:
            call.received = True

    def respond(self, form_id: str, response: FormResponse) -> bool:
        """Give a response to the call that waits for it. Returns False if no call of this process does."""
        call = self._by_form.get(form_id)
        return call is not None and deliver(call, response)


def person_of(request: Request, client: Client, contact_id: str | None) -> Person:
    """Return who sees a form about a thread of a contact. On a public server nothing but sessions tells persons apart.

    One caller may speak for many contacts, and each of these is a person.
    """
    admission = admission_of(request)
    if admission.provider is None:
        return (client.session or "",)
    return (admission.provider, admission.identity.subject, contact_id or "")


def deliver(call: OpenCall, response: FormResponse) -> bool:
    """Give a response to a call. Returns False if it waits for none."""
    if call.form is None or call.form.done():
        return False
    call.form.set_result(response)
    call.news.set()
    return True


def _key(request: Request, client: Client, request_id: RequestId) -> CallKey | None:
    if client.session is None:
        return None
    admission = admission_of(request)
    return admission.provider, admission.identity.subject, client.session, request_id
