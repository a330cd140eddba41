"""The command `python -m benchmarks`: measures in environments of its own, and writes the result, tables and plots."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.environments import FOLDER, HARNESS, python_of
from benchmarks.load import require_linux_and_wrk

SUITES = (
    "framework",
    "features",
    "chat",
    "growth",
    "conversation",
    "search",
    "scale",
    "streams",
    "crowd",
    "plugins",
    "start",
    "auth",
    "pythons",
)
COMPARE, HISTORY = "compare", "history"


def main() -> None:
    """Run the command. What needs more than Python's own library runs in the harness's environment."""
    if sys.argv[1:2] == [COMPARE]:
        compare(sys.argv[2:])
        return
    if sys.argv[1:2] == [HISTORY]:
        history(sys.argv[2:])
        return
    now = datetime.now(UTC)
    more = "All take somewhat more than an hour, with --quick some minutes. "
    more += "benchmarks/README.md says what each measures and needs. "
    more += "`python -m benchmarks compare A B` compares two revisions, `python -m benchmarks history A B` two runs."
    options = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, epilog=more)
    options.add_argument("suites", nargs="*", metavar="suite", help=f"all, or some of: {', '.join(SUITES)}")
    options.add_argument("--quick", action="store_true", help="fewer and shorter rounds: to try it, not to quote it")
    options.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where its files go (.benchmarks/results/ and the time)"
    )
    options.add_argument("--seed", type=int, default=now.microsecond, help="of the order of systems and cases")
    given = options.parse_args()
    if unknown := set(given.suites) - set(SUITES):
        options.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    require_linux_and_wrk()
    enter_harness()
    from benchmarks.run import run

    out = given.out or FOLDER / "results" / now.strftime("%Y-%m-%d-%H%M%S")
    # What repeats the run, its order included. Where it was written to is nobody's business.
    command = ["python", "-m", "benchmarks", *given.suites, *(["--quick"] if given.quick else [])]
    told = " ".join([*command, "--seed", str(given.seed)])
    run([name for name in SUITES if name in given.suites or not given.suites], given.quick, out, given.seed, now, told)


def compare(arguments: Sequence[str]) -> None:
    """Compare two revisions, or print how to."""
    if not {"-h", "--help"} & set(arguments):
        require_linux_and_wrk()
        enter_harness()
    from benchmarks.compare import main

    main(arguments)


def history(arguments: Sequence[str]) -> None:
    """Compare runs, or print how to."""
    if any(each.startswith("--out") for each in arguments):  # the plot
        enter_harness()
    from benchmarks.history import main

    main(arguments)


def enter_harness() -> None:
    """Run the command anew in the harness's environment, unless this is it."""
    if Path(sys.prefix) != FOLDER / HARNESS:
        python = python_of(HARNESS)
        os.execv(python, [python, "-m", "benchmarks", *sys.argv[1:]])


if __name__ == "__main__":
    main()
