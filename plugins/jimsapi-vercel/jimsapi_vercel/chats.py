"""The runs that may be resumed: of each chat, the newest that this process works on."""

from asyncio import Future
from functools import partial
from typing import Any

from jimsapi.runs.live import LiveRun


class OpenChats:
    """The newest open run of each chat, forgotten at its end; so there are as many as there are open runs, at most.

    A chat's name here is one that no other caller's chat has.
    """

    def __init__(self) -> None:
        self._runs: dict[str, LiveRun] = {}

    def add(self, chat: str, run: LiveRun) -> None:
        """Remember the run that answers the newest message of a chat."""
        if not run.answer.done():
            self._runs[chat] = run
            run.answer.add_done_callback(partial(self._forget, chat, run))

    def get(self, chat: str) -> LiveRun | None:
        """The newest open run of a chat; None if there is none."""
        return self._runs.get(chat)

    def __len__(self) -> int:
        return len(self._runs)

    def _forget(self, chat: str, run: LiveRun, _: "Future[Any]") -> None:
        if self._runs.get(chat) is run:
            del self._runs[chat]
