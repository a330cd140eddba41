"""Tasks: calls that go on without their client, which asks for their state (extension `io.modelcontextprotocol/tasks`).

The identifier of a task is that of the run that the call began. The task goes on with the runs that answers to its
questions begin, so it never returns to a question that has its answer.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from jimsapi.asgi import Request
from jimsapi.runs import RunEnded
from jimsapi.threads import RunNotFound, RunStatus, StoredRun
from jimsapi_mcp.asking import CANCELLED, DECLINING
from jimsapi_mcp.conclusions import Conclusions
from jimsapi_mcp.eras import Client
from jimsapi_mcp.messages import INTERNAL_ERROR, INVALID_PARAMS, RpcError
from jimsapi_mcp.names import run_of
from jimsapi_mcp.results import OPEN, outcome_of_stored
from jimsapi_mcp.tool_call import trace_context_of
from jimsapi_mcp.turns import Turns

POLL_INTERVAL = 1000
"""Milliseconds that a client should wait between two requests for the state of a task."""


class Tasks:
    """Answers the requests about tasks."""

    def __init__(self, conclusions: Conclusions, turns: Turns) -> None:
        self._conclusions = conclusions
        self._people = conclusions.people
        self._asking = conclusions.asking
        self._turns = turns

    async def get(self, request: Request, client: Client, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the state of a task. Raises `RpcError`."""
        first = await self._run(request, client, params)
        newest = await self._asking.newest(first)
        task = {**task_of(first, self._conclusions.service.limits.keep_runs), "lastUpdatedAt": _updated_at(newest)}
        if newest.status in OPEN:
            return task
        if newest.status is RunStatus.CANCELLED:
            return {**task, "status": "cancelled"}
        if newest.status is RunStatus.INTERRUPTED:
            text = newest.error or "The run was interrupted"
            return {
                **task,
                "status": "failed",
                "statusMessage": text,
                "error": {"code": INTERNAL_ERROR, "message": text},
            }
        questions = await self._asking.open_questions(newest)
        answerable = self._asking.answerable(request, newest, questions)
        if answerable and client.elicits:
            requests = self._asking.requests(answerable)
            return {**task, "status": "input_required", "inputRequests": requests}
        waits = self._asking.waits_for_others(request, newest, questions)
        if waits is not None:
            return {**task, "statusMessage": waits}
        outcome = outcome_of_stored(newest)
        if outcome.asked and not questions and await self._asking.closed_by(newest) == CANCELLED:
            return {**task, "status": "cancelled"}
        note = self._conclusions.note(request, newest, questions) if outcome.asked else ""
        result = await self._conclusions.result(request, client, outcome, questions, note)
        return {**task, "status": "completed", "result": {"resultType": "complete", **result}}

    async def update(self, request: Request, client: Client, params: Mapping[str, Any]) -> dict[str, Any]:
        """Answer the questions of a task. Responses to questions that are not open are ignored. Raises `RpcError`."""
        first = await self._run(request, client, params)
        responses = params.get("inputResponses")
        if not isinstance(responses, dict):
            raise RpcError(INVALID_PARAMS, "inputResponses must be an object")
        newest = await self._asking.newest(first)
        questions = await self._asking.open_questions(newest)
        given = [
            question
            for question in self._asking.answerable(request, newest, questions)
            if str(question.question_id) in responses
        ]
        if not given:
            return {}
        entered = self._asking.entered(given, responses)
        if entered.declined or entered.dismissed:  # clients show a question only once
            await self._asking.close(request, newest, DECLINING)
        elif entered.again:
            raise RpcError(INVALID_PARAMS, "; ".join(entered.again.values()) or "An input response has no action")
        else:
            await self._turns.answer(request, newest, entered.answers, trace_context_of(params))
        return {}

    async def cancel(self, request: Request, client: Client, params: Mapping[str, Any]) -> dict[str, Any]:
        """Cancel a task, or close its questions. A task that has ended stays as it is. Raises `RpcError`."""
        newest = await self._asking.newest(await self._run(request, client, params))
        if newest.status in OPEN:
            try:
                await self._people.cancel(request, newest.run_id)
            except RunEnded:
                return {}
        await self._asking.close(request, newest, CANCELLED)
        return {}

    async def _run(self, request: Request, client: Client, params: Mapping[str, Any]) -> StoredRun:
        client.require_tasks()
        task_id = params.get("taskId")
        run_id = run_of(task_id) if isinstance(task_id, str) else None
        if run_id is not None:
            try:
                return await self._people.run(request, run_id)
            except RunNotFound:
                pass
        raise RpcError(INVALID_PARAMS, "Task not found")


def task_of(run: StoredRun, keep: timedelta) -> dict[str, Any]:
    """Return the task of a run that has just begun. `keep` is how long the run is stored after its end."""
    return {
        "taskId": str(run.run_id),
        "status": "working",
        "createdAt": _text(run.accepted_at),
        "lastUpdatedAt": _updated_at(run),
        "ttlMs": int(keep.total_seconds() * 1000),
        "pollIntervalMs": POLL_INTERVAL,
    }


def _updated_at(run: StoredRun) -> str:
    return _text(run.finished_at or run.started_at or run.accepted_at)


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
