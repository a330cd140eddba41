"""Runs: begun without waiting for them, looked at, watched, cancelled."""

from datetime import datetime
from typing import Any, cast
from uuid import UUID

import msgspec

from jimsapi.api.chat import ChatAnswer, begin_in_background, chat_answer
from jimsapi.api.stream import after_last_event, event_stream
from jimsapi.asgi.connection import Request
from jimsapi.asgi.response import JSONResponse, Response
from jimsapi.asgi.routing import Router
from jimsapi.runs.identity import CHAT, Admission
from jimsapi.runs.inbound import Inbound
from jimsapi.runs.lookup import Runs
from jimsapi.runs.result import RunResult, stored_result
from jimsapi.runs.service import RunService
from jimsapi.threads.run import OPEN, StoredRun
from jimsapi.wire.answer import EVENT_STREAM, REFUSALS
from jimsapi.wire.errors import STATUS


class RunBegun(msgspec.Struct):
    """A run that goes on in the background."""

    run_id: UUID
    thread_id: UUID
    status: str


class RunError(msgspec.Struct):
    """Why a run has no answer, and the status that `/api/v1/chat` would have had."""

    detail: str
    status: int


class RunView(msgspec.Struct):
    """A run. `result` is its answer if it completed, `error` what went wrong if it ended in another way."""

    run_id: UUID
    thread_id: UUID
    status: str
    accepted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    result: ChatAnswer | None
    error: RunError | None


class RunQuery(msgspec.Struct):
    """Where a stream goes on: after the event with this id."""

    after: str | None = None


def run_routes(service: RunService) -> Router:
    """The routes of runs. They name no scope: one's own runs need `chat`, those of others `threads`."""
    router = Router()
    runs = Runs(service)
    missing = {401: REFUSALS[401], 403: REFUSALS[403], 404: "There is no such run.", 503: REFUSALS[503]}

    @router.post(
        "/api/v1/runs", scope=CHAT, body=Inbound, response=RunBegun, status=202, tags=("runs",),
        responses={**REFUSALS, 409: "The thread is busy, and no message waits there."},
    )  # fmt: skip
    async def begin(request: Request) -> Response:
        """Send a message and do not wait: the answer says where to look for it.

        The run waits for its turn as long as it takes, and survives the server: one that had not started is started by
        the next process. `webhook_url` is called when it has ended.
        """
        return await begin_in_background(request, service)

    @router.get("/api/v1/runs/{id:uuid}", response=RunView, responses=missing, tags=("runs",))
    async def show(request: Request) -> Response:
        """Show a run: where it stands, and how it ended."""
        return JSONResponse(run_view(await runs.run(_admission(request), _id(request))))

    @router.get(
        "/api/v1/runs/{id:uuid}/stream", query=RunQuery, tags=("runs",),
        responses={200: ("The events of `/api/v1/chat/stream`.", EVENT_STREAM), 204: "There is no more.", **missing},
    )  # fmt: skip
    async def watch(request: Request) -> Response:
        """Watch a run, from its beginning or from where a connection broke.

        The events are those of `/api/v1/chat/stream`. They go on after the one whose `id` the header `Last-Event-ID` or
        `?after=` names. Statuses and deltas are kept for a minute after the end; then a `gap` stands for them.
        """
        return event_stream(request, await runs.watch(_admission(request), _id(request), after_last_event(request)))

    @router.post(
        "/api/v1/runs/{id:uuid}/cancel", response=RunView, status=202, tags=("runs",),
        responses={**missing, 409: "The run has ended."},
    )  # fmt: skip
    async def cancel(request: Request) -> Response:
        """Cancel a run. Nothing of it is stored any more, but for a message that has entered its thread."""
        await runs.cancel(_admission(request), _id(request))
        return JSONResponse(run_view(await runs.run(_admission(request), _id(request))), 202)

    return router


def run_view(run: StoredRun) -> dict[str, Any]:
    """A run as clients see it."""
    result = error = None
    if run.status not in OPEN:
        answer = stored_result(run)
        if isinstance(answer, RunResult):
            result = chat_answer(answer)
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
    }


def run_ended(run: StoredRun) -> bytes:
    """What the webhook of a run is told when it has ended."""
    told = {"type": f"run.{run.status}", "timestamp": run.finished_at, "data": run_view(run)}
    return cast(bytes, JSONResponse(told).body)


def _id(request: Request) -> UUID:
    return cast(UUID, request.path_params["id"])


def _admission(request: Request) -> Admission:
    return cast(Admission, request.admission)
