"""What an agent does while it answers: tool calls, the use of models, reasoning, and sources.

Each is an event of the thread. Clients that watch the run get it at once, before it is stored.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from math import isfinite
from time import monotonic
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import UUID

from jimsapi.threads.errors import RunClosed, UnstorableEvent
from jimsapi.threads.ids import uuid7
from jimsapi.threads.prices import prices
from jimsapi.threads.questions import QuestionAsked
from jimsapi.threads.storable import Unstorable, json_values, storable_text

TOOL_CALL = "tool.call"
"""`{"id", "name", "arguments", "duration"}`, and `"result"` or `"error"`. A call that has not ended has only the first
three."""
MODEL_USAGE = "model.usage"
"""`{"model", "input_tokens", "output_tokens", "cached_tokens", "cost"}`, and `"duration"` if it is known."""
MODEL_REASONING = "model.reasoning"
"""`{"content"}`: what a model has thought."""
ANSWER_SOURCE = "answer.source"
"""`{"url", "title"}`. One of them may be null."""

CANCELLED = "cancelled"
"""The `error` of a tool call that was cancelled."""

logger = logging.getLogger("jimsapi.runs")

SendActivity = Callable[[UUID, str, dict[str, Any]], None]
"""Receives the identifier, the type and the data of an event."""


class ActivityObserver:
    """The base of classes whose objects are notified of what a pipeline does (`ThreadContext.observe`).

    Override what you need. The methods are called between two steps of the pipeline, so they must return at once. If
    one raises an exception, it is logged, and the pipeline goes on.

        class Names(ActivityObserver):
            def tool_began(self, call):
                print("calls", call.name)

        @hookimpl
        def jimsapi_pipeline_wrapper():
            def wrap(pipeline, name):
                async def observed(ctx):
                    ctx.observe(Names())
                    await pipeline(ctx)
                return observed
            return wrap

    The plugin `jimsapi-otel` is an example.
    """

    def tool_began(self, call: "ToolCall") -> None:
        """A tool call has begun. Called in the task and thread of its block, before the block.

        So a context variable that the method sets has its value within the block.
        """

    def tool_ended(self, call: "ToolCall", outcome: Mapping[str, Any], error: BaseException | None) -> None:
        """The block of a tool call has ended. Called where the block ends, also if the run has ended before.

        `outcome` has the `duration` in seconds and, as the event `tool.call`, `result` or `error`. It has neither if
        the result cannot be stored, and if the tool waits for the answer to a question: `error` is then
        `QuestionAsked`. `error` is the exception that leaves the block, and None if there is none.
        """

    def event_sent(self, event_type: str, data: Any) -> None:
        """The pipeline has sent an event, which is stored when the run completes: a message, `model.usage` and so on.

        A message that was streamed is one event, which is sent when the message is complete. Do not change `data`.
        """


def notify(method: Callable[..., None], *arguments: Any) -> None:
    """Call a method of an observer. If it raises an exception, log it."""
    try:
        method(*arguments)
    except Exception:
        logger.exception("an observer of a pipeline failed; the pipeline goes on")


class ToolCall:
    """One tool call, from the beginning of a `with` block to its end.

        async with ctx.tool("search", {"q": "quokka"}) as call:
            call.result = await search("quokka")

    Set `result` to what the tool returned: JSON values, pydantic models, dataclasses or msgspec Structs. Set `error`, a
    text, if the tool failed and the model may do something else. An exception that leaves the block becomes the
    `error`, and is raised on. `id` is the identifier of the call. Leaving the block raises `UnstorableEvent` if the
    result has no form in JSON, and `RunClosed` if the run has ended.

    `with` and `async with` do the same, so a plain `def` can use it too. A call can be used once.
    """

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, Any],
        call_id: str | None,
        *,
        show: SendActivity,
        send: SendActivity,
        error_text: Callable[[BaseException], str],
        observers: Sequence[ActivityObserver] = (),
    ) -> None:
        """`show` receives the event of the call that begins, and `send` that of the call that has ended."""
        self._event_id = uuid7()
        self.id = str(self._event_id) if call_id is None else call_id
        self.name = name
        self.result: Any = None
        self.error: str | None = None
        self._arguments = arguments
        self._call: dict[str, Any] = {}
        self._show = show
        self._send = send
        self._error_text = error_text
        self._observers = observers
        self._began: float | None = None

    def __enter__(self) -> Self:
        if self._began is not None:
            raise RuntimeError(f"the call {self.id} of {self.name} has begun already: make a new one for each call")
        # Copies, so that what the pipeline changes later differs in no client from what is stored.
        self._call = {"id": self.id, "name": self.name, "arguments": _copy(dict(self._arguments))}
        self._show(self._event_id, TOOL_CALL, self._call)
        self._began = monotonic()
        for observer in self._observers:
            notify(observer.tool_began, self)
        return self

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments as JSON values, from the time when the call began."""
        arguments: Mapping[str, Any] = self._call.get("arguments", self._arguments)
        return arguments

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._began is not None
        outcome: dict[str, Any] = {"duration": round(monotonic() - self._began, 6)}
        error = raised
        try:
            self._end(outcome, raised)
        except BaseException as fault:
            error = fault if raised is None else raised
            raise
        finally:
            for observer in self._observers:
                notify(observer.tool_ended, self, outcome, error)

    def _end(self, outcome: dict[str, Any], raised: BaseException | None) -> None:
        """Send the event of the call, and add the result or the error to its `outcome`."""
        if raised is None:
            ending = self._ending()
            self._send(self._event_id, TOOL_CALL, {**self._call, **ending, **outcome})
        elif isinstance(raised, QuestionAsked):
            return  # the tool waits for a person; the next run of the turn makes the call again
        else:
            ending = {"error": storable_text(self._error_text(raised))}
            with suppress(RunClosed):  # the run was stopped, which has raised in the block
                self._send(self._event_id, TOOL_CALL, {**self._call, **ending, **outcome})
        outcome |= ending

    async def __aenter__(self) -> Self:
        self.__enter__()
        try:
            await asyncio.sleep(0)  # clients see that the call begins, even if the tool then blocks the loop
        except BaseException as raised:
            self.__exit__(type(raised), raised, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, raised, trace)

    def _ending(self) -> dict[str, Any]:
        return {"result": _copy(self.result)} if self.error is None else {"error": storable_text(str(self.error))}


def _copy(value: Any) -> Any:
    try:
        return json_values(value)
    except Unstorable as fault:
        raise UnstorableEvent(TOOL_CALL, str(fault)) from fault


def usage_data(
    model: str,
    input_tokens: int,
    output_tokens: int,
    cached_tokens: int,
    cost: float | Decimal | None,
    duration: float | None = None,
) -> dict[str, Any]:
    """Return the data of an event `model.usage`. Raises `TypeError` or `ValueError` for figures that cannot be.

    A cost that is not given is calculated, if the price of the model is known.
    """
    if not isinstance(model, str):
        raise TypeError(f"model must be a str, not {type(model).__name__}")
    counts = {"input_tokens": input_tokens, "output_tokens": output_tokens, "cached_tokens": cached_tokens}
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool):
            raise TypeError(f"{name} must be an int, not {type(count).__name__}")
        if count < 0:
            raise ValueError(f"{name} must not be negative, as {count} is")
    _check_figure("cost", cost)
    _check_figure("duration", duration)
    if cost is None:
        cost = prices.cost_of(model, input_tokens, output_tokens, cached_tokens)
    data: dict[str, Any] = {"model": model, **counts, "cost": None if cost is None else float(cost)}
    if duration is not None:
        data["duration"] = round(float(duration), 6)
    return data


def _check_figure(name: str, figure: float | Decimal | None) -> None:
    if isinstance(figure, bool) or not isinstance(figure, int | float | Decimal | None):
        raise TypeError(f"{name} must be a number, not {type(figure).__name__}")
    if figure is not None and not (isfinite(figure) and figure >= 0):
        raise ValueError(f"{name} must be a number from 0 on, not {figure}")


def source_data(url: str | None, title: str | None) -> dict[str, Any]:
    """Return the data of an event `answer.source`.

    Raises `TypeError` for a value that is not a str, and `ValueError` without a URL and a title, and for a URL that
    clients must not show as a link, such as one that begins with `javascript:`.
    """
    for name, value in (("url", url), ("title", title)):
        if value is not None and not isinstance(value, str):
            raise TypeError(f"the {name} of a source must be a str, not {type(value).__name__}")
    if not url and not title:
        raise ValueError("a source needs a url or a title")
    if url and urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(
            f"invalid source url {_start_of(url)!r}: it must begin with http:// or https://; for any other source, "
            "pass only a title"
        )
    return {"url": url or None, "title": title or None}


def _start_of(url: str) -> str:
    """Return the beginning of a URL for an error, without a query and without a user's name and password."""
    shown = url.partition(":")[0] + ":…" if "@" in url else url.partition("?")[0]
    return shown[:60]
