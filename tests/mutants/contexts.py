"""A plugin of pytest: coverage notes each line under the test that runs it, and a file the seconds of each test."""

import json
import os
from collections import defaultdict

import coverage
import pytest

_seconds: defaultdict[str, float] = defaultdict(float)
_failed: set[str] = set()


def pytest_runtest_logstart(nodeid: str) -> None:
    measured = coverage.Coverage.current()
    assert measured is not None, "coverage runs pytest here"
    measured.switch_context(nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[report.nodeid] += report.duration
    if not report.passed:
        _failed.add(report.nodeid)


def pytest_sessionfinish() -> None:
    passed = {test: seconds for test, seconds in _seconds.items() if test not in _failed}
    with open(os.environ["MUTANTS_SECONDS"], "w", encoding="utf-8") as file:
        json.dump(passed, file)
