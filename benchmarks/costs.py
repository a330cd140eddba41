"""What a chat costs PostgreSQL and the network, counted and not timed: `python -m benchmarks.costs`.

It starts PostgreSQL and our command with a pipeline that echoes, sends chats, and stops the command. Before and after
that it reads PostgreSQL's own counters: transactions, the bytes and the syncs of its log (WAL), the rows, and the sizes
of the tables. PostgreSQL logs each statement, and the lines are counted. Two relays, between client and server and
between server and PostgreSQL, count the bytes that they pass on. What a start and a stop without a chat cost is
subtracted.
"""

import argparse
import asyncio
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from benchmarks.environments import of_tests
from tests.serving import Served

CHATS = 2000
TURNS_BEFORE = 10
"""Turns that a thread has before the one that is counted."""
SINK = ("--event-file-path", "{folder}/events.jsonl")
COUNTS = """
    SELECT
        (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()),
        (SELECT wal_bytes FROM pg_stat_wal),
        (SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal'),
        (SELECT sum(n_tup_ins) FROM pg_stat_user_tables),
        (SELECT sum(n_tup_upd) FROM pg_stat_user_tables),
        (SELECT sum(n_tup_del) FROM pg_stat_user_tables),
        (SELECT sum(pg_table_size(relid)) FROM pg_stat_user_tables),
        (SELECT sum(pg_indexes_size(relid)) FROM pg_stat_user_tables)
"""
WAIT_FOR_OTHERS = """
    DO $$ BEGIN
        WHILE EXISTS (
            SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
        ) LOOP
            PERFORM pg_sleep(0.02);
            PERFORM pg_stat_clear_snapshot();
        END LOOP;
    END $$
"""
UNITS = (
    "statements",
    "transactions",
    "WAL bytes",
    "syncs",
    "rows inserted",
    "rows updated",
    "rows deleted",
    "bytes of tables",
    "bytes of indexes",
    "bytes to PostgreSQL",
    "bytes from PostgreSQL",
    "bytes from the client",
    "bytes to the client",
)
TABLES = """
    SELECT relname, pg_table_size(relid)::float / n_live_tup, pg_indexes_size(relid)::float / n_live_tup
    FROM pg_stat_user_tables WHERE n_live_tup >= 1000 ORDER BY relname
"""
SETTINGS = {
    "log_statement": "all",
    "log_line_prefix": "[%d] ",
    "autovacuum": "off",
    # Else the log has each page in full once after a checkpoint, so that its bytes depend on the time of that.
    "full_page_writes": "off",
}


@dataclass(frozen=True)
class Case:
    """Chats of `clients` at a time, each in a thread with `turns` turns, with messages of `size` bytes."""

    name: str
    clients: int = 1
    turns: int = 0
    size: int = 100
    options: Sequence[str] = ()


@dataclass(frozen=True)
class Counted:
    """What a chat costs, by unit, and the bytes of a row in each table and in its indexes."""

    of_chat: Mapping[str, float]
    of_row: Mapping[str, tuple[float, float]]


class Relay:
    """Passes bytes on to a port of 127.0.0.1, and counts them. A context manager, which serves from a thread."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.there = 0
        self.back = 0

    def __enter__(self) -> "Relay":
        self._thread.start()
        starting = asyncio.start_server(self._connected, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end_connections(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end_connections(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.wait([*others, asyncio.create_task(asyncio.sleep(0))])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target)
        with suppress(asyncio.CancelledError, ConnectionError):  # the end of the relay
            await asyncio.gather(
                self._pass_on(reader, to_writer, self._count_there), self._pass_on(to_reader, writer, self._count_back)
            )

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[int], None]
    ) -> None:
        while data := await reader.read(65536):
            count(len(data))
            writer.write(data)
            await writer.drain()
        writer.close()

    def _count_there(self, size: int) -> None:
        self.there += size

    def _count_back(self, size: int) -> None:
        self.back += size


class Database:
    """An empty database of a PostgreSQL server, whose log has every statement."""

    def __init__(self, postgres: Any, name: str) -> None:
        self._postgres = postgres
        self.name = name
        self._log = Path(postgres.folder) / "log"

    def counts(self) -> list[float]:
        """What PostgreSQL has done so far, in the order of `UNITS`, without the bytes of the network.

        A process of PostgreSQL adds what it has done to the counters at the latest when it ends.
        """
        self._postgres.psql(WAIT_FOR_OTHERS, self.name)
        logged = self._log.read_text(encoding="utf-8", errors="replace")
        statements = sum(logged.count(f"[{self.name}] LOG:  {kind}") for kind in ("execute", "statement"))
        row = self._postgres.psql(COUNTS, self.name)
        return [float(statements), *map(float, row.split("|"))]

    def of_row(self) -> dict[str, tuple[float, float]]:
        """The bytes of a row and of its entries in indexes, by table."""
        lines = [line.split("|") for line in self._postgres.psql(TABLES, self.name).splitlines()]
        return {name: (float(table), float(indexes)) for name, table, indexes in lines}

    def vacuum(self) -> None:
        """Remove what no transaction sees any more, so that the sizes are those of the rows."""
        self._postgres.psql("VACUUM", self.name)


def counted(postgres: Any, case: Case, chats: int = CHATS) -> Counted:
    """Count a case with so many chats."""
    with postgres.database() as name:
        database = Database(postgres, name)
        send(postgres, database, case, [f"{case.clients}"])  # creates the tables
        contacts = [f"contact {number}" for number in range(chats)]
        for _ in range(case.turns):
            send(postgres, database, replace(case, clients=32), contacts)
        nothing = difference(database, lambda: send(postgres, database, case, []))
        found = difference(database, lambda: send(postgres, database, case, contacts))
        each = {unit: (found[unit] - nothing[unit]) / chats for unit in UNITS}
        return Counted(each, database.of_row())


def difference(database: Database, work: Callable[[], tuple[Relay, Relay]]) -> dict[str, float]:
    """Return by how much the counters grow while `work` is done."""
    database.vacuum()
    before = database.counts()
    to_server, to_postgres = work()
    after = database.counts()
    database.vacuum()
    sizes = database.counts()[-2:]
    grown = [new - old for new, old in zip([*after[:-2], *sizes], before, strict=True)]
    network = [to_postgres.there, to_postgres.back, to_server.there, to_server.back]
    return dict(zip(UNITS, [*grown, *map(float, network)], strict=True))


def send(postgres: Any, database: Database, case: Case, contacts: Sequence[str]) -> tuple[Relay, Relay]:
    """Start a server, send a message of each contact, and stop the server. Returns the relays, which have ended."""
    with (
        Relay(postgres.port) as to_postgres,
        tempfile.TemporaryDirectory() as folder,
        served(postgres, database, to_postgres, [option.format(folder=folder) for option in case.options]) as server,
        Relay(server.port) as to_server,
    ):
        asyncio.run(chats(f"http://127.0.0.1:{to_server.port}", case, contacts))
    return to_server, to_postgres


@contextmanager
def served(postgres: Any, database: Database, relay: Relay, options: Sequence[str]) -> Iterator[Served]:
    """Start our command on a database, behind a relay."""
    url = postgres.url(database.name).replace(f":{postgres.port}/", f":{relay.port}/")
    with Served("--app", "tests.apps.paced:app", "--store", url, *options) as server:
        yield server


async def chats(url: str, case: Case, contacts: Sequence[str]) -> None:
    """Send a message of each contact, as many at a time as the case has clients. Raises for one without an answer."""
    left = iter(contacts)

    async def one_client() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
            for contact in left:
                message = {"contact_id": contact, "message": "a" * case.size}
                answer = await client.post("/api/v1/chat", json=message)
                answer.raise_for_status()

    await asyncio.gather(*(one_client() for _ in range(case.clients)))


CASES = (
    Case("first message, alone"),
    Case("first message, 64 clients", clients=64),
    Case("later message, alone", turns=TURNS_BEFORE),
    Case("later message, 64 clients", clients=64, turns=TURNS_BEFORE),
    Case("later message, 64 clients, 1,000 bytes more", clients=64, turns=TURNS_BEFORE, size=1100),
    Case("later message, 64 clients, a durable sink", clients=64, turns=TURNS_BEFORE, options=SINK),
)


def main() -> None:
    """Run the command."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=__doc__)
    options.add_argument(
        "--case", choices=[case.name for case in CASES], action="append", help="all without it; repeats"
    )
    chosen = options.parse_args().case
    found: dict[str, Counted] = {}
    with of_tests("jimsapi-postgres", "database").Postgres(**SETTINGS) as postgres:
        for case in CASES:
            if chosen is None or case.name in chosen:
                found[case.name] = counted(postgres, case)
                print(f"counted: {case.name}", flush=True)
    print(f"\n| of a chat | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for unit in UNITS:
        print(f"| {unit} | {' | '.join(f'{costs.of_chat[unit]:,.4g}' for costs in found.values())} |")
    print("\n| of a row | bytes of the table | bytes of its indexes |\n|---|---|---|")
    for name, costs in found.items():
        for table, (in_table, in_indexes) in costs.of_row.items():
            print(f"| {table}: {name} | {in_table:,.0f} | {in_indexes:,.0f} |")


if __name__ == "__main__":
    main()
