"""Replicas on one PostgreSQL, of which one is killed -9 at a time, while PostgreSQL restarts twice.

    python -m tests.faults.replicas
    python -m tests.faults.replicas --workers 3

Clients send the messages of all contacts in a random order through random replicas: once, under a key until there is an
answer, or in the background. With `--workers`, there is one command with that many processes, one of which is killed at
a time. Afterwards the store is compared with what the clients read, and the times of the runs of each thread with each
other.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random, randrange
from typing import Protocol

from tests.faults.journal import Journal
from tests.faults.load import CHAT
from tests.faults.places import PostgresPlace, postgres_server
from tests.faults.report import Figures, show
from tests.faults.verify import number, runs_stuck, stored, threads_stuck
from tests.faults.wire import Answer, CutAnswer, NoAnswer, Wire
from tests.serving import Served
from tests.waiting import eventually

REPLICAS = 3
CLIENTS = 24
KILL_EVERY = 5.0
TAKES = (0.0, 0.8)
"""Seconds that the answer to a message takes."""
KINDS = {"once": 2, "under a key": 3, "in the background": 2}
"""How messages are sent, and how often in proportion."""
PAUSE = 0.05
"""Seconds that a client waits before it sends or asks again."""
ANSWERED_WITHIN = 120.0
"""Seconds within which a client that repeats its message under a key, or asks for a run, has the answer."""
OPEN = ("queued", "running")

STORED = (
    "acknowledged",
    "accepted in the background",
    "acknowledged and lost",
    "accepted and lost",
    "doubled messages",
    "doubled answers",
    "answers without a run",
    "equal moments in a thread",
    "unexpected answers",
)
"""What `verify.stored` counts that applies here. An answer under a key may come after later messages of its thread."""

PROMISED_NONE = (
    *STORED[2:],
    "runs of a thread that overlap",
    "waiting background runs that were not continued",
    "clients without an answer",
    "runs stuck",
    "threads stuck",
)

STARTED = """
    SELECT thread_id, (1000000 * extract(epoch FROM started_at))::bigint,
        (1000000 * extract(epoch FROM coalesce(finished_at, clock_timestamp())))::bigint
    FROM jimsapi_runs WHERE started_at IS NOT NULL
"""
NOT_CONTINUED = """
    SELECT count(*) FROM jimsapi_runs WHERE background AND started_at IS NULL AND finished_at IS NOT NULL
"""


class Gate:
    """Where clients reach a server, whose processes are killed. `kills` counts them; `is_down`: it has no process."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.kills = 0
        self.is_down = False


class Servers(Protocol):
    """What is killed. `gates` are where clients reach it."""

    gates: Sequence[Gate]

    def start(self) -> None:
        """Start all processes, and wait until they serve."""

    def kill_one(self) -> None:
        """Kill one of the processes at random, and let another one take its place."""


class Replicas:
    """Servers that each have a port of their own."""

    def __init__(self, place: PostgresPlace, random: Random, count: int = REPLICAS) -> None:
        self.gates: Sequence[Gate] = [Gate(place.served()) for _ in range(count)]
        self._random = random

    def start(self) -> None:
        for gate in self.gates:
            gate.served.start()

    def kill_one(self) -> None:
        gate = self._random.choice(self.gates)
        gate.kills += 1
        gate.is_down = True
        gate.served.stop(signal.SIGKILL)
        gate.served.start()
        gate.is_down = False


class Workers:
    """One server with several processes, whose supervisor starts others in place of those that were killed."""

    def __init__(self, place: PostgresPlace, random: Random, count: int) -> None:
        self.gates: Sequence[Gate] = [Gate(place.served("--workers", str(count)))]
        self._random = random
        self._count = count

    def start(self) -> None:
        served = self.gates[0].served
        served.start()
        eventually(lambda: f"{self._count} workers serve the port" in served.stderr)

    def kill_one(self) -> None:
        eventually(self._pids)  # the supervisor waits before it starts those again that die early
        self.gates[0].kills += 1
        os.kill(self._random.choice(self._pids()), signal.SIGKILL)

    def _pids(self) -> list[int]:
        supervisor = self.gates[0].served.pid
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


class Clients:
    """Clients who send all messages of a list, and note in a journal what they were told.

    `thirds` are set when one and two thirds of the messages are settled, and `over` when all are.
    """

    def __init__(self, journal: Journal, gates: Sequence[Gate], random: Random, messages: int, contacts: int) -> None:
        self.counts: Counter[str] = Counter()
        self.thirds = (asyncio.Event(), asyncio.Event())
        self.over = asyncio.Event()
        self._journal = journal
        self._gates = gates
        self._random = random
        self._messages = messages
        self._settled = 0
        order = [f"contact {each % contacts}" for each in range(messages)]
        random.shuffle(order)
        self._order = iter(order)

    async def send_all(self) -> None:
        """Send all messages, from several clients at once."""
        try:
            await asyncio.gather(*(self._send() for _ in range(CLIENTS)))
        finally:
            self.over.set()

    async def _send(self) -> None:
        ways = {"once": self._once, "under a key": self._under_a_key, "in the background": self._in_background}
        for contact in self._order:
            kind = self._random.choices([*KINDS], [*KINDS.values()])[0]
            message = self._journal.message(f"wait {self._random.uniform(*TAKES):.3f}")
            self.counts[f"messages {kind}"] += 1
            try:
                async with asyncio.timeout(ANSWERED_WITHIN):
                    await ways[kind](contact, message)
            except TimeoutError:
                self.counts["clients without an answer"] += 1
            self._settled += 1
            for third, reached in enumerate(self.thirds, 1):
                if self._settled * 3 >= self._messages * third:
                    reached.set()

    async def _once(self, contact: str, message: str) -> None:
        answer = await self._chat(contact, message)
        if answer is not None:
            self._note(message, answer)

    async def _under_a_key(self, contact: str, message: str) -> None:
        while True:
            answer = await self._chat(contact, message, f"idempotency-key: {message}")
            if answer is not None and self._note(message, answer):
                return
            self.counts["repeats under a key"] += 1
            await asyncio.sleep(PAUSE)

    async def _in_background(self, contact: str, message: str) -> None:
        answer = await self._chat(contact, message, "prefer: respond-async")
        if answer is None:
            return
        if answer.status != 202:
            self._note(message, answer)
            return
        self._journal.background.add(message)
        status = await self._end_of(answer.headers["location"])
        self.counts[f"runs in the background that were {status}"] += 1
        if status == "completed":
            self._journal.acknowledged.add(message)
        elif status != "interrupted":
            self._journal.unexpected[f"a run in the background was {status}"] += 1

    async def _end_of(self, location: str) -> str:
        """Ask for a run, at any server, until it has ended. Returns its status."""
        while True:
            await asyncio.sleep(PAUSE)
            answer = await self._ask("GET", location)
            if answer is not None and answer.status == 200 and (status := answer.json()["status"]) not in OPEN:
                return str(status)
            if answer is not None and answer.status not in (200, 503):
                self._journal.unexpected[f"{answer.status} {answer.json()}"] += 1

    async def _chat(self, contact: str, message: str, *headers: str) -> Answer | None:
        return await self._ask("POST", CHAT, {"contact_id": contact, "message": message}, *headers)

    async def _ask(self, method: str, path: str, body: object = None, *headers: str) -> Answer | None:
        """Ask a server. Returns None if it was killed meanwhile."""
        gate = self._random.choice(self._gates)
        kills, was_down = gate.kills, gate.is_down
        wire = Wire(gate.served.port)
        try:
            return await (wire.get(path) if method == "GET" else wire.post(path, body, *headers))
        except (NoAnswer, CutAnswer):
            if gate.kills == kills and not was_down:
                self._journal.unexpected["no answer, although the server was not killed"] += 1
            self.counts["requests without an answer because of a kill"] += 1
            return None
        finally:
            wire.close()

    def _note(self, message: str, answer: Answer) -> bool:
        said = answer.json()
        return self._journal.note(message, answer.status, said.get("assistant_messages", said))


@contextmanager
def running(servers: Servers) -> Iterator[None]:
    """Servers from entering to leaving. They are killed at the end, whatever happened."""
    try:
        servers.start()
        yield
    finally:
        for gate in servers.gates:
            if gate.served.process is not None:
                gate.served.stop(signal.SIGTERM)
            gate.served.close()


async def kill_replicas(
    place: PostgresPlace, servers: Servers, random: Random, messages: int, contacts: int, every: float = KILL_EVERY
) -> Figures:
    """Kill one process of servers `every` few seconds while clients send messages, and compare what is stored."""
    journal = Journal()
    with running(servers):
        clients = Clients(journal, servers.gates, random, messages, contacts)
        one_at_a_time = asyncio.Lock()  # a server that starts needs PostgreSQL
        _, _, restarts = await asyncio.gather(
            clients.send_all(),
            _kill_until_over(servers, clients, one_at_a_time, every),
            _restart_postgresql(place, clients, one_at_a_time),
        )
        figures: Figures = {
            "kills": sum(gate.kills for gate in servers.gates),
            "restarts of PostgreSQL": restarts,
            **{name: clients.counts[name] for name in sorted(clients.counts)},
            "clients without an answer": clients.counts["clients without an answer"],
            "refusals": journal.refused,
        }
        figures["runs stuck"] = await runs_stuck(place)
        figures |= {name: figure for name, figure in stored(place, journal).items() if name in STORED}
        figures["runs of a thread that overlap"] = overlaps(
            (thread, int(started), int(finished)) for thread, started, finished in place.rows(STARTED)
        )
        figures["waiting background runs that were not continued"] = number(place, NOT_CONTINUED)
        figures["threads stuck"] = await threads_stuck(place, servers.gates[0].served.port)
        return figures


async def _kill_until_over(servers: Servers, clients: Clients, one_at_a_time: asyncio.Lock, every: float) -> None:
    while True:
        try:
            async with asyncio.timeout(every):
                await clients.over.wait()
            return
        except TimeoutError:
            async with one_at_a_time:
                await asyncio.to_thread(servers.kill_one)


async def _restart_postgresql(place: PostgresPlace, clients: Clients, one_at_a_time: asyncio.Lock) -> int:
    """Restart PostgreSQL after each third of the messages but the last. Returns how often it did."""
    for third in clients.thirds:
        await third.wait()
        async with one_at_a_time:
            await asyncio.to_thread(place.restart)
    return len(clients.thirds)


def overlaps(runs: Iterable[tuple[str, int, int]]) -> int:
    """Return how many runs started before an earlier run of their thread had ended.

    A run is its thread, and when it started and ended, in microseconds.
    """
    found = 0
    ended_at: dict[str, int] = {}
    for thread, started, finished in sorted(runs):
        found += started < ended_at.get(thread, started)
        ended_at[thread] = max(finished, ended_at.get(thread, finished))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill replicas under load, and count what is lost or doubled.")
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--contacts", type=int, default=50)
    parser.add_argument("--workers", type=int, help="One command with so many processes in place of replicas.")
    parser.add_argument("--seed", type=int, default=randrange(2**32))
    given = parser.parse_args()
    random = Random(given.seed)
    with postgres_server(fsync="off") as postgres:
        place = PostgresPlace(postgres)
        servers = Replicas(place, random) if given.workers is None else Workers(place, random, given.workers)
        figures = asyncio.run(kill_replicas(place, servers, random, given.messages, given.contacts))
    name = f"{REPLICAS} replicas" if given.workers is None else f"{given.workers} workers of one command"
    return 0 if show(f"kill -9 of {name}, seed {given.seed}", figures, PROMISED_NONE) else 1


if __name__ == "__main__":
    sys.exit(main())
