"""The context of a pipeline: it reads the thread and sends events. Compatible with jims-core's, except for `llm`."""

import asyncio
import dataclasses
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import cached_property, partial, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar
from uuid import UUID

import msgspec
import orjson

from jimsapi.threads.bridge import Bridge, Done, start
from jimsapi.threads.errors import RunClosed, UnstorableEvent
from jimsapi.threads.event import (
    ASSISTANT_MESSAGE,
    ASSISTANT_MESSAGE_WITH_BUTTONS,
    STATE_PREFIX,
    USER_MESSAGE,
    Event,
    EventRow,
    decode_row,
)
from jimsapi.threads.ids import uuid7
from jimsapi.threads.storable import load_stored

LoadEvents = Callable[[Event | None, int], Awaitable[Sequence[EventRow]]]
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
    """Receives the deltas and statuses of a watched run while its pipeline works."""

    def send_delta(self, message_id: UUID, content: str) -> None:
        """Send the next piece of a message. The event of the whole message will have the identifier `message_id`."""


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
        bridge = context._bridge
        if bridge is not None and bridge.is_needed():
            return bridge.begin(work)
        if _get_running_loop() is None:
            return Done(asyncio.run(work))
        return start(work) if context._is_for_test else work

    return call


class ThreadContext:
    """The argument of a pipeline: the thread as it is when the run starts, and methods to send events.

    Read `history`, `events` and `thread_config`. Send events with `send_event`, `send_message`, `stream` and
    `set_state`, which add to `outgoing_events`. When the pipeline returns, all of these events are stored. If it
    raises, none are.

    `resources` is what the app's `lifespan` yields, None without one.

    `truncated` is True if the thread has more events than `events`; `load_events` reads earlier ones. After the run has
    ended (time limit, cancellation, shutdown), every method that sends raises `RunClosed`.

    A pipeline in a worker thread has the same context. In a plain `def`, call the async methods without `await`: they
    have done their work when they return.
    """

    _is_for_test = False

    def __init__(
        self,
        thread_id: UUID,
        rows: Sequence[EventRow] = (),
        *,
        thread_config: Mapping[str, Any] | None = None,
        truncated: bool = False,
        load_events: LoadEvents | None = None,
        resources: Any = None,
    ) -> None:
        self.thread_id = thread_id
        self.resources = resources
        self.thread_config: dict[str, Any] = dict(thread_config or {})
        self.outgoing_events: list[Any] = []
        self.status_updater: StatusUpdater | None = None
        self.truncated = truncated
        self._rows = rows
        self._load_events = load_events
        self._output: LiveOutput | None = None
        self._streamed: list[str] = []
        self._message_id: UUID | None = None
        self._closed = False
        self._bridge: Bridge | None = None

    @classmethod
    def for_test(
        cls,
        message: str | None = None,
        *,
        history: Sequence[tuple[str, Mapping[str, Any]]] = (),
        thread_config: Mapping[str, Any] | None = None,
        resources: Any = None,
    ) -> "ThreadContext":
        """Make a context for the unit test of a pipeline, without store and server.

        `history` has earlier events as pairs of event type and event data. `message` is added after them as the user's
        message. `resources` is what the app's `lifespan` would yield. You can also call a plain `def` pipeline in an
        async test: its calls of async methods need no `await`.
        """
        pairs = [*history]
        if message is not None:
            pairs.append((USER_MESSAGE, {"role": "user", "content": message}))
        thread_id = uuid7()
        events = [Event(thread_id=thread_id, event_type=kind, event_data=data) for kind, data in pairs]
        rows = [EventRow(e.event_id, e.created_at, e.event_type, orjson.dumps(e.event_data)) for e in events]
        context = cls(thread_id, rows, thread_config=thread_config, resources=resources)
        context._is_for_test = True
        return context

    @cached_property
    def events(self) -> list[Event]:
        """The events of the thread, of every type, oldest first. The last one is the inbound message."""
        return [decode_row(self.thread_id, row) for row in self._rows]

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

    @_awaited_in_loop
    async def load_events(self, before: Event | None = None, limit: int = 200) -> list[Event]:
        """Load the `limit` newest stored events that are older than `before`, oldest first. None: the newest of all.

        Raises `StoreUnavailable`.
        """
        if self._load_events is None:
            return [] if before is not None else self.events[-limit:]
        return [decode_row(self.thread_id, row) for row in await self._load_events(before, limit)]

    def send_event(self, event_type: str, data: dict[str, Any]) -> None:
        """Send an event of any type. Raises `TypeError` if `data` is not a dict, `RunClosed` if the run has ended."""
        if not isinstance(data, dict):
            raise TypeError(f"event data must be a dict, not {type(data).__name__}")
        self._send(None, event_type, data)

    @_in_loop
    def send_message(self, message: str) -> None:
        """Send a message to the user (`comm.assistant_message`). Raises `RunClosed` if the run has ended.

        If `message` begins with the text that was streamed, it completes that message. Otherwise the streamed text is
        first sent as a message of its own.
        """
        event_id = self._complete_stream(message)
        self._send(event_id, ASSISTANT_MESSAGE, {"role": "assistant", "content": message})

    @_in_loop
    def send_message_with_buttons(self, message: str, buttons: list[dict[str, Any]]) -> None:
        """Send a message with buttons to the user (`comm.assistant_message_with_buttons`), as `send_message` does."""
        event_id = self._complete_stream(message)
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
        if self._message_id is None:
            self._message_id = uuid7()
        self._streamed.append(text)
        if self._output is not None:
            self._output.send_delta(self._message_id, text)
        await asyncio.sleep(0)

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
        self._send(None, event_type, data)

    def get_state(self, state_name: str, state_type: type[Any] = dict) -> Any:
        """Return the newest stored state of that name, converted to `state_type`; None if there is none.

        `state_type` is a pydantic model, dataclass, msgspec Struct or `dict`. Raises that type's validation error if
        the stored state does not fit it.
        """
        for event in reversed(self.events):
            if event.event_type == STATE_PREFIX + state_name:
                return _typed(event.event_data, state_type)
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

    def watch(self, output: LiveOutput) -> None:
        """Send the following deltas and statuses to `output`. Called by the service."""
        self._output = self.status_updater = output

    def speak_from_threads(self) -> None:
        """Allow calls from other threads than that of the running loop. Called by the service."""
        self._bridge = Bridge()

    def close(self) -> None:
        """Close the context: methods that send raise `RunClosed` from now on. Called by the service."""
        self._closed = True

    def complete(self) -> list[Any]:
        """Send streamed text that is not yet part of a message. Returns `outgoing_events`. Called by the service."""
        if self._message_id is not None:
            self._complete_stream("")
        return self.outgoing_events

    @_in_loop
    def _send(self, event_id: UUID | None, event_type: str, data: Any) -> None:
        self._ensure_open()
        if event_id is None:
            event_id = uuid7()
        self.outgoing_events.append(
            Event(thread_id=self.thread_id, event_id=event_id, event_type=event_type, event_data=data)
        )

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


def _is_communication(event: Event) -> bool:
    return event.event_type.startswith("comm.") and isinstance(event.event_data, dict)


def _plain(state: Any) -> Any:
    if hasattr(state, "model_dump"):
        return state.model_dump(mode="json")
    if isinstance(state, msgspec.Struct) or (dataclasses.is_dataclass(state) and not isinstance(state, type)):
        return msgspec.to_builtins(state, str_keys=True)
    return state


def _typed(data: Any, state_type: type[Any]) -> Any:
    if hasattr(state_type, "model_validate"):
        return state_type.model_validate(data)
    if state_type is dict:
        return data
    return msgspec.convert(data, state_type, str_keys=True)
