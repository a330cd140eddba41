"""kill -9 in random histories of questions: an answer counts once, and what stands under `once` happens once.

    python -m tests.faults.questions --histories 200 --seed 1
    python -m tests.faults.questions --histories 200 --seed 1 --store postgresql

A history has some people with a thread each. The planned bot asks them, has effects under `ctx.once`, and calls tools.
They answer by any protocol that is installed and at any server, twice at the same time, too late, or not at all, and
send other messages instead. Meanwhile servers are killed. On PostgreSQL two servers share a database, and PostgreSQL is
killed, too. Afterwards the store, and the file with the effects, are compared with what the people read.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random, randrange

import httpx

from tests.apps.planned import EFFECTS
from tests.faults import planned_turns
from tests.faults.people import Person, Ports, Seen
from tests.faults.places import Place, PostgresPlace, place_of
from tests.faults.planned_turns import QUESTIONS, Effect, Kept, Row, Turn, broken_promises
from tests.faults.report import Figures, show
from tests.faults.verify import EQUAL_MOMENTS, number, runs_stuck

PROMISED_NONE = (
    *planned_turns.PROMISED_NONE,
    "threads stuck",
    "runs stuck",
    "unexpected answers",
    "equal moments in a thread",
)

APP = "tests.apps.planned:app"
AT_ONCE = 10
"""Histories that share the kills of a round."""
MOST_PEOPLE = 3
MOST_KILLS = 4
"""How often something is killed in a round at most. A round ends when all people have lived."""
BEFORE_KILL = (0.05, 0.8)
"""Seconds before a kill."""
LIVES_WITHIN = 120.0
"""Seconds within which a person has said and read all."""
SHOWN, THREADS_SHOWN = 20, 3
"""Broken promises that are printed, and threads in which they were broken."""

EVENTS = """
    SELECT event_type, CAST(event_data AS text) FROM thread_events JOIN threads USING (thread_id)
    WHERE event_type IN ('comm.user_message', 'comm.assistant_message', 'tool.call', 'once.result')
        OR event_type LIKE 'question.%'
    ORDER BY thread_id, thread_events.created_at
"""

THREAD = """
    SELECT thread_events.created_at, event_type, CAST(event_data AS text)
    FROM thread_events JOIN threads USING (thread_id)
    WHERE contact_id = '{}' ORDER BY thread_events.created_at
"""


class Servers:
    """Servers on a place, one of which, or all, or PostgreSQL below them, are killed and started again."""

    def __init__(self, place: Place, folder: Path, random: Random, seen: Seen) -> None:
        self.ports = Ports()
        self.killed: set[str] = set()
        """The identifiers of processes that were killed."""
        self._place = place
        self._random = random
        self._seen = seen
        env = {EFFECTS: str(folder / "effects")}
        count = 2 if isinstance(place, PostgresPlace) else 1
        self._served = [place.served(folder=folder, env=env, app=APP) for _ in range(count)]

    def start(self) -> None:
        """Start all."""
        for served in self._served:
            served.start()
        self._note_ports()

    def stop(self) -> None:
        """Kill all that live, and remove what they have written."""
        for served in self._served:
            if served.process is not None:
                served.stop(signal.SIGKILL)
            served.close()

    def kill(self) -> None:
        """Kill something, and start it again."""
        victims = {"kills of a server": 6}
        if isinstance(self._place, PostgresPlace):
            victims |= {"kills of all servers": 1, "kills of postgresql": 2}
        victim = self._random.choices([*victims], [*victims.values()])[0]
        self._seen.counts[victim] += 1
        if victim == "kills of postgresql":
            assert isinstance(self._place, PostgresPlace)
            self.ports.outages += 1
            self.ports.generation += 1
            self._place.kill()
            self._place.start()
            return
        served = self._served if victim == "kills of all servers" else [self._random.choice(self._served)]
        for one in served:
            one.stop(signal.SIGKILL)
            self.killed.add(str(one.pid))
        self.ports.generation += 1
        for one in served:
            one.start()
        self._note_ports()

    def log(self) -> str:
        """What the servers have logged of trouble."""
        lines = [line for served in self._served for line in served.stderr.splitlines()]
        return "\n".join(line for line in lines if " INFO " not in line and " status=" not in line)

    def _note_ports(self) -> None:
        self.ports.of_servers = [served.port for served in self._served]


async def tell_histories(place: Place, histories: int, seed: int) -> Figures:
    """Let so many histories happen on a place, and compare what it holds with what people read."""
    random, seen = Random(seed), Seen()
    turns: list[Turn] = []
    stuck = threads = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        servers = Servers(place, folder, random, seen)
        try:
            await asyncio.to_thread(servers.start)
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)  # servers come and go
            async with httpx.AsyncClient(timeout=LIVES_WITHIN, trust_env=False, limits=limits) as client:
                for first in range(0, histories, AT_ONCE):
                    people = [
                        Person(f"h{history}p{each}", Random(f"{seed} {history} {each}"), client, servers.ports, seen)
                        for history in range(first, min(first + AT_ONCE, histories))
                        for each in range(1 + Random(f"{seed} {history}").randrange(MOST_PEOPLE))
                    ]
                    stuck += await one_round(servers, people, random)
                    threads += len(people)
                    turns += [turn for person in people for turn in person.turns]
            figures: Figures = {"histories": histories, "threads": threads, **_counted(turns)}
            figures["runs stuck"] = await runs_stuck(place)
            figures["threads stuck"] = stuck
            figures |= compare(place, folder / "effects", turns, servers.killed)
            if seen.unexpected or stuck:
                print(*seen.unexpected[:SHOWN], servers.log()[-20_000:], sep="\n")
        finally:
            servers.stop()
    figures["unexpected answers"] = len(seen.unexpected)
    return {**figures, **{name: seen.counts[name] for name in sorted(seen.counts)}}


async def one_round(servers: Servers, people: Sequence[Person], random: Random) -> int:
    """Let people live, while something is killed. Returns how many of them wait for an answer without end."""
    lives = [asyncio.create_task(_live(person)) for person in people]
    for _ in range(MOST_KILLS):
        await asyncio.wait(lives, timeout=random.uniform(*BEFORE_KILL))
        if all(life.done() for life in lives):
            break
        await asyncio.to_thread(servers.kill)
    return sum(await asyncio.gather(*lives))


async def _live(person: Person) -> bool:
    """Returns whether the person is stuck."""
    try:
        async with asyncio.timeout(LIVES_WITHIN):
            await person.live()
    except TimeoutError:
        return True
    return False


def compare(place: Place, effects: Path, turns: Sequence[Turn], killed: set[str]) -> Figures:
    """Count the promises that were broken, and what happened outside of the store."""
    lines = effects.read_text().splitlines() if effects.exists() else []
    had = [Effect(*line.split(" ")) for line in lines]
    kept = Kept((Row(*row) for row in place.rows(EVENTS)), had)
    broken = broken_promises(turns, kept, killed)
    for name, what in broken[:SHOWN]:
        print(f"{name}: {what}")
    for contact in list(dict.fromkeys(what.partition("-")[0] for _, what in broken))[:THREADS_SHOWN]:
        print(f"the thread of {contact}:", *(" ".join(row) for row in place.rows(THREAD.format(contact))), sep="\n  ")
    counts = Counter(name for name, _ in broken)
    figures: Figures = {name: counts[name] for name in planned_turns.PROMISED_NONE}
    figures["equal moments in a thread"] = number(place, EQUAL_MOMENTS)
    figures["effects"] = len(had)
    figures["effects repeated after a kill"] = len(had) - len({(effect.label, effect.key) for effect in had})
    return figures


def _counted(turns: Sequence[Turn]) -> Figures:
    asked = [text for turn in turns for text in turn.acknowledged if text.endswith("?")]
    planned = [kind for turn in turns for kind, _ in turn.steps if kind in QUESTIONS]
    return {
        "turns": len(turns),
        "questions planned": len(planned),
        "questions read": len(asked),
        "answers acknowledged": sum(len(turn.answers) for turn in turns),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill servers in histories of questions, and count what is broken.")
    parser.add_argument("--histories", type=int, default=200)
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--seed", type=int, default=randrange(2**32))
    given = parser.parse_args()
    with place_of(given.store) as place:
        figures = asyncio.run(tell_histories(place, given.histories, given.seed))
    return 0 if show(f"questions on {given.store}, seed {given.seed}", figures, PROMISED_NONE) else 1


if __name__ == "__main__":
    sys.exit(main())
