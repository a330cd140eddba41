"""The command, served for a test on a Unix socket."""

from pathlib import Path

import httpx

from tests.serving import Served
from tests.waiting import eventually


class OnSocket(Served):
    """A server that listens at `path`."""

    def __init__(self, path: Path, *options: str, folder: Path | None = None) -> None:
        super().__init__("--uds", str(path), *options, folder=folder)
        self.path = path

    def start(self) -> None:
        """Start it, and wait until it listens."""
        before = len(self.stderr)
        self.launch()
        eventually(lambda: f"at unix:{self.path}" in self.stderr[before:])

    def unix_client(self) -> httpx.Client:
        """A client of the socket."""
        return httpx.Client(base_url="http://localhost", transport=httpx.HTTPTransport(uds=str(self.path)), timeout=30)
