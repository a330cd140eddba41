"""The trace of a caller, as W3C Trace Context describes it (https://www.w3.org/TR/trace-context/)."""

import re
from typing import Self

import msgspec

MAX_MEMBERS = 32
"""The most members of a `tracestate` (section 3.3.1.1)."""
MAX_TRACESTATE = MAX_MEMBERS * 515
"""Characters: a member has at most 256 of its key, `=`, 256 of its value, and a comma with a space."""

# Section 3.2: the version, the trace, the span of the caller, and the flags. Later versions may append more.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_INVALID_VERSION = "ff"
# Section 3.3.1: a key and a value, which is printable ASCII without `,` and `=`, and does not end with a space.
_VISIBLE = r"\x21-\x2b\x2d-\x3c\x3e-\x7e"
_MEMBER = re.compile(rf"[a-z0-9][_0-9a-z*/@-]{{0,255}}=[ {_VISIBLE}]{{0,255}}[{_VISIBLE}]")


class TraceContext(msgspec.Struct, frozen=True):
    """The trace that a message continues: the values of W3C's `traceparent` and `tracestate`.

    For protocols that have it in the message itself, as MCP has it in `params._meta`. Use `parse` to make one.
    `tracestate` is empty if the caller sent none.
    """

    traceparent: str
    tracestate: str = ""

    @classmethod
    def parse(cls, traceparent: object, tracestate: object = None) -> Self | None:
        """Return the trace context that a client sent, or None if it sent none, or a malformed one.

        A malformed `tracestate` is dropped, and the trace continues without it (section 3.3.1.4). A `traceparent` of a
        version after 00 is read as one of version 00, which has the same beginning (section 4.3). Never raises.
        """
        found = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
        if found is None:
            return None
        version, trace_id, span_id, flags, more = found.groups()
        if version == _INVALID_VERSION or (version == "00" and more) or not (int(trace_id, 16) and int(span_id, 16)):
            return None
        return cls(f"00-{trace_id}-{span_id}-{flags}", _valid_tracestate(tracestate))


def _valid_tracestate(text: object) -> str:
    if not isinstance(text, str) or len(text) > MAX_TRACESTATE:
        return ""
    members = [member for part in text.split(",") if (member := part.strip(" \t"))]
    keys = {member.partition("=")[0] for member in members}
    if len(members) > MAX_MEMBERS or len(keys) < len(members) or not all(map(_MEMBER.fullmatch, members)):
        return ""
    return ",".join(members)
