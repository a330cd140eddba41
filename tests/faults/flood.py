"""A flood: ten times what the server can answer, in a closed or an open loop, and what is left of its work meanwhile.

    python -m tests.faults.flood --connections 2000 --max-runs 1000 --seconds 60
    python -m tests.faults.flood --loop open --max-runs 100 --pipeline-seconds 0.1 --seconds 60
    python -m tests.faults.flood --connections 1100 --max-runs 1000
    python -m tests.faults.flood --beside "8 healthz"

As many clients as the server takes measure its capacity, then the flood comes to the same process, in rounds of 15
seconds, and the capacity is measured again after each. The exit status is 1 if a promise is broken. Every client is a
contact of its own.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean

import uvloop

from tests.faults.callers import ClosedLoop, Crowd, OpenLoop, Tally
from tests.faults.figures import Report, given_back, megabytes
from tests.faults.measured import KEY, LOAD_CORE, MeasuredServer, allow_descriptors, chat, get
from tests.faults.prober import Probe, Prober, between, seconds, unanswered

TIMES_CAPACITY = 10
GOODPUT = 0.9
"""The share of the capacity that a flood leaves to those who are answered."""
REFUSED_WITHIN = 0.05
"""Seconds: the 99th percentile of refusals."""
PROBED_WITHIN = 0.5
"""Seconds that a probe over a new connection may take."""
SPARE_DESCRIPTORS = 8
"""How many descriptors more than before may be open after a flood: a store opens readers when it is first busy."""
KEPT_BESIDE = 0.5
"""The share of chats that other cheap requests leave to chats."""
GENERATOR_FULL = 0.95
"""The share of a processor beyond which a figure may be the generator's own."""
ROUND_SECONDS = 15.0
CHATS_BESIDE = 16
CONTEXT_EVENTS = 10
"""How many events a chat reads of its thread, so that chats cost the same in all parts of a measurement."""
SETTLES_WITHIN = 15.0
LONGEST_STALL = 30.0
"""Seconds that a look lasts longer at most, until a chat is answered: a disk may stall for longer than a short one."""
PROBE_EVERY = 0.1

BESIDE = {
    "healthz": (get("/healthz"), 200),
    "readyz": (get("/readyz"), 200),
    "unknown": (get("/no/such/path"), 404),
    "wrong-key": (chat("hello", "stranger", key="wrong"), 401),
}
"""Requests that are asked beside chats, and how they are answered."""


@dataclass(frozen=True)
class Size:
    """How large a flood is. `clients` measure the capacity; a pipeline takes `pipeline_seconds`."""

    loop: str = "closed"
    connections: int = 2000
    max_runs: int = 1000
    clients: int = 900
    seconds: float = 60.0
    capacity_seconds: float = 10.0
    pipeline_seconds: float = 0.0
    store: str | None = None
    pinned: bool = False
    warm_up: float = 1.0

    @property
    def rounds(self) -> int:
        """The capacity is measured after each round."""
        return max(1, round(self.seconds / ROUND_SECONDS))

    @property
    def message(self) -> str:
        return f"wait {self.pipeline_seconds}" if self.pipeline_seconds else "hello there"


class Window:
    """What a crowd saw in a time that begins after its warm-up."""

    def __init__(self, tally: Tally, lasted: float, generator: float) -> None:
        self.tally = tally
        self.lasted = lasted
        self.generator = generator
        """The share of a processor that this process used."""

    def add(self, other: "Window") -> None:
        """Append another time."""
        self.tally.add(other.tally)
        used = self.generator * self.lasted + other.generator * other.lasted
        self.lasted += other.lasted
        self.generator = used / self.lasted

    def rate(self, status: int) -> float:
        """Answers with a status, each second."""
        return self.tally.count(status) / self.lasted


async def window(crowd: Crowd, lasts: float, *, warm_up: float, wanted: int = 200) -> Window:
    """Let a crowd warm up, then look at what it sees for so many seconds, and until a `wanted` status was seen."""
    await asyncio.sleep(warm_up)
    tally = crowd.tally = Tally()
    began, used = time.perf_counter(), time.process_time()
    await asyncio.sleep(lasts)
    while not tally.count(wanted) and time.perf_counter() < began + lasts + LONGEST_STALL:
        await asyncio.sleep(PROBE_EVERY)
    lasted = time.perf_counter() - began
    crowd.tally = Tally()
    return Window(tally, lasted, (time.process_time() - used) / lasted)


def requests(count: int, size: Size, name: str) -> list[bytes]:
    """The chats of so many contacts."""
    return [chat(size.message, f"{name} {number}") for number in range(count)]


async def show_ceiling(report: Report, lasts: float) -> None:
    """Print what the generator asks of a server that does nothing."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.raw_answers"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    port = int(process.stdout.readline())
    async with ClosedLoop(port, [chat("hello there", "nobody")] * 64) as crowd:
        seen = await window(crowd, lasts, warm_up=lasts / 4)
    process.communicate()
    report.show("generator alone", seen.rate(200), "requests/s")
    report.show("generator's ceiling by its processor time", seen.rate(200) / seen.generator, "requests/s")


async def flood(report: Report, server: MeasuredServer, size: Size) -> None:
    """Measure what a flood leaves of the capacity: the capacity, a round of the flood, the capacity again, and so on.

    As a store grows, a chat costs more, and most at first. So each round is compared with the capacity just before and
    just after it.
    """
    capacity = [await capacity_of(report, server, size, "before the flood")]
    await asyncio.sleep(size.warm_up)
    before, descriptors = server.resident, server.descriptors
    server.reset_peak()
    report.show("memory before", megabytes(before), "MB")
    report.show("descriptors before", descriptors)
    rate = TIMES_CAPACITY * capacity[0]
    if size.loop == "open":
        report.show("wanted arrivals", rate, "requests/s")

    rounds: list[Round] = []
    probes = (Probe(path, get(path, "connection: close").decode(), PROBE_EVERY) for path in ("/healthz", "/readyz"))
    with Prober(server.port, *probes) as prober:
        for number in range(1, size.rounds + 1):
            rounds.append(await one_round(server, size, rate))
            if number < size.rounds:
                capacity.append(await capacity_of(report, server, size, f"after round {number}"))
    seen = Window(Tally(), 0.0, 0.0)
    for each in rounds:
        seen.add(each.seen)
    report.show("open connections", min(each.connections for each in rounds))
    report.at_most("not answered when the flood ended", sum(each.left for each in rounds), 0)
    show_flood(report, seen, size)
    for path, all_seen in prober.seen.items():
        during = [probe for each in rounds for probe in between(all_seen, each.began, each.ended)]
        report.show(f"{path}: fresh probes", len(during))
        report.at_most(f"{path}: not answered 200", len(unanswered(during)), 0)
        report.show(f"{path}: p99", seconds(during, 0.99), "s")
        report.at_most(f"{path}: slowest", seconds(during, 1.0), PROBED_WITHIN, "s")
    await show_after(report, server, before, descriptors, judged=size.store != "memory:")
    capacity.append(await capacity_of(report, server, size, "after the flood"))
    expected = mean(map(mean, pairwise(capacity)))
    report.at_least("goodput / capacity", seen.rate(200) / expected if expected else 0.0, GOODPUT)


@dataclass(frozen=True)
class Round:
    """A part of a flood."""

    seen: Window
    began: float
    ended: float
    connections: int
    left: int
    """Requests that were not answered when the round ended."""


async def one_round(server: MeasuredServer, size: Size, rate: float) -> Round:
    """Flood the server once."""
    flooding: Crowd
    if size.loop == "open":
        flooding = OpenLoop(server.port, requests(size.connections, size, "flood"), rate=rate, limit=size.connections)
    else:
        flooding = ClosedLoop(server.port, requests(size.connections, size, "flood"))
    async with flooding:
        began = time.monotonic()
        seen = await window(flooding, size.seconds / size.rounds, warm_up=size.warm_up)
        ended = time.monotonic()
        connections = len(flooding.open)
    return Round(seen, began, ended, connections, flooding.left_unanswered + flooding.tally.faults.total())


async def capacity_of(report: Report, server: MeasuredServer, size: Size, when: str) -> float:
    """The chats a second of as many clients as are measured alone."""
    async with ClosedLoop(server.port, requests(size.clients, size, "client")) as crowd:
        alone = await window(crowd, size.capacity_seconds, warm_up=size.warm_up)
    report.show(f"capacity {when}", alone.rate(200), f"chats/s of {size.clients} clients")
    show_faults(report, "capacity", alone.tally, {200})
    return alone.rate(200)


def show_flood(report: Report, seen: Window, size: Size) -> None:
    """Print what the flood's clients saw."""
    tally = seen.tally
    answers = tally.answers / seen.lasted
    report.show("answers", answers, "/s")
    report.show("goodput", seen.rate(200), "chats/s")
    report.show("goodput p99", tally.percentile(200, 0.99), "s")
    report.show("refusals", seen.rate(503), "/s")
    report.show("refusals p50", tally.percentile(503, 0.5), "s")
    report.at_most("refusals p99", tally.percentile(503, 0.99), REFUSED_WITHIN, "s")
    if size.loop == "closed" and answers:
        report.show("least mean latency of that many clients at that rate", size.connections / answers, "s")
    if tally.unsent:
        report.show("arrivals that found no connection", tally.unsent / seen.lasted, "/s")
    show_faults(report, "flood", tally, {200, 503})
    report.show("generator busy", seen.generator, "processors")
    if seen.generator > GENERATOR_FULL:
        report.say("note: the generator was busy: rates and latencies may be limited by it, not by the server")


def show_faults(report: Report, name: str, tally: Tally, wanted: set[int]) -> None:
    """Print what was neither of the wanted answers."""
    others = {str(status): len(of) for status, of in tally.seconds.items() if status not in wanted}
    faults = {**others, **tally.faults}
    for fault, count in faults.items():
        report.say(f"{name}: {count} times {fault}")
    report.at_most(f"{name}: faults", sum(faults.values()), 0)


async def show_after(
    report: Report, server: MeasuredServer, before: int, descriptors: int, *, judged: bool = True
) -> None:
    """Print what the server has given back once it had the time to."""
    end = time.monotonic() + SETTLES_WITHIN
    while time.monotonic() < end and (
        server.descriptors > descriptors + SPARE_DESCRIPTORS or server.resident > given_back(before)
    ):
        await asyncio.sleep(0.1)
    report.show("memory peak", megabytes(server.peak), "MB")
    after = megabytes(server.resident)
    if judged:
        report.at_most("memory after", after, megabytes(given_back(before)), "MB")
    else:
        report.show("memory after", after, "MB, the stored chats included")
    report.at_most("descriptors after", server.descriptors, descriptors + SPARE_DESCRIPTORS)


async def beside(report: Report, server: MeasuredServer, size: Size, others: str) -> None:
    """Measure chats alone, then beside cheap requests in a closed loop (`8 healthz`)."""
    count, _, what = others.partition(" ")
    asked, wanted = BESIDE[what]
    async with ClosedLoop(server.port, requests(CHATS_BESIDE, size, "client")) as chatting:
        alone = await window(chatting, size.capacity_seconds, warm_up=size.warm_up)
        async with ClosedLoop(server.port, [asked] * int(count)) as crowd:
            together, seen = await asyncio.gather(
                window(chatting, size.capacity_seconds, warm_up=size.warm_up),
                window(crowd, size.capacity_seconds, warm_up=size.warm_up, wanted=wanted),
            )
    report.show("chats alone", alone.rate(200), f"/s of {CHATS_BESIDE} clients")
    report.show(f"chats beside {others}", together.rate(200), "/s")
    report.at_least("share kept", together.rate(200) / alone.rate(200) if alone.rate(200) else 0.0, KEPT_BESIDE)
    report.show("answers to the others", seen.tally.answers / seen.lasted, "/s")
    show_faults(report, "chats", together.tally, {200})
    report.show("generator busy", together.generator, "processors")


async def measure(report: Report, size: Size, others: str | None, ceiling: float) -> None:
    """Start a server and measure it."""
    if ceiling:
        await show_ceiling(report, ceiling)
    with tempfile.TemporaryDirectory() as folder:
        store = [] if size.store is None else ["--store", size.store]
        # A chat that reads its whole thread costs the more, the more often its client has been answered before.
        limits = ["--max-runs", str(size.max_runs), "--api-key", KEY, "--context-events", str(CONTEXT_EVENTS)]
        with MeasuredServer(*store, *limits, folder=Path(folder), pinned=size.pinned) as server:
            if others is None:
                await flood(report, server, size)
            else:
                await beside(report, server, size, others)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop", choices=("closed", "open"), default=Size.loop)
    parser.add_argument(
        "--connections",
        type=int,
        default=Size.connections,
        help="clients of the closed loop; at most so many connections of the open one",
    )
    parser.add_argument("--max-runs", type=int, default=Size.max_runs)
    clients = "clients that measure the capacity; nine tenths of --max-runs by default"
    parser.add_argument("--clients", type=int, help=clients)
    parser.add_argument("--seconds", type=float, default=Size.seconds, help="how long the flood is measured")
    parser.add_argument("--capacity-seconds", type=float, default=Size.capacity_seconds)
    parser.add_argument("--pipeline-seconds", type=float, default=Size.pipeline_seconds)
    parser.add_argument("--store", help="memory: or a URL; an SQLite file by default")
    parser.add_argument("--pin", action="store_true", help="keep the server on one processor, the rest on another")
    parser.add_argument("--beside", metavar='"8 healthz"', help=f"cheap requests beside chats: {', '.join(BESIDE)}")
    given = parser.parse_args(arguments)
    size = Size(
        given.loop,
        given.connections,
        given.max_runs,
        given.clients or max(1, given.max_runs * 9 // 10),
        given.seconds,
        given.capacity_seconds,
        given.pipeline_seconds,
        given.store,
        given.pin,
    )
    allow_descriptors(2 * size.connections + 1000)
    report = Report()
    if size.pinned:
        os.sched_setaffinity(0, {LOAD_CORE})
    uvloop.run(measure(report, size, given.beside, ceiling=2.0))
    return report.verdict()


if __name__ == "__main__":
    sys.exit(main())
