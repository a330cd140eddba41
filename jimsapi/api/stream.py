"""A run's stream as server-sent events, for `POST /api/v1/chat/stream` and for any run.

`item_content` returns the content of an item, which is the same over WebSockets.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from typing import Any, cast

import orjson

from jimsapi.api.chat import begin_chat, chat_answer
from jimsapi.asgi.connection import Connection, Request
from jimsapi.asgi.errors import Fault, ValidationError
from jimsapi.asgi.response import Response
from jimsapi.asgi.routing import Router
from jimsapi.asgi.sse import EventStreamResponse
from jimsapi.runs.admission import Admission
from jimsapi.runs.inbound import Inbound
from jimsapi.runs.live import LiveRun
from jimsapi.runs.lookup import Runs
from jimsapi.runs.result import RunResult
from jimsapi.runs.scopes import CHAT
from jimsapi.runs.service import RunService
from jimsapi.runs.stream import (
    THE_END,
    Activity,
    Delta,
    Ended,
    Gap,
    Item,
    Read,
    Reader,
    ReasoningDelta,
    RunStarted,
    Status,
)
from jimsapi.threads.errors import DomainError
from jimsapi.threads.event import NewEvent
from jimsapi.wire.answer import EVENT_STREAM, REFUSALS, one_line, refusal_answer, with_run
from jimsapi.wire.errors import TRANSIENT, error_content
from jimsapi.wire.leaving import stop_left, watch_leaving

logger = logging.getLogger("jimsapi.api")

_END = "end"


def stream_routes(service: RunService, *, cancels: bool = False) -> Router:
    """The route for a message whose answer is streamed. `cancels`: a client that disconnects cancels its run."""
    router = Router()
    runs = Runs(service)

    @router.post(
        "/api/v1/chat/stream",
        scope=CHAT,
        body=Inbound,
        tags=("chat",),
        responses={
            200: ("Server-sent events, as below; the last is `result` or `error`.", EVENT_STREAM),
            204: "There are no events after the one that `Last-Event-ID` names.",
            **REFUSALS,
            409: "The thread is busy, and no message waits there.",
            500: "The server failed.",
        },
    )
    async def chat_stream(request: Request) -> Response:
        """Send a message, and receive its progress and the answer as a stream.

        The request is that of `/api/v1/chat`. The answer is a stream of server-sent events. The data of each event is a
        JSON object:

        - `started` `{"run_id", "thread_id", "created_new_thread"}`: a thread accepted the message.
        - `status` `{"status": text, "type": identifier}`, any number of times: what the pipeline is doing. If the
          pipeline gave only a text, the type is `status`.
        - `delta` `{"message_id", "content"}`, any number of times: the next piece of a message.
        - `reasoning` `{"event_id", "content"}`, any number of times: the next piece of what the model thinks.
        - `activity` `{"event_id", "event_type", "event_data"}`, any number of times: what an agent does now, such as a
          tool call that begins, and again when it has ended. The `event` with the same `event_id` replaces it.
        - `event` `{"event_id", "event_type", "event_data"}`: the events of the run, after all of them are stored. The
          `event_id` of a message is the `message_id` of its deltas.
        - `result`, the last event: the answer of `/api/v1/chat`.
        - `error` `{"detail": text}`, in place of `event`s and `result`: the detail with which `/api/v1/chat` would
          answer.
        - `gap` `{"missed": number}`: this many of the items before the `event`s are no longer available (`null`: the
          number is not known).

        The stream begins when a thread accepts the message. An error before that is a JSON answer with a status of its
        own. If nothing else is sent for 15 seconds, the server sends a comment. If the client disconnects, the run goes
        on and its answer is stored. To receive the rest, request `/api/v1/runs/{id}/stream` with the `id` of the last
        event as `Last-Event-ID`, or send the message again with the same `Idempotency-Key` and with `Last-Event-ID`.
        """
        after = after_last_event(request)
        requested_at = asyncio.get_running_loop().time()
        run = await begin_chat(request, service, watched=True)
        if (refusal := refusal_answer(request, run)) is not None:
            return with_run(request, service, run, refusal)
        if run.known_as is run.run_id and run.began >= requested_at:
            after = 0  # the run is new, so `Last-Event-ID` belongs to another run
        items = None if after == THE_END else await runs.of(cast(Admission, request.admission), run, after)
        on_left = partial(stop_left, service, run) if cancels else None
        return with_run(request, service, run, event_stream(request, items, run, on_left))

    return router


def event_stream(
    request: Connection,
    items: AsyncIterator[Read] | None,
    run: LiveRun | None = None,
    on_left: Callable[[], None] | None = None,
) -> Response:
    """Return an answer that streams `items`. If that is None, return 204: an `EventSource` then does not reconnect.

    `on_left` is called if the client disconnects while `run` is open.
    """
    if items is None:
        return Response(status=204)
    chunks = server_sent(request, items)
    return EventStreamResponse(chunks if run is None or on_left is None else watch_leaving(chunks, run, on_left))


async def server_sent(request: Connection, items: AsyncIterator[Read]) -> AsyncGenerator[bytes, None]:
    """Yield the items as server-sent events.

    An error that ends the stream but not the run has no id, so that a client that resumes gets the rest of the run. The
    id is the last line of an event: some clients of JIMS read the name from line 1 and the data from line 2.
    """
    async for read in items:
        chunk = _server_sent(request, *read)
        ready = items.ready() if isinstance(items, Reader) else ()
        if ready:  # sending a chunk costs more than encoding an event, so send several events together
            chunk = b"".join([chunk, *[_server_sent(request, *following) for following in ready]])
        del read, ready  # the client may read slowly; until then keep only the chunk in memory
        yield chunk


def _server_sent(request: Connection, position: int, item: Item) -> bytes:
    name, data = item_content(request, item)
    text = one_line(orjson.dumps(data))
    if isinstance(item, Ended) and isinstance(item.answer, TRANSIENT):
        return b"event: %s\ndata: %s\n\n" % (name.encode(), text)
    return b"event: %s\ndata: %s\nid: %s\n\n" % (name.encode(), text, position_text(position).encode())


def item_content(request: Connection, item: Item) -> tuple[str, dict[str, Any]]:
    """Return an item's name and its content as a JSON object."""
    if isinstance(item, Delta):  # most items are deltas, and a pattern takes longer
        return "delta", {"message_id": item.message_id, "content": item.content}
    match item:
        case Status(text, kind):
            return "status", {"status": text, "type": kind}
        case ReasoningDelta(event_id, content):
            return "reasoning", {"event_id": event_id, "content": content}
        case Activity(event):
            return "activity", _event_content(event)
        case NewEvent():
            return "event", _event_content(item)
        case RunStarted(run_id, thread_id, created_new_thread):
            started = {"run_id": run_id, "thread_id": thread_id, "created_new_thread": created_new_thread}
            return "started", started
        case Gap(missed):
            return "gap", {"missed": missed}
        case Ended(answer):
            return _last_content(request, answer)


def _event_content(event: NewEvent) -> dict[str, Any]:
    data = orjson.Fragment(event.data)
    return {"event_id": event.event_id, "event_type": event.event_type, "event_data": data}


def _last_content(request: Connection, answer: RunResult | BaseException) -> tuple[str, dict[str, Any]]:
    """The content of the last item. The HTTP status is already sent, so an error here also becomes an item."""
    try:
        if isinstance(answer, DomainError):
            return "error", error_content(request, answer).content
        if isinstance(answer, BaseException):
            raise answer
        return "result", chat_answer(answer)
    except Exception:
        logger.exception("the last item of a run's stream cannot be built")
        return "error", {"detail": "Internal Server Error"}


def position_text(position: int) -> str:
    """Return a position in a stream as the `id` of a server-sent event."""
    return _END if position == THE_END else str(position)


def after_last_event(request: Request) -> int:
    """Return the position in `Last-Event-ID`, else in `?after=`, else 0, which is the beginning of the stream.

    Raises `ValidationError` if it is not the id of an event.
    """
    given = request.headers.get("last-event-id")
    place = "header"
    if given is None:
        given, place = request.query.get("after"), "query"
    if not given:
        return 0
    if given == _END:
        return THE_END
    if given.isascii() and given.isdigit() and len(given) <= 18:
        return int(given)
    field = "last-event-id" if place == "header" else "after"
    fault: Fault = {
        "type": "invalid_id",
        "loc": [place, field],
        "msg": "Not the id of an event of a run",
        "input": given,
    }
    raise ValidationError([fault])
