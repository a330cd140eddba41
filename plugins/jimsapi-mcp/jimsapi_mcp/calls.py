"""Calls of the tools: they begin runs, wait for them, and return what became of them."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from jimsapi.asgi import EventStreamResponse, HTTPError, JSONResponse, Request, Response
from jimsapi.runs import Lists, RunEnded
from jimsapi.threads import DomainError, RunFilter, RunNotFound, StoredRun, ThreadNotFound, ThreadQuery
from jimsapi.wire import Turn, answer_of, error_content, refusal, refusal_of, watch_leaving, with_run
from jimsapi_mcp.asking import CANCELLED, CLOSED, DECLINED, DECLINING, DISMISSED
from jimsapi_mcp.conclusions import Conclusions
from jimsapi_mcp.eras import Client
from jimsapi_mcp.messages import INVALID_PARAMS, RequestId, RpcError, result_body, shown
from jimsapi_mcp.names import run_of
from jimsapi_mcp.people import admission_of
from jimsapi_mcp.results import OPEN, outcome_of_result, outcome_of_stored, refused_result, tool_result
from jimsapi_mcp.sessions import FormResponse, OpenCall, OpenCalls, Reaction, deliver
from jimsapi_mcp.states import States, read_state
from jimsapi_mcp.streams import CallStream
from jimsapi_mcp.tasks import task_of
from jimsapi_mcp.tool_call import ToolCall, client_id_of
from jimsapi_mcp.tools import ArgumentsRefused, GetArguments, Tools, chat_arguments, get_arguments, run_arguments
from jimsapi_mcp.turns import Place, Turns
from jimsapi_mcp.waiting import WaitingCalls

RECENT = 10
"""How many of the newest runs of a thread are looked at to find one that the caller may see."""


class Calls:
    """Makes the calls of tools. A form of an earlier client waits up to `form_wait` seconds for its response."""

    def __init__(
        self,
        conclusions: Conclusions,
        turns: Turns,
        open_calls: OpenCalls,
        tools: Tools,
        states: States,
        form_wait: float,
    ) -> None:
        self._conclusions = conclusions
        self._service = conclusions.service
        self._people = conclusions.people
        self._asking = conclusions.asking
        self._turns = turns
        self._open_calls = open_calls
        self._tools = tools
        self._states = states
        self._form_wait = form_wait
        self._lists = Lists(self._service)
        self._waiting = WaitingCalls(self._service)

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

    async def cancel_open(self, request: Request, call: OpenCall) -> None:
        """Cancel a call that has no response yet."""
        call.cancelled = True
        deliver(call, FormResponse(Reaction.CALL_CANCELLED))
        if call.run_id is not None:
            with suppress(RunEnded, RunNotFound):
                await self._people.cancel(request, call.run_id)

    async def cancel_elsewhere(self, request: Request, client: Client, request_id: RequestId) -> None:
        """Cancel a call of an earlier client that waits in another process, if its run works now."""
        client_id, contact = client_id_of(client, request_id), self._people.listed(request)
        if client_id is None or contact is None:
            return
        only = RunFilter(statuses=OPEN, contact_id=contact)
        page = await self._lists.runs(admission_of(request), RECENT, None, only)
        for listed in page.runs:
            with suppress(RunNotFound, RunEnded):
                run = await self._people.run(request, listed.run_id)
                if await self._asking.client_id(run) == client_id:
                    await self._people.cancel(request, run.run_id)

    async def _chat(self, request: Request, call: ToolCall) -> Response:
        if call.state is not None:
            return await self._chat_again(request, call)
        turn, place = await self._message(request, call)
        if not call.client.tasks:
            return await self._answered(request, call, turn, place)
        run = await self._turns.begin(request, turn, place, background=True)
        created = {
            "resultType": "task",
            **task_of(await self._people.run(request, run.known_as), self._service.limits.keep_runs),
        }
        return with_run(request, self._service, run, self._response(call, created))

    async def _start(self, request: Request, call: ToolCall) -> Response:
        turn, place = await self._message(request, call)
        run = await self._turns.begin(request, turn, place, background=True)
        outcome = outcome_of_stored(await self._people.run(request, run.known_as))
        note = f"The agent works on it. Call {self._tools.get} with run_id {outcome.run_id} for the answer."
        result = tool_result(outcome, (), note if outcome.status in OPEN else "")
        return with_run(request, self._service, run, self._response(call, result))

    async def _message(self, request: Request, call: ToolCall) -> tuple[Turn, Place]:
        """Return the message of a call, and where it goes. Raises `ThreadNotFound` for a thread of somebody else."""
        arguments = chat_arguments(call.arguments)
        place = await self._turns.place(request, arguments.thread)
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

    async def _chat_again(self, request: Request, call: ToolCall) -> Response:
        """Go on with a call that waited for a person."""
        run = await self._run_of_state(request, call)
        newest = await self._asking.newest(run)
        if newest.run_id != run.run_id:  # it is answered: this request is a repetition, or somebody else has answered
            return await self._followed(request, call, run)
        answers = await self._entered(request, call, run)
        if isinstance(answers, Refused):
            return self._response(call, answers.result)
        turn = Turn("", answers=dict(answers), trace_context=call.trace_context)
        try:
            return await self._answered(request, call, turn, self._turns.place_of(request, run))
        except DomainError:
            newest = await self._asking.newest(run)
            if newest.run_id == run.run_id:
                raise
            return await self._followed(request, call, run)  # another request was faster

    async def _entered(self, request: Request, call: ToolCall, run: StoredRun) -> "Mapping[str, Any] | Refused":
        """Return the answers in a call to the questions of a run, or the result of the call if there are none."""
        outcome = outcome_of_stored(run)
        questions = await self._asking.open_questions(run)
        answerable = self._asking.answerable(request, run, questions)
        if not answerable:
            note = self._conclusions.note(request, run, questions)
            return Refused(await self._conclusions.result(request, call.client, outcome, questions, note))
        entered = self._asking.entered(answerable, call.inputs)
        if entered.again:
            requests = self._asking.requests(answerable, entered.again)
            return Refused(self._conclusions.input_required(request, call, run, requests, call.notified))
        if entered.declined:
            await self._asking.close(request, run, DECLINING)
            return Refused(await self._conclusions.result(request, call.client, outcome, (), DECLINED))
        if entered.dismissed:
            note = f"{DISMISSED} {self._conclusions.note(request, run, questions)}"
            return Refused(await self._conclusions.result(request, call.client, outcome, questions, note))
        return entered.answers

    async def _answered(self, request: Request, call: ToolCall, turn: Turn, place: Place) -> Response:
        """Begin the run of a call, and answer the call when the run has ended."""
        open_call = self._open_calls.open(request, call.client, call.id)
        run = await self._turns.begin(request, turn, place, watched=call.streams, stops=call.client.modern)
        open_call.run_id = run.known_as
        if open_call.cancelled:  # while the store accepted the message
            await self.cancel_open(request, open_call)
        on_left = None
        if call.client.modern:
            self._waiting.begin(run)
            on_left = partial(self._waiting.leave, run)
        if call.streams:
            chunks = self._stream(request, call, open_call).of_live(run)
            stream = EventStreamResponse(chunks if on_left is None else watch_leaving(chunks, run, on_left))
            return with_run(request, self._service, run, stream)
        try:
            outcome = outcome_of_result(await answer_of(request, run, on_left))
        except DomainError as error:
            if refusal(run) is not None:
                raise
            outcome = await self._conclusions.failed(request, run.known_as, error)
        result = await self._conclusions.conclude(request, call, outcome)
        return with_run(request, self._service, run, self._response(call, result))

    def _stream(self, request: Request, call: ToolCall, open_call: OpenCall) -> CallStream:
        return CallStream(self._conclusions, self._open_calls, request, call, open_call, self._form_wait)

    async def _followed(self, request: Request, call: ToolCall, asking: StoredRun) -> Response:
        """Answer a call when the runs have ended that answers to the questions of the run `asking` began."""
        newest = await self._asking.newest(asking)
        if newest.status in OPEN:
            live = self._waiting.join(newest.run_id)
            if call.streams:
                open_call = self._open_calls.open(request, call.client, call.id)
                chunks = self._stream(request, call, open_call).of_stored(newest)
                if live is not None:
                    chunks = watch_leaving(chunks, live, partial(self._waiting.leave, live))
                return EventStreamResponse(chunks)
            try:
                newest = await self._conclusions.end_of(newest)
            except asyncio.CancelledError:
                if live is not None:
                    self._waiting.leave(live)
                raise
        return self._response(call, await self._conclusions.conclude(request, call, outcome_of_stored(newest), newest))

    async def _get(self, request: Request, call: ToolCall) -> dict[str, Any]:
        """Return the state of a run, or of the newest run of a thread; after an answer, that of the run it began."""
        arguments = get_arguments(call.arguments)
        newest = await self._asking.newest(await self._named_run(request, arguments))
        if call.state is not None and newest.run_id == (await self._run_of_state(request, call)).run_id:
            answers = await self._entered(request, call, newest)
            if isinstance(answers, Refused):
                return answers.result
            begun = await self._turns.answer(request, newest, answers, call.trace_context)
            newest = await self._people.run(request, begun.known_as)
        if arguments.wait:
            with suppress(TimeoutError):
                async with asyncio.timeout(arguments.wait):
                    await self._settled(request, newest)
            newest = await self._asking.read_again(newest)
        if newest.status in OPEN:
            return tool_result(outcome_of_stored(newest), (), "The agent still works on it.")
        return await self._conclusions.conclude(request, call, outcome_of_stored(newest), newest)

    async def _settled(self, request: Request, run: StoredRun) -> None:
        """Wait until no run of a turn works any more, and none waits for the answer of somebody else."""
        while not self._service.draining:
            if run.status in OPEN:
                run = await self._conclusions.end_of(run)
                continue
            questions = await self._asking.open_questions(run)
            if self._asking.waits_for_others(request, run, questions) is None:
                return
            await self._asking.settled(run, questions)
            run = await self._asking.newest(run)

    async def _named_run(self, request: Request, arguments: GetArguments) -> StoredRun:
        if arguments.run_id is not None:
            return await self._run(request, arguments.run_id)
        place = await self._turns.place(request, arguments.thread)
        bound_to = admission_of(request).identity.contact_id
        thread = await self._service.store.find_thread(ThreadQuery(place.contact, tuple(place.selectors), bound_to))
        page = await self._lists.runs(admission_of(request), RECENT, None, RunFilter(thread_id=thread.thread_id))
        for listed in page.runs:
            with suppress(RunNotFound):
                return await self._people.run(request, listed.run_id)
        raise ThreadNotFound(thread.thread_id)

    async def _run(self, request: Request, text: str) -> StoredRun:
        run_id = run_of(text)
        if run_id is None:
            raise ArgumentsRefused(f"run_id: {shown(text)!r} is not the run_id of an earlier result")
        return await self._people.run(request, run_id)

    async def _cancel(self, request: Request, call: ToolCall) -> dict[str, Any]:
        """Cancel a run, or close the questions with which it ended."""
        run = await self._run(request, run_arguments(call.arguments).run_id)
        newest = await self._asking.newest(run)
        if newest.status not in OPEN and await self._asking.open_questions(newest):
            await self._asking.close(request, newest, CANCELLED)
            return tool_result(outcome_of_stored(newest), (), CLOSED)
        await self._people.cancel(request, newest.run_id)
        cancelled = outcome_of_stored(await self._people.run(request, newest.run_id))
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
            run = await self._people.run(request, state.run_id)
        except RunNotFound:
            raise refused from None
        if not self._states.is_valid(request, run, call.digest, state):
            raise refused
        return run

    def _response(self, call: ToolCall, result: Mapping[str, Any]) -> Response:
        return JSONResponse(result_body(call.id, self._conclusions.finished(call.client, result)))


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
