"""A message in another protocol, its thread, and the run that answers it."""

import asyncio
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, cast

import msgspec

from jimsapi.asgi.connection import Connection, Request
from jimsapi.asgi.errors import HTTPError, ValidationError
from jimsapi.runs.admission import Admission
from jimsapi.runs.inbound import MAX_CONTACT_ID, Inbound
from jimsapi.runs.live import LiveRun
from jimsapi.runs.result import RunResult
from jimsapi.runs.service import RunService
from jimsapi.threads.event import NewEvent
from jimsapi.threads.facts import ForkPlan, ThreadPlan
from jimsapi.threads.ids import derived_id, uuid7
from jimsapi.threads.message_files import SentFile
from jimsapi.threads.run import ByExternalId, New, Selector
from jimsapi.threads.trace_context import TraceContext
from jimsapi.wire.answer import note_run, refusal
from jimsapi.wire.leaving import stop_left
from jimsapi.wire.request import idempotency_key

MAX_CLIENT_ID = 255
"""Characters of a client's identifier of a message, if it is to be stored."""


class Turn(msgspec.Struct, frozen=True):
    """The newest message of a conversation in another protocol.

    `thread` is the client's name of the conversation, any text. `user` is the protocol's name of the person. If `once`
    is true, the message does not belong to a conversation, and the run has no thread. `metadata` is for the pipeline.
    `answers` are the answers to questions by their identifiers. With them, `message` may be empty. `files` came within
    the message, and `file_ids` are those of files that the server has. If `answers_in_text` is true, the protocol has
    no other place for answers to questions. `key` is the idempotency key of a request that has no header with one.
    `client_id` is the identifier of the message at the client, by which `branch` finds it later; one that is too long
    or cannot be printed is not stored. `trace_context` is the trace of the client, if the protocol has it in the
    message itself (`TraceContext.parse`); a header `traceparent` of the request needs nothing here.
    """

    message: str
    thread: str | None = None
    user: str | None = None
    once: bool = False
    metadata: dict[str, Any] | None = None
    answers: dict[str, Any] | None = None
    files: Sequence[SentFile] = ()
    file_ids: Sequence[str] = ()
    answers_in_text: bool = False
    key: str | None = None
    client_id: str | None = None
    trace_context: TraceContext | None = None

    def storable_client_id(self) -> str | None:
        """Return `client_id` if it can be stored beside the message, else None."""
        client_id = self.client_id or ""
        return client_id if client_id.isprintable() and 0 < len(client_id) <= MAX_CLIENT_ID else None


class ThreadNames:
    """Finds the contact and the thread of a turn.

    The contact is the first of these that exists: the contact of the caller's identity, the value of `contact_header`,
    the user of the turn, a contact of the conversation's own. `protocol` separates the threads of different protocols.
    """

    def __init__(self, protocol: str, contact_header: str | None = None, thread_header: str | None = None) -> None:
        self.protocol = protocol
        self.contact_header = contact_header
        self.thread_header = thread_header

    def contact(self, request: Connection, turn: Turn) -> str:
        """Return the contact of a turn. If nothing names a contact or a conversation, it is a new contact.

        Raises `HTTPError` 400 if `contact_header` occurs twice: the client may have forged one of them, and the
        proxy set the other.
        """
        bound_contact = cast(Admission, request.admission).identity.contact_id
        if bound_contact is not None:
            return bound_contact
        named = _header(request, self.contact_header) or turn.user
        return named or self._contact_of(request, self.thread(request, turn), request_key(request, turn))

    def _contact_of(self, request: Connection, thread: str | None, key: str | None) -> str:
        if not thread and key is not None:  # a request that is repeated has the same contact
            admission = cast(Admission, request.admission)
            return f"{self.protocol}:{derived_id('contact', admission.provider or '', admission.identity.subject, key)}"
        if not thread:
            return f"{self.protocol}:{uuid7()}"
        # The name of a conversation may be longer than a contact_id.
        name = thread.encode()
        return thread if len(name) <= MAX_CONTACT_ID else f"{self.protocol}:{sha256(name).hexdigest()}"

    def thread(self, request: Connection, turn: Turn) -> str | None:
        """Return the client's name of the conversation. Raises as `contact` does."""
        return _header(request, self.thread_header) or turn.thread

    def selectors(self, request: Connection, turn: Turn, contact: str) -> Sequence[Selector] | None:
        """Return selectors for the thread of the conversation. Without a name return None: the resolvers then decide.

        The thread's external identifier includes the caller and the contact, so that two callers or contacts with the
        same name for a conversation do not share a thread.
        """
        thread = self.thread(request, turn)
        if thread is None:
            return None
        admission = cast(Admission, request.admission)
        parts = (admission.provider, admission.identity.subject, contact, thread)
        external_id = f"{self.protocol}:{sha256(repr(parts).encode()).hexdigest()}"
        return (ByExternalId(external_id), New(external_id=external_id))


def _header(request: Connection, header: str | None) -> str | None:
    values = [] if header is None else request.headers.getlist(header)
    if len(values) > 1:
        raise HTTPError(400, f"Send one {header} header")
    return values[0] if values else None


def request_key(request: Connection, turn: Turn) -> str | None:
    """Return the idempotency key of the request of a turn; None if it has none. Raises as `idempotency_key` does."""
    return (idempotency_key(request) if isinstance(request, Request) else None) or turn.key


def newest_of_user(roles: Sequence[str]) -> int:
    """Return the index of the newest message, by the roles of all messages.

    Raises `ValidationError` if no message of the user follows the last one of the assistant: all are then answered.
    """
    for index in reversed(range(len(roles))):
        if roles[index] == "user":
            return index
        if roles[index] == "assistant":
            break
    message = "The newest message has to be the user's"
    raise ValidationError([{"type": "value_error", "loc": ["body", "messages"], "msg": message, "input": None}])


async def begin_turn(
    request: Connection,
    service: RunService,
    names: ThreadNames,
    turn: Turn,
    *,
    watched: bool = True,
    background: bool = False,
    selectors: Sequence[Selector] | None = None,
    makes: ForkPlan | ThreadPlan | None = None,
    contact: str | None = None,
    history: Sequence[NewEvent] = (),
    stops: bool = False,
) -> LiveRun:
    """Begin the run that answers a turn, in the thread that `names` or, if they are given, `selectors` find.

    `contact` is that of the thread, if the caller of this function knows the thread; otherwise `names` finds it.
    `history` are events that come before a message outside of every thread. `background` is that of `RunService.begin`.
    `makes` is a thread that is made for the message, in place of the one that they find, as `RunService.begin` has it.

    Raises as `RunService.begin` does.

    If it is `watched`, the run has a stream. If it is `watched` or in the `background`, the function waits until a
    thread accepts the message. It then also raises a `DomainError` if no thread accepts it. `stops`: if the client
    disconnects meanwhile, the run is cancelled. That needs a route with `cancel_on_disconnect`.
    """
    admission = cast(Admission, request.admission)
    if contact is None:
        contact = names.contact(request, turn)
    request.person = contact
    inbound = Inbound(
        contact_id=contact,
        message=turn.message,
        thread_config={"interface": names.protocol},
        metadata=turn.metadata,
        answers=turn.answers,
        files=list(turn.file_ids) or None,
    )
    if turn.once:
        run = service.answer_once(
            inbound,
            admission,
            watched=watched,
            files=turn.files,
            history=history,
            trace_context=turn.trace_context,
        )
    else:
        key = request_key(request, turn)
        run = service.begin(
            inbound,
            admission,
            watched=watched,
            background=background,
            key=key,
            selectors=names.selectors(request, turn, contact) if selectors is None else selectors,
            files=turn.files,
            answers_in_text=turn.answers_in_text,
            client_id=turn.storable_client_id(),
            makes=makes,
            trace_context=turn.trace_context,
        )
    waits = watched or background
    if waits and run.acceptance is not None:
        try:
            await asyncio.shield(run.acceptance)
        except asyncio.CancelledError:
            if stops:
                stop_left(service, run)
            raise
    note_run(request, run)
    if waits and (error := refusal(run)) is not None:
        raise error
    return run


async def answer_of(request: Connection, run: LiveRun, on_left: Callable[[], None] | None = None) -> RunResult:
    """Wait for a run and return its answer. Raises the `DomainError` that it ends with.

    `on_left` is called if the client disconnects. That needs a route with `cancel_on_disconnect`.
    """
    try:
        return await run.wait_for_answer()
    except asyncio.CancelledError:
        if on_left is not None:
            on_left()
        raise
    finally:
        note_run(request, run)
