"""The contracts that observers and wrappers of pipelines and of the store keep."""

from collections.abc import Mapping
from typing import Any

import pytest

from jimsapi.testing import (
    AsgiWrapperContract,
    DoesNotApply,
    ObserverContract,
    PipelineWrapperContract,
    StoreWrapperContract,
)

NOTHING: Mapping[str, Any] = {}


class Enabled:
    """The variables name the collector that all tests of this process share."""

    distribution = "jimsapi-otel"
    settings = NOTHING
    unconfigured = DoesNotApply("the variables of OpenTelemetry enable it")

    @pytest.fixture(autouse=True)
    def enabled(self, shared_collector: Any) -> None:
        """The collector gets the spans."""


class TestExporting(Enabled, ObserverContract):
    pass


class TestRequestSpans(Enabled, AsgiWrapperContract):
    pass


class TestPipelineSpans(Enabled, PipelineWrapperContract):
    pass


class TestAgentSpans(Enabled, PipelineWrapperContract):
    settings: Mapping[str, Any] = {"otel_genai": True, "otel_genai_content": True}


class TestStoreSpans(Enabled, StoreWrapperContract):
    pass
