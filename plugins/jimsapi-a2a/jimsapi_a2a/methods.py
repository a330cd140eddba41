"""The methods of the agent, by their names in JSON-RPC. Both bindings call them."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from jimsapi.asgi import Request, convert_body
from jimsapi.runs import Admission, RunService
from jimsapi.wire import spoken_stored_run
from jimsapi_a2a.contexts import Contexts
from jimsapi_a2a.errors import TASK_NOT_CANCELABLE, UNSUPPORTED, VERSION, A2AError
from jimsapi_a2a.listing import Listing
from jimsapi_a2a.params import GetTask, NamedTask
from jimsapi_a2a.push import PushNotifications
from jimsapi_a2a.replies import Reply
from jimsapi_a2a.sending import Sending, only
from jimsapi_a2a.tasks import CANCELED, INPUT_REQUIRED, OPEN, TERMINAL, WORKING, Task, Tasks
from jimsapi_a2a.updates import Updates

Method = Callable[[Request, Any], Awaitable[Reply]]
"""A method: it gets the request and its parameters, which are any JSON value."""

_VERSION_HEADER = "a2a-version"


class Methods:
    """The methods of the agent. `table` has them by name."""

    def __init__(self, service: RunService, contexts: Contexts, tasks: Tasks, push: PushNotifications) -> None:
        self._service = service
        self._tasks = tasks
        sending = Sending(service, contexts, tasks, push)
        self.table: Mapping[str, Method] = {
            "SendMessage": sending.send,
            "SendStreamingMessage": sending.stream,
            "GetTask": self.get_task,
            "ListTasks": Listing(service, contexts, tasks).answer,
            "CancelTask": self.cancel_task,
            "SubscribeToTask": self.subscribe,
            "CreateTaskPushNotificationConfig": push.create,
            "GetTaskPushNotificationConfig": push.get,
            "ListTaskPushNotificationConfigs": push.list_all,
            "DeleteTaskPushNotificationConfig": push.delete,
            "GetExtendedAgentCard": self.extended_card,
        }

    async def get_task(self, request: Request, params: Any) -> Reply:
        """Return a task as it is now."""
        query = convert_body(params, GetTask)
        task = await self._tasks.find(request, query.id)
        return Reply(await self._tasks.show(request, task, query.history_length))

    async def cancel_task(self, request: Request, params: Any) -> Reply:
        """Cancel a task that has not ended. Its questions cannot be answered any more."""
        task_id = convert_body(params, NamedTask).id
        task = await self._tasks.find(request, task_id)
        if task.state in TERMINAL:
            raise _not_cancelable(task)
        if task.state in OPEN:
            await self._service.cancel(task.newest.run_id)
            task = await self._tasks.find(request, task_id)
        for run in task.runs:
            asked = await self._tasks.turns.questions(run)
            await self._tasks.turns.close(run, asked, cast(Admission, request.admission))
        self._service.subscriptions.changed(task.thread_id)
        task = await self._tasks.find(request, task_id)
        if task.state != CANCELED:  # it ended a moment before
            raise _not_cancelable(task)
        return Reply(await self._tasks.show(request, task))

    async def subscribe(self, request: Request, params: Any) -> Reply:
        """Stream a task that has not ended: as it is now, then what its run has said since its beginning, and says."""
        task = await self._tasks.find(request, convert_body(params, NamedTask).id)
        if task.state in TERMINAL:
            text = f"The task {task.id} has ended ({task.state}): get it by GetTask"
            raise A2AError(UNSUPPORTED, text, metadata={"taskId": task.id})
        shown = await self._tasks.show(request, task)
        if task.state == INPUT_REQUIRED:
            return Reply(events=only(shown))
        named = task.id, task.context_id, self._tasks.files, task.contact_id
        updates = Updates(request, *named, is_working=task.state == WORKING)
        return Reply(events=updates.of(shown, spoken_stored_run(self._service, task.newest)))

    async def extended_card(self, request: Request, params: Any) -> Reply:
        """`GetExtendedAgentCard`: the public card is the only one, and says so."""
        raise A2AError(UNSUPPORTED, "This agent has no extended card: read its public agent card")


def _not_cancelable(task: Task) -> A2AError:
    text = f"The task {task.id} has ended ({task.state}), so it cannot be cancelled"
    return A2AError(TASK_NOT_CANCELABLE, text, metadata={"taskId": task.id})


def check_version(request: Request) -> None:
    """Raise `A2AError` if a request is for another version of A2A. Without a version, it is for 0.3 (section 3.6.2)."""
    version = request.headers.get(_VERSION_HEADER) or request.query.get("A2A-Version") or "0.3"
    major_minor = version.strip().split(".")[:2]
    if major_minor != ["1", "0"]:
        text = f"This agent speaks A2A 1.0, not {version[:20]!r}: send the header A2A-Version: 1.0"
        raise A2AError(VERSION, text, metadata={"supportedVersions": "1.0"})
