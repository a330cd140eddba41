"""A disk that is full, a database that is damaged, a log of SQLite that is removed: what the server's log, its probes
and its clients see, and what is left after a kill.

    python -m tests.faults.disk
    python -m tests.faults.disk --fault full
"""

import argparse
import asyncio
import os
import signal
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.faults.disk_image import Disk
from tests.faults.places import SQLitePlace
from tests.faults.report import Figures, show
from tests.faults.verify import said
from tests.faults.wire import CutAnswer, NoAnswer, Wire, once
from tests.serving import Served

BEFORE = 50
"""Messages that are answered before the fault."""
FAULT_LASTS = 6.0
"""Seconds of a fault: longer than a probe may take to see it."""
SEEN_WITHIN = 5.0
"""Seconds after which `/readyz` must not be 200 while messages are refused."""
RECOVERS_WITHIN = 15.0
"""Seconds after the end of the fault within which messages are answered again."""

EXPECTED = {200, 503, 507}
THREADS = "/api/v1/threads?contact_id=0+now"

NO_LINE = "faults without a line in the log"
PROMISED_NONE = (
    "other statuses",
    "ready although messages are refused",
    "not alive",
    NO_LINE,
    "not recovered by itself",
    "starts refused",
    "acknowledged and lost",
)


@dataclass(frozen=True)
class Fault:
    """How the store is broken and mended; `mend` is None where only an operator can, and does nothing where the server
    does it itself."""

    break_store: Callable[[Disk, Path], None]
    mend: Callable[[Disk, Path], None] | None
    promised_none: tuple[str, ...] = PROMISED_NONE


def _damage(disk: Disk, database: Path) -> None:
    """Write over all pages but the first, as a broken disk or another program does."""
    with closing(sqlite3.connect(database)) as other:  # so that the file has all that the log has
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(os.path.getsize(database) - 4096))


def _remove_log(disk: Disk, database: Path) -> None:
    Path(f"{database}-wal").unlink()


def _remove_database(disk: Disk, database: Path) -> None:
    database.rename(f"{database}.away")


def _put_back(disk: Disk, database: Path) -> None:
    Path(f"{database}.away").rename(database)


_PROMISED_OF_DAMAGE = tuple(name for name in PROMISED_NONE if name not in ("starts refused", "acknowledged and lost"))
FAULTS = {
    "full": Fault(lambda disk, _: disk.fill(), lambda disk, _: disk.empty()),
    "damaged": Fault(_damage, None, _PROMISED_OF_DAMAGE),
    "wal-removed": Fault(_remove_log, lambda disk, _: None),
    "database-removed": Fault(_remove_database, _put_back),
}


class Client:
    """Sends messages and probes one after another, and notes what it sees."""

    def __init__(self, served: Served) -> None:
        self.acknowledged: set[str] = set()
        self._served = served
        self._numbers = count()

    async def chat(self) -> int:
        """Send a message of a new contact; returns the status, 0 for none."""
        message = f"{next(self._numbers)} now"
        wire = Wire(self._served.port)
        try:
            answer = await wire.chat(message, message)
        except (NoAnswer, CutAnswer):
            return 0
        finally:
            wire.close()
        if answer.status == 200:
            self.acknowledged.add(message)
        return answer.status

    async def get(self, path: str) -> int:
        """Ask for a path; returns the status, 0 for none."""
        try:
            return (await once(self._served.port, path)).status
        except (NoAnswer, CutAnswer):
            return 0


async def suffer(fault: Fault, seconds: float = FAULT_LASTS) -> tuple[Figures, list[str]]:
    """Break the store below a server for some time; returns the figures and what the log said meanwhile."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        scratch = Path(name).resolve()
        folder = scratch / "disk"
        folder.mkdir()
        place, disk = SQLitePlace(folder), Disk(folder, scratch)
        disk.begin()
        served = place.served(env=disk.env)
        await asyncio.to_thread(served.start)
        try:
            return await _suffer(fault, seconds, place, disk, served)
        finally:
            served.stop(signal.SIGKILL)
            served.close()


async def _suffer(
    fault: Fault, seconds: float, place: SQLitePlace, disk: Disk, served: Served
) -> tuple[Figures, list[str]]:
    client = Client(served)
    for _ in range(BEFORE):
        assert await client.chat() == 200
    logged = len(served.stderr)
    fault.break_store(disk, place.file)
    figures = await _during(client, seconds)
    lines = _warnings(served.stderr[logged:])
    figures[NO_LINE] = int(not lines)
    if fault.mend is not None:
        fault.mend(disk, place.file)
        figures["not recovered by itself"] = int(not await _recovers(client))
    await asyncio.to_thread(served.stop, signal.SIGKILL)
    try:
        await asyncio.to_thread(served.start)
    except RuntimeError:
        figures["starts refused"] = 1
        return figures, [*lines, served.stderr.splitlines()[-1]]
    figures["starts refused"] = 0
    figures["acknowledged and lost"] = len(client.acknowledged - said(place, "assistant").keys())
    return figures, lines


async def _during(client: Client, seconds: float) -> Figures:
    """Send messages and probes while the fault lasts."""
    statuses: Counter[int] = Counter()
    reads: Counter[int] = Counter()
    ready_late = not_alive = 0
    loop = asyncio.get_running_loop()
    began = loop.time()
    while (passed := loop.time() - began) < seconds:
        status = await client.chat()
        statuses[status] += 1
        reads[await client.get(THREADS)] += 1
        ready = await client.get("/readyz")
        ready_late += passed > SEEN_WITHIN and status != 200 and ready == 200
        not_alive += await client.get("/healthz") != 200
        await asyncio.sleep(0.02)
    return {
        "messages answered": statuses[200],
        "messages refused": statuses[503] + statuses[507],
        "threads shown": reads[200],
        "threads refused": reads[503],
        "other statuses": sum(number for status, number in (statuses + reads).items() if status not in EXPECTED),
        "ready although messages are refused": ready_late,
        "not alive": not_alive,
    }


async def _recovers(client: Client) -> bool:
    """Whether messages are answered again."""
    until = asyncio.get_running_loop().time() + RECOVERS_WITHIN
    while asyncio.get_running_loop().time() < until:
        if await client.chat() == 200 and await client.get("/readyz") == 200:
            return True
        await asyncio.sleep(0.1)
    return False


def _warnings(log: str) -> list[str]:
    """The lines of a log that are no requests', without times and repetitions."""
    lines = [line for line in log.splitlines() if " WARNING " in line or " ERROR " in line or " CRITICAL " in line]
    return list(dict.fromkeys(line.split(" ", 1)[1] for line in lines))[:5]


def main() -> int:
    parser = argparse.ArgumentParser(description="Break the store below a server, and print what everybody sees.")
    parser.add_argument("--fault", choices=FAULTS, action="append")
    given = parser.parse_args()
    kept = True
    for name in given.fault or FAULTS:
        figures, lines = asyncio.run(suffer(FAULTS[name]))
        kept = show(f"fault: {name}", figures, FAULTS[name].promised_none) and kept
        for line in lines:
            print(f"  log: {line}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
