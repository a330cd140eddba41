"""Logs: one line for each request and each log record, written in batches by a thread."""

import fcntl
import json
import logging
import re
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import orjson

from jimsapi.asgi.connection import NOTHING_NOTED, request_id
from jimsapi.asgi.record import UNMATCHED, RequestRecord

WRITE_EVERY = 0.1
"""Seconds between two batches."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
LINES_AT_ONCE = 500
"""Lines that are written at once. Joining thousands of lines would block the event loop."""

MAX_PATH = 200
"""Characters of an unmatched path that a log line contains."""

Head = tuple[str, str, str, str]
"""The beginning of every entry: time, level, logger, message."""

QUEUE_LIMIT = 100_000
"""Lines that may wait to be written. If there are more, the oldest are dropped."""


class LogWriter(logging.Handler):
    """Formats log records and answered requests, and writes the lines in a thread of its own.

    It formats each line at once, because the objects in a record may change, and because a thread that formats
    thousands of lines would block the event loop. Only writing, which may block, happens in the thread. `redact`
    replaces secrets in warnings and exceptions. If other processes write to the same standard error, the writer is
    `shared`: each batch is written as a whole.
    """

    def __init__(self, *, as_json: bool, redact: Callable[[str], str], shared: bool = False) -> None:
        super().__init__()
        self._shared = shared
        self._redact = redact
        self._as_json = as_json
        self._request_line = _request_as_json if as_json else _RequestText().line
        self._waiting: deque[str] = deque(maxlen=QUEUE_LIMIT)
        self._writing = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="log writer", daemon=True)

    @property
    def waiting(self) -> int:
        """The number of lines that wait to be written."""
        return len(self._waiting)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Write all waiting lines, and stop the thread."""
        self._stopped.set()
        self.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Format a log record. Does not change the record, because other handlers receive it too."""
        try:
            line = self._line(record)
        except Exception as error:  # a record that cannot be formatted must not break the log
            line = _error_line(error)
        self._waiting.append(line)

    def on_request(self, record: RequestRecord) -> None:
        """Format the line of an answered request. Probes are not logged."""
        if record.probe:
            return
        try:
            line = self._request_line(_timestamp(int(time.time() * 1000)), record)
        except Exception as error:  # a field may be any object, and its `__str__` may raise
            line = _error_line(error)
        self._waiting.append(line)

    def flush(self) -> None:
        """Write all waiting lines."""
        with self._writing:
            for _ in range(0, len(self._waiting), LINES_AT_ONCE):
                lines = [self._waiting.popleft() for _ in range(min(len(self._waiting), LINES_AT_ONCE))]
                try:
                    with _locked() if self._shared else nullcontext():
                        sys.stderr.write("".join(lines))
                        sys.stderr.flush()
                except (OSError, ValueError):
                    pass  # the log's reader has disconnected, and the server continues without it

    def _work(self) -> None:
        while not self._stopped.wait(WRITE_EVERY):
            self.flush()

    def _line(self, record: logging.LogRecord) -> str:
        try:
            message = record.getMessage()
        except Exception:  # the arguments do not fit the format; logging must not raise
            message = f"{record.msg} {record.args!r}"
        if record.levelno >= logging.WARNING or record.exc_info:
            message = self._redact(message)
        head = (_timestamp(int(record.created * 1000)), str(record.levelname), str(record.name), message)
        identifier = getattr(record, "request_id", None) or request_id.get("")
        fields = {"request_id": identifier} if identifier else {}
        exception = ""
        if record.exc_info and record.exc_info[0] is not None:
            exception = self._redact("".join(traceback.format_exception(*record.exc_info)))
        return _json(head, fields, exception) if self._as_json else _text(head, fields, exception)


@contextmanager
def _locked() -> Iterator[None]:
    """Let other processes that write to standard error wait. The kernel ends the lock of a process that dies."""
    descriptor = sys.stderr.fileno()
    fcntl.lockf(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(descriptor, fcntl.LOCK_UN)


@lru_cache(maxsize=2)
def _timestamp(milliseconds: int) -> str:
    """Return a time since the epoch in ISO 8601. The cache serves all lines of the same millisecond."""
    seconds, fraction = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{fraction:03}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


class _RequestText:
    """Formats the lines of requests as text. These are the most frequent lines, so fields that many requests share are
    formatted once. Only the fields may contain characters that have to be escaped."""

    def __init__(self) -> None:
        self._fields: Mapping[str, Any] = NOTHING_NOTED
        self._text = ""

    def line(self, timestamp: str, record: RequestRecord) -> str:
        fields = record.fields
        if fields is not self._fields:
            text = _one_line("".join([f" {name}={value}" for name, value in fields.items()]))
            self._fields, self._text = fields, text
        route = record.route
        if route == UNMATCHED:
            route = f"{route} path={_quote_path(record.path)}"
        return (
            f"{timestamp} INFO jimsapi.access request method={record.method} route={route} status={record.status}"
            f" duration={record.duration:.6f} request_id={record.request_id}{self._text}\n"
        )


def _request_as_json(timestamp: str, record: RequestRecord) -> str:
    fields = {
        "method": record.method,
        "route": record.route,
        **({"path": _quote_path(record.path)} if record.route == UNMATCHED else {}),
        "status": record.status,
        "duration": round(record.duration, 6),
        "request_id": record.request_id,
        **record.fields,
    }
    return _json((timestamp, "INFO", "jimsapi.access", "request"), fields, "")


def _quote_path(path: str) -> str:
    """Return a path that no route matches, percent-encoded and shortened: it may contain any characters."""
    shown = quote(path[:MAX_PATH], safe="/:@~", errors="replace")
    return shown if len(path) <= MAX_PATH else f"{shown}..."


def _error_line(error: Exception) -> str:
    return f"a log line could not be written: {type(error).__name__}\n"


def _json(head: Head, fields: dict[str, Any], exception: str) -> str:
    timestamp, level, logger, message = head
    entry = {"time": timestamp, "level": level, "logger": logger, "message": message, **fields}
    if exception:
        entry["exception"] = exception
    try:
        line = orjson.dumps(entry, default=str).decode()
    except TypeError:  # lone surrogates and integers beyond 64 bits, which the standard library can encode
        return json.dumps(entry, default=str) + "\n"
    # JSON allows some characters unescaped that other programs treat as line ends.
    return (line if line.isascii() else _CONTROL.sub(_as_json_escape, line)) + "\n"


def _text(head: Head, fields: dict[str, Any], exception: str) -> str:
    entry = _one_line(" ".join([*head, *[f"{name}={value}" for name, value in fields.items()]]))
    # The margin distinguishes these lines from entries, whatever the text of the exception is.
    trace = "".join([f"    | {_one_line(line)}\n" for line in exception.splitlines()])
    return f"{entry}\n{trace}"


def _one_line(text: str) -> str:
    """Return a text with line ends and control characters escaped, so that no caller can forge a log entry."""
    return text if text.isprintable() else _CONTROL.sub(_escape, text)


def _as_json_escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def set_up_logs(*, as_json: bool, verbose: bool, redact: Callable[[str], str], shared: bool = False) -> LogWriter:
    """Send all logs of the process to a new `LogWriter`, start it, and return it."""
    writer = LogWriter(as_json=as_json, redact=redact, shared=shared)
    root = logging.getLogger()
    root.handlers[:] = [writer]
    root.setLevel(logging.INFO)
    logging.getLogger("jimsapi").setLevel(logging.DEBUG if verbose else logging.INFO)
    # The info logs of these two repeat the start line and the request line.
    for name in ("uvicorn", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_server_error)
    writer.start()
    return writer


def _is_server_error(record: logging.LogRecord) -> bool:
    """Return whether a record of uvicorn is an error of the server.

    uvicorn also logs invalid UTF-8 from clients as an error. The access log has the close code 1007 for it.
    """
    return record.msg != "Invalid UTF-8 sequence received from client."
