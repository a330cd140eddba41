"""Figures, ratios, aims and tables of the benchmarks."""

import pytest

from benchmarks.instructions import report
from benchmarks.sheet import P99, RATE, Aim, Sheet
from benchmarks.table import tables

RUN = {
    "command": "python -m benchmarks",
    "began": "2026-11-25",
    "quick": False,
    "machine": {"processor": "one", "cores": 2, "kernel": "Linux"},
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


def test_of_several_others_the_best_of_the_round_counts(sheet: Sheet) -> None:
    assert sheet.ratios("GET", "ours", ("raw", "other"), RATE) == [0.5, 30 / 45, 0.9]
    assert sheet.ratios("GET", "ours", ("raw", "other"), P99) == [2.0, pytest.approx(1.5), pytest.approx(10 / 9)]


def test_an_aim_that_is_missed_is_shown_beside_its_figure(sheet: Sheet) -> None:
    sheet.aims = (
        Aim(1, "Routed GET", "GET", "ours", RATE, ("raw",), at_least=0.92),
        Aim(2, "Routed GET", "GET", "ours", RATE, at_most=50),
        Aim(3, "Not measured", "POST", "ours", RATE, at_least=1),
    )
    text = tables([sheet], RUN)
    assert "| ≥ 0.92 | **0.75** (0.5 to 0.9) | missed |" in text
    assert "| ≤ 50 | **50** (30 to 90) | met |" in text
    assert "Not measured" not in text


def test_systems_follow_the_one_beside_which_they_stand_and_sizes_follow_each_other(sheet: Sheet) -> None:
    assert sheet.systems("GET") == ["raw", "other", "ours"]
    for size in ("1,000 events", "10 events", "400 events"):
        sheet.add("turn", size, {P99: 1.0})
    assert sheet.systems("turn") == ["10 events", "400 events", "1,000 events"]


def test_more_instructions_than_before_are_called_slower() -> None:
    before = {"date": "2026-11-25", "commit": "abc", "healthz": "1000", "404": "1000", "chat": "1000"}
    _, slower, same, new = report({"healthz": 1100, "404": 1005, "SSE": 7}, before)
    assert slower.endswith("+10.0%  slower")
    assert same.endswith("+0.5%")
    assert new.split() == ["SSE", "7"]
