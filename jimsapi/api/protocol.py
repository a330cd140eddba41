"""What the protocols of others share: each is a decoder of a request and an encoder of a run's stream.

A decoder makes a `Turn`; `begin_turn` begins its run in the thread that the client means; `speech` makes of the run's
stream what every such protocol can say: messages in pieces, each begun and ended, then the other events.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, cast
from uuid import UUID

import msgspec
import orjson

from jimsapi.api.chat import idempotency_key, note_run, refusal
from jimsapi.api.errors import STATUS, domain_error
from jimsapi.api.stream import one_line
from jimsapi.asgi.connection import Connection, Request
from jimsapi.asgi.errors import HTTPError, ValidationError
from jimsapi.asgi.response import JSONResponse, Response
from jimsapi.asgi.validation import Model, convert_body
from jimsapi.runs.errors import ServerDraining
from jimsapi.runs.identity import Admission
from jimsapi.runs.inbound import MAX_CONTACT_ID, Inbound
from jimsapi.runs.live import LiveRun
from jimsapi.runs.lookup import Runs
from jimsapi.runs.result import RunResult
from jimsapi.runs.service import RunService
from jimsapi.runs.stream import Delta, Ended, Gap, Read, Status
from jimsapi.threads.errors import DomainError
from jimsapi.threads.event import ASSISTANT_MESSAGE, ASSISTANT_MESSAGE_WITH_BUTTONS, NewEvent
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ByExternalId, New, Selector

logger = logging.getLogger("jimsapi.api")


class Turn(msgspec.Struct, frozen=True):
    """What a client of another protocol sent: the newest message of the person, and what it names its conversation.

    `thread` is the client's own name of the conversation, any text; `user` what the protocol calls the person. `once`:
    the message is no part of a conversation, and is answered without a thread.
    """

    message: str
    thread: str | None = None
    user: str | None = None
    once: bool = False


class MessageStarted(msgspec.Struct, frozen=True):
    """A message of the assistant begins; `message_id` is the identifier of its event."""

    message_id: UUID


class MessagePiece(msgspec.Struct, frozen=True):
    """The next piece of the message that was started last."""

    message_id: UUID
    text: str


class MessageEnded(msgspec.Struct, frozen=True):
    """The message that was started last is complete."""

    message_id: UUID


class Failed(msgspec.Struct, frozen=True):
    """The run has no answer. Nothing follows."""

    error: BaseException


class Finished(msgspec.Struct, frozen=True):
    """The run is over, and this is its answer. Nothing follows."""

    result: RunResult


Said = MessageStarted | MessagePiece | MessageEnded | Status | NewEvent | Finished | Failed
"""A `NewEvent` is an event of the run that is no message of the assistant's, or one that has more than text."""


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


async def read_body(request: Request, service: RunService, model: type[Model]) -> Model:
    """The body of a turn. Raises as `read_json` does."""
    return convert_body(await read_json(request, service), model)


async def read_json(request: Request, service: RunService) -> Any:
    """The JSON value of a body. Raises `HTTPError` for a faulty one, `ServerDraining` if it comes too late."""
    try:
        return await request.json()
    except asyncio.CancelledError:
        if not service.draining:
            raise
        raise ServerDraining from None


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
        return await asyncio.shield(run.answer)
    finally:
        note_run(request, run)


def failure(request: Connection, error: BaseException) -> tuple[int, str]:
    """What a client is told of a run without an answer: the status that `/api/v1/chat` would have had, and the text."""
    if not isinstance(error, DomainError) or type(error) not in STATUS:
        logger.error("a run ended with an error that is not to be told", exc_info=error)
        return 500, "Internal Server Error"
    answer = domain_error(request, error)
    return answer.status, orjson.loads(cast(bytes, answer.body))["detail"]


def data_event(value: Any) -> bytes:
    """A server-sent event without a name, whose data is this value as JSON."""
    return b"data: %s\n\n" % one_line(orjson.dumps(value))


class Refusal(msgspec.Struct, frozen=True):
    """What went wrong, to be told in a protocol's own form: `field` is the part of the body at fault, if it is one."""

    status: int
    text: str
    field: str | None = None


Form = Callable[[Refusal], Any]
"""The body, as JSON can hold it, in which a protocol's clients read what went wrong."""


def answer_to(request: Connection, error: HTTPError | DomainError) -> Response:
    """What the API answers to an error."""
    if isinstance(error, DomainError):
        return domain_error(request, error)
    return JSONResponse({"detail": error.detail}, error.status, error.headers)


def reworded(form: Form, answer: Response) -> Response:
    """An answer `{"detail": …}` with its status and headers, and with a body of this form."""
    told = JSONResponse(form(told_by(answer)), answer.status)
    told.raw_headers += [pair for pair in answer.raw_headers if pair[0] not in (b"content-length", b"content-type")]
    told.names_connection = answer.names_connection
    return told


def told_by(answer: Response) -> Refusal:
    """What an answer `{"detail": …}` says. Of several faults of a body all are in the text."""
    detail = orjson.loads(answer.body or b"{}").get("detail")
    if not isinstance(detail, list):
        return Refusal(answer.status, str(detail))
    return Refusal(answer.status, "; ".join(map(_told, detail)), _field(detail[0]) or None)


def _field(fault: Mapping[str, Any]) -> str:
    """The part of a body that is at fault; of one that is no JSON there is none, `loc` says where reading ended."""
    return "" if fault["type"] == "json_invalid" else ".".join(map(str, fault["loc"][1:]))


def _told(fault: Mapping[str, Any]) -> str:
    if field := _field(fault):
        return f"{field}: {fault['msg']}"
    return " at character ".join(map(str, (fault["msg"], *fault["loc"][1:])))


async def speech(request: Connection, service: RunService, run: LiveRun) -> AsyncIterator[Said]:
    """What a run says to whom it answers. A message is whole before the next begins; other events come at the end."""
    try:
        items = await Runs(service).of(cast(Admission, request.admission), run)
    except DomainError as error:  # of a run that was begun before, with the same key, and cannot be looked at now
        yield Failed(error)
        return
    async for said in _said(items):
        yield said


async def _said(items: AsyncIterator[Read]) -> AsyncIterator[Said]:
    open_id: UUID | None = None
    told: dict[UUID, list[str]] = {}
    missed = False
    async for _, item in items:
        match item:
            case Gap():
                missed = True
            case Delta() if missed:
                pass  # it need not follow on what was told last; the stored message does
            case Delta(message_id, content):
                if message_id != open_id:
                    if open_id is not None:
                        yield MessageEnded(open_id)
                    yield MessageStarted(message_id)
                    open_id = message_id
                told.setdefault(message_id, []).append(content)
                yield MessagePiece(message_id, content)
            case NewEvent(event_id, event_type, _) if event_type in _MESSAGES:
                text = message_text(item)
                before = "".join(told.get(event_id, ()))
                if event_id not in told:
                    if open_id is not None:
                        yield MessageEnded(open_id)
                    yield MessageStarted(event_id)
                    open_id = event_id
                if open_id == event_id and text.startswith(before) and len(text) > len(before):
                    yield MessagePiece(event_id, text[len(before) :])
                if open_id == event_id:
                    yield MessageEnded(event_id)
                    open_id = None
                if event_type != ASSISTANT_MESSAGE:
                    yield item
            case Status():
                yield item
            case NewEvent():
                if open_id is not None and not missed:  # else the message's own event tells the rest of it
                    yield MessageEnded(open_id)
                    open_id = None
                yield item
            case Ended(answer):
                if open_id is not None:
                    yield MessageEnded(open_id)
                yield Finished(answer) if isinstance(answer, RunResult) else Failed(answer)


_MESSAGES = (ASSISTANT_MESSAGE, ASSISTANT_MESSAGE_WITH_BUTTONS)


def messages(result: RunResult) -> list[str]:
    """The texts that an answer says to the person, in order."""
    return [message_text(event) for event in result.events if event.event_type in _MESSAGES]


def message_text(event: NewEvent) -> str:
    """The text of a message's event; of one that a pipeline made by hand there may be none."""
    data: Any = orjson.loads(event.data)
    content = data.get("content") if isinstance(data, Mapping) else None
    return content if isinstance(content, str) else ""


BETWEEN_MESSAGES = "\n\n"


def one_text(result: RunResult) -> str:
    """The whole answer, for protocols that know one message only."""
    return BETWEEN_MESSAGES.join(text for text in messages(result) if text)


async def as_one_text(said: AsyncIterator[Said]) -> AsyncIterator[str | Finished | Failed]:
    """The same piece by piece, as it is said, and then the ending."""
    last: UUID | None = None
    async for item in said:
        match item:
            case MessagePiece(message_id, text) if text:
                if last is not None and last != message_id:
                    yield BETWEEN_MESSAGES
                last = message_id
                yield text
            case Finished() | Failed():
                yield item
