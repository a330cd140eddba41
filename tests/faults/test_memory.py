"""Small forms of what makes a server keep much: it answers afterwards, and has given back what it opened."""

import pytest

from tests.faults.figures import Report
from tests.faults.memory import CASES, SPARE_DESCRIPTORS, measure

CLIENTS = 3 * SPARE_DESCRIPTORS
"""So many that connections which stay open, or have a thread each, are seen."""


@pytest.mark.parametrize("case", CASES)
def test_a_server_answers_after_what_costs_it_memory(case: str) -> None:
    report = Report()
    measure(report, case, share=CLIENTS / CASES[case].count, settles_within=2.0)
    assert report.figures[f"{case}: clients or requests"] == CLIENTS
    assert report.figures[f"{case}: chats not answered afterwards"] == 0
    for figure in ("threads", "threads, the second time", "descriptors after"):
        assert f"{case}: {figure}" not in report.broken
