"""`POST /api/v1/chat`: sends a message and waits for the pipeline's answer."""

import asyncio
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import orjson

from jimsapi.asgi.connection import Request, watch_header
from jimsapi.asgi.errors import ValidationError
from jimsapi.asgi.response import JSONResponse, Response
from jimsapi.asgi.routing import Router
from jimsapi.asgi.validation import convert_body
from jimsapi.runs.admission import Admission
from jimsapi.runs.errors import ServerDraining
from jimsapi.runs.inbound import Inbound
from jimsapi.runs.live import LiveRun
from jimsapi.runs.result import RunResult
from jimsapi.runs.scopes import CHAT
from jimsapi.runs.service import RunService
from jimsapi.threads.errors import DomainError
from jimsapi.threads.questions import QUESTION_ASKED
from jimsapi.wire.answer import REFUSALS, note_run, refusal_answer, with_run
from jimsapi.wire.errors import error_answer
from jimsapi.wire.leaving import stop_left
from jimsapi.wire.request import idempotency_key

watch_header(b"prefer")

_OMITTED = "\0"
"""Marks a `contact_id` that the body omits. No body can contain it, because a NUL is rejected."""


class BoundInbound(Inbound, kw_only=True):
    """The body of a caller that is bound to one contact. It may omit `contact_id`."""

    contact_id: str = _OMITTED


class ApiEvent(msgspec.Struct):
    """An event that the run stored. It has its `event_id` with `?event_ids=true`."""

    event_type: str
    event_data: dict[str, Any]
    event_id: UUID | msgspec.UnsetType = msgspec.UNSET


class ChatQuery(msgspec.Struct):
    """Whether the events of the answer have their identifiers."""

    event_ids: bool = False


class ApiQuestion(msgspec.Struct):
    """A question that the run has asked. The answer is the value of its `question_id` in `answers` of a message."""

    question_id: UUID
    key: str
    text: str
    options: list[str] | None
    schema: dict[str, Any] | None
    expires_at: datetime | None


class ChatAnswer(msgspec.Struct):
    """The answer of a run. `events` has all its events, `assistant_messages` the texts of the assistant's messages.

    `questions` is there only if the run ended with questions.
    """

    thread_id: UUID
    created_new_thread: bool
    assistant_messages: list[str]
    events: list[ApiEvent]
    questions: list[ApiQuestion] | msgspec.UnsetType = msgspec.UNSET


def chat_routes(service: RunService, *, cancels: bool = False) -> Router:
    """The chat route. `cancels`: a client that disconnects cancels its run."""
    router = Router()

    @router.post(
        "/api/v1/chat",
        scope=CHAT,
        body=Inbound,
        query=ChatQuery,
        response=ChatAnswer,
        cancel_on_disconnect=cancels,
        tags=("chat",),
        responses={
            **REFUSALS,
            202: "The run continues in the background, as `Prefer: respond-async` requested.",
            409: "The run was cancelled, or the thread is busy and no message waits there.",
            500: "The pipeline failed; the message is stored.",
            504: "The pipeline took too long; the message is stored.",
        },
    )
    async def chat(request: Request) -> Response:
        """Send a message and wait for the answer.

        Without `thread_id`, the message continues the contact's newest thread, or begins a new one. Messages of one
        thread are answered one after another, in order of arrival. With `Prefer: respond-async` (RFC 7240), the answer
        is that of `/api/v1/runs`. Requests with the same `Idempotency-Key` within 24 hours get the answer of one run.
        """
        with_ids = bool(request.scope["query_string"]) and request.typed_query(ChatQuery).event_ids
        if b"prefer" in request.watched and _prefers_async(request):
            response = await begin_in_background(request, service)
            response.raw_headers.append((b"preference-applied", b"respond-async"))
            return response
        run = await begin_chat(request, service)
        try:
            response = JSONResponse(chat_answer(await run.wait_once(), with_ids=with_ids))
        except DomainError as error:
            response = error_answer(request, error)
        except asyncio.CancelledError:
            if cancels:
                stop_left(service, run)
            raise
        finally:
            note_run(request, run)
        return with_run(request, service, run, response)

    return router


async def begin_chat(
    request: Request, service: RunService, *, watched: bool = False, background: bool = False
) -> LiveRun:
    """Read the message of a request and begin its run. Raises as `read_inbound` and `RunService.begin` do."""
    admission: Admission = request.admission
    inbound = await read_inbound(request, admission, service)
    request.person = inbound.contact_id
    key = idempotency_key(request)
    run = service.begin(inbound, admission, watched=watched, background=background, key=key)
    if watched or background:
        if run.acceptance is not None:
            await asyncio.shield(run.acceptance)
        note_run(request, run)
    return run


async def begin_in_background(request: Request, service: RunService) -> Response:
    """Begin a run in the background. Returns 202 with the run's URL in `Location`, or the error answer."""
    run = await begin_chat(request, service, background=True)
    if (refusal := refusal_answer(request, run)) is not None:
        return with_run(request, service, run, refusal)
    stored = await service.store.run(run.known_as, None, None)
    body = {"run_id": run.known_as, "thread_id": stored.thread_id, "status": stored.status}
    location = request.link(f"/api/v1/runs/{run.known_as}")
    return with_run(request, service, run, JSONResponse(body, 202, {"location": location}))


def _prefers_async(request: Request) -> bool:
    """Whether a `Prefer` header has `respond-async` (RFC 7240, 4.1)."""
    for field in request.headers.getlist("prefer"):
        for preference in field.split(","):
            if preference.partition(";")[0].strip().lower() == "respond-async":
                return True
    return False


async def read_inbound(request: Request, admission: Admission, service: RunService) -> Inbound:
    """Read the message in the body of a request.

    Raises `HTTPError` if it is invalid, and `ServerDraining` if the server shuts down before the body has arrived.
    """
    try:
        inbound = await request.typed(inbound_model(admission))
    except ValidationError:
        answers = answers_without_message(await request.json(), admission)
        if answers is None:
            raise
        inbound = answers
    except asyncio.CancelledError:
        if not service.draining:
            raise
        # The server has cancelled the request to shut down. Without this, the answer would be a 500.
        raise ServerDraining from None
    return with_own_contact(inbound, admission)


def inbound_model(admission: Admission) -> type[Inbound]:
    """Return the model of the body for this caller."""
    return Inbound if admission.identity.contact_id is None else BoundInbound


def answers_without_message(value: Any, admission: Admission) -> Inbound | None:
    """Return the inbound message of a JSON body that has answers and no message; None for other bodies.

    Raises `ValidationError` if another field is invalid.
    """
    if not isinstance(value, dict) or "message" in value or not value.get("answers"):
        return None
    return convert_body({**value, "message": ""}, inbound_model(admission))


def with_own_contact(inbound: Inbound, admission: Admission) -> Inbound:
    """Return the message, with the contact that the caller is bound to if the body omits `contact_id`."""
    bound_to = admission.identity.contact_id
    if bound_to is not None and inbound.contact_id == _OMITTED:
        inbound.contact_id = bound_to
    return inbound


def chat_answer(result: RunResult, *, with_ids: bool = False) -> dict[str, Any]:
    """Return the body of the answer. If the data of an event is not a JSON object, it is sent as `{}`."""
    events: list[dict[str, Any]] = []
    has_asked = False
    for event in result.events:
        data = orjson.Fragment(event.data if event.data.startswith(b"{") else b"{}")
        events.append({"event_type": event.event_type, "event_data": data})
        if event.event_type == QUESTION_ASKED:
            has_asked = True
    answer: dict[str, Any] = {
        "thread_id": result.thread_id,
        "created_new_thread": result.created_new_thread,
        "assistant_messages": result.assistant_messages,
        "events": events,
    }
    if has_asked and (questions := result.questions()):
        answer["questions"] = [question.shown() for question in questions]
    if with_ids:
        for shown, event in zip(answer["events"], result.events, strict=True):
            shown["event_id"] = event.event_id
    return answer
