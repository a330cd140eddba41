"""jims-api 0.6.2 and jimsapi with the same app: real processes, each with a folder and a SQLite file of its own."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
import venv
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from tests.ports import free_port, listens

BOT = Path(__file__).with_name("bot.py")
FORKED = Path(__file__).with_name("forked.py")
KEY = "the-key"
START_WITHIN = 60.0
END_WITHIN = 60.0
JIMS_API = ("jims-api==0.6.2", "fastapi==0.165.0", "starlette==1.10.0")
"""What answers there. FastAPI words the faults of a body, so it is held, lest a release of it fails this test."""

NOT_THERE = ("httptools", "uvloop", "wsproto", "websockets")
"""Speed-ups of uvicorn that jims-api does not install, and that would change how bytes are read."""

AUTHENTIK_SAYS = {
    "user": (200, b'{"passing": true}'),
    "stranger": (200, b'{"passing": false}'),
    "expired": (403, b'{"detail": "Token invalid/expired"}'),
    "down": (500, b"oops"),
    "page": (200, b"<html>not JSON</html>"),
}
"""Status and body by token; `gone` gets no answer, and any other is unknown."""


def jims_api_python(folder: Path) -> Path:
    """Make an environment with jims-api and, of what is installed here, jims-core and all that it needs.

    pip downloads the rest, some 1 MB. Returns its Python.
    """
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    # Only packages are found by this: the editable installs of ours, which are links in .pth files, are not.
    (site / "running.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    for module in NOT_THERE:
        (site / f"{module}.py").write_text("raise ImportError('jims-api does not install it')\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    installed = subprocess.run(
        [*pip, "install", "--quiet", *JIMS_API], capture_output=True, text=True, timeout=120, check=False
    )
    if installed.returncode:
        raise RuntimeError(f"pip could not install {' '.join(JIMS_API)}, to compare with:\n{installed.stderr}")
    return python


class Servers:
    """A server in several configurations, from entering to leaving: `ports` has their ports, where they listen.

    `options` are a configuration's own; each has a folder below `folder`, with the app in it.
    """

    def __init__(
        self, python: str, command: str, imports: list[str], options: Mapping[str, list[str]], folder: Path
    ) -> None:
        ports = [free_port() for _ in range(2 * len(options))]
        self.ports = dict(zip(options, ports, strict=False))
        self._folder = folder
        servers = []
        for name, port, metrics in zip(options, ports, reversed(ports), strict=False):
            own = folder / name
            own.mkdir(parents=True)
            shutil.copy(BOT, own)
            where = ["--host", "127.0.0.1", "--port", str(port), "--metrics-port", str(metrics)]
            servers.append([str(own), "--app", "bot:app", *where, *options[name]])
        plan = {"command": command, "imports": imports, "servers": servers}
        self._command = [python, str(FORKED), json.dumps(plan)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        outside = ("JIMS_", "PYTHON", "PYTEST")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(outside)}
        env = {**clean, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        with open(self._folder / "log", "wb") as log:
            self._process = subprocess.Popen(self._command, env=env, stdin=subprocess.PIPE, stdout=log, stderr=log)
        until = time.monotonic() + START_WITHIN
        while not all(map(listens, self.ports.values())):
            if self._process.poll() is not None or time.monotonic() > until:
                logs = [log.read_text(errors="replace") for log in self._folder.rglob("log")]
                self.__exit__()
                raise RuntimeError(f"{self._command} did not start:\n" + "\n".join(logs))
            time.sleep(0.05)
        return self

    def serves(self, name: str) -> bool:
        """Whether the server in this configuration still listens."""
        return listens(self.ports[name])

    def await_end(self, name: str) -> None:
        """Wait until the server in this configuration has ended by itself. Raises `RuntimeError` if it does not."""
        until = time.monotonic() + END_WITHIN
        while self.serves(name):
            if time.monotonic() > until:
                raise RuntimeError(f"the server at port {self.ports[name]} did not end")
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.communicate()


class Authentik:
    """Answers, while entered, whether the holder of a token may use the application: the token itself says so."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.headers["authorization"] == "Bearer gone":
                    self.close_connection = True
                    return
                status, body = AUTHENTIK_SAYS.get(self.headers["authorization"].removeprefix("Bearer "), (403, b"{}"))
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
