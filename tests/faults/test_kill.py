"""kill -9 under load: what was acknowledged is there, once; what was open is interrupted; no thread is locked."""

import asyncio
import shutil
import signal
from itertools import count
from pathlib import Path
from random import Random

import pytest

from tests.faults.database import rows, runs, said, statuses
from tests.faults.paced import paced_server, until
from tests.faults.wire import CutAnswer, NoAnswer, Wire
from tests.serving import Served

pytestmark = pytest.mark.anyio

KILLS = 20
CONTACTS = ["alone 1", "alone 2", "alone 3", "alone 4", "shared", "shared", "shared", "shared"]
OPEN = "SELECT run_id FROM jimsapi_runs WHERE finished_at IS NULL"
HELD = f"{OPEN} AND thread_id IN (SELECT thread_id FROM threads WHERE contact_id LIKE 'held %')"


class Load:
    """Callers that send one message after another until the server dies."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self._numbers = count()

    async def call(self, port: int, contact: str, command: str = "now") -> None:
        """Be one caller."""
        wire = Wire(port)
        while True:
            message = f"{next(self._numbers)} {command}"
            try:
                answer = await wire.chat(contact, message)
            except (NoAnswer, CutAnswer):
                wire.close()
                return
            assert (answer.status, answer.json()["assistant_messages"]) == (200, [message])
            self.acknowledged.add(message)


async def test_a_killed_server_loses_and_doubles_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    database = tmp_path / "jims.db"
    moments = Random(KILLS)
    load = Load()
    with paced_server(database) as served:
        for number in range(KILLS):
            enough = len(load.acknowledged) + moments.randint(1, 60)
            await kill_under_load(served, database, load, f"held {number}", enough)
            left_open = open_runs_in_a_copy(database)
            await asyncio.to_thread(served.start)

            assert len(left_open) >= 2
            assert {runs(database)[run_id] for run_id in left_open} == {"interrupted"}
            assert rows(database, OPEN) == []
            asked, answered = said(database, "user"), said(database, "assistant")
            assert load.acknowledged <= answered.keys() <= asked.keys()
            assert {*asked.values(), *answered.values()} == {1}
            how_many = statuses(database)
            assert how_many.keys() == {"completed", "interrupted"}
            assert how_many["completed"] == answered.total()
            assert how_many.total() == asked.total()


async def kill_under_load(served: Served, database: Path, load: Load, held: str, enough: int) -> None:
    """Kill the server once `enough` messages were answered, while a run is held and one waits behind it."""
    async with asyncio.TaskGroup() as callers:
        for contact in CONTACTS:
            callers.create_task(load.call(served.port, contact))
        for _ in range(2):
            callers.create_task(load.call(served.port, held, "wait 3600"))
        await until(lambda: len(load.acknowledged) >= enough and len(rows(database, HELD)) == 2)
        assert served.process is not None
        served.process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(served.process.wait)


def open_runs_in_a_copy(database: Path) -> list[str]:
    """The open runs of a dead server. Looking at its own file would already recover it."""
    copy = database.with_name("copy.db")
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{database}{suffix}", f"{copy}{suffix}")
    return [run_id for (run_id,) in rows(copy, OPEN)]
