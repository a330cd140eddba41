"""Servers that leave background runs to workers, and these workers, on one database and one NATS."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nats_server import WORK, NatsServer

from tests.faults.places import PLUGIN_TESTS
from tests.faults.restarts import APP
from tests.serving import ROOT, START_WITHIN, Served

HERE = Path(__file__).parent


class Site:
    """A database and a NATS server. `env` adds to the environment of its processes."""

    def __init__(self, postgres: Any, database: str, server: NatsServer, env: Mapping[str, str]) -> None:
        self._postgres = postgres
        self._database = database
        self._server = server
        path = os.pathsep.join(map(str, (HERE, PLUGIN_TESTS, ROOT)))
        self._env = {**env, "PYTHONPATH": path, "JIMS_NATS_URL": server.url, "JIMS_NATS_WORK": WORK}

    @property
    def url(self) -> str:
        """Where the database is."""
        url: str = self._postgres.url(self._database)
        return url

    def rows(self, query: str) -> list[tuple[str, ...]]:
        """The rows of a query, each value as text."""
        found: str = self._postgres.psql(query, self._database)
        return [tuple(line.split("|")) for line in found.splitlines()]

    def served(self, *options: str, app: str = APP) -> Served:
        """A server that is not started yet."""
        served = Served("--app", app, "--store", self.url, *options, env=self._env)
        served.command[1:3] = ["-m", "impatient_workers"]
        return served

    def worker(self, *options: str, app: str = APP) -> "Worker":
        """A worker that is not started yet."""
        worker = Worker("--app", app, "--store", self.url, *options, env=self._env)
        worker.command[1:3] = ["-m", "impatient_workers", "worker"]
        return worker


class Worker(Served):
    """A worker, from entering to leaving. It has no port."""

    def start(self) -> None:
        """Start it and wait until it asks for runs. Raises `RuntimeError` with its output if it ends instead."""
        before = len(self.stderr)
        self.launch()
        assert self.process is not None
        until = time.monotonic() + START_WITHIN
        while " is a worker for " not in self.stderr[before:]:
            if self.process.poll() is not None or time.monotonic() > until:
                self.process.kill()
                raise RuntimeError(f"the worker did not start:\n{self.stderr}")
            time.sleep(0.02)
