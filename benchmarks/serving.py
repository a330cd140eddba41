"""Servers under measurement: started as processes of their own, asked what they cost, stopped. Needs Linux."""

import http.client
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.environments import JIMS_API, OURS, OURS_WITH_PLUGINS, ROOT, python_of

KEY = "benchmark-key"
SETTINGS = ("JIMS_", "UVICORN_", "GRANIAN_", "PYTHON", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS")
"""How variables begin that would set up a server otherwise than it is to be measured."""
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)},
    "BENCHMARK_KEY": KEY,
}
START_WITHIN = 120.0
LOOK_EVERY, IDLE = 0.3, 0.1
"""Seconds between looks at what a server does, and the share of the processor below which that is nothing."""
TICKS = os.sysconf("SC_CLK_TCK")
JIMS_ECHO = "benchmarks.apps.jims_echo:app"
LOCAL = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
"""Without it the import of jims-core asks the network."""


class Server:
    """A server's process, from `exec` to its end. `core` is the processor that it is kept on (None: any), `environment`
    what it is told beside the machine's, and `folder` where it starts.

    Raises `RuntimeError`, with what the process wrote, if it does not answer `/healthz` within two minutes.
    """

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        *,
        core: int | None = None,
        environment: Mapping[str, str] = {},
        folder: Path = ROOT,
    ) -> None:
        self.port = port
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        pin = ["taskset", "--cpu-list", str(core)] if core is not None else []
        self._command = [*pin, *command]
        began = time.perf_counter()
        self._process = subprocess.Popen(
            self._command, cwd=folder, env={**ENVIRONMENT, **environment}, stdout=self._output, stderr=self._output
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
        """The processor time that the process and its workers have used, in user and kernel mode."""
        return family_seconds(self._process.pid)

    def settle(self, within: float = 30.0) -> None:
        """Wait until it has done what it still had to do, at most so many seconds."""
        end = time.monotonic() + within
        used = -1.0
        while (now := self.processor_seconds()) - used > IDLE * LOOK_EVERY and time.monotonic() < end:
            used = now
            time.sleep(LOOK_EVERY)

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


def jimsapi(
    store: str | None,
    *options: str,
    app: str = "benchmarks.apps.echo",
    auth: Sequence[str] = ("--api-key", KEY),
    core: int | None = None,
    environment: Mapping[str, str] = {},
    python: str = OURS,
    module: Sequence[str] = ("jimsapi",),
) -> Server:
    """Our command as it is used: metrics, request ids and the log on. Without a `store` the app has one itself. `auth`
    are the options that say who may enter, `python` is the environment that it is installed in, `module` what is run in
    its place, with arguments of its own."""
    port, metrics_port = free_ports(2)
    stored = [] if store is None else ["--store", store]
    command = [python_of(python), "-m", *module, "--app", app, *stored, *auth, *options]
    where = ["--host", "127.0.0.1", "--port", str(port), "--metrics-port", str(metrics_port)]
    return Server([*command, *where], port, core=core, environment=environment)


def jimsapi_with_jims_app(
    url: str, *options: str, core: int | None = None, environment: Mapping[str, str] = {}
) -> Server:
    """Our command with a JIMS app that echoes, which has its database itself, at `url`."""
    told = {**LOCAL, "BENCHMARK_DATABASE": for_sqlalchemy(url), **environment}
    return jimsapi(None, *options, app=JIMS_ECHO, core=core, environment=told, python=OURS_WITH_PLUGINS)


def jims_api(
    url: str, *, core: int | None = None, environment: Mapping[str, str] = {}, python: str = JIMS_API
) -> Server:
    """jims-api by its own command, with the same JIMS app on the database at `url`. `python` is its environment."""
    port, metrics_port = free_ports(2)
    command = [python_of(python), "-m", "jims_api.main", "--app", JIMS_ECHO, "--api-key", KEY]
    where = ["--host", "127.0.0.1", "--port", str(port), "--metrics-port", str(metrics_port)]
    told = {**LOCAL, "BENCHMARK_DATABASE": for_sqlalchemy(url), **environment}
    return Server([*command, *where], port, core=core, environment=told)


def for_sqlalchemy(url: str) -> str:
    """A store's URL as SQLAlchemy has it."""
    return url.replace("postgresql:", "postgresql+asyncpg:").replace("sqlite:", "sqlite+aiosqlite:")


def under_uvicorn(
    app: str,
    *,
    core: int | None = None,
    environment: Mapping[str, str] = {},
    python: str = OURS,
    http: str = "httptools",
) -> Server:
    """An ASGI app on uvicorn, with the settings that our command gives it. `python` is its environment, `http` what
    uvicorn speaks HTTP with: a protocol of its own, or the name of another."""
    port = free_port()
    command = [python_of(python), "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port)]
    settings = f"--http {http} --loop uvloop --ws none --interface asgi3 --lifespan on --log-level warning"
    switches = "--no-access-log --no-proxy-headers --no-server-header"
    return Server([*command, *settings.split(), *switches.split()], port, core=core, environment=environment)


def under_granian(app: str, *, core: int | None = None, environment: Mapping[str, str] = {}) -> Server:
    """An app of ours on granian, with one worker."""
    port = free_port()
    command = [python_of(OURS), "-m", "granian", app, "--host", "127.0.0.1", "--port", str(port)]
    settings = "--interface asgi --workers 1 --log-level warning --no-ws --http 1"
    return Server([*command, *settings.split()], port, core=core, environment=environment)


def under_hypercorn(app: str, *, core: int | None = None, environment: Mapping[str, str] = {}) -> Server:
    """An app of ours on hypercorn, with one process and uvloop."""
    port = free_port()
    command = [python_of(OURS), "-m", "hypercorn", app, "--bind", f"127.0.0.1:{port}", "--workers", "0"]
    return Server([*command, "--worker-class", "uvloop"], port, core=core, environment=environment)


def free_port() -> int:
    """A port that nobody listens on now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


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
