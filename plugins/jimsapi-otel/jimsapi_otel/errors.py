"""Errors on spans: their type and traceback, without their text, which may quote users."""

import traceback

from opentelemetry.trace import Span, StatusCode

MAX_FRAMES = 100
"""If a stack is deeper, as after an infinite recursion, only its innermost frames are recorded."""


def note_error(span: Span, error: BaseException, description: str | None = None) -> None:
    """Mark a span as failed with `error`. `description` is for people, and must not contain the error's text."""
    kind = error_type(error)
    frames = "".join(traceback.format_tb(error.__traceback__, -MAX_FRAMES))
    span.add_event("exception", {"exception.type": kind, "exception.stacktrace": f"{frames}{kind}"})
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR, description)


def error_type(error: BaseException) -> str:
    """Return the full name of an error's class, without `builtins`."""
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
