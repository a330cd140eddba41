"""Tasks: a task is a message and all runs that answer it and its questions, and has the identifier of the first run."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import msgspec
import orjson

from jimsapi.asgi import Request
from jimsapi.runs import Admission, Runs, RunService
from jimsapi.threads import EventRow, NewEvent, RunNotFound, RunStatus, StoredRun, ThreadNotFound
from jimsapi.wire import (
    AskedQuestion,
    PersonAsked,
    SpokenItem,
    TurnRuns,
    UserSaid,
    event_data_json,
    said,
    stored_items,
)
from jimsapi_a2a.artifacts import Speech, artifacts_of, question_message
from jimsapi_a2a.contexts import Contexts
from jimsapi_a2a.errors import task_not_found
from jimsapi_a2a.files import Files, RawLeft
from jimsapi_a2a.links import Links
from jimsapi_a2a.parts import message, text_part, timestamp

SUBMITTED = "TASK_STATE_SUBMITTED"
WORKING = "TASK_STATE_WORKING"
COMPLETED = "TASK_STATE_COMPLETED"
FAILED = "TASK_STATE_FAILED"
CANCELED = "TASK_STATE_CANCELED"
INPUT_REQUIRED = "TASK_STATE_INPUT_REQUIRED"
REJECTED = "TASK_STATE_REJECTED"
OPEN = (SUBMITTED, WORKING)
TERMINAL = (COMPLETED, FAILED, CANCELED, REJECTED)

_INTERRUPTED = "The server stopped before the task was complete"
_EXPIRED = "Nobody answered the question in time"
_SUPERSEDED = "The question was closed without an answer"


class Task(msgspec.Struct, frozen=True):
    """A task as the store has it now. `runs` are its runs in order, `asked` the questions of the newest one."""

    context_id: str
    contact_id: str | None
    runs: Sequence[StoredRun]
    asked: Sequence[AskedQuestion]

    @property
    def id(self) -> str:
        """The identifier of the task."""
        return str(self.runs[0].run_id)

    @property
    def newest(self) -> StoredRun:
        """The run that decides about the state."""
        return self.runs[-1]

    @property
    def thread_id(self) -> UUID:
        """The thread of the task."""
        return self.newest.thread_id

    @property
    def state(self) -> str:
        """The state of the task."""
        match self.newest.status:
            case RunStatus.QUEUED:
                return SUBMITTED if len(self.runs) == 1 else WORKING
            case RunStatus.RUNNING:
                return WORKING
            case RunStatus.COMPLETED:
                return self._state_of_questions() if self.asked else COMPLETED
            case RunStatus.CANCELLED:
                return CANCELED
        return FAILED

    def _state_of_questions(self) -> str:
        if any(one.is_open for one in self.asked):
            return INPUT_REQUIRED
        if any(one.answer is not None for one in self.asked):  # the run that the answer begins is not stored yet
            return WORKING
        return CANCELED if any(one.closing is not None for one in self.asked) else FAILED

    @property
    def updated_at(self) -> datetime:
        """The time at which the task got its state, in UTC."""
        run = self.newest
        times = [run.finished_at or run.started_at or run.accepted_at]
        if run.status is RunStatus.COMPLETED:
            ends = [one.answer or one.closing for one in self.asked]
            times += [_time(row) for row in ends if row is not None]
        return max(times)

    def reason(self) -> str | None:
        """Return why the task has ended without a result; None if it has not."""
        run = self.newest
        if run.status in (RunStatus.FAILED, RunStatus.INTERRUPTED):
            return run.error or _INTERRUPTED
        if run.status is RunStatus.COMPLETED and self.state == FAILED:
            return _EXPIRED
        return _SUPERSEDED if run.status is RunStatus.COMPLETED and self.state == CANCELED else None


class Tasks:
    """Reads tasks, limited to those that the caller may see: those whose first run it may see."""

    def __init__(self, service: RunService, contexts: Contexts, links: Links) -> None:
        self.turns = TurnRuns(service)
        self._service = service
        self._runs = Runs(service)
        self._contexts = contexts
        self.files = Files(service, links)

    async def find(self, request: Request, task_id: str) -> Task:
        """Return a task of the caller. Raises `A2AError` if there is none."""
        try:
            run_id = UUID(task_id)
        except ValueError:
            raise task_not_found(task_id) from None
        return await self.of_run(request, run_id)

    async def of_run(self, request: Request, run_id: UUID) -> Task:
        """Return the task that a run belongs to. Raises `A2AError` if the caller may not see it."""
        try:
            run = await self._runs.run(_admission(request), run_id)
            first = await self.turns.first(run)
            if first is not run:  # another caller may have answered
                first = await self._runs.run(_admission(request), first.run_id)
            return await self.begun_by(request, first)
        except (RunNotFound, ThreadNotFound):
            raise task_not_found(str(run_id)) from None

    async def begun_by_if(self, request: Request, run_id: UUID, wanted: Callable[[StoredRun], bool]) -> Task | None:
        """Return the task that a run began.

        Returns None if it began none, if the caller may not see it, or if the run is not `wanted`.
        """
        try:
            run = await self._runs.run(_admission(request), run_id)
            if wanted(run) and await self.turns.is_first(run):
                return await self.begun_by(request, run)
        except (RunNotFound, ThreadNotFound):
            pass
        return None

    async def begun_by(self, request: Request, first: StoredRun) -> Task:
        """Return the task that a run of the caller began.

        Raises `ThreadNotFound` if the request names another contact, or if the thread was deleted.
        """
        self._contexts.check_contact(request, first.contact_id)
        return await self._of_first(first)

    async def current(self, run_id: UUID) -> Task:
        """Return the task that a run began, without a request: it checks no permissions.

        Raises `RunNotFound`, or `ThreadNotFound` if the thread was deleted.
        """
        return await self._of_first(await self._service.store.run(run_id, None, None))

    async def _of_first(self, first: StoredRun) -> Task:
        runs = await self.turns.following(first)
        asked = await self.turns.questions(runs[-1]) if runs[-1].status is RunStatus.COMPLETED else []
        return Task(await self._contexts.id_of(first.thread_id), first.contact_id, runs, asked)

    async def show(
        self,
        request: Request | None,
        task: Task,
        history_length: int | None = None,
        *,
        artifacts: bool = True,
        raw_left: RawLeft | None = None,
    ) -> dict[str, Any]:
        """Return a task as A2A has it, with its newest `history_length` messages; None for all.

        Without a request, as for a push notification, it has no messages. `raw_left` is that of a page of tasks.
        """
        speech = Speech()
        made: list[dict[str, Any]] = []
        messages: list[dict[str, Any]] = []
        for run in task.runs:
            speech.questions = []
            items: Sequence[SpokenItem] = stored_items(_events(run))
            shown_items = await self.files.shown(request, task.contact_id, items, raw_left) if artifacts else items
            made += artifacts_of(shown_items, speech)
            if history_length != 0 and request is not None:
                messages += await self._messages(request, task, run)
                if run is not task.newest and speech.questions:
                    messages.append(question_message(speech.questions, task.id, task.context_id))
        shown: dict[str, Any] = {
            "id": task.id,
            "contextId": task.context_id,
            "status": self._status(task, speech.questions),
        }
        if artifacts:
            shown["artifacts"] = made
        if history_length is not None and history_length < len(messages):
            messages = messages[len(messages) - history_length :]
        if messages:
            shown["history"] = messages
        if speech.used:
            shown["metadata"] = {"usage": speech.usage}
        return shown

    def _status(self, task: Task, asked: Sequence[PersonAsked]) -> dict[str, Any]:
        state = task.state
        if state == INPUT_REQUIRED:
            open_ids = {one.question.question_id for one in task.asked if one.is_open}
            waiting = [one for one in asked if one.question.question_id in open_ids]
            return status(state, task.updated_at, question_message(waiting or asked, task.id, task.context_id))
        reason = task.reason()
        return status(
            state, task.updated_at, None if reason is None else reason_message(task.id, task.context_id, reason)
        )

    async def _messages(self, request: Request, task: Task, run: StoredRun) -> list[dict[str, Any]]:
        """Return the message of a run; none if the run has not started."""
        rows = await self.turns.message_rows(run)
        found = [one for one in said(rows) if isinstance(one, UserSaid)]
        named = {"taskId": task.id, "contextId": task.context_id}
        return [
            message(_client_id(rows) or str(one.message_id), "ROLE_USER", self._parts(request, task, one), **named)
            for one in found
        ]

    def _parts(self, request: Request, task: Task, one: UserSaid) -> list[dict[str, Any]]:
        files = [self.files.link(request, task.contact_id, file) for file in one.files]
        return [*([text_part(one.text)] if one.text or not files else []), *files]


def status(state: str, time: datetime, said: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the status of a task."""
    if said is None:
        return {"state": state, "timestamp": timestamp(time)}
    return {"state": state, "message": said, "timestamp": timestamp(time)}


def reason_message(task_id: str, context_id: str, reason: str) -> dict[str, Any]:
    """Return the message that says why a task has ended."""
    parts = [text_part(reason)]
    return message(f"{task_id}-status", "ROLE_AGENT", parts, taskId=task_id, contextId=context_id)


def now() -> datetime:
    """Return the time now."""
    return datetime.now(UTC)


def _events(run: StoredRun) -> list[NewEvent]:
    return [NewEvent(event.event_id, event.event_type, event_data_json(event.event_data)) for event in run.events]


def _client_id(rows: Sequence[EventRow]) -> str | None:
    """Return the identifier that the client gave a message, from the events beside it."""
    for row in rows:
        if row.event_type == "message.client_id":
            data = orjson.loads(event_data_json(row.data))
            known = data.get("client_id") if isinstance(data, dict) else None
            return known if isinstance(known, str) else None
    return None


def _time(row: EventRow) -> datetime:
    created = row.created_at if isinstance(row.created_at, datetime) else datetime.fromisoformat(row.created_at)
    return created.replace(tzinfo=UTC)


def _admission(request: Request) -> Admission:
    return cast(Admission, request.admission)
