"""`SendMessage` and `SendStreamingMessage`: a message begins a run, or answers the question of a task."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, cast

import msgspec

from jimsapi.asgi import Request
from jimsapi.runs import Admission, LiveRun, RunService
from jimsapi.threads import ById, DomainError, Question, RunStatus
from jimsapi.wire import (
    TRANSIENT,
    AskedQuestion,
    Turn,
    begin_turn,
    failure,
    idempotency_key,
    note_run,
    refusal,
    spoken_items,
)
from jimsapi_a2a.contexts import Contexts, Place, context_of
from jimsapi_a2a.errors import UNSUPPORTED, A2AError, invalid
from jimsapi_a2a.params import Message, SendMessage, send_message
from jimsapi_a2a.parts import Content, content_of, message
from jimsapi_a2a.push import PushNotifications
from jimsapi_a2a.replies import Reply
from jimsapi_a2a.tasks import OPEN, REJECTED, SUBMITTED, TERMINAL, WORKING, Task, Tasks, now, reason_message, status
from jimsapi_a2a.updates import Updates, is_refused

ANSWER_WITHIN = 4.0
"""Seconds after which a blocking request sends the head of its response. The Python client gives up after 5 seconds of
silence."""


class Begun(msgspec.Struct, frozen=True):
    """A run that a message began. `task` is the task whose question the message answers; None if it begins one."""

    run: LiveRun
    body: SendMessage
    task: Task | None

    @property
    def history_length(self) -> int | None:
        """How many messages of the history the client wants."""
        return None if self.body.configuration is None else self.body.configuration.history_length


class Sending:
    """Answers messages."""

    def __init__(self, service: RunService, contexts: Contexts, tasks: Tasks, push: PushNotifications) -> None:
        self._service = service
        self._contexts = contexts
        self._tasks = tasks
        self._push = push

    async def send(self, request: Request, params: Any) -> Reply:
        """Answer a message with its task.

        It waits until the task ends or needs input, unless the client wants the answer at once. While it waits, the
        binding keeps the connection alive. If the client disconnects, the task goes on.
        """
        body = send_message(params)
        at_once = body.configuration is not None and bool(body.configuration.return_immediately)
        begun = await self._begin(request, body, background=at_once)
        run = begun.run
        if at_once:
            return Reply(await self._current(request, begun), run=run)
        await asyncio.wait((run.answer,), timeout=ANSWER_WITHIN)
        if run.answer.done():
            return Reply(await self._ended(request, begun), run=run)
        return Reply(later=partial(self._later, request, begun), run=run)

    async def stream(self, request: Request, params: Any) -> Reply:
        """Answer a message with the stream of its task."""
        body = send_message(params)
        begun = await self._begin(request, body, watched=True)
        run = begun.run
        if begun.task is None and run.known_as is run.run_id:
            shown = self._new_task(begun)
        else:
            shown = (await self._current(request, begun))["task"]
        state = shown["status"]["state"]
        if state not in OPEN:  # it was faster, or an earlier request was the same
            return Reply(events=only(shown), run=run)
        named = shown["id"], shown["contextId"], self._tasks.files, run.inbound.contact_id
        updates = Updates(request, *named, is_working=state == WORKING, run=run)
        return Reply(events=updates.of(shown, spoken_items(request, self._service, run)), run=run)

    async def _begin(
        self, request: Request, body: SendMessage, *, watched: bool = False, background: bool = False
    ) -> Begun:
        """Begin the run of a message, and wait until a thread has accepted it. Raises as `begin_turn` does."""
        sent = body.message
        content = content_of(sent.parts)
        task = None if sent.task_id is None else await self._tasks.find(request, sent.task_id)
        await self._push.check(request, body, task)
        metadata = _metadata(request, body, content)
        turn = Turn(
            content.message,
            metadata=metadata,
            files=content.files,
            file_ids=content.file_ids,
            key=_key(sent, sent.context_id if task is None else task.context_id, metadata),
            client_id=sent.message_id,
        )
        if task is None:
            place = await self._contexts.place(request, sent.context_id, turn)
        else:
            place = Place((ById(task.thread_id),), task.contact_id)
            turn = await self._answering(request, task, sent, content, turn)
        run = await begin_turn(
            request,
            self._service,
            self._contexts.names,
            turn,
            watched=watched,
            background=background,
            selectors=place.selectors,
            contact=place.contact,
        )
        if run.acceptance is not None:
            await asyncio.shield(run.acceptance)
        note_run(request, run)  # an earlier request may have been the same
        if (error := refusal(run)) is not None:
            raise error
        await self._push.begun(request, body, task.id if task is not None else str(run.known_as))
        return Begun(run, body, task)

    async def _answering(self, request: Request, task: Task, sent: Message, content: Content, turn: Turn) -> Turn:
        """Return the turn with which a message answers the questions of a task.

        Raises `A2AError` if the task waits for no input, unless an earlier request with the same message has answered.
        """
        if sent.context_id not in (None, task.context_id):
            text = f"The task {task.id} belongs to the context {task.context_id!r}"
            raise invalid("message.contextId", text)
        key = idempotency_key(request) or turn.key or ""
        asked = [one.question for one in task.asked if one.is_open]
        repeated = await self._answered_before(request, task, key)
        if not (repeated or asked):
            raise _cannot_continue(task)
        answers, is_text = _answers(repeated or asked, content)
        # A text that is the answer is not a message of its own, too.
        text = "" if is_text or not content.texts else content.text
        return msgspec.structs.replace(turn, message=text, answers=answers)

    async def _answered_before(self, request: Request, task: Task, key: str) -> list[Question]:
        """Return the questions that an earlier request with this idempotency key has answered."""
        found: list[AskedQuestion] = []
        for run in task.runs:
            if run.status is RunStatus.COMPLETED:
                found += await self._tasks.turns.questions(run)
        admission = cast(Admission, request.admission)
        return [one.question for one in found if one.was_answered_by(admission, task.contact_id or "", key)]

    def _new_task(self, begun: Begun) -> dict[str, Any]:
        """Return the task that a run of this process has just begun, without reading it."""
        run, sent = begun.run, begun.body.message
        assert run.thread is not None  # a thread has accepted the message
        task_id, context_id = str(run.run_id), context_of(run.thread)
        state = SUBMITTED if run.status is RunStatus.QUEUED else WORKING
        shown = {"id": task_id, "contextId": context_id, "status": status(state, now()), "artifacts": []}
        if begun.history_length == 0:
            return shown
        parts = [msgspec.to_builtins(part) for part in sent.parts]
        shown_parts = [{name: value for name, value in part.items() if value is not None} for part in parts]
        said = message(sent.message_id, sent.role, shown_parts, taskId=task_id, contextId=context_id)
        return {**shown, "history": [said]}

    async def _current(self, request: Request, begun: Begun) -> dict[str, Any]:
        """Return the task of a run as the store has it."""
        task = await self._task_of(request, begun)
        return {"task": await self._tasks.show(request, task, begun.history_length)}

    async def _task_of(self, request: Request, begun: Begun) -> Task:
        if begun.task is not None:
            return await self._tasks.find(request, begun.task.id)
        if begun.run.known_as is begun.run.run_id:  # it answers no question, so it is the first of its task
            return await self._tasks.begun_by(request, await self._service.store.run(begun.run.run_id, None, None))
        return await self._tasks.of_run(request, begun.run.known_as)

    async def _ended(self, request: Request, begun: Begun) -> dict[str, Any]:
        """Wait until a run ends, and return its task.

        Raises a `DomainError` if it is not known how the run ends.
        """
        run = begun.run
        try:
            await run.wait_for_answer()
        except TRANSIENT:
            raise
        except DomainError as error:
            reply = await self._current(request, begun)
            if is_refused(run, error):
                task = reply["task"]
                _, text = failure(request, error)
                task["status"] = status(REJECTED, now(), reason_message(task["id"], task["contextId"], text))
            return reply
        return await self._current(request, begun)

    async def _later(self, request: Request, begun: Begun) -> dict[str, Any]:
        """Return the same when the head of the response was sent, so that no error can be answered any more."""
        try:
            return await self._ended(request, begun)
        except DomainError:
            run = begun.run
            if run.thread is None:
                raise
            context_id = context_of(run.thread)
            task_id = str(run.known_as) if begun.task is None else begun.task.id
            return {"task": {"id": task_id, "contextId": context_id, "status": status(WORKING, now())}}


async def only(task: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    """Yield a task, as the whole of a stream."""
    yield {"task": task}


def _key(sent: Message, context_id: str | None, metadata: Mapping[str, Any]) -> str:
    """Return the idempotency key of a message. Its identifier is unique within a context.

    A message without a context begins one, so there is no other message yet that could have its identifier. Then the
    content is a part of the key: only a message that is sent again, with all of it, is the same.
    """
    digest = sha256(sent.message_id.encode())
    if context_id is None:
        digest.update(b"\0" + msgspec.json.encode((sent.parts, metadata), order="deterministic"))
    else:
        digest.update(b"\1" + context_id.encode())
    return f"a2a-{digest.hexdigest()}"


def _metadata(request: Request, body: SendMessage, content: Content) -> dict[str, Any]:
    """Return what the pipeline reads as `ctx.metadata`, by the names of A2A."""
    sent = body.message
    configuration = body.configuration
    found = {
        "metadata": {**(body.metadata or {}), **(sent.metadata or {})},
        "data": list(content.data),
        "extensions": list(dict.fromkeys([*_wanted_extensions(request), *(sent.extensions or ())])),
        "referenceTaskIds": sent.reference_task_ids,
        "acceptedOutputModes": None if configuration is None else configuration.accepted_output_modes,
    }
    return {name: value for name, value in found.items() if value}


def _wanted_extensions(request: Request) -> list[str]:
    """Return the extensions that a client wants to use (specification, section 3.2.6)."""
    values = request.headers.getlist("a2a-extensions")
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def _cannot_continue(task: Task) -> A2AError:
    if task.state in TERMINAL:
        text = f"The task {task.id} has ended ({task.state}): leave taskId out, and send its contextId to continue"
    else:
        text = f"The task {task.id} is being worked on ({task.state}) and waits for no input"
    return A2AError(UNSUPPORTED, text, metadata={"taskId": task.id, "state": task.state})


def _answers(questions: Sequence[Question], content: Content) -> tuple[dict[str, Any], bool]:
    """Return the answers by the identifiers of the questions, and whether the text of the message is the answer.

    Raises `A2AError` if the message is no answer.
    """
    if len(questions) == 1:
        [question] = questions
        for value in content.data:
            if question.fault_of(value) is None:
                return {str(question.question_id): value}, False
    by_key = _by_key(questions, content.data)
    if by_key:
        return by_key, False
    if len(questions) > 1:
        keys = ", ".join(question.key for question in questions)
        raise invalid("message.parts", f"Answer with a data part that is an object with one or more of: {keys}")
    [question] = questions
    value = question.answer_in(content.text)
    fault = question.fault_of(value)
    if fault is not None and (content.files or content.file_ids) and question.fault_of("") is None:
        return {str(question.question_id): ""}, True  # a file is the answer
    if fault is not None:
        raise invalid("message.parts", f"This does not answer the question {question.key!r}: {fault}")
    return {str(question.question_id): value}, True


def _by_key(questions: Sequence[Question], data: Sequence[Any]) -> dict[str, Any]:
    """Return the answers in objects that have them by the keys of the questions. Raises `A2AError` for a wrong one."""
    answers: dict[str, Any] = {}
    for value in data:
        if not isinstance(value, Mapping):
            continue
        for question in questions:
            if question.key not in value:
                continue
            fault = question.fault_of(value[question.key])
            if fault is not None:
                raise invalid("message.parts", f"This does not answer the question {question.key!r}: {fault}")
            answers[str(question.question_id)] = value[question.key]
    return answers
