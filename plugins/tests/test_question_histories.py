"""Random histories of questions under kill -9, with the protocols of all plugins."""

from pathlib import Path

import pytest

from tests.faults.places import SQLitePlace
from tests.faults.protocols import protocols
from tests.faults.questions import PROMISED_NONE, tell_histories
from tests.faults.report import broken

pytestmark = pytest.mark.anyio


async def test_a_question_of_a_killed_server_is_answered_by_any_protocol(tmp_path: Path) -> None:
    assert {protocol.name for protocol in protocols()} == {"chat", "chat completions", "Deep Chat", "AG-UI", "AI SDK"}
    figures = await tell_histories(SQLitePlace(tmp_path), 6, seed=6)
    assert broken(figures, PROMISED_NONE) == {}
    for name in ("kills of a server", "answered by another protocol"):
        assert figures[name] > 0, name
