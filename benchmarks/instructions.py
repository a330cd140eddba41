"""The processor's instructions that one request of each kind takes, counted by callgrind: nearly the same in every run,
whatever else the machine does.

`python -m benchmarks.instructions` counts, and prints the difference to the last line for the same Python in
`instructions.csv`; `--record` adds a line. `--gate` counts the revision that added the last line as well, and exits
with 1 if a kind of requests takes over 2 % more since: make it cheaper, or commit a line that says why it costs more
(`--record --why TEXT`). `--idle` compares chats with all that conversations may leave idle with chats alone.
`--agents` compares routed GETs and chats with the plugins of MCP and A2A idle with the same without them, and also
counts the calls of Python functions. It needs valgrind (`apt-get install valgrind`), and runs in the Python that it is
started with, which has jimsapi installed.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import MappingProxyType

from benchmarks.compare import checkout
from benchmarks.in_process import CALLS, FILES, KINDS, REQUESTS
from benchmarks.installed import install

HISTORY = Path(__file__).resolve().parent / "instructions.csv"
ROOT = HISTORY.parent.parent
AGENTS = ("mcp", "a2a")
"""The plugins of `--agents`."""
BESIDE_AGENTS = ("routed GET with a parameter", "chat, memory", "SSE of 10 deltas", "chat, SQLite")
"""The kinds of requests that `--agents` compares."""
PLUGINS = "JIMS_PLUGINS"
TIMES = 3
"""How often `--gate` counts each revision."""
NOISE = 0.02
"""Smaller differences say nothing, and a change may cost as much without a reason."""


def main() -> None:
    """Run the command."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    options.add_argument("--record", action="store_true", help="add a line to the history")
    options.add_argument("--why", default="", help="with --record: why requests take more instructions than before")
    options.add_argument("--gate", action="store_true", help="fail if they take more than when the last line was added")
    options.add_argument("--idle", action="store_true", help="chats with all that they may leave idle, and without it")
    options.add_argument(
        "--agents", action="store_true", help="requests with the plugins of MCP and A2A idle, and without"
    )
    given = options.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind, which counts, is missing. Debian, Ubuntu: apt-get install valgrind")
    if given.idle:
        print("\n".join(beside(count_idle(), count())))
        return
    if given.agents:
        print("\n".join(beside_agents(*with_agents(count_calls), "calls of Python functions")))
        print("\n".join(beside_agents(*with_agents(count), "instructions")))
        return
    if given.gate:
        sys.exit(gate())
    python = ".".join(platform.python_version_tuple()[:2])
    counts, before = count(), last(HISTORY, python)
    print("\n".join(report(counts, before)))
    if given.record:
        if (more := risen(counts, before)) and not given.why:
            raise SystemExit(f"--why is missing: the line has to say why these take more: {', '.join(more)}")
        record(HISTORY, python, counts, given.why)


def gate() -> int:
    """Compare the files here with the revision that added the last line. Returns the exit status.

    Both are counted now, so that the versions of Python and of other packages are the same.
    """
    if _git("rev-parse", "--is-shallow-repository") == "true":
        print("The instructions are not compared: this clone has only a part of the history (git fetch --unshallow).")
        return 0
    added = _git("log", "-1", "--format=%h %as", "--", str(HISTORY))
    if not added:
        print("The instructions are not compared: git does not know which revision added a line to instructions.csv.")
        return 0
    commit, date = added.split()
    with checkout(commit) as folder, ThreadPoolExecutor(max_workers=2) as threads:
        counted = list(threads.map(lambda root: count(root=root), [ROOT, folder] * TIMES))
    counts, fewest_before = fewest(counted[::2]), fewest(counted[1::2])
    before = {"commit": commit, "date": date, **{kind: str(number) for kind, number in fewest_before.items()}}
    print("\n".join(report(counts, before)))
    if not (more := risen(counts, before)):
        return 0
    print(f"More instructions than at {commit}: {', '.join(more)}. Make them cheaper, or commit a line that says why:")
    print("python -m benchmarks.instructions --record --why 'WHY'")
    return 1


def fewest(counted: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The fewest instructions of several counts, by kind. What varies are waits and layouts, which add to them."""
    return {kind: min(each[kind] for each in counted) for kind in counted[0]}


def risen(counts: Mapping[str, int], before: Mapping[str, str]) -> Sequence[str]:
    """The kinds of requests that take more instructions than before, by more than noise."""
    return [kind for kind, number in counts.items() if before.get(kind) and number > int(before[kind]) * (1 + NOISE)]


def count_idle() -> dict[str, int]:
    """Count as `count` does, with the plugins, files, questions and private events of `conversation` beside chats."""
    from benchmarks.suites.conversation import install_all

    with tempfile.TemporaryDirectory() as plugins, tempfile.TemporaryDirectory() as files:
        return count({**install_all(Path(plugins)), FILES: files})


def beside(idle: dict[str, int], alone: dict[str, int]) -> Sequence[str]:
    """What to print: the chats of both, and how they differ."""
    chats = [kind for kind in KINDS if kind.startswith("chat")]
    lines = [f"{'instructions a chat':30}{'alone':>12}{'all idle':>12}"]
    return lines + [f"{kind:30}{alone[kind]:12,}{idle[kind]:12,}{idle[kind] / alone[kind] - 1:+8.1%}" for kind in chats]


def with_agents(
    counting: Callable[[Mapping[str, str]], Mapping[str, float]],
) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Count with the plugins of agents idle, and without them. No other plugin is loaded."""
    with tempfile.TemporaryDirectory() as folder:
        idle = counting({**install_agents(Path(folder)), PLUGINS: ",".join(map(_name, AGENTS))})
    return idle, counting({PLUGINS: "none"})


def install_agents(folder: Path) -> Mapping[str, str]:
    """Put the plugins of agents into `folder`, unless they are installed. Returns the environment that shows them."""
    places = [str(folder)]
    for plugin in AGENTS:
        try:
            distribution(_name(plugin))
        except PackageNotFoundError:
            install(folder, f"jimsapi_{plugin}")
            places.append(str(ROOT / "plugins" / _name(plugin)))
    return {"PYTHONPATH": os.pathsep.join(places)}


def beside_agents(idle: Mapping[str, float], alone: Mapping[str, float], what: str) -> Sequence[str]:
    """What to print: the counts of both, and how they differ."""
    lines = [f"{f'{what} a request':36}{'alone':>12}{'MCP and A2A idle':>20}"]
    rows = ((kind, alone[kind], idle[kind]) for kind in BESIDE_AGENTS)
    return lines + [f"{kind:36}{one:12,.0f}{other:20,.0f}{other / one - 1:+9.2%}" for kind, one, other in rows]


def count_calls(environment: Mapping[str, str] = MappingProxyType({})) -> dict[str, float]:
    """Calls of Python functions a request, by kind. Raises `SystemExit` if the requests were not answered."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "calls.json"
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.in_process"],
            cwd=ROOT,
            env={**os.environ, **environment, CALLS: str(file)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"the requests could not be counted:\n{done.stderr}")
        calls: dict[str, float] = json.loads(file.read_text())
        return calls


def _name(plugin: str) -> str:
    return f"jimsapi-{plugin}"


def count(environment: Mapping[str, str] = MappingProxyType({}), root: Path = ROOT) -> dict[str, int]:
    """Instructions a request with the files of `root`, by kind.

    Raises `SystemExit`, with what was said, if the requests were not answered.
    """
    with tempfile.TemporaryDirectory() as folder:
        parts = Path(folder) / "part"
        callgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={parts}", "--dump-before=getpgid"]
        done = subprocess.run(
            [*callgrind, sys.executable, "-m", "benchmarks.in_process"],
            cwd=root,
            # Without it, dictionaries would be laid out differently each time.
            env={**os.environ, **environment, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"the requests could not be counted:\n{done.stderr}")
        # Part 1 is the start and the first warm-up, part 2 the first kind, part 3 the second warm-up, and so on.
        return {kind: total(Path(f"{parts}.{2 * number}")) // REQUESTS for number, kind in enumerate(KINDS, 1)}


def total(part: Path) -> int:
    """The instructions of one part."""
    line = next(line for line in part.read_text().splitlines() if line.startswith("totals: "))
    return int(line.split()[1])


def last(history: Path, python: str) -> dict[str, str]:
    """The last line for a Python, by column; empty if there is none."""
    with history.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["python"] == python]
    return lines[-1] if lines else {}


def report(counts: dict[str, int], before: dict[str, str]) -> Sequence[str]:
    """What to print: each count, and how it differs from the one before."""
    since = f"  beside {before['date']} ({before['commit']})" if before else "  no earlier count for this Python"
    lines = [f"{'instructions a request':30}{since}"]
    for kind, instructions in counts.items():
        change = ""
        if before.get(kind):
            difference = instructions / int(before[kind]) - 1
            change = f"{difference:+8.1%}" + (
                "" if abs(difference) < NOISE else "  slower" if difference > 0 else "  faster"
            )
        lines.append(f"{kind:30}{instructions:12,}{change}")
    return lines


def record(history: Path, python: str, counts: dict[str, int], why: str) -> None:
    """Add a line to the history."""
    commit = _git("describe", "--always", "--dirty=+", "--exclude=*")
    with history.open("a", newline="") as file:
        date = datetime.now(UTC).strftime("%Y-%m-%d")
        csv.writer(file, lineterminator="\n").writerow([commit, date, python, *counts.values(), why])


def _git(*arguments: str) -> str:
    """Return what git prints. The text is empty if git is missing or fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


if __name__ == "__main__":
    main()
