"""The identifiers that clients get: those of runs, threads and events, each with the prefix of its kind."""

import re
from uuid import UUID

_TWO = re.compile(r"mcpr_([0-9a-f]{32})([0-9a-f]{32})")
_ITEM = re.compile(r"(msg|rs|mcp|fc|fco)_([0-9a-f]{32})|mcpr_[0-9a-f]{32}([0-9a-f]{32})")


def response_id(run_id: UUID) -> str:
    """Return the identifier of a response: that of its run."""
    return f"resp_{run_id.hex}"


def conversation_id(thread_id: UUID) -> str:
    """Return the identifier of a conversation: that of its thread."""
    return f"conv_{thread_id.hex}"


def item_id(prefix: str, event_id: UUID) -> str:
    """Return the identifier of an item. An event may be several items, which have different prefixes."""
    return f"{prefix}_{event_id.hex}"


def approval_id(thread_id: UUID, question_id: UUID) -> str:
    """Return the identifier of a request for approval. An answer may name nothing else, so it has the thread, too."""
    return f"mcpr_{thread_id.hex}{question_id.hex}"


def run_of(text: str) -> UUID | None:
    """Return the run of a response; None if this server cannot have made the identifier."""
    return _of("resp", text)


def thread_of(text: str) -> UUID | None:
    """Return the thread of a conversation; None if this server cannot have made the identifier."""
    return _of("conv", text)


def event_of(text: str) -> UUID | None:
    """Return the event of an item; None if this server cannot have made the identifier."""
    found = _ITEM.fullmatch(text)
    return None if found is None else UUID(found[2] or found[3])


def question_of(text: str) -> tuple[UUID, UUID] | None:
    """Return the thread and the question of a request for approval; None for other identifiers."""
    found = _TWO.fullmatch(text)
    return None if found is None else (UUID(found[1]), UUID(found[2]))


def _of(prefix: str, text: str) -> UUID | None:
    return UUID(text[-32:]) if re.fullmatch(prefix + "_[0-9a-f]{32}", text) else None
