"""A thousand slow clients of one kind, and a healthy one beside them.

    python -m tests.faults.slow --kind head --count 1000
    python -m tests.faults.slow --kind idle --count 1000 --descriptors 64

The healthy client chats at a steady low rate before, while and after the slow ones are there. The exit status is 1 if
it is slowed down more than is promised, or if the server keeps anything. The kinds:

    head              sends a head at a byte a second
    body              sends a body at a byte a second
    reader            asks for a large answer and reads nothing of it
    reader-byte       reads a byte a second of it
    idle              connects, and sends nothing
    websocket         opens a WebSocket, then sends nothing and answers no ping
    websocket-reader  sends a chat over a WebSocket each 20 seconds, and reads nothing
    tls               stops in the middle of a TLS handshake
    linger            is refused with 401, and goes on to send a body at a byte each 10 seconds
    metrics           connects to the metrics port, and sends nothing
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import trustme

from tests.faults.figures import Report, given_back, megabytes, percentile
from tests.faults.measured import KEY, LOAD_CORE, MeasuredServer, allow_descriptors, chat, get, wait_until
from tests.faults.prober import Probe, Prober, Seen, between, seconds, unanswered
from tests.faults.slow_clients import KINDS, Kind, SlowClient
from tests.ports import free_port
from tests.raw import ask

SLOWED_DOWN = 2.0
"""How many times as long the healthy client's 99th percentile may be while slow clients are there."""
NOT_SLOW = 0.01
"""Seconds that count as fast whatever was before: a percentile of 2 ms doubles by one turn of the scheduler."""
CLOSED_WITHIN = 90.0
"""Seconds within which the server has to close a slow client. Its longest deadline is that of an answer which is not
read (60 s); the rest is for a thousand of them."""
SPARE_DESCRIPTORS = 8
SPARE_THREADS = 8
"""How many threads more than before there may be: a store starts readers when it is first busy."""
ANSWER_SIZE = 4_000_000
"""Characters of a large answer. The kernel takes 2.8 MB for a client that reads nothing; the server keeps the rest."""
TURN = 0.02
OPENED_FOR = 5.0
"""Seconds after the last one has connected until which what the server does counts as opening them: a thousand large
answers are work, read or not."""
LOOK_EVERY = 0.5


@dataclass(frozen=True)
class Size:
    """How much is done. `within` is how long the slow clients stay at most, `seconds` how long the healthy one chats
    before and after, beside its warm-up, which makes its thread and its connections. The server has `settles_within`
    seconds to give back what it used. `prompt` clients read all that comes, and are to be compared with slow ones."""

    kind: str = "head"
    count: int = 1000
    within: float = CLOSED_WITHIN
    seconds: float = 10.0
    rate: float = 50.0
    descriptors: int | None = None
    pinned: bool = False
    warm_up: float = 1.0
    settles_within: float = 15.0
    prompt: bool = False


class Slow:
    """The slow clients, while they are there, and the most that the server used meanwhile."""

    def __init__(self, server: MeasuredServer, port: int, kind: Kind) -> None:
        self.clients: list[SlowClient] = []
        self.not_connected = 0
        self.descriptors_before = self.descriptors = server.descriptors
        self.threads = server.threads
        self.opened_at = 0.0
        """When the last one had connected."""
        self._server = server
        self._port = port
        self._kind = kind
        self._look_at = 0.0

    def hold(self, count: int, within: float) -> None:
        """Open so many, and keep all slow until the server has closed each, at most so many seconds after the last."""
        began = self.opened_at = time.monotonic()
        opened = 0
        while opened < count or time.monotonic() < self.opened_at + within:
            begun = time.monotonic()
            due = min(count, 1 + int((begun - began) * self._kind.opened_each_second))
            for _ in range(due - opened):
                self._open()
                self.opened_at = time.monotonic()
            opened = due
            for client in self.clients:
                client.step()
            if begun > self._look_at:
                self._look_at = begun + LOOK_EVERY
                self._look()
                if opened == count and begun > self.opened_at + OPENED_FOR and not self.left_open:
                    return
            time.sleep(max(0.0, begun + TURN - time.monotonic()))

    @property
    def left_open(self) -> int:
        """How many the server has not closed.

        A client that does not read cannot see it, as long as data comes before the end: so the server is looked at too.
        """
        held = self._server.descriptors - self.descriptors_before - SPARE_DESCRIPTORS
        return max(0, min(held, sum(1 for client in self.clients if client.closed_after is None)))

    @property
    def closed_after(self) -> list[float]:
        """How many seconds each was open that the server has closed."""
        return [client.closed_after for client in self.clients if client.closed_after is not None]

    def close(self) -> None:
        """Hang up."""
        for client in self.clients:
            client.close()

    def _open(self) -> None:
        try:
            self.clients.append(SlowClient(self._port, self._kind, len(self.clients)))
        except OSError:
            self.not_connected += 1

    def _look(self) -> None:
        for client in self.clients:
            client.look()
        self.descriptors = max(self.descriptors, self._server.descriptors)
        self.threads = max(self.threads, self._server.threads)


def measure(report: Report, size: Size) -> None:
    """Start a server and measure it."""
    kind = replace(KINDS[size.kind], prompt=size.prompt)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        metrics_port = free_port() if kind.on_metrics_port else 0
        options = ["--api-key", KEY, "--metrics-host", "127.0.0.1", "--metrics-port", str(metrics_port)]
        options += certificate(folder) if kind.tls else []
        server = stack.enter_context(
            MeasuredServer(*options, folder=folder, descriptors=size.descriptors, pinned=size.pinned)
        )
        if b"{thread}" in kind.first:
            kind = replace(kind, first=kind.first.replace(b"{thread}", large_thread(server.port)))
        # With few descriptors what matters is whether a new connection is served.
        healthy = Probe("healthy", chat("hello", "healthy").decode(), 1 / size.rate, fresh=size.descriptors is not None)
        scrape = Probe("scrape", get("/metrics", "connection: close").decode(), 1.0, port=metrics_port)
        probes = [healthy, scrape] if metrics_port else [healthy]
        with Prober(server.port, *probes, tls=kind.tls) as prober:
            time.sleep(size.warm_up + size.seconds)
            before, descriptors, threads = server.resident, server.descriptors, server.threads
            server.reset_peak()
            slow = Slow(server, metrics_port or server.port, kind)
            opening = time.monotonic()
            slow.hold(size.count, size.within)
            closed, left_open, peak = time.monotonic(), slow.left_open, server.peak
            slow.close()
            wait_until(lambda: server.descriptors <= descriptors + SPARE_DESCRIPTORS, size.settles_within)
            settled = time.monotonic()
            time.sleep(size.seconds)
        # The healthy client has left too: while it had to wait it opened further connections.
        wait_until(lambda: server.descriptors <= descriptors + SPARE_DESCRIPTORS, size.settles_within)
        wait_until(lambda: server.resident <= given_back(before), size.settles_within)
        after, descriptors_after, threads_after = server.resident, server.descriptors, server.threads
        show_slow(report, slow, left_open, size)
        for name, seen in prober.seen.items():
            show_healthy(report, name, seen, (seen[0].at + size.warm_up, opening, slow.opened_at, closed, settled))
        report.show("memory before", megabytes(before), "MB")
        report.show("memory peak", megabytes(peak), "MB")
        report.at_most("memory after", megabytes(after), megabytes(given_back(before)), "MB")
        report.show("descriptors before", descriptors)
        report.show("descriptors peak", slow.descriptors)
        report.at_most("descriptors after", descriptors_after, descriptors + SPARE_DESCRIPTORS)
        report.show("threads before", threads)
        report.at_most("threads peak", slow.threads, threads + SPARE_THREADS)
        report.at_most("threads after", threads_after, threads + SPARE_THREADS)


def show_slow(report: Report, slow: Slow, left_open: int, size: Size) -> None:
    """Print what became of the slow clients."""
    report.show("slow clients", len(slow.clients))
    report.show("slow clients that could not connect", slow.not_connected)
    report.show("closed by the server after, median", percentile(slow.closed_after, 0.5), "s")
    report.show("closed by the server after, longest", percentile(slow.closed_after, 1.0), "s")
    name = f"still open after {size.within:g} s"
    if size.descriptors is None and size.within >= CLOSED_WITHIN and not size.prompt:
        report.at_most(name, left_open, 0)
    else:  # with few descriptors they take turns, a short trial ends before the deadlines, and prompt ones stay
        report.show(name, left_open)


def show_healthy(report: Report, name: str, seen: list[Seen], times: Sequence[float]) -> None:
    """Print what the healthy client saw; `times` are when it counts from, when the slow ones came, when the last of
    them had connected, when they were gone, and when the server had closed them all."""
    begin, opening, opened, closed, settled = times
    busy_until = min(opened + OPENED_FOR, closed)
    phases = {
        "before": between(seen, begin, opening),
        "while they come": between(seen, opening, busy_until),
        "during": between(seen, busy_until, closed),
        "after": between(seen, settled, float("inf")),
    }
    fast = max(SLOWED_DOWN * 1e3 * seconds(phases["before"], 0.99), 1e3 * NOT_SLOW)
    for phase, part in phases.items():
        report.show(f"{name} {phase}: requests", len(part))
        for fault in {f"{each.status} {each.fault}" for each in unanswered(part)}:
            report.say(f"{name} {phase}: not 200 but {fault}")
        report.at_most(f"{name} {phase}: not answered 200", len(unanswered(part)), 0)
        report.show(f"{name} {phase}: p50", 1e3 * seconds(part, 0.5), "ms")
        if phase == "during":
            report.at_most(f"{name} {phase}: p99", 1e3 * seconds(part, 0.99), fast, "ms")
        else:
            report.show(f"{name} {phase}: p99", 1e3 * seconds(part, 0.99), "ms")


def large_thread(port: int) -> bytes:
    """The identifier of a new thread with a large message."""
    status, _, body = ask(port, chat(f"give {ANSWER_SIZE}", "large"))
    assert status == 200, body
    return str(json.loads(body)["thread_id"]).encode()


def certificate(folder: Path) -> list[str]:
    """The options of TLS, with a certificate of our own."""
    path = folder / "server.pem"
    trustme.CA().issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    return ["--ssl-certfile", str(path)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--count", type=int, default=Size.count)
    parser.add_argument("--within", type=float, default=Size.within, help="how long the slow ones stay at most")
    parser.add_argument("--seconds", type=float, default=Size.seconds, help="chats of the healthy one before and after")
    parser.add_argument("--rate", type=float, default=Size.rate, help="chats a second of the healthy one")
    parser.add_argument("--descriptors", type=int, help="how many the server may open")
    parser.add_argument("--pin", action="store_true", help="keep the server on one processor, the rest on another")
    parser.add_argument("--prompt", action="store_true", help="let them read all that comes: what their requests cost")
    given = parser.parse_args(arguments)
    size = Size(
        given.kind,
        given.count,
        given.within,
        given.seconds,
        given.rate,
        given.descriptors,
        given.pin,
        prompt=given.prompt,
    )
    if size.pinned:
        os.sched_setaffinity(0, {LOAD_CORE})
    allow_descriptors(2 * size.count + 1000)
    report = Report()
    measure(report, size)
    return report.verdict()


if __name__ == "__main__":
    sys.exit(main())
