"""Server-sent events (WHATWG HTML, section 9.2), read from bytes as they come."""

import re
from collections.abc import Iterator

import msgspec

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


class SentEvent(msgspec.Struct, frozen=True):
    """One event. `id` is its own, None if it has none: then who resumes goes on after an earlier one."""

    name: str
    data: bytes
    id: str | None


class EventStreamReader:
    """Takes a stream apart, wherever the network cut it into pieces.

    Nothing is decoded before a line is whole, and what is not whole at the end is no event.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # of the line that is not whole, in the pieces in which it came
        self._after_cr = False
        self._first = True
        self._name = ""
        self._data: list[bytes] = []
        self._id: str | None = None

    def feed(self, data: bytes) -> Iterator[SentEvent]:
        """The events that end within these bytes."""
        for line in self._lines(data):
            if line:
                self._take(line)
            else:
                yield from self._end()

    def _lines(self, data: bytes) -> list[bytes]:
        if self._after_cr and data:
            data = data.removeprefix(b"\n")  # the other half of a line end
            self._after_cr = False
        *lines, rest = _LINE_END.split(data)
        self._after_cr = self._after_cr or data.endswith(b"\r")
        if lines:
            lines[0] = b"".join((*self._rest, lines[0]))
            self._rest = []
            if self._first:
                self._first = False
                lines[0] = lines[0].removeprefix(_BOM)
        self._rest.append(rest)
        return lines

    def _take(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")

    def _end(self) -> Iterator[SentEvent]:
        if self._data:
            yield SentEvent(self._name or "message", b"\n".join(self._data), self._id)
        self._name, self._data, self._id = "", [], None
