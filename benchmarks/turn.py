"""What a chat costs in a long thread, beside one in a short thread: the time of an answer over HTTP, as ratios.

The real command with an SQLite store, durable commits included. The events that are there before are plain rows,
written past the service. Long and short threads are asked in turns, so that noise meets both alike; every kind of
thread is measured twice, before and after `ANALYZE`, which makes SQLite plan its queries anew.
"""

import argparse
import http.client
import json
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median

from benchmarks.floor import WITH_KEY
from benchmarks.serving import jimsapi

AIM = 1.3
KINDS = {
    "comm.* alone": ["comm.user_message", "comm.assistant_message"],
    "own types alone": ["rag.query_processed", "rag.chunk_found"],
    "one state": ["state.set.mood"],
    "a mixture": ["comm.user_message", "rag.query_processed", "state.set.mood", "comm.assistant_message"],
}
BEGINNING = datetime(2025, 1, 1)
DATA = json.dumps({"role": "user", "content": "What are the interests of somebody who is asked about? " * 3})
WARM_UP = 10


def main() -> None:
    """Run the command."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.turn", description=__doc__)
    options.add_argument("--short", type=int, default=400, help="events in a short thread")
    options.add_argument("--long", type=int, default=100_000, help="events in a long thread")
    options.add_argument("--turns", type=int, default=100, help="chats measured in each thread")
    given = options.parse_args()
    lengths = (given.short, given.long)
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "jims.db"
        with jimsapi(f"sqlite:///{database}"):
            pass  # makes the tables
        with closing(sqlite3.connect(database)) as connection:
            for kind in KINDS:
                for length in lengths:
                    add_thread(connection, kind, length)
            connection.commit()
        worst = measure(database, lengths, given.turns, "before ANALYZE")
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("ANALYZE")
        worst = max(worst, measure(database, lengths, given.turns, "after ANALYZE"))
    print(f"the largest ratio is {worst:.2f}; aim: at most {AIM:g}")


def add_thread(connection: sqlite3.Connection, kind: str, length: int) -> None:
    """Write a thread of `length` events of a kind's types, a second apart."""
    thread_id = uuid.uuid4().hex
    types = KINDS[kind]
    connection.execute(
        "INSERT INTO threads (thread_id, contact_id, created_at, thread_config) VALUES (?, ?, ?, '{}')",
        (thread_id, contact(kind, length), time_text(0)),
    )
    connection.executemany(
        "INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data) VALUES (?, ?, ?, ?, ?)",
        ((thread_id, uuid.uuid4().hex, time_text(n), types[n % len(types)], DATA) for n in range(length)),
    )


def contact(kind: str, length: int) -> str:
    """Whose thread it is; each contact has one."""
    return f"{kind}, {length}"


def time_text(second: int) -> str:
    """A time as the tables hold it."""
    return (BEGINNING + timedelta(seconds=second)).isoformat(" ", "microseconds")


def measure(database: Path, lengths: tuple[int, int], turns: int, when: str) -> float:
    """Chat in all threads, in turns; print the medians of each kind. Returns the largest ratio."""
    ratios = []
    with asking(database) as ask:
        for kind in KINDS:
            spent: dict[int, list[float]] = {length: [] for length in lengths}
            for turn in range(-WARM_UP, turns):
                for length in lengths if turn % 2 else lengths[::-1]:
                    seconds = ask(contact(kind, length))
                    if turn >= 0:
                        spent[length].append(seconds)
            short, long = (median(spent[length]) for length in lengths)
            ratios.append(long / short)
            print(
                f"{when}, {kind}: {short * 1e3:.2f} ms at {lengths[0]:,} events, {long * 1e3:.2f} ms at "
                f"{lengths[1]:,}: {long / short:.2f}",
                flush=True,
            )
    return max(ratios)


class Asker:
    """A caller with one keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def __call__(self, contact_id: str) -> float:
        """Chat as a contact; returns the seconds until the answer was read. Raises `RuntimeError` without one."""
        body = json.dumps({"contact_id": contact_id, "message": "Hello?"})
        began = time.perf_counter()
        self._connection.request("POST", "/api/v1/chat", body, WITH_KEY)
        answer = self._connection.getresponse()
        text = answer.read()
        seconds = time.perf_counter() - began
        if answer.status != 200 or json.loads(text)["created_new_thread"]:
            raise RuntimeError(f"the chat of {contact_id!r} was answered {answer.status}: {text.decode()}")
        return seconds


@contextmanager
def asking(database: Path) -> Iterator[Asker]:
    """A caller of the command, which is served meanwhile."""
    with jimsapi(f"sqlite:///{database}") as server:
        yield Asker(server.port)


if __name__ == "__main__":
    main()
