"""Requests written to a socket byte by byte, for what no HTTP client would do."""

import re
import socket
from contextlib import closing

TIMEOUT = 10.0


def connect(port: int) -> socket.socket:
    """A connection to a server on this machine."""
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """A request's bytes; `headers` are whole lines."""
    lines = [f"{method} {path} HTTP/1.1", "host: test", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The next answer: status, headers by lower-case name, body. Raises `EOFError` if the server hangs up before it."""
    read = b""
    while b"\r\n\r\n" not in read:
        read += _receive(connection)
    head, _, body = read.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += _receive(connection)
    return int(status.split()[1]), headers, body


def ended(connection: socket.socket) -> bool:
    """Whether the server closes the connection, and without another byte."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def ask(port: int, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes on a connection of their own, and read the answer."""
    with closing(connect(port)) as connection:
        connection.sendall(sent)
        return read_answer(connection)


def metric(text: str, name: str, **labels: str) -> float:
    """The value of a sample in Prometheus's text format, whatever the order of its labels; 0 if it is not there."""
    for line in text.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name and dict(re.findall(r'(\w+)="([^"]*)"', found[2] or "")) == labels:
            return float(found[3])
    return 0.0


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise EOFError("the server hung up")
    return data
