"""Starts and stops an instance as systemd does with `deploy/systemd`: socket, options, readiness, commands around it.

No test can run systemd itself. What systemd does with the two units is done here, from the lines of the units.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.ports import free_port
from tests.serving import ROOT, START_WITHIN
from tests.waiting import eventually

SYSTEMD = ROOT / "deploy" / "systemd"

_SCRIPT = 'exec 3<&{descriptor}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'


def _heed_hangup() -> None:
    """Undo what `nohup` does to a test run: systemd starts services that ignore no SIGHUP."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def settings(unit: str) -> dict[str, list[str]]:
    """The values of a unit file by their names, in order, from all sections."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in (SYSTEMD / unit).read_text(encoding="utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name].append(value)
    return dict(found)


class Instance:
    """`jimsapi@PORT.service` with its socket, from entering to leaving. `options` override those of the unit.

    `run` is the folder in place of `/run/jimsapi`. If `held` is false there is no socket unit: the server opens the
    port itself, and nobody listens there while it restarts.
    """

    def __init__(self, run: Path, options: Mapping[str, str], *, held: bool = True) -> None:
        self._unit = settings("jimsapi@.service")
        self._run = run
        self._options = options
        self.port = free_port()
        self._listening = socket.create_server(("127.0.0.1", self.port), backlog=4096) if held else None
        self._folder = tempfile.TemporaryDirectory(prefix="jimsapi-unit-")
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.bind(f"{self._folder.name}/notify")
        self._notices.settimeout(START_WITHIN)
        self._process: subprocess.Popen[bytes] | None = None
        self.log = Path(self._folder.name) / "output.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        if self._listening is not None:
            self._listening.close()
        self._notices.close()
        self._folder.cleanup()

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        command = [sys.executable, "-m", "jimsapi"]
        passed: tuple[int, ...] = ()
        if self._listening is not None:
            descriptor = self._listening.fileno()
            passed = (descriptor,)
            command = ["bash", "-c", _SCRIPT.format(descriptor=descriptor), "bash", *command]
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._env(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=passed,
                preexec_fn=_heed_hangup,
            )
        while self._notices.recv(100) != b"READY=1":
            pass
        self._run_lines("ExecStartPost")

    def stop(self) -> int:
        """Stop it. Returns its exit status."""
        assert self._process is not None
        self._run_lines("ExecStop")
        self._process.send_signal(signal.SIGTERM)
        [seconds] = self._unit["TimeoutStopSec"]
        return self._process.wait(float(seconds))

    def replace_workers(self) -> None:
        """Have an instance with `--workers` replace them, and wait until it has replaced all.

        Each old worker may take as long as the unit gives a stop. Raises `AssertionError` with the log.
        """
        assert self._process is not None
        [seconds] = self._unit["TimeoutStopSec"]
        within = float(seconds) * int(self._options["JIMS_WORKERS"])
        before = self._count_replacements()
        self._process.send_signal(signal.SIGHUP)
        try:
            eventually(lambda: self._count_replacements() > before, within)
        except AssertionError:
            raise AssertionError(f"after {within:g} s:\n{self.log.read_text(encoding='utf-8')[-5000:]}") from None

    def kill(self) -> None:
        """End it at once, as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _count_replacements(self) -> int:
        return self.log.read_text(encoding="utf-8").count("SIGHUP: all workers are new")

    def _env(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("JIMS_")}
        lines = dict(line.split("=", 1) for line in self._unit["Environment"])
        for name in ("JIMS_STORE_FILE", "JIMS_KEYS_FILE", "JIMS_REQUIRE_AUTH"):  # the files of a real machine
            del lines[name]
        own = {
            "JIMS_HOST": "127.0.0.1",
            "JIMS_PORT": str(self.port),
            "JIMS_METRICS_PORT": "0",
            "JIMS_APP": "tests.apps.paced:app",
            "JIMS_STORE": "memory:",
            "NOTIFY_SOCKET": self._notices.getsockname(),
        }
        return {**clean, **lines, **own, **self._options}

    def _run_lines(self, name: str) -> None:
        for line in self._unit[name]:
            command = line.replace("%i", str(self.port)).replace("/run/jimsapi", str(self._run))
            subprocess.run(shlex.split(command), check=True)
