"""The context of a pipeline: it reads the thread and sends events. Compatible with jims-core's, except for `llm`."""

import asyncio
import dataclasses
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from decimal import Decimal
from functools import cached_property, partial, wraps
from inspect import isawaitable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar
from uuid import UUID

import msgspec
import orjson

from jimsapi.threads.activity import (
    ANSWER_SOURCE,
    CANCELLED,
    MODEL_REASONING,
    MODEL_USAGE,
    ActivityObserver,
    ToolCall,
    notify,
    source_data,
    usage_data,
)
from jimsapi.threads.asking import Asking, TestStore, check_key, make_question
from jimsapi.threads.bridge import Bridge, Done, start
from jimsapi.threads.errors import RunClosed, UnstorableEvent
from jimsapi.threads.event import (
    ASSISTANT_MESSAGE,
    ASSISTANT_MESSAGE_WITH_BUTTONS,
    MESSAGE_METADATA,
    STATE_PREFIX,
    USER_MESSAGE,
    Event,
    EventRow,
    NewEvent,
    beside_message,
    decode_row,
    id_beside,
)
from jimsapi.threads.identity import Identity
from jimsapi.threads.ids import uuid7
from jimsapi.threads.message_files import (
    MAX_FILES,
    MESSAGE_FILES,
    FileFacts,
    FileKeeper,
    FileReader,
    FilesInMemory,
    MessageFile,
    SentFile,
    files_by_message,
    files_data,
    keep_file,
    sent_file,
)
from jimsapi.threads.questions import TurnStore, answers_beside
from jimsapi.threads.storable import Unstorable, dump_storable, load_stored, storable_text
from jimsapi.threads.trace_context import TraceContext

LoadEvents = Callable[[UUID, Event | None, int], Awaitable[Sequence[EventRow]]]
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class StatusEvent(msgspec.Struct, frozen=True):
    """The progress of a pipeline: `message` is for people, and `status_type` is a stable identifier for programs."""

    message: str
    status_type: str


class StatusUpdater(Protocol):
    """Receives the statuses of a pipeline."""

    async def update_status(self, status: StatusEvent | str) -> None: ...


class LiveOutput(StatusUpdater, Protocol):
    """Receives what a watched run sends while its pipeline works."""

    def send_delta(self, message_id: UUID, content: str) -> None:
        """Send the next piece of a message. The event of the whole message will have the identifier `message_id`."""

    def send_reasoning(self, event_id: UUID, content: str) -> None:
        """Send the next piece of reasoning. The event of the whole will have the identifier `event_id`."""

    def send_activity(self, event: NewEvent) -> None:
        """Send an event that is not stored yet. The stored event has the same identifier, and may have more data."""


def _in_loop(
    method: Callable[Concatenate["ThreadContext", Parameters], Result],
) -> Callable[Concatenate["ThreadContext", Parameters], Result]:
    """Decorator: runs a method in the event loop of the run, also if a pipeline calls it from another thread."""

    @wraps(method)
    def call(context: "ThreadContext", /, *arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        bridge = context._bridge
        if bridge is None or not bridge.is_needed():
            return method(context, *arguments, **named)
        return bridge.call(partial(method, context, *arguments, **named))

    return call


def _awaited_in_loop(
    method: Callable[Concatenate["ThreadContext", Parameters], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate["ThreadContext", Parameters], Awaitable[Result]]:
    """Decorator: does what `_in_loop` does, for an async method.

    If the caller's thread has no running event loop, the method has done its work when it returns. It returns a
    coroutine. The declared type is `Awaitable`, so that type checkers do not ask plain functions to await it.
    """

    @wraps(method)
    def call(context: "ThreadContext", /, *arguments: Parameters.args, **named: Parameters.kwargs) -> Awaitable[Result]:
        work = method(context, *arguments, **named)
        if context._bridge is None and not context._is_for_test and _get_running_loop() is not None:
            return work  # as `_begin` would, which a stream of many pieces would call for each
        return context._begin(work)

    return call


def _valued_in_loop(
    method: Callable[Concatenate["ThreadContext", Parameters], Coroutine[Any, Any, Any]],
) -> Callable[Concatenate["ThreadContext", Parameters], Any]:
    """Decorator: does what `_awaited_in_loop` does, for an async method whose result a plain function needs.

    If the caller's thread has no running event loop, it returns the result itself. So the declared type is `Any`.
    """

    @wraps(method)
    def call(context: "ThreadContext", /, *arguments: Parameters.args, **named: Parameters.kwargs) -> Any:
        return context._value_of(method(context, *arguments, **named))

    return call


class ContextOfRun(msgspec.Struct, kw_only=True, gc=False):
    """What a context has of its run.

    It is a `Struct` because Python makes a dictionary of the named arguments of an ordinary class, which costs 4 % of a
    chat on Python 3.13.

    - `error_text(run_id, error)` returns the text of an exception that callers may read.
    - `beside` are the events that entered the thread beside the message.
    - `load_events(thread_id, before, limit)` reads earlier events, as `ThreadStore.load_events`.
    - `turn_store(thread_id)` reads and adds events while the run works. It is made only for a pipeline that needs it.
    - `file_reader` reads the files of messages, and `file_keeper` stores those of the pipeline.
    """

    thread_config: Mapping[str, Any] | None = None
    truncated: bool = False
    load_events: LoadEvents | None = None
    resources: Any = None
    run_id: UUID | None = None
    contact_id: str | None = None
    identity: Identity | None = None
    error_text: Callable[[UUID | None, BaseException], str] | None = None
    beside: Sequence[NewEvent] = ()
    turn_store: Callable[[UUID], TurnStore] | None = None
    file_reader: FileReader | None = None
    file_keeper: FileKeeper | None = None


class ThreadContext:
    """The argument of a pipeline: the thread as it is when the run starts, and methods to send events.

    Read `history`, `events` and `thread_config`. Send events with `send_event`, `send_message`, `stream` and
    `set_state`, files with `save_file` and `send_message`, and what an agent does with `tool`, `reasoning`, `source`
    and `usage`. All of them add to `outgoing_events`. When the pipeline returns, all of these events are stored. If it
    raises, none are.

    `run_id` identifies the run, `contact_id` the person that the thread belongs to, and `identity` the caller as the
    auth provider knows it. `identity` is None if a process continues the run that did not receive its request.
    `metadata` is what the caller sent with the message, and `files` are the files of the message.
    `resources` is what the app's `lifespan` yields, None without one.

    `truncated` is True if the thread has more events than `events`; `load_events` reads earlier ones. After the run has
    ended (time limit, cancellation, shutdown), every method that sends raises `RunClosed`.

    A pipeline in a worker thread has the same context. In a plain `def`, call the async methods without `await`: they
    have done their work when they return.
    """

    title: str | None = None
    """Set it to give the thread a title, which lists of threads show. A client may change it later."""
    trace_context: TraceContext | None = None
    """The trace of the caller, if the protocol has it in the message itself, as MCP does. A `traceparent` among the
    headers of a request is not here."""
    _is_for_test = False
    _given_answers: Mapping[str, Any] = {}
    status_updater: StatusUpdater | None = None
    # Defaults in place of lines in `__init__`, which every run would pay for.
    _output: LiveOutput | None = None
    _observers: tuple[ActivityObserver, ...] = ()
    _message_id: UUID | None = None
    _closed = False
    _bridge: Bridge | None = None
    _reasoning_id: UUID | None = None
    _reasoning: list[str]

    def __init__(self, thread_id: UUID, rows: Sequence[EventRow], run: "ContextOfRun") -> None:
        self.thread_id = thread_id
        self.run_id = run.run_id
        self.contact_id = run.contact_id
        self.identity = run.identity
        self.resources = run.resources
        self._error_text = run.error_text
        self._beside = run.beside
        self._turn_store = run.turn_store
        self._file_reader = run.file_reader
        self._file_keeper = run.file_keeper
        self.thread_config: dict[str, Any] = dict(run.thread_config or {})
        self.outgoing_events: list[Any] = []
        self.truncated = run.truncated
        self._rows = rows
        self._load_events = run.load_events
        self._streamed: list[str] = []

    @classmethod
    def for_test(
        cls,
        message: str | None = None,
        *,
        history: Sequence[tuple[str, Mapping[str, Any]]] = (),
        thread_config: Mapping[str, Any] | None = None,
        resources: Any = None,
        contact_id: str = "test",
        identity: Identity | None = None,
        metadata: Mapping[str, Any] | None = None,
        answers: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> "ThreadContext":
        """Make a context for the unit test of a pipeline, without store and server.

        `history` has earlier events as pairs of event type and event data. `message` is added after them as the user's
        message. `resources` is what the app's `lifespan` would yield. `answers` are the answers of a person, by the key
        of their question; `ask` raises `QuestionAsked` for other questions. `files` are the files of the message by
        their names; the ending of a name gives the type. You can also call a plain `def` pipeline in
        an async test: its calls of async methods need no `await`. But `ask`, `once`, `load_events` and `save_file`
        return their values to it only where no event loop runs, so test a plain `def` with these in a plain test.
        """
        pairs = [*history]
        if message is not None:
            pairs.append((USER_MESSAGE, {"role": "user", "content": message}))
        thread_id = uuid7()
        in_memory = FilesInMemory([sent_file(name, content) for name, content in (files or {}).items()], contact_id)
        events = [Event(thread_id=thread_id, event_type=kind, event_data=data) for kind, data in pairs]
        rows = [EventRow(e.event_id, e.created_at, e.event_type, orjson.dumps(e.event_data)) for e in events]
        run = ContextOfRun(
            thread_config=thread_config,
            resources=resources,
            run_id=uuid7(),
            contact_id=contact_id,
            identity=identity,
            beside=beside_message(
                events[-1].event_id if events else thread_id,
                [(MESSAGE_METADATA, {"metadata": metadata or {}}), (MESSAGE_FILES, files_data(in_memory.files))],
            ),
            turn_store=lambda _: TestStore(),
            file_reader=in_memory,
            file_keeper=in_memory,
        )
        context = cls(thread_id, rows, run)
        context._is_for_test = True
        context._given_answers = answers or {}
        return context

    @cached_property
    def events(self) -> list[Event]:
        """The events of the thread, of every type, oldest first. The last one is the inbound message."""
        return [decode_row(self.thread_id, row) for row in self._rows]

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The `metadata` that the caller sent with the message; empty if there is none."""
        for event in self._beside:
            if event.event_type == MESSAGE_METADATA:
                metadata: dict[str, Any] = orjson.loads(event.data)["metadata"]
                return metadata
        return {}

    @property
    def has_thread(self) -> bool:
        """Whether the message belongs to a thread. If not, nothing of the run is stored, and `ask` is not possible.

        `thread_id` is then an identifier that only this run has.
        """
        return self._turn_store is not None

    @cached_property
    def answered(self) -> dict[str, Any]:
        """The answers that began this run, by the key of their question; empty if a message began it.

        What a pipeline says before an `ask`, it says again when it runs again with the answer. So ask first, or check
        `answered` before you say it.
        """
        found = answers_beside(self._beside)
        return {**self._given_answers, **({} if found is None else found[1])}

    @cached_property
    def files(self) -> list[MessageFile]:
        """The files of the message; empty if there are none.

            for file in ctx.files:
                content = await file.read()

        A run that answers began has those of the turn's message, and then those that came with the answers.
        """
        earlier = self._rows if answers_beside(self._beside) is not None else ()
        of_turn = files_by_message(earlier).get(self.turn_id, [])
        now = [facts for files in files_by_message(self._beside).values() for facts in files]
        return [self._file(facts) for facts in [*of_turn, *now]]

    def files_of(self, message: Event) -> list[MessageFile]:
        """Return the files of an earlier message, of the user or of the pipeline: one of `events`."""
        return [self._file(facts) for facts in files_by_message(self._rows).get(message.event_id, ())]

    def _file(self, facts: FileFacts) -> MessageFile:
        return MessageFile(facts, self._file_reader, self.contact_id, self._value_of)

    def save_file(self, name: str, content: bytes | bytearray | memoryview, type: str | None = None) -> Any:
        """Store a file for the contact of the thread, and return it as a `MessageFile`:

            file = await ctx.save_file("report.pdf", content)
            ctx.send_message("Here is your report.", files=[file])

        `type` is its media type; by default that of the ending of `name`. The rules for uploads apply: those of
        `--files-max-size`, `--files-types` and `--files-quota`. The file is stored at once, and stays if the run then
        fails. A file that the contact has already, with the same name, type and content, is not stored again. In a run
        outside of threads, and in a replay, it is only in memory.

        Raises `FileRefused` if the server stores no files or does not accept this one, `StoreUnavailable`, `TypeError`
        for arguments of a wrong type, and `RunClosed` if the run has ended.
        """
        if not isinstance(name, str) or not isinstance(type, str | None):
            raise TypeError("the name of a file must be a str, and so must its type")
        if not isinstance(content, bytes | bytearray | memoryview):
            raise TypeError(f"the content of a file must be bytes, not {content.__class__.__name__}")
        file = sent_file(name, bytes(content))
        return self._save_file(file if type is None else SentFile(name, type, file.content))

    @_valued_in_loop
    async def _save_file(self, file: SentFile) -> MessageFile:
        self._ensure_open()
        keeper = self._file_keeper
        facts = await keep_file(keeper, self.contact_id, file)
        return MessageFile(facts, None if keeper is None else keeper.store, self.contact_id, self._value_of)

    @cached_property
    def _once_locks(self) -> dict[str, asyncio.Lock]:
        return {}

    @cached_property
    def _asking(self) -> Asking:
        if self._turn_store is None:
            raise RuntimeError("this context cannot ask questions: the run has no thread")
        return Asking(self.turn_id, self._turn_store(self.thread_id), self._given_answers)

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """The `event_data` of the `comm.*` events, oldest first: the messages of the user and the assistant."""
        return [event.event_data for event in self.events if _is_communication(event)]

    def get_last_user_message(self) -> Any:
        """Return the content of the newest `comm.*` event with the role `user`; None if there is none."""
        if not vars(self).keys() & {"events", "history"}:  # if they exist, the pipeline may have changed them
            return self._newest_user_message()
        for data in reversed(self.history):
            if data.get("role") == "user":
                return data.get("content")
        return None

    def _newest_user_message(self) -> Any:
        """Return the same from `_rows`, without decoding all of them: the message is usually in the last one."""
        for row in reversed(self._rows):
            if row.data is not None and row.event_type.startswith("comm."):
                data = load_stored(row.data)
                if isinstance(data, dict) and data.get("role") == "user":
                    return data.get("content")
        return None

    def get_last_user_action(self) -> tuple[str | None, Any]:
        """Return the newest `comm.*` event of the user: its type without `comm.`, and its content; or (None, None)."""
        for event in reversed(self.events):
            if _is_communication(event) and event.event_data.get("role") == "user":
                return event.event_type.removeprefix("comm."), event.event_data.get("content")
        return None, None

    def context(self, conversation_length: int = 20) -> list[dict[str, Any]]:
        """Return the `event_data` that a language model should read, of `comm.*` and `context.*`, oldest first.

        It goes back to the `conversation_length` + 1 newest `comm.*` events, as in jims-core.
        """
        chosen: list[dict[str, Any]] = []
        communications = 0
        for event in reversed(self.events):
            if not isinstance(event.event_data, dict):
                continue
            if event.event_type.startswith("comm."):
                chosen.append(event.event_data)
                communications += 1
            elif event.event_type.startswith("context."):
                chosen.append(event.event_data)
            if communications > conversation_length:
                break
        return chosen[::-1]

    @_valued_in_loop
    async def load_events(self, before: Event | None = None, limit: int = 200) -> list[Event]:
        """Load the `limit` newest stored events that are older than `before`, oldest first. None: the newest of all.

        In a plain `def` it has no `await`, and returns the list itself. Raises `StoreUnavailable`.
        """
        if self._load_events is None:
            return [] if before is not None else self.events[-limit:]
        rows = await self._load_events(self.thread_id, before, limit)
        return [decode_row(self.thread_id, row) for row in rows]

    @_in_loop
    def send_event(self, event_type: str, data: dict[str, Any]) -> None:
        """Send an event of any type. Raises `TypeError` if `data` is not a dict, `RunClosed` if the run has ended."""
        if not isinstance(data, dict):
            raise TypeError(f"event data must be a dict, not {type(data).__name__}")
        self._send(None, event_type, data)

    @_in_loop
    def send_message(self, message: str, *, files: Sequence[MessageFile] = ()) -> None:
        """Send a message to the user (`comm.assistant_message`). Raises `RunClosed` if the run has ended.

        If `message` begins with the text that was streamed, it completes that message. Otherwise the streamed text is
        first sent as a message of its own.

        `files` are those of the message: files from `save_file`, or of messages of this contact. They are an event of
        their own beside the message (`message.files`). With files, `message` may be empty. Raises `TypeError` for
        other objects, and `ValueError` for more than 100 files and for a file of another contact.
        """
        sent = self._checked_files(files) if files else ()
        event_id = self._complete_stream(message)
        if sent:
            self._send_files(event_id, sent)
        self._send(event_id, ASSISTANT_MESSAGE, {"role": "assistant", "content": message})

    @_in_loop
    def send_message_with_buttons(
        self, message: str, buttons: list[dict[str, Any]], *, files: Sequence[MessageFile] = ()
    ) -> None:
        """Send a message with buttons to the user (`comm.assistant_message_with_buttons`), as `send_message` does."""
        sent = self._checked_files(files) if files else ()
        event_id = self._complete_stream(message)
        if sent:
            self._send_files(event_id, sent)
        data = {"role": "assistant", "content": message, "buttons": buttons}
        self._send(event_id, ASSISTANT_MESSAGE_WITH_BUTTONS, data)

    @_awaited_in_loop
    async def stream(self, text: str) -> None:
        """Send the next piece of a message to clients that watch the run. The pieces are stored as one message.

        The method lets the event loop run once, so that clients also get the pieces of a pipeline that never waits.
        Raises `TypeError` if `text` is not a str, and `RunClosed` if the run has ended.
        """
        self._ensure_open()
        if not isinstance(text, str):
            raise TypeError(f"a piece of a message must be a str, not {type(text).__name__}")
        if self._reasoning_id is not None:
            self._end_reasoning()
        if self._message_id is None:
            self._message_id = uuid7()
        self._streamed.append(text)
        if self._output is not None:
            self._output.send_delta(self._message_id, text)
        await asyncio.sleep(0)

    @_in_loop
    def tool(self, name: str, arguments: Mapping[str, Any] | None = None, *, id: str | None = None) -> ToolCall:
        """Record a tool call (`tool.call`), with its result or error and its duration:

            async with ctx.tool("search", {"q": "quokka"}) as call:
                call.result = await search("quokka")

        Clients that watch the run see the call begin and end. `id` is the model's identifier of the call; by default
        the call gets one. Raises `TypeError` for a name, arguments or an id of a wrong type. Entering the block raises
        `UnstorableEvent` if the arguments cannot be converted to JSON, and `RunClosed` if the run has ended.
        """
        if not isinstance(name, str) or not name:
            raise TypeError("the name of a tool must be a str, and not empty")
        if arguments is not None and not isinstance(arguments, Mapping):
            raise TypeError(f"the arguments of a tool must be a mapping, not {type(arguments).__name__}")
        if id is not None and not isinstance(id, str):
            raise TypeError(f"the id of a call must be a str, not {type(id).__name__}")
        return ToolCall(
            name,
            arguments or {},
            id,
            show=self._show,
            send=self._send_activity,
            error_text=self._text_of_error,
            observers=self._observers,
        )

    @_in_loop
    def reasoning(self, text: str) -> None:
        """Send the next piece of what the model thinks. The pieces are stored as one event (`model.reasoning`).

        The event is complete as soon as the pipeline sends something else. Raises `TypeError` if `text` is not a str,
        and `RunClosed` if the run has ended.
        """
        self._ensure_open()
        if not isinstance(text, str):
            raise TypeError(f"a piece of reasoning must be a str, not {type(text).__name__}")
        text = storable_text(text)  # a thought must not cost the answer
        if self._reasoning_id is None:
            self._reasoning_id, self._reasoning = uuid7(), []
        self._reasoning.append(text)
        if self._output is not None:
            self._output.send_reasoning(self._reasoning_id, text)

    def source(self, *, url: str | None = None, title: str | None = None) -> None:
        """Name a source of the answer (`answer.source`): a web page, or a document that has only a title.

        Raises `TypeError` for a value that is not a str, `ValueError` without both and for a URL that is not `http` or
        `https`, and `RunClosed` if the run has ended.
        """
        self._announce(ANSWER_SOURCE, source_data(url, title))

    def usage(
        self,
        *,
        model: str,
        input_tokens: int,
        output_tokens: int,
        cached_tokens: int = 0,
        cost: float | Decimal | None = None,
        duration: float | None = None,
    ) -> None:
        """Record what one model call has used (`model.usage`).

        `cached_tokens` are those of `input_tokens` that the model's provider had in its cache. `cost` is in US dollars.
        If it is None, the prices of `jimsapi[prices]` apply, if that is installed and has the model; else the cost is
        not known. `duration` is how long the call took, in seconds, for traces. Call the method at the end of the model
        call. Raises `TypeError` and `ValueError` for other figures, and `RunClosed` if the run has ended.
        """
        self._announce(MODEL_USAGE, usage_data(model, input_tokens, output_tokens, cached_tokens, cost, duration))

    @_valued_in_loop
    async def ask(
        self,
        key: str,
        text: str,
        *,
        options: Sequence[str] | None = None,
        schema: Mapping[str, Any] | type[Any] | None = None,
        expires: float | None = None,
        answerable_by: str | None = None,
        stays_open: bool = False,
    ) -> Any:
        """Ask a person, and return the answer:

            if await ctx.ask("refund", "Refund 20 EUR?", options=["yes", "no"]) == "yes":
                await ctx.once("refund", lambda: refund(20))

        If there is no answer yet, the run ends here: its events are stored, and its answer has the question. Nothing
        waits. With the answer the pipeline runs again from the top, in any process, and the same `ask` returns it.

        - `key` names the question within the turn, which is a message and the answers to its questions. An answer
          counts only for the text, the options and the schema that the person read; with others, `ask` asks again.
        - `options` are the possible answers. `schema` is the JSON Schema of the answer, or a pydantic model, dataclass
          or msgspec Struct, to which the answer is converted. Without both, the answer is a text.
        - `expires` is the number of seconds after which the question cannot be answered.
        - `answerable_by` is `scope:NAME` or `contact:ID`; by default whoever may send messages to the thread answers.
        - `stays_open`: another message does not close the question.

        What the pipeline did before, it does again: see `once` and `answered`. The method raises `QuestionAsked`, a
        `BaseException` that the pipeline must not catch; `TypeError` and `ValueError` for other arguments; and
        `RunClosed` if the run has ended. If the store is not available, it waits, as long as the run may take.
        """
        self._ensure_open()
        question = make_question(key, text, options, schema, expires, answerable_by, stays_open)
        answer_type = schema if isinstance(schema, type) else None
        return await self._asking.ask(question, answer_type, _convert_state)

    def once(self, key: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function once in a turn, and return its result. `function` is `def` or `async def`.

        The result is stored at once. If the pipeline runs again with the answer to a question, `once` returns the
        stored result and does not call the function. The result must have a form in JSON, and is returned in that form.

        If the process dies between the call and the storing, the function is called again when the message is sent
        again. Give another service `f"{ctx.turn_id}:{key}"` as its idempotency key, if it has such keys.

        If the store is not available, it waits, as long as the run may take. Raises what the function raises,
        `UnstorableEvent`, and `RunClosed` if the run has ended.
        """
        check_key(key)
        if _get_running_loop() is None:
            return self._once_in_plain_function(key, function, arguments)
        return self._once(key, function, arguments)

    async def _once(self, key: str, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        async with self._once_locks.setdefault(key, asyncio.Lock()):
            found = await self._recall(key)
            if found is not None:
                return found[0]
            result = function(*arguments)
            if isawaitable(result):
                result = await result
            return await self._remember(key, result)

    def _once_in_plain_function(self, key: str, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        found = self._recall(key)
        if found is not None:
            return found[0]
        result = function(*arguments)
        if isawaitable(result):
            result = asyncio.run(_awaited(result))
        return self._remember(key, result)

    @_valued_in_loop
    async def _recall(self, key: str) -> tuple[Any] | None:
        self._ensure_open()
        return await self._asking.recall(key)

    @_valued_in_loop
    async def _remember(self, key: str, result: Any) -> Any:
        # Also if the run was stopped while the function worked, for what it did has happened.
        return await self._asking.remember(key, result)

    @cached_property
    def turn_id(self) -> UUID:
        """The identifier of the turn: of the message that began it. Runs that answers begin have the same."""
        found = answers_beside(self._beside)
        if found is not None:
            return found[0]
        message_id = self._rows[-1].event_id if self._rows else self.thread_id
        return message_id if isinstance(message_id, UUID) else UUID(message_id)

    def set_state(self, state_name: str, state: Any) -> None:
        """Store a state under `state_name`: a dict, pydantic model, dataclass or msgspec Struct.

        It replaces the previous state of that name. `get_state` returns it from the next run on. Raises
        `UnstorableEvent` if the state cannot be converted to JSON, and `RunClosed` if the run has ended.
        """
        event_type = STATE_PREFIX + state_name
        try:
            data = _plain(state)
        except Exception as error:
            raise UnstorableEvent(event_type, str(error)) from error
        self._send_state(event_type, data)

    @_in_loop
    def _send_state(self, event_type: str, data: Any) -> None:
        self._send(None, event_type, data)

    def get_state(self, state_name: str, state_type: type[Any] = dict) -> Any:
        """Return the newest stored state of that name, converted to `state_type`; None if there is none.

        `state_type` is a pydantic model, dataclass, msgspec Struct or `dict`. Raises that type's validation error if
        the stored state does not fit it.
        """
        for event in reversed(self.events):
            if event.event_type == STATE_PREFIX + state_name:
                return _convert_state(event.event_data, state_type)
        return None

    def with_status_updater(self, status_updater: StatusUpdater) -> "ThreadContext":
        """Set the object that receives statuses. Returns this context."""
        self.status_updater = status_updater
        return self

    @_awaited_in_loop
    async def update_agent_status(self, status: StatusEvent | str) -> None:
        """Send a status to clients that watch the run. It is not stored. Raises `RunClosed` if the run has ended."""
        self._ensure_open()
        if self.status_updater is not None:
            await self.status_updater.update_status(status)

    def _begin(self, work: Coroutine[Any, Any, Result]) -> Coroutine[Any, Any, Result]:
        """Begin a coroutine in the event loop of the run, and return an awaitable of its result."""
        if self._bridge is not None and self._bridge.is_needed():
            return self._bridge.begin(work)
        if _get_running_loop() is None:
            return Done(asyncio.run(work))
        return start(work) if self._is_for_test else work

    def _value_of(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do what `_begin` does, but return the result itself if the caller's thread has no running event loop."""
        begun = self._begin(work)
        return begun.result if isinstance(begun, Done) and _get_running_loop() is None else begun

    def observe(self, observer: ActivityObserver) -> None:
        """Notify `observer` of the tool calls that begin and end, and of the events that are sent, from now on.

        For plugins: a pipeline wrapper calls it before it calls the pipeline. A run without observers costs nothing for
        them, and the pieces of a stream have no observers.
        """
        self._observers = (*self._observers, observer)

    @_in_loop
    def end_message(self) -> None:
        """End the message that `stream` has begun, and the reasoning, so that observers have the event of each.

        What the pipeline streams next begins another message. The end of the pipeline does the same. Raises `RunClosed`
        if the run has ended.
        """
        self._ensure_open()
        self._end_pieces()

    def watch(self, output: LiveOutput) -> None:
        """Send what follows to `output`. Called by the service."""
        self._output = self.status_updater = output

    def speak_from_threads(self) -> None:
        """Allow calls from other threads than that of the running loop. Called by the service."""
        self._bridge = Bridge()

    def close(self) -> None:
        """Close the context: methods that send raise `RunClosed` from now on. Called by the service."""
        self._closed = True

    def complete(self) -> list[Any]:
        """Send streamed text that is not yet part of a message, and the questions with which the run ends.

        Returns `outgoing_events`. Called by the service.
        """
        self._end_pieces()
        if "_asking" in vars(self):  # most pipelines ask nothing
            self.outgoing_events.extend(self._asking.events)
        return self.outgoing_events

    def _send(self, event_id: UUID | None, event_type: str, data: Any) -> None:
        """Add an event. Called in the event loop of the run."""
        self._ensure_open()
        if self._reasoning_id is not None:
            self._end_reasoning()
        if event_id is None:
            event_id = uuid7()
        self.outgoing_events.append(
            Event(thread_id=self.thread_id, event_id=event_id, event_type=event_type, event_data=data)
        )
        for observer in self._observers:
            notify(observer.event_sent, event_type, data)

    def _checked_files(self, files: Sequence[MessageFile]) -> list[FileFacts]:
        """Return what the thread holds of the files of a message, each once. Raises `TypeError` and `ValueError`."""
        if not isinstance(files, Collection) or not all(isinstance(file, MessageFile) for file in files):
            raise TypeError("files must be a list of MessageFile objects, which `await ctx.save_file(…)` returns")
        if len(files) > MAX_FILES:
            raise ValueError(f"a message may have at most {MAX_FILES} files, not {len(files)}")
        for file in files:
            if not file.belongs_to(self.contact_id):
                raise ValueError(f"the file {file.name!r} belongs to another contact, who alone may read it")
        return [file.facts for file in {file.file_id: file for file in files}.values()]

    def _send_files(self, message_id: UUID, files: Sequence[FileFacts]) -> None:
        """Send the files of a message, before the message itself, as those of the user are."""
        data = {"message_id": str(message_id), **files_data(files)}
        self._send_activity(id_beside(message_id, 1), MESSAGE_FILES, data)

    @_in_loop
    def _announce(self, event_type: str, data: dict[str, Any]) -> None:
        self._send_activity(uuid7(), event_type, data)

    @_in_loop
    def _send_activity(self, event_id: UUID, event_type: str, data: dict[str, Any]) -> None:
        self._show(event_id, event_type, data)
        self._send(event_id, event_type, data)

    @_in_loop
    def _show(self, event_id: UUID, event_type: str, data: dict[str, Any]) -> None:
        """Send an event to clients that watch the run. It is encoded even without one, so that it fails for both."""
        self._ensure_open()
        if self._reasoning_id is not None:
            self._end_reasoning()
        try:
            event = NewEvent(event_id, event_type, dump_storable(data))
        except Unstorable as fault:
            raise UnstorableEvent(event_type, str(fault)) from fault
        if self._output is not None:
            self._output.send_activity(event)

    def _end_pieces(self) -> None:
        if self._message_id is not None:
            self._complete_stream("")
        if self._reasoning_id is not None:
            self._end_reasoning()

    def _end_reasoning(self) -> None:
        event_id, text = self._reasoning_id, "".join(self._reasoning)
        self._reasoning_id = None
        self._send(event_id, MODEL_REASONING, {"content": text})

    def _text_of_error(self, error: BaseException) -> str:
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            return CANCELLED
        if self._error_text is None:
            return f"{type(error).__name__}: {error}"
        return self._error_text(self.run_id, error)

    def _ensure_open(self) -> None:
        if self._closed:
            raise RunClosed("the run has ended; what its pipeline sends now is not stored")

    def _complete_stream(self, message: str) -> UUID:
        """End the open stream, if there is one. Returns the identifier for the event of `message`."""
        if self._message_id is None and self._output is None:
            return uuid7()
        self._ensure_open()
        event_id, streamed = self._message_id, "".join(self._streamed)
        self._message_id = None
        self._streamed.clear()
        if event_id is not None and not (message and message.startswith(streamed)):
            self._send(event_id, ASSISTANT_MESSAGE, {"role": "assistant", "content": streamed})
            event_id, streamed = None, ""
        if event_id is None:
            event_id = uuid7()
        if self._output is not None and isinstance(message, str) and len(message) > len(streamed):
            self._output.send_delta(event_id, message[len(streamed) :])
        return event_id


async def _awaited(awaitable: Awaitable[Result]) -> Result:
    return await awaitable


def _is_communication(event: Event) -> bool:
    return event.event_type.startswith("comm.") and isinstance(event.event_data, dict)


def _plain(state: Any) -> Any:
    if hasattr(state, "model_dump"):
        return state.model_dump(mode="json")
    if isinstance(state, msgspec.Struct) or (dataclasses.is_dataclass(state) and not isinstance(state, type)):
        return msgspec.to_builtins(state, str_keys=True)
    return state


def _convert_state(data: Any, state_type: type[Any]) -> Any:
    if hasattr(state_type, "model_validate"):
        return state_type.model_validate(data)
    if state_type is dict:
        return data
    return msgspec.convert(data, state_type, str_keys=True)
