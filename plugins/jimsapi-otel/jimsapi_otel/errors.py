"""Errors on spans: of what kind, and where in the code; never what they say, for it may quote people."""

import traceback

from opentelemetry.trace import Span, StatusCode

MAX_FRAMES = 100
"""Of a deeper stack, as a recursion without end leaves it, the innermost frames."""


def note_error(span: Span, error: BaseException, description: str | None = None) -> None:
    """Mark a span as failed by `error`. `description` is for people, and holds nothing of the error's text."""
    kind = error_type(error)
    frames = "".join(traceback.format_tb(error.__traceback__, -MAX_FRAMES))
    span.add_event("exception", {"exception.type": kind, "exception.stacktrace": f"{frames}{kind}"})
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR, description)


def error_type(error: BaseException) -> str:
    """The full name of an error's class, without `builtins`."""
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
