"""A small flood: everybody is answered or refused, probes are answered, and everything is given back."""

import pytest
import uvloop

from tests.faults.figures import Report
from tests.faults.flood import Size, measure


def figures_of(size: Size, beside: str | None = None) -> tuple[dict[str, float], list[str]]:
    """What a flood of this size shows, and which promises it broke."""
    report = Report()
    uvloop.run(measure(report, size, beside, ceiling=0.0))
    return report.figures, report.broken


@pytest.mark.parametrize(("loop", "store"), [("closed", None), ("open", "memory:")])
def test_everybody_in_a_flood_is_answered_or_refused(loop: str, store: str | None) -> None:
    size = Size(
        loop,
        connections=60,
        max_runs=4,
        clients=4,
        seconds=0.5,
        capacity_seconds=0.3,
        warm_up=0.2,
        pipeline_seconds=0.1,  # so long that 40 chats a second are the capacity, of which a busy machine gives most
        store=store,
    )
    seen, broken = figures_of(size)
    assert seen["goodput"] > 0
    assert seen["refusals"] > 0
    assert seen["capacity: faults"] == seen["flood: faults"] == 0
    assert seen["not answered when the flood ended"] == 0
    for path in ("/healthz", "/readyz"):
        assert seen[f"{path}: fresh probes"] > 0
        assert seen[f"{path}: not answered 200"] == 0
    assert "descriptors after" not in broken


@pytest.mark.parametrize("others", ["healthz", "wrong-key"])
def test_chats_and_what_is_asked_beside_them_are_all_answered(others: str) -> None:
    seen, _ = figures_of(Size(capacity_seconds=0.3, warm_up=0.2), f"4 {others}")
    assert seen[f"chats beside 4 {others}"] > 0
    assert seen["answers to the others"] > 0
    assert seen["chats: faults"] == 0
