"""A run: suites one after another, then the files that keep what they found."""

import importlib
import json
import os
import platform
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.environments import FOLDER, REQUIREMENTS, ROOT, versions
from benchmarks.load import require_wrk
from benchmarks.plan import Plan, two_cores
from benchmarks.plots import draw
from benchmarks.sheet import Sheet
from benchmarks.table import tables


def run(suites: Sequence[str], quick: bool, out: Path, seed: int, began: datetime) -> None:
    """Measure, and write `result.json`, `tables.md` and the plots into `out`. What is there already after each suite is
    kept, whatever becomes of the next one."""
    require_wrk()
    server_core, load_core = two_cores()
    plan = Plan(quick, random.Random(seed), server_core, load_core)
    about: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "began": began.isoformat(" ", "seconds"),
        "quick": quick,
        "seed": seed,
        "commit": commit(),
        "machine": machine(),
        "server core": server_core,
        "load core": load_core,
    }
    out.mkdir(parents=True, exist_ok=True)
    sheets: list[Sheet] = []
    for suite in suites:
        sheets.append(importlib.import_module(f"benchmarks.suites.{suite}").run(plan))
        about["versions"] = {name: versions(name) for name in REQUIREMENTS if (FOLDER / name / "installed").exists()}
        result = {**about, "suites": [sheet.plain() for sheet in sheets]}
        (out / "result.json").write_text(as_text(result))
        (out / "tables.md").write_text(tables(sheets, about))
        draw(sheets[-1], out)
    print(f"\n{(out / 'tables.md').read_text()}\nwritten to {out}")


def as_text(result: Any) -> str:
    """A result in JSON, with each list of figures on one line."""
    text = json.dumps(result, indent=1, ensure_ascii=False)
    return re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def machine() -> dict[str, Any]:
    """The machine that this runs on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
        "load before": os.getloadavg()[0],
    }


def commit() -> str:
    """The commit that is measured; with `+` if there are changes beyond it, empty outside of a repository."""
    git = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(git, cwd=ROOT, capture_output=True, text=True).stdout.strip()
