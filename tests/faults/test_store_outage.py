"""A store that cannot write when a run ends: 503, then recovery by itself, the outcome stored and no thread locked."""

import asyncio
import resource
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from jimsapi.runs.outage import QUIET
from tests.faults.database import said, statuses
from tests.faults.disk_image import Disk
from tests.faults.paced import paced_server, until
from tests.faults.wire import Wire, once
from tests.serving import Served

pytestmark = pytest.mark.anyio

NAME = "jims.db"
UNAVAILABLE = {"detail": "The store is not available; try again later"}


@contextmanager
def locked(served: Served, disk: Disk) -> Iterator[None]:
    """Another program holds the database's write lock."""
    with closing(sqlite3.connect(disk.folder / NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def limited(served: Served, disk: Disk) -> Iterator[None]:
    """The process may write to no file beyond its first few bytes, as under a quota that is used up."""
    before = resource.prlimit(served.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(served.pid, resource.RLIMIT_FSIZE, (1024, before[1]))
    yield
    resource.prlimit(served.pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def filled(served: Served, disk: Disk) -> Iterator[None]:
    """The disk that holds the database is full."""
    disk.fill()
    yield
    disk.empty()


Outage = Callable[[Served, Disk], AbstractContextManager[None]]
OUTAGES = [
    pytest.param(locked, 5.0, id="locked from outside"),
    pytest.param(limited, 1.0, id="a quota used up"),
    pytest.param(filled, 1.0, id="a full disk"),
]


@pytest.mark.parametrize(("outage", "seconds"), OUTAGES)
async def test_runs_that_end_while_the_store_cannot_write_are_stored_once_it_can(
    disk: Disk, tmp_path: Path, outage: Outage, seconds: float
) -> None:
    database, release = disk.folder / NAME, tmp_path / "release"
    # The limit on files' sizes would hit the record of the disk, too.
    with paced_server(database, env=disk.env if outage is filled else None) as served:
        contacts = [f"contact {number}" for number in range(4)]
        held = [asyncio.create_task(Wire(served.port).chat(name, f"{name[-1]} until {release}")) for name in contacts]
        await until(lambda: statuses(database) == {"running": 4})
        behind = asyncio.create_task(Wire(served.port).chat(contacts[0], "behind now"))
        await until(lambda: statuses(database) == {"running": 4, "queued": 1})

        with outage(served, disk):
            release.touch()
            for answer in await asyncio.gather(*held):
                assert (answer.status, answer.json()) == (503, UNAVAILABLE)
            over = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < over:
                refused = await Wire(served.port).chat("new", "refused now")
                assert (refused.status, refused.json(), refused.headers["retry-after"]) == (503, UNAVAILABLE, "5")
                assert (await once(served.port, "/readyz")).status == 503
                assert (await once(served.port, "/healthz")).status == 200
            assert not behind.done()

        assert (await behind).status == 200
        await until(lambda: statuses(database) == {"completed": 5})
        async with asyncio.timeout(QUIET + 5):
            while (await once(served.port, "/readyz")).status != 200:
                await asyncio.sleep(0.05)
        for name in contacts:
            assert (await Wire(served.port).chat(name, f"{name[-1]} now")).status == 200
        messages = [f"{number} {command}" for number in range(4) for command in ("now", f"until {release}")]
        assert said(database, "user") == said(database, "assistant") == Counter([*messages, "behind now"])


async def test_a_stop_during_an_outage_is_clean_and_the_next_start_marks_the_runs(disk: Disk) -> None:
    database = disk.folder / NAME
    with paced_server(database, "--drain-time", "6") as served:
        waiting = asyncio.create_task(Wire(served.port).chat("held", "a wait 3600"))
        behind = asyncio.create_task(Wire(served.port).chat("held", "b now"))
        await until(lambda: statuses(database) == {"running": 1, "queued": 1})
        assert served.process is not None
        with locked(served, disk):
            served.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(served.process.wait, 6.0 + 10.0) == 0
            assert (await waiting).status == 503
            assert (await behind).status == 503
        assert statuses(database) == {"running": 1, "queued": 1}
        await asyncio.to_thread(served.start)
        assert statuses(database) == {"interrupted": 2}
        assert (await Wire(served.port).chat("held", "c now")).status == 200
