"""What becomes of a call when its run has ended: it has a result, or it asks a person."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from jimsapi.asgi import Request
from jimsapi.runs import RunService
from jimsapi.threads import Question, RunStatus, StoredRun
from jimsapi.wire import failure, spoken_stored_run
from jimsapi_mcp.asking import CLOSED, Asking
from jimsapi_mcp.eras import SERVER_KEY, Client
from jimsapi_mcp.files import Files
from jimsapi_mcp.people import People
from jimsapi_mcp.results import OPEN, Outcome, tool_result
from jimsapi_mcp.states import States
from jimsapi_mcp.tool_call import ToolCall
from jimsapi_mcp.tools import Tools


class Conclusions:
    """Concludes calls: makes their results from what became of their runs.

    `info` is the name and the version of the server, which results repeat.
    """

    def __init__(
        self,
        service: RunService,
        people: People,
        asking: Asking,
        tools: Tools,
        states: States,
        info: Mapping[str, Any],
    ) -> None:
        self.service = service
        self.people = people
        self.asking = asking
        self.files = Files(service, people)
        self._tools = tools
        self._states = states
        self._info = info

    def finished(self, client: Client, result: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a result as the client's version has it: since 2026-07-28 it says its type and who made it."""
        if not client.modern:
            return result
        return {"resultType": "complete", **result, "_meta": {SERVER_KEY: self._info}}

    async def conclude(
        self, request: Request, call: ToolCall, outcome: Outcome, run: StoredRun | None = None, notified: int = 0
    ) -> dict[str, Any]:
        """Return the result of a call whose run is as `outcome` says: it asks a person, or it is complete.

        `run` is the stored run, if it is known. `notified` is the number of notifications of progress.
        """
        if not outcome.asked:
            return await self.result(request, call.client, outcome, ())
        run = run or await self.people.run(request, outcome.run_id)
        questions = await self.asking.open_questions(run)
        answerable = self.asking.answerable(request, run, questions)
        if answerable and call.client.modern and call.client.elicits and call.tool != self._tools.start:
            return self.input_required(request, call, run, self.asking.requests(answerable), notified)
        return await self.result(request, call.client, outcome, questions, self.note(request, run, questions))

    async def result(
        self, request: Request, client: Client, outcome: Outcome, questions: Sequence[Question], note: str = ""
    ) -> dict[str, Any]:
        """Return the result of a call with the files that its run has sent. The rest is as in `tool_result`."""
        result = tool_result(outcome, questions, note)
        return await self.files.added(request, client, result, outcome.thread_id, outcome.files)

    def input_required(
        self, request: Request, call: ToolCall, run: StoredRun, requests: Mapping[str, Any], notified: int
    ) -> dict[str, Any]:
        """Return the result of a call of 2026-07-28 that asks a person. `requests` are those for input."""
        state = self._states.sign(request, run, call.digest, notified)
        return {"resultType": "input_required", "inputRequests": requests, "requestState": state}

    def note(self, request: Request, run: StoredRun, questions: Sequence[Question]) -> str:
        """Return what a model reads of open questions that its client does not show."""
        if not questions:
            return CLOSED
        if self.asking.answerable(request, run, questions):
            return (
                "The agent asks the person this before it goes on. "
                f"Call {self._tools.chat} with thread {run.thread_id} and the person's answer as the message."
            )
        waits = self.asking.waits_for_others(request, run, questions)
        return f"{waits} Call {self._tools.get} with run_id {run.run_id} for the answer of the agent."

    async def failed(
        self, request: Request, run_id: UUID, error: BaseException, run: StoredRun | None = None
    ) -> Outcome:
        """Return the outcome of a run that has ended with an error. `run` is the stored run, if it is known.

        Raises `StoreUnavailable`.
        """
        status, text = failure(request, error)
        stored = run or await self.people.run(request, run_id)
        ended = RunStatus.FAILED if stored.status in OPEN and status == 500 else stored.status
        return Outcome(stored.run_id, stored.thread_id, ended, error=text)

    async def end_of(self, run: StoredRun) -> StoredRun:
        """Wait until a run has ended, or the stream of it. Returns the newest run of its turn then."""
        async for _ in spoken_stored_run(self.service, run):
            pass
        return await self.asking.read_again(run)
