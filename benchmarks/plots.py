"""Plots of a suite, as PNG and SVG: bars of the medians, with the lowest and highest rounds."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.sheet import BYTES, DELTAS, MEGABYTES, MILLISECONDS, RATE, SECONDS, Sheet

DRAWN = (RATE, DELTAS, MILLISECONDS, SECONDS, MEGABYTES, BYTES)
COLOURS = {
    "jimsapi": "#0b7a75",
    "jimsapi, uvicorn's protocol": "#4fa8a3",
    "jimsapi on granian": "#4fa8a3",
    "jimsapi on hypercorn": "#94cdc9",
    "jimsapi, JIMS app": "#4fa8a3",
    "jimsapi, JIMS app, 200 events": "#94cdc9",
    "raw ASGI": "#3d4450",
    "raw ASGI, jimsapi's protocol": "#6b7380",
    "BlackSheep": "#7d6ba8",
    "Falcon": "#5b86b5",
    "FastAPI": "#b3892f",
    "Litestar": "#a85f86",
    "Starlette": "#7f8b52",
    "jims-api 0.6.2": "#c8553d",
    "jims-api 0.6.2, tuned": "#de9685",
}
"""Of each system, in every plot. What is not here is ours: with something or without it, beside much or little."""
OURS_COLOUR, TEXT_COLOUR = COLOURS["jimsapi"], "#1f2328"
DOTS_AN_INCH = 100
STYLE = {
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text: smaller, and a change of a figure changes one line
    "font.family": ["DejaVu Sans", "sans-serif"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), TEXT_COLOUR),
}

Bars = Mapping[str, Sequence[float]]
"""What each bar stands for: the figures of its rounds."""


class Panel(NamedTuple):
    """A part of a plot. `line` is where a dashed line stands."""

    title: str
    bars: Bars
    line: float | None = None


def draw(sheet: Sheet, folder: Path) -> None:
    """Draw a sheet into `folder`, as `suite.png` and `suite.svg`."""
    most = max(len(sheet.systems(case)) for case in sheet.cases())
    cases = [case for case in sheet.cases() if len(sheet.systems(case)) > min(2, most - 1)]  # pairs need no plot
    panels = []
    for case in cases:
        for unit in (unit for unit in sheet.units(case) if unit in DRAWN):
            found = {name: sheet.figures.get((case, name, unit), []) for name in sheet.systems(case)}
            bars = in_order({name: rounds for name, rounds in found.items() if rounds})
            panels.append(Panel(f"{case}, {unit}", bars))
    draw_panels(f"{sheet.suite}: {sheet.title}", panels, folder / sheet.suite)


def in_order(bars: Bars) -> Bars:
    """The largest first; sizes, as `400 events`, as they are."""
    if next(iter(bars))[0].isdigit():
        return bars
    return dict(sorted(bars.items(), key=lambda bar: -median(bar[1])))


def draw_panels(title: str, panels: Sequence[Panel], path: Path) -> None:
    """Draw panels, two beside each other, into a PNG and an SVG at `path`, which gets the ending."""
    # It stands in the harness's environment only, not where types are checked.
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    matplotlib.rcParams.update(STYLE)
    matplotlib.rcParams["svg.hashsalt"] = path.name  # the same figures give the same file
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    columns = min(2, len(panels))
    rows = [panels[first : first + columns] for first in range(0, len(panels), columns)]
    most = [max(len(panel.bars) for panel in row) for row in rows]
    heights = [0.75 + 0.27 * bars for bars in most]
    figure, axes = pyplot.subplots(
        len(rows),
        columns,
        figsize=(5.6 * columns, 0.5 + sum(heights)),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
    )
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.1)
    for number, (axis, panel) in enumerate(zip(axes.flat, panels, strict=False)):
        draw_bars(axis, panel, most[number // columns])
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(title, fontsize=11)
    # Neither date nor version: what changes in a file is what was measured.
    png = {"dpi": DOTS_AN_INCH, "metadata": {"Software": None}, "pil_kwargs": {"optimize": True}}
    figure.savefig(path.with_suffix(".png"), **png)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def draw_bars(axis: Any, panel: Panel, room: int) -> None:
    """One panel, with room for so many bars: one for each name, the first on top; a line from the lowest round to the
    highest."""
    bars = panel.bars
    names = list(bars)[::-1]
    middles = [median(bars[name]) for name in names]
    below = [middle - min(bars[name]) for middle, name in zip(middles, names, strict=True)]
    above = [max(bars[name]) - middle for middle, name in zip(middles, names, strict=True)]
    colours = [COLOURS.get(name, OURS_COLOUR) for name in names]
    whiskers = {"elinewidth": 1, "ecolor": TEXT_COLOUR}
    drawn = axis.barh(names, middles, color=colours, xerr=(below, above), error_kw=whiskers)
    axis.bar_label(drawn, labels=[label(middle) for middle in middles], fontsize=8, padding=5)
    axis.set_xlim(0, max(1.18 * max(max(bars[name]) for name in names), 1.05 * (panel.line or 0)))
    axis.set_ylim(len(names) - room - 0.6, len(names) - 0.4)
    axis.locator_params(axis="x", nbins=6, steps=[1, 2, 5, 10])
    axis.xaxis.set_major_formatter(lambda place, _: f"{place:,.6g}")
    axis.set_title(panel.title)
    axis.tick_params(labelsize=8)
    if panel.line is not None:
        axis.axvline(panel.line, color=TEXT_COLOUR, linewidth=1, linestyle=(0, (4, 3)))


def label(figure: float) -> str:
    """A figure beside its bar."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"
