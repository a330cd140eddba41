"""Logs: one line a request and one an event of interest, written in batches by a thread of its own."""

import json
import logging
import re
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import orjson

from jimsapi.asgi.connection import NOTHING_NOTED, request_id
from jimsapi.asgi.record import UNMATCHED, RequestRecord

WRITE_EVERY = 0.1
"""Seconds between batches."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
AT_ONCE = 500
"""Lines that are written at once. Joining thousands would hold up the event loop, as making them would."""

MAX_PATH = 200
"""Characters of an unmatched path that a line shows."""

Head = tuple[str, str, str, str]
"""What every entry begins with: time, level, logger, message."""

QUEUE_LIMIT = 100_000
"""Lines that wait at most; beyond, the oldest are dropped."""


class LogWriter(logging.Handler):
    """Takes log records and answered requests, and has a thread of its own write their lines.

    A line is made at once: what it tells of may change, and a thread that makes thousands holds up the event loop. Only
    writing, which may block, is left to the thread. `redact` takes secrets out of warnings and exceptions.
    """

    def __init__(self, *, as_json: bool, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact
        self._as_json = as_json
        self._request_line = _request_as_json if as_json else _RequestText().line
        self._waiting: deque[str] = deque(maxlen=QUEUE_LIMIT)
        self._writing = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="log writer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and end."""
        self._stopped.set()
        self.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log record. It is left as it is: other handlers get it too."""
        try:
            line = self._line(record)
        except Exception as error:  # one odd record must not end the log
            line = _unwritable(error)
        self._waiting.append(line)

    def on_request(self, record: RequestRecord) -> None:
        """Take an answered request; probes are not logged."""
        if record.probe:
            return
        try:
            line = self._request_line(_moment(int(time.time() * 1000)), record)
        except Exception as error:  # a note may be any object, and have no text
            line = _unwritable(error)
        self._waiting.append(line)

    def flush(self) -> None:
        """Write what waits."""
        with self._writing:
            for _ in range(0, len(self._waiting), AT_ONCE):
                lines = [self._waiting.popleft() for _ in range(min(len(self._waiting), AT_ONCE))]
                try:
                    sys.stderr.write("".join(lines))
                    sys.stderr.flush()
                except (OSError, ValueError):
                    pass  # nobody reads the log any more; that is no reason to stop serving

    def _work(self) -> None:
        while not self._stopped.wait(WRITE_EVERY):
            self.flush()

    def _line(self, record: logging.LogRecord) -> str:
        try:
            message = record.getMessage()
        except Exception:  # a caller whose format and arguments do not agree must not fail for it
            message = f"{record.msg} {record.args!r}"
        if record.levelno >= logging.WARNING or record.exc_info:
            message = self._redact(message)
        head = (_moment(int(record.created * 1000)), str(record.levelname), str(record.name), message)
        identifier = getattr(record, "request_id", None) or request_id.get("")
        fields = {"request_id": identifier} if identifier else {}
        exception = ""
        if record.exc_info and record.exc_info[0] is not None:
            exception = self._redact("".join(traceback.format_exception(*record.exc_info)))
        return _json(head, fields, exception) if self._as_json else _text(head, fields, exception)


@lru_cache(maxsize=2)
def _moment(milliseconds: int) -> str:
    """A time since the epoch in ISO 8601, spelled once for all lines of that millisecond."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03}Z"


@lru_cache(maxsize=2)
def _second(when: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when))


class _RequestText:
    """Makes the lines of requests, which are most of what a log costs: in one go, and the fields that many requests
    have in common once. Only fields may hold what has to be escaped."""

    def __init__(self) -> None:
        self._fields: Mapping[str, Any] = NOTHING_NOTED
        self._text = ""

    def line(self, moment: str, record: RequestRecord) -> str:
        fields = record.fields
        if fields is not self._fields:
            text = _one_line("".join([f" {name}={value}" for name, value in fields.items()]))
            self._fields, self._text = fields, text
        route = record.route
        if route == UNMATCHED:
            route = f"{route} path={_shown_path(record.path)}"
        return (
            f"{moment} INFO jimsapi.access request method={record.method} route={route} status={record.status}"
            f" duration={record.duration:.6f} request_id={record.request_id}{self._text}\n"
        )


def _request_as_json(moment: str, record: RequestRecord) -> str:
    fields = {
        "method": record.method,
        "route": record.route,
        **({"path": _shown_path(record.path)} if record.route == UNMATCHED else {}),
        "status": record.status,
        "duration": round(record.duration, 6),
        "request_id": record.request_id,
        **record.fields,
    }
    return _json((moment, "INFO", "jimsapi.access", "request"), fields, "")


def _shown_path(path: str) -> str:
    """A path that no route has, which may be anything: without spaces and line breaks, and cut."""
    shown = quote(path[:MAX_PATH], safe="/:@~", errors="replace")
    return shown if len(path) <= MAX_PATH else f"{shown}..."


def _unwritable(error: Exception) -> str:
    return f"a log line could not be written: {type(error).__name__}\n"


def _json(head: Head, fields: dict[str, Any], exception: str) -> str:
    moment, level, logger, message = head
    entry = {"time": moment, "level": level, "logger": logger, "message": message, **fields}
    if exception:
        entry["exception"] = exception
    try:
        line = orjson.dumps(entry, default=str).decode()
    except TypeError:  # lone surrogates, integers beyond 64 bits: the standard library spells them
        return json.dumps(entry, default=str) + "\n"
    # JSON lets some characters stand that others take for the end of a line.
    return (line if line.isascii() else _CONTROL.sub(_as_json_escape, line)) + "\n"


def _text(head: Head, fields: dict[str, Any], exception: str) -> str:
    entry = _one_line(" ".join([*head, *[f"{name}={value}" for name, value in fields.items()]]))
    # Told apart from entries by their margin, whatever text an exception bears.
    trace = "".join([f"    | {_one_line(line)}\n" for line in exception.splitlines()])
    return f"{entry}\n{trace}"


def _one_line(text: str) -> str:
    """Text without what would begin another line or steer a terminal: nobody must be able to forge an entry."""
    return text if text.isprintable() else _CONTROL.sub(_escaped, text)


def _as_json_escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def set_up_logs(*, as_json: bool, verbose: bool, redact: Callable[[str], str]) -> LogWriter:
    """Send all logs of the process to a `LogWriter`, and start it."""
    writer = LogWriter(as_json=as_json, redact=redact)
    root = logging.getLogger()
    root.handlers[:] = [writer]
    root.setLevel(logging.INFO)
    logging.getLogger("jimsapi").setLevel(logging.DEBUG if verbose else logging.INFO)
    # These two repeat what the start line and the request line say.
    for name in ("uvicorn", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_our_fault)
    writer.start()
    return writer


def _is_our_fault(record: logging.LogRecord) -> bool:
    """Whether a record of uvicorn's is more than a client's mistake that uvicorn logs as an error. The close code 1007
    is in the access log."""
    return record.msg != "Invalid UTF-8 sequence received from client."
