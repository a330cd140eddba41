"""Figures, ratios, aims and tables of the benchmarks."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks import plan, run
from benchmarks.instructions import report, risen
from benchmarks.plan import share_a_core, two_cores
from benchmarks.sheet import LOAD_BUSY, LOAD_COST, P99, RATE, Aim, Sheet
from benchmarks.table import tables

MACHINE = {"processor": "one", "cores": 2, "kernel": "Linux", "file system": "ext4", "fsync ms": 0.2}
RUN: dict[str, Any] = {
    "command": "python -m benchmarks --seed 1",
    "began": "2026-11-25",
    "quick": False,
    "commit": "abc",
    "machine": MACHINE,
    "one core for both": False,
    "processors used by others before": 0.0,
}


@pytest.fixture
def sheet() -> Sheet:
    sheet = Sheet("framework", "requests", beside={"GET": "raw"})
    for ours, raw, other in ((50.0, 100.0, 40.0), (30.0, 40.0, 45.0), (90.0, 100.0, 60.0)):
        sheet.add("GET", "ours", {RATE: ours, P99: 1 / ours})
        sheet.add("GET", "raw", {RATE: raw, P99: 1 / raw})
        sheet.add("GET", "other", {RATE: other, P99: 1 / other})
    return sheet


def test_ratios_are_taken_within_each_round(sheet: Sheet) -> None:
    assert sheet.ratios("GET", "ours", ("raw",), RATE) == [0.5, 0.75, 0.9]


def test_the_versions_of_what_is_compared_stand_above_the_tables(sheet: Sheet) -> None:
    versions = {
        "ours": {"Python": "3.13.5", "uvicorn": "0.54", "pip": "26"},
        "falcon": {"falcon": "4.4", "orjson": "3"},
    }
    assert "\nVersions: Python 3.13.5, uvicorn 0.54, falcon 4.4.\n" in tables([sheet], {**RUN, "versions": versions})
    assert "Versions" not in tables([sheet], RUN)


def test_an_aim_that_is_missed_is_shown_beside_its_figure(sheet: Sheet) -> None:
    sheet.aims = (
        Aim(1, "Routed GET", "GET", "ours", RATE, ("raw",), at_least=0.92),
        Aim(2, "Routed GET", "GET", "ours", RATE, at_most=50),
        Aim(3, "Not measured", "POST", "ours", RATE, at_least=1),
    )
    text = tables([sheet], RUN)
    assert "| Routed GET: requests/s to raw | ≥ 0.92 | **0.75** (0.5 to 0.9) | short |" in text
    assert "| ≤ 50 | **50** (30 to 90) | met |" in text
    assert "Not measured" not in text


def test_of_an_aim_for_several_cases_the_worst_is_shown(sheet: Sheet) -> None:
    for case, ratio in (("one state", 1.1), ("all types", 1.4), ("messages", 0.9)):
        sheet.add(case, "long", {P99: ratio})
        sheet.add(case, "short", {P99: 1.0})
        sheet.aims += (Aim(4, "A long thread", case, "long", P99, ("short",), at_most=1.3),)
    text = tables([sheet], RUN)
    assert "| ≤ 1.3 | **1.4** (1.4 to 1.4), all types: the worst of 3 cases | short |" in text
    assert text.count("A long thread") == 1
    assert [aim["met"] for aim in sheet.plain()["aims"]] == [True, False, True]


def test_a_machine_that_others_use_is_warned_of(sheet: Sheet) -> None:
    assert "**" not in tables([sheet], RUN)
    sheet.others = 0.31
    warning = "**Other programs used this machine, so many of its 2 processors: framework 0.31.**"
    assert warning in tables([sheet], RUN)
    assert "so many of its 2 processors: before 0.50, framework 0.31.**" in tables(
        [sheet], {**RUN, "processors used by others before": 0.5}
    )


def test_a_store_in_memory_is_warned_of(sheet: Sheet) -> None:
    in_memory = {**RUN, "machine": {**MACHINE, "file system": "tmpfs"}}
    assert "**Stores were kept in memory (tmpfs)" in tables([sheet], in_memory)


def test_a_load_generator_without_time_to_spare_is_warned_of(sheet: Sheet) -> None:
    sheet.add("GET", "raw", {LOAD_BUSY: 60.0, LOAD_COST: 10.0})
    text = tables([sheet], RUN)
    assert "| framework: GET | raw | 60 | 10 | 100,000 |" in text
    assert "may have been the limit" not in text
    sheet.add("GET", "ours", {LOAD_BUSY: 97.0, LOAD_COST: 10.0})
    assert "**The load generator may have been the limit: framework, GET.**" in tables([sheet], RUN)


def test_what_is_written_leaves_other_files_alone(
    sheet: Sheet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "draw", lambda *_: None)  # it needs matplotlib
    (tmp_path / "README.md").write_text("by hand")
    for _ in range(2):
        run.write(tmp_path, [sheet], RUN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "result.json", "tables.md"]
    assert (tmp_path / "README.md").read_text() == "by hand"
    kept = json.loads((tmp_path / "result.json").read_text())
    assert kept["warnings"] == []
    assert kept["suites"][0]["figures"][0] == {
        "case": "GET",
        "system": "ours",
        "unit": RATE,
        "rounds": [50.0, 30.0, 90.0],
    }


PAIRS = ((0, 1), (0, 2), (2, 6), (2, 4), (3, 4))


def test_the_load_has_a_core_of_its_own_if_there_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "PROCESSORS", tmp_path)
    for number, threads in enumerate(("0-1", "0-1", "2,6")):
        (tmp_path / f"cpu{number}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{number}" / "topology" / "thread_siblings_list").write_text(f"{threads}\n")
    assert [share_a_core(*pair) for pair in PAIRS] == [True, False, True, False, False]
    for allowed, chosen in (({0, 1, 2}, (0, 2)), ({0, 1}, (0, 1)), ({3, 4}, (3, 4)), ({5}, (None, None))):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, allowed=allowed: allowed)
        assert two_cores() == chosen


def test_one_core_for_server_and_load_is_warned_of(sheet: Sheet) -> None:
    assert share_a_core(None, None)
    text = tables([sheet], {**RUN, "one core for both": True})
    assert "**Server and load generator had one core between them.**" in text


def test_more_instructions_than_before_are_called_slower() -> None:
    before = {"date": "2026-11-25", "commit": "abc", "healthz": "1000", "404": "1000", "chat": "1000"}
    _, slower, same, new = report({"healthz": 1100, "404": 1005, "SSE": 7}, before)
    assert slower.endswith("+10.0%  slower")
    assert same.endswith("+0.5%")
    assert new.split() == ["SSE", "7"]


def test_only_kinds_of_requests_that_take_over_two_percent_more_instructions_need_a_reason() -> None:
    before = {"date": "2026-11-25", "commit": "abc", "healthz": "1000", "404": "1000", "chat": "1000", "SSE": ""}
    assert risen({"healthz": 1021, "404": 1020, "chat": 900, "SSE": 7, "POST": 7}, before) == ["healthz"]
