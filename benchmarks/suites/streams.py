"""What open streams cost beside those of an ASGI app written by hand on the same uvicorn: resident memory of each that
waits, and deltas per second, of one stream and of fifty at once. The store is memory.

Memory: a fresh server each time; its resident memory is taken before and while all streams are open. Beside the two
stand our framework alone, and as many runs in the background that nobody watches, to show where memory goes. Deltas:
both servers stand all the time and are asked in turns, so that noise meets both alike.
"""

import re
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from benchmarks.answers import WITH_KEY
from benchmarks.caller import request
from benchmarks.plan import Plan
from benchmarks.serving import Server, jimsapi, under_uvicorn
from benchmarks.sheet import BYTES, DELTAS, LOAD_BUSY, LOAD_COST, SERVER_BUSY, Aim, Sheet

RAW, OURS, FRAMEWORK, UNWATCHED = "raw ASGI", "jimsapi", "our framework alone", "a run that nobody watches"
WAITING = "a stream that waits"
SPEAKING = {1: "deltas of 1 stream", 50: "deltas of 50 streams"}
"""The cases, by how many streams speak at once."""
PER_PROCESSOR = "deltas/processor s"
AIMS = (
    Aim(7, "Memory of an open stream", WAITING, OURS, BYTES, (RAW,), at_most=1.3),
    *(Aim(7, f"Speed: {case}", case, OURS, DELTAS, (RAW,), at_least=0.7) for case in SPEAKING.values()),
)

STREAM, RUNS = "/api/v1/chat/stream", "/api/v1/runs"
WARM_UP = 20
OTHER_OBJECTS = 6
"""Objects of JSON in the events of a stream that are no deltas."""
PATIENCE = 60.0
STREAMS_OF_ADDRESS = 20_000
"""Connections from one address to one port. The system has about 28,000 ports for them."""
BIND_ADDRESS_NO_PORT = 24
"""IP_BIND_ADDRESS_NO_PORT of Linux, ip(7): the system chooses the port when it connects. So it can choose a port of a
connection to another server that has ended."""
BUFFER = bytearray(1 << 18)
GATHER = 0.001
"""Seconds in which deltas gather before they are read. Read one by one, it is the reader that would be measured."""
UUID = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
BEGUN = re.compile(rb'event: started\n.*\n\n|"thread_id"', re.DOTALL)

Start = Callable[..., Server]

STARTS: dict[str, Start] = {
    RAW: partial(under_uvicorn, "benchmarks.apps.raw_stream:app", python="raw"),
    FRAMEWORK: partial(under_uvicorn, "benchmarks.apps.framework_stream:app"),
    OURS: partial(jimsapi, "memory:", "--max-runs", "6000", "--run-timeout", "3600", app="benchmarks.apps.streaming"),
}
MEMORY = {RAW: (RAW, STREAM), FRAMEWORK: (FRAMEWORK, STREAM), OURS: (OURS, STREAM), UNWATCHED: (OURS, RUNS)}
"""What is measured while it waits: whose server, and where it is asked."""


def run(plan: Plan) -> Sheet:
    """Measure. Raises `AssertionError` if the streams are not alike."""
    number = plan.either(5000, 1000)
    sheet = Sheet("streams", f"memory of each of {number:,} open streams, and their speed", AIMS)
    sheet.beside = dict.fromkeys((WAITING, *SPEAKING.values()), RAW)
    allow_files(number + 200)
    with plan.as_load():
        measure_speed(plan, sheet)
        measure_memory(plan, sheet, number)
    return sheet


def measure_speed(plan: Plan, sheet: Sheet) -> None:
    """Deltas per second of both servers, which have to tell the same."""
    deltas = plan.either(150_000, 20_000)
    with STARTS[RAW](core=plan.server_core) as raw, STARTS[OURS](core=plan.server_core) as ours:
        assert told(raw) == told(ours), (told(raw), told(ours))
        print("streams: they are equal", flush=True)
        servers = {RAW: raw, OURS: ours}
        for turn in range(-1, plan.either(9, 2)):  # the first warms up
            for width in plan.shuffled(SPEAKING):
                for name in plan.shuffled(servers):
                    found = speed(servers[name], width, deltas // width)
                    if turn >= 0:
                        sheet.add(SPEAKING[width], name, found)


def measure_memory(plan: Plan, sheet: Sheet, number: int) -> None:
    """What a stream takes while it waits, in a server of its own each time."""
    for turn in range(plan.either(3, 1)):
        for name in plan.shuffled(MEMORY):
            system, path = MEMORY[name]
            sheet.add(WAITING, name, {BYTES: taken(STARTS[system], path, number, plan.server_core)})
        print(f"streams: memory, round {turn + 1}", flush=True)


def taken(start: Start, path: str, streams: int, core: int | None) -> float:
    """Resident bytes that each of so many open streams takes in a server of its own."""
    with start(core=core) as server:
        with opened(server, path, WARM_UP):
            pass
        before = settled_memory(server)
        with opened(server, path, streams):
            return (settled_memory(server) - before) / streams


def settled_memory(server: Server) -> int:
    """Resident memory once it has stopped to change, or after ten seconds."""
    before = -1
    for _ in range(20):
        now = server.resident_bytes()
        if now == before:
            break
        before = now
        time.sleep(0.5)
    return now


@contextmanager
def opened(server: Server, path: str, streams: int) -> Iterator[None]:
    """So many streams that wait, each of a contact of its own; of runs, the connection is closed once they work."""
    with ExitStack() as stack:
        for number in range(streams):
            connection = stack.enter_context(connect(server, 1 + number // STREAMS_OF_ADDRESS))
            connection.sendall(request(path, f"{number} of {streams}", "wait"))
            answer = b""
            while BEGUN.search(answer) is None:
                more = connection.recv(len(BUFFER))
                if not more or b" 20" not in (answer + more)[:16]:
                    raise RuntimeError(f"stream {number} did not begin: {answer + more!r}")
                answer += more
            if path == RUNS:
                connection.close()
        yield


def speed(server: Server, streams: int, pieces: int) -> dict[str, float]:
    """Deltas per second of streams that speak at once. Raises `RuntimeError` if one of them missed any."""
    used, own, began = server.processor_seconds(), time.process_time(), time.perf_counter()
    objects = read_to_end(server, streams, pieces)
    seconds, own = time.perf_counter() - began, time.process_time() - own
    used = server.processor_seconds() - used
    if objects != [pieces + OTHER_OBJECTS] * streams:
        raise RuntimeError(f"streams of {pieces} deltas have {objects} objects of JSON")
    return {
        DELTAS: streams * pieces / seconds,
        PER_PROCESSOR: streams * pieces / used,
        SERVER_BUSY: 100 * used / seconds,
        LOAD_BUSY: 100 * own / seconds,
        LOAD_COST: 1e6 * own / (streams * pieces),
    }


def read_to_end(server: Server, streams: int, pieces: int) -> list[int]:
    """Open streams that say so many pieces. Returns how many objects there were in each, once all have ended."""
    objects = [0] * streams
    speaking: dict[socket.socket, int] = {}
    for number in range(streams):
        connection = connect(server)
        connection.sendall(request(STREAM, f"{number} of {streams}", str(pieces), "connection: close"))
        speaking[connection] = number
    while speaking:
        ready, _, _ = select.select(speaking, [], [], PATIENCE)
        if not ready:
            raise RuntimeError(f"{len(speaking)} of {streams} streams say nothing more")
        for connection in ready:
            size = connection.recv_into(BUFFER)
            objects[speaking[connection]] += BUFFER.count(b"}", 0, size)  # the cheapest to count
            if size == 0:
                del speaking[connection]
                connection.close()
        time.sleep(GATHER)
    return objects


def told(server: Server) -> bytes:
    """A short stream, with the same identifier for every one: what all servers must tell alike."""
    status, kind, body = server.ask("POST", STREAM, b'{"contact_id":"somebody","message":"5"}', WITH_KEY)
    assert (status, kind) == (200, "text/event-stream; charset=utf-8"), (status, kind, body)
    return UUID.sub(b"ID", body)


def connect(server: Server, address: int = 1) -> socket.socket:
    """Connect to a server from an address of this machine: 127.0.0.1, 127.0.0.2 and so on."""
    connection = socket.socket()
    connection.settimeout(PATIENCE)
    connection.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
    connection.bind((f"127.0.0.{address}", 0))
    connection.connect(("127.0.0.1", server.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def allow_files(number: int) -> None:
    """Have so many files open at once, here and in what is started. Raises `SystemExit` if the machine forbids it."""
    if (allowed := raised_files(number)) < number:
        raise SystemExit(f"{number} open files are needed and {allowed} allowed: raise `ulimit -Hn`")


def raised_files(number: int) -> int:
    """Raise the limit of open files to `number`, or as far as the machine allows. Returns the new limit, at most
    `number`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= number:
        return number
    if hard == resource.RLIM_INFINITY or hard >= number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
        return number
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))  # root may do that, unless a container forbids it
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return number
