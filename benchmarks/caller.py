"""Somebody who chats by one connection and looks at the clock."""

import json
import re
import socket
import time
from typing import NamedTuple

from benchmarks.answers import WITH_KEY

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
PATIENCE = 60.0


class Spent(NamedTuple):
    """Seconds until an answer was read, and how many of them the caller itself had a processor."""

    seconds: float
    own: float


class Caller:
    """A caller with one keep-alive connection to a port of this machine. It takes little time itself, which would hide
    what the server takes."""

    def __init__(self, port: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __call__(self, contact_id: str, *, new: bool = False) -> Spent:
        """Chat as a contact, who has a thread unless it is `new`.

        Raises `RuntimeError` for another answer.
        """
        asked = request("/api/v1/chat", contact_id, "Hello?")
        began, own = time.perf_counter(), time.thread_time()
        self._connection.sendall(asked)
        answer = b""
        while not is_whole(answer):
            more = self._connection.recv(1 << 16)
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
