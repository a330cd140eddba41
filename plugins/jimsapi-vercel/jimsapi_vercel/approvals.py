"""Questions as approvals of a tool, which is how the AI SDK asks a person."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from jimsapi.asgi import Request
from jimsapi.threads import Question
from jimsapi.wire import approving_option

HEADER = "x-tool-approvals"
"""The request header of pages that show approvals: `true`. Version 5 of the SDK fails when it receives one."""


class Approval(msgspec.Struct, frozen=True):
    """What a person did with the question `question_id`. `value` is the answer to it."""

    question_id: str
    approved: bool
    value: Any


def shows_approvals(request: Request) -> bool:
    """Return whether the page that sends the request shows approvals."""
    return request.headers.get(HEADER) == "true"


def is_approval(question: Question) -> bool:
    """Return whether a question can be shown as an approval: one of its two answers approves, the other denies.

    These are a boolean, or two options such as yes and no.
    """
    return _values(question.options, question.schema) is not None


def approves(question_input: Mapping[str, Any], value: Any) -> bool:
    """Return whether an answer approves. `question_input` is the input of the call that stands for the question."""
    values = _values(question_input["options"], question_input["schema"])
    return values is not None and values[True] == value


def call_of(question: Question) -> dict[str, Any]:
    """Return a tool call that stands for a question, with its name and input, as chunks and parts have it."""
    return {"toolCallId": str(question.question_id), "toolName": question.key, "input": question.shown()}


def approval_of(question_id: str, question_input: Any, approved: bool) -> Approval | None:
    """Return the answer to a question whose call comes back from a page; None if the call stands for no question.

    The service checks the answer as it checks every other.
    """
    if not isinstance(question_input, Mapping):
        return None
    values = _values(question_input.get("options"), question_input.get("schema"))
    return None if values is None else Approval(question_id, approved, values[approved])


def _values(options: Any, schema: Any) -> dict[bool, Any] | None:
    """Return the answers that approve and deny."""
    if not isinstance(options, Sequence):
        is_boolean = isinstance(schema, Mapping) and schema.get("type") == "boolean"
        return {True: True, False: False} if is_boolean else None
    approving, denying = (approving_option(options, approved=approved) for approved in (True, False))
    if len(options) != 2 or approving is None or denying is None:
        return None
    return {True: approving, False: denying}
