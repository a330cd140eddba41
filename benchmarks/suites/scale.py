"""Chats per second of one, two and four processes (`--workers`) on one PostgreSQL, each the first of a new contact.

What a chat costs each part of the machine is measured too: the processor time of the server, of PostgreSQL and of the
load generator, and what PostgreSQL writes. Chats that come to a process at the same time share transactions, so a chat
costs more in a process with fewer clients. So one process is also measured with the share of the clients that each of
several has. From its costs follows what several could do (`predicted_rate`): docs/scale.md compares this with what was
measured. Nothing is kept on a processor, so all parts share the machine. One pipeline echoes, so that PostgreSQL and
the load generator take a great share of the machine; the other one computes, so that they do not.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.answers import check_chat
from benchmarks.environments import OURS_WITH_PLUGINS, of_tests
from benchmarks.load import CHAT, figures, load
from benchmarks.plan import Plan
from benchmarks.serving import Server, jimsapi
from benchmarks.sheet import LOAD_COST, RATE, Sheet
from benchmarks.suites.chat import POSTGRES, Stores

WORKERS = (1, 2, 4)
CLIENTS = 64
ECHO = "echo"
PIPELINES = {ECHO: "benchmarks.apps.echo", "2 ms of computing": "benchmarks.apps.computing"}
SECONDS = 5.0
SERVER_COST, DATABASE_COST = "server us/chat", "PostgreSQL us/chat"
LOG_BYTES, SYNCS, COMMITS = "WAL bytes/chat", "syncs/chat", "transactions/chat"
PREDICTED = "predicted requests/s"
COUNTS = """
    SELECT
        pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0'),
        (SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal'),
        (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())
"""


class Counts(NamedTuple):
    """What PostgreSQL has written since its start: bytes of its log, syncs of it, and transactions."""

    log_bytes: float
    syncs: float
    commits: float


def system_of(workers: int) -> str:
    """What a number of processes is called."""
    return "1 process" if workers == 1 else f"{workers} processes"


def case_of(pipeline: str) -> str:
    """What the case of several processes is called."""
    return f"PostgreSQL, {pipeline}, {CLIENTS} clients"


def alone_of(pipeline: str) -> str:
    """What the case of one process with fewer clients is called."""
    return f"PostgreSQL, {pipeline}, one process with fewer clients"


def clients_of(workers: int) -> int:
    """How many clients each of a number of processes has."""
    return CLIENTS // workers


def share_of(workers: int) -> str:
    """What one process is called that has the clients of one of several."""
    return f"{clients_of(workers)} clients"


def run(plan: Plan) -> Sheet:
    """Measure. Raises `RuntimeError` if a chat is lost."""
    sheet = Sheet("scale", "chats of several processes; durable commits")
    sheet.beside = {case_of(pipeline): system_of(1) for pipeline in PIPELINES}
    with of_tests("jimsapi-postgres", "database").Postgres() as postgres, tempfile.TemporaryDirectory() as folder:
        stores = Stores(postgres, Path(folder))
        for number in range(plan.either(5, 1)):
            for pipeline in plan.shuffled(PIPELINES):
                measure_pipeline(plan, stores, sheet, pipeline)
            print(f"scale: round {number + 1}", flush=True)
    return sheet


def measure_pipeline(plan: Plan, stores: Stores, sheet: Sheet, pipeline: str) -> None:
    """Measure one round of a pipeline: several processes, and one with the clients of one of them."""
    every = [(workers, CLIENTS) for workers in WORKERS] + [(1, clients_of(workers)) for workers in WORKERS[1:]]
    found = {each: measure_workers(stores, pipeline, *each) for each in plan.shuffled(every)}
    for workers in WORKERS:
        one = found[1, clients_of(workers)]
        predicted = {PREDICTED: predicted_rate(one, workers, os.cpu_count() or 1)}
        sheet.add(case_of(pipeline), system_of(workers), {**found[workers, CLIENTS], **predicted})
        if workers > 1:
            sheet.add(alone_of(pipeline), share_of(workers), one)


def predicted_rate(one: Mapping[str, float], workers: int, processors: int) -> float:
    """Return the chats per second of several processes, from what one has shown with the clients of one of them.

    A process cannot do more than one chat after another. All processes, PostgreSQL and the load generator together
    cannot use more than the processors.
    """
    everything = one[SERVER_COST] + one[DATABASE_COST] + one[LOAD_COST]
    return min(workers * one[RATE], 1e6 * processors / everything)


def measure_workers(stores: Stores, pipeline: str, workers: int, clients: int) -> dict[str, float]:
    """Load a server of so many processes with so many clients. Returns its figures by unit."""
    with stores.fresh(POSTGRES) as (url, count), serving(url, pipeline, workers) as server:
        check_chat(system_of(workers), server)
        warm = load(server, CHAT, seconds=SECONDS / 4, connections=clients, check=True)
        server.settle()
        stores.postgres.psql("CHECKPOINT")
        before, used, in_postgres = counts(stores, url), server.processor_seconds(), stores.seconds()
        seen = load(server, CHAT, seconds=SECONDS, connections=clients)
        used = server.processor_seconds() - used
        in_postgres = stores.seconds() - in_postgres
        server.settle()
        written = [after - earlier for after, earlier in zip(counts(stores, url), before, strict=True)]
        stored = count()
        if stored is None or stored < warm.requests + seen.requests:
            raise RuntimeError(f"{workers} processes acknowledged {warm.requests + seen.requests} chats, not {stored}")
    each = {SERVER_COST: 1e6 * used / seen.requests, DATABASE_COST: 1e6 * in_postgres / seen.requests}
    each |= {unit: amount / seen.requests for unit, amount in zip((LOG_BYTES, SYNCS, COMMITS), written, strict=True)}
    return figures(seen, used) | each


def serving(url: str, pipeline: str, workers: int) -> Server:
    """Start our command with a pipeline and so many processes."""
    options = ("--workers", str(workers)) if workers > 1 else ()
    return jimsapi(url, *options, app=PIPELINES[pipeline], python=OURS_WITH_PLUGINS)


def counts(stores: Stores, url: str) -> Counts:
    """Return what PostgreSQL has written so far."""
    database = url.rpartition("/")[2]
    row: Any = stores.postgres.psql(COUNTS, database)
    return Counts(*map(float, row.split("|")))
