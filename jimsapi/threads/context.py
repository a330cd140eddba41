"""What a pipeline sees of its thread, and speaks through. Compatible with jims-core's `ThreadContext`, except `llm`."""

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
    """What the pipeline is doing: `message` for a person, `status_type` a stable identifier for a program."""

    message: str
    status_type: str


class StatusUpdater(Protocol):
    """Receives what a pipeline says about its progress."""

    async def update_status(self, status: StatusEvent | str) -> None: ...


class Voice(StatusUpdater, Protocol):
    """What a watched run speaks through while its pipeline works."""

    def say(self, message_id: UUID, content: str) -> None:
        """Tell the next piece of a message, by the identifier that its event will have."""


def _in_loop(
    method: Callable[Concatenate["ThreadContext", Parameters], Result],
) -> Callable[Concatenate["ThreadContext", Parameters], Result]:
    """Have a method work in the loop of the run, also if a pipeline calls it from a thread."""

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
    """The same for an async method. Where no event loop runs, it has done its work when it returns.

    It returns a coroutine, declared as what need not be awaited, for the sake of plain functions.
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
    """A thread at the moment of a run, and the run's voice.

    Read `history`, `events` and `thread_config`; speak with the `send_*` methods, which add to `outgoing_events`. What
    was sent is stored when the pipeline returns, all of it or, if it raises, none.

    `truncated` says that the thread has more events than `events` holds; `load_events` reaches back.
    After the run has ended (time limit, cancellation, shutdown) every way to speak raises `RunClosed`.

    A pipeline that works in a thread has the same context. Its async methods need no `await` in a plain `def`: they
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
    ) -> None:
        self.thread_id = thread_id
        self.thread_config: dict[str, Any] = dict(thread_config or {})
        self.outgoing_events: list[Any] = []
        self.status_updater: StatusUpdater | None = None
        self.truncated = truncated
        self._rows = rows
        self._load_events = load_events
        self._voice: Voice | None = None
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
    ) -> "ThreadContext":
        """Make a context for a pipeline's unit test: no store, no server.

        `history` holds earlier events as (event type, event data); `message` comes after them, as the user's.
        A pipeline that is a plain function may be called in an async test, too: what it says needs no `await`.
        """
        past = [*history]
        if message is not None:
            past.append((USER_MESSAGE, {"role": "user", "content": message}))
        thread_id = uuid7()
        made = [Event(thread_id=thread_id, event_type=kind, event_data=data) for kind, data in past]
        rows = [EventRow(e.event_id, e.created_at, e.event_type, orjson.dumps(e.event_data)) for e in made]
        context = cls(thread_id, rows, thread_config=thread_config)
        context._is_for_test = True
        return context

    @cached_property
    def events(self) -> list[Event]:
        """The thread's events of every type, oldest first, the inbound message last."""
        return [decode_row(self.thread_id, row) for row in self._rows]

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """The `event_data` of the `comm.*` events, oldest first: what the person and the assistant said."""
        return [event.event_data for event in self.events if _is_communication(event)]

    def get_last_user_message(self) -> Any:
        """The content of the newest `comm.*` event whose role is `user`; None if there is none."""
        if not vars(self).keys() & {"events", "history"}:  # else the pipeline may have changed them
            return self._newest_user_message()
        for said in reversed(self.history):
            if said.get("role") == "user":
                return said.get("content")
        return None

    def _newest_user_message(self) -> Any:
        """The same, without reading all the thread: the message that is to be answered is usually the last row."""
        for row in reversed(self._rows):
            if row.data is not None and row.event_type.startswith("comm."):
                data = load_stored(row.data)
                if isinstance(data, dict) and data.get("role") == "user":
                    return data.get("content")
        return None

    def get_last_user_action(self) -> tuple[str | None, Any]:
        """The newest user event in `comm.*`: its name without `comm.`, and its content; or (None, None)."""
        for event in reversed(self.events):
            if _is_communication(event) and event.event_data.get("role") == "user":
                return event.event_type.removeprefix("comm."), event.event_data.get("content")
        return None, None

    def context(self, conversation_length: int = 20) -> list[dict[str, Any]]:
        """What a model should read: `comm.*` and `context.*` data, oldest first.

        It reaches back to the `conversation_length` + 1 newest `comm.*` events, as jims-core counts them.
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
        """Load the newest `limit` stored events older than `before` (None: the newest of all), oldest first."""
        if self._load_events is None:
            return [] if before is not None else self.events[-limit:]
        return [decode_row(self.thread_id, row) for row in await self._load_events(before, limit)]

    def send_event(self, event_type: str, data: dict[str, Any]) -> None:
        """Send an event of any type. Raises `TypeError` if `data` is no dict, `RunClosed` after the run's end."""
        if not isinstance(data, dict):
            raise TypeError(f"event data must be a dict, not {type(data).__name__}")
        self._send(None, event_type, data)

    @_in_loop
    def send_message(self, message: str) -> None:
        """Say something to the person (`comm.assistant_message`).

        If it begins with what was streamed so far it completes that message; else what was streamed becomes a message
        of its own first.
        """
        event_id = self._complete_stream(message)
        self._send(event_id, ASSISTANT_MESSAGE, {"role": "assistant", "content": message})

    @_in_loop
    def send_message_with_buttons(self, message: str, buttons: list[dict[str, Any]]) -> None:
        """Say something to the person and offer buttons (`comm.assistant_message_with_buttons`)."""
        event_id = self._complete_stream(message)
        data = {"role": "assistant", "content": message, "buttons": buttons}
        self._send(event_id, ASSISTANT_MESSAGE_WITH_BUTTONS, data)

    @_awaited_in_loop
    async def stream(self, text: str) -> None:
        """Say the next piece of a message: whoever watches sees it now. The pieces are stored as one message.

        The event loop gets its turn, so that a pipeline that never waits for anything is seen as it speaks, too.
        """
        self._ensure_open()
        if not isinstance(text, str):
            raise TypeError(f"a piece of a message must be a str, not {type(text).__name__}")
        if self._message_id is None:
            self._message_id = uuid7()
        self._streamed.append(text)
        if self._voice is not None:
            self._voice.say(self._message_id, text)
        await asyncio.sleep(0)

    def set_state(self, state_name: str, state: Any) -> None:
        """Store a state under `state_name`: a dict, pydantic model, dataclass or msgspec Struct.

        It replaces what was stored under that name before; this run's `get_state` does not see it yet.
        Raises `UnstorableEvent` for a state that holds what cannot be made JSON.
        """
        event_type = STATE_PREFIX + state_name
        try:
            data = _plain(state)
        except Exception as error:
            raise UnstorableEvent(event_type, str(error)) from error
        self._send(None, event_type, data)

    def get_state(self, state_name: str, state_type: type[Any] = dict) -> Any:
        """The newest stored state of that name as a `state_type`; None if there is none.

        `state_type` is a pydantic model, dataclass, msgspec Struct or `dict`. Raises that type's validation error if
        what is stored does not fit it.
        """
        for event in reversed(self.events):
            if event.event_type == STATE_PREFIX + state_name:
                return _typed(event.event_data, state_type)
        return None

    def with_status_updater(self, status_updater: StatusUpdater) -> "ThreadContext":
        """Set who is told of the pipeline's progress; returns this context."""
        self.status_updater = status_updater
        return self

    @_awaited_in_loop
    async def update_agent_status(self, status: StatusEvent | str) -> None:
        """Tell whoever watches what the pipeline is doing. Statuses are not stored."""
        self._ensure_open()
        if self.status_updater is not None:
            await self.status_updater.update_status(status)

    def watch(self, voice: Voice) -> None:
        """Let somebody hear the run while it works, from now on; called by the service."""
        self._voice = self.status_updater = voice

    def speak_from_threads(self) -> None:
        """Let the pipeline speak from other threads than the running loop's, from now on; called by the service."""
        self._bridge = Bridge()

    def close(self) -> None:
        """End the run's voice; called by the service. What the pipeline says from now on raises `RunClosed`."""
        self._closed = True

    def complete(self) -> list[Any]:
        """Store what was streamed and not yet sent as a message; returns `outgoing_events`. Called by the service."""
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
            raise RunClosed("the run has ended; what its pipeline says now is not stored")

    def _complete_stream(self, message: str) -> UUID:
        """End the open stream, if any. Returns the identifier of the event that is to hold `message`."""
        if self._message_id is None and self._voice is None:
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
        if self._voice is not None and isinstance(message, str) and len(message) > len(streamed):
            self._voice.say(event_id, message[len(streamed) :])
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
