"""A few slow clients of each kind: the healthy one is answered all the while, and everything is given back."""

import pytest

from tests.faults.figures import Report
from tests.faults.slow import Size, measure
from tests.faults.slow_clients import KINDS

COUNT = 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_healthy_client_is_answered_beside_slow_ones(kind: str) -> None:
    report = Report()
    measure(report, Size(kind, COUNT, within=1.0, seconds=0.5, rate=20.0, warm_up=0.2, settles_within=2.0))
    seen = report.figures
    assert seen["slow clients"] == COUNT
    assert seen["slow clients that could not connect"] == 0
    for phase in ("before", "while they come", "during", "after"):
        assert seen[f"healthy {phase}: not answered 200"] == 0
    for phase in ("before", "while they come", "after"):  # it ends before their coming counts as over
        assert seen[f"healthy {phase}: requests"] > 0
    assert seen["descriptors peak"] > seen["descriptors before"]
    assert "descriptors after" not in report.broken
