"""The stream of a run, put together from as many connections as it takes. It does no I/O: it says what to do next."""

import math
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import msgspec

from .answers import Delta, Event, Gap, Item, Result, Run, Started, Status, decode
from .call import Backoff, may_help, unreachable
from .errors import ApiError, ClientError, Unavailable, Unreachable, answered_error, api_error, run_of
from .event_stream import EventStreamReader, SentEvent
from .request import Request, run_path

SILENCE = 45.0
"""Seconds after which a silent stream is taken for broken. The server breaks every silence after 15."""

_END = "end"
_MAX_DIGITS = 18
_ITEMS: dict[str, type[Item]] = {
    "started": Started,
    "status": Status,
    "delta": Delta,
    "event": Event,
    "gap": Gap,
    "result": Result,
}


class Watch:
    """The stream of a run: of the one that answers the message `post`, or of `run_id`, after the item `after`.

    While it is not `over`: send `request()`; if its answer `streams`, feed it what comes and say `ended` or `broke`
    when no more does; else say what it `answered`. Then wait for `pause` seconds. Each item comes once, in order;
    whatever ends the stream in another way than by a result is raised.
    """

    def __init__(
        self, attempts: int, *, post: Request | None = None, run_id: UUID | None = None, after: str | None = None
    ) -> None:
        self.over = False
        self.pause = 0.0
        self._post = post
        self._run_id = run_id
        self._last = after
        self._gap_after: str | None = None
        self._backoff = Backoff(attempts)
        self._reader = EventStreamReader()
        self._passing: ClientError | None = None
        self._failure: str | None = None

    def request(self) -> Request:
        """What to ask for now: the message's answer, the rest of a stream, or, if it told an error, which one it is."""
        self.pause = 0.0
        self._reader = EventStreamReader()
        if self._run_id is None and self._post is not None:
            return self._post
        assert self._run_id is not None
        if self._failure is not None:
            return Request("GET", run_path(self._run_id), {}, None, SILENCE)
        headers = {} if self._last is None else {"last-event-id": self._last}
        return Request("GET", run_path(self._run_id, "/stream"), headers, None, SILENCE)

    def streams(self, status: int, headers: Mapping[str, str]) -> bool:
        """Whether what follows is to be fed; else it is an answer."""
        is_stream = status == 200 and headers.get("content-type", "").startswith("text/event-stream")
        if not is_stream or self._failure is not None:  # how a run failed is no stream
            return False
        # From here on there is a run; sending the message again would find it too, but only while its key is known.
        self._run_id = self._run_id or run_of(headers.get("x-run-id"))
        return True

    def feed(self, data: bytes) -> Iterator[Item]:
        """The items that end within these bytes."""
        for sent in self._reader.feed(data):
            if sent.name == "error":
                self._told_error(sent)
            elif (item := self._item(sent)) is not None:
                if sent.id is not None:  # else it would come again with each connection, and be new each time
                    self._backoff.reset()
                self._passing = None
                yield item

    def answered(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        """An answer came that is no stream. Raises `ApiError`, and what the stream had told of."""
        if status == 200 and self._failure is not None:
            fault = decode(content, Run).error
            raise self._failed(500 if fault is None else fault.status)
        if status == 204:
            self.over = True
            return
        error = answered_error(status, headers, content)
        if 200 <= status < 300:
            error = ApiError(status, "This is no stream of jimsapi's: look at the URL.")
        error.run_id = error.run_id or self._run_id
        pause = self._backoff.pause(error.retry_after or 0) if may_help(error, headers) else None
        if pause is None:
            raise error if self._failure is None else self._failed(500)
        self._passing = error
        self.pause = pause

    def ended(self) -> None:
        """The stream ended as if it were whole. Before its last item that is a broken connection, too."""
        if not self.over and self._failure is None:
            error = Unreachable("The stream ends before its run does: watch it again later.", run_id=self._run_id)
            self._again(error, self._backoff.pause(cut=self._passing is None))

    def broke(self, error: Exception) -> None:
        """The connection failed. Raises `Unreachable`, or what the server had said before, if that was enough."""
        if self.over:
            return
        failure = unreachable(error)
        failure.run_id, failure.__cause__ = self._run_id, error
        self._again(failure, self._backoff.after(error))

    def _again(self, error: ClientError, pause: float | None) -> None:
        if pause is not None:
            self.pause = pause
        elif self._failure is not None:
            raise self._failed(500)
        else:
            raise self._passing or error

    def _item(self, sent: SentEvent) -> Item | None:
        """The item that an event tells; None for one that came before, and for what a newer server may send."""
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
            self.over = True
        return item

    def _is_next(self, sent: SentEvent) -> bool:
        place, last = _place(sent.id), _place(self._last)
        if place != last or sent.name != "gap":
            return place > last
        # Of a run that nobody counted, a gap has the place of what was read last. Once is enough.
        told, self._gap_after = self._gap_after == sent.id, sent.id
        return not told

    def _told_error(self, sent: SentEvent) -> None:
        detail = str(decode(sent.data, dict[str, Any]).get("detail"))
        if sent.id is None:  # it ended the stream, and not the run
            self._passing = Unavailable(503, detail, run_id=self._run_id)
        elif self._run_id is None:
            raise api_error(500, detail)
        else:
            self._last = sent.id
            self._failure = detail

    def _failed(self, status: int) -> ApiError:
        return api_error(status, self._failure, run_id=self._run_id)


def _place(id: str | None) -> float:
    """Where in a stream the item with an `id` is; 0 is before the first."""
    if id == _END:
        return math.inf
    return int(id) if id is not None and id.isascii() and id.isdigit() and len(id) <= _MAX_DIGITS else 0
