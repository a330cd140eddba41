"""What one caller can make the server keep in memory, and whether it gives it back.

    python -m tests.faults.memory                  # all cases, at their full size
    python -m tests.faults.memory --case streams --share 0.1

Each case has a server of its own. The exit status is 1 if one takes or keeps more than its bound.
"""

import argparse
import asyncio
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.faults.callers import Connection, Crowd
from tests.faults.figures import Report, megabytes
from tests.faults.measured import KEY, MeasuredServer, allow_descriptors, chat, get, wait_until
from tests.faults.slow_clients import NUMBER, RECEIVE_BUFFER, frame, handshake, is_open
from tests.ports import free_port
from tests.raw import ask, metric

GIVEN_BACK = 12e6
"""Bytes that may be missing afterwards in every case. The allocator returns a part of its memory only when all that
lies in it is gone, so a few megabytes are left after a peak. A leak leaves more, and again more the second time."""
SPARE_DESCRIPTORS, SPARE_THREADS = 8, 2
SETTLES_WITHIN = 75.0
"""Seconds until all is given back: the stream of a run that has ended is kept for a minute, for those who resume it."""
QUIET_FOR = 1.0
PATIENCE = 30.0
AT_A_TIME = 500


@dataclass(frozen=True)
class Case:
    """`load` does it with `count` clients or requests, and returns what ends it. `bound` is how many bytes more than
    before each of them may take, beside `fixed` ones."""

    load: Callable[[MeasuredServer, int], Callable[[], None]]
    count: int
    bound: float
    fixed: float = 16e6
    options: tuple[str, ...] = ()


# The cases.


def unread_streams(server: MeasuredServer, count: int) -> Callable[[], None]:
    """Each asks for a stream that ends with 5 MB, and reads nothing."""
    already = ended_runs(server)
    sockets = [open_socket(server.port) for _ in range(count)]
    for number, each in enumerate(sockets):
        each.sendall(chat("give 5000000", f"stream {number}", path="/api/v1/chat/stream"))
    wait_until(lambda: ended_runs(server) >= already + count, PATIENCE)
    time.sleep(QUIET_FOR)
    return closing(sockets)


def unread_websocket(server: MeasuredServer, count: int) -> Callable[[], None]:
    """One WebSocket sends chats that are answered with 100 KB each, and reads nothing."""
    already = ended_runs(server)
    unread = open_socket(server.port)
    unread.sendall(handshake())
    unread.recv(RECEIVE_BUFFER)
    with suppress(OSError):  # the server may close it at any time: that bounds what it keeps
        for number in range(count):
            unread.sendall(frame(NUMBER, b"give 100000").replace(NUMBER, b"%06d" % number))
    wait_until(lambda: ended_runs(server) >= already + count or not is_open(unread), PATIENCE)
    return closing([unread])


def keyless_websockets(server: MeasuredServer, count: int) -> Callable[[], None]:
    """Each opens a WebSocket without a key, and sends nothing: the server waits for one in the first frame."""
    sockets = []
    for _ in range(count):
        sockets.append(open_socket(server.port))
        sockets[-1].sendall(handshake(key=False))
    answered(sockets)
    return closing(sockets)


def invented_contacts(server: MeasuredServer, count: int) -> Callable[[], None]:
    """A caller with a key sends one chat for each of many contacts, all of which are counted for a limit."""
    uvloop.run(_chat_for_each(server.port, count, f"{time.monotonic_ns()}"))
    return lambda: None


def packed_handshakes(server: MeasuredServer, count: int) -> Callable[[], None]:
    """Each sends a WebSocket's handshake and a frame in one packet, waits a moment for an answer, and leaves."""
    for begin in range(0, count, AT_A_TIME):
        sockets = [open_socket(server.port) for _ in range(min(AT_A_TIME, count - begin))]
        for each in sockets:
            each.sendall(handshake() + frame(b"packed", b"hello"))
        time.sleep(QUIET_FOR / 2)
        closing(sockets)()
    return lambda: None


def idle_scrapes(server: MeasuredServer, count: int) -> Callable[[], None]:
    """Each connects to the metrics port, and sends nothing."""
    sockets = [open_socket(metrics_port(server)) for _ in range(count)]
    ask(metrics_port(server), get("/metrics", "connection: close"))  # all before it were accepted
    return closing(sockets)


CASES = {
    # An answer has to be kept once until it is sent, 5 MB, and a half more for what is on its way to the client.
    "streams": Case(unread_streams, 50, 7.5e6),
    # 256 answers may wait on a WebSocket (25 MB); the other chats may not be worked on before those are read.
    "websocket": Case(unread_websocket, 2000, 0.0, fixed=48e6),
    # What an open connection costs with the buffers of its parser: no caller has been admitted yet.
    "keyless": Case(keyless_websockets, 1000, 24e3),
    # A name, a count and a time for each contact, and the thread of those that chatted last.
    "contacts": Case(invented_contacts, 40_000, 400.0, options=("--rate-limit", "60/min")),
    # Nothing is kept of a connection that has ended.
    "handshakes": Case(packed_handshakes, 10_000, 0.0, fixed=12e6),
    # What an open connection costs, and no thread.
    "scrapes": Case(idle_scrapes, 400, 24e3, fixed=8e6),
}


def measure(report: Report, name: str, share: float, settles_within: float = SETTLES_WITHIN) -> None:
    """Start a server and measure a case, twice: what is kept once for all is no leak."""
    case = CASES[name]
    count = max(1, round(case.count * share))
    options = ["--api-key", KEY, "--metrics-host", "127.0.0.1", "--metrics-port", str(free_port()), *case.options]
    with tempfile.TemporaryDirectory() as folder, MeasuredServer(*options, folder=Path(folder)) as server:
        for number in range(20):
            assert ask(server.port, chat("give 10000", f"warm {number}"))[0] == 200
        ask(metrics_port(server), get("/metrics", "connection: close"))
        before, descriptors, threads = server.resident, server.descriptors, server.threads
        report.show(f"{name}: clients or requests", count)
        report.show(f"{name}: memory before", megabytes(before), "MB")
        base = before
        for when in ("", ", the second time"):
            server.reset_peak()
            end = case.load(server, count)
            peak, most_threads = server.peak, server.threads
            end()
            bound, kept = before + case.fixed + case.bound * count, base + GIVEN_BACK
            wait_until(lambda: server.descriptors <= descriptors, settles_within)
            wait_until(lambda: server.resident <= kept, settles_within)  # noqa: B023 - it is called at once
            base = server.resident
            report.at_most(f"{name}: memory peak{when}", megabytes(peak), megabytes(bound), "MB")
            report.at_most(f"{name}: memory after{when}", megabytes(base), megabytes(kept), "MB")
            report.at_most(f"{name}: threads{when}", most_threads, threads + SPARE_THREADS)
        report.at_most(f"{name}: descriptors after", server.descriptors, descriptors + SPARE_DESCRIPTORS)
        report.at_most(f"{name}: chats not answered afterwards", still_refused(server), 0)


def still_refused(server: MeasuredServer) -> int:
    """How many of a few chats are not answered."""
    return sum(ask(server.port, chat("hello", f"after {number}"))[0] != 200 for number in range(5))


def metrics_port(server: MeasuredServer) -> int:
    """The port that the server was given for its metrics."""
    return int(server.command[server.command.index("--metrics-port") + 1])


def scrape(server: MeasuredServer) -> str:
    """The server's metrics."""
    return ask(metrics_port(server), get("/metrics", "connection: close"))[2].decode()


def ended_runs(server: MeasuredServer) -> float:
    """How many runs were answered."""
    return metric(scrape(server), "jims_runs_total", status="completed")


def open_socket(port: int) -> socket.socket:
    """A connection for which the kernel keeps little."""
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    opened.settimeout(PATIENCE)
    opened.connect(("127.0.0.1", port))
    return opened


def answered(sockets: Sequence[socket.socket]) -> None:
    """Wait until each has the first bytes of an answer."""
    for each in sockets:
        each.recv(RECEIVE_BUFFER)


def closing(sockets: Sequence[socket.socket]) -> Callable[[], None]:
    """What hangs up."""

    def close() -> None:
        for each in sockets:
            each.close()

    return close


class _EachContact(Crowd):
    """A few connections that send one chat for each contact."""

    def __init__(self, port: int, count: int, name: str) -> None:
        super().__init__(port, PATIENCE)
        self._messages = (chat("hello", f"{name} {number}") for number in range(count))

    def start(self) -> None:
        for _ in range(32):
            self._next(None)

    def answered(self, connection: Connection, kept: bool) -> None:
        self._next(connection if kept else None)

    def lost(self, connection: Connection) -> None:
        self._next(None)

    def _next(self, connection: Connection | None) -> None:
        message = next(self._messages, None)
        if message is None:
            return
        if connection is None:
            self.connect(message)
        else:
            connection.request = message
            connection.ask()


async def _chat_for_each(port: int, count: int, name: str) -> None:
    async with _EachContact(port, count, name) as crowd:
        while crowd.tally.answers + crowd.tally.faults.total() < count:
            await asyncio.sleep(0.05)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="all by default; may be repeated")
    parser.add_argument("--share", type=float, default=1.0, help="of each case's full size")
    parser.add_argument("--settle", type=float, default=SETTLES_WITHIN, help="seconds to give all back within")
    given = parser.parse_args(arguments)
    allow_descriptors(4000)
    report = Report()
    for name in given.case or CASES:
        measure(report, name, given.share, given.settle)
    return report.verdict()


if __name__ == "__main__":
    sys.exit(main())
