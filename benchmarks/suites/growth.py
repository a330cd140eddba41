"""What a chat costs where much is stored already: in a thread of 10 to 1,000,000 events, and of one contact among 1 to
1,000,000. The time of an answer over HTTP, durable commit included; threads before and after `ANALYZE`.

What is there before are plain rows, written past the service; then the large and the small are asked in turns, so that
noise meets both alike. On PostgreSQL the same is done with a JIMS app, adapted: with the newest 200 events as its
context, as native apps have it, and with all events of its thread, as such an app has it by default and which grows.
"""

import sqlite3
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.caller import Caller, Spent
from benchmarks.environments import OURS_WITH_PLUGINS, of_tests
from benchmarks.plan import Plan
from benchmarks.rows import KINDS, Thread, fill_postgres, fill_postgres_with_many, fill_sqlite, fill_sqlite_with_many
from benchmarks.serving import Server, jimsapi, jimsapi_with_jims_app
from benchmarks.sheet import LOAD_BUSY, LOAD_COST, MILLISECONDS, Aim, Sheet

MIXTURE, SHORT = "a mixture", 400
CHATS = 20
"""Chats in a thread in each round; their median is the round's figure."""
CHATS_WITH_ALL, LONGEST_WITH_ALL = 4, 100_000
"""The same, and the longest thread, where a context holds all events: a chat may take seconds."""
BEFORE, AFTER = "before ANALYZE", "after ANALYZE"
JIMS_APP, JIMS_APP_200 = "JIMS app, all events", "JIMS app, 200 events"
TURN = "comm.* alone"
"""What the thread of each of many contacts holds: a question and its answer."""
KNOWN, NEW = "a known contact", "a new contact"
LONG_LIMIT = 1.1
"""The most that a chat in the longest thread may take, beside one in a short thread."""
LIMIT = 1.3
"""The most that a chat beside the most contacts may take, beside one alone."""
NO_STATISTICS = """
    ALTER TABLE threads SET (autovacuum_enabled = off);
    ALTER TABLE thread_events SET (autovacuum_enabled = off);
"""


def events(length: int) -> str:
    """What a thread of so many events is called."""
    return f"{length:,} events"


def contacts(number: int) -> str:
    """What a store of so many contacts is called."""
    return f"{number:,} contact{'s' if number > 1 else ''}"


Serve = Callable[[str, int | None], Server]
"""What starts a server on a store's place, on a processor."""


@dataclass(frozen=True)
class Phase:
    """One way of asking: who serves, which threads are asked, by kind and length, and how often in a round."""

    name: str
    serve: Serve
    threads: Sequence[tuple[str, int]]
    chats: int = CHATS


class Store(ABC):
    """A kind of store. `place` is where one is: a file, or a database's name."""

    name: str
    jims_apps: Sequence[tuple[str, Serve]] = ()
    """What starts adapted JIMS apps: with a context of their own, and with the native one."""

    @abstractmethod
    def new(self) -> str:
        """The place of a new one, without tables."""

    @abstractmethod
    def serve(self, place: str, core: int | None) -> Server:
        """Start our command on it."""

    @abstractmethod
    def fill(self, place: str, threads: Iterable[Thread]) -> None:
        """Write threads into its tables."""

    @abstractmethod
    def fill_with_many(self, place: str, number: int) -> None:
        """Write so many contacts, `contact 0` and so on, with a thread of one turn each."""

    @abstractmethod
    def analyze(self, place: str) -> None:
        """Have it look at what it holds."""


class SQLite(Store):
    """Files in a folder."""

    name = "SQLite"

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._made = 0

    def new(self) -> str:
        self._made += 1
        return str(self._folder / f"{self._made}.db")

    def serve(self, place: str, core: int | None) -> Server:
        return jimsapi(f"sqlite:///{place}", core=core)

    def fill(self, place: str, threads: Iterable[Thread]) -> None:
        fill_sqlite(Path(place), threads)

    def fill_with_many(self, place: str, number: int) -> None:
        fill_sqlite_with_many(Path(place), number, TURN)

    def analyze(self, place: str) -> None:
        with closing(sqlite3.connect(place)) as connection:
            connection.execute("ANALYZE")


class PostgreSQL(Store):
    """Databases of a server as the PostgreSQL plugin's tests have it."""

    name = "PostgreSQL"

    def __init__(self, server: Any, standing: ExitStack) -> None:
        self._server = server
        self._standing = standing
        self.jims_apps = ((JIMS_APP, self._serve_jims_app), (JIMS_APP_200, self._serve_jims_app_200))

    def new(self) -> str:
        return str(self._standing.enter_context(self._server.database()))

    def serve(self, place: str, core: int | None) -> Server:
        return jimsapi(self._server.url(place), core=core, python=OURS_WITH_PLUGINS)

    def _serve_jims_app(self, place: str, core: int | None, *options: str) -> Server:
        return jimsapi_with_jims_app(self._server.url(place), *options, core=core)

    def _serve_jims_app_200(self, place: str, core: int | None) -> Server:
        return self._serve_jims_app(place, core, "--context-events", "200")

    def fill(self, place: str, threads: Iterable[Thread]) -> None:
        self._server.psql(NO_STATISTICS, place)
        fill_postgres(self._server, place, threads)
        self._server.psql("CHECKPOINT")  # what was written here is not a chat's to flush

    def fill_with_many(self, place: str, number: int) -> None:
        fill_postgres_with_many(self._server, place, number, TURN)
        self._server.psql("VACUUM", place)  # or it begins by itself, while it is measured
        self._server.psql("CHECKPOINT")

    def analyze(self, place: str) -> None:
        self._server.psql("ANALYZE", place)


def run(plan: Plan) -> Sheet:
    """Measure."""
    lengths = plan.either((10, SHORT, 10_000, 100_000, 1_000_000), (10, SHORT, 10_000))
    numbers = plan.either((1, 1_000, 1_000_000), (1, 1_000))
    sheet = Sheet("growth", "the time of a chat beside what is stored already", aims(lengths[-1], numbers[-1]))
    with ExitStack() as standing:
        folder = standing.enter_context(tempfile.TemporaryDirectory())
        server = standing.enter_context(of_tests("jimsapi-postgres", "database").Postgres())
        for store in (SQLite(folder), PostgreSQL(server, standing)):
            measure_threads(plan, sheet, store, lengths)
            measure_contacts(plan, sheet, store, numbers)
    return sheet


def aims(longest: int, most: int) -> tuple[Aim, ...]:
    """What is to be reached with the largest that is measured."""
    found = []
    for store in (SQLite.name, PostgreSQL.name):
        what, beside = f"Chat in a thread of {events(longest)}, {store}", (events(SHORT),)
        for kind in KINDS:
            for when in (BEFORE, AFTER):
                case = f"{store}, {kind}, {when}"
                found.append(Aim(4, what, case, events(longest), MILLISECONDS, beside, at_most=LONG_LIMIT))
        what, beside = f"Chat beside {contacts(most)}, {store}", (contacts(1),)
        for who in (KNOWN, NEW):
            case = f"{store}, {who}"
            found.append(Aim(4, what, case, contacts(most), MILLISECONDS, beside, at_most=LIMIT))
    return tuple(found)


def measure_threads(plan: Plan, sheet: Sheet, store: Store, lengths: tuple[int, ...]) -> None:
    """Chat in threads of all lengths: of a mixture of types; of the other kinds, in a short and the longest one."""
    rounds = plan.either(5, 2)
    threads = [
        (kind, length) for kind in KINDS for length in lengths if kind == MIXTURE or length in (SHORT, lengths[-1])
    ]
    phases = [Phase(BEFORE, store.serve, threads), Phase(AFTER, store.serve, threads)]
    for name, serve in store.jims_apps:
        if name == JIMS_APP:
            longest, chats = min(lengths[-1], LONGEST_WITH_ALL), CHATS_WITH_ALL
        else:
            longest, chats = lengths[-1], CHATS
        phases.append(Phase(name, serve, [(MIXTURE, SHORT), (MIXTURE, longest)], chats))
    every = len(phases) * rounds
    place = made(store)
    store.fill(place, ((who, kind, length) for kind, length in threads for who in owners(kind, length, every)))
    print(f"growth: {store.name} holds the threads", flush=True)
    for number, phase in enumerate(phases):
        if phase.name == AFTER:
            store.analyze(place)
        with calling(phase.serve, place, plan) as caller, plan.as_load():
            for each in range(number * rounds, (number + 1) * rounds):
                turns = {thread: owners(*thread, every)[each % len(owners(*thread, every))] for thread in phase.threads}
                for (kind, length), spent in one_round(plan, caller, turns, phase.chats).items():
                    case = f"{store.name}, {kind}, {phase.name}"
                    sheet.beside[case] = events(SHORT)
                    sheet.add(case, events(length), figures(spent))
        print(f"growth: {store.name}, {phase.name}", flush=True)


def one_round(
    plan: Plan, caller: Caller, turns: dict[tuple[str, int], str], chats: int
) -> dict[tuple[str, int], list[Spent]]:
    """Chat in each thread so often; `turns` says whose it is. The first chat brings a thread's pages in."""
    spent: dict[tuple[str, int], list[Spent]] = {thread: [] for thread in turns}
    for turn in range(-1, chats):
        for thread in plan.shuffled(turns):
            each = caller(turns[thread])
            if turn >= 0:
                spent[thread].append(each)
    return spent


def figures(spent: list[Spent]) -> dict[str, float]:
    """What a round's chats say, by unit."""
    seconds, own = sum(each.seconds for each in spent), sum(each.own for each in spent)
    return {
        MILLISECONDS: 1e3 * median(each.seconds for each in spent),
        LOAD_BUSY: 100 * own / seconds,
        LOAD_COST: 1e6 * own / len(spent),
    }


def owners(kind: str, length: int, rounds: int) -> list[str]:
    """Whose the threads of a kind and length are: one for each round if they are short, since a chat adds to them."""
    return [f"{kind}, {length}, {number}" for number in range(rounds if length <= SHORT else 1)]


def measure_contacts(plan: Plan, sheet: Sheet, store: Store, numbers: tuple[int, ...]) -> None:
    """Chat as a contact that is known already and as new ones, in stores of few and of many contacts."""
    with ExitStack() as standing:
        callers = {}
        for number in numbers:
            place = made(store)
            store.fill_with_many(place, number)
            store.analyze(place)
            callers[number] = standing.enter_context(calling(store.serve, place, plan))
        print(f"growth: {store.name} holds the contacts", flush=True)
        standing.enter_context(plan.as_load())
        for number in range(plan.either(5, 2)):
            spent: dict[tuple[str, int], list[Spent]] = {(who, n): [] for who in (KNOWN, NEW) for n in numbers}
            for turn in range(-1, CHATS):
                for who, n in plan.shuffled(spent):
                    contact = f"contact {n - 1}" if who == KNOWN else f"new {number} {turn}"
                    each = callers[n](contact, new=who == NEW)
                    if turn >= 0:
                        spent[who, n].append(each)
            for (who, n), all_spent in spent.items():
                sheet.beside[f"{store.name}, {who}"] = contacts(1)
                sheet.add(f"{store.name}, {who}", contacts(n), figures(all_spent))


def made(store: Store) -> str:
    """The place of a new store that has its tables."""
    place = store.new()
    with store.serve(place, None):
        pass
    return place


@contextmanager
def calling(serve: Serve, place: str, plan: Plan) -> Iterator[Caller]:
    """Somebody who chats with a server, which serves a store meanwhile."""
    with serve(place, plan.server_core) as server:
        yield Caller(server.port)
