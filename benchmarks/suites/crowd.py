"""What one process carries: 50,000 streams that wait, and a run with 1,000 deltas a second that 100 readers follow.

If the machine allows fewer open files, there are fewer streams: the case says how many.

Memory: a fresh server of each system, whose resident memory is taken before and while all streams are open. Readers:
each delta holds the time at which it was due, and the readers look at the clock when they read it: the lag has all that
it waited for, in the pipeline, too. One reader shows what the run itself costs, 100 what a reader costs; 100 beside all
streams that wait show what these cost, which get a comment every 15 seconds. One process is all readers, and has a
processor of its own.
"""

import math
import re
import selectors
import socket
import time
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import cast

from benchmarks.answers import WITH_KEY
from benchmarks.plan import Plan
from benchmarks.serving import Server, jimsapi, under_uvicorn
from benchmarks.sheet import BYTES, DELTAS, LOAD_BUSY, LOAD_COST, SERVER_BUSY, Sheet
from benchmarks.suites.streams import (
    PATIENCE,
    RUNS,
    STREAM,
    WARM_UP,
    Start,
    connect,
    opened,
    raised_files,
    settled_memory,
)

RAW, OURS = "raw ASGI", "jimsapi"
STREAMS, READERS, RATE = 50_000, 100, 1_000
OTHER_FILES = 500
"""Files that a process has open beside the connections of streams: those of readers among them."""
LAG50, LAG99, COST = "lag p50 ms", "lag p99 ms", "server us/delta and reader"
PAUSE = 2
"""Seconds in which all readers connect, before the run says anything."""
SAID = re.compile(rb'"content":"(\d+) "')
"""A delta, and not the whole message at the end, which says many times."""
END = b"event: result\n"

STARTS: dict[str, Start] = {
    RAW: partial(under_uvicorn, "benchmarks.apps.raw_stream:app", python="raw"),
    OURS: partial(jimsapi, "memory:", "--max-runs", "60000", "--run-timeout", "3600", app="benchmarks.apps.streaming"),
}


def waiting(streams: int) -> str:
    """What the case of so many streams that wait is called."""
    return f"{streams:,} streams that wait"


def reading(readers: int, streams: int = 0) -> str:
    """What the case of so many readers of a run is called."""
    case = f"{RATE:,} deltas a second, {readers} reader{'s' if readers > 1 else ''}"
    return f"{case} beside {waiting(streams)}" if streams else case


def run(plan: Plan) -> Sheet:
    """Measure. Raises `RuntimeError` if a reader misses a delta."""
    number, seconds = plan.either(STREAMS, STREAMS // 10), plan.either(8, 2)
    number = min(number, raised_files(number + OTHER_FILES) - OTHER_FILES)
    if number < 1:
        raise SystemExit(f"more than {OTHER_FILES} open files are needed: raise `ulimit -Hn`")
    sheet = Sheet("crowd", "what one process carries; memory store", beside={waiting(number): RAW})
    with plan.as_load():
        for turn in range(plan.either(3, 1)):
            for name in plan.shuffled(STARTS):
                with STARTS[name](core=plan.server_core) as server:
                    with opened(server, STREAM, WARM_UP):
                        pass
                    before = settled_memory(server)
                    with opened(server, STREAM, number):
                        each = (settled_memory(server) - before) / number
                        sheet.add(waiting(number), name, {BYTES: each})
                        if name == OURS:
                            sheet.add(reading(READERS, number), OURS, followed(server, READERS, seconds))
            with STARTS[OURS](core=plan.server_core) as server:
                for readers in plan.shuffled((1, READERS)):
                    sheet.add(reading(readers), OURS, followed(server, readers, seconds))
            print(f"crowd: round {turn + 1}", flush=True)
    return sheet


def followed(server: Server, readers: int, seconds: int) -> dict[str, float]:
    """Have readers follow a run that speaks for so many seconds. Returns its figures by unit.

    Raises `RuntimeError` if one of them misses a delta.
    """
    speaks_at = time.monotonic() + PAUSE
    run_id = begun(server, f"{RATE} {seconds} {PAUSE}")
    follow = f"GET {RUNS}/{run_id}/stream HTTP/1.1\r\nhost: test\r\nauthorization: {WITH_KEY['authorization']}\r\n\r\n"
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(server)) for _ in range(readers)]
        for connection in connections:
            connection.sendall(follow.encode())
        time.sleep(max(0.0, speaks_at - time.monotonic() - 0.01))
        used, own, began = server.processor_seconds(), time.process_time(), time.perf_counter()
        lags, counts = read_all(connections)
        passed, own = time.perf_counter() - began, time.process_time() - own
        used = server.processor_seconds() - used
    if set(counts) != {RATE * seconds}:
        raise RuntimeError(f"readers of {RATE * seconds} deltas have {min(counts)} to {max(counts)}")
    lags.sort()
    return {
        DELTAS: RATE * seconds / passed,
        LAG50: median(lags),
        LAG99: lags[math.ceil(0.99 * len(lags)) - 1],
        COST: 1e6 * used / sum(counts),
        SERVER_BUSY: 100 * used / passed,
        LOAD_BUSY: 100 * own / passed,
        LOAD_COST: 1e6 * own / sum(counts),
    }


def begun(server: Server, message: str) -> str:
    """Begin a run in the background, and return its identifier."""
    body = f'{{"contact_id":"somebody","message":"{message}"}}'.encode()
    status, _, answer = server.ask("POST", RUNS, body, WITH_KEY)
    found = re.search(rb'"run_id":"([^"]+)"', answer)
    if status != 202 or found is None:
        raise RuntimeError(f"the run was answered {status}: {answer.decode()}")
    return found[1].decode()


def read_all(connections: list[socket.socket]) -> tuple[list[float], list[int]]:
    """Read streams to their ends. Returns the milliseconds after which each delta was read, and how many each read."""
    lags: list[float] = []
    counts = dict.fromkeys(connections, 0)
    rests = dict.fromkeys(connections, b"")
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(PATIENCE)
            if not ready:
                raise RuntimeError(f"{len(selector.get_map())} of {len(connections)} readers read nothing more")
            for key, _ in ready:
                connection = cast(socket.socket, key.fileobj)
                more = connection.recv(1 << 18)
                now = time.monotonic_ns()
                whole, _, rests[connection] = (rests[connection] + more).rpartition(b"\n\n")
                due = SAID.findall(whole)
                lags += [(now - int(each)) / 1e6 for each in due]
                counts[connection] += len(due)
                if not more or END in whole:
                    selector.unregister(connection)
    return lags, list(counts.values())
