"""`POST /api/v1/chat`: one message in, the pipeline's answer out."""

import asyncio
from typing import Any, cast
from uuid import UUID

import msgspec
import orjson

from jimsapi.api.errors import domain_error
from jimsapi.api.rate_limits import rate_limit_headers
from jimsapi.asgi.connection import Request
from jimsapi.asgi.response import JSONResponse, Response
from jimsapi.asgi.routing import Router
from jimsapi.service.errors import ServerDraining
from jimsapi.service.identity import CHAT, Admission
from jimsapi.service.inbound import Inbound
from jimsapi.service.live import RunResult
from jimsapi.service.run import RunService
from jimsapi.threads.errors import DomainError
from jimsapi.threads.ids import uuid_text

_LEFT_OUT = "\0"
"""Stands for a `contact_id` that was left out: no caller can send it, since a body with a NUL is refused."""

REFUSALS = {
    401: "The credentials are missing or wrong.",
    403: "The credentials do not allow this.",
    404: "There is no such thread.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "The body is faulty; every fault is listed.",
    429: "Too many messages wait in the thread, or a limit of the caller is used up.",
    503: "The server or its store takes no work now.",
}
"""What keeps a message out, whichever way its answer would have gone."""


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
            409: "The run was cancelled.",
            500: "The pipeline failed; the message is stored.",
            504: "The pipeline took too long; the message is stored.",
        },
    )
    async def chat(request: Request) -> Response:
        """Send a message and wait for the answer.

        Without `thread_id` the contact's newest thread goes on, or a new one begins. Messages of one thread are
        answered one after another, in order of arrival.
        """
        admission = cast(Admission, request.admission)
        run = service.begin(await read_inbound(request, admission, service), admission)
        run_id = uuid_text(run.run_id)
        request.note("run_id", run_id)
        try:
            response = chat_answer(await run.answer)
        except DomainError as error:
            response = domain_error(request, error)
        finally:
            if run.thread_id is not None:
                request.note("thread_id", uuid_text(run.thread_id))
        response.raw_headers.append((b"x-run-id", run_id.encode()))
        if service.quota is not None:
            response.raw_headers.extend(rate_limit_headers(service.quota.policies, service.allowances(run)))
        return response

    return router


async def read_inbound(request: Request, admission: Admission, service: RunService) -> Inbound:
    """Read the body of a chat. Raises `HTTPError` for one that is faulty, `ServerDraining` if it comes too late."""
    bound_to = admission.identity.contact_id
    try:
        if bound_to is None:
            return await request.typed(Inbound)
        inbound = await request.typed(BoundInbound)
    except asyncio.CancelledError:
        if not service.draining:
            raise
        # The server waits no longer for a body that does not come; its own answer would be a 500.
        raise ServerDraining from None
    if inbound.contact_id == _LEFT_OUT:
        inbound.contact_id = bound_to
    return inbound


def chat_answer(result: RunResult) -> Response:
    """The answer's body; what is no object among the events' data is shown as an empty one."""
    return JSONResponse(
        {
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
    )
