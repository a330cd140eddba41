"""`POST /api/v1/chat`: one message in, the pipeline's answer out."""

import asyncio
from typing import Any, cast
from uuid import UUID

import msgspec
import orjson

from jimsapi.asgi.connection import Request
from jimsapi.asgi.response import JSONResponse, Response
from jimsapi.asgi.routing import Router
from jimsapi.runs.errors import ServerDraining
from jimsapi.runs.identity import CHAT, Admission
from jimsapi.runs.inbound import Inbound
from jimsapi.runs.live import LiveRun
from jimsapi.runs.result import RunResult
from jimsapi.runs.service import RunService
from jimsapi.threads.errors import DomainError
from jimsapi.wire.answer import REFUSALS, note_run, refused, with_run
from jimsapi.wire.errors import error_answer
from jimsapi.wire.request import idempotency_key

_LEFT_OUT = "\0"
"""Stands for a `contact_id` that was left out: no caller can send it, since a body with a NUL is refused."""


class BoundInbound(Inbound, kw_only=True):
    """The body of a caller that is bound to one contact, and so need not name it."""

    contact_id: str = _LEFT_OUT


class ApiEvent(msgspec.Struct):
    """An event that the run sent."""

    event_type: str
    event_data: dict[str, Any]


class ChatAnswer(msgspec.Struct):
    """What a run answered. `events` are all that it sent, `assistant_messages` the texts among them."""

    thread_id: UUID
    created_new_thread: bool
    assistant_messages: list[str]
    events: list[ApiEvent]


def chat_routes(service: RunService) -> Router:
    """The chat route."""
    router = Router()

    @router.post(
        "/api/v1/chat",
        scope=CHAT,
        body=Inbound,
        response=ChatAnswer,
        tags=("chat",),
        responses={
            **REFUSALS,
            202: "The run goes on in the background, as asked by `Prefer: respond-async`.",
            409: "The run was cancelled, or the thread is busy and no message waits there.",
            500: "The pipeline failed; the message is stored.",
            504: "The pipeline took too long; the message is stored.",
        },
    )
    async def chat(request: Request) -> Response:
        """Send a message and wait for the answer.

        Without `thread_id` the contact's newest thread goes on, or a new one begins. Messages of one thread are
        answered one after another, in order of arrival. With `Prefer: respond-async` (RFC 7240) the answer is that of
        `/api/v1/runs`. A message that is sent again with the same `Idempotency-Key` is answered once, for 24 hours.
        """
        if _prefers_async(request):
            response = await begin_in_background(request, service)
            response.raw_headers.append((b"preference-applied", b"respond-async"))
            return response
        run = await begin_chat(request, service)
        try:
            response = JSONResponse(chat_answer(await run.heard()))
        except DomainError as error:
            response = error_answer(request, error)
        finally:
            note_run(request, run)
        return with_run(request, service, run, response)

    return router


async def begin_chat(
    request: Request, service: RunService, *, watched: bool = False, background: bool = False
) -> LiveRun:
    """Read the message of a request and begin its run. Raises as `read_inbound` and `RunService.begin` do."""
    admission = cast(Admission, request.admission)
    inbound = await read_inbound(request, admission, service)
    key = idempotency_key(request)
    run = service.begin(inbound, admission, watched=watched, background=background, key=key)
    if watched or background:
        if run.taken is not None:
            await asyncio.shield(run.taken)
        note_run(request, run)
    return run


async def begin_in_background(request: Request, service: RunService) -> Response:
    """Begin a run that nobody waits for, and say where to look for it."""
    run = await begin_chat(request, service, background=True)
    if (refusal := refused(request, run)) is not None:
        return with_run(request, service, run, refusal)
    stored = await service.store.run(run.known_as, None, None)
    body = {"run_id": run.known_as, "thread_id": stored.thread_id, "status": stored.status}
    place = f"{request.scope.get('root_path', '').rstrip('/')}/api/v1/runs/{run.known_as}"
    return with_run(request, service, run, JSONResponse(body, 202, {"location": place}))


def _prefers_async(request: Request) -> bool:
    """Whether one of the `Prefer` fields asks not to be kept waiting (RFC 7240, 4.1)."""
    return any(
        preference.partition(";")[0].strip().lower() == "respond-async"
        for field in request.headers.getlist("prefer")
        for preference in field.split(",")
    )


async def read_inbound(request: Request, admission: Admission, service: RunService) -> Inbound:
    """Read the body of a chat. Raises `HTTPError` for one that is faulty, `ServerDraining` if it comes too late."""
    try:
        inbound = await request.typed(inbound_model(admission))
    except asyncio.CancelledError:
        if not service.draining:
            raise
        # The server waits no longer for a body that does not come; its own answer would be a 500.
        raise ServerDraining from None
    return own_inbound(inbound, admission)


def inbound_model(admission: Admission) -> type[Inbound]:
    """What the body of this caller's chats is to be."""
    return Inbound if admission.identity.contact_id is None else BoundInbound


def own_inbound(inbound: Inbound, admission: Admission) -> Inbound:
    """The same message, with the caller's own contact where it was left out."""
    bound_to = admission.identity.contact_id
    if bound_to is not None and inbound.contact_id == _LEFT_OUT:
        inbound.contact_id = bound_to
    return inbound


def chat_answer(result: RunResult) -> dict[str, Any]:
    """The answer's body; what is no object among the events' data is shown as an empty one."""
    return {
        "thread_id": result.thread_id,
        "created_new_thread": result.created_new_thread,
        "assistant_messages": result.assistant_messages,
        "events": [
            {
                "event_type": event.event_type,
                "event_data": orjson.Fragment(event.data if event.data.startswith(b"{") else b"{}"),
            }
            for event in result.events
        ],
    }
