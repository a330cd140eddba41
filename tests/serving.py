"""The command, served for a test: a real process on a free port of 127.0.0.1."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

ROOT = Path(__file__).resolve().parents[1]
STEERED = "tests.apps.steered:app"
START_WITHIN = 30.0
STOP_WITHIN = 30.0

_ADDRESS = re.compile(r" (?:at|on) https?://[^ ,]+:(\d+)[/ ,]")


class Served:
    """`python -m jimsapi` with `options`, from entering to leaving; it listens when it is entered.

    It serves `--app tests.apps.steered:app` from memory, without a metrics port, unless the options say otherwise.
    `folder` is its current folder and `env` adds to its environment, which holds no `JIMS_*` of ours.
    """

    def __init__(self, *options: str, folder: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        defaults = {"--app": STEERED, "--store": "memory:", "--metrics-port": "0", "--port": "0", "--host": "127.0.0.1"}
        given = [part for name, value in defaults.items() if name not in options for part in (name, value)]
        self.command = [sys.executable, "-m", "jimsapi", *given, *options]
        self.folder = folder or ROOT
        clean = {name: value for name, value in os.environ.items() if not name.startswith("JIMS_")}
        path = os.pathsep.join([str(self.folder), str(ROOT)])
        self.env = {**clean, "PYTHONPATH": path, **(env or {})}
        self.port = 0
        descriptor, self._log = tempfile.mkstemp(suffix=".log")
        os.close(descriptor)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self.close()

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process."""
        assert self.process is not None
        return self.process.pid

    @property
    def stderr(self) -> str:
        """What it has written so far, on both outputs."""
        return Path(self._log).read_text(encoding="utf-8")

    def launch(self) -> None:
        """Start the process, and do not wait for it."""
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def start(self) -> None:
        """Start it and wait until it listens. Raises `RuntimeError` with its output if it ends instead."""
        before = len(self.stderr)
        self.launch()
        assert self.process is not None
        until = time.monotonic() + START_WITHIN
        while (address := _ADDRESS.search(self.stderr, before)) is None:
            if self.process.poll() is not None or time.monotonic() > until:
                self.process.kill()
                raise RuntimeError(f"the server did not start:\n{self.stderr}")
            time.sleep(0.02)
        self.port = int(address[1])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it by a signal; returns its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def close(self) -> None:
        """Remove what it has written."""
        os.unlink(self._log)

    def client(self, **options: object) -> httpx.Client:
        """A client of it."""
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False, **options)  # type: ignore[arg-type] # httpx's own

    def async_client(self, **options: object) -> httpx.AsyncClient:
        """An async client of it, without a limit on connections."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        return httpx.AsyncClient(base_url=self.url, timeout=30, trust_env=False, limits=limits, **options)  # type: ignore[arg-type] # httpx's own
