"""How many small changes of the code the tests notice: `make mutants`, or `python -m tests.mutants --revision REV`.

A fixed sample of changes of `jimsapi/` is made in copies of a commit, one at a time. Against each one run the tests of
the core that cover its lines: the shortest test of each file first, for at most `BUDGET` recorded seconds. A change is
killed when a test fails, or does not end. First each file of tests runs once, to see which lines its tests cover; tests
that fail then count for nothing.

What was found stays in `build/mutants/<commit>/`, so a run that was stopped goes on where it was. At the end the
command prints which changes no test noticed, and a table by package.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import coverage

from tests.mutants.mutations import Mutation, sample

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "jimsapi"
SEED = 43
COUNT = 400
# What a change may cost, in seconds that its tests took when they were recorded.
BUDGET = 25.0
# The tests of deploy/ need the environment of the plugins, and those of releases look at the repository.
LEFT_OUT = ("tests/deploy/", "tests/release/", "tests/mutants/")
# Tests that take four times as long as recorded, and this beside it, hang: the start of pytest is not recorded.
GRACE = 60.0

COVERAGE = """
[run]
core = ctrace
parallel = true
sigterm = true
patch =
    _exit
    subprocess
data_file = {folder}/data
include =
{files}
"""


@dataclass(frozen=True)
class Worker:
    """A copy of the commit with an environment of its own, for the code in it is changed."""

    root: Path

    @property
    def python(self) -> Path:
        return self.root / ".venv/bin/python"

    def set_up(self, revision: str) -> None:
        """Copy the commit, and install it with what its tests need. What was interrupted starts anew."""
        done = self.root / ".venv/.installed-mutants"
        if done.exists():
            return
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        archive = subprocess.run(["git", "-C", ROOT, "archive", revision], check=True, capture_output=True).stdout
        subprocess.run(["tar", "--extract", "--directory", self.root], check=True, input=archive)
        # Some tests ask git which files there are.
        for command in (["init", "--quiet"], ["add", "--all"]):
            subprocess.run(["git", "-C", self.root, *command], check=True)
        subprocess.run([sys.executable, "-m", "venv", self.root / ".venv"], check=True)
        wanted = ["--editable", ".[test,examples,agents]", "coverage >= 7.10"]
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *wanted]
        subprocess.run(pip, check=True, cwd=self.root)
        done.touch()

    def run(self, command: list[str], seconds: float, **variables: str) -> int | None:
        """Run Python in the copy. Returns its exit status, or None if it did not end within `seconds`."""
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        temporary = self.root / "build/tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        temporary.chmod(0o1777)  # where servers run as users of their own
        with subprocess.Popen(
            [self.python, *command],
            cwd=self.root,
            env=environment | {"TMPDIR": str(temporary)} | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                status: int | None = process.wait(seconds)
            except subprocess.TimeoutExpired:
                status = None
            if status is None or status < 0:
                os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(temporary, ignore_errors=True)
        return status


@dataclass(frozen=True)
class Tests:
    """What one file of tests covers: the seconds of each test, and the tests that reach each change of the sample."""

    seconds: dict[str, float]
    covering: dict[int, list[str]]


def cover(worker: Worker, file: str, mutations: list[Mutation], folder: Path) -> Tests:
    """Run a file of tests under coverage.

    A line that ran in a process that the tests had started, or before the first test, counts as covered by all of them.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings, seconds = folder / "coverage.ini", folder / "seconds.json"
    files = sorted({f"    {worker.root}/{mutation.path}" for mutation in mutations})
    settings.write_text(COVERAGE.format(folder=folder, files="\n".join(files)))
    command = ["-m", "coverage", "run", "--rcfile", str(settings), "-m", "pytest", "-p", "tests.mutants.contexts", file]
    # The plugin is of this tree, whatever the commit has.
    shutil.copytree(Path(__file__).parent, worker.root / "tests/mutants", dirs_exist_ok=True)
    worker.run(command, 1800, MUTANTS_SECONDS=str(seconds))
    passed: dict[str, float] = json.loads(seconds.read_text()) if seconds.exists() else {}
    covering: defaultdict[int, set[str]] = defaultdict(set)
    for path in folder.glob("data.*"):
        data = coverage.CoverageData(str(path))
        try:
            data.read()
        except coverage.exceptions.DataError:
            continue  # its process was killed while it wrote
        for number, mutation in enumerate(mutations):
            contexts = data.contexts_by_lineno(str(worker.root / mutation.path))
            for line in range(mutation.lines[0], mutation.lines[1] + 1):
                for context in contexts.get(line, []):
                    covering[number] |= {context} & passed.keys() if context else passed.keys()
    shutil.rmtree(folder)
    return Tests(passed, {number: sorted(tests) for number, tests in covering.items() if tests})


def choose(number: int, covered: dict[str, Tests]) -> dict[str, float]:
    """Return the tests that a change runs, with the seconds of each: from every file its shortest one first."""
    ranked: list[tuple[int, float, str]] = []
    for tests in covered.values():
        short = sorted((tests.seconds[test], test) for test in tests.covering.get(number, []))
        ranked += [(rank, seconds, test) for rank, (seconds, test) in enumerate(short)]
    chosen: dict[str, float] = {}
    for _, seconds, test in sorted(ranked):
        if chosen and sum(chosen.values()) + seconds > BUDGET:
            break
        chosen[test] = seconds
    return chosen


def attempt(worker: Worker, mutation: Mutation, tests: dict[str, float]) -> bool:
    """Make the change, run the tests, and undo it. Returns whether a test noticed."""
    if not tests:
        return False
    file = worker.root / mutation.path
    source = file.read_bytes()
    # Tests of one file follow each other, so they share what the file starts.
    (worker.root / "chosen.txt").write_text("\n".join(sorted(tests)))
    try:
        mutation.apply(worker.root)
        status = worker.run(["-m", "pytest", "-x", "-q", "@chosen.txt"], 4 * sum(tests.values()) + GRACE)
    finally:
        file.write_bytes(source)
    return status != 0


class Results:
    """What is known of each piece of work, in a file with one line for each."""

    def __init__(self, path: Path) -> None:
        self.known: dict[str, Any] = {}
        self._path = path
        self._lock = threading.Lock()
        if path.exists():
            self.known = dict(json.loads(line) for line in path.read_text().splitlines())

    def add(self, key: str, value: object) -> None:
        with self._lock:
            self.known[key] = value
            with self._path.open("a") as file:
                file.write(json.dumps([key, value]) + "\n")


def work(workers: list[Worker], keys: list[str], results: Results, action: Callable[[Worker, str], object]) -> None:
    """Do what is not known yet, in all workers at once."""
    free: Queue[Worker] = Queue()
    for worker in workers:
        free.put(worker)

    def one(key: str) -> None:
        worker = free.get()
        try:
            results.add(key, action(worker, key))
        finally:
            free.put(worker)
        print(f"{len(results.known)} of {len(keys)}: {key}", flush=True)

    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(one, [key for key in keys if key not in results.known]))


def report(mutations: list[Mutation], killed: Results) -> None:
    """Print which changes nobody noticed, and a table by package."""
    total, noticed = Counter[str](), Counter[str]()
    for mutation in mutations:
        package = "/".join(mutation.path.split("/")[:2]).removesuffix(".py")
        total[package] += 1
        noticed[package] += bool(killed.known[str(mutation)])
        if not killed.known[str(mutation)]:
            print(f"survived: {mutation}")
    for package in sorted(total):
        print(f"{noticed[package]:4} of {total[package]:4}  {noticed[package] / total[package]:5.0%}  {package}")
    print(f"{noticed.total():4} of {total.total():4}  {noticed.total() / total.total():5.0%}  all")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description="Count the mutations that tests notice."
    )
    parser.add_argument("--revision", default="HEAD", help="the commit whose code and tests are looked at")
    options = parser.parse_args()
    name = ["git", "-C", str(ROOT), "rev-parse", "--short=12", f"{options.revision}^{{commit}}"]
    commit = subprocess.run(name, check=True, capture_output=True, text=True).stdout.strip()
    home = ROOT / "build/mutants" / commit
    workers = [Worker(home / f"worker-{number}") for number in range(os.cpu_count() or 1)]
    for worker in workers:
        worker.set_up(commit)
    root = workers[0].root
    mutations = sample(root, PACKAGE, SEED, COUNT)
    files = sorted(
        name
        for name in (str(path.relative_to(root)) for path in (root / "tests").rglob("test_*.py"))
        if not name.startswith(LEFT_OUT)
    )
    covered = Results(home / "covered.jsonl")

    def see(worker: Worker, file: str) -> object:
        tests = cover(worker, file, mutations, worker.root / "build/coverage")
        return [tests.seconds, list(tests.covering.items())]

    work(workers, files, covered, see)
    tests = {file: Tests(seen[0], dict(seen[1])) for file, seen in covered.known.items()}
    chosen = {str(mutation): choose(number, tests) for number, mutation in enumerate(mutations)}
    by_name = {str(mutation): mutation for mutation in mutations}
    killed = Results(home / "killed.jsonl")
    work(workers, list(by_name), killed, lambda worker, name: attempt(worker, by_name[name], chosen[name]))
    report(mutations, killed)


if __name__ == "__main__":
    main()
