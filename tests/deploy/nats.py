"""A NATS server with the arguments of a file of `deploy/`, as a real process on free ports of 127.0.0.1."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.deploy.proxies import program
from tests.ports import free_port
from tests.waiting import eventually


class Nats:
    """Runs from entering to leaving, with `folder` in place of `/data`."""

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self._folder = folder
        self._monitor = free_port()
        changed = {"--store_dir=/data": f"--store_dir={folder}", "--http_port=8222": f"--http_port={self._monitor}"}
        assert changed.keys() <= set(arguments)
        own = [f"--port={free_port()}", "--addr=127.0.0.1"]
        self._command = [program("nats-server"), *(changed.get(each, each) for each in arguments), *own]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with (self._folder / "output.log").open("wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(self._answers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)

    def get(self, path: str) -> httpx.Response:
        """Ask its monitoring port."""
        return httpx.get(f"http://127.0.0.1:{self._monitor}{path}", trust_env=False)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._command} ended:\n{(self._folder / 'output.log').read_text()}")
        try:
            return self.get("/healthz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False
