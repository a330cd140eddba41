"""A way to a server that breaks once, in the middle of an answer."""

import socket
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Lock, Thread
from typing import Any, Self

_AT_ONCE = 65536


class CuttingProxy(ThreadingTCPServer):
    """Passes on what comes, on a free port of 127.0.0.1, until the server says `mark`: there the connection is cut.

    It does so once. `resumed` is set when a client then asks for a stream again.
    """

    daemon_threads = True  # a browser's connections stay open for longer than a test

    def __init__(self, port: int, mark: bytes) -> None:
        super().__init__(("127.0.0.1", 0), BaseRequestHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.cut = Event()
        self.resumed = Event()
        self._to = ("127.0.0.1", port)
        self._mark = mark
        self._cutting = Lock()
        self._serving = Thread(target=self.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._serving.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._serving.join()

    def finish_request(self, request: Any, client_address: object) -> None:
        """Pass on what comes over one connection, to and fro, until it ends."""
        with socket.create_connection(self._to) as server:
            asking = Thread(target=self._ask, args=(request, server), daemon=True)
            asking.start()
            self._answer(request, server)
            _hang_up(request)
            _hang_up(server)
            asking.join()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(_AT_ONCE):
                if self.cut.is_set() and b"/stream HTTP/1.1\r\n" in data:
                    self.resumed.set()
                server.sendall(data)
        _hang_up(server)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        before = b""
        with suppress(OSError):
            while data := server.recv(_AT_ONCE):
                seen = before + data  # the mark may come in two pieces
                if self._mark in seen and self._is_first():
                    client.sendall(seen[len(before) : seen.index(self._mark)])
                    return
                client.sendall(data)
                before = seen[-len(self._mark) :]

    def _is_first(self) -> bool:
        with self._cutting:
            first = not self.cut.is_set()
            self.cut.set()
            return first


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
