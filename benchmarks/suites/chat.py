"""Chats per second, each the first of a new contact: memory, SQLite and PostgreSQL, with a pipeline that echoes and
with one that takes 50 ms. Beside ours stand an app written by hand and FastAPI, both without a store, and jims-api.

Every commit is durable, unless a row says otherwise. jims-api is started by its own command with a JIMS app
(`apps/jims_echo.py`), as it comes, and tuned (README.md). Ours is started with a native app that does the same, and on
PostgreSQL also with that very JIMS app: with the context that such an app has by default, all events of its thread, and
with that of our native ones, 200 of them. On SQLite it is also started with `--durability relaxed`: its answers do not
wait for the disk. Each gets an empty store of its own.
"""

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.answers import check_chat
from benchmarks.environments import JIMS_API_TUNED, OURS_WITH_PLUGINS, of_tests
from benchmarks.load import CHAT, figures, load
from benchmarks.machine import written_to_disk
from benchmarks.plan import Plan
from benchmarks.serving import (
    Server,
    family_seconds,
    jims_api,
    jimsapi,
    jimsapi_with_jims_app,
    under_uvicorn,
)
from benchmarks.sheet import P99, PROCESSOR_COST, RATE, WRITTEN, Aim, Sheet

OURS, ADAPTED, ADAPTED_200 = "jimsapi", "jimsapi, JIMS app", "jimsapi, JIMS app, 200 events"
RELAXED = "jimsapi, --durability relaxed"
THEIRS, TUNED, RAW, FASTAPI = "jims-api 0.6.2", "jims-api 0.6.2, tuned", "raw ASGI", "FastAPI"
MEMORY, SQLITE, POSTGRES = "memory", "SQLite", "PostgreSQL"
CLIENTS = {MEMORY: (32, 128), SQLITE: (16, 128), POSTGRES: (16, 64)}
ECHO, PAUSE = "echo", "50 ms pipeline"
PAUSES = {ECHO: "0", PAUSE: "0.05"}
"""Seconds that a pipeline takes. With the longer one only the many clients are measured: few would only wait."""
SYSTEMS = {
    MEMORY: (OURS, RAW, FASTAPI),
    SQLITE: (OURS, RELAXED, THEIRS, TUNED),
    POSTGRES: (OURS, ADAPTED, ADAPTED_200, THEIRS, TUNED),
}
ECHO_ALONE = (ADAPTED_200, RELAXED, TUNED)
"""What is measured without a pause only."""
SECONDS, SECONDS_OF_THEIRS = 2.0, {16: 8.0, 64: 20.0, 128: 30.0}
"""How long each load lasts; that of jims-api by clients. When a load ends, each client waits for an answer that is not
counted. Of the few that jims-api gives in a second, that would be too many."""
ANSWERED = """
    SELECT count(*) FROM (
        SELECT 1 FROM thread_events GROUP BY thread_id
        HAVING max({content}) FILTER (WHERE event_type = 'comm.user_message')
            = max({content}) FILTER (WHERE event_type = 'comm.assistant_message')
    ) answered
"""


def case_of(store: str, pause: str, clients: int) -> str:
    """What a case is called."""
    return f"{store}, {pause}, {clients} clients"


IN_MEMORY = case_of(MEMORY, ECHO, 32)
AIMS = (
    Aim(3, "Chat, memory store", IN_MEMORY, OURS, RATE, (RAW,), at_least=0.5),
    Aim(3, "Chat, SQLite, 16 clients", case_of(SQLITE, ECHO, 16), OURS, RATE, (THEIRS,), at_least=60),
    Aim(3, "Chat, SQLite, 128 clients", case_of(SQLITE, ECHO, 128), OURS, RATE, (THEIRS,), at_least=110),
    Aim(3, "Chat, SQLite, 128 clients", case_of(SQLITE, ECHO, 128), OURS, P99, (THEIRS,), at_most=1 / 50),
    Aim(3, "Chat, PostgreSQL, 16 clients", case_of(POSTGRES, ECHO, 16), OURS, RATE, (THEIRS,), at_least=32),
    Aim(3, "Chat, PostgreSQL, 64 clients", case_of(POSTGRES, ECHO, 64), OURS, RATE, (THEIRS,), at_least=60),
)


class Stores:
    """The stores of a run. `postgres` is a server as the PostgreSQL plugin's tests have it, `folder` for SQLite."""

    def __init__(self, postgres: Any, folder: Path) -> None:
        self.postgres = postgres
        self._folder = folder
        self._postmaster = int((Path(postgres.data) / "postmaster.pid").read_text().split()[0])

    @contextmanager
    def fresh(self, store: str) -> Iterator[tuple[str, Callable[[], int | None]]]:
        """An empty store's URL, and what counts the chats that are stored in it (None in memory)."""
        if store == MEMORY:
            yield "memory:", lambda: None
        elif store == SQLITE:
            with tempfile.TemporaryDirectory(dir=self._folder) as folder:
                path = Path(folder) / "jims.db"
                yield f"sqlite:///{path}", partial(in_sqlite, path)
        else:
            with self.postgres.database() as database:
                counted = ANSWERED.format(content="event_data ->> 'content'")
                yield self.postgres.url(database), lambda: int(self.postgres.psql(counted, database))

    def seconds(self) -> float:
        """The processor time that PostgreSQL has used."""
        return family_seconds(self._postmaster)

    def written(self, store: str) -> int | None:
        """The bytes that the disk of the stores has written; None if there is none.

        PostgreSQL first writes what it has in memory only, so that it is not counted for later chats.
        """
        if store == POSTGRES:
            self.postgres.psql("CHECKPOINT")
        return written_to_disk(self._folder)


def in_sqlite(path: Path) -> int:
    """How many chats are stored, question and answer."""
    with closing(sqlite3.connect(path)) as connection:
        counted = ANSWERED.format(content="json_extract(event_data, '$.content')")
        return int(connection.execute(counted).fetchone()[0])


def run(plan: Plan) -> Sheet:
    """Measure. Raises `RuntimeError` if a chat is lost, `AssertionError` if two systems do not answer alike."""
    sheet = Sheet(
        "chat",
        "chats, each the first of a new contact; durable commits, but for the row that is relaxed",
        AIMS,
        besides(),
    )
    with of_tests("jimsapi-postgres", "database").Postgres() as postgres, tempfile.TemporaryDirectory() as folder:
        stores = Stores(postgres, Path(folder))
        for store, systems in SYSTEMS.items():
            for name in systems:
                with stores.fresh(store) as (url, _), starting(plan, store, name, url, "0") as server:
                    check_chat(name, server)
        print("chat: answers are equal", flush=True)
        for number in range(plan.either(3, 1)):
            for store in plan.shuffled(SYSTEMS):
                for pause in plan.shuffled(plan.either(list(PAUSES), [ECHO])):
                    for name in plan.shuffled(SYSTEMS[store]):
                        if pause == ECHO or name not in ECHO_ALONE:
                            measure_system(plan, sheet, stores, store, pause, name)
            print(f"chat: round {number + 1}", flush=True)
    return sheet


def clients_of(store: str, pause: str) -> tuple[int, ...]:
    """With how many clients a pipeline is measured on a store."""
    return CLIENTS[store] if pause == ECHO else CLIENTS[store][-1:]


def besides() -> dict[str, str]:
    """All cases, and the system beside which the others stand."""
    beside = {MEMORY: RAW, SQLITE: THEIRS, POSTGRES: THEIRS}
    return {
        case_of(store, pause, clients): beside[store]
        for store in SYSTEMS
        for pause in PAUSES
        for clients in clients_of(store, pause)
    }


def starting(plan: Plan, store: str, name: str, url: str, pause: str) -> Server:
    """Start a system on a store. With PostgreSQL nothing is kept on a processor: the system shares both out."""
    core = None if store == POSTGRES else plan.server_core
    environment = {"BENCHMARK_PAUSE": pause}
    if name == THEIRS:
        return jims_api(url, core=core, environment=environment)
    if name == TUNED:
        tuned = {**environment, "BENCHMARK_TUNED": "yes"}
        return jims_api(url, core=core, environment=tuned, python=JIMS_API_TUNED)
    if name in (ADAPTED, ADAPTED_200):
        options = ("--context-events", "200") if name == ADAPTED_200 else ()
        return jimsapi_with_jims_app(url, *options, core=core, environment=environment)
    if name in (OURS, RELAXED):
        more = {"python": OURS_WITH_PLUGINS} if store == POSTGRES else {}
        options = ("--durability", "relaxed") if name == RELAXED else ()
        return jimsapi(url, *options, core=core, environment=environment, **more)
    app, python = ("raw", "raw") if name == RAW else ("fast", "fastapi")
    return under_uvicorn(f"benchmarks.apps.{app}:app", core=core, environment=environment, python=python)


def measure_system(plan: Plan, sheet: Sheet, stores: Stores, store: str, pause: str, name: str) -> None:
    """Load one system with each number of clients, and look whether all that it acknowledged is stored."""
    core = None if store == POSTGRES else plan.load_core
    acknowledged = 0
    with stores.fresh(store) as (url, count):
        with starting(plan, store, name, url, PAUSES[pause]) as server:
            for clients in plan.shuffled(clients_of(store, pause)):
                seconds = SECONDS_OF_THEIRS[clients] if name in (THEIRS, TUNED) else SECONDS
                warm = load(server, CHAT, seconds=seconds / 4, connections=clients, core=core, check=True)
                server.settle()  # it works on what was asked last, though nobody waits
                before = count()
                written = stores.written(store)
                used, in_postgres = server.processor_seconds(), stores.seconds()
                seen = load(server, CHAT, seconds=seconds, connections=clients, core=core)
                found = figures(seen, server.processor_seconds() - used)
                if store == POSTGRES:
                    found["PostgreSQL us/chat"] = 1e6 * (stores.seconds() - in_postgres) / seen.requests
                server.settle()
                used = server.processor_seconds() - used
                if store == POSTGRES:
                    used += stores.seconds() - in_postgres
                written_then = stores.written(store)
                after = count()
                # Some chats whose clients wrk has hung up on are stored, too.
                chats = seen.requests if before is None or after is None else after - before
                found[PROCESSOR_COST] = 1e3 * used / chats
                if written is not None and written_then is not None:
                    found[WRITTEN] = (written_then - written) / chats
                sheet.add(case_of(store, pause, clients), name, found)
                acknowledged += warm.requests + seen.requests
        stored = count()
        # When wrk ends it hangs up for all of its clients, and what they had asked may still be stored.
        if stored is not None and not acknowledged <= stored <= acknowledged + 2 * sum(CLIENTS[store]):
            raise RuntimeError(f"{name} on {store} acknowledged {acknowledged} chats, and {stored} are stored")
