"""What proves that the runs of a thread do not overlap. The replicas themselves need PostgreSQL."""

import pytest

from tests.faults.replicas import overlaps


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([("a", 1, 2), ("a", 2, 5), ("b", 3, 4)], 0),
        ([("a", 2, 2), ("a", 2, 2), ("a", 2, 3)], 0),
        ([("a", 2, 5), ("a", 1, 3)], 1),
        ([("a", 1, 9), ("a", 2, 3), ("a", 4, 5)], 2),
    ],
)
def test_a_run_that_starts_before_an_earlier_one_of_its_thread_has_ended_is_counted(
    runs: list[tuple[str, int, int]], expected: int
) -> None:
    assert overlaps(runs) == expected
