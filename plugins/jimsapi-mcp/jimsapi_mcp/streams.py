"""A call as a stream of events: progress, forms for a person in earlier versions, and the response."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime

from jimsapi.asgi import Request
from jimsapi.runs import LiveRun
from jimsapi.threads import DomainError, Question, StoredRun
from jimsapi.wire import Failed, Finished, failure, spoken_items, spoken_stored_run
from jimsapi_mcp.asking import CLOSED, DECLINED, DECLINING, DISMISSED, form_params
from jimsapi_mcp.conclusions import Conclusions
from jimsapi_mcp.messages import INTERNAL_ERROR, RpcError, error_event, notification_event, request_event, result_event
from jimsapi_mcp.progress import HEARTBEAT, Progress, Spoken, notified
from jimsapi_mcp.results import Outcome, outcome_of_result
from jimsapi_mcp.sessions import FormResponse, OpenCall, OpenCalls, Reaction, TooManyForms, deliver, person_of
from jimsapi_mcp.tool_call import ToolCall
from jimsapi_mcp.waiting import ThreadWatch

logger = logging.getLogger("jimsapi.mcp")

MOST_FORMS = 8
"""How often one question is asked if the responses are not answers."""
TOO_MANY = "The question is not shown as a form, because too many forms are open."


class CallStream:
    """The events of one call. A form waits up to `form_wait` seconds for its response."""

    def __init__(
        self,
        conclusions: Conclusions,
        open_calls: OpenCalls,
        request: Request,
        call: ToolCall,
        open_call: OpenCall,
        form_wait: float,
    ) -> None:
        self._conclusions = conclusions
        self._service = conclusions.service
        self._asking = conclusions.asking
        self._open_calls = open_calls
        self._request = request
        self._call = call
        self._open_call = open_call
        self._form_wait = form_wait
        self._progress = None if call.token is None else Progress(call.token, call.notified)
        self._stored: StoredRun | None = None
        """The run that another request has begun, as it was when this call began to read it."""
        self._next: StoredRun | None = None
        self._note = ""
        self._refused = False

    def of_live(self, run: LiveRun) -> AsyncGenerator[bytes, None]:
        """Yield the events of a call, for which this process has begun a run."""
        return self._guarded(self._events(spoken_items(self._request, self._service, run)))

    def of_stored(self, run: StoredRun) -> AsyncGenerator[bytes, None]:
        """Yield the events of a call whose run another request has begun."""
        self._follow(run)
        return self._guarded(self._events(spoken_stored_run(self._service, run)))

    async def _guarded(self, events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Yield the events, and an error as the response if they cannot go on: the stream has begun."""
        async with aclosing(events):
            try:
                async for event in events:
                    yield event
            except DomainError as error:
                status, text = failure(self._request, error)
                yield error_event(self._call.id, RpcError(INTERNAL_ERROR if status == 500 else status, text))
            except Exception:
                logger.exception("a call of a tool failed inside the server")
                yield error_event(self._call.id, RpcError(INTERNAL_ERROR, "Internal Server Error"))

    async def _events(self, items: AsyncIterator[Spoken]) -> AsyncGenerator[bytes, None]:
        while True:
            outcome: Outcome | None = None
            async with aclosing(notified(items, self._progress)) as parts:
                async for part in parts:
                    if isinstance(part, bytes):
                        yield part
                    else:
                        outcome = await self._outcome(part)
            if self._is_cancelled() or outcome is None:  # a cancelled request gets no response
                return
            async for event in self._forms(outcome):
                yield event
            if self._is_cancelled():
                return
            following = self._take_next()
            if following is None:
                yield await self._response(outcome)
                return
            self._follow(following)
            items = spoken_stored_run(self._service, following)

    def _is_cancelled(self) -> bool:
        return self._open_call.cancelled

    def _take_next(self) -> StoredRun | None:
        """Return the run with which the call goes on, once; None if it ends."""
        following, self._next = self._next, None
        return following

    def _follow(self, run: StoredRun) -> None:
        self._stored = run
        self._open_call.run_id = run.run_id

    async def _run(self, outcome: Outcome) -> StoredRun:
        """Return the run of the call as it is stored now."""
        if self._stored is None:
            return await self._conclusions.people.run(self._request, outcome.run_id)
        return await self._service.store.run(outcome.run_id, None, None)

    async def _outcome(self, last: Finished | Failed) -> Outcome | None:
        """Return the outcome of a run from its last item."""
        if isinstance(last, Finished):
            return outcome_of_result(last.result)
        run_id = self._open_call.run_id
        if run_id is None:
            return None
        stored = None if self._stored is None else await self._service.store.run(run_id, None, None)
        return await self._conclusions.failed(self._request, run_id, last.error, stored)

    async def _response(self, outcome: Outcome) -> bytes:
        run = await self._run(outcome) if outcome.asked else None
        if self._note and run is not None:
            questions = await self._asking.open_questions(run)
            how_to_go_on = self._conclusions.note(self._request, run, questions) if questions else ""
            note = f"{self._note} {how_to_go_on}".strip()
            result = await self._conclusions.result(self._request, self._call.client, outcome, questions, note)
            if self._refused:
                result["isError"] = True
        else:
            notified = 0 if self._progress is None else self._progress.number
            result = await self._conclusions.conclude(self._request, self._call, outcome, run, notified)
        return result_event(self._call.id, self._conclusions.finished(self._call.client, result))

    async def _forms(self, outcome: Outcome) -> AsyncGenerator[bytes, None]:
        """Ask the person the questions of a run, in versions in which a server sends requests.

        Afterwards `_next` is the run that the answer has begun, or `_note` says why there is none.
        """
        client, asking = self._call.client, self._asking
        if client.modern or not client.elicits or not outcome.asked:
            return
        run = await self._run(outcome)
        now = asyncio.get_running_loop().time
        person = person_of(self._request, client, run.contact_id)
        ends_at = now() + self._form_wait
        fault: str | None = None
        for _ in range(MOST_FORMS):
            before = await asking.open_questions(run)
            questions = asking.answerable(self._request, run, before)
            if not questions:
                break
            form_id = asking.form_id(self._request, run, questions[0])
            try:
                with self._open_calls.showing(self._open_call, form_id, person) as response:
                    yield request_event(form_id, "elicitation/create", form_params(questions[0], fault))
                    until = min(ends_at, now() + _seconds_left(questions[0]))
                    async for heartbeat in self._wait(run, before, form_id, response, until):
                        yield heartbeat
            except TooManyForms:
                self._note, self._refused = TOO_MANY, True
                break
            if not response.done():
                reason = "The question needs no answer any more" if now() < ends_at else "The call has waited too long"
                yield notification_event("notifications/cancelled", {"requestId": form_id, "reason": reason})
                break
            if response.result().reaction is not Reaction.INVALID:
                self._react(response.result())
                break
            fault = response.result().text
        newest = await asking.newest(run)
        if newest.run_id != run.run_id:
            self._next = newest
        elif not self._note and not await asking.open_questions(run):
            self._note = DECLINED if await asking.closed_by(run) == DECLINING else CLOSED
        elif not self._note and now() >= ends_at:
            self._note = f"The person has not answered within {self._form_wait:g} seconds."

    async def _wait(
        self,
        run: StoredRun,
        before: Sequence[Question],
        form_id: str,
        response: asyncio.Future[FormResponse],
        until: float,
    ) -> AsyncGenerator[bytes, None]:
        """Wait until a form has a response, or needs none any more, or it is `until`. Yields signs of life.

        `before` are the questions that were open before the form was shown.
        """
        now = asyncio.get_running_loop().time
        call, due = self._open_call, now() + HEARTBEAT
        with ThreadWatch(self._service, run.thread_id, call.news) as watch:
            while not (response.done() or self._service.draining) and now() < until:
                is_time_to_read = await watch.tick(until - now())
                if self._progress is not None and now() >= due:
                    due = now() + HEARTBEAT
                    yield self._progress.heartbeat()
                if response.done() or call.received or not is_time_to_read:  # received: what it says is on its way
                    continue
                elsewhere = await self._asking.passed_on(run, form_id)
                if elsewhere is not None:
                    deliver(call, elsewhere)
                elif await self._asking.open_questions(run) != before:
                    return

    def _react(self, response: FormResponse) -> None:
        match response.reaction:
            case Reaction.DECLINED:
                self._note = DECLINED
            case Reaction.DISMISSED:
                self._note = DISMISSED
            case Reaction.REFUSED:
                self._note, self._refused = response.text, True
            case _:
                pass


def _seconds_left(question: Question) -> float:
    """Return the seconds until a question expires."""
    expires_at = question.expires_at
    return float("inf") if expires_at is None else (expires_at - datetime.now(UTC)).total_seconds()
