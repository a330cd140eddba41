"""Calls of the tools: they begin runs, wait for them, and return what became of them."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from jimsapi.asgi import EventStreamResponse, HTTPError, JSONResponse, Request, Response
from jimsapi.runs import Lists, LiveRun, RunEnded, RunService
from jimsapi.threads import (
    ById,
    DomainError,
    New,
    Question,
    RunFilter,
    RunNotFound,
    RunStatus,
    Selector,
    StoredRun,
    ThreadNotFound,
    ThreadQuery,
    TraceContext,
)
from jimsapi.wire import (
    Turn,
    answer_of,
    begin_turn,
    error_content,
    failure,
    refusal,
    refusal_of,
    stop_left,
    watch_leaving,
    with_run,
)
from jimsapi_mcp.asking import CANCELLED, CLOSED, DECLINED, DECLINING, DISMISSED, Asking
from jimsapi_mcp.eras import SERVER_KEY, Client
from jimsapi_mcp.files import Files
from jimsapi_mcp.messages import INVALID_PARAMS, RequestId, RpcError, result_body, shown
from jimsapi_mcp.names import run_of, thread_of
from jimsapi_mcp.people import People, admission_of
from jimsapi_mcp.results import (
    OPEN,
    Outcome,
    outcome_of_result,
    outcome_of_stored,
    refused_result,
    tool_result,
)
from jimsapi_mcp.sessions import FormResponse, OpenCall, OpenCalls, Reaction, deliver
from jimsapi_mcp.states import States, read_state
from jimsapi_mcp.streams import CallStream, end_of
from jimsapi_mcp.tasks import task_of
from jimsapi_mcp.tool_call import ToolCall, client_id_of
from jimsapi_mcp.tools import (
    ArgumentsRefused,
    GetArguments,
    Tools,
    chat_arguments,
    get_arguments,
    run_arguments,
)

RECENT = 10
"""How many of the newest runs of a thread are looked at to find one that the caller may see."""


class Place(msgspec.Struct, frozen=True):
    """Where a message goes: the thread that `selectors` find, of the contact `contact`."""

    selectors: Sequence[Selector]
    contact: str
    name: str | None = None


class Calls:
    """Makes the calls of tools."""

    def __init__(
        self, service: RunService, people: People, tools: Tools, states: States, info: Mapping[str, Any]
    ) -> None:
        """`info` is the name and the version of the server, which results repeat."""
        self.service = service
        self.people = people
        self.asking = Asking(service, people, states)
        self.files = Files(service, people)
        self.open_calls = OpenCalls()
        self._info = info
        self._states = states
        self._tools = tools
        self._lists = Lists(service)

    async def call(self, request: Request, call: ToolCall) -> Response:
        """Make a call. Raises `RpcError`, and the `DomainError` or `HTTPError` of a server that cannot do it now."""
        tools = self._tools
        if call.tool not in tools.names():
            raise RpcError(INVALID_PARAMS, f"Unknown tool: {shown(call.tool)}")
        try:
            if call.tool == tools.chat:
                return await self._chat(request, call)
            if call.tool == tools.start:
                return await self._start(request, call)
            if call.tool == tools.get:
                return self._response(call, await self._get(request, call))
            return self._response(call, await self._cancel(request, call))
        except ArgumentsRefused as fault:
            return self._response(call, refused_result(str(fault)))
        except (DomainError, HTTPError) as error:
            text = advice(request, error)
            if text is None:
                raise
            return self._response(call, refused_result(text))

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
            result = tool_result(outcome, ())
            return await self.files.added(request, call.client, result, outcome.thread_id, outcome.files)
        run = run or await self.people.run(request, outcome.run_id)
        questions = await self.asking.open_questions(run)
        answerable = self.asking.answerable(request, run, questions)
        if answerable and call.client.modern and call.client.elicits and call.tool != self._tools.start:
            return self._input_required(request, call, run, self.asking.requests(answerable), notified)
        result = tool_result(outcome, questions, self.note(request, run, questions))
        return await self.files.added(request, call.client, result, outcome.thread_id, outcome.files)

    async def begin(
        self,
        request: Request,
        turn: Turn,
        place: Place,
        *,
        watched: bool = False,
        background: bool = False,
        stops: bool = False,
    ) -> LiveRun:
        """Begin the run of a message. `stops`: it does not go on without its client. Raises as `begin_turn` does."""
        return await begin_turn(
            request,
            self.service,
            self.people.names,
            turn,
            watched=watched,
            background=background,
            selectors=place.selectors,
            contact=place.contact,
            stops=stops,
        )

    async def answer(
        self, request: Request, run: StoredRun, answers: Mapping[str, Any], trace_context: TraceContext | None = None
    ) -> LiveRun:
        """Begin the run of answers to questions of a run, in the background. Raises as `begin_turn` does."""
        turn = Turn("", answers=dict(answers), trace_context=trace_context)
        return await self.begin(request, turn, self.place_of(request, run), background=True)

    def place_of(self, request: Request, run: StoredRun) -> Place:
        """Return the place of answers to questions of a run."""
        return Place((ById(run.thread_id),), self.people.contact_of(request, run.contact_id))

    async def cancel_open(self, request: Request, call: OpenCall) -> None:
        """Cancel a call that has no response yet."""
        call.cancelled = True
        deliver(call, FormResponse(Reaction.CALL_CANCELLED))
        if call.run_id is not None:
            with suppress(RunEnded, RunNotFound):
                await self.people.cancel(request, call.run_id)

    async def cancel_elsewhere(self, request: Request, client: Client, request_id: RequestId) -> None:
        """Cancel a call of an earlier client that waits in another process, if its run works now."""
        client_id, contact = client_id_of(client, request_id), self.people.listed(request)
        if client_id is None or contact is None:
            return
        only = RunFilter(statuses=OPEN, contact_id=contact)
        page = await self._lists.runs(admission_of(request), RECENT, None, only)
        for listed in page.runs:
            with suppress(RunNotFound, RunEnded):
                run = await self.people.run(request, listed.run_id)
                if await self.asking.client_id(run) == client_id:
                    await self.people.cancel(request, run.run_id)
                    return

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

    async def _chat(self, request: Request, call: ToolCall) -> Response:
        if call.state is not None:
            return await self._chat_again(request, call)
        turn, place = await self._message(request, call)
        if not call.client.tasks:
            return await self._answered(request, call, turn, place)
        run = await self.begin(request, turn, place, background=True)
        created = {
            "resultType": "task",
            **task_of(await self.people.run(request, run.known_as), self.service.limits.keep_runs),
        }
        return with_run(request, self.service, run, self._response(call, created))

    async def _start(self, request: Request, call: ToolCall) -> Response:
        turn, place = await self._message(request, call)
        run = await self.begin(request, turn, place, background=True)
        outcome = outcome_of_stored(await self.people.run(request, run.known_as))
        note = f"The agent works on it. Call {self._tools.get} with run_id {outcome.run_id} for the answer."
        result = tool_result(outcome, (), note if outcome.status in OPEN else "")
        return with_run(request, self.service, run, self._response(call, result))

    async def _message(self, request: Request, call: ToolCall) -> tuple[Turn, Place]:
        """Return the message of a call, and where it goes. Raises `ThreadNotFound` for a thread of somebody else."""
        arguments = chat_arguments(call.arguments)
        place = await self._place(request, arguments.thread)
        turn = Turn(
            arguments.message,
            thread=place.name,
            metadata=arguments.metadata,
            answers=arguments.answers,
            answers_in_text=True,
            client_id=call.client_id,
            trace_context=call.trace_context,
        )
        return turn, place

    async def _place(self, request: Request, thread: str | None) -> Place:
        """Return the place of a message: the thread with this identifier, or that of this name, or a new one."""
        thread_id = None if thread is None else thread_of(thread)
        if thread_id is not None:
            found = await self.people.thread(request, thread_id)
            return Place((ById(thread_id),), self.people.contact_of(request, found.contact_id))
        contact = self.people.contact(request, thread)
        named = self.people.names.selectors(request, Turn("", thread=thread), contact)
        return Place((New(),) if named is None else named, contact, thread)

    async def _chat_again(self, request: Request, call: ToolCall) -> Response:
        """Go on with a call that waited for a person."""
        run = await self._run_of_state(request, call)
        newest = await self.asking.newest(run)
        if newest.run_id != run.run_id:  # it is answered: this request is a repetition, or somebody else has answered
            return await self._followed(request, call, run)
        answers = await self._entered(request, call, run)
        if isinstance(answers, Refused):
            return self._response(call, answers.result)
        turn = Turn("", answers=dict(answers), trace_context=call.trace_context)
        try:
            return await self._answered(request, call, turn, self.place_of(request, run))
        except DomainError:
            newest = await self.asking.newest(run)
            if newest.run_id == run.run_id:
                raise
            return await self._followed(request, call, run)  # another request was faster

    async def _entered(self, request: Request, call: ToolCall, run: StoredRun) -> "Mapping[str, Any] | Refused":
        """Return the answers in a call to the questions of a run, or the result of the call if there are none."""
        outcome = outcome_of_stored(run)
        questions = await self.asking.open_questions(run)
        answerable = self.asking.answerable(request, run, questions)
        if not answerable:
            return Refused(tool_result(outcome, questions, self.note(request, run, questions)))
        entered = self.asking.entered(answerable, call.inputs)
        if entered.again:
            requests = self.asking.requests(answerable, entered.again)
            return Refused(self._input_required(request, call, run, requests, call.notified))
        if entered.declined:
            await self.asking.close(request, run, DECLINING)
            return Refused(tool_result(outcome, (), DECLINED))
        if entered.dismissed:
            return Refused(tool_result(outcome, questions, f"{DISMISSED} {self.note(request, run, questions)}"))
        return entered.answers

    async def _answered(self, request: Request, call: ToolCall, turn: Turn, place: Place) -> Response:
        """Begin the run of a call, and answer the call when the run has ended."""
        open_call = self.open_calls.open(request, call.client, call.id)
        run = await self.begin(request, turn, place, watched=call.streams, stops=call.client.modern)
        open_call.run_id = run.known_as
        if open_call.cancelled:  # while the store accepted the message
            await self.cancel_open(request, open_call)
        on_left = partial(stop_left, self.service, run) if call.client.modern else None
        if call.streams:
            chunks = CallStream(self, request, call, open_call).of_live(run)
            stream = EventStreamResponse(chunks if on_left is None else watch_leaving(chunks, run, on_left))
            return with_run(request, self.service, run, stream)
        try:
            outcome = outcome_of_result(await answer_of(request, run, on_left))
        except DomainError as error:
            if refusal(run) is not None:
                raise
            outcome = await self.failed(request, run.known_as, error)
        result = await self.conclude(request, call, outcome)
        return with_run(request, self.service, run, self._response(call, result))

    async def _followed(self, request: Request, call: ToolCall, asking: StoredRun) -> Response:
        """Answer a call when the runs have ended that answers to the questions of the run `asking` began."""
        newest = await self.asking.newest(asking)
        if newest.status in OPEN and call.streams:
            open_call = self.open_calls.open(request, call.client, call.id)
            return EventStreamResponse(CallStream(self, request, call, open_call).of_stored(newest))
        if newest.status in OPEN:
            await end_of(self, newest)
            newest = await self.asking.read_again(newest)
        return self._response(call, await self.conclude(request, call, outcome_of_stored(newest), newest))

    async def _get(self, request: Request, call: ToolCall) -> dict[str, Any]:
        """Return the state of a run, or of the newest run of a thread; after an answer, that of the run it began."""
        arguments = get_arguments(call.arguments)
        newest = await self.asking.newest(await self._named_run(request, arguments))
        if call.state is not None and newest.run_id == (await self._run_of_state(request, call)).run_id:
            answers = await self._entered(request, call, newest)
            if isinstance(answers, Refused):
                return answers.result
            begun = await self.answer(request, newest, answers, call.trace_context)
            newest = await self.people.run(request, begun.known_as)
        if newest.status in OPEN and arguments.wait:
            with suppress(TimeoutError):
                async with asyncio.timeout(arguments.wait):
                    await end_of(self, newest)
            newest = await self.asking.read_again(newest)
        if newest.status in OPEN:
            return tool_result(outcome_of_stored(newest), (), "The agent still works on it.")
        return await self.conclude(request, call, outcome_of_stored(newest), newest)

    async def _named_run(self, request: Request, arguments: GetArguments) -> StoredRun:
        if arguments.run_id is not None:
            return await self._run(request, arguments.run_id)
        place = await self._place(request, arguments.thread)
        bound_to = admission_of(request).identity.contact_id
        thread = await self.service.store.find_thread(ThreadQuery(place.contact, tuple(place.selectors), bound_to))
        page = await self._lists.runs(admission_of(request), RECENT, None, RunFilter(thread_id=thread.thread_id))
        for listed in page.runs:
            with suppress(RunNotFound):
                return await self.people.run(request, listed.run_id)
        raise ThreadNotFound(thread.thread_id)

    async def _run(self, request: Request, text: str) -> StoredRun:
        run_id = run_of(text)
        if run_id is None:
            raise ArgumentsRefused(f"run_id: {shown(text)!r} is not the run_id of an earlier result")
        return await self.people.run(request, run_id)

    async def _cancel(self, request: Request, call: ToolCall) -> dict[str, Any]:
        """Cancel a run, or close the questions with which it ended."""
        run = await self._run(request, run_arguments(call.arguments).run_id)
        newest = await self.asking.newest(run)
        if newest.status not in OPEN and await self.asking.open_questions(newest):
            await self.asking.close(request, newest, CANCELLED)
            return tool_result(outcome_of_stored(newest), (), CLOSED)
        await self.people.cancel(request, newest.run_id)
        cancelled = outcome_of_stored(await self.people.run(request, newest.run_id))
        return {
            **tool_result(msgspec.structs.replace(cancelled, error=None), (), "The run was cancelled."),
            "isError": False,
        }

    async def _run_of_state(self, request: Request, call: ToolCall) -> StoredRun:
        """Return the run whose question a call waited for. Raises `RpcError` if its state was not signed for it."""
        refused = RpcError(INVALID_PARAMS, "The requestState is not valid for this call, or too old: call without it")
        state = read_state(call.state)
        if state is None:
            raise refused
        try:
            run = await self.people.run(request, state.run_id)
        except RunNotFound:
            raise refused from None
        if not self._states.is_valid(request, run, call.digest, state):
            raise refused
        return run

    def _input_required(
        self, request: Request, call: ToolCall, run: StoredRun, requests: Mapping[str, Any], notified: int
    ) -> dict[str, Any]:
        state = self._states.sign(request, run, call.digest, notified)
        return {"resultType": "input_required", "inputRequests": requests, "requestState": state}

    def _response(self, call: ToolCall, result: Mapping[str, Any]) -> Response:
        return JSONResponse(result_body(call.id, self.finished(call.client, result)))

    def note(self, request: Request, run: StoredRun, questions: Sequence[Question]) -> str:
        """Return what a model reads of open questions that its client does not show."""
        if not questions:
            return CLOSED
        if not self.asking.answerable(request, run, questions):
            return "The agent waits for the answer of somebody else."
        return (
            "The agent asks the person this before it goes on. "
            f"Call {self._tools.chat} with thread {run.thread_id} and the person's answer as the message."
        )


class Refused(msgspec.Struct, frozen=True):
    """The result of a call that goes no further."""

    result: dict[str, Any]


def advice(request: Request, error: DomainError | HTTPError) -> str | None:
    """Return the text for a model of an error that it can correct, such as a thread that does not exist.

    None for others: the caller may not do it, has used up a limit, or can send the same again later.
    """
    content = error_content(request, error)
    transient = "retry-after" in (content.headers or {})
    if content.status not in (404, 409, 422) or transient:
        return None
    return refusal_of(content.status, content.content).text
