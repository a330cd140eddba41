"""A server that takes itself for busy, so that requests wait for their turn."""

import math

import pytest

from jimsapi.server import starts


def always_busy(monkeypatch: pytest.MonkeyPatch, pause: float) -> None:
    """Have the server pause for so many seconds before each pass of what follows a refusal or an error."""
    monkeypatch.setattr(starts, "MEASURED_FOR", 0.0)
    monkeypatch.setattr(starts, "PAUSE_EXPIRES_AFTER", math.inf)
    monkeypatch.setattr(starts, "BUSY_SHARE", 0.0)
    monkeypatch.setattr(starts, "SHORTEST_PAUSE", pause)
    monkeypatch.setattr(starts, "LONGEST_PAUSE", pause)
