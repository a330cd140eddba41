"""What a chat costs where much is stored already: in a thread of 10 to 1,000,000 events, and of one contact among 1 to
1,000,000. The time of an answer over HTTP, durable commit included; threads before and after `ANALYZE`.

What is there before are plain rows, written past the service; then the large and the small are asked in turns, so that
noise meets both alike.
"""

import sqlite3
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.caller import Caller
from benchmarks.environments import OURS_WITH_PLUGINS, of_tests
from benchmarks.plan import Plan
from benchmarks.rows import KINDS, Thread, fill_postgres, fill_postgres_with_many, fill_sqlite, fill_sqlite_with_many
from benchmarks.serving import Server, jimsapi
from benchmarks.sheet import MILLISECONDS, Aim, Sheet

MIXTURE, SHORT = "a mixture", 400
CHATS = 20
"""Chats in a thread in each round; their median is the round's figure."""
BEFORE, AFTER = "before ANALYZE", "after ANALYZE"
TURN = "comm.* alone"
"""What the thread of each of many contacts holds: a question and its answer."""
KNOWN, NEW = "a known contact", "a new contact"
LIMIT = 1.3
NO_STATISTICS = """
    ALTER TABLE threads SET (autovacuum_enabled = off);
    ALTER TABLE thread_events SET (autovacuum_enabled = off);
"""


def events(length: int) -> str:
    """What a thread of so many events is called."""
    return f"{length:,} events"


def contacts(number: int) -> str:
    """What a store of so many contacts is called."""
    return f"{number:,} contacts"


class Store(ABC):
    """A kind of store. `place` is where one is: a file, or a database's name."""

    name: str

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

    def new(self) -> str:
        return str(self._standing.enter_context(self._server.database()))

    def serve(self, place: str, core: int | None) -> Server:
        return jimsapi(self._server.url(place), core=core, python=OURS_WITH_PLUGINS)

    def fill(self, place: str, threads: Iterable[Thread]) -> None:
        self._server.psql(NO_STATISTICS, place)
        fill_postgres(self._server, place, threads)

    def fill_with_many(self, place: str, number: int) -> None:
        fill_postgres_with_many(self._server, place, number, TURN)

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
        for kind in KINDS:
            for when in (BEFORE, AFTER):
                case = f"{store}, {kind}, {when}"
                what, beside = f"A turn in a long thread: {case}", (events(SHORT),)
                found.append(Aim(4, what, case, events(longest), MILLISECONDS, beside, at_most=LIMIT))
        for who in (KNOWN, NEW):
            case = f"{store}, {who}"
            what, beside = f"A chat beside many contacts: {case}", (contacts(1),)
            found.append(Aim(4, what, case, contacts(most), MILLISECONDS, beside, at_most=LIMIT))
    return tuple(found)


def measure_threads(plan: Plan, sheet: Sheet, store: Store, lengths: tuple[int, ...]) -> None:
    """Chat in threads of all lengths: of a mixture of types; of the other kinds, in a short and the longest one."""
    rounds = plan.either(5, 2)
    pairs = [
        (kind, length) for kind in KINDS for length in lengths if kind == MIXTURE or length in (SHORT, lengths[-1])
    ]
    place = made(store)
    store.fill(place, ((who, kind, length) for kind, length in pairs for who in owners(kind, length, 2 * rounds)))
    print(f"growth: {store.name} holds the threads", flush=True)
    for half, when in enumerate((BEFORE, AFTER)):
        if when == AFTER:
            store.analyze(place)
        with calling(store, place, plan) as caller:
            for number in range(half * rounds, (half + 1) * rounds):
                turns = {pair: owners(*pair, 2 * rounds)[number % len(owners(*pair, 2 * rounds))] for pair in pairs}
                spent: dict[tuple[str, int], list[float]] = {pair: [] for pair in pairs}
                for turn in range(-1, CHATS):  # the first brings a thread's pages in
                    for pair in plan.shuffled(pairs):
                        seconds = caller(turns[pair])
                        if turn >= 0:
                            spent[pair].append(seconds)
                for (kind, length), each in spent.items():
                    case = f"{store.name}, {kind}, {when}"
                    sheet.beside[case] = events(SHORT)
                    sheet.add(case, events(length), {MILLISECONDS: 1e3 * median(each)})


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
            callers[number] = standing.enter_context(calling(store, place, plan))
        print(f"growth: {store.name} holds the contacts", flush=True)
        for number in range(plan.either(5, 2)):
            spent: dict[tuple[str, int], list[float]] = {(who, n): [] for who in (KNOWN, NEW) for n in numbers}
            for turn in range(-1, CHATS):
                for who, n in plan.shuffled(spent):
                    contact = f"contact {n - 1}" if who == KNOWN else f"new {number} {turn}"
                    seconds = callers[n](contact, new=who == NEW)
                    if turn >= 0:
                        spent[who, n].append(seconds)
            for (who, n), each in spent.items():
                sheet.beside[f"{store.name}, {who}"] = contacts(1)
                sheet.add(f"{store.name}, {who}", contacts(n), {MILLISECONDS: 1e3 * median(each)})


def made(store: Store) -> str:
    """The place of a new store that has its tables."""
    place = store.new()
    with store.serve(place, None):
        pass
    return place


@contextmanager
def calling(store: Store, place: str, plan: Plan) -> Iterator[Caller]:
    """Somebody who chats with our command, which serves a store meanwhile."""
    with store.serve(place, plan.server_core) as server:
        yield Caller(server.port)
