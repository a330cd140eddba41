"""Small forms of what makes a server keep much: it answers afterwards, and has closed what it opened."""

import pytest

from tests.faults.figures import Report
from tests.faults.memory import CASES, measure


@pytest.mark.parametrize("case", CASES)
def test_a_server_answers_after_what_costs_it_memory(case: str) -> None:
    report = Report()
    measure(report, case, share=0.01, settles_within=1.0)
    assert report.figures[f"{case}: chats not answered afterwards"] == 0
    assert f"{case}: descriptors after" not in report.broken
