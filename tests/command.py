"""The command, run to its end: a real process whose output and exit status are looked at."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 60.0


def python_path(*folders: Path) -> str:
    """`PYTHONPATH` with these folders and the repository on it."""
    return os.pathsep.join(str(folder) for folder in (*folders, ROOT))


def run_command(
    *arguments: str, cwd: Path, path: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m jimsapi` in `cwd`, with plugins from `path` (else `cwd`) and no `JIMS_*` but those of `env`.

    It is a process of `tests/command_server.py`, unless it depends on how Python itself starts.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JIMS_")}
    given = {**clean, "PYTHONPATH": python_path(path or cwd), **(env or {})}
    starts_otherwise = any(name.startswith("PYTHON") for name in env or ()) or (cwd / "sitecustomize.py").exists()
    if not starts_otherwise:
        return _run_forked(arguments, cwd, given)
    return subprocess.run(
        [sys.executable, "-m", "jimsapi", *arguments],
        cwd=cwd,
        env=given,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def _run_forked(arguments: Sequence[str], cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    request = json.dumps({"arguments": arguments, "folder": os.path.abspath(cwd), "env": env}).encode()
    server = _command_server()
    with open(os.devnull) as no_input, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        socket.send_fds(server, [request], [no_input.fileno(), out.fileno(), err.fileno()])
        process = int(server.recv(100))
        try:
            status = int(server.recv(100))
        except TimeoutError:
            os.kill(process, signal.SIGKILL)
            server.recv(100)
            raise
        outputs = [os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode() for file in (out, err)]
    return subprocess.CompletedProcess(arguments, status, *outputs)


@cache
def _command_server() -> socket.socket:
    """The connection to the server of commands, which ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "tests.command_server", str(theirs.fileno())],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
    ours.settimeout(TIMEOUT)
    return ours


def answer_command(*arguments: str, answer: str, cwd: Path) -> tuple[int, str]:
    """Run `python -m jimsapi` with a terminal, on which a person types a line. Returns its status and what it wrote."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "jimsapi", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": python_path(cwd)},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as ran:
        os.write(ours, f"{answer}\n".encode())
        output, _ = ran.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    return ran.returncode, output


def refusal(ran: subprocess.CompletedProcess[str]) -> str:
    """The one line with which a start was refused; fails if it was not refused so: exit 1, one line, no traceback."""
    assert ran.returncode == 1, (ran.returncode, ran.stdout, ran.stderr)
    lines = ran.stderr.splitlines()
    assert len(lines) == 1, ran.stderr
    assert lines[0].startswith("jimsapi: "), ran.stderr
    assert "Traceback" not in ran.stdout
    return lines[0]


def hide_websockets(folder: Path) -> None:
    """Let no package for WebSockets be found by the commands that have `folder` on their path."""
    code = "import sys\nsys.modules['websockets'] = sys.modules['wsproto'] = None\n"
    (folder / "sitecustomize.py").write_text(code)


def break_websockets(folder: Path, error: str) -> None:
    """Put packages for WebSockets that cannot be imported where commands in `folder` find them first."""
    for name in ("websockets", "wsproto"):
        (folder / f"{name}.py").write_text(f"raise {error}('a part is missing')\n")
