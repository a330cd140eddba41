"""What plugins that are installed and idle add to requests, and what the gate compares."""

import subprocess
from pathlib import Path

import pytest

from benchmarks import instructions
from benchmarks.instructions import BESIDE_AGENTS, beside_agents, count_calls, gate, with_agents


def test_requests_call_as_many_functions_with_idle_plugins_of_agents_as_without_them() -> None:
    idle, alone = with_agents(count_calls)
    for kind in BESIDE_AGENTS:
        # The threads of SQLite wake the event loop sooner or later.
        assert idle[kind] == pytest.approx(alone[kind], abs=3 if "SQLite" in kind else 0), kind


def test_the_table_shows_both_counts_and_their_difference() -> None:
    idle, alone = dict.fromkeys(BESIDE_AGENTS, 1010.0), dict.fromkeys(BESIDE_AGENTS, 1000.0)
    lines = beside_agents(idle, alone, "instructions")
    assert len(lines) == len(BESIDE_AGENTS) + 1
    assert all(line.split()[-3:] == ["1,000", "1,010", "+1.00%"] for line in lines[1:])


def test_the_gate_says_that_it_compares_nothing_in_a_clone_without_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "--quiet", origin], check=True)
    for message in ("one", "two"):
        subprocess.run([*git, "-C", origin, "commit", "--quiet", "--allow-empty", "-m", message], check=True)
    subprocess.run([*git, "clone", "--quiet", "--depth=1", origin.as_uri(), clone], check=True)
    monkeypatch.setattr(instructions, "ROOT", clone)
    assert gate() == 0
    assert "not compared: this clone has only a part of the history" in capsys.readouterr().out
