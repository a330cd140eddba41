"""A durable sink that is down under load while its process is killed: no answer waits, and nothing is lost.

    python -m tests.faults.sinks --store sqlite --down 60
    python -m tests.faults.sinks --store postgresql --down 60

The sink is down in the middle third. In that time the first server is killed -9 twice, and starts again. On PostgreSQL
a second server shares the database.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles

from tests.faults.places import Place, PostgresPlace, place_of
from tests.faults.report import Figures, show
from tests.faults.wire import CutAnswer, NoAnswer, Wire
from tests.faults.witness_sink import WitnessSink
from tests.serving import Served

PROMISED_NONE = ("events lost at the durable sink", "events out of order at the durable sink")
RECEIVED_WITHIN = 120.0
"""Seconds within which a sink that works again has received what waited: a hold of a dead process and two pauses."""
CALLERS = 8
EVENTS = """
    SELECT {thread}, {event} FROM thread_events ORDER BY thread_id, created_at, event_id
"""
WAITING = "SELECT count(*) FROM jimsapi_outbox WHERE position > (SELECT min(position) FROM jimsapi_sinks)"


async def received(place: Place, sink: WitnessSink) -> Figures:
    """Wait until the durable sink has what waited, and compare what it received with what the store has."""
    async with asyncio.timeout(RECEIVED_WITHIN):
        while int((await asyncio.to_thread(place.rows, WAITING))[0][0]):
            await asyncio.sleep(0.2)
    found = sink.durably_delivered()
    threads: dict[str, list[str]] = {}
    for thread_id, event_id in place.rows(EVENTS.format(**_columns(place))):
        threads.setdefault(thread_id, []).append(event_id)
    lost = disordered = 0
    for thread_id, events in threads.items():
        positions = {event_id: position for position, event_id in enumerate(found.get(thread_id, ()))}
        lost += sum(event_id not in positions for event_id in events)
        received_in_order = [positions[event_id] for event_id in events if event_id in positions]
        disordered += sum(earlier > later for earlier, later in pairwise(received_in_order))
    return {
        "events at the durable sink": sum(map(len, found.values())),
        "events lost at the durable sink": lost,
        "events out of order at the durable sink": disordered,
    }


def _columns(place: Place) -> dict[str, str]:
    if isinstance(place, PostgresPlace):
        return {name: f"replace({name}_id::text, '-', '')" for name in ("thread", "event")}
    return {name: f"{name}_id" for name in ("thread", "event")}


class Load:
    """Callers who send one message after another to servers, and note how long each answer took, in seconds."""

    def __init__(self, servers: Iterable[Served]) -> None:
        self.took: list[float] = []
        self.over = False
        self._servers = list(servers)
        self._tasks = [asyncio.create_task(self._call(number)) for number in range(CALLERS)]

    async def end(self) -> list[float]:
        """Let the callers finish. Returns how long each answer took."""
        self.over = True
        await asyncio.gather(*self._tasks)
        return self.took

    async def _call(self, number: int) -> None:
        served = self._servers[number % len(self._servers)]
        message = 0
        wire = Wire(served.port)
        while not self.over:
            began = time.perf_counter()
            try:
                answer = await wire.chat(f"caller {number}", f"{number}-{message} now")
            except (NoAnswer, CutAnswer):
                wire = Wire(served.port)  # it was killed, and starts again, perhaps on another port
                await asyncio.sleep(0.05)
                continue
            if answer.status == 200:
                self.took.append(time.perf_counter() - began)
                message += 1


async def sink_is_down(place: Place, seconds: float, servers: int) -> Figures:
    """Load servers for three times `seconds`. In the middle the sink is down, and its process is killed twice."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        sink = WitnessSink(Path(folder))
        served = [place.served(folder=sink.folder, env=sink.env) for _ in range(servers)]
        try:
            for one in served:
                await asyncio.to_thread(one.start)
            before = await _phase(served, seconds)
            sink.set_down(True)
            load = Load(served)
            for _ in range(2):
                await asyncio.sleep(seconds / 3)
                await asyncio.to_thread(served[0].stop, signal.SIGKILL)
                await asyncio.to_thread(served[0].start)
            await asyncio.sleep(seconds / 3)
            down = await load.end()
            waiting = int(place.rows(WAITING)[0][0])
            sink.set_down(False)
            began = time.monotonic()
            after = await _phase(served, seconds)
            figures = await received(place, sink)
            figures["seconds until the sink had everything"] = round(time.monotonic() - began)
        finally:
            for one in served:
                await asyncio.to_thread(one.stop, signal.SIGKILL)
                one.close()
    shown: Figures = {"events that waited for the sink": waiting}
    for name, took in (("before", before), ("while it is down", down), ("after", after)):
        shown[f"answers {name}"] = len(took)
        shown[f"median answer {name}, microseconds"] = round(1e6 * median(took))
        shown[f"99th of 100 answers {name}, microseconds"] = round(1e6 * quantiles(took, n=100)[98])
    return shown | figures


async def _phase(served: Iterable[Served], seconds: float) -> list[float]:
    load = Load(served)
    await asyncio.sleep(seconds)
    return await load.end()


def main() -> int:
    parser = argparse.ArgumentParser(description="Let a durable sink be down under load, and count what it lacks.")
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--down", type=float, default=60.0, help="Seconds for which the sink is down.")
    given = parser.parse_args()
    with place_of(given.store) as place:
        servers = 2 if given.store == "postgresql" else 1
        figures = asyncio.run(sink_is_down(place, given.down, servers))
    kept = show(f"a sink that is down for {given.down:g} s on {given.store}", figures, PROMISED_NONE)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
