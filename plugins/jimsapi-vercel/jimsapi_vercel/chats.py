"""The open runs of each chat in this process: which one a client can resume, and whether clients read it."""

from asyncio import Future, TimerHandle
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any
from uuid import UUID

from jimsapi.runs import LiveRun

RESUMED_WITHIN = 5.0
"""Seconds in which a client that has disconnected may resume its run. A page that is loaded again disconnects in the
same way as `stop()`, and only the page resumes."""


class OpenChats:
    """The open runs of each chat. A run is removed when it ends.

    The key of a chat must be unique among the chats of all callers. `stop_run` cancels a run whose client has left.
    `is_read_elsewhere` returns whether a client reads a run by another process.
    """

    def __init__(self, stop_run: Callable[[LiveRun], None], is_read_elsewhere: Callable[[UUID], bool]) -> None:
        self._stop_run = stop_run
        self._is_read_elsewhere = is_read_elsewhere
        self._newest: dict[str, LiveRun] = {}
        self._readers: Counter[UUID] = Counter()
        self._left: dict[str, dict[UUID, tuple[LiveRun, TimerHandle]]] = {}

    def add(self, chat: str, run: LiveRun) -> None:
        """Add the run that answers the newest message of a chat."""
        if not run.answer.done():
            self._newest[chat] = run
            run.answer.add_done_callback(partial(self._remove, chat, run))

    def get(self, chat: str) -> LiveRun | None:
        """Return the newest open run of a chat, or None."""
        return self._newest.get(chat)

    async def reading(
        self, chat: str, run: LiveRun, chunks: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        """Yield the chunks of an answer to a client. While a client reads a run, no other that leaves stops it."""
        self._readers[run.run_id] += 1
        self._keep(chat, run)
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            self._readers[run.run_id] -= 1
            if not self._readers[run.run_id]:
                del self._readers[run.run_id]

    def leave(self, chat: str, run: LiveRun) -> None:
        """Stop a run whose client has disconnected, unless a client reads it or resumes it soon."""
        if run.run_id not in self._readers and not run.answer.done():
            timer = run.loop.call_later(RESUMED_WITHIN, self._stop_left, chat, run)
            self._left.setdefault(chat, {})[run.run_id] = (run, timer)

    def stop(self, chat: str) -> None:
        """Stop the runs of a chat whose clients have left. Call it when the next message arrives."""
        for run, _ in list(self._left.get(chat, {}).values()):
            self._stop_left(chat, run)

    def __len__(self) -> int:
        return len(self._newest)

    def _stop_left(self, chat: str, run: LiveRun) -> None:
        self._keep(chat, run)
        if self._is_read_elsewhere(run.run_id):
            self.leave(chat, run)  # that client may leave, too
        else:
            self._stop_run(run)

    def _keep(self, chat: str, run: LiveRun) -> None:
        """Do not stop a run that was left."""
        left = self._left.get(chat, {})
        if run.run_id in left:
            left.pop(run.run_id)[1].cancel()
            if not left:
                del self._left[chat]

    def _remove(self, chat: str, run: LiveRun, _: "Future[Any]") -> None:
        self._keep(chat, run)
        if self._newest.get(chat) is run:
            del self._newest[chat]
