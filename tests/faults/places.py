"""Where a server under a fault keeps its threads: an SQLite file, or a PostgreSQL database."""

import os
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from tests.faults.files import files_options
from tests.faults.paced import PACED
from tests.serving import ROOT, Served

PLUGIN_TESTS = ROOT / "plugins" / "jimsapi-postgres" / "tests"


class Place(Protocol):
    """A store that outlives the servers on it."""

    @property
    def url(self) -> str: ...

    def rows(self, query: str) -> list[tuple[str, ...]]:
        """The rows of a query, each value as text."""

    def served(
        self, *options: str, folder: Path | None = None, env: Mapping[str, str] | None = None, app: str = PACED
    ) -> Served:
        """A server with a bot on this store, and files if it can have them. It is not started yet."""


class SQLitePlace:
    """An SQLite file in a folder."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "jims.db"
        self.url = f"sqlite:///{self.file}"

    def rows(self, query: str) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(self.file, timeout=10)) as connection:
            return [tuple(map(str, row)) for row in connection.execute(query)]

    def served(
        self, *options: str, folder: Path | None = None, env: Mapping[str, str] | None = None, app: str = PACED
    ) -> Served:
        files = files_options(self.file.parent)
        return Served("--app", app, "--store", self.url, *files, *options, folder=folder, env=env)


class PostgresPlace:
    """A database of a PostgreSQL server. `through` is the port of a proxy that servers reach it by."""

    def __init__(self, postgres: Any, database: str = "postgres", *, through: int | None = None) -> None:
        self._postgres = postgres
        self._database = database
        url: str = postgres.url(database)
        self.url = url if through is None else url.replace(f":{postgres.port}/", f":{through}/")

    def rows(self, query: str) -> list[tuple[str, ...]]:
        found: str = self._postgres.psql(query, self._database)
        return [tuple(line.split("|")) for line in found.splitlines()]

    def kill(self) -> None:
        """Kill all processes of PostgreSQL at once."""
        kill_tree(self._postgres.pid)
        self._postgres.crash()

    def start(self) -> None:
        """Start PostgreSQL again."""
        self._postgres.start()

    def restart(self) -> None:
        """Stop PostgreSQL as its operator does, and start it again."""
        self._postgres.restart()

    def set_read_only(self, read_only: bool) -> None:
        """Have PostgreSQL refuse writes, as a standby does, or take them again."""
        self._postgres.psql(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if read_only else 'off'}")
        self._postgres.psql("SELECT pg_reload_conf()")

    def served(
        self, *options: str, folder: Path | None = None, env: Mapping[str, str] | None = None, app: str = PACED
    ) -> Served:
        """The server counts another as dead after 3 seconds of silence, so that a check need not wait for 20."""
        path = os.pathsep.join(map(str, filter(None, (folder, PLUGIN_TESTS, ROOT))))
        files = () if folder is None else files_options(folder)
        options = ("--app", app, "--store", self.url, *files, *options)
        served = Served(*options, folder=folder, env={**(env or {}), "PYTHONPATH": path})
        served.command[1:3] = ["-m", "impatient"]
        return served


def postgres_server(**settings: str) -> Any:
    """A PostgreSQL server of a test's own. It needs the environment in which the plugins are tested."""
    _reach_plugin_tests()
    from database import Postgres  # type: ignore[import-not-found, unused-ignore]

    return Postgres(**settings)


def postgres_proxy(postgres: Any) -> Any:
    """A proxy before PostgreSQL that loses answers. An async context manager."""
    _reach_plugin_tests()
    from proxy import Proxy  # type: ignore[import-not-found, unused-ignore]

    return Proxy(postgres.port)


def _reach_plugin_tests() -> None:
    if str(PLUGIN_TESTS) not in sys.path:
        sys.path.insert(0, str(PLUGIN_TESTS))


@contextmanager
def place_of(store: str) -> Iterator[Place]:
    """A new, empty store: `sqlite` or `postgresql`."""
    if store == "sqlite":
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            yield SQLitePlace(Path(folder).resolve())
    else:
        # Syncs matter to a power cut alone; the kernel outlives what is killed.
        with postgres_server(fsync="off") as postgres:
            yield PostgresPlace(postgres)


def kill_tree(pid: int) -> None:
    """Kill a process and its children at once, and wait until the children have ended.

    The process is stopped first so that it starts no others.
    """
    os.kill(pid, signal.SIGSTOP)
    children = list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    for killed in (*children, pid):
        with suppress(ProcessLookupError):
            os.kill(killed, signal.SIGKILL)
    while any(map(_lives, children)):
        time.sleep(0.005)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
