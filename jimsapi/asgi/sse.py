"""Server-sent events (WHATWG HTML, section 9.2)."""

import re
from collections.abc import AsyncIterable, Mapping

from .streaming import StreamingResponse

# Shared by all streams, to save memory for each open stream.
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]

_LINE_END = re.compile(rb"\r\n|\r|\n")
_LF, _CR = b"\n\r"  # the search for a byte in bytes is much faster with a number
_NOT_IN_A_FIELD = re.compile(r"[\r\n\0]")


class ServerSentEvent:
    """One event of a stream.

    - `data`: any number of lines, as text or as UTF-8 bytes.
    - `event`: the type of the event; optional.
    - `id`: the id of the event; optional.
    - `retry`: the reconnection time in milliseconds; optional.

    Raises `ValueError` for a line break or NUL in `event` or `id`, which would end or invalidate the field, and for a
    negative `retry`.
    """

    __slots__ = ("data", "event", "id", "retry")

    def __init__(
        self, data: str | bytes, event: str | None = None, id: str | None = None, retry: int | None = None
    ) -> None:
        # Printable text contains none of the three, and `isprintable` is much faster than the search.
        if event is not None and not event.isprintable():
            _check("event", event)
        if id is not None and not id.isprintable():
            _check("id", id)
        if retry is not None and retry < 0:
            raise ValueError("The retry of a server-sent event is a number of milliseconds, 0 or more.")
        self.data = data
        self.event = event
        self.id = id
        self.retry = retry

    def encode(self) -> bytes:
        """Return the event in the format of the stream, with the empty line that ends it."""
        head = "data: " if self.id is None else f"id: {self.id}\ndata: "
        if self.event is not None:
            head = f"event: {self.event}\n{head}"
        if self.retry is not None:
            head = f"retry: {self.retry}\n{head}"
        data = self.data.encode() if isinstance(self.data, str) else self.data
        if _LF in data or _CR in data:  # compact JSON contains none, and is not split
            data = b"\ndata: ".join(_LINE_END.split(data))
        return head.encode() + data + b"\n\n"

    def __repr__(self) -> str:
        return f"ServerSentEvent(event={self.event!r}, id={self.id!r}, data={self.data!r})"


def _check(name: str, field: str) -> None:
    if _NOT_IN_A_FIELD.search(field):
        raise ValueError(f"The {name} of a server-sent event must not contain a line break or NUL.")


class EventStreamResponse(StreamingResponse):
    """A `StreamingResponse` of server-sent events: `ServerSentEvent`s or encoded bytes.

    After `keepalive` seconds without an event a comment is sent, so that proxies do not close the connection. If it
    is None, no comments are sent. `headers` are added to the response. `endless` is that of `StreamingResponse`; after
    a drain a browser's `EventSource` then connects again, to the next server.
    """

    __slots__ = ("keepalive",)

    ping = b": ping\n\n"

    def __init__(
        self,
        events: AsyncIterable[ServerSentEvent | bytes],
        keepalive: float | None = 15.0,
        headers: Mapping[str, str] | None = None,
        *,
        endless: bool = False,
    ) -> None:
        super().__init__(events, content_type=None, endless=endless)
        self.keepalive = keepalive
        self.raw_headers = _HEADERS.copy()
        if headers:
            self._add(headers)

    def encode(self, item: ServerSentEvent | bytes) -> bytes:
        return item if isinstance(item, bytes) else item.encode()
