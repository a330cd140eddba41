"""The routes of runs: begin one in the background, list them, read the state of one, stream it, cancel it."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast
from uuid import UUID

import msgspec

from jimsapi.api.chat import ChatAnswer, begin_in_background, chat_answer
from jimsapi.api.lookup import PageQuery
from jimsapi.api.stream import after_last_event, event_stream
from jimsapi.asgi.connection import Request
from jimsapi.asgi.response import JSONResponse, Response
from jimsapi.asgi.routing import Router
from jimsapi.runs.admission import Admission
from jimsapi.runs.inbound import Inbound
from jimsapi.runs.lists import Lists
from jimsapi.runs.lookup import Runs
from jimsapi.runs.result import RunResult, stored_result
from jimsapi.runs.scopes import CHAT, THREADS
from jimsapi.runs.service import RunService
from jimsapi.runs.signing import webhook_id
from jimsapi.threads.cloud_events import cloud_event
from jimsapi.threads.errors import InputRefused
from jimsapi.threads.run import OPEN, ListedRun, RunFilter, RunStatus, StoredRun
from jimsapi.wire.answer import EVENT_STREAM, LOOKUP_REFUSALS, REFUSALS
from jimsapi.wire.errors import STATUS

Status = Literal["queued", "running", "completed", "failed", "cancelled", "interrupted"]
Statuses = Annotated[
    list[Status], msgspec.Meta(description="Only runs with one of these. Repeat it for more than one.")
]
Contact = Annotated[str | None, msgspec.Meta(description="Only runs of this contact.")]
OfThread = Annotated[UUID | None, msgspec.Meta(description="Only runs of this thread.")]
From = Annotated[datetime, msgspec.Meta(tz=True, description="Only runs that were accepted at this time or later.")]
Before = Annotated[datetime, msgspec.Meta(tz=True, description="Only runs that were accepted before this time.")]


class RunBegun(msgspec.Struct):
    """A run that was begun in the background."""

    run_id: UUID
    thread_id: UUID
    status: str


class RunError(msgspec.Struct):
    """The reason why a run has no answer, and the HTTP status with which `/api/v1/chat` would answer."""

    detail: str
    status: int


class RunView(msgspec.Struct):
    """A run. `result` is its answer if it completed, `error` the reason if it ended in another way.

    `event_ids` are the identifiers of the events in `result`, in the same order.
    """

    run_id: UUID
    thread_id: UUID
    status: str
    accepted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    result: ChatAnswer | None
    error: RunError | None
    event_ids: list[UUID]


class RunListQuery(PageQuery):
    """The page, and what the runs must meet."""

    status: Statuses = msgspec.field(default_factory=list)
    contact_id: Contact = None
    thread_id: OfThread = None
    accepted_from: From | None = None
    accepted_before: Before | None = None


class RunItem(msgspec.Struct):
    """A run in a list. `failure` is the kind of the failure if it failed; `/api/v1/runs/{id}` has the error."""

    run_id: UUID
    thread_id: UUID
    contact_id: str | None
    status: Status
    failure: Literal["pipeline", "timeout"] | None
    accepted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RunList(msgspec.Struct):
    """A page of runs, newest first. It may have fewer runs than `limit`, even none, although `next` is not null."""

    runs: list[RunItem]
    next: str | None


class RunQuery(msgspec.Struct):
    """The position in a stream: it continues after the event with the id `after`."""

    after: str | None = None


def run_routes(service: RunService, lists: Lists) -> Router:
    """The routes of runs. Most declare no scope, because it depends on the run: a caller's own run needs `chat`, a run
    of another caller `threads`."""
    router = Router()
    runs = Runs(service)
    lookup_responses = {**LOOKUP_REFUSALS, 404: "There is no such run."}

    @router.post(
        "/api/v1/runs", scope=CHAT, body=Inbound, response=RunBegun, status=202, tags=("runs",),
        responses={**REFUSALS, 409: "The thread is busy, and no message waits there."},
    )  # fmt: skip
    async def begin(request: Request) -> Response:
        """Send a message without waiting for the answer. `Location` is the URL of the run.

        The run waits for its turn without a time limit. If the server stops before the run starts, the next process
        starts it. The server calls `webhook_url` when the run has ended.
        """
        return await begin_in_background(request, service)

    @router.get(
        "/api/v1/runs", scope=THREADS, query=RunListQuery, response=RunList, tags=("runs",),
        responses={**LOOKUP_REFUSALS, 404: "There is no such thread."},
    )  # fmt: skip
    async def list_runs(request: Request) -> Response:
        """List runs, newest first.

        A caller that is bound to a contact gets only runs of this contact. If the server admits every caller,
        `contact_id` or `thread_id` is required.
        """
        query = request.typed_query(RunListQuery)
        if query.contact_id is not None:
            request.person = query.contact_id
        page = await lists.runs(_admission(request), query.limit, query.after, _filter(query))
        return JSONResponse({"runs": [run_item(run) for run in page.runs], "next": page.next})

    @router.get("/api/v1/runs/{id:uuid}", response=RunView, responses=lookup_responses, tags=("runs",))
    async def show(request: Request) -> Response:
        """Show a run: its status, and its result or error."""
        return JSONResponse(run_view(await runs.run(_admission(request), _id(request))))

    @router.get(
        "/api/v1/runs/{id:uuid}/stream", query=RunQuery, tags=("runs",),
        responses={
            200: ("The events of `/api/v1/chat/stream`.", EVENT_STREAM),
            204: "There are no more events.",
            **lookup_responses,
        },
    )  # fmt: skip
    async def watch(request: Request) -> Response:
        """Stream a run, from its beginning or after the last event that the client has received.

        The events are those of `/api/v1/chat/stream`. They continue after the event whose `id` is in the header
        `Last-Event-ID` or in `?after=`. The items before the first `event` are available for a minute after the run has
        ended; later a `gap` replaces them.
        """
        return event_stream(request, await runs.watch(_admission(request), _id(request), after_last_event(request)))

    @router.post(
        "/api/v1/runs/{id:uuid}/cancel", response=RunView, status=202, tags=("runs",),
        responses={**lookup_responses, 409: "The run has ended."},
    )  # fmt: skip
    async def cancel(request: Request) -> Response:
        """Cancel a run. The server stores none of its events, except its message and what it has used of models."""
        await runs.cancel(_admission(request), _id(request))
        return JSONResponse(run_view(await runs.run(_admission(request), _id(request))), 202)

    return router


def _filter(query: RunListQuery) -> RunFilter:
    return RunFilter(
        tuple(map(RunStatus, query.status)),
        query.contact_id,
        query.thread_id,
        _in_utc("accepted_from", query.accepted_from),
        _in_utc("accepted_before", query.accepted_before),
    )


def _in_utc(field: str, time: datetime | None) -> datetime | None:
    try:
        return time and time.astimezone(UTC)
    except OverflowError:
        raise InputRefused(field, "invalid_time", "In UTC, this time is not within the years 1 to 9999", None) from None


def run_item(run: ListedRun) -> dict[str, Any]:
    """Return a run of a list as the JSON object that clients get."""
    return {
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "contact_id": run.contact_id,
        "status": run.status,
        "failure": run.failure,
        "accepted_at": run.accepted_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
    }


def run_view(run: StoredRun) -> dict[str, Any]:
    """Return a run as the JSON object that clients get."""
    result = error = None
    event_ids: list[UUID] = []
    if run.status not in OPEN:
        answer = stored_result(run)
        if isinstance(answer, RunResult):
            result = chat_answer(answer)
            event_ids = [event.event_id for event in answer.events]
        else:
            error = {"detail": str(answer), "status": STATUS[type(answer)][0]}
    return {
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "status": run.status,
        "accepted_at": run.accepted_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "result": result,
        "error": error,
        "event_ids": event_ids,
    }


def run_ended(run: StoredRun) -> bytes:
    """Return the body of the webhook call for a run that has ended."""
    event = {"type": f"run.{run.status}", "timestamp": run.finished_at, "data": run_view(run)}
    return cast(bytes, JSONResponse(event).body)


def run_ended_cloud_event(run: StoredRun) -> bytes:
    """Return the same body as a CloudEvent, whose `id` is the `webhook-id` of the call."""
    event = cloud_event(
        webhook_id(run.run_id),
        f"/threads/{run.thread_id}",
        f"run.{run.status}",
        run.finished_at,
        run_view(run),
        runid=run.run_id,
    )
    return cast(bytes, JSONResponse(event).body)


def _id(request: Request) -> UUID:
    return cast(UUID, request.path_params["id"])


def _admission(request: Request) -> Admission:
    return cast(Admission, request.admission)
