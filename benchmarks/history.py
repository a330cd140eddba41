"""How the figures of several runs differ: `python -m benchmarks history A B ...`.

A run is a `tables.md`, or a revision in git, such as `v0.1.0`, whose `benchmarks/results/tables.md` is meant. The
command prints, row by row, the figure of each run, and the ratio of the last one to the first. Machines differ from day
to day, so a row that stands beside another system in its table is compared by its ratio to that system. With
`--out FOLDER` the rows of jimsapi are also drawn there, as `history.png` and `history.svg`.
"""

import argparse
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.environments import ROOT
from benchmarks.plots import Panel, draw_panels
from benchmarks.sheet import (
    BYTES,
    DELTAS,
    MEGABYTES,
    MILLISECONDS,
    PER_PROCESSOR,
    PROCESSOR_COST,
    RATE,
    SECONDS,
    WRITTEN,
)

TABLES = "benchmarks/results/tables.md"
UNITS = (RATE, PER_PROCESSOR, DELTAS, MILLISECONDS, SECONDS, MEGABYTES, BYTES, PROCESSOR_COST, WRITTEN)
"""Units of rows that are compared."""
DRAWN = "jimsapi"


class Row(NamedTuple):
    """What a figure is of. `unit` may be a ratio, such as `requests/s to raw ASGI`."""

    suite: str
    case: str
    system: str
    unit: str


def main(arguments: Sequence[str]) -> None:
    """Run the command with the arguments after `history`."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks history", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("runs", nargs="+", metavar="run", help="a tables.md, or a revision; the oldest one first")
    options.add_argument("--out", type=Path, metavar="FOLDER", help="where the plot goes")
    given = options.parse_args(arguments)
    if len(given.runs) < 2:
        options.error("name at least two runs")
    runs = {name: rows_of(text_of(name)) for name in given.runs}
    print("\n".join(table(runs)))
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        draw_panels(f"{DRAWN}, run by run", panels(runs), given.out / "history")


def text_of(run: str) -> str:
    """The tables of a run. Raises `SystemExit` if there are none."""
    if Path(run).is_file():
        return Path(run).read_text()
    shown = subprocess.run(["git", "show", f"{run}:{TABLES}"], cwd=ROOT, capture_output=True, text=True)
    if shown.returncode:
        raise SystemExit(f"{run} is no file, and git has no {TABLES} of it: {shown.stderr.strip()}")
    return shown.stdout


def rows_of(text: str) -> dict[Row, float]:
    """The rows of all tables. A row that stands beside another system has its ratio to that, in place of the figure;
    that system itself has none.
    """
    found: dict[Row, float] = {}
    suite = case = ""
    units: list[str] = []
    for line in text.splitlines():
        if line.startswith("## "):
            suite, case = line[3:].partition(":")[0], ""
        elif line.startswith("### "):
            case, units = line[4:], []
        elif case and line.startswith("| "):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not units:
                units = cells[1:]
            else:
                found |= {
                    Row(suite, case, cells[0], unit): float(cell.split()[0].replace(",", ""))
                    for unit, cell in zip(units, cells[1:], strict=True)
                    if cell and is_compared(unit, units) and not unit.endswith(f" to {cells[0]}")
                }
        elif not line.startswith("|---"):
            units = []
    return found


def is_compared(unit: str, units: Sequence[str]) -> bool:
    """Whether a column of a table is compared: those of `UNITS`, or, if the table has them, their ratios."""
    plain = re.sub(r" to .*", "", unit)
    if plain not in UNITS:
        return False
    return plain != unit or not any(other.startswith(f"{unit} to ") for other in units)


def table(runs: dict[str, dict[Row, float]]) -> list[str]:
    """What to print, in Markdown: each row that the first run or the last one has."""
    first, last = (runs[name] for name in (next(iter(runs)), [*runs][-1]))
    lines = [f"| | | {' | '.join(runs)} | ratio |", "|---|---|" + "---:|" * (len(runs) + 1)]
    for row in dict.fromkeys([*last, *first]):
        cells = [f"{found[row]:.3g}" if row in found else "" for found in runs.values()]
        both = row in first and row in last and first[row]
        ratio = f"{last[row] / first[row]:.3f}" if both else ("gone" if row in first else "new")
        lines.append(f"| {row.suite}: {row.case}, {row.system} | {row.unit} | {' | '.join(cells)} | {ratio} |")
    return lines


def panels(runs: dict[str, dict[Row, float]]) -> list[Panel]:
    """The parts of the plot: the rows of jimsapi that at least two runs have."""
    rows = dict.fromkeys(row for found in reversed(runs.values()) for row in found if row.system == DRAWN)
    drawn = []
    for row in rows:
        bars = {name: [found[row]] for name, found in runs.items() if row in found}
        if len(bars) > 1:
            drawn.append(Panel(f"{row.suite}: {row.case}, {row.unit}", bars))
    return drawn
