"""This checkout beside another revision, in pairs: how many requests each answers, on one machine at one time.

`python -m benchmarks.beside REVISION` starts a server of this checkout and one of `REVISION`, and sends them the same
requests in turn, in short slices, so that both have the machine in the same state. It prints the ratios of this
checkout to the revision: the median of all rounds, the lowest and the highest. Both servers run in the Python that runs
the command, so it must have the dependencies of both. The command needs Linux, git and wrk.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median

from benchmarks.environments import ROOT
from benchmarks.installed import install
from benchmarks.load import CHAT, Target, load, measure, require_linux_and_wrk
from benchmarks.serving import KEY, Server, free_ports
from benchmarks.sheet import PER_PROCESSOR, RATE

WARM_UP = 0.7
SLICE = 0.5
"""Seconds of load before it is the other server's turn."""
SERVER_CORE, LOAD_CORE = 1, 0


@dataclass(frozen=True)
class Case:
    """The requests, and the number of clients that send them.

    `pinned`: the server has one processor, and the load generator another.
    """

    target: Target
    clients: int
    store: str = "memory"
    pinned: bool = True


CASES: Mapping[str, Case] = {
    "get": Case(Target("get", "/things7/chair/parts/7"), 64),
    "post": Case(Target("chat", "/messages"), 64),
    "404": Case(Target("get", "/nowhere", 404), 64),
    **{f"memory-{clients}": Case(CHAT, clients) for clients in (1, 32, 128)},
    **{f"sqlite-{clients}": Case(CHAT, clients, "sqlite") for clients in (1, 16, 128)},
    **{f"sqlite-{clients}-free": Case(CHAT, clients, "sqlite", pinned=False) for clients in (1, 16, 128)},
}


def main() -> None:
    """Run the command."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.beside", description=__doc__)
    options.add_argument("revision", help="a name that git knows, such as HEAD~5")
    options.add_argument("cases", nargs="*", metavar="case", help=f"all, or some of: {', '.join(CASES)}")
    options.add_argument("--rounds", type=int, default=8, help="pairs of servers that are started for a case")
    options.add_argument("--seconds", type=float, default=2.0, help="how long each server is measured in a round")
    given = options.parse_args()
    if unknown := set(given.cases) - set(CASES):
        options.error(f"unknown: {', '.join(sorted(unknown))}; the cases are {', '.join(CASES)}")
    require_linux_and_wrk()
    with checkout(given.revision) as folder:
        print(f"{'case':16}{'requests/s':24}requests/processor s")
        for name in given.cases or CASES:
            ratios = [pair(CASES[name], folder, given.seconds) for _ in range(given.rounds)]
            print(f"{name:16}{spread([each[RATE] for each in ratios]):24}", end="")
            print(spread([each[PER_PROCESSOR] for each in ratios]), flush=True)


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Return a folder with the files of a revision. Raises `SystemExit` if git does not know it."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "files.tar"
        found = subprocess.run(
            ["git", "archive", "--output", str(files), revision], cwd=ROOT, capture_output=True, text=True
        )
        if found.returncode:
            raise SystemExit(f"git cannot read {revision}: {found.stderr.strip()}")
        subprocess.run(["tar", "--extract", "--file", str(files)], cwd=folder, check=True)
        yield Path(folder)


def pair(case: Case, other: Path, seconds: float) -> dict[str, float]:
    """Start the servers of both checkouts, and measure each for `seconds`. Returns the ratios of this one, by unit.

    Slices with the same number of one server and the other are a pair. The ratio is the geometric mean of those of
    the pairs.
    """
    with ExitStack() as stack:
        servers: list[Server] = []
        for folder in (ROOT, other):
            data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            servers.append(stack.enter_context(start(case, folder, data)))
        for server in servers:
            load(server, case.target, seconds=WARM_UP, connections=case.clients, core=_core(case))
        ratios = [
            slices(case, *servers, other_first=number % 2 == 1) for number in range(max(2, round(seconds / SLICE)))
        ]
    return {unit: geometric_mean(each[unit] for each in ratios) for unit in (RATE, PER_PROCESSOR)}


def slices(case: Case, ours: Server, others: Server, *, other_first: bool) -> dict[str, float]:
    """Measure each of two servers for a slice. Returns the ratios of the first to the second, by unit."""
    order = (others, ours) if other_first else (ours, others)
    figures = {
        id(server): measure(server, case.target, seconds=SLICE, connections=case.clients, core=_core(case), warm_up=0)
        for server in order
    }
    return {unit: figures[id(ours)][unit] / figures[id(others)][unit] for unit in (RATE, PER_PROCESSOR)}


def _core(case: Case) -> int | None:
    return LOAD_CORE if case.pinned else None


def start(case: Case, folder: Path, data: Path) -> Server:
    """Start the command of a checkout, with the routes of the suite `framework` and with `data` for its database."""
    port, metrics_port = free_ports(2)
    store = "memory:" if case.store == "memory" else f"sqlite:///{data}/jims.db"
    command = [sys.executable, "-m", "jimsapi", "--app", "benchmarks.apps.echo", "--store", store, "--api-key", KEY]
    where = ["--host", "127.0.0.1", "--port", str(port), "--metrics-port", str(metrics_port)]
    environment = {**install(data / "plugins", "benchmarks.apps.ours"), "BENCHMARK_ROUTES": "1000"}
    core = SERVER_CORE if case.pinned else None
    return Server([*command, *where], port, core=core, environment=environment, folder=folder)


def spread(ratios: list[float]) -> str:
    """The median of ratios, and their range."""
    return f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


if __name__ == "__main__":
    main()
