"""Plots of a suite, as PNG and SVG: bars of the medians, with the lowest and highest rounds."""

import importlib
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.sheet import BYTES, DELTAS, MEGABYTES, MILLISECONDS, RATE, SECONDS, Sheet

DRAWN = (RATE, DELTAS, MILLISECONDS, SECONDS, MEGABYTES, BYTES)
OURS_COLOUR, OTHERS_COLOUR = "#0b7a75", "#b8b8b8"
DOTS_AN_INCH = 110


def draw(sheet: Sheet, folder: Path) -> None:
    """Draw a sheet into `folder`, as `suite.png` and `suite.svg`."""
    # It stands in the harness's environment only, not where types are checked.
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = sheet.suite  # the same figures give the same file
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    most = max(len(sheet.systems(case)) for case in sheet.cases())
    cases = [case for case in sheet.cases() if len(sheet.systems(case)) > min(2, most - 1)]  # pairs need no plot
    panels = [(case, unit) for case in cases for unit in sheet.units(case) if unit in DRAWN]
    columns = min(2, len(panels))
    rows = [panels[first : first + columns] for first in range(0, len(panels), columns)]
    heights = [0.7 + 0.28 * max(len(sheet.systems(case)) for case, _ in row) for row in rows]
    figure, axes = pyplot.subplots(
        len(rows),
        columns,
        figsize=(6.2 * columns, 0.4 + sum(heights)),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
    )
    for axis, (case, unit) in zip(axes.flat, panels, strict=False):
        bars(axis, sheet, case, unit)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(f"{sheet.suite}: {sheet.title}", fontsize=11)
    figure.savefig(folder / f"{sheet.suite}.png", dpi=DOTS_AN_INCH)
    figure.savefig(folder / f"{sheet.suite}.svg", metadata={"Date": None})
    pyplot.close(figure)


def bars(axis: Any, sheet: Sheet, case: str, unit: str) -> None:
    """One case: a bar for each system, from the lowest round to the highest a line."""
    found = {name: rounds for name in sheet.systems(case) if (rounds := sheet.figures.get((case, name, unit)))}
    names = list(found)[::-1]
    if not names[0][0].isdigit():  # sizes stay in their order
        names.sort(key=lambda name: median(found[name]))
    middles = [median(found[name]) for name in names]
    below = [middle - min(found[name]) for middle, name in zip(middles, names, strict=True)]
    above = [max(found[name]) - middle for middle, name in zip(middles, names, strict=True)]
    colours = [OURS_COLOUR if name.startswith("jimsapi") or name[0].isdigit() else OTHERS_COLOUR for name in names]
    drawn = axis.barh(names, middles, color=colours, xerr=(below, above), error_kw={"elinewidth": 0.8})
    digits = "%.0f" if max(middles) >= 100 else "%.3g"
    axis.bar_label(drawn, labels=[digits % middle for middle in middles], fontsize=7, padding=6)
    axis.set_xlim(0, 1.15 * max(max(found[name]) for name in names))
    axis.set_title(f"{case}, {unit}", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
