"""The open calls of earlier clients in this process: which a notification cancels, and which wait for a person.

A call that waits also reads the store, so a response that another process receives reaches it, too.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec

from jimsapi.asgi import Request
from jimsapi_mcp.eras import Client
from jimsapi_mcp.messages import RequestId
from jimsapi_mcp.people import admission_of

CallKey = tuple[str | None, str, str, RequestId]
"""The caller, its session and the identifier of the request: clients number their requests alike."""


class Reaction(Enum):
    """What a person or a client did with a form."""

    ANSWERED = auto()
    DISMISSED = auto()
    DECLINED = auto()
    REFUSED = auto()
    INVALID = auto()
    CALL_CANCELLED = auto()


class FormResponse(msgspec.Struct, frozen=True):
    """The response to a form. `text` says why it was refused, or why it is not an answer."""

    reaction: Reaction
    text: str = ""


class OpenCall(msgspec.Struct, weakref=True):
    """A call that has no response yet.

    `run_id` is the run that works on it now; None before the first one. `form` is the response to the form that the
    person sees now. `received`: it has come, and the server works on it.
    """

    run_id: UUID | None = None
    cancelled: bool = False
    form: asyncio.Future[FormResponse] | None = None
    received: bool = False


class OpenCalls:
    """The open calls of this process. A call is forgotten when nothing works on it any more."""

    def __init__(self) -> None:
        self._by_request: WeakValueDictionary[CallKey, OpenCall] = WeakValueDictionary()
        self._by_form: dict[str, OpenCall] = {}

    def open(self, request: Request, client: Client, request_id: RequestId) -> OpenCall:
        """Return a new open call. Without a session it cannot be cancelled by a notification."""
        call = OpenCall()
        key = _key(request, client, request_id)
        if key is not None:
            self._by_request[key] = call
        return call

    def find(self, request: Request, client: Client, request_id: RequestId) -> OpenCall | None:
        """Return the open call of this client with an identifier; None if this process has none."""
        key = _key(request, client, request_id)
        return None if key is None else self._by_request.get(key)

    @contextmanager
    def showing(self, call: OpenCall, form_id: str) -> Iterator[asyncio.Future[FormResponse]]:
        """Return a context in which the response to a form reaches its call."""
        call.form, call.received = asyncio.get_running_loop().create_future(), False
        self._by_form[form_id] = call
        try:
            yield call.form
        finally:
            call.form = None
            del self._by_form[form_id]

    def receive(self, form_id: str) -> None:
        """Note that the response to a form has come. Follow it up with `respond`."""
        call = self._by_form.get(form_id)
        if call is not None:
            call.received = True

    def respond(self, form_id: str, response: FormResponse) -> bool:
        """Give a response to the call that waits for it. Returns False if no call of this process does."""
        call = self._by_form.get(form_id)
        return call is not None and deliver(call, response)


def deliver(call: OpenCall, response: FormResponse) -> bool:
    """Give a response to a call. Returns False if it waits for none."""
    if call.form is None or call.form.done():
        return False
    call.form.set_result(response)
    return True


def _key(request: Request, client: Client, request_id: RequestId) -> CallKey | None:
    if client.session is None:
        return None
    admission = admission_of(request)
    return admission.provider, admission.identity.subject, client.session, request_id
