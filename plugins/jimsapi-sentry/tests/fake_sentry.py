"""A Sentry of the test's own: a server that keeps the envelopes it gets."""

import gzip
import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WITHIN = 20.0
"""Seconds after which a test gives up on an event."""


@dataclass
class Envelope:
    """What one request to Sentry held: `text` is all of it, `items` are its JSON payloads by type."""

    text: str
    items: list[tuple[str, dict[str, Any]]]


class FakeSentry:
    """Listens on a free port. Its envelopes are read by `wait_for`, or when the sender has ended."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self._came = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def dsn(self) -> str:
        return f"http://0123456789abcdef@127.0.0.1:{self._server.server_port}/7"

    @property
    def text(self) -> str:
        """Everything that was sent, as text."""
        return "\n".join(envelope.text for envelope in self.envelopes)

    def payloads(self, kind: str) -> list[dict[str, Any]]:
        """The payloads of one type: `event` or `transaction`."""
        return [payload for envelope in self.envelopes for found, payload in envelope.items if found == kind]

    def wait_for(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until `count` payloads of a type are here."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.payloads(kind)) >= count, WITHIN), self.text
        return self.payloads(kind)

    def take(self, body: bytes) -> None:
        with self._came:
            self.envelopes.append(_read(body))
            self._came.notify_all()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(sentry: FakeSentry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            sentry.take(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _read(body: bytes) -> Envelope:
    """Read an envelope: a line of headers, then for each item a line of its own and its payload."""
    _, rest = body.split(b"\n", 1)
    items = []
    while rest.strip():
        line, rest = rest.split(b"\n", 1)
        head = json.loads(line)
        length = head.get("length", rest.find(b"\n") % (len(rest) + 1))
        items.append((head["type"], json.loads(rest[:length])))
        rest = rest[length:].lstrip(b"\n")
    return Envelope(body.decode(), items)
