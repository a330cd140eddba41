"""A durable sink that is down while its process is killed."""

from pathlib import Path

import pytest

from tests.faults.places import SQLitePlace
from tests.faults.report import broken
from tests.faults.sinks import PROMISED_NONE, sink_is_down

pytestmark = pytest.mark.anyio


@pytest.mark.long  # the server's next start waits half a minute for the hold of the process that was killed
async def test_a_sink_that_was_down_while_its_process_was_killed_receives_everything_in_order(tmp_path: Path) -> None:
    figures = await sink_is_down(SQLitePlace(tmp_path), 3, servers=1)
    assert broken(figures, PROMISED_NONE) == {}
    for name in ("events that waited for the sink", "events at the durable sink", "answers while it is down"):
        assert figures[name] > 0, name
