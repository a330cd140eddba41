"""`POST /api/v1/chat/stream`: a chat whose progress is told while it goes on, as server-sent events."""

import logging
from collections.abc import AsyncGenerator
from typing import cast

import orjson

from jimsapi.api.chat import REFUSALS, chat_answer, read_inbound
from jimsapi.api.errors import domain_error
from jimsapi.api.rate_limits import rate_limit_headers
from jimsapi.asgi.connection import Request
from jimsapi.asgi.response import Response
from jimsapi.asgi.routing import Router
from jimsapi.asgi.sse import EventStreamResponse, ServerSentEvent
from jimsapi.service.identity import CHAT, Admission
from jimsapi.service.inbound import Inbound
from jimsapi.service.live import LiveRun
from jimsapi.service.run import RunService
from jimsapi.service.stream import RunStream, Status
from jimsapi.threads.errors import DomainError
from jimsapi.threads.ids import uuid_text

logger = logging.getLogger("jimsapi.api")

_SEEN_AS_LINE_ENDS = ((b"\xc2\x85", rb"\u0085"), (b"\xe2\x80\xa8", rb"\u2028"), (b"\xe2\x80\xa9", rb"\u2029"))
"""Characters that end no line of an event stream, and yet do for clients that split it as Python splits text
(httpx's `iter_lines` does), with their escapes in JSON."""

_BROKEN = b'{"detail":"Internal Server Error"}'


def stream_routes(service: RunService) -> Router:
    """The route of the chat that is streamed."""
    router = Router()

    @router.post(
        "/api/v1/chat/stream",
        scope=CHAT,
        body=Inbound,
        tags=("chat",),
        responses={
            200: "`text/event-stream`: `status` events, then one `result` or `error`; after that nothing.",
            **REFUSALS,
            500: "The server failed.",
        },
    )
    async def chat_stream(request: Request) -> Response:
        """Send a message and see what is done about it, then the answer.

        The same as `/api/v1/chat`, answered by server-sent events, the data of each being a JSON object:

        - `status` `{"status": text, "type": identifier}`, any number of times: what the pipeline is doing. The type of
          a status that is mere text is `status`.
        - `result`, at the end: what `/api/v1/chat` would have answered.
        - `error` `{"detail": text}`, in place of `result`: the detail that `/api/v1/chat` would have answered.

        The stream begins when a thread has taken the message; until then a refusal is an answer in JSON with a status
        of its own. While nothing happens a comment comes every 15 seconds. Hanging up does not stop the run: its answer
        is stored.
        """
        admission = cast(Admission, request.admission)
        inbound = await read_inbound(request, admission, service)
        stream = RunStream()
        run = service.begin(inbound, admission, stream=stream)
        run_id = uuid_text(run.run_id)
        request.note("run_id", run_id)
        started = await stream.next()
        if run.thread_id is not None:
            request.note("thread_id", uuid_text(run.thread_id))
        response = _refusal(request, run) if started is None else EventStreamResponse(jims_events(request, run, stream))
        response.raw_headers.append((b"x-run-id", run_id.encode()))
        if service.quota is not None:
            response.raw_headers.extend(rate_limit_headers(service.quota.policies, service.allowances(run)))
        return response

    return router


async def jims_events(request: Request, run: LiveRun, stream: RunStream) -> AsyncGenerator[ServerSentEvent, None]:
    """The three events that JIMS's clients know: `status`, then `result` or `error`. Gaps have no place in them."""
    position = 0
    while (read := await stream.next(position)) is not None:
        position, item = read
        if isinstance(item, Status):
            yield _event("status", orjson.dumps({"status": item.text, "type": item.kind}))
    yield _ending(request, run)


def _refusal(request: Request, run: LiveRun) -> Response:
    """The answer to a run that no thread took."""
    error = run.answer.exception()
    if not isinstance(error, DomainError):
        raise error or RuntimeError(f"run {run.run_id} has an answer without a thread")
    return domain_error(request, error)


def _ending(request: Request, run: LiveRun) -> ServerSentEvent:
    """The last event. Whatever fails now must be told by it too: the status is sent."""
    try:
        error = run.answer.exception()
        if isinstance(error, DomainError):
            return _event("error", domain_error(request, error).body)
        return _event("result", chat_answer(run.answer.result()).body)
    except Exception:
        logger.exception("run %s: its ending cannot be told", run.run_id)
        return _event("error", _BROKEN)


def _event(name: str, data: bytes | None) -> ServerSentEvent:
    assert data is not None  # it is no stream
    for character, escape in _SEEN_AS_LINE_ENDS:
        data = data.replace(character, escape)
    return ServerSentEvent(data, name)
