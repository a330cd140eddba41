"""Server-sent events (WHATWG HTML, section 9.2)."""

import re
from collections.abc import AsyncIterable, Mapping

from .response import StreamingResponse

_LINE_END = re.compile(r"\r\n|\r|\n")
_NOT_IN_A_FIELD = re.compile(r"[\r\n\0]")


class ServerSentEvent:
    """One event: `data` of any number of lines, and optionally its type, its id and the reconnection time `retry` in
    milliseconds.

    Raises `ValueError` for a line break or NUL in `event` or `id`, which would end the field or void it, and for a
    negative `retry`.
    """

    __slots__ = ("data", "event", "id", "retry")

    def __init__(
        self, data: str | bytes, event: str | None = None, id: str | None = None, retry: int | None = None
    ) -> None:
        for name, field in (("event", event), ("id", id)):
            if field is not None and _NOT_IN_A_FIELD.search(field):
                raise ValueError(f"The {name} of a server-sent event must not hold a line break or NUL.")
        if retry is not None and retry < 0:
            raise ValueError("The retry of a server-sent event is a number of milliseconds, 0 or more.")
        self.data = data.decode() if isinstance(data, bytes) else data
        self.event = event
        self.id = id
        self.retry = retry

    def encode(self) -> bytes:
        """The event as it goes over the wire, with the empty line that ends it."""
        lines = []
        if self.event is not None:
            lines.append(f"event: {self.event}")
        if self.id is not None:
            lines.append(f"id: {self.id}")
        if self.retry is not None:
            lines.append(f"retry: {self.retry}")
        lines += [f"data: {line}" for line in _LINE_END.split(self.data)]
        return ("\n".join(lines) + "\n\n").encode()

    def __repr__(self) -> str:
        return f"ServerSentEvent(event={self.event!r}, id={self.id!r}, data={self.data!r})"


class EventStreamResponse(StreamingResponse):
    """A stream of server-sent events. After `keepalive` seconds without one a comment is sent, so that proxies do not
    take the connection for dead. A `StreamingResponse` otherwise."""

    __slots__ = ("keepalive",)

    ping = b": ping\n\n"

    def __init__(
        self,
        events: AsyncIterable[ServerSentEvent],
        keepalive: float | None = 15.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(events, 200, None, "text/event-stream; charset=utf-8")
        self.keepalive = keepalive
        self._add({"cache-control": "no-store", "x-accel-buffering": "no"})
        if headers:
            self._add(headers)

    def encode(self, item: ServerSentEvent) -> bytes:
        return item.encode()
