"""How the figures of several runs are compared."""

from pathlib import Path

import pytest

from benchmarks.history import Row, changed, main, run_of, table
from benchmarks.sheet import P99, RATE, SECONDS, SERVER_BUSY, Sheet
from benchmarks.table import tables
from tests.benchmarks.test_figures import RUN

TO_RAW = f"{RATE} to raw"
GET = Row("framework", "GET, 32 clients", "jimsapi", TO_RAW)
WAIT = GET._replace(unit=P99)
START = Row("framework", "start", "jimsapi", SECONDS)


def text(rate: float, start: float | None = None, quick: bool = False) -> str:
    sheet = Sheet("framework", "requests", beside={"GET, 32 clients": "raw"})
    for lower in (0.5, 1, 1):
        sheet.add("GET, 32 clients", "jimsapi", {RATE: lower * rate, P99: 1234.0, SERVER_BUSY: 90.0})
        sheet.add("GET, 32 clients", "raw", {RATE: 10_000.0})
    if start is not None:
        sheet.add("start", "jimsapi", {SECONDS: start})
    return tables([sheet], {**RUN, "quick": quick})


def write(folder: Path, **texts: str) -> list[str]:
    for name, content in texts.items():
        (folder / name).mkdir()
        (folder / name / "tables.md").write_text(content)
    return [str(folder / name / "tables.md") for name in texts]


def test_a_row_beside_another_system_has_its_ratio_and_others_their_figure() -> None:
    run = run_of(text(9_000, 0.25))
    assert dict(run.cells) == {GET: "0.900 (0.450 to 0.900)", WAIT: "1,234", START: "0.25"}
    assert [run.figure(row) for row in (GET, WAIT, START)] == [0.9, 1234.0, 0.25]
    assert run.figure(GET._replace(system="raw")) is None


def test_the_last_run_is_compared_with_the_first_row_by_row() -> None:
    runs = {name: run_of(each) for name, each in {"a": text(8_000, 0.2), "b": text(1_000), "c": text(9_000)}.items()}
    lines = table(runs)
    assert lines[0] == "| | | a | b | c | ratio |"
    spreads = "0.800 (0.400 to 0.800) | 0.100 (0.0500 to 0.100) | 0.900 (0.450 to 0.900)"
    assert f"| framework: GET, 32 clients, jimsapi | {TO_RAW} | {spreads} | 1.12 better |" in lines
    assert f"| framework: start, jimsapi | {SECONDS} | 0.2 |  |  | gone |" in lines
    assert f"| framework: start, jimsapi | {SECONDS} |  | 0.2 | new |" in table({"b": runs["b"], "a": runs["a"]})


@pytest.mark.parametrize(
    ("row", "before", "now", "told"),
    [
        (GET, 1.0, 0.9, "0.90 worse"),
        (GET, 1.0, 1.01, "1.01"),
        (START, 0.2, 0.3, "1.50 worse"),
        (START, 0.3, 0.2, "0.67 better"),
        (START, 0.0, 0.2, ""),
    ],
)
def test_it_is_told_whether_a_change_is_good(row: Row, before: float, now: float, told: str) -> None:
    assert changed(row, before, now) == told


def test_what_runs_say_against_their_figures_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(write(tmp_path, quick=text(9_000, quick=True), full=text(9_000)))
    printed = capsys.readouterr().out
    assert printed.count("- **Quick: fewer and shorter rounds") == 1
    assert printed.count("- one, 2 cores, Linux.") == 2


def test_runs_are_read_from_files_and_from_git(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*write(tmp_path, mine=text(9_000)), "HEAD"])
    printed = capsys.readouterr().out
    assert f"{TO_RAW} | 0.900 (0.450 to 0.900) |  | gone |" in printed
    assert "framework: routed GET, jimsapi" in printed


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        (["nowhere", "HEAD"], "there is no file nowhere, and git cannot read it as a revision"),
        (["HEAD"], "name at least two runs, each once"),
        (["HEAD", "HEAD"], "name at least two runs, each once"),
        (["HEAD", "README.md"], "there are no tables of a run in README.md"),
    ],
)
def test_runs_that_cannot_be_compared_are_reported(
    runs: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(runs)
    assert told in str(ended.value) + capsys.readouterr().err
