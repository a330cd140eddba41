"""A turn of a conversation in another protocol, and the run that answers it."""

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from typing import cast

import msgspec

from jimsapi.asgi.connection import Connection, Request
from jimsapi.asgi.errors import HTTPError, ValidationError
from jimsapi.runs.identity import Admission
from jimsapi.runs.inbound import MAX_CONTACT_ID, Inbound
from jimsapi.runs.live import LiveRun
from jimsapi.runs.result import RunResult
from jimsapi.runs.service import RunService
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ByExternalId, New, Selector
from jimsapi.wire.answer import note_run, refusal
from jimsapi.wire.request import idempotency_key


class Turn(msgspec.Struct, frozen=True):
    """What a client of another protocol sent: the newest message of the person, and what it names its conversation.

    `thread` is the client's own name of the conversation, any text; `user` what the protocol calls the person. `once`:
    the message is no part of a conversation, and is answered without a thread.
    """

    message: str
    thread: str | None = None
    user: str | None = None
    once: bool = False


class ThreadNames:
    """How the clients of a protocol name person and conversation.

    `protocol` keeps the conversations of different protocols apart. A person is the contact of the caller's identity,
    else who `contact_header` names, else the protocol's own user; else each conversation is a person of its own.
    """

    def __init__(self, protocol: str, contact_header: str | None = None, thread_header: str | None = None) -> None:
        self.protocol = protocol
        self.contact_header = contact_header
        self.thread_header = thread_header

    def contact(self, request: Connection, turn: Turn) -> str:
        """Who it is that speaks. Without any name it is somebody new, who shares nothing with anybody.

        Raises `HTTPError` 400 for two such headers: one may be the client's own, beside that of the proxy before us.
        """
        bound_to = cast(Admission, request.admission).identity.contact_id
        if bound_to is not None:
            return bound_to
        return _named(request, self.contact_header) or turn.user or self._anybody_of(self.thread(request, turn))

    def _anybody_of(self, thread: str | None) -> str:
        if not thread:
            return f"{self.protocol}:{uuid7()}"
        # A client may name its conversations as long as it likes, a person has so many bytes.
        name = thread.encode()
        return thread if len(name) <= MAX_CONTACT_ID else f"{self.protocol}:{sha256(name).hexdigest()}"

    def thread(self, request: Connection, turn: Turn) -> str | None:
        """The client's name of the conversation. Raises as `contact` does."""
        return _named(request, self.thread_header) or turn.thread

    def selectors(self, request: Connection, turn: Turn, contact: str) -> Sequence[Selector] | None:
        """The thread of that name; None if there is no name, so that the resolvers say which it is.

        Two callers, or two persons, that use one name never share a thread: all are part of the external identifier.
        """
        thread = self.thread(request, turn)
        if thread is None:
            return None
        admission = cast(Admission, request.admission)
        parts = (admission.provider, admission.identity.subject, contact, thread)
        external_id = f"{self.protocol}:{sha256(repr(parts).encode()).hexdigest()}"
        return (ByExternalId(external_id), New(external_id=external_id))


def _named(request: Connection, header: str | None) -> str | None:
    values = [] if header is None else request.headers.getlist(header)
    if len(values) > 1:
        raise HTTPError(400, f"Send one {header} header")
    return values[0] if values else None


def newest_of_user(roles: Sequence[str]) -> int:
    """The place of the newest message, by the roles of all; it has to be the user's, for those before it are answered.

    Raises `ValidationError` if there is none.
    """
    for place in reversed(range(len(roles))):
        if roles[place] == "user":
            return place
        if roles[place] == "assistant":
            break
    message = "The newest message has to be the user's"
    raise ValidationError([{"type": "value_error", "loc": ["body", "messages"], "msg": message, "input": None}])


async def begin_turn(
    request: Connection, service: RunService, names: ThreadNames, turn: Turn, *, watched: bool = True
) -> LiveRun:
    """Begin the run that answers a turn. Raises what `RunService.begin` raises.

    A `watched` one is waited for until a thread has taken it; the `DomainError` is raised for which none does.
    """
    admission = cast(Admission, request.admission)
    contact = names.contact(request, turn)
    inbound = Inbound(contact_id=contact, message=turn.message, thread_config={"interface": names.protocol})
    if turn.once:
        run = service.answer_once(inbound, admission, watched=watched)
    else:
        key = idempotency_key(request) if isinstance(request, Request) else None
        selectors = names.selectors(request, turn, contact)
        run = service.begin(inbound, admission, watched=watched, key=key, selectors=selectors)
    if watched and run.taken is not None:
        await asyncio.shield(run.taken)
    note_run(request, run)
    if watched and (error := refusal(run)) is not None:
        raise error
    return run


async def answer_of(request: Connection, run: LiveRun) -> RunResult:
    """What a run answers, for who waits for the whole. Raises the `DomainError` that it ends with."""
    try:
        return await run.heard()
    finally:
        note_run(request, run)
