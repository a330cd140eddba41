"""How the figures of several runs are compared."""

from pathlib import Path

import pytest

from benchmarks import history
from benchmarks.history import Row, main, panels, rows_of, table
from benchmarks.plots import Panel
from benchmarks.sheet import P99, RATE, SECONDS, WRITTEN, Sheet
from benchmarks.table import tables
from tests.benchmarks.test_figures import RUN

TO_RAW = f"{RATE} to raw"
GET = Row("framework", "GET, 32 clients", "jimsapi", TO_RAW)
START = Row("framework", "start", "jimsapi", SECONDS)


def run_of(rate: float, start: float | None = None) -> str:
    sheet = Sheet("framework", "requests", beside={"GET, 32 clients": "raw"})
    sheet.add("GET, 32 clients", "jimsapi", {RATE: rate, P99: 5.0, WRITTEN: 1234.0})
    sheet.add("GET, 32 clients", "raw", {RATE: 10_000.0})
    if start is not None:
        sheet.add("start", "jimsapi", {SECONDS: start})
    return tables([sheet], RUN)


def test_a_row_beside_another_system_has_its_ratio_and_others_their_figure() -> None:
    written = GET._replace(unit=WRITTEN)
    assert rows_of(run_of(9_000, 0.25)) == {GET: 0.9, START: 0.25, written: 1230.0 + 4.0}


def test_the_last_run_is_compared_with_the_first_row_by_row() -> None:
    runs = {name: rows_of(text) for name, text in {"a": run_of(8_000, 0.2), "b": run_of(1), "c": run_of(9_000)}.items()}
    lines = table(runs)
    assert lines[0] == "| | | a | b | c | ratio |"
    assert f"| framework: GET, 32 clients, jimsapi | {TO_RAW} | 0.8 | 0 | 0.9 | 1.125 |" in lines
    assert f"| framework: start, jimsapi | {SECONDS} | 0.2 |  |  | gone |" in lines
    newer = table({"b": runs["b"], "a": runs["a"]})
    assert f"| framework: start, jimsapi | {SECONDS} |  | 0.2 | new |" in newer


def test_the_plot_has_the_rows_of_several_runs() -> None:
    runs = {"a": rows_of(run_of(8_000, 0.2)), "b": rows_of(run_of(9_000))}
    drawn = panels(runs)
    assert Panel(f"framework: GET, 32 clients, {TO_RAW}", {"a": [0.8], "b": [0.9]}) in drawn
    assert not any("start" in panel.title for panel in drawn)


def test_runs_are_read_from_files_and_from_git(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tables.md").write_text(run_of(9_000))
    main([str(tmp_path / "tables.md"), "HEAD"])
    printed = capsys.readouterr().out
    assert f"{TO_RAW} | 0.9 |  | gone |" in printed
    assert "framework: routed GET, jimsapi" in printed


@pytest.mark.parametrize("runs", [["nowhere", "HEAD"], ["HEAD"]])
def test_a_run_that_is_not_there_is_reported(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(runs)
    told = str(ended.value) + capsys.readouterr().err
    assert "nowhere is no file, and git has no" in told or "name at least two runs" in told


def test_the_plot_is_drawn_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(history, "draw_panels", lambda title, panels, path: drawn.append(path))
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text(run_of(9_000))
    main([str(tmp_path / "a.md"), str(tmp_path / "b.md"), "--out", str(tmp_path / "plots")])
    assert drawn == [tmp_path / "plots" / "history"]
