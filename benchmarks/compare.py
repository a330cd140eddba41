"""Two revisions of jimsapi in pairs: how many requests each answers, on one machine at one time.

`python -m benchmarks compare A B` starts a server of each revision, and sends them the same requests in turn, in short
slices, so that both have the machine in the same state. It prints the ratios of B to A: the median of all rounds, the
lowest and the highest. `start` compares the seconds of starts, and the memory after a chat, in place of requests.

Both servers run in the harness's environment, so that only their code differs. It has the dependencies that this
checkout needs; a revision that needs others cannot start.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, TypeVar

from benchmarks.environments import PLUGINS_OF_HARNESS, ROOT, of_tests
from benchmarks.installed import install
from benchmarks.load import CHAT, Target, load, measure
from benchmarks.serving import KEY, Server, free_ports
from benchmarks.sheet import MEGABYTES, PER_PROCESSOR, RATE, SECONDS
from benchmarks.suites.start import start as start_and_chat

WARM_UP = 0.7
SLICE = 0.5
"""Seconds of load before it is the other server's turn."""
SERVER_CORE, LOAD_CORE = 1, 0
HERE = "."
"""In place of a revision: the files of this checkout as they are."""
START = "start"
MEMORY, SQLITE, POSTGRES = "memory", "sqlite", "postgres"


@dataclass(frozen=True)
class Case:
    """The requests, and the number of clients that send them.

    `pinned`: the server has one processor, and the load generator another.
    """

    target: Target
    clients: int
    store: str = MEMORY
    pinned: bool = True


CASES: Mapping[str, Case] = {
    "get": Case(Target("get", "/things7/chair/parts/7"), 64),
    "post": Case(Target("chat", "/messages"), 64),
    "404": Case(Target("get", "/nowhere", 404), 64),
    "sse": Case(Target("get", "/stream"), 32),
    "stream": Case(Target("chat", "/api/v1/chat/stream"), 32),
    **{f"memory-{clients}": Case(CHAT, clients) for clients in (1, 32, 128)},
    **{f"sqlite-{clients}": Case(CHAT, clients, SQLITE) for clients in (1, 16, 128)},
    **{f"sqlite-{clients}-free": Case(CHAT, clients, SQLITE, pinned=False) for clients in (1, 16, 128)},
    **{f"postgres-{clients}": Case(CHAT, clients, POSTGRES, pinned=False) for clients in (1, 16, 64)},
}
NAMES = (START, *CASES)
Each = TypeVar("Each")


@dataclass(frozen=True)
class Revision:
    """The files of a revision, and what `folder` is called."""

    name: str
    folder: Path


def main(arguments: Sequence[str]) -> None:
    """Run the command with the arguments after `compare`."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("A", help=f"a name that git knows, such as HEAD~5, or {HERE} for the files as they are here")
    options.add_argument("B", help="another one")
    options.add_argument("cases", nargs="*", metavar="case", help=f"all, or some of: {', '.join(NAMES)}")
    options.add_argument("--rounds", type=int, default=8, help="pairs of servers that are started for a case")
    options.add_argument("--seconds", type=float, default=2.0, help="how long each server is measured in a round")
    given = options.parse_args(arguments)
    if unknown := set(given.cases) - set(NAMES):
        options.error(f"unknown: {', '.join(sorted(unknown))}; the cases are {', '.join(NAMES)}")
    with ExitStack() as stack:
        revisions = [Revision(name, stack.enter_context(checkout(name))) for name in (given.A, given.B)]
        print(f"ratios of {given.B} to {given.A}: the median, the lowest and the highest")
        for name in given.cases or NAMES:
            found = starts(revisions, given.rounds) if name == START else loads(CASES[name], revisions, given)
            print(f"{name:16}" + "".join(f"{unit}: {spread(ratios):28}" for unit, ratios in found.items()), flush=True)


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Return a folder with the files of a revision. Raises `SystemExit` if git does not know it."""
    if revision == HERE:
        yield ROOT
        return
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "files.tar"
        found = subprocess.run(
            ["git", "archive", "--output", str(files), revision], cwd=ROOT, capture_output=True, text=True
        )
        if found.returncode:
            raise SystemExit(f"git cannot read {revision}: {found.stderr.strip()}")
        subprocess.run(["tar", "--extract", "--file", str(files)], cwd=folder, check=True)
        yield Path(folder)


def starts(revisions: Sequence[Revision], rounds: int) -> dict[str, list[float]]:
    """Start both in turn, once more than `rounds`: the first start compiles the files. Returns the ratios by unit."""
    found: dict[str, list[float]] = {SECONDS: [], MEGABYTES: []}
    first, second = revisions
    for number in range(-1, rounds):
        figures = {revision: start_and_chat(partial(on_sqlite, revision)) for revision in in_turn(revisions, number)}
        if number >= 0:
            for unit, ratios in found.items():
                ratios.append(figures[second][unit] / figures[first][unit])
    return found


def on_sqlite(revision: Revision, database: Path) -> Server:
    """Start a server with an SQLite database, as the suite `start` does."""
    return start(Case(CHAT, 1, SQLITE), revision, database.parent)


def loads(case: Case, revisions: Sequence[Revision], given: argparse.Namespace) -> dict[str, list[float]]:
    """Return the ratios of a case by unit, one a round."""
    with of_tests("jimsapi-postgres", "database").Postgres() if case.store == POSTGRES else nullcontext() as postgres:
        rounds = [pair(case, revisions, given.seconds, postgres) for _ in range(given.rounds)]
    return {unit: [each[unit] for each in rounds] for unit in (RATE, PER_PROCESSOR)}


def pair(case: Case, revisions: Sequence[Revision], seconds: float, postgres: Any = None) -> dict[str, float]:
    """Start a server of each revision, and measure each for `seconds`. Returns the ratios of the second, by unit.

    Slices with the same number of one server and the other are a pair. The ratio is the geometric mean of those of
    the pairs.
    """
    with ExitStack() as stack:
        servers: list[Server] = []
        for revision in revisions:
            data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            url = None if postgres is None else postgres.url(stack.enter_context(postgres.database()))
            servers.append(stack.enter_context(start(case, revision, data, url)))
        for server in servers:
            load(server, case.target, seconds=WARM_UP, connections=case.clients, core=_core(case))
        ratios = [slices(case, servers, number) for number in range(max(2, round(seconds / SLICE)))]
    return {unit: geometric_mean(each[unit] for each in ratios) for unit in (RATE, PER_PROCESSOR)}


def slices(case: Case, servers: Sequence[Server], number: int) -> dict[str, float]:
    """Measure each of two servers for a slice. Returns the ratios of the second to the first, by unit."""
    ask = partial(measure, target=case.target, seconds=SLICE, connections=case.clients, core=_core(case), warm_up=0)
    figures = {id(server): ask(server) for server in in_turn(servers, number)}
    first, second = (figures[id(server)] for server in servers)
    return {unit: second[unit] / first[unit] for unit in (RATE, PER_PROCESSOR)}


def in_turn(both: Sequence[Each], number: int) -> Sequence[Each]:
    """Return two in their order, or the second one first if the number is odd."""
    return both if number % 2 == 0 else both[::-1]


def _core(case: Case) -> int | None:
    return LOAD_CORE if case.pinned else None


def start(case: Case, revision: Revision, data: Path, url: str | None = None) -> Server:
    """Start the command of a revision, with the routes of the suite `framework` and with `data` for its database.

    `url` is that of the database of a case on PostgreSQL.
    """
    port, metrics_port = free_ports(2)
    stores = {MEMORY: "memory:", SQLITE: f"sqlite:///{data}/jims.db", POSTGRES: url}
    command = [sys.executable, "-m", "jimsapi", "--app", "benchmarks.apps.echo", "--store", str(stores[case.store])]
    where = ["--host", "127.0.0.1", "--port", str(port), "--metrics-port", str(metrics_port), "--api-key", KEY]
    routes = install(data / "plugins", "benchmarks.apps.ours")["PYTHONPATH"]
    # The environment has the plugins of this checkout; those of the revision come before them.
    path = [routes, *(str(revision.folder / plugin) for plugin in PLUGINS_OF_HARNESS)]
    environment = {"PYTHONPATH": os.pathsep.join(path), "BENCHMARK_ROUTES": "1000"}
    core = SERVER_CORE if case.pinned else None
    return Server([*command, *where], port, core=core, environment=environment, folder=revision.folder)


def spread(ratios: list[float]) -> str:
    """The median of ratios, and their range."""
    return f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
