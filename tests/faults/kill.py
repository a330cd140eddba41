"""kill -9 under load, many times: what was acknowledged stays, once, and nothing stays locked.

    python -m tests.faults.kill --store sqlite --times 200
    python -m tests.faults.kill --store postgresql --times 200
    python -m tests.faults.kill --store postgresql --victim postgresql --times 50

On SQLite one server is killed. On PostgreSQL two servers share a database and one of them is killed at a time;
`--victim postgresql` kills all processes of PostgreSQL instead, below two servers that live.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random, randrange

from tests.faults.files import has_files, stored_files
from tests.faults.journal import Journal
from tests.faults.load import Callers
from tests.faults.places import Place, PostgresPlace, SQLitePlace, place_of
from tests.faults.report import Figures, show
from tests.faults.sinks import PROMISED_NONE as RECEIVED_NONE
from tests.faults.sinks import received
from tests.faults.verify import PROMISED_NONE as STORED_NONE
from tests.faults.verify import SETTLES_WITHIN, runs_stuck, stored, threads_stuck
from tests.faults.witness_sink import WitnessSink
from tests.serving import Served

PROMISED_NONE = (*STORED_NONE, *RECEIVED_NONE, "events doubled at the sink")

LOAD_BEFORE_KILL = (0.1, 0.8)
"""Seconds of load before a kill."""
START_TAKES = 0.5
"""Seconds within which a start is killed, with what it recovers."""
DRAIN_TAKES = 0.8
"""Seconds within which a shutdown is killed."""
TROUBLES_SHOWN = 200
SINK_IS_DOWN = 0.3
"""How often the durable sink is down during a kill."""
CHECKPOINT_WITHIN = 2.0
"""Seconds to wait for a checkpoint."""


class Victim:
    """A server on a place that is started, loaded and killed again and again."""

    def __init__(self, place: Place, sink: WitnessSink, journal: Journal, random: Random) -> None:
        self.kills: Counter[str] = Counter()
        self._place = place
        self._sink = sink
        self._journal = journal
        self._random = random
        self._ended = True

    async def start(self) -> None:
        """Start the server and its callers."""
        self.served = self._new()
        await asyncio.to_thread(self.served.start)
        self._ended = False
        self._callers = Callers(self._journal, self.served.port)

    async def kill(self) -> None:
        """Kill the server at a moment of chance, and start it again."""
        weights = {"load": 5, "checkpoint": 2 if isinstance(self._place, SQLitePlace) else 0, "drain": 2, "start": 2}
        moment = self._random.choices([*weights], [*weights.values()])[0]
        self.kills[moment] += 1
        if moment == "checkpoint":
            await self._until_checkpoint()
        else:
            await asyncio.sleep(self._random.uniform(*LOAD_BEFORE_KILL))
        if moment == "drain":
            assert self.served.process is not None
            self.served.process.terminate()
            await asyncio.sleep(self._random.uniform(0, DRAIN_TAKES))
        await self.end()
        if moment == "start":
            # The start recovers what the kill before left, and is killed too.
            await self.kill_start()
        await self.start()

    async def kill_start(self) -> None:
        """Start a server, and kill it before long."""
        starting = self._new()
        starting.launch()
        await asyncio.sleep(self._random.uniform(0, START_TAKES))
        starting.stop(signal.SIGKILL)
        starting.close()

    async def stop_callers(self) -> None:
        """Let the callers finish."""
        await self._callers.end()

    def troubles(self) -> list[str]:
        """What the server has logged, but for requests that it answered as they wished."""
        return [line for line in self.served.stderr.splitlines() if " status=20" not in line][-TROUBLES_SHOWN:]

    async def end(self, number: int = signal.SIGKILL) -> None:
        """End the server, and wait for its callers."""
        if self._ended:
            return
        self._ended = True
        try:
            await asyncio.to_thread(self.served.stop, number)
            await self._callers.end()
        finally:
            self.served.close()

    async def _until_checkpoint(self) -> None:
        """Wait until SQLite moves its log into the database file, which nothing else writes."""
        assert isinstance(self._place, SQLitePlace)
        written_at = self._place.file.stat().st_mtime_ns
        with suppress(TimeoutError):
            async with asyncio.timeout(CHECKPOINT_WITHIN):
                while self._place.file.stat().st_mtime_ns == written_at:
                    await asyncio.sleep(0.001)

    def _new(self) -> Served:
        return self._place.served(folder=self._sink.folder, env=self._sink.env)


@asynccontextmanager
async def loaded_servers(
    place: Place, journal: Journal, random: Random, number: int
) -> AsyncIterator[tuple[list[Victim], WitnessSink]]:
    """Servers on a place with their callers and a sink. They are killed at the end, whatever happened."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        sink = WitnessSink(Path(folder))
        victims = [Victim(place, sink, journal, random) for _ in range(number)]
        try:
            await victims[0].kill_start()  # while it makes its tables
            for victim in victims:
                await victim.start()
            yield victims, sink
        finally:
            for victim in victims:
                await victim.end()


async def kill_servers(place: Place, times: int, random: Random, servers: int) -> Figures:
    """Kill one of `servers` servers on a place at a time, and compare what is stored with what was acknowledged."""
    journal = Journal()
    async with loaded_servers(place, journal, random, servers) as (victims, sink):
        for number in range(times):
            sink.set_down(random.random() < SINK_IS_DOWN)
            await victims[number % servers].kill()
        moments = sum((victim.kills for victim in victims), Counter[str]())
        figures = {"kills": times, **{f"kills in {moment}": moments[moment] for moment in sorted(moments)}}
        return figures | await settle(place, journal, sink, victims)


async def kill_postgresql(place: PostgresPlace, times: int, random: Random) -> Figures:
    """Kill all processes of PostgreSQL below two servers, and start it again."""
    journal = Journal()
    async with loaded_servers(place, journal, random, 2) as (victims, sink):
        for _ in range(times):
            await goes_on(journal)
            await asyncio.sleep(random.uniform(*LOAD_BEFORE_KILL))
            sink.set_down(random.random() < SINK_IS_DOWN)
            await asyncio.to_thread(place.kill)
            await asyncio.to_thread(place.start)
        return {"kills": times} | await settle(place, journal, sink, victims)


async def goes_on(journal: Journal) -> None:
    """Wait until another message is answered."""
    answered = len(journal.acknowledged)
    async with asyncio.timeout(SETTLES_WITHIN):
        while len(journal.acknowledged) == answered:
            await asyncio.sleep(0.01)


async def settle(place: Place, journal: Journal, sink: WitnessSink, victims: list[Victim]) -> Figures:
    """Let all that is open end, stop the servers, and count."""
    async with asyncio.timeout(SETTLES_WITHIN):
        while journal.unsettled or journal.unapproved:
            await asyncio.sleep(0.01)
    for victim in victims:
        await victim.stop_callers()
    if journal.unexpected:
        for victim in victims:
            print(*victim.troubles(), sep="\n")
    figures: Figures = {"retries under a key": journal.repeated, "refusals": journal.refused}
    figures["runs stuck"] = await runs_stuck(place)
    figures |= stored(place, journal)
    if has_files():
        figures |= await stored_files(journal, victims[0].served.port)
    figures["threads"] = len(place.rows("SELECT thread_id FROM threads"))
    figures["threads stuck"] = await threads_stuck(place, victims[0].served.port)
    sink.set_down(False)
    figures |= await received(place, sink)
    for victim in victims:
        await victim.end(signal.SIGTERM)
    delivered = sink.delivered()
    figures["events delivered to the sink"] = len(delivered)
    figures["events doubled at the sink"] = sum(times > 1 for times in delivered.values())
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill servers under load, and count what is lost or doubled.")
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--victim", choices=["jimsapi", "postgresql"], default="jimsapi")
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=randrange(2**32))
    given = parser.parse_args()
    random = Random(given.seed)
    with place_of(given.store) as place:
        if given.victim == "postgresql":
            if not isinstance(place, PostgresPlace):
                parser.error("--victim postgresql needs --store postgresql")
            figures = asyncio.run(kill_postgresql(place, given.times, random))
        else:
            servers = 2 if given.store == "postgresql" else 1
            figures = asyncio.run(kill_servers(place, given.times, random, servers))
    kept = show(f"kill -9 of {given.victim} on {given.store}, seed {given.seed}", figures, PROMISED_NONE)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
