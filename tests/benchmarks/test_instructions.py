"""What plugins that are installed and idle add to requests, and what the gate compares."""

import subprocess
from pathlib import Path

import pytest

from benchmarks import compare, instructions
from benchmarks.instructions import BESIDE_AGENTS, count_calls, gate, with_agents

GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")


def repository(folder: Path) -> Path:
    """A repository of two revisions; the first one added a line to the history of instructions."""
    subprocess.run([*GIT, "init", "--quiet", folder], check=True)
    (folder / instructions.HISTORY.name).write_text("a line")
    for file in (instructions.HISTORY.name, "another"):
        (folder / file).touch()
        subprocess.run([*GIT, "-C", folder, "add", file], check=True)
        subprocess.run([*GIT, "-C", folder, "commit", "--quiet", "-m", file], check=True)
    return folder


def test_requests_call_as_many_functions_with_idle_plugins_of_agents_as_without_them() -> None:
    idle, alone = with_agents(count_calls)
    for kind in BESIDE_AGENTS:
        # The threads of SQLite wake the event loop sooner or later.
        assert idle[kind] == pytest.approx(alone[kind], abs=3 if "SQLite" in kind else 0), kind


def test_the_gate_says_that_it_compares_nothing_in_a_clone_without_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    origin, clone = repository(tmp_path / "origin"), tmp_path / "clone"
    subprocess.run([*GIT, "clone", "--quiet", "--depth=1", origin.as_uri(), clone], check=True)
    monkeypatch.setattr(instructions, "ROOT", clone)
    assert gate() == 0
    assert "not compared: this clone has only a part of the history" in capsys.readouterr().out


@pytest.mark.parametrize(("taken", "status"), [(102_000, 0), (102_100, 1)])
def test_the_gate_fails_if_a_kind_of_requests_takes_over_two_percent_more_than_when_the_last_line_was_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], taken: int, status: int
) -> None:
    root = repository(tmp_path / "root")

    def count(root: Path) -> dict[str, int]:
        return {"404": taken if (root / "another").exists() else 100_000, "healthz": 100_000}

    monkeypatch.setattr(instructions, "ROOT", root)
    monkeypatch.setattr(instructions, "HISTORY", root / instructions.HISTORY.name)
    monkeypatch.setattr(compare, "ROOT", root)
    monkeypatch.setattr(instructions, "count", count)
    assert gate() == status
    assert ("404. Make them cheaper" in capsys.readouterr().out) == bool(status)
