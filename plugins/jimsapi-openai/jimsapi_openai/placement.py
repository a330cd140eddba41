"""Which thread a response belongs to: that of a conversation, of an earlier response, of a question, or a new one."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec
import orjson

from jimsapi.asgi import HTTPError, Request
from jimsapi.runs import (
    THREADS,
    Admission,
    LiveRun,
    Runs,
    RunService,
    ScopeMissing,
    ThreadService,
    storable_json,
)
from jimsapi.threads import (
    THREAD_CREATED,
    ById,
    Event,
    ForkPlan,
    New,
    NewEvent,
    Question,
    RunNotFound,
    RunStatus,
    Selector,
    StoredRun,
    ThreadNotFound,
    ThreadPlan,
    ThreadRecord,
    derived_id,
    row_id,
    uuid7,
)
from jimsapi.wire import PersonAsked, ThreadNames, Turn, approving_option, begin_turn, event_data_json, stored_items
from jimsapi_openai.conversations import last_event_of
from jimsapi_openai.ids import question_of, run_of, thread_of
from jimsapi_openai.inputs import (
    Approval,
    Input,
    Message,
    ResponseRequest,
    conversation_of,
    earlier_events,
    refused,
)
from jimsapi_openai.requests import is_task


class Place(msgspec.Struct, frozen=True):
    """Where a message goes: the thread `makes`, which is made for it; without one, the thread that `selectors` find.

    `selectors` are the same each time that a request is repeated, and others for a request that names another place: by
    them, a key of requests is found to be used for two. `contact` is None if the request names it. `ignored` are the
    places of items in the body that have no effect there.
    """

    selectors: Sequence[Selector]
    contact: str | None = None
    makes: ForkPlan | ThreadPlan | None = None
    ignored: Sequence[str] = ()
    is_new: bool = True


class Placement:
    """Begins the runs of responses, each in the thread that its request names."""

    def __init__(self, service: RunService, names: ThreadNames) -> None:
        self._service = service
        self._names = names
        self._runs = Runs(service)
        self._threads = ThreadService(service)
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def begin(
        self, request: Request, body: ResponseRequest, said: Input, key: str | None
    ) -> tuple[LiveRun, Sequence[str]]:
        """Begin the run of a response, and return it with the places of items in the body that have no effect.

        `key` is the idempotency key of the request.

        Raises as `begin_turn` does, and `HTTPError` or `ValidationError` if the request names a thread, a response or a
        question that does not exist, that the caller may not see, or that cannot be continued now.
        """
        if body.store is False or is_task(request, said.all_new().text):
            return await self._begin_once(request, body, said)
        conversation = conversation_of(body)
        if body.previous_response_id:
            previous = await self.stored_run(request, body.previous_response_id, "previous_response_id")
            if not said.approvals:  # an approval goes to the question itself, and not to that of a fork: it counts once
                lock = self._locks.setdefault(previous.thread_id, asyncio.Lock())
                async with lock:  # of two messages after the same response, the second one sees the first
                    return await self._begin(request, body, said, await self._after(request, previous), key)
        if conversation is not None:
            thread = await self.thread(request, conversation)
            place = Place((ById(thread.thread_id),), thread.contact_id, is_new=False)
        elif said.approvals:
            place = await self._of_question(request, said.approvals[0])
        else:
            place = self._named_or_new(request, body, said, key)
        return await self._begin(request, body, said, place, key)

    async def stored_run(self, request: Request, response_id: str, field: str | None = None) -> StoredRun:
        """Return the run of a response. Raises `HTTPError` 404 if the caller may not see it."""
        run_id = run_of(response_id)
        try:
            if run_id is not None:
                run = await self._runs.run(_admission(request), run_id)
                self._check_person(request, run.contact_id)
                if run.contact_id is not None:
                    request.person = run.contact_id
                return run
        except (RunNotFound, ThreadNotFound):
            pass
        named = "" if field is None else f"{field}: "
        raise HTTPError(404, f"{named}There is no response {response_id[:100]!r}")

    async def thread(self, request: Request, conversation_id: str) -> ThreadRecord:
        """Return the thread of a conversation. Raises `HTTPError` 404 if the caller may not see it."""
        thread_id = thread_of(conversation_id)
        try:
            if thread_id is not None:
                thread = await self._threads.thread(_admission(request).identity, thread_id)
                self._check_person(request, thread.contact_id)
                return thread
        except ThreadNotFound:
            pass
        raise HTTPError(404, f"There is no conversation {conversation_id[:100]!r}")

    def _check_person(self, request: Request, contact_id: str | None) -> None:
        """Raise `ThreadNotFound` if a header of the request names another person than that of a thread."""
        header = self._names.contact_header
        named = request.headers.getlist(header) if header is not None else []
        if _admission(request).identity.contact_id is None and any(name and name != contact_id for name in named):
            raise ThreadNotFound

    async def _begin(
        self, request: Request, body: ResponseRequest, said: Input, place: Place, key: str | None
    ) -> tuple[LiveRun, Sequence[str]]:
        message = said.messages[-1] if place.is_new and said.messages else said.all_new()
        answers, ignored = await self._answers(request, said.approvals)
        turn = msgspec.structs.replace(_turn(body, message, key), answers=answers or None)
        run = await begin_turn(
            request,
            self._service,
            self._names,
            turn,
            watched=bool(body.stream) or not body.background,
            background=bool(body.background),
            selectors=place.selectors,
            makes=place.makes,
            contact=place.contact,
        )
        return run, [*place.ignored, *ignored]

    async def _begin_once(self, request: Request, body: ResponseRequest, said: Input) -> tuple[LiveRun, Sequence[str]]:
        """Begin a run outside of every thread, of which nothing is stored."""
        if said.approvals:
            raise refused("store", "With an approval the response is stored: omit store")
        events, ignored = earlier_events(said)
        self._check_history(request, len(events))
        turn = msgspec.structs.replace(_turn(body, said.messages[-1], None), once=True)
        return await begin_turn(request, self._service, self._names, turn, history=_stored(events)), ignored

    def _named_or_new(self, request: Request, body: ResponseRequest, said: Input, key: str | None) -> Place:
        turn = _turn(body, said.messages[-1], key)
        contact = self._names.contact(request, turn)
        named = self._names.selectors(request, turn, contact)
        if named is not None:
            return Place(named, contact, is_new=False)
        events, ignored = earlier_events(said)
        if not events:
            return Place((New(),), contact, ignored=ignored)
        self._check_history(request, len(events))
        earlier = _stored(events)
        plan = ThreadPlan(
            thread_id=uuid7(),
            contact_id=contact,
            events=(NewEvent(uuid7(), THREAD_CREATED, b"{}"), *earlier),
            thread_config=storable_json("thread_config", {"interface": self._names.protocol}),
        )
        texts = (f"{event.event_type} {event.data.decode()}" for event in earlier)
        return Place((New(), _distinguishing(derived_id("input", *texts))), contact, plan, ignored)

    def _check_history(self, request: Request, count: int) -> None:
        """Raise `ScopeMissing` if the caller may not add items to threads. The pipeline takes them for its own."""
        if count and not _admission(request).identity.may(THREADS):
            raise ScopeMissing(THREADS)

    async def _after(self, request: Request, run: StoredRun) -> Place:
        """Return the place after a run: its thread if no message followed, else a fork of it."""
        if run.status in (RunStatus.QUEUED, RunStatus.RUNNING):
            text = "previous_response_id: The response is still in progress; wait for it or cancel it"
            raise HTTPError(409, text, {"retry-after": "1"})
        last, is_newest = await last_event_of(self._service, run)
        fork: ForkPlan | None = None
        if last is not None and not is_newest:
            fork = await self._service.plan_fork(run.thread_id, _admission(request).identity.contact_id, last)
        return Place((ById(run.thread_id), _distinguishing(run.run_id)), run.contact_id, fork, is_new=False)

    async def _of_question(self, request: Request, approval: Approval) -> Place:
        thread, _ = await self._question(request, approval)
        return Place((ById(thread.thread_id),), thread.contact_id, is_new=False)

    async def _answers(self, request: Request, approvals: Sequence[Approval]) -> tuple[dict[str, Any], list[str]]:
        """Return the answers to questions, and the places of reasons that are no answers."""
        answers: dict[str, Any] = {}
        ignored: list[str] = []
        for approval in approvals:
            _, question = await self._question(request, approval)
            typed = _typed(question, approval.reason)
            answers[str(question.question_id)] = _approved(question, approval) if typed is None else typed
            if typed is None and approval.reason:
                ignored.append(f"{approval.place}.reason")
        return answers, ignored

    async def _question(self, request: Request, approval: Approval) -> tuple[ThreadRecord, Question]:
        found = question_of(approval.request_id)
        if found is not None:
            thread_id, question_id = found
            thread = await self.thread(request, f"conv_{thread_id.hex}")
            rows = await self._service.store.events_by_id(thread_id, [question_id])
            asked = [NewEvent(row_id(row), row.event_type, event_data_json(row.data)) for row in rows]
            for item in stored_items(asked):
                if isinstance(item, PersonAsked):
                    return thread, item.question
        raise HTTPError(404, f"There is no request for approval {approval.request_id[:100]!r}")


def _turn(body: ResponseRequest, message: Message, key: str | None) -> Turn:
    return Turn(
        message.text,
        user=body.user or body.safety_identifier or None,
        metadata=body.metadata,
        files=message.files,
        file_ids=message.file_ids,
        answers_in_text=True,
        key=key,
    )


def _typed(question: Question, reason: str) -> Any:
    """Return the answer that the reason of an approval is; None if it is none, or no JSON value."""
    value = question.answer_in(reason) if reason else None
    is_json = isinstance(value, str | int | float | list | dict)
    return value if is_json and question.fault_of(value) is None else None


def _approved(question: Question, approval: Approval) -> Any:
    """Return the answer that stands for yes or for no. Raises `ValidationError` if the question has none."""
    option = approving_option(question.options or (), approved=approval.approve)
    if option is not None:
        return option
    if question.options is None and question.schema is not None and question.fault_of(approval.approve) is None:
        return approval.approve
    text = f"The question {question.key!r} is not answered by yes or no: send the answer as reason, or as a message"
    raise refused(approval.place, text)


def _distinguishing(named: UUID) -> Selector:
    """Return a selector that finds no thread. It distinguishes requests that name different things, as `Place` says."""
    return ById(named)


def _stored(events: Sequence[Event]) -> list[NewEvent]:
    return [NewEvent(event.event_id, event.event_type, orjson.dumps(event.event_data)) for event in events]


def _admission(request: Request) -> Admission:
    return cast(Admission, request.admission)
