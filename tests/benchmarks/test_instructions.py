"""What plugins that are installed and idle add to requests."""

import pytest

from benchmarks.instructions import BESIDE_AGENTS, beside_agents, count_calls, with_agents

NOISE = {"routed GET with a parameter": 0.5, "chat, memory": 0.5, "SSE of 10 deltas": 1.0, "chat, SQLite": 3.0}
"""Calls a request by which two counts may differ: timers and commits may fall into one count and not into the other."""


def test_requests_call_as_many_functions_with_idle_plugins_of_agents_as_without_them() -> None:
    assert NOISE.keys() == {*BESIDE_AGENTS}
    idle, alone = with_agents(count_calls)
    for kind, noise in NOISE.items():
        assert idle[kind] == pytest.approx(alone[kind], abs=noise), kind


def test_the_table_shows_both_counts_and_their_difference() -> None:
    idle, alone = dict.fromkeys(BESIDE_AGENTS, 1010.0), dict.fromkeys(BESIDE_AGENTS, 1000.0)
    lines = beside_agents(idle, alone, "instructions")
    assert len(lines) == len(BESIDE_AGENTS) + 1
    assert all(line.split()[-3:] == ["1,000.0", "1,010.0", "+1.00%"] for line in lines[1:])
