"""kill -9 under load: what was acknowledged is there, once; what was open is interrupted; no thread is locked."""

import asyncio
import shutil
import signal
from pathlib import Path
from random import Random

import pytest

from tests.faults.database import rows, runs, said, statuses
from tests.faults.kill import PROMISED_NONE, kill_servers
from tests.faults.paced import paced_server, until
from tests.faults.places import SQLitePlace
from tests.faults.report import broken
from tests.faults.wire import NoAnswer, Wire

pytestmark = pytest.mark.anyio

KILLS = 6
OPEN = "SELECT run_id FROM jimsapi_runs WHERE finished_at IS NULL"


async def test_killed_servers_lose_and_double_nothing_that_they_acknowledged(tmp_path: Path) -> None:
    figures = await kill_servers(SQLitePlace(tmp_path), KILLS, Random(26), servers=1)
    assert broken(figures, PROMISED_NONE) == {}
    answered = ("acknowledged as streams", "acknowledged over WebSockets", "acknowledged after a question")
    for name in (*answered, "accepted in the background", "retries under a key", "events delivered to the sink"):
        assert figures[name] > 0, name
    for moment in ("load", "start", "drain", "checkpoint"):
        assert figures[f"kills in {moment}"] > 0, moment


async def test_a_start_interrupts_the_runs_that_a_kill_left_open(tmp_path: Path) -> None:
    database = tmp_path / "jims.db"
    with paced_server(database) as served:
        wires = [Wire(served.port) for _ in range(2)]
        for number, wire in enumerate(wires):
            await wire.send_chat("held", f"{number} wait 3600")
        await until(lambda: statuses(database) == {"running": 1, "queued": 1})
        await asyncio.to_thread(served.stop, signal.SIGKILL)
        for wire in wires:
            with pytest.raises(NoAnswer):
                await wire.answer()
        left_open = open_runs_in_a_copy(database)
        await asyncio.to_thread(served.start)

        assert len(left_open) == 2
        assert {runs(database)[run_id] for run_id in left_open} == {"interrupted"}
        assert rows(database, OPEN) == []
        assert said(database, "user") == {"0 wait 3600": 1, "1 wait 3600": 1}
        assert (await Wire(served.port).chat("held", "after now")).status == 200


def open_runs_in_a_copy(database: Path) -> list[str]:
    """The open runs of a dead server. Looking at its own file would already recover it."""
    copy = database.with_name("copy.db")
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{database}{suffix}", f"{copy}{suffix}")
    return [run_id for (run_id,) in rows(copy, OPEN)]
