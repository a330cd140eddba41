"""Fixtures of all tests."""

import re
import subprocess
from collections.abc import Iterator

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The backend of async tests. The server uses asyncio too."""
    return "asyncio"


class NatsServer:
    """A NATS server on a free port. After a stop it can start again on the same port."""

    def __init__(self) -> None:
        self.port = -1
        self.start()

    @property
    def url(self) -> str:
        return f"nats://ann:open-sesame@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        command = ["nats-server", "--addr", "127.0.0.1", "--port", str(self.port)]
        command += ["--user", "ann", "--pass", "open-sesame"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"Listening for client connections on .*:(\d+)", line):
                self.port = int(found[1])
            if "Server is ready" in line:
                return
        raise RuntimeError("nats-server did not start")

    def stop(self) -> None:
        """Stop the server."""
        with self._process:
            self._process.kill()


@pytest.fixture
def server() -> Iterator[NatsServer]:
    running = NatsServer()
    yield running
    running.stop()
