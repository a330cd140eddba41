"""The ASGI servers that the app is promised to run on, each as a process of its own; uvicorn also as in the command."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest

from tests.ports import free_port, listens

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.asgi.served:app"
START_WITHIN = 30.0

COMMANDS = {
    "uvicorn-httptools": ["uvicorn", APP, "--port", "{port}", "--http", "httptools", "--root-path", "{root}"],
    "uvicorn-h11": [
        *("uvicorn", APP, "--port", "{port}", "--http", "h11", "--loop", "asyncio", "--ws", "wsproto"),
        *("--root-path", "{root}"),
    ],
    "uvicorn-jimsapi": [
        *("uvicorn", APP, "--port", "{port}", "--http", "jimsapi.server.http1:Http1Protocol", "--loop", "uvloop"),
        *("--root-path", "{root}"),
    ],
    "hypercorn-asyncio": ["hypercorn", APP, "-b", "127.0.0.1:{port}", "-k", "asyncio", "--root-path", "{root}"],
    "hypercorn-trio": ["hypercorn", APP, "-b", "127.0.0.1:{port}", "-k", "trio", "--root-path", "{root}"],
    "granian": ["granian", APP, "--interface", "asgi", "--port", "{port}", "--url-path-prefix", "{root}"],
}


def rows(*long: str, without: str = "") -> list[Any]:
    """The names of the servers for a test's parameters. Only `make test-long` runs those that are `long`."""
    names = sorted(COMMANDS.keys() - {without})
    return [pytest.param(name, marks=pytest.mark.long) if name in long else name for name in names]


class Server:
    """One of `COMMANDS`, from entering to leaving."""

    def __init__(self, name: str, root_path: str = "", more: Sequence[str] = ()) -> None:
        self.name = name
        self.port = free_port()
        parts = COMMANDS[name] if root_path else COMMANDS[name][:-2]  # without the option and the value at the end
        self.command = [
            sys.executable,
            "-m",
            *(part.format(port=self.port, root=root_path) for part in (*parts, *more)),
        ]
        self._log = tempfile.NamedTemporaryFile(suffix=".log")  # noqa: SIM115 - closed on leaving
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self.command, cwd=ROOT, stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL
        )
        until = time.monotonic() + START_WITHIN
        while not listens(self.port):
            if self._process.poll() is not None or time.monotonic() > until:
                self._process.kill()
                raise RuntimeError(f"{self.name} did not start:\n{self.log}")
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    @property
    def log(self) -> str:
        """What it has written."""
        return Path(self._log.name).read_text(encoding="utf-8", errors="replace")

    def sockets(self) -> int:
        """How many sockets it has open."""
        assert self._process is not None
        found = 0
        for name in Path(f"/proc/{self._process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found += str(name.readlink()).startswith("socket:")
        return found

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def client(self, http2: bool = False) -> httpx.Client:
        """A client of it; with `http2` it speaks nothing else."""
        url = f"http://127.0.0.1:{self.port}"
        return httpx.Client(base_url=url, timeout=20, trust_env=False, http1=not http2, http2=http2)


class Wire:
    """A connection written to byte by byte, for what no HTTP client would do; answers are read one by one.

    A small `receive_buffer`, in bytes, makes the server notice soon that nobody reads.
    """

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(10)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port))
        self._reader = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reader.close()
        self.socket.close()

    def send(self, method: str, path: str, *headers: str, body: bytes = b"") -> None:
        """A request; `headers` are whole lines."""
        lines = "\r\n".join([f"{method} {path} HTTP/1.1", "host: test", *headers, "", ""])
        self.socket.sendall(lines.encode("latin-1") + body)

    def head(self) -> tuple[int, dict[str, str]]:
        """The status and headers of the next answer. Raises `EOFError` if the server hangs up before it."""
        status_line = self._reader.readline()
        if not status_line:
            raise EOFError("the server hung up")
        headers = {}
        while line := self._reader.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return int(status_line.split()[1]), headers

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer whole, by its content-length."""
        status, headers = self.head()
        return status, headers, self._reader.read(int(headers.get("content-length", "0")))

    def read(self, size: int) -> bytes:
        """The next `size` bytes, or as many as come before the end."""
        return self._reader.read(size)


def ask(port: int, method: str, path: str, *headers: str) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own."""
    with Wire(port) as wire:
        wire.send(method, path, *headers)
        return wire.answer()
