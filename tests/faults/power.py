"""Power cuts under load: what was acknowledged survives whatever the disk loses that was not synced.

    python -m tests.faults.power --store sqlite --cuts 100
    python -m tests.faults.power --store sqlite --durability relaxed --cuts 100
    python -m tests.faults.power --store postgresql --cuts 100
    python -m tests.faults.power --store sqlite --lie --cuts 5

`--lie` has syncs do nothing: then messages must be lost, or the simulation proves nothing.

Each cut begins on the disk that the cut before left. What the simulation assumes of a disk is in `disk_image.py`.
PostgreSQL relies on the name of a new file being durable when the file is; SQLite is tested without that.
"""

import argparse
import asyncio
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random, randrange
from subprocess import CalledProcessError
from typing import Any, Protocol

from tests.faults.disk_image import Disk
from tests.faults.files import has_files, stored_files
from tests.faults.journal import Journal
from tests.faults.load import Callers
from tests.faults.places import Place, PostgresPlace, SQLitePlace, kill_tree, postgres_server
from tests.faults.report import Figures, show
from tests.faults.verify import PROMISED_NONE as STORED_NONE
from tests.faults.verify import runs_stuck, said, stored, threads_stuck
from tests.serving import Served

PROMISED_NONE = (*STORED_NONE, "stores damaged")
RELAXED_NONE = tuple(name for name in PROMISED_NONE if not name.endswith("lost"))
"""What is promised of a store that syncs at checkpoints only."""

LOAD_BEFORE_CUT = (0.0, 0.8)
"""Seconds of load before a cut."""
ANSWERS_WITHIN = 30.0
"""Seconds until something is acknowledged."""
STARTS_CUT = 0.2
"""How many of the cuts hit a start, with what it recovers or upgrades."""
READ_ALL = "SELECT count(*) FROM thread_events WHERE length(event_data ->> 'content') > 0"
"""PostgreSQL checks each page that it reads."""


class Machine(Protocol):
    """A store's process on a disk that loses what was not synced, and the server on it."""

    place: Place
    disk: Disk
    port: int

    def start(self) -> None:
        """Start all, and read all. Raises `RuntimeError`, `sqlite3.Error` or `CalledProcessError` if it is damaged."""

    def kill(self) -> None:
        """Kill all processes that run."""


class SQLiteMachine:
    """The server with its file."""

    def __init__(self, folder: Path, scratch: Path, durability: str, *, lies: bool) -> None:
        self.place: Place = SQLitePlace(folder)
        self.disk = Disk(folder, scratch, lies=lies)
        self.port = 0
        self._durability = durability
        self._served: Served | None = None

    def start(self) -> None:
        self._served = self.place.served("--durability", self._durability, env=self.disk.env)
        self._served.start()
        self.port = self._served.port
        if (found := self.place.rows("PRAGMA integrity_check")) != [("ok",)]:
            raise RuntimeError(f"integrity_check: {found[0][0].splitlines()[0]}")

    def kill(self) -> None:
        if self._served is not None:
            self._served.stop(signal.SIGKILL)
            self._served.close()
            self._served = None


class PostgresMachine:
    """PostgreSQL with its data, and a server on it."""

    def __init__(self, postgres: Any, scratch: Path, random: Random, *, lies: bool) -> None:
        self.place: Place = PostgresPlace(postgres)
        self.disk = Disk(Path(postgres.data), scratch, names_follow_files=True, lies=lies)
        self.port = 0
        self._scratch = scratch
        self._postgres = postgres
        self._random = random
        self._served: Served | None = None

    def start(self) -> None:
        self._postgres.env = self.disk.env
        self._postgres.settings["wal_sync_method"] = self._random.choice(["fdatasync", "open_datasync", "fsync"])
        self._postgres.start()
        self._served = self.place.served(folder=self._scratch)  # its files are on a disk that has power
        self._served.start()
        self.port = self._served.port
        self.place.rows(READ_ALL)

    def kill(self) -> None:
        if self._postgres.pid is not None:
            kill_tree(self._postgres.pid)
            self._postgres.crash()
        if self._served is not None:
            self._served.stop(signal.SIGKILL)
            self._served.close()
            self._served = None


async def cut_power(machine: Machine, cuts: int, random: Random) -> Figures:
    """Cut the power many times; returns what was lost. A store that is damaged ends the series."""
    journal = Journal()
    figures = dict.fromkeys(("cuts", "cuts in a start", "stores damaged"), 0)
    lost = 0
    starts = await begin(machine)
    while starts and figures["cuts"] < cuts:
        if random.random() < STARTS_CUT:
            moment = int(random.random() * (machine.disk.moment() + 1))
            await asyncio.to_thread(machine.kill)
            figures["cuts in a start"] += 1
        else:
            moment = await cut_under_load(machine, journal, random)
        await asyncio.to_thread(machine.disk.cut, moment, Random(random.getrandbits(64)))
        figures["cuts"] += 1
        starts = await begin(machine)
        if starts:
            gone = journal.acknowledged - said(machine.place, "assistant").keys()
            lost += len(gone)
            journal.acknowledged -= gone
    if not starts:
        return figures | {"stores damaged": 1, "acknowledged and lost": lost}
    figures["runs stuck"] = await runs_stuck(machine.place)
    figures |= stored(machine.place, journal)
    if has_files():
        figures |= await stored_files(journal, machine.port)
    figures["threads stuck"] = await threads_stuck(machine.place, machine.port)
    figures["acknowledged and lost"] += lost
    return figures


async def cut_under_load(machine: Machine, journal: Journal, random: Random) -> int:
    """Load the server, and kill everything; returns the moment of the cut.

    The first cut comes after something was acknowledged: else it could lose nothing.
    """
    callers = Callers(journal, machine.port)
    await asyncio.sleep(random.uniform(*LOAD_BEFORE_CUT))
    async with asyncio.timeout(ANSWERS_WITHIN):
        while not journal.acknowledged:
            await asyncio.sleep(0.01)
    told = set(journal.acknowledged), set(journal.background), set(journal.questions), set(journal.deleted)
    files = set(journal.files)
    moment = machine.disk.moment()
    await asyncio.to_thread(machine.kill)
    await callers.end()
    # What was answered between the moment and the kill was not answered before the cut.
    journal.acknowledged, journal.background, journal.questions, journal.deleted = told
    # A file whose deletion was asked for since may be there or not.
    journal.files = {message: file_id for message, file_id in journal.files.items() if message in files}
    return moment


async def unrecorded(machine: Machine) -> set[str]:
    """The names of files in which the record of the disk lacks something that was written under load."""
    assert await begin(machine)
    callers = Callers(Journal(), machine.port)
    await asyncio.sleep(LOAD_BEFORE_CUT[1])
    await callers.end()
    await asyncio.to_thread(machine.kill)
    found = {str(path): path.read_bytes() for path in machine.disk.folder.rglob("*") if path.is_file()}
    written = machine.disk.written()
    return {Path(name).name for name in found.keys() | written.keys() if found.get(name) != written.get(name)}


async def begin(machine: Machine) -> bool:
    """Start everything on the disk as it is; returns False if the store is damaged."""
    machine.disk.begin()
    try:
        await asyncio.to_thread(machine.start)
    except (RuntimeError, sqlite3.Error, CalledProcessError) as error:
        print(f"the store is damaged: {error}")
        return False
    return True


@contextmanager
def machine_of(store: str, durability: str, random: Random, *, lies: bool) -> Iterator[Machine]:
    """A machine with an empty store. Its processes are killed at the end."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="power-"))).resolve()
        scratch.chmod(0o755)  # PostgreSQL runs as another user
        machine: Machine
        if store == "sqlite":
            folder = scratch / "disk"
            folder.mkdir()
            machine = SQLiteMachine(folder, scratch, durability, lies=lies)
        else:
            postgres = stack.enter_context(postgres_server())
            postgres.stop()
            machine = PostgresMachine(postgres, scratch, random, lies=lies)
        stack.callback(machine.kill)
        yield machine


def main() -> int:
    parser = argparse.ArgumentParser(description="Cut the power under load, and count what is lost.")
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--durability", choices=["durable", "relaxed"], default="durable")
    parser.add_argument("--lie", action="store_true", help="let syncs do nothing")
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=randrange(2**32))
    given = parser.parse_args()
    random = Random(given.seed)
    with machine_of(given.store, given.durability, random, lies=given.lie) as machine:
        figures = asyncio.run(cut_power(machine, given.cuts, random))
    how = "syncs do nothing" if given.lie else given.durability
    promised = PROMISED_NONE if given.durability == "durable" else RELAXED_NONE
    kept = show(f"power cuts on {given.store}, {how}, seed {given.seed}", figures, promised)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
