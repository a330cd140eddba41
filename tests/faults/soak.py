"""A soak: a mixed load at half of the capacity for as long as wanted, and whether the server grows meanwhile.

    python -m tests.faults.soak --minutes 60

Callers chat in new and in old threads, read streams and cut them, talk over WebSockets, hang up, send refused input and
wrong keys, begin and cancel background runs, read and delete threads, probe and scrape. Every contact is deleted after
a while and records are purged, so that what grows is not the database. The exit status is 1 if memory, descriptors,
threads or tasks grow over the second half, or an answer was not what it had to be.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from math import sqrt
from pathlib import Path
from random import Random
from typing import Any

import uvloop
from websockets.asyncio.client import connect

from tests.faults.figures import Report, megabytes
from tests.faults.measured import KEY, MeasuredServer, chat, get
from tests.ports import free_port
from tests.raw import metric

SAMPLE_EVERY = 5.0
CALLERS = 24
CONTACT_CHATS = 40
"""Activities of a caller after which it deletes its contact and takes another one."""
CAPACITY_SECONDS = 5.0
UNPACED, HALF = 1e9, 0.5
PATIENCE = 30.0
NOISE = 2.0
"""How many standard deviations of the samples about their line count as noise: growth within them is not seen."""
MEMORY_GROWTH = 0.01
"""The share of its memory by which the server may grow in ten minutes, beyond the noise. 1 % of 60 MB in ten minutes
would be 86 MB a day, the least that an operator would notice."""
OTHER_GROWTH = 1.0
"""Descriptors, threads, tasks and open runs may not grow at all in the second half, which is less than one."""
TEN_MINUTES = 600.0
KEEP_RUNS = 0.0005
"""Days, which are 43 seconds."""


@dataclass(frozen=True)
class Sample:
    """What the server used at a moment."""

    at: float
    resident: float
    descriptors: float
    threads: float
    tasks: float
    blocks: float
    open_runs: float


@dataclass(frozen=True)
class Line:
    """A line through samples by least squares: its growth each second, how far the samples are from it, their mean."""

    growth: float
    deviation: float
    mean: float


def fit(times: Sequence[float], values: Sequence[float]) -> Line:
    """The line through the values."""
    number = len(times)
    middle, mean = sum(times) / number, sum(values) / number
    spread = sum((at - middle) ** 2 for at in times)
    pairs = list(zip(times, values, strict=True))
    growth = sum((at - middle) * (value - mean) for at, value in pairs) / spread if spread else 0.0
    apart = sum((value - mean - growth * (at - middle)) ** 2 for at, value in pairs)
    return Line(growth, sqrt(apart / number), mean)


class Caller:
    """One who does one thing after another, each at the moment when it is due."""

    def __init__(self, number: int, server: MeasuredServer, metrics_port: int, done: Counter[str]) -> None:
        self.faults: Counter[str] = Counter()
        self._port = server.port
        self._metrics_port = metrics_port
        self._random = Random(number)
        self._contacts = (f"caller {number} contact {each}" for each in count())
        self._contact = next(self._contacts)
        self._left = CONTACT_CHATS
        self._done = done
        self._wire: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        activities: dict[Callable[[], Awaitable[None]], int] = {
            self.chat: 50,
            self.stream: 10,
            self.cut_stream: 5,
            self.talk: 4,
            self.hang_up: 5,
            self.send_faulty: 5,
            self.send_wrong_key: 5,
            self.run_in_background: 5,
            self.read_thread: 5,
            self.probe: 5,
            self.scrape: 1,
        }
        self._activities = list(activities)
        self._weights = list(activities.values())

    async def act(self) -> None:
        """Do one thing."""
        [activity] = self._random.choices(self._activities, self._weights)
        self._done[activity.__name__] += 1
        try:
            async with asyncio.timeout(PATIENCE):
                await activity()
                self._left -= 1
                if not self._left:
                    await self._change_contact()
        except (OSError, EOFError, TimeoutError, AssertionError) as error:
            self.faults[f"{activity.__name__}: {type(error).__name__} {error}"] += 1
            self._hang_up()

    async def leave(self) -> None:
        """Delete what is the caller's, and hang up."""
        await self._change_contact()
        self._hang_up()

    async def chat(self) -> None:
        """Chat; now and then for another contact, which has no thread yet."""
        if self._random.random() < 0.1:
            await self._change_contact()
        answer = await self._ask(chat("hello there", self._contact), 200)
        assert json.loads(answer)["assistant_messages"] == ["hello there"], answer

    async def stream(self) -> None:
        """Read a stream to its end."""
        reader, writer = await self._send(self._streamed())
        assert b"event: result" in await reader.read(), "the stream had no result"
        writer.close()

    async def cut_stream(self) -> None:
        """Hang up within a stream."""
        reader, writer = await self._send(self._streamed())
        await reader.read(self._random.randint(1, 3000))
        writer.transport.abort()

    async def talk(self) -> None:
        """Chat over a WebSocket, and leave it with or without a word."""
        headers = {"authorization": f"Bearer {KEY}"}
        url = f"ws://127.0.0.1:{self._port}/api/v1/chat/ws"
        async with connect(url, additional_headers=headers, proxy=None) as ws:
            for _ in range(3):
                await ws.send(json.dumps({"type": "chat", "contact_id": self._contact, "message": "hello"}))
            if self._random.random() < 0.3:
                ws.transport.abort()
                return
            results = 0
            while results < 3:
                frame = json.loads(await ws.recv())
                assert frame["type"] != "error", frame
                results += frame["type"] == "result"

    async def hang_up(self) -> None:
        """Hang up while a run goes on, or within a body."""
        sent = chat("wait 0.02", self._contact, "connection: close")
        _, writer = await self._send(sent[: len(sent) - self._random.choice((0, 0, 5))])
        await asyncio.sleep(self._random.uniform(0, 0.03))
        writer.transport.abort()

    async def send_faulty(self) -> None:
        """Send what is refused: a body that is no JSON, an unknown thread, an unknown path, a head that is no HTTP."""
        unknown = chat("hello", self._contact, thread="00000000-0000-4000-8000-000000000000")
        sent, status = self._random.choice(
            [
                (chat('"', self._contact), 422),
                (unknown, 404),
                (get("/no/such/path"), 404),
                (b"GET /healthz HTTP/1.1\r\nhost: a\r\nbad field\r\n\r\n", 400),
            ]
        )
        await self._ask(sent, status)

    async def send_wrong_key(self) -> None:
        """Be refused for the key."""
        await self._ask(chat("hello", self._contact, key=f"wrong {self._random.random()}"), 401)

    async def run_in_background(self) -> None:
        """Begin a run, and cancel it or look at it until it has ended."""
        run = json.loads(await self._ask(chat("wait 0.05", self._contact, path="/api/v1/runs"), 202))["run_id"]
        if self._random.random() < 0.3:
            cancel = f"POST /api/v1/runs/{run}/cancel HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {KEY}\r\n"
            await self._ask(f"{cancel}content-length: 0\r\n\r\n".encode(), 202, 409)
        while json.loads(await self._ask(get(f"/api/v1/runs/{run}"), 200))["status"] in ("queued", "running"):
            await asyncio.sleep(0.05)

    async def read_thread(self) -> None:
        """Read a thread, then delete it."""
        thread = json.loads(await self._ask(chat("hello", self._contact), 200))["thread_id"]
        await self._ask(get(f"/api/v1/threads/{thread}/events"), 200)
        if self._random.random() < 0.3:
            await self._ask(_delete(f"/api/v1/threads/{thread}"), 204)

    async def probe(self) -> None:
        """Be a probe, over a connection of its own."""
        self._hang_up()
        await self._ask(get(self._random.choice(("/healthz", "/readyz")), "connection: close"), 200)

    async def scrape(self) -> None:
        """Be Prometheus."""
        await scrape(self._metrics_port)

    async def _change_contact(self) -> None:
        await self._ask(_delete(f"/api/v1/contacts?contact_id={self._contact.replace(' ', '%20')}"), 204)
        self._contact = next(self._contacts)
        self._left = CONTACT_CHATS

    def _streamed(self) -> bytes:
        return chat("pieces 20 200", self._contact, "connection: close", path="/api/v1/chat/stream")

    async def _send(self, sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(sent)
        return reader, writer

    async def _ask(self, sent: bytes, *statuses: int) -> bytes:
        """Send a request over the caller's own connection. Returns the answer's body."""
        if self._wire is None or self._wire[0].at_eof():
            self._hang_up()
            self._wire = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._wire
        writer.write(sent)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        _, found, rest = head.partition(b"content-length: ")
        body = await reader.readexactly(int(rest.partition(b"\r")[0]) if found else 0)
        if b"connection: close" in head:
            self._hang_up()
        assert int(head[9:12]) in statuses, f"{head[9:12].decode()} {body[:200].decode()}"
        return body

    def _hang_up(self) -> None:
        if self._wire is not None:
            self._wire[1].close()
            self._wire = None


def _delete(path: str) -> bytes:
    return get(path).replace(b"GET", b"DELETE", 1)


async def scrape(port: int) -> str:
    """The server's metrics."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(get("/metrics", "connection: close"))
    text = (await reader.read()).decode()
    writer.close()
    return text


async def sample(server: MeasuredServer, metrics_port: int) -> Sample:
    """Look at the server."""
    text = await scrape(metrics_port)
    return Sample(
        time.monotonic(),
        server.resident,
        server.descriptors,
        server.threads,
        metric(text, "loaded_tasks"),
        metric(text, "loaded_blocks"),
        metric(text, "jims_runs_open"),
    )


async def load(callers: Sequence[Caller], rate: float, until: float) -> None:
    """Have all callers together do so many things a second. One that is late goes on at once and catches up nothing."""
    every = len(callers) / rate

    async def act(caller: Caller, begin: float) -> None:
        due = begin
        while time.monotonic() < until:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await caller.act()
            due = max(due + every, time.monotonic())
        await caller.leave()

    now = time.monotonic()
    await asyncio.gather(*(act(caller, now + every * number / len(callers)) for number, caller in enumerate(callers)))


async def soak(
    report: Report, server: MeasuredServer, metrics_port: int, *, seconds: float, rate: float | None
) -> None:
    """Load a server, and judge what it used."""
    done: Counter[str] = Counter()
    callers = [Caller(number, server, metrics_port, done) for number in range(CALLERS)]
    if rate is None:
        began = time.monotonic()
        await load(callers, UNPACED, began + CAPACITY_SECONDS)
        capacity = done.total() / (time.monotonic() - began)
        report.show("capacity", capacity, "activities/s")
        rate = HALF * capacity
        done.clear()
    report.show("wanted", rate, "activities/s")
    began, used = time.monotonic(), server.processor_seconds
    samples: list[Sample] = []
    loading = asyncio.create_task(load(callers, rate, began + seconds))
    every = min(SAMPLE_EVERY, seconds / 20)
    while not loading.done():
        samples.append(await sample(server, metrics_port))
        await asyncio.wait([loading], timeout=every)
    await loading
    lasted = time.monotonic() - began
    report.show("done", done.total() / lasted, "activities/s")
    report.show("server busy", (server.processor_seconds - used) / lasted, "processors")
    report.say(", ".join(f"{name} {number}" for name, number in sorted(done.items())))
    faults: Counter[str] = sum((caller.faults for caller in callers), Counter())
    for fault, number in faults.most_common(20):
        report.say(f"{number} times {fault}")
    report.at_most("faults", faults.total(), 0)
    show_samples(report, samples, began)
    judge(report, [each for each in samples if each.at >= began + seconds / 2])
    await asyncio.sleep(1.0)
    report.at_most("open runs at the end", (await sample(server, metrics_port)).open_runs, 0)


def show_samples(report: Report, samples: Sequence[Sample], began: float) -> None:
    """Print a table of about twenty of the samples."""
    report.say("minute  memory MB  descriptors  threads  tasks   blocks  open runs")
    for each in samples[:: max(1, len(samples) // 20)]:
        report.say(
            f"{(each.at - began) / 60:6.1f} {megabytes(each.resident):10.1f} {each.descriptors:12.0f} "
            f"{each.threads:8.0f} {each.tasks:6.0f} {each.blocks:8.0f} {each.open_runs:10.0f}"
        )


def judge(report: Report, samples: Sequence[Sample]) -> None:
    """Print how each grew over these samples, and what is too much."""
    times = [each.at for each in samples]
    lasted = times[-1] - times[0]

    def grown(name: str, values: Callable[[Sample], float]) -> tuple[float, Line]:
        line = fit(times, [values(each) for each in samples])
        report.show(f"{name}: mean of the second half", line.mean)
        return line.growth * lasted, line

    growth, line = grown("memory", lambda each: megabytes(each.resident))
    bound = MEMORY_GROWTH * line.mean * lasted / TEN_MINUTES + NOISE * line.deviation
    report.at_most("memory: growth in the second half", growth, bound, "MB")
    counted: dict[str, Callable[[Sample], float]] = {
        "descriptors": lambda each: each.descriptors,
        "threads": lambda each: each.threads,
        "tasks": lambda each: each.tasks,
        "open runs": lambda each: each.open_runs,
    }
    for name, values in counted.items():
        growth, line = grown(name, values)
        report.at_most(f"{name}: growth in the second half", growth, OTHER_GROWTH + NOISE * line.deviation)
    growth, line = grown("allocated blocks", lambda each: each.blocks)
    bound = MEMORY_GROWTH * line.mean * lasted / TEN_MINUTES + NOISE * line.deviation
    report.at_most("allocated blocks: growth in the second half", growth, bound)


def measure(report: Report, *, minutes: float, rate: float | None, store: str | None) -> None:
    """Start a server and soak it."""
    port = free_port()
    options: list[Any] = ["--api-key", KEY, "--metrics-host", "127.0.0.1", "--metrics-port", port]
    options += ["--keep-runs", KEEP_RUNS, *([] if store is None else ["--store", store])]
    with tempfile.TemporaryDirectory() as folder:
        with MeasuredServer(*map(str, options), folder=Path(folder), app="soaked") as server:
            uvloop.run(soak(report, server, port, seconds=60 * minutes, rate=rate))
            tracebacks = server.stderr.count("Traceback")
        report.at_most("tracebacks in the log", tracebacks, 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, help="activities a second; half of the measured capacity by default")
    parser.add_argument("--store", help="memory: or a URL; an SQLite file by default")
    given = parser.parse_args(arguments)
    report = Report()
    measure(report, minutes=given.minutes, rate=given.rate, store=given.store)
    return report.verdict()


if __name__ == "__main__":
    sys.exit(main())
