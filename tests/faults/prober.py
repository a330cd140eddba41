"""Somebody who asks a server at a fixed rate, in a process of its own: load does not slow the clock of its requests.

`python -m tests.faults.prober PORT PROBES` prints an empty line when it begins, asks until its standard input ends,
then prints what it saw as JSON. Each request is sent when it is due, whatever became of those before it.
"""

import asyncio
import json
import ssl
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

import uvloop

from tests.faults.figures import percentile

PATIENCE = 10.0
"""Seconds after which a request counts as not answered."""
IDLE = 3.0
"""Seconds after which an idle connection is not used again: the server closes it after five at the earliest."""


@dataclass(frozen=True)
class Probe:
    """A request that is sent each `every` seconds: to `port` or the prober's own, over a `fresh` connection or an idle
    one if there is one."""

    name: str
    request: str
    every: float
    fresh: bool = True
    port: int = 0


@dataclass(frozen=True)
class Seen:
    """What became of a request: when it was sent (by `time.monotonic`), how many seconds its answer took, and the
    answer's status, or 0 and the `fault`."""

    at: float
    seconds: float
    status: int
    fault: str = ""


class Prober:
    """Runs the probes in a process of its own, from entering to leaving; then `seen` has what each saw, by name."""

    def __init__(self, port: int, *probes: Probe, tls: bool = False) -> None:
        self.seen: dict[str, list[Seen]] = {}
        told = json.dumps([asdict(probe) for probe in probes])
        self._command = [sys.executable, "-m", "tests.faults.prober", str(port), told, *(["tls"] if tls else [])]
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it begins
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            output, _ = self._process.communicate(timeout=PATIENCE + 20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        self.seen = {name: [Seen(*values) for values in rows] for name, rows in json.loads(output).items()}


def between(seen: list[Seen], begin: float, end: float) -> list[Seen]:
    """The requests that were sent within a time."""
    return [each for each in seen if begin <= each.at < end]


def unanswered(seen: list[Seen], status: int = 200) -> list[Seen]:
    """The requests that had no answer with the status."""
    return [each for each in seen if each.status != status]


def seconds(seen: list[Seen], share: float) -> float:
    """A percentile of the seconds, those included that passed until a request was given up."""
    return percentile([each.seconds for each in seen], share)


class _Asking:
    """All requests of one probe."""

    def __init__(self, probe: Probe, port: int, tls: ssl.SSLContext | None) -> None:
        self.seen: list[Seen] = []
        self._request = probe.request.encode("latin-1")
        self._probe = probe
        self._port = probe.port or port
        self._tls = tls
        self._idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until told to stop, then wait for the answers."""
        async with asyncio.TaskGroup() as tasks:
            due = time.monotonic()
            while not stop.is_set():
                tasks.create_task(self._ask())
                due += self._probe.every
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _ask(self) -> None:
        at = time.monotonic()
        status, fault = 0, ""
        try:
            async with asyncio.timeout(PATIENCE):
                status = await self._answer()
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            fault = f"{type(error).__name__}: {error}"
        self.seen.append(Seen(at, time.monotonic() - at, status, fault))

    async def _answer(self) -> int:
        reader, writer = await self._connection()
        kept = False
        try:
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            at = head.index(b"content-length: ") + 16
            await reader.readexactly(int(head[at : head.index(b"\r", at)]))
            kept = not self._probe.fresh and b"connection: close" not in head
        finally:
            if kept:
                self._idle.append((time.monotonic(), reader, writer))
            else:
                writer.transport.abort()
        return int(head[9:12])

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            since, reader, writer = self._idle.pop()
            if time.monotonic() - since < IDLE and not reader.at_eof():
                return reader, writer
            writer.transport.abort()
        return await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls)


async def _main(port: int, probes: list[Probe], tls: bool) -> None:
    context = None
    if tls:  # what is measured is time: whose certificate it is does not matter
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    print(flush=True)
    asking = {probe.name: _Asking(probe, port, context) for probe in probes}
    await asyncio.gather(*(each.run(stop) for each in asking.values()))
    rows = {name: [[s.at, s.seconds, s.status, s.fault] for s in each.seen] for name, each in asking.items()}
    print(json.dumps(rows))


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), [Probe(**probe) for probe in json.loads(sys.argv[2])], "tls" in sys.argv[3:]))
