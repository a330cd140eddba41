"""A soak of seconds is answered as it has to be; and what its longer form judges."""

from random import Random

import pytest

from tests.faults.figures import Report
from tests.faults.soak import Sample, judge, measure


def samples(resident: float = 0.0, tasks: float = 0.0) -> list[Sample]:
    """Five minutes of a server that grows by so much each minute, with noise."""
    noise = Random(1)
    return [
        Sample(
            at=5.0 * number,
            resident=60e6 + resident * number / 12 + noise.uniform(-1e5, 1e5),
            descriptors=20,
            threads=6,
            tasks=10 + tasks * number / 12 + noise.choice((0, 1)),
            blocks=200_000,
            open_runs=0,
        )
        for number in range(60)
    ]


def test_a_mixed_load_is_answered_and_leaves_no_run_open() -> None:
    report = Report()
    measure(report, minutes=0.08, rate=80.0, store=None)
    assert report.figures["faults"] == 0
    assert report.figures["open runs at the end"] == 0
    assert report.figures["tracebacks in the log"] == 0
    assert report.figures["done"] > 0


@pytest.mark.parametrize(
    ("seen", "broken"),
    [
        (samples(), []),
        (samples(resident=1e6), ["memory: growth in the second half"]),
        (samples(tasks=1.0), ["tasks: growth in the second half"]),
    ],
)
def test_a_server_that_grows_or_leaks_breaks_a_promise_and_another_does_not(
    seen: list[Sample], broken: list[str]
) -> None:
    report = Report()
    judge(report, seen)
    assert report.broken == broken
