"""Servers under measurement: started as processes of their own, asked what they cost, stopped. Needs Linux."""

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
KEY = "benchmark-key"
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("JIMS_")},
    "BENCHMARK_KEY": KEY,
}
START_WITHIN = 120.0
TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """A server's process, from `exec` to its end. `core` is the processor that it is kept on (None: any), `environment`
    what it is told beside the machine's.

    Raises `RuntimeError`, with what the process wrote, if it does not answer `/healthz` within two minutes.
    """

    def __init__(
        self, command: Sequence[str], port: int, *, core: int | None = None, environment: Mapping[str, str] = {}
    ) -> None:
        self.port = port
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        pin = ["taskset", "--cpu-list", str(core)] if core is not None else []
        self._command = [*pin, *command]
        began = time.perf_counter()
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, env={**ENVIRONMENT, **environment}, stdout=self._output, stderr=self._output
        )
        self._wait(began)
        self.started_in = time.perf_counter() - began
        """Seconds from exec to the first answer of `/healthz`."""
        self.start_used = self.processor_seconds()
        """Of these, the seconds that the process had the processor."""

    def _wait(self, began: float) -> None:
        while time.perf_counter() - began < START_WITHIN and self._process.poll() is None:
            try:
                if self.ask("GET", "/healthz")[0] == 200:
                    return
            except OSError:
                time.sleep(0.002)
        self.stop()
        self._output.seek(0)
        raise RuntimeError(f"{' '.join(self._command)} did not start:\n{self._output.read().decode()}")

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> tuple[int, str, bytes]:
        """Ask once. Returns the answer's status, content type and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_WITHIN)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.headers["content-type"], answer.read()
        finally:
            connection.close()

    def processor_seconds(self) -> float:
        """The processor time that the process has used, in user and kernel mode."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident_bytes(self) -> int:
        """The process's resident memory."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._output.close()


def jimsapi(store: str, *, auth: Sequence[str] = ("--api-key", KEY), core: int | None = None) -> Server:
    """Our command as it is used: metrics, request ids and the log on. `auth` are the options that say who may enter."""
    port, metrics_port = free_port(), free_port()
    command = [sys.executable, "-m", "jimsapi", "--app", "benchmarks.apps.echo", "--store", store, *auth]
    return Server(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--metrics-port", str(metrics_port)], port, core=core
    )


def under_uvicorn(app: str, *, core: int | None = None) -> Server:
    """Another ASGI app on uvicorn, with the settings that our command gives it."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port)]
    settings = "--http httptools --loop uvloop --ws none --interface asgi3 --lifespan on --log-level warning"
    switches = "--no-access-log --no-proxy-headers --no-server-header"
    return Server([*command, *settings.split(), *switches.split()], port, core=core)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def family_seconds(parent: int) -> float:
    """The processor time that a process and its children have used, those included that have ended."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        if int(stat.parent.name) == parent:
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == parent:
            ticks += sum(map(int, fields[11:13]))
    return ticks / TICKS


def scrape(metrics_port: int) -> dict[str, float]:
    """What a server counts, by name: figures that only their labels tell apart are added up."""
    connection = http.client.HTTPConnection("127.0.0.1", metrics_port, timeout=START_WITHIN)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    counted: defaultdict[str, float] = defaultdict(float)
    for line in lines:
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            counted[name.partition("{")[0]] += float(value)
    return counted
