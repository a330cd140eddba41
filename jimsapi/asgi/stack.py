"""Where code waits: the calls of a task or a thread, as one line. A line has places in code, and no values."""

import asyncio
from collections.abc import Sequence
from types import FrameType
from typing import Any

MAX_CALLS = 12
"""The number of calls that a line has: the innermost ones."""


def where_task(task: asyncio.Task[Any]) -> str:
    """Return the line at which each coroutine of a task waits, the innermost last."""
    calls = []
    coroutine: Any = task.get_coro()
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        calls.append(_call(coroutine.__qualname__, frame))
        coroutine = coroutine.cr_await
    return _line(calls)


def where_frame(innermost: FrameType, outermost: FrameType) -> str:
    """Return the line of each call of a thread, from `outermost`, which is left out, to `innermost`."""
    calls = []
    frame: FrameType | None = innermost
    while frame is not None and frame is not outermost:
        calls.append(_call(frame.f_code.co_qualname, frame))
        frame = frame.f_back
    return _line(calls[::-1])


def _call(name: str, frame: FrameType) -> str:
    return f"{name} ({frame.f_code.co_filename}:{frame.f_lineno})"


def _line(calls: Sequence[str]) -> str:
    return " > ".join(["...", *calls[-MAX_CALLS:]] if len(calls) > MAX_CALLS else calls)
