"""The contracts that observers and wrappers of pipelines keep."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from jimsapi.testing import ObserverContract, PipelineWrapperContract

ENABLED: Mapping[str, Any] = {"enable_sentry": True}


class Enabled:
    """Reports go to a Sentry of the test's own."""

    distribution = "jimsapi-sentry"
    settings = ENABLED

    @pytest.fixture(autouse=True)
    def enabled(self, sentry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SENTRY_DSN", sentry.dsn)
        self.dsn = sentry.dsn

    @property
    def secrets(self) -> Sequence[str]:
        return [self.dsn.partition("//")[2].partition("@")[0]]


class TestReporting(Enabled, ObserverContract):
    pass


class TestPipelineReports(Enabled, PipelineWrapperContract):
    pass
