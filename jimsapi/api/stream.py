"""A run's stream as server-sent events: of a chat as it goes on (`POST /api/v1/chat/stream`), or of any run.

`told` says what every item looks like, in whichever protocol of ours it is sent.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import orjson

from jimsapi.api.chat import begin_chat, chat_answer
from jimsapi.asgi.connection import Connection, Request
from jimsapi.asgi.errors import Fault, ValidationError
from jimsapi.asgi.response import Response
from jimsapi.asgi.routing import Router
from jimsapi.asgi.sse import EventStreamResponse
from jimsapi.runs.identity import CHAT, Admission
from jimsapi.runs.inbound import Inbound
from jimsapi.runs.lookup import Runs
from jimsapi.runs.result import RunResult
from jimsapi.runs.service import RunService
from jimsapi.runs.stream import THE_END, Delta, Ended, Gap, Item, Read, Reader, RunStarted, Status
from jimsapi.threads.errors import DomainError
from jimsapi.threads.event import NewEvent
from jimsapi.wire.answer import EVENT_STREAM, REFUSALS, one_line, refused, with_run
from jimsapi.wire.errors import PASSING, tell

logger = logging.getLogger("jimsapi.api")

_END = "end"


def stream_routes(service: RunService) -> Router:
    """The route of the chat that is streamed."""
    router = Router()
    runs = Runs(service)

    @router.post(
        "/api/v1/chat/stream",
        scope=CHAT,
        body=Inbound,
        tags=("chat",),
        responses={
            200: ("Server-sent events, as below; the last is `result` or `error`.", EVENT_STREAM),
            204: "There is no more after the event that `Last-Event-ID` names.",
            **REFUSALS,
            409: "The thread is busy, and no message waits there.",
            500: "The server failed.",
        },
    )
    async def chat_stream(request: Request) -> Response:
        """Send a message and see what is done about it, then the answer.

        The same as `/api/v1/chat`, answered by server-sent events, the data of each being a JSON object:

        - `started` `{"run_id", "thread_id", "created_new_thread"}`: a thread has taken the message.
        - `status` `{"status": text, "type": identifier}`, any number of times: what the pipeline is doing. The type of
          a status that is mere text is `status`.
        - `delta` `{"message_id", "content"}`, any number of times: the next piece of a message.
        - `event` `{"event_id", "event_type", "event_data"}`: each event of the run, once all are stored. A message is
          the event whose identifier its deltas named.
        - `result`, at the end: what `/api/v1/chat` would have answered.
        - `error` `{"detail": text}`, in place of `event`s and `result`: the detail that `/api/v1/chat` would have
          answered.
        - `gap` `{"missed": number}`: so many statuses and deltas are kept no more (`null`: nobody knows how many).

        The stream begins when a thread has taken the message; until then a refusal is an answer in JSON with a status
        of its own. While nothing happens a comment comes every 15 seconds. Hanging up does not stop the run: its answer
        is stored, and `/api/v1/runs/{id}/stream` goes on after the `id` of the last event that was read. So does this,
        by `Last-Event-ID`, for a message that is sent again with its `Idempotency-Key`.
        """
        after = after_last_event(request)
        asked_at = asyncio.get_running_loop().time()
        run = await begin_chat(request, service, watched=True)
        if (refusal := refused(request, run)) is not None:
            return with_run(request, service, run, refusal)
        if run.known_as is run.run_id and run.began >= asked_at:
            after = 0  # a run that nobody has seen yet: the event was of another, by a client that repeats its requests
        items = None if after == THE_END else await runs.of(cast(Admission, request.admission), run, after)
        return with_run(request, service, run, event_stream(request, items))

    return router


def event_stream(request: Connection, items: AsyncIterator[Read] | None) -> Response:
    """The answer that sends these items; without any, 204, which tells an `EventSource` to stop."""
    return Response(status=204) if items is None else EventStreamResponse(server_sent(request, items))


async def server_sent(request: Connection, items: AsyncIterator[Read]) -> AsyncGenerator[bytes, None]:
    """Items as server-sent events. An error that ends the stream and not the run has no id: who resumes finds more.

    The id comes last, for clients of JIMS that take the first line for the name and the second for the data.
    """
    async for read in items:
        chunk = _server_sent(request, *read)
        more = items.ready() if isinstance(items, Reader) else ()
        if more:  # to send a chunk is dearer than to make an event
            chunk = b"".join([chunk, *[_server_sent(request, *following) for following in more]])
        del read, more  # a client may take long to read the chunk, which is all that must be kept for it
        yield chunk


def _server_sent(request: Connection, position: int, item: Item) -> bytes:
    name, data = told(request, item)
    text = one_line(orjson.dumps(data))
    if isinstance(item, Ended) and isinstance(item.answer, PASSING):
        return b"event: %s\ndata: %s\n\n" % (name.encode(), text)
    return b"event: %s\ndata: %s\nid: %s\n\n" % (name.encode(), text, position_text(position).encode())


def told(request: Connection, item: Item) -> tuple[str, dict[str, Any]]:
    """An item's name, and what it says, as JSON can hold it."""
    match item:
        case Delta(message_id, content):
            return "delta", {"message_id": message_id, "content": content}
        case Status(text, kind):
            return "status", {"status": text, "type": kind}
        case NewEvent(event_id, event_type, data):
            return "event", {"event_id": event_id, "event_type": event_type, "event_data": orjson.Fragment(data)}
        case RunStarted(run_id, thread_id, created_new_thread):
            started = {"run_id": run_id, "thread_id": thread_id, "created_new_thread": created_new_thread}
            return "started", started
        case Gap(missed):
            return "gap", {"missed": missed}
        case Ended(answer):
            return _ending(request, answer)


def _ending(request: Connection, answer: RunResult | BaseException) -> tuple[str, dict[str, Any]]:
    """The last item. Whatever fails now must be told by it too: the status is sent."""
    try:
        if isinstance(answer, DomainError):
            return "error", tell(request, answer).content
        if isinstance(answer, BaseException):
            raise answer
        return "result", chat_answer(answer)
    except Exception:
        logger.exception("the ending of a run cannot be told")
        return "error", {"detail": "Internal Server Error"}


def position_text(position: int) -> str:
    """A position in a stream as clients see it: the `id` of a server-sent event."""
    return _END if position == THE_END else str(position)


def after_last_event(request: Request) -> int:
    """Where a client wants to go on: behind the `Last-Event-ID`, or `?after=`, that it names; else at the beginning.

    Raises `ValidationError` for one that no stream of ours has.
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
