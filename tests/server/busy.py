"""A server that takes itself for busy, so that requests wait for their turn."""

import math

import pytest

from jimsapi.server import scheduler


def always_busy(monkeypatch: pytest.MonkeyPatch, pause: float) -> None:
    """Have the server pause for so many seconds before each pass of what follows a refusal or an error."""
    monkeypatch.setattr(scheduler, "MEASURED_FOR", 0.0)
    monkeypatch.setattr(scheduler, "PAUSE_EXPIRES_AFTER", math.inf)
    monkeypatch.setattr(scheduler, "BUSY_SHARE", 0.0)
    monkeypatch.setattr(scheduler, "SHORTEST_PAUSE", pause)
    monkeypatch.setattr(scheduler, "LONGEST_PAUSE", pause)
