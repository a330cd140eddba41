"""How the figures of several runs differ: `python -m benchmarks history A B ...`.

A run is a `tables.md`, or a revision in git, such as `v0.1.0`, whose `benchmarks/results/tables.md` is meant. The
command prints what each run says of its machine and against its figures. Then it prints, row by row, the figure of each
run, and the ratio of the last one to the first, with the word `better` or `worse` if they differ by over 2 %. Machines
differ from day to day, so a row that stands beside another system in its table is compared by its ratio to that system.
With `--out FOLDER` the rows of the system `jimsapi` are also drawn there, as `history.png` and `history.svg`.
"""

import argparse
import re
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.environments import ROOT
from benchmarks.plots import DRAWN, Panel, draw_panels
from benchmarks.sheet import DELTAS, PER_PROCESSOR, RATE, SERVER_BUSY

TABLES = "benchmarks/results/tables.md"
LEFT_OUT = (SERVER_BUSY, "predicted requests/s")
"""Units that say how a figure came about."""
MORE_IS_BETTER = (RATE, PER_PROCESSOR, DELTAS, "deltas/processor s")
SAME = 0.02
"""Runs that differ by less are not called better or worse."""
SYSTEM = "jimsapi"
WIDTH = 60
"""Letters of a line above a part of the plot."""


class Row(NamedTuple):
    """What a figure is of. `unit` may be a ratio, such as `requests/s to raw ASGI`."""

    suite: str
    case: str
    system: str
    unit: str

    @property
    def plain_unit(self) -> str:
        """The unit without the system beside."""
        return re.sub(r" to .*", "", self.unit)


class Run(NamedTuple):
    """A run: what it says of its machine and against its figures, and the cells of its tables."""

    notes: Sequence[str]
    cells: Mapping[Row, str]

    def figure(self, row: Row) -> float | None:
        """The figure of a row, without its spread; None if the run does not have the row."""
        cell = self.cells.get(row)
        return None if cell is None else float(cell.split()[0].replace(",", ""))


def main(arguments: Sequence[str]) -> None:
    """Run the command with the arguments after `history`."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks history", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("runs", nargs="+", metavar="run", help="a tables.md, or a revision; the oldest one first")
    options.add_argument("--out", type=Path, metavar="FOLDER", help="where the plot goes")
    given = options.parse_args(arguments)
    if len(set(given.runs)) < max(2, len(given.runs)):
        options.error("name at least two runs, each once")
    runs = {name: run_of(text_of(name)) for name in given.runs}
    if empty := [name for name, run in runs.items() if not run.cells]:
        raise SystemExit(f"there are no tables of a run in {', '.join(empty)}")
    print("\n".join([*notes(runs), "", *table(runs)]))
    if given.out is not None:
        if not (drawn := panels(runs)):
            raise SystemExit(f"there is nothing to draw: no two runs have the same row of {SYSTEM}")
        given.out.mkdir(parents=True, exist_ok=True)
        draw_panels(f"{SYSTEM}, run by run", drawn, given.out / "history")


def text_of(run: str) -> str:
    """The tables of a run. Raises `SystemExit` if there are none."""
    if Path(run).is_file():
        return Path(run).read_text()
    shown = subprocess.run(["git", "show", f"{run}:{TABLES}"], cwd=ROOT, capture_output=True, text=True)
    if shown.returncode:
        raise SystemExit(f"there is no file {run}, and git cannot read it as a revision: {shown.stderr.strip()}")
    return shown.stdout


def run_of(text: str) -> Run:
    """Read all tables. A row that stands beside another system has its ratio to that, in place of the figure; that
    system itself has none.
    """
    cells: dict[Row, str] = {}
    said: list[str] = []
    suite = case = ""
    units: list[str] = []
    for line in text.splitlines():
        if line.startswith("## "):
            suite, case = line[3:].partition(":")[0], ""
        elif line.startswith("### "):
            case, units = line[4:], []
        elif case and line.startswith("| "):
            row = [cell.strip() for cell in line.strip("|").split("|")]
            if units:
                cells |= {
                    Row(suite, case, row[0], unit): cell
                    for unit, cell in zip(units, row[1:], strict=True)
                    if cell and is_compared(unit, units) and not unit.endswith(f" to {row[0]}")
                }
            else:
                units = row[1:]
        elif not suite and line and not line.startswith(("#", "Figures")):
            said.append(line)
    return Run(said, cells)


def is_compared(unit: str, units: Sequence[str]) -> bool:
    """Whether a column of a table is compared: all, but those of which the table has ratios, and `LEFT_OUT`."""
    return unit not in LEFT_OUT and not any(other.startswith(f"{unit} to ") for other in units)


def notes(runs: Mapping[str, Run]) -> list[str]:
    """What to print above the table: what each run says of itself."""
    return [
        line for name, run in runs.items() for line in (f"**{name}**", "", *(f"- {said}" for said in run.notes), "")
    ]


def table(runs: Mapping[str, Run]) -> list[str]:
    """What to print, in Markdown: each row that the first run or the last one has."""
    first, last = (runs[name] for name in (next(iter(runs)), [*runs][-1]))
    lines = [f"| | | {' | '.join(runs)} | ratio |", "|---|---|" + "---:|" * (len(runs) + 1)]
    for row in dict.fromkeys([*last.cells, *first.cells]):
        cells = " | ".join(run.cells.get(row, "") for run in runs.values())
        change = changed(row, first.figure(row), last.figure(row))
        lines.append(f"| {row.suite}: {row.case}, {row.system} | {row.unit} | {cells} | {change} |")
    return lines


def changed(row: Row, before: float | None, now: float | None) -> str:
    """How the last run's figure of a row differs from the first one's."""
    if before is None:
        return "new"
    if now is None:
        return "gone"
    if not before:
        return ""
    ratio = now / before
    if abs(ratio - 1) <= SAME:
        return f"{ratio:.2f}"
    is_better = (ratio > 1) == (row.plain_unit in MORE_IS_BETTER)
    return f"{ratio:.2f} {'better' if is_better else 'worse'}"


def panels(runs: Mapping[str, Run]) -> list[Panel]:
    """The parts of the plot: the rows of jimsapi, by the clock or in bytes, that at least two runs have."""
    rows = dict.fromkeys(row for run in reversed([*runs.values()]) for row in run.cells if row.system == SYSTEM)
    drawn = []
    for row in rows:
        figures = {label(name): run.figure(row) for name, run in runs.items()}
        bars = {name: [figure] for name, figure in figures.items() if figure is not None}
        if len(bars) > 1 and row.plain_unit in DRAWN:
            title = textwrap.fill(f"{row.suite}: {row.case}, {row.unit}", WIDTH)
            drawn.append(Panel(title, bars))
    return drawn


def label(run: str) -> str:
    """What a run is called in a plot: a revision by its name, a file by that of its folder, too."""
    return "/".join(Path(run).parts[-2:])
