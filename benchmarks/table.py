"""The tables of a run, in Markdown: each aim beside its figure, then all figures."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.machine import warnings
from benchmarks.sheet import (
    BYTES,
    DELTAS,
    LESS_IS_BETTER,
    LOAD_BUSY,
    LOAD_COST,
    MEGABYTES,
    MILLISECONDS,
    PER_PROCESSOR,
    PROCESSOR_COST,
    RATE,
    SECONDS,
    Aim,
    Found,
    Sheet,
)

COMPARED = (RATE, PER_PROCESSOR, MILLISECONDS, DELTAS, BYTES, SECONDS, MEGABYTES, PROCESSOR_COST)
"""Units of which the ratio to the system beside is shown."""
VERSIONS = ("Python", "uvicorn", "uvloop", "httptools", "orjson", "msgspec")
"""What the tables say of the environment of ours."""
PEERS = ("starlette", "fastapi", "litestar", "blacksheep", "falcon", "jims-api")
"""The environments of which the tables say what version the package of the same name has."""
TOO_BUSY = 90
"""The share of its processor, in percent, from which the load generator may be what is measured."""


def tables(sheets: Sequence[Sheet], run: Mapping[str, Any]) -> str:
    """All tables of a run; `run` is what is known of machine, time and command."""
    machine = run["machine"]
    quick = ["Quick: fewer and shorter rounds than figures need that are to be quoted."] if run["quick"] else []
    lines = [
        "# Result of a run",
        "",
        f"`{run['command']}`, {run['began']}, commit {run['commit'] or 'unknown'}.",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['kernel']}.",
        f"An fsync of a page takes {machine['fsync ms']} ms ({machine['file system']}).",
        f"Other programs used at most {max(others_of(sheets, run).values()):.2f} processors.",
        *versions_text(run.get("versions", {})),
        "",
        *(f"**{warning}**\n" for warning in [*quick, *warnings_of(sheets, run)]),
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


def versions_text(versions: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A line with the versions of what is compared, by the environments that there are."""
    found = {name: versions.get("ours", {}).get(name) for name in VERSIONS}
    found |= {name: versions.get(name, {}).get(name) for name in PEERS}
    told = [f"{name} {version}" for name, version in found.items() if version]
    return [f"Versions: {', '.join(told)}."] if told else []


def warnings_of(sheets: Sequence[Sheet], run: Mapping[str, Any]) -> list[str]:
    """What speaks against quoting the figures."""
    shared = ["Server and load generator had one core between them."] if run["one core for both"] else []
    return [*warnings(run["machine"], others_of(sheets, run)), *shared, *slow_load(sheets)]


def others_of(sheets: Sequence[Sheet], run: Mapping[str, Any]) -> dict[str, float]:
    """How many processors other programs kept busy: before the first suite, and during each."""
    return {"before": run["processors used by others before"], **{sheet.suite: sheet.others for sheet in sheets}}


def aims_table(sheets: Sequence[Sheet]) -> list[str]:
    """Each aim beside its figure; where it has several cases, beside the worst."""
    found: dict[tuple[int, str, str, tuple[str, ...]], list[tuple[Aim, Found, Sheet]]] = {}
    for sheet in sheets:
        for aim in sheet.aims:
            if (figure := sheet.found(aim)) is not None:
                found.setdefault((aim.number, aim.what, aim.unit, aim.others), []).append((aim, figure, sheet))
    if not found:
        return []
    rows = [aim_row(found[key]) for key in sorted(found, key=lambda key: key[0])]
    return ["## Aims", "", "| | aim for jimsapi | | found | |", "|---|---|---|---|---|", *rows, ""]


def aim_row(cases: Sequence[tuple[Aim, Found, Sheet]]) -> str:
    """One aim."""
    worst = max if cases[0][0].at_most is not None else min
    aim, found, sheet = worst(cases, key=lambda each: each[1].median)
    beside = ""
    if len(aim.others) == 1:
        beside = f" to {aim.others[0]}"
    elif aim.others:
        best_of = min if aim.unit in LESS_IS_BETTER else max
        best = best_of(aim.others, key=lambda name: median(sheet.figures[aim.case, name, aim.unit]))
        beside = f" to the best peer, {best}"
    case = f", {aim.case}: the worst of {len(cases)} cases" if len(cases) > 1 else ""
    spread = f"**{short(found.median)}** ({short(found.lowest)} to {short(found.highest)}){case}"
    met = "met" if found.met else "short"
    return f"| {aim.number} | {aim.what}: {aim.unit}{beside} | {aim.text} | {spread} | {met} |"


def load_table(sheets: Sequence[Sheet]) -> list[str]:
    """What the load generator took, where it was busiest: it must have had time to spare."""
    head = "| | busiest with | busy % of its processor | us each | could ask so many a second |"
    rows = []
    for sheet in sheets:
        for case in sheet.cases():
            name, busy = busiest(sheet, case)
            if busy:
                cost = median(sheet.figures[case, name, LOAD_COST])
                rows.append(f"| {sheet.suite}: {case} | {name} | {short(busy)} | {short(cost)} | {short(1e6 / cost)} |")
    return ["## The load generator", "", head, "|---|---|---:|---:|---:|", *rows, ""] if rows else []


def slow_load(sheets: Sequence[Sheet]) -> list[str]:
    """Where the load generator had too little time to spare."""
    slow = [
        f"{sheet.suite}, {case}" for sheet in sheets for case in sheet.cases() if busiest(sheet, case)[1] > TOO_BUSY
    ]
    return [f"The load generator may have been the limit: {'; '.join(slow)}."] if slow else []


def busiest(sheet: Sheet, case: str) -> tuple[str, float]:
    """The system with which the load generator was busiest, and the share of its processor that it took, in percent."""
    busy = {name: median(sheet.figures.get((case, name, LOAD_BUSY), [0])) for name in sheet.systems(case)}
    name = max(busy, key=lambda name: busy[name])
    return name, busy[name]


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
            middle, least, most = (ratio(of(ratios)) for of in (median, min, max)) if ratios else ("", "", "")
            cells.append(f"{middle} ({least} to {most})" if ratios else "")
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def ratio(figure: float) -> str:
    """A ratio with three digits after the point. A small one has three digits after its zeros."""
    return f"{figure:.3f}" if figure >= 0.1 else f"{figure:#.3g}"


def short(figure: float) -> str:
    """A figure with three digits, or with all digits before the point."""
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"
