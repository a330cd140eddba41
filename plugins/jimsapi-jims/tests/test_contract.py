"""The contract of adapters, with apps of jims-core."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from jims import echo_app, sessions_in

from jimsapi.testing import AppAdapterContract


class TestJimsApps(AppAdapterContract):
    distribution = "jimsapi-jims"
    answers = ("Echo: hi",)

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path

    @property
    def apps(self) -> Sequence[Any]:
        return [echo_app(sessions_in(self.path))]
