"""Pages of the AI SDK that resume an answer at any worker of a command."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import httpx
import pytest

from tests.plugins.modules import load
from tests.serving import Served
from tests.waiting import PATIENCE, eventually

PLUGINS = Path(__file__).resolve().parents[1]
READERS = 10
"""So many connections nearly surely reach both workers."""


@pytest.fixture
def two_workers() -> Iterator[Served]:
    database = load(PLUGINS / "jimsapi-postgres" / "tests" / "database.py")
    with database.Postgres(fsync="off") as postgres, postgres.database() as name:
        options = ("--app", "tests.apps.scripted:app", "--store", postgres.url(name), "--workers", "2")
        with Served(*options) as served:
            eventually(lambda: "2 workers serve the port" in served.stderr)
            yield served


def read_again(served: Served, begun: Barrier) -> list[str]:
    """Resume the answer over a connection of its own, which any worker may accept. `begun` waits for its beginning."""
    with served.client() as client, client.stream("GET", "/ai-sdk/chat/chat/stream") as answer:
        assert answer.status_code == 200
        return read(answer, begun)


def read(answer: httpx.Response, begun: Barrier) -> list[str]:
    lines = answer.iter_lines()
    found = [next(lines)]
    while "Hel" not in found[-1]:
        found.append(next(lines))
    begun.wait()
    return [*found, *lines]


def test_any_worker_resumes_an_answer_that_another_one_writes(two_workers: Served) -> None:
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "stream Hel; hold door; stream lo"}]}
    begun = Barrier(READERS + 2, timeout=PATIENCE)
    with two_workers.client() as client, ThreadPoolExecutor(READERS + 1) as readers:
        with client.stream("POST", "/ai-sdk/chat", json={"id": "chat", "messages": [message]}) as answer:
            first = readers.submit(read, answer, begun)
            reading = [readers.submit(read_again, two_workers, begun) for _ in range(READERS)]
            begun.wait()
            for number in range(20):  # so that the worker hears it that holds the door
                with two_workers.client() as other:
                    body = {"contact_id": f"opener {number}", "message": "open door"}
                    other.post("/api/v1/chat", json=body).raise_for_status()
            whole = first.result()
        assert [reader.result() for reader in reading] == [whole] * READERS
