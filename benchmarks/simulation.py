"""A simulation of many replicas on one PostgreSQL, with replicas that fail: `python -m benchmarks.simulation RESULT`.

`RESULT` is the `result.json` of the suite `scale`. Its costs of one process are all that the simulation knows of the
server. It first simulates the machine that was measured, with one, two and four processes, and prints what was measured
beside it. Each of several processes has the costs that one showed with as many clients. Then it simulates 1,000
replicas on machines of their own.

A client sends a message, the event loop of a process works on it, PostgreSQL stores it, the process works on the
answer, and PostgreSQL stores that. An event loop does one thing at a time. The processors of a machine are shared by
all that runs on it. A sync of PostgreSQL's log commits every transaction that waits for one.
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
    clients: int = 0
    rate: float = 0.0
    fails_every: float | None = None


class Database:
    """PostgreSQL: its processors, and the sync that commits all transactions that wait for it."""

    def __init__(self, world: simpy.Environment, processors: simpy.Resource, cost: float) -> None:
        self._world = world
        self.processors = processors
        self._cost = cost
        self._waiting: list[simpy.Event] = []
        self._comes = world.event()
        self.syncs = 0
        world.process(self._sync())

    def transaction(self) -> Events:
        """One of the two transactions of a chat."""
        yield from use(self._world, self.processors, self._cost / 2)
        committed = self._world.event()
        self._waiting.append(committed)
        if not self._comes.triggered:
            self._comes.succeed()
        yield committed

    def _sync(self) -> Events:
        while True:
            yield self._comes
            self._comes = self._world.event()
            while self._waiting:
                group, self._waiting = self._waiting, []
                yield self._world.timeout(SYNC)
                self.syncs += self._world.now > WARM_UP
                for committed in group:
                    committed.succeed()


class Replica:
    """A server of some processes, each with an event loop. `life` counts its failures."""

    def __init__(self, world: simpy.Environment, processors: simpy.Resource, processes: int) -> None:
        self.loops = [simpy.Resource(world) for _ in range(processes)]
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
        self.database = Database(world, shared or simpy.Resource(world, scene.database_processors), costs.database)
        self._replicas = [
            Replica(world, shared or simpy.Resource(world, scene.processors), scene.processes)
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
        loop, life = self._random.choice(replica.loops), replica.life
        for _ in range(2):
            with loop.request() as turn:
                yield turn
                yield from use(self._world, replica.processors, self._costs.server / 2)
            yield from self.database.transaction()
            if replica.life != life:
                return False
        return True


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
    show("the machine that was measured", beside_the_measured(found, given.processors))
    show("1,000 replicas", thousand(costs_of(found[system_of(1)])))


def beside_the_measured(found: Mapping[str, Mapping[str, float]], processors: int) -> dict[str, Mapping[str, float]]:
    """Return the simulation of what was measured, with the measured chats per second."""
    rows: dict[str, Mapping[str, float]] = {}
    for workers in WORKERS:
        costs = costs_of(found[system_of(1) if workers == 1 else share_of(workers)])
        scene = Scene(1, workers, processors, processors, 3.0, one_machine=True, clients=CLIENTS)
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
