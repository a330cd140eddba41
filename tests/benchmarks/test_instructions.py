"""What plugins that are installed and idle add to requests."""

import pytest

from benchmarks.instructions import BESIDE_AGENTS, beside_agents, count_calls, with_agents


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
