"""The stream of a run over several connections, without I/O: the caller sends requests and reports what happened."""

import math
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import msgspec

from .answers import Activity, Delta, Event, Gap, Item, Reasoning, Result, Run, Started, Status, decode
from .call import Backoff, is_retryable, unreachable
from .errors import ApiError, ClientError, Unavailable, Unreachable, answered_error, api_error, run_of
from .event_stream import EventStreamReader, SentEvent
from .request import Request, run_path

SILENCE = 45.0
"""Seconds without any data after which the connection counts as lost. The server sends something every 15 seconds."""

_END = "end"
_MAX_DIGITS = 18
_ITEMS: dict[str, type[Item]] = {
    "started": Started,
    "status": Status,
    "delta": Delta,
    "reasoning": Reasoning,
    "activity": Activity,
    "event": Event,
    "gap": Gap,
    "result": Result,
}


class Watch:
    """The stream of a run: of the run that the message `post` begins, or of `run_id`, after the item `after`.

    Until `finished` is true, the caller

    1. sends `request()`;
    2. if `is_stream` returns true for the answer's head, passes the body to `feed`, and then calls `on_stream_end`;
       otherwise calls `on_response`;
    3. calls `on_connection_error` if the connection fails;
    4. waits for `pause` seconds.

    `feed` yields each item once and in order. If the stream ends without a result, one of the methods raises
    `ClientError`.
    """

    def __init__(
        self, attempts: int, *, post: Request | None = None, run_id: UUID | None = None, after: str | None = None
    ) -> None:
        self.finished = False
        self.pause = 0.0
        self._post = post
        self._run_id = run_id
        self._last = after
        self._gap_after: str | None = None
        self._backoff = Backoff(attempts)
        self._reader = EventStreamReader()
        self._stream_error: ClientError | None = None
        self._run_error: str | None = None

    def request(self) -> Request:
        """Return the next request: the message, the rest of the stream, or, after an error event, the run's state."""
        self.pause = 0.0
        self._reader = EventStreamReader()
        if self._run_id is None and self._post is not None:
            return self._post
        assert self._run_id is not None
        if self._run_error is not None:
            return Request("GET", run_path(self._run_id), {}, None, SILENCE)
        headers = {} if self._last is None else {"last-event-id": self._last}
        return Request("GET", run_path(self._run_id, "/stream"), headers, None, SILENCE)

    def is_stream(self, status: int, headers: Mapping[str, str]) -> bool:
        """Return whether the answer is an event stream, whose body is for `feed`."""
        is_stream = status == 200 and headers.get("content-type", "").startswith("text/event-stream")
        if not is_stream or self._run_error is not None:  # after an error event the request is for the run's state
            return False
        # The next request asks for the run. Sending the message again would work only while the server knows its key.
        self._run_id = self._run_id or run_of(headers.get("x-run-id"))
        return True

    def feed(self, data: bytes) -> Iterator[Item]:
        """Yield the items that are complete with the next chunk `data`."""
        for sent in self._reader.feed(data):
            if sent.name == "error":
                self._on_error_event(sent)
            elif (item := self._item(sent)) is not None:
                if sent.id is not None:  # an item without an id comes again with each connection
                    self._backoff.reset()
                self._stream_error = None
                yield item

    def on_response(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        """The answer is not a stream. Raises `ApiError` for it, or for the error event that the stream ended with."""
        if status == 200 and self._run_error is not None:
            fault = decode(content, Run).error
            raise self._run_failed(500 if fault is None else fault.status)
        if status == 204:
            self.finished = True
            return
        error = answered_error(status, headers, content)
        if 200 <= status < 300:
            error = ApiError(status, "This is not a stream of jimsapi: check the URL.")
        error.run_id = error.run_id or self._run_id
        pause = self._backoff.pause(error.retry_after or 0) if is_retryable(error, headers) else None
        if pause is None:
            raise error if self._run_error is None else self._run_failed(500)
        self._stream_error = error
        self.pause = pause

    def on_stream_end(self) -> None:
        """The body ended. If the last item is missing, that counts as a lost connection."""
        if not self.finished and self._run_error is None:
            error = Unreachable("The stream ended before its run: watch the run again later.", run_id=self._run_id)
            self._retry_or_raise(error, self._backoff.pause(cut=self._stream_error is None))

    def on_connection_error(self, error: Exception) -> None:
        """The connection failed. Raises `Unreachable`, or an earlier error of the server, to give up."""
        if self.finished:
            return
        failure = unreachable(error)
        failure.run_id, failure.__cause__ = self._run_id, error
        self._retry_or_raise(failure, self._backoff.after(error))

    def _retry_or_raise(self, error: ClientError, pause: float | None) -> None:
        if pause is not None:
            self.pause = pause
        elif self._run_error is not None:
            raise self._run_failed(500)
        else:
            raise self._stream_error or error

    def _item(self, sent: SentEvent) -> Item | None:
        """The item of an event; None for an item that was yielded before, or of a type that this client does not
        know."""
        if sent.id is not None and not self._is_next(sent):
            return None
        if sent.id is not None:
            self._last = sent.id
        kind = _ITEMS.get(sent.name)
        if kind is None:
            return None
        item: Item = decode(sent.data, kind)
        if sent.id is not None:
            msgspec.structs.force_setattr(item, "id", sent.id)
        if isinstance(item, Started):
            self._run_id = item.run_id
        elif isinstance(item, Result):
            msgspec.structs.force_setattr(item, "run_id", self._run_id)
            self.finished = True
        return item

    def _is_next(self, sent: SentEvent) -> bool:
        position, last = _position(sent.id), _position(self._last)
        if position != last or sent.name != "gap":
            return position > last
        # If the server did not count the missed items, the gap has the id of the last item. Yield such a gap only once.
        is_repeated, self._gap_after = self._gap_after == sent.id, sent.id
        return not is_repeated

    def _on_error_event(self, sent: SentEvent) -> None:
        detail = str(decode(sent.data, dict[str, Any]).get("detail"))
        if sent.id is None:  # the stream ends and the run goes on
            self._stream_error = Unavailable(503, detail, run_id=self._run_id)
        elif self._run_id is None:
            raise api_error(500, detail)
        else:
            self._last = sent.id
            self._run_error = detail

    def _run_failed(self, status: int) -> ApiError:
        return api_error(status, self._run_error, run_id=self._run_id)


def _position(id: str | None) -> float:
    """The position in the stream of the item with an `id`; 0 is before the first item."""
    if id == _END:
        return math.inf
    return int(id) if id is not None and id.isascii() and id.isdigit() and len(id) <= _MAX_DIGITS else 0
