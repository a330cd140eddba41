"""Options of questions by which a person approves or denies, for protocols whose clients only know these two."""

from collections.abc import Sequence
from typing import Any

_APPROVING = frozenset(
    ("yes", "y", "ok", "approve", "approved", "accept", "accepted", "allow", "allowed", "true", "confirm")
)
_DENYING = frozenset(("no", "n", "deny", "denied", "reject", "rejected", "decline", "declined", "false", "cancel"))


def approving_option(options: Sequence[Any], *, approved: bool) -> Any:
    """Return the first of a question's options that approves, or denies, in English; None if there is none."""
    words = _APPROVING if approved else _DENYING
    for option in options:
        if isinstance(option, str) and option.strip().casefold() in words:
            return option
    return None
