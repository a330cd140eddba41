"""What clients, probes and the log see of each fault of an SQLite store, and how it ends."""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.faults.database import said
from tests.faults.disk_image import Disk
from tests.faults.test_store_outage import NAME, UNAVAILABLE, filled, locked
from tests.serving import Served

pytestmark = pytest.mark.anyio

Fault = Callable[[Served, Disk], AbstractContextManager[None]]
BEGINS, ENDS = "the store is unavailable: ", "the store works again, "
OVER_WITHIN = 40.0
"""Seconds: two heartbeats, and as much again for a machine that is busy."""
HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM threads").fetchone()
print("open", flush=True)
sys.stdin.read()
"""


@contextmanager
def log_removed(served: Served, disk: Disk) -> Iterator[None]:
    """Somebody has removed the write-ahead log, while another program has the database open."""
    database = disk.folder / NAME
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, database], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        database.with_name("jims.db-wal").unlink()
        yield
        other.communicate()


@contextmanager
def moved(served: Served, disk: Disk) -> Iterator[None]:
    """The folder of the database was renamed."""
    aside = disk.folder.rename(disk.folder.with_name("aside"))
    yield
    aside.rename(disk.folder)


FAULTS = [
    pytest.param(locked, "locked by another program", id="locked"),
    pytest.param(log_removed, "write-ahead log removed", id="log removed"),
    pytest.param(moved, "database file removed or replaced", id="folder renamed"),
    pytest.param(filled, "disk full", id="full disk"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
async def test_a_fault_is_seen_by_clients_and_probes_and_logged_once_and_is_over_by_itself(
    disk: Disk, fault: Fault, reason: str
) -> None:
    database = disk.folder / NAME
    acknowledged: Counter[str] = Counter()

    async def chat(text: str) -> httpx.Response:
        answer = await client.post("/api/v1/chat", json={"contact_id": text[:5], "message": text})
        if answer.status_code == 200:
            acknowledged[text] += 1
        return answer

    with Served("--store", f"sqlite:///{database}", env=disk.env if fault is filled else None) as served:
        async with served.async_client() as client:
            for number in range(5):
                assert (await chat(f"echo {number}")).status_code == 200
            with fault(served, disk):
                for number in range(3):
                    refused = await chat(f"lost {number}" + "." * 20_000)
                    assert (refused.status_code, refused.json()) == (503, UNAVAILABLE)
                    ready = await client.get("/readyz")
                    assert (ready.status_code, ready.json()) == (
                        503,
                        {"status": "store unavailable", "reason": reason},
                    )
                    assert (await client.get("/healthz")).status_code == 200
            async with asyncio.timeout(OVER_WITHIN):
                while (await client.get("/readyz")).status_code != 200 or ENDS not in served.stderr:
                    await asyncio.sleep(0.1)
            for number in range(5):
                assert (await chat(f"echo {number}")).status_code == 200
        log = served.stderr
        assert (log.count(BEGINS), log.count(ENDS)) == (1, 1)
        assert "Traceback" not in log
        served.process.kill()  # type: ignore[union-attr] # it runs
    heard = said(database, "user")
    assert {text: heard[text] for text in acknowledged} == acknowledged


async def test_damage_is_seen_by_clients_and_probes_and_logged_once_with_what_to_do(tmp_path: Path) -> None:
    database = tmp_path / "jims.db"
    with Served("--store", f"sqlite:///{database}") as served:
        async with served.async_client() as client:
            for _ in range(6):
                answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "x" * 2000})
            thread = answer.json()["thread_id"]
        served.stop()
        content = bytearray(database.read_bytes())
        for at in range(4096 * 3, len(content), 4096):
            if content.count(b"xxxxxxxx", at, at + 4096):
                content[at : at + 4096] = b"\xff" * 4096
        served.start()
        database.write_bytes(content)
        async with served.async_client() as client:
            for _ in range(3):
                pages = await client.get(f"/api/v1/threads/{thread}/events")
                assert (pages.status_code, pages.json()) == (503, UNAVAILABLE)
                chat = await client.post("/api/v1/chat", json={"contact_id": "bob", "message": "Hello"})
                assert (chat.status_code, chat.json()) == (503, UNAVAILABLE)
                ready = await client.get("/readyz")
                assert (ready.status_code, ready.json()["reason"]) == (503, "database damaged")
                assert (await client.get("/healthz")).status_code == 200
        served.stop()
        log = served.stderr
        assert log.count(BEGINS) == 1
        assert ".recover" in log
