"""`ListTasks`: the tasks of the caller, in pages."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, cast

import msgspec

from jimsapi.asgi import Request, convert_body
from jimsapi.runs import THREADS, Admission, Lists, RunService
from jimsapi.threads import QUESTION_ASKED, ListedRun, RunFilter, RunStatus, StoredRun, ThreadNotFound
from jimsapi_a2a import tasks
from jimsapi_a2a.contexts import Contexts
from jimsapi_a2a.errors import invalid
from jimsapi_a2a.files import MAX_RAW_OF_LIST, RawLeft
from jimsapi_a2a.params import STATES, ListTasks
from jimsapi_a2a.replies import Reply
from jimsapi_a2a.tasks import Task, Tasks

PAGE = 50
"""The number of tasks of a page if the client does not name one (specification, section 3.1.4)."""
EXAMINED = 500
"""The most runs that are examined for a page. A caller may have few tasks among many."""
COUNTED = 100
"""How many runs after a page are examined to count the tasks. With more, `totalSize` is a lower bound."""

_STATUSES = {
    tasks.SUBMITTED: (RunStatus.QUEUED,),
    # A task that was asked something is worked on by a later run.
    tasks.WORKING: (RunStatus.RUNNING, RunStatus.COMPLETED),
    tasks.COMPLETED: (RunStatus.COMPLETED,),
    tasks.FAILED: (RunStatus.FAILED, RunStatus.INTERRUPTED, RunStatus.COMPLETED),
    tasks.CANCELED: (RunStatus.CANCELLED, RunStatus.COMPLETED),
    tasks.INPUT_REQUIRED: (RunStatus.COMPLETED,),
}
"""The statuses that the first run of a task in a state may have. No task of this server has the other states."""


class _Wanted(msgspec.Struct, frozen=True):
    """What the tasks of a list meet. `contact_id` is that of a header of the request."""

    states: tuple[str, ...]
    updated_from: datetime | None
    only: RunFilter

    def may_have(self, run: StoredRun) -> bool:
        """Return whether the task of a run may be of the list. It saves reading tasks that are complete for sure."""
        is_complete = run.status is RunStatus.COMPLETED and all(one.event_type != QUESTION_ASKED for one in run.events)
        return not is_complete or tasks.COMPLETED in self.states

    def has(self, task: Task) -> bool:
        """Return whether a task is of the list."""
        return task.state in self.states and (self.updated_from is None or task.updated_at >= self.updated_from)


class Listing:
    """Lists tasks.

    A task has the place of its first run in the list, so tasks that begin meanwhile move none to another page. The
    tasks of one page are in the order of their last change.
    """

    def __init__(self, service: RunService, contexts: Contexts, found: Tasks) -> None:
        self._lists = Lists(service)
        self._contexts = contexts
        self._tasks = found

    async def answer(self, request: Request, params: Any) -> Reply:
        """Return a page of tasks, newest first."""
        query = convert_body(params, ListTasks)
        size = query.page_size or PAGE
        before, cursor = _position(query.page_token)
        wanted = await self._wanted(request, query)
        found: list[Task] = []
        if wanted is not None:
            found, cursor = await self._page(request, wanted, size, cursor, EXAMINED)
        else:
            cursor = None
        shown = before + len(found)
        total = shown
        if wanted is not None and cursor is not None:
            more, rest = await self._page(request, wanted, COUNTED, cursor, COUNTED)
            total += len(more) + (rest is not None)
        found.sort(key=lambda task: task.updated_at, reverse=True)
        with_artifacts, raw_left = bool(query.include_artifacts), RawLeft(MAX_RAW_OF_LIST)
        return Reply(
            {
                "tasks": [
                    await self._tasks.show(
                        request, task, query.history_length, artifacts=with_artifacts, raw_left=raw_left
                    )
                    for task in found
                ],
                "nextPageToken": "" if cursor is None else f"{shown}.{cursor}",
                "pageSize": size,
                "totalSize": total,
            }
        )

    async def _wanted(self, request: Request, query: ListTasks) -> _Wanted | None:
        """Return what the tasks of a list meet; None if no task can."""
        states, updated_from = query.states(), query.updated_from()
        statuses = {status for state in states for status in _STATUSES.get(state, ())}
        if not statuses:
            return None
        named = tuple(status for status in RunStatus if status in statuses)
        only = RunFilter(statuses=() if states == STATES else named)
        if query.context_id:
            thread_id = await self._contexts.find(request, query.context_id)
            if thread_id is None:
                return None
            only = msgspec.structs.replace(only, thread_id=thread_id)
        elif (contact_id := self._contexts.named_contact(request)) is not None:
            only = msgspec.structs.replace(only, contact_id=contact_id)
        elif cast(Admission, request.admission).provider is None:
            text = "This server admits every caller, so a list of tasks needs a contextId"
            raise invalid("contextId", text)
        return _Wanted(states, updated_from, only)

    async def _page(
        self, request: Request, wanted: _Wanted, size: int, cursor: str | None, most: int
    ) -> tuple[list[Task], str | None]:
        """Return up to `size` tasks after a cursor, and the cursor of the next ones. It reads `most` runs at most."""
        found: list[Task] = []
        examined = 0
        admission = cast(Admission, request.admission)
        while True:
            limit = min(size - len(found), most - examined)
            try:
                page = await self._lists.runs(
                    admission, limit, cursor, wanted.only, own=not admission.identity.may(THREADS)
                )
            except ThreadNotFound:  # it was deleted meanwhile
                return found, None
            found += [task async for task in self._first_of(request, page.runs, wanted) if wanted.has(task)]
            examined += limit
            cursor = page.next
            if cursor is None or len(found) >= size or examined >= most:
                return found, cursor

    async def _first_of(self, request: Request, runs: Sequence[ListedRun], wanted: _Wanted) -> AsyncIterator[Task]:
        """Yield the tasks of the caller that runs began, without those that can be in no wanted state."""
        for listed in runs:
            task = await self._tasks.begun_by_if(request, listed.run_id, wanted.may_have)
            if task is not None:
                yield task


def _position(token: str | None) -> tuple[int, str | None]:
    """Return how many tasks come before a page, and its cursor. Raises `A2AError` for a token of another origin."""
    if not token:
        return 0, None
    count, dot, cursor = token.partition(".")
    if not (dot and cursor and count.isascii() and count.isdigit() and len(count) < 10):
        raise invalid("pageToken", "This server did not make this token; start again without it")
    return int(count), cursor
