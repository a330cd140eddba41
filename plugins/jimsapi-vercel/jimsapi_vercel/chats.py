"""The runs that clients can resume: the newest open run of each chat in this process."""

from asyncio import Future
from functools import partial
from typing import Any

from jimsapi.runs import LiveRun


class OpenChats:
    """The newest open run of each chat. A run is removed when it ends, so there are at most as many as open runs.

    The key of a chat must be unique among the chats of all callers.
    """

    def __init__(self) -> None:
        self._runs: dict[str, LiveRun] = {}

    def add(self, chat: str, run: LiveRun) -> None:
        """Add the run that answers the newest message of a chat."""
        if not run.answer.done():
            self._runs[chat] = run
            run.answer.add_done_callback(partial(self._remove, chat, run))

    def get(self, chat: str) -> LiveRun | None:
        """Return the newest open run of a chat, or None."""
        return self._runs.get(chat)

    def __len__(self) -> int:
        return len(self._runs)

    def _remove(self, chat: str, run: LiveRun, _: "Future[Any]") -> None:
        if self._runs.get(chat) is run:
            del self._runs[chat]
