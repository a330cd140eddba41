"""The command with the bot for load, and what its process uses. Needs Linux."""

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

from tests.serving import Served

KEY = "the-key"
LOOK_EVERY = 0.1
SERVER_CORE, LOAD_CORE = 0, 1
_PAGE = os.sysconf("SC_PAGE_SIZE")


class MeasuredServer(Served):
    """`python -m jimsapi` with the bot for load, and what /proc shows of it.

    It serves from an SQLite file in `folder`, unless the options name another store. `descriptors` limits how many it
    may open, `pinned` keeps it on one processor.
    """

    def __init__(
        self, *options: str, folder: Path, descriptors: int | None = None, pinned: bool = False, app: str = "loaded"
    ) -> None:
        store = [] if "--store" in options else ["--store", f"sqlite:///{folder / 'jims.db'}"]
        super().__init__("--app", f"tests.apps.{app}:app", *store, *options)
        if descriptors is not None:
            self.command = ["prlimit", f"--nofile={descriptors}", *self.command]
        if pinned:
            self.command = ["taskset", "--cpu-list", str(SERVER_CORE), *self.command]

    @property
    def resident(self) -> int:
        """Bytes of memory that it has."""
        return int(self._proc("statm").read_text().split()[1]) * _PAGE

    @property
    def peak(self) -> int:
        """The most bytes of memory that it had since `reset_peak`."""
        return int(self._status("VmHWM")) * 1024

    def reset_peak(self) -> None:
        """Count the peak from now on."""
        self._proc("clear_refs").write_text("5")

    @property
    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(os.listdir(self._proc("fd")))

    @property
    def threads(self) -> int:
        """How many threads it has."""
        return int(self._status("Threads"))

    @property
    def processor_seconds(self) -> float:
        """The processor time that it has used."""
        fields = self._proc("stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _proc(self, name: str) -> Path:
        return Path(f"/proc/{self.pid}/{name}")

    def _status(self, field: str) -> str:
        lines = self._proc("status").read_text().splitlines()
        return next(line.split()[1] for line in lines if line.startswith(f"{field}:"))


def allow_descriptors(count: int) -> None:
    """Let this process, and the servers that it starts, open so many files and sockets, if the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count)), hard))


def wait_until(holds: Callable[[], bool], within: float) -> bool:
    """Wait until something holds, at most so many seconds. Returns whether it does."""
    end = time.monotonic() + within
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(LOOK_EVERY)
    return True


def chat(
    message: str,
    contact: str,
    *fields: str,
    key: str | None = KEY,
    path: str = "/api/v1/chat",
    thread: str | None = None,
) -> bytes:
    """A chat's bytes. `fields` are further lines of its head. Nothing is escaped: a quote makes the body faulty."""
    named = "" if thread is None else f',"thread_id":"{thread}"'
    body = f'{{"contact_id":"{contact}","message":"{message}"{named}}}'.encode()
    lines = [f"POST {path} HTTP/1.1", "host: test", "content-type: application/json", f"content-length: {len(body)}"]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    return "\r\n".join([*lines, *fields, "", ""]).encode() + body


def get(path: str, *fields: str) -> bytes:
    """A GET's bytes."""
    lines = [f"GET {path} HTTP/1.1", "host: test", f"authorization: Bearer {KEY}", *fields]
    return "\r\n".join([*lines, "", ""]).encode()
