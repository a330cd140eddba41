"""Notifications of progress while a run works: its statuses, the pieces of its messages, and signs of life."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from jimsapi.runs import Status
from jimsapi.wire import Failed, Finished, MessagePiece, PiecesMissed, SpokenItem, ToolStarted
from jimsapi_mcp.messages import RequestId, notification_event

HEARTBEAT = 15.0
"""Seconds without a notification after which one is sent. Clients in TypeScript give up after 60 seconds."""
BETWEEN_PIECES = 0.2
"""Seconds between two notifications with pieces of a message. Pieces that come meanwhile are sent together."""

Item = TypeVar("Item")
Spoken = SpokenItem | PiecesMissed


class Progress:
    """Makes the notifications of one call. `token` is the client's; the numbers rise by 1.

    `number` is that of the last notification; a call that is repeated goes on from there.
    """

    def __init__(self, token: RequestId, number: int) -> None:
        self._token = token
        self.number = number
        self._status: str | None = None

    def event(self, message: str | None) -> bytes:
        """Return the next notification, as a server-sent event."""
        self.number += 1
        params: dict[str, Any] = {"progressToken": self._token, "progress": self.number}
        return notification_event(
            "notifications/progress", params if message is None else {**params, "message": message}
        )

    def status(self, text: str) -> bytes:
        """Return the notification of a status, which the next signs of life repeat."""
        self._status = text
        return self.event(text)

    def heartbeat(self) -> bytes:
        """Return a notification without news, so that the client goes on waiting."""
        return self.event(self._status)


async def notified(
    items: AsyncIterator[Spoken], progress: Progress | None
) -> AsyncGenerator[bytes | Finished | Failed, None]:
    """Yield the notifications of a run, and its last item. Without `progress`, only the last item."""
    if progress is None:
        async for last in items:
            if isinstance(last, Finished | Failed):
                yield last
        return
    now = asyncio.get_running_loop().time
    pieces: list[str] = []
    pieces_due, heartbeat_due = 0.0, now() + HEARTBEAT

    def pause() -> float:
        return max(0.0, (pieces_due if pieces else heartbeat_due) - now())

    async with aclosing(with_pauses(items, pause)) as paused:
        async for item in paused:
            if isinstance(item, Finished | Failed):  # the result has the whole text
                yield item
                continue
            if isinstance(item, MessagePiece) and item.text:
                pieces.append(item.text)
            news = _news(item)
            if pieces and (news is not None or now() >= pieces_due):
                yield progress.event("".join(pieces))
                pieces.clear()
                pieces_due, heartbeat_due = now() + BETWEEN_PIECES, now() + HEARTBEAT
            if news is not None:
                yield progress.status(news)
                heartbeat_due = now() + HEARTBEAT
            elif not pieces and now() >= heartbeat_due:
                yield progress.heartbeat()
                heartbeat_due = now() + HEARTBEAT


def _news(item: Spoken | None) -> str | None:
    """Return the text of an item that says what the pipeline does now; None for other items."""
    match item:
        case Status(text, _):
            return text
        case ToolStarted(_, name):
            return f"Uses the tool {name}"
    return None


async def with_pauses(items: AsyncIterator[Item], pause: Callable[[], float]) -> AsyncGenerator[Item | None, None]:
    """Yield items, and None whenever none has come for `pause()` seconds.

    A task waits for the next item: to cancel an async generator at any place, as a timeout does, is not safe.
    """
    waiting: asyncio.Task[tuple[Item, bool]] | None = None
    try:
        while True:
            if waiting is None:
                waiting = asyncio.create_task(_next(items), name="jimsapi-mcp-progress")
            done, _ = await asyncio.wait((waiting,), timeout=pause())
            if not done:
                yield None
                continue
            item, is_there = waiting.result()
            waiting = None
            if not is_there:
                return
            yield item
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.wait((waiting,))
        if isinstance(items, AsyncGenerator):
            await items.aclose()


async def _next(items: AsyncIterator[Any]) -> tuple[Any, bool]:
    """Return the next item and True; at the end of the items, None and False."""
    try:
        return await anext(items), True
    except StopAsyncIteration:
        return None, False
