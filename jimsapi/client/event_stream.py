"""An incremental parser of server-sent events (WHATWG HTML, section 9.2)."""

import re
from collections.abc import Iterator

import msgspec

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


class SentEvent(msgspec.Struct, frozen=True):
    """One event. `id` is None if the event has none of its own; a client then resumes after an earlier event."""

    name: str
    data: bytes
    id: str | None


class EventStreamReader:
    """Parses a stream that arrives in chunks of any size.

    It decodes only complete lines. An event that is not complete at the end of the stream is dropped.
    """

    def __init__(self) -> None:
        self._partial_line: list[bytes] = []  # in the chunks in which it arrived
        self._after_cr = False
        self._first = True
        self._name = ""
        self._data: list[bytes] = []
        self._id: str | None = None

    def feed(self, data: bytes) -> Iterator[SentEvent]:
        """Yield the events that are complete with the next chunk `data`."""
        for line in self._lines(data):
            if line:
                self._read_field(line)
            else:
                yield from self._end_event()

    def _lines(self, data: bytes) -> list[bytes]:
        if self._after_cr and data:
            data = data.removeprefix(b"\n")  # the second half of a CRLF
            self._after_cr = False
        *lines, rest = _LINE_END.split(data)
        self._after_cr = self._after_cr or data.endswith(b"\r")
        if lines:
            lines[0] = b"".join((*self._partial_line, lines[0]))
            self._partial_line = []
            if self._first:
                self._first = False
                lines[0] = lines[0].removeprefix(_BOM)
        self._partial_line.append(rest)
        return lines

    def _read_field(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")

    def _end_event(self) -> Iterator[SentEvent]:
        if self._data:
            yield SentEvent(self._name or "message", b"\n".join(self._data), self._id)
        self._name, self._data, self._id = "", [], None
