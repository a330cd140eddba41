"""What callers were told. It outlives the servers that told them."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import Any

REFUSED = {429, 503}
"""Statuses by which the server refuses a message: it promises nothing about it."""


@dataclass
class Journal:
    """What callers sent, and what they were told.

    `acknowledged` are messages whose answer was read to its end, `background` those that were accepted with 202,
    `unsettled` those that were sent under a key and got no answer. A message is its own key. `questions` are those
    that callers have read, `unapproved` messages whose question may still need its answer. `streamed`,
    `over_websockets` and `approved` count what was acknowledged that way, `repeated` retries under a key. `in_hand` are
    messages under a key that a caller sends until they are settled, with what they were told last.

    A file is made of a message. `files` are the identifiers of those that were stored, by their messages, `unfiled`
    messages whose upload got no answer, `deleted` the identifiers of files that were deleted.
    """

    acknowledged: set[str] = field(default_factory=set)
    background: set[str] = field(default_factory=set)
    unsettled: list[str] = field(default_factory=list)
    questions: set[str] = field(default_factory=set)
    unapproved: list[str] = field(default_factory=list)
    streamed: int = 0
    over_websockets: int = 0
    approved: int = 0
    repeated: int = 0
    refused: int = 0
    unexpected: Counter[str] = field(default_factory=Counter)
    in_hand: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    unfiled: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    _numbers: "count[int]" = field(default_factory=count)

    def message(self, command: str = "now") -> str:
        """A message that nobody has sent yet."""
        return f"{next(self._numbers)} {command}"

    def note_file(self, message: str, status: int, said: Any) -> bool:
        """Note what the server answered to the file of a message. Returns whether it was stored."""
        if status != 201:
            return self.note(message, status, said)
        self.files[message] = said["file_id"]
        return True

    def note(self, message: str, status: int, said: Any) -> bool:
        """Note what the server answered to a message. Returns whether it settles the message."""
        if message in self.in_hand:
            self.in_hand[message] = f"{status} {said}"
        if status == 200 and said == [message]:
            self.acknowledged.add(message)
            return True
        if status in REFUSED:
            self.refused += 1
        else:
            self.unexpected[f"{status} {said}"] += 1
        return False
