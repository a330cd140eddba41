"""Somebody who chats by one connection and looks at the clock."""

import json
import re
import socket
import time
from typing import NamedTuple

from benchmarks.answers import WITH_KEY

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
PATIENCE = 60.0
IDLE = 3.0
"""Seconds after which a connection is not used again: our command closes it after five at the earliest."""


class Spent(NamedTuple):
    """Seconds until an answer was read, and how many of them the caller itself had a processor."""

    seconds: float
    own: float


class Caller:
    """A caller with a keep-alive connection to a port of this machine, opened anew if nothing was asked for a while:
    servers close those. It takes little time itself, which would hide what the server takes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: socket.socket | None = None
        self._asked_at = 0.0

    def _connected(self) -> socket.socket:
        if self._connection is None or time.monotonic() - self._asked_at > IDLE:
            if self._connection is not None:
                self._connection.close()
            self._connection = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE)
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._asked_at = time.monotonic()
        return self._connection

    def __call__(self, contact_id: str, *, new: bool = False) -> Spent:
        """Chat as a contact, who has a thread unless it is `new`.

        Raises `RuntimeError` for another answer.
        """
        asked = request("/api/v1/chat", contact_id, "Hello?")
        connection = self._connected()
        began, own = time.perf_counter(), time.thread_time()
        connection.sendall(asked)
        answer = b""
        while not is_whole(answer):
            more = connection.recv(1 << 16)
            if not more:
                break
            answer += more
        spent = Spent(time.perf_counter() - began, time.thread_time() - own)
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head[:16] or json.loads(body)["created_new_thread"] != new:
            raise RuntimeError(f"the chat of {contact_id!r} was answered {answer.decode()}")
        return spent


def is_whole(answer: bytes) -> bool:
    """Whether all of an answer that tells its length is there."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = LENGTH.search(head)
    return bool(end) and length is not None and len(body) >= int(length[1])


def request(path: str, contact_id: str, message: str, *headers: str) -> bytes:
    """A message to `path`, as it goes over the wire."""
    body = json.dumps({"contact_id": contact_id, "message": message}).encode()
    lines = [f"POST {path} HTTP/1.1", "host: test", f"content-length: {len(body)}", *headers]
    lines += [f"{name}: {value}" for name, value in WITH_KEY.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
