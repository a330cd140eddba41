"""A run: suites one after another, then the files that keep what they found."""

import importlib
import json
import random
import re
import subprocess
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.environments import FOLDER, REQUIREMENTS, ROOT, versions
from benchmarks.machine import Others, machine
from benchmarks.overview import draw_overview
from benchmarks.plan import Plan, share_a_core, two_cores
from benchmarks.plots import draw
from benchmarks.sheet import Sheet
from benchmarks.table import tables, warnings_of


def run(suites: Sequence[str], quick: bool, out: Path, seed: int, began: datetime, command: str) -> None:
    """Measure, and write `result.json`, `tables.md` and the plots into `out`. What is there already after each suite is
    kept, whatever becomes of the next one."""
    server_core, load_core = two_cores()
    plan = Plan(quick, random.Random(seed), server_core, load_core)
    about: dict[str, Any] = {
        "command": command,
        "began": began.isoformat(" ", "seconds"),
        "quick": quick,
        "seed": seed,
        "commit": commit(),
        "machine": machine(),
        "server core": server_core,
        "load core": load_core,
        "one core for both": share_a_core(server_core, load_core),
        "processors used by others before": round(used_by_others_now(), 3),
    }
    warn([], about)
    sheets: list[Sheet] = []
    for suite in suites:
        others = Others()
        sheet: Sheet = importlib.import_module(f"benchmarks.suites.{suite}").run(plan)
        sheet.others = others.processors()
        sheets.append(sheet)
        warn(sheets, about)
        about["versions"] = {name: versions(name) for name in REQUIREMENTS if (FOLDER / name / "installed").exists()}
        write(out, sheets, about)
    print(f"\n{(out / 'tables.md').read_text()}\nwritten to {out}")


def write(out: Path, sheets: Sequence[Sheet], about: dict[str, Any]) -> None:
    """Write what was found into a folder, in which other files may be. The last sheet's plot is drawn, and, where what
    it shows is there, the overview."""
    out.mkdir(parents=True, exist_ok=True)
    result = {**about, "warnings": warnings_of(sheets, about), "suites": [sheet.plain() for sheet in sheets]}
    (out / "result.json").write_text(as_text(result))
    (out / "tables.md").write_text(tables(sheets, about))
    draw(sheets[-1], out)
    draw_overview(sheets, out)


def warn(sheets: Sequence[Sheet], about: dict[str, Any]) -> None:
    """Tell whoever waits, as the tables do, what speaks against quoting the figures."""
    for warning in warnings_of(sheets, about):
        print(f"WARNING: {warning}", flush=True)


def used_by_others_now() -> float:
    """How many processors other programs keep busy while this one sleeps."""
    others = Others()
    time.sleep(2)
    return others.processors()


def as_text(result: Any) -> str:
    """A result in JSON, with each list of figures on one line."""
    text = json.dumps(result, indent=1, ensure_ascii=False)
    return re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def commit() -> str:
    """The commit that is measured; with `+` if there are changes beyond it, empty outside of a repository."""
    git = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(git, cwd=ROOT, capture_output=True, text=True).stdout.strip()
