"""A simulation of many replicas on one PostgreSQL, with replicas that fail: `python -m benchmarks.simulation RESULT`.

`RESULT` is the `result.json` of the suite `scale`. Its costs of one process are all that the simulation knows of the
server. It first simulates the machine that was measured, with one, two and four processes, and prints what was measured
beside it. Each of several processes has the costs that one showed with as many clients. Then it simulates 1,000
replicas on machines of their own.

A client sends a message, the event loop of a process works on it, PostgreSQL stores it, the process works on the
answer, and PostgreSQL stores that. An event loop does one thing at a time. A process has one transaction under way,
and what comes meanwhile shares the next one. The processors of a machine are shared by all that runs on it. A sync of
PostgreSQL's log commits every transaction that waits for one.
"""

import argparse
import json
import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import simpy

from benchmarks.sheet import LOAD_COST, RATE
from benchmarks.suites.scale import (
    CLIENTS,
    DATABASE_COST,
    ECHO,
    SERVER_COST,
    WORKERS,
    alone_of,
    case_of,
    share_of,
    system_of,
)

WARM_UP = 0.2
"""Simulated seconds before those that count."""
SYNC = 0.0005
"""Seconds of one sync of PostgreSQL's log, on a disk of a server."""
AT_ONCE = 32
"""The most messages and answers that share a transaction, as in jimsapi-postgres."""
RESTART = 10.0
"""Seconds from the failure of a replica to its next answer."""
TAKEN = 0.0001
"""Seconds in which a proxy chooses another replica."""
RETRY = 0.5
"""Seconds after which a client whose replica failed sends its message again, to another one."""

Events = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Costs:
    """Processor seconds of one chat: of the server, of PostgreSQL, and of the client."""

    server: float
    database: float
    client: float


@dataclass(frozen=True)
class Scene:
    """What is simulated, for `seconds`.

    `replicas` have `processes` each, on machines of their own with `processors`, unless all is on `one_machine`, as in
    the measurement. Either `clients` send one message after another, or `rate` messages a second arrive. Each replica
    fails once in `fails_every` seconds on average.
    """

    replicas: int
    processes: int
    processors: int
    database_processors: int
    seconds: float
    one_machine: bool = False
    sync: float = SYNC
    clients: int = 0
    rate: float = 0.0
    fails_every: float | None = None


class Database:
    """PostgreSQL: its processors, and the sync that commits all transactions that wait for it."""

    def __init__(self, world: simpy.Environment, processors: simpy.Resource, cost: float, sync: float) -> None:
        self._world = world
        self.processors = processors
        self._cost = cost
        self._seconds_of_sync = sync
        self._uncommitted = simpy.Store(world)
        self.syncs = 0
        world.process(self._sync())

    def transaction(self, stored: int) -> Events:
        """Store so many messages and answers. A chat is one of each."""
        yield from use(self._world, self.processors, stored * self._cost / 2)
        committed = self._world.event()
        self._uncommitted.put(committed)
        yield committed

    def _sync(self) -> Events:
        while True:
            group = yield from take(self._uncommitted)
            yield self._world.timeout(self._seconds_of_sync)
            self.syncs += self._world.now > WARM_UP
            for committed in group:
                committed.succeed()


class Process:
    """A process of a server: its event loop, and its transactions, one after another."""

    def __init__(self, world: simpy.Environment, database: Database) -> None:
        self.loop = simpy.Resource(world)
        self._world = world
        self._database = database
        self._unstored = simpy.Store(world)
        world.process(self._transactions())

    def store(self) -> Events:
        """Store a message or an answer."""
        stored = self._world.event()
        self._unstored.put(stored)
        yield stored

    def _transactions(self) -> Events:
        while True:
            batch = yield from take(self._unstored, AT_ONCE)
            yield from self._database.transaction(len(batch))
            for stored in batch:
                stored.succeed()


class Replica:
    """A server of some processes. `life` counts its failures."""

    def __init__(self, processors: simpy.Resource, processes: Sequence[Process]) -> None:
        self.processes = processes
        self.processors = processors
        self.works = True
        self.life = 0


class Simulation:
    """Runs a scene. `answered` has the seconds that each chat took that was answered, `failed` counts those cut off."""

    def __init__(self, scene: Scene, costs: Costs, seed: int) -> None:
        self.answered: list[float] = []
        self.failed = 0
        self._scene = scene
        self._costs = costs
        self._random = random.Random(seed)
        self._world = world = simpy.Environment()
        shared = simpy.Resource(world, scene.processors) if scene.one_machine else None
        self._clients_processors = shared
        for_database = shared or simpy.Resource(world, scene.database_processors)
        self.database = Database(world, for_database, costs.database, scene.sync)
        self._replicas = [
            Replica(
                shared or simpy.Resource(world, scene.processors),
                [Process(world, self.database) for _ in range(scene.processes)],
            )
            for _ in range(scene.replicas)
        ]

    def run(self) -> None:
        """Simulate."""
        for _ in range(self._scene.clients):
            self._world.process(self._client())
        if self._scene.rate:
            self._world.process(self._arrivals())
        if self._scene.fails_every is not None:
            for replica in self._replicas:
                self._world.process(self._failures(replica, self._scene.fails_every))
        self._world.run(WARM_UP + self._scene.seconds)

    def _client(self) -> Events:
        while True:
            yield from self._chat()

    def _arrivals(self) -> Events:
        while True:
            yield self._world.timeout(self._random.expovariate(self._scene.rate))
            self._world.process(self._chat())

    def _failures(self, replica: Replica, every: float) -> Events:
        while True:
            yield self._world.timeout(self._random.expovariate(1 / every))
            replica.works, replica.life = False, replica.life + 1
            yield self._world.timeout(RESTART)
            replica.works = True

    def _chat(self) -> Events:
        """A message, which is sent again until it is answered."""
        began = self._world.now
        if self._clients_processors is not None:
            yield from use(self._world, self._clients_processors, self._costs.client)
        while not (yield from self._attempt()):
            self.failed += self._world.now > WARM_UP
            yield self._world.timeout(RETRY)
        if self._world.now > WARM_UP:
            self.answered.append(self._world.now - began)

    def _attempt(self) -> Generator[simpy.Event, Any, bool]:
        """Send a message to a replica that works. Returns whether it was answered before the replica failed."""
        replica = self._random.choice(self._replicas)
        while not replica.works:  # the proxy knows from its probes
            yield self._world.timeout(TAKEN)
            replica = self._random.choice(self._replicas)
        process, life = self._random.choice(replica.processes), replica.life
        for _ in range(2):
            with process.loop.request() as turn:
                yield turn
                yield from use(self._world, replica.processors, self._costs.server / 2)
            yield from process.store()
            if replica.life != life:
                return False
        return True


def take(store: simpy.Store, most: int | None = None) -> Generator[simpy.Event, Any, list[simpy.Event]]:
    """Wait until a store has something, and return all of it, or `most`."""
    first = yield store.get()
    rest = store.items[: None if most is None else most - 1]
    del store.items[: len(rest)]
    return [first, *rest]


def use(world: simpy.Environment, processors: simpy.Resource, seconds: float) -> Events:
    """Use one of some processors for so many seconds."""
    with processors.request() as turn:
        yield turn
        yield world.timeout(seconds)


def simulated(scene: Scene, costs: Costs, seed: int = 1) -> Mapping[str, float]:
    """Return what a scene shows, by unit."""
    simulation = Simulation(scene, costs, seed)
    simulation.run()
    took = simulation.answered
    total = len(took) + simulation.failed
    return {
        "chats/s": len(took) / scene.seconds,
        "p50 ms": 1e3 * median(took),
        "p99 ms": 1e3 * quantiles(took, n=100)[98],
        "sent again of 1,000,000": 1e6 * simulation.failed / total,
        "chats/sync": len(took) / max(1, simulation.database.syncs),
    }


def measured(result: Path) -> dict[str, dict[str, float]]:
    """Return the medians of the suite `scale` in a result, by system or share of the clients, and by unit."""
    suites = json.loads(result.read_text())["suites"]
    figures = next(suite["figures"] for suite in suites if suite["suite"] == "scale")
    found: dict[str, dict[str, float]] = {}
    for figure in figures:
        if figure["case"] in (case_of(ECHO), alone_of(ECHO)):
            found.setdefault(figure["system"], {})[figure["unit"]] = median(figure["rounds"])
    return found


def costs_of(one: Mapping[str, float]) -> Costs:
    """Return the costs of a chat that one process has shown."""
    return Costs(1e-6 * one[SERVER_COST], 1e-6 * one[DATABASE_COST], 1e-6 * one[LOAD_COST])


def main() -> None:
    """Run the command."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    options.add_argument("result", type=Path, help="the result.json of the suite scale")
    options.add_argument("--processors", type=int, default=2, help="those of the machine that was measured")
    given = options.parse_args()
    found = measured(given.result)
    sync = json.loads(given.result.read_text())["machine"]["fsync ms"] / 1e3
    show("the machine that was measured", beside_the_measured(found, given.processors, sync))
    show("1,000 replicas", thousand(costs_of(found[system_of(1)])))


def beside_the_measured(
    found: Mapping[str, Mapping[str, float]], processors: int, sync: float
) -> dict[str, Mapping[str, float]]:
    """Return the simulation of what was measured, with the measured chats per second."""
    rows: dict[str, Mapping[str, float]] = {}
    for workers in WORKERS:
        costs = costs_of(found[system_of(1) if workers == 1 else share_of(workers)])
        scene = Scene(1, workers, processors, processors, 3.0, one_machine=True, sync=sync, clients=CLIENTS)
        rows[system_of(workers)] = {**simulated(scene, costs), "measured": found[system_of(workers)][RATE]}
    return rows


def thousand(costs: Costs) -> dict[str, Mapping[str, float]]:
    """Return what 1,000 replicas show at several rates, with and without failures."""
    rows: dict[str, Mapping[str, float]] = {}
    for rate in (1_000, 10_000, 50_000):
        for fails_every in (None, 3600.0, 60.0):
            scene = Scene(1000, 2, 2, 64, 2.0, rate=rate, fails_every=fails_every)
            name = "no failures" if fails_every is None else f"each fails every {fails_every:,.0f} s"
            rows[f"{rate:,} chats/s, {name}"] = simulated(scene, costs)
    return rows


def show(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table in Markdown."""
    units: Sequence[str] = list(next(iter(rows.values())))
    print(f"\n| {title} | {' | '.join(units)} |\n|---|{'---|' * len(units)}")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(f'{row[unit]:,.4g}' for unit in units)} |")


if __name__ == "__main__":
    main()
