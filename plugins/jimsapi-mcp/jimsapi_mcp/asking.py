"""Questions of a run as requests for input, and what a person has entered as answers."""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec
import orjson

from jimsapi.asgi import Request
from jimsapi.runs import RunService
from jimsapi.threads import Event, IdentifierTaken, Question, StoredRun, derived_id
from jimsapi.wire import TurnRuns, event_data_json
from jimsapi_mcp.forms import answer_in, form_of
from jimsapi_mcp.people import People, admission_of
from jimsapi_mcp.sessions import FormResponse
from jimsapi_mcp.states import States, read_state
from jimsapi_mcp.waiting import ThreadWatch

_SCOPE, _CONTACT = "scope:", "contact:"
"""The beginnings of `Question.answerable_by`."""
MESSAGE_CLIENT_ID = "message.client_id"
FORM_RESPONSE = "jims.mcp.form_response"
"""`{"reaction", "text"}`: a response to a form that is not an answer, for the process in which the call waits."""
DECLINED = "The person declined to answer."
DISMISSED = "The person has not answered yet."
CLOSED = "The question is closed."
DECLINING, CANCELLED = "declined", "cancelled"
"""Why a question is closed."""


class Entered(msgspec.Struct, frozen=True):
    """What a person has done with the questions of a run.

    `answers` are those by the questions' identifiers. `again` has the questions to ask again, each with the reason; it
    is empty if there was no response at all.
    """

    answers: Mapping[str, Any] = {}
    again: Mapping[UUID, str] = {}
    declined: bool = False
    dismissed: bool = False


class Asking:
    """Asks persons the questions of runs."""

    def __init__(self, service: RunService, people: People, states: States) -> None:
        self._service = service
        self._people = people
        self._states = states
        self._turns = TurnRuns(service)

    async def open_questions(self, run: StoredRun) -> list[Question]:
        """Return those of the questions of a run that are open."""
        return [asked.question for asked in await self._turns.questions(run) if asked.is_open]

    async def newest(self, run: StoredRun) -> StoredRun:
        """Return the newest run of the turn of a run: the run itself, until a question of it is answered."""
        return (await self._turns.following(run))[-1]

    async def read_again(self, run: StoredRun) -> StoredRun:
        """Return the newest run of the turn of a run that may have ended since it was read."""
        return await self.newest(await self._service.store.run(run.run_id, None, None))

    async def close(self, request: Request, run: StoredRun, reason: str) -> None:
        """Close the open questions of a run: nobody is asked them again."""
        await self._turns.close(run, await self._turns.questions(run), admission_of(request), reason)

    async def closed_by(self, run: StoredRun) -> str | None:
        """Return why a question of a run is closed; None if none is."""
        for asked in await self._turns.questions(run):
            if asked.closing is not None:
                data = orjson.loads(event_data_json(asked.closing.data))
                return data.get("reason") if isinstance(data, dict) else None
        return None

    async def client_id(self, run: StoredRun) -> str | None:
        """Return the identifier that the client gave to the message of a run; None if it has none, or waits."""
        for row in await self._turns.message_rows(run):
            if row.event_type == MESSAGE_CLIENT_ID:
                data = orjson.loads(event_data_json(row.data))
                return data.get("client_id") if isinstance(data, dict) else None
        return None

    def answerable(self, request: Request, run: StoredRun, questions: Sequence[Question]) -> list[Question]:
        """Return those of some questions that the caller may answer."""
        return [question for question in questions if self._may_answer(request, run, question)]

    def waits_for_others(self, request: Request, run: StoredRun, questions: Sequence[Question]) -> str | None:
        """Return what says for whom a run waits; None if the caller may answer one of the questions, or there are none.

        It does not name other contacts.
        """
        if not questions or self.answerable(request, run, questions):
            return None
        others = dict.fromkeys(_addressee(question) for question in questions)
        return f"The agent waits for the answer of somebody else: {' and '.join(others)}."

    async def settled(self, run: StoredRun, before: Sequence[Question]) -> None:
        """Wait until one of the open questions of a run is answered or closed, or the server shuts down.

        `before` are the questions that were open when the caller read them.
        """
        with ThreadWatch(self._service, run.thread_id) as watch:
            while not self._service.draining:
                if await watch.tick() and await self.open_questions(run) != before:
                    return

    def requests(self, questions: Sequence[Question], again: Mapping[UUID, str] | None = None) -> dict[str, Any]:
        """Return the requests for input, by the questions' identifiers. `again` says why some are asked once more."""
        return {
            str(question.question_id): {
                "method": "elicitation/create",
                "params": form_params(question, (again or {}).get(question.question_id)),
            }
            for question in questions
        }

    def entered(self, questions: Sequence[Question], responses: Mapping[str, Any]) -> Entered:
        """Return what a person has done with some questions. Responses to other questions are ignored."""
        answers: dict[str, Any] = {}
        again: dict[UUID, str] = {}
        actions: set[Any] = set()
        for question in questions:
            response = responses.get(str(question.question_id))
            action = response.get("action") if isinstance(response, Mapping) else None
            actions.add(action if isinstance(action, str) else None)
            if isinstance(response, Mapping) and action == "accept":
                answer, fault = answer_in(question, response.get("content"))
                if fault is None:
                    answers[str(question.question_id)] = answer
                else:
                    again[question.question_id] = fault
            elif action not in ("decline", "cancel"):
                again[question.question_id] = ""
        if again and actions.isdisjoint(("decline", "cancel")):
            return Entered(again=again)
        return Entered(answers, declined="decline" in actions, dismissed="cancel" in actions)

    def form_id(self, request: Request, run: StoredRun, question: Question) -> str:
        """Return the identifier of a request for input that the server sends to an earlier client.

        Its response may reach another process. So it says what was asked, and is signed as a state is.
        """
        asked = f"{question.question_id.hex}.{secrets.token_hex(8)}"
        return f"{self._states.sign(request, run, asked)}.{asked}"

    async def asked_by(self, request: Request, form_id: str) -> tuple[StoredRun, Question | None] | None:
        """Return the run and the question of a request for input; None if no such request was sent to this caller.

        The question is None if it is not open any more. Raises `RunNotFound`.
        """
        head, _, nonce = form_id.rpartition(".")
        text, _, question_id = head.rpartition(".")
        state = read_state(text)
        if state is None:
            return None
        run = await self._people.run(request, state.run_id)
        if not self._states.is_valid(request, run, f"{question_id}.{nonce}", state):
            return None
        found = [one for one in await self.open_questions(run) if one.question_id.hex == question_id]
        return run, found[0] if found else None

    async def pass_on(self, request: Request, run: StoredRun, form_id: str, response: FormResponse) -> None:
        """Store a response that is not an answer, for the process in which the call waits that showed the form."""
        data = {"reaction": response.reaction.value, "text": response.text}
        event = Event(event_type=FORM_RESPONSE, event_data=data, event_id=_response_id(form_id))
        with suppress(IdentifierTaken):
            await self._service.append(run.thread_id, [event], admission_of(request))

    async def passed_on(self, run: StoredRun, form_id: str) -> FormResponse | None:
        """Return the response to a form that another process has stored; None if there is none."""
        for row in await self._service.store.events_by_id(run.thread_id, [_response_id(form_id)]):
            if row.event_type == FORM_RESPONSE:
                return msgspec.json.decode(event_data_json(row.data), type=FormResponse)
        return None

    def _may_answer(self, request: Request, run: StoredRun, question: Question) -> bool:
        wanted = question.answerable_by
        if wanted is None:
            return True
        if wanted.startswith(_SCOPE):
            return admission_of(request).identity.may(wanted.removeprefix(_SCOPE))
        return wanted == f"{_CONTACT}{self._people.contact_of(request, run.contact_id)}"


def _addressee(question: Question) -> str:
    """Return who may answer a question that is for somebody else. The name of a contact is that contact's own."""
    wanted = question.answerable_by or ""
    if wanted.startswith(_SCOPE):
        return f"a caller with the scope {wanted.removeprefix(_SCOPE)!r}"
    return "another contact"


def _response_id(form_id: str) -> UUID:
    return derived_id("mcp form response", form_id)


def form_params(question: Question, fault: str | None = None) -> dict[str, Any]:
    """Return the parameters of `elicitation/create` for a question. `fault` says why the last answer was none."""
    message = f"{question.text}\n\n{fault}" if fault else question.text
    return {"mode": "form", "message": message, "requestedSchema": form_of(question)}
