"""The tables of a run, in Markdown: each aim beside its figure, then all figures."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.sheet import (
    BYTES,
    DELTAS,
    LOAD_BUSY,
    LOAD_COST,
    MEGABYTES,
    MILLISECONDS,
    PER_PROCESSOR,
    RATE,
    SECONDS,
    Aim,
    Sheet,
)

COMPARED = (RATE, PER_PROCESSOR, MILLISECONDS, DELTAS, BYTES, SECONDS, MEGABYTES)
"""Units of which the ratio to the system beside is shown."""


def tables(sheets: Sequence[Sheet], run: Mapping[str, Any]) -> str:
    """All tables of a run; `run` is what is known of machine, time and command."""
    machine = run["machine"]
    lines = [
        "# Result of a run",
        "",
        f"`{run['command']}`, {run['began']}, {machine['processor']}, {machine['cores']} cores, {machine['kernel']}.",
        *(["", "**Quick: fewer and shorter rounds than figures need that are to be quoted.**"] if run["quick"] else []),
        "",
        "Figures are medians of rounds, in brackets the lowest and the highest. A ratio is taken within each round.",
        "",
        *aims_table(sheets),
    ]
    for sheet in sheets:
        lines += [f"## {sheet.suite}: {sheet.title}", ""]
        for case in sheet.cases():
            lines += case_table(sheet, case)
    lines += load_table(sheets)
    return "\n".join(lines).rstrip() + "\n"


def aims_table(sheets: Sequence[Sheet]) -> list[str]:
    """Each aim beside its figure."""
    found = [(aim, figure) for sheet in sheets for aim in sheet.aims if (figure := sheet.found(aim)) is not None]
    if not found:
        return []
    rows = [aim_row(aim, *figure) for aim, figure in sorted(found, key=lambda pair: pair[0].number)]
    return ["## Aims", "", "| | aim | | found | |", "|---|---|---|---|---|", *rows, ""]


def aim_row(aim: Aim, middle: float, lowest: float, highest: float) -> str:
    """One aim."""
    to = f", to {' and '.join(aim.others) if len(aim.others) < 3 else 'the best of the others'}" if aim.others else ""
    spread = f"**{short(middle)}** ({short(lowest)} to {short(highest)})"
    met = "met" if aim.is_met_by(middle) else "missed"
    return f"| {aim.number} | {aim.what}: {aim.unit} of {aim.system}{to} | {aim.text} | {spread} | {met} |"


def load_table(sheets: Sequence[Sheet]) -> list[str]:
    """What the load generator took, where it was busiest: it must have had time to spare."""
    head = "| | busiest with | busy % of its core | us/request | could ask so many a second |"
    rows = []
    for sheet in sheets:
        for case in sheet.cases():
            busy = {name: median(sheet.figures.get((case, name, LOAD_BUSY), [0])) for name in sheet.systems(case)}
            name = max(busy, key=lambda name: busy[name])
            if busy[name]:
                cost = median(sheet.figures[case, name, LOAD_COST])
                figures = f"{short(busy[name])} | {short(cost)} | {short(1e6 / cost)}"
                rows.append(f"| {sheet.suite}: {case} | {name} | {figures} |")
    return ["## The load generator", "", head, "|---|---|---:|---:|---:|", *rows, ""] if rows else []


def case_table(sheet: Sheet, case: str) -> list[str]:
    """All figures of a case, a system a line."""
    units = [unit for unit in sheet.units(case) if unit not in (LOAD_BUSY, LOAD_COST)]
    beside = sheet.beside.get(case)
    compared = [unit for unit in units if unit in COMPARED] if beside else []
    heads = ["", *units, *(f"{unit} to {beside}" for unit in compared)]
    lines = [f"### {case}", "", "| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for system in sheet.systems(case):
        cells = [short(median(rounds)) if (rounds := sheet.figures.get((case, system, unit))) else "" for unit in units]
        for unit in compared:
            ratios = sheet.ratios(case, system, (str(beside),), unit)
            cells.append(f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})" if ratios else "")
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def short(figure: float) -> str:
    """A figure with three digits, or with all digits before the point."""
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"
