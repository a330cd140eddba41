"""The events of a task's stream (specification, sections 3.1.2 and 4.2)."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, cast

from jimsapi.asgi import Connection
from jimsapi.runs import LiveRun, RunCancelled, Status
from jimsapi.threads import DomainError, RunStatus, uuid7
from jimsapi.wire import (
    TRANSIENT,
    Failed,
    FilesSent,
    Finished,
    PiecesMissed,
    SpokenItem,
    failure,
)
from jimsapi_a2a.artifacts import Speech, question_message
from jimsapi_a2a.files import Files, FilesShown
from jimsapi_a2a.parts import message, text_part
from jimsapi_a2a.tasks import (
    CANCELED,
    COMPLETED,
    FAILED,
    INPUT_REQUIRED,
    REJECTED,
    WORKING,
    now,
    reason_message,
    status,
)


class Updates:
    """Converts what a run says to the updates of a task.

    `files` makes the parts of files, which belong to the contact `contact_id`. `is_working`: the client knows already
    that the task is worked on. `run` is the run, if this process works on it.
    """

    def __init__(
        self,
        request: Connection,
        task_id: str,
        context_id: str,
        files: Files,
        contact_id: str | None,
        *,
        is_working: bool,
        run: LiveRun | None = None,
    ) -> None:
        self._request = request
        self._files = files
        self._contact_id = contact_id
        self._named = {"taskId": task_id, "contextId": context_id}
        self._is_working = is_working
        self._run = run
        self._speech = Speech()

    async def of(
        self, task: dict[str, Any], items: AsyncIterator[SpokenItem | PiecesMissed]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the task as it is, then its updates until it ends or needs input.

        Raises a `DomainError` if the stream ends before the run does.
        """
        yield {"task": task}
        async with aclosing(cast(AsyncGenerator[SpokenItem | PiecesMissed, None], items)) as open_items:
            async for item in open_items:
                shown: SpokenItem | FilesShown | PiecesMissed = item
                if isinstance(item, FilesSent):
                    shown = await self._files.parts(self._request, self._contact_id, item)
                for update in self._next(shown):
                    yield update

    def _next(self, item: SpokenItem | FilesShown | PiecesMissed) -> Iterator[dict[str, Any]]:
        match item:
            case Finished(result):
                asked = self._speech.questions
                if result.questions() and asked:
                    yield self._status(
                        INPUT_REQUIRED, question_message(asked, self._named["taskId"], self._named["contextId"])
                    )
                else:
                    yield self._status(COMPLETED)
            case Failed(error):
                yield self._failed(error)
            case Status(text, kind):
                self._is_working = True
                parts = [text_part(text)]
                said = message(str(uuid7()), "ROLE_AGENT", parts, metadata={"kind": kind}, **self._named)
                yield self._status(WORKING, said)
            case PiecesMissed():
                pass  # the whole messages follow
            case _:
                if not self._is_working:
                    self._is_working = True
                    yield self._status(WORKING)
                yield from self._artifacts(item)

    def _artifacts(self, item: SpokenItem | FilesShown) -> Iterator[dict[str, Any]]:
        for artifact, continues, is_last in self._speech.next(item):
            update = {**self._named, "artifact": artifact, "append": continues, "lastChunk": is_last}
            yield {"artifactUpdate": update}

    def _failed(self, error: BaseException) -> dict[str, Any]:
        if isinstance(error, TRANSIENT):
            raise error
        if isinstance(error, RunCancelled):
            return self._status(CANCELED)
        _, text = failure(self._request, error)
        state = REJECTED if is_refused(self._run, error) else FAILED
        return self._status(state, reason_message(self._named["taskId"], self._named["contextId"], text))

    def _status(self, state: str, said: dict[str, Any] | None = None) -> dict[str, Any]:
        update: dict[str, Any] = {**self._named, "status": status(state, now(), said)}
        if self._speech.used and state != WORKING:
            update["metadata"] = {"usage": self._speech.usage}
        return {"statusUpdate": update}


def is_refused(run: LiveRun | None, error: BaseException) -> bool:
    """Return whether the server has refused a message that waited for its turn, so that it did not enter the thread."""
    return (
        run is not None
        and run.status is RunStatus.CANCELLED
        and isinstance(error, DomainError)
        and not isinstance(error, RunCancelled)
    )
