"""What our framework and service cost: requests per second beside a hand-written ASGI app and FastAPI.

Every round starts each server afresh, in another order, and loads it: machine, noise and the memory store's growth are
the same for all. Ratios are taken within a round; their median and spread over the rounds are what to look at.
"""

import argparse
import json
import os
from collections.abc import Callable
from functools import partial
from statistics import median
from uuid import UUID

from benchmarks.load import Rate, measure, require_wrk
from benchmarks.serving import KEY, Server, jimsapi, under_uvicorn

Start = Callable[..., Server]

SERVERS: dict[str, Start] = {
    "raw ASGI": partial(under_uvicorn, "benchmarks.apps.raw:app"),
    "jimsapi": partial(jimsapi, "memory:"),
    "FastAPI": partial(under_uvicorn, "benchmarks.apps.fast:app"),
}
LOADS = ("healthz", "chat")
AIMS = (("healthz", "raw ASGI", 0.90), ("chat", "raw ASGI", 0.50), ("chat", "FastAPI", 3.0))
"""Of each load: ours must reach so many times the other's rate."""

JSON = {"content-type": "application/json"}
WITH_KEY = {**JSON, "authorization": f"Bearer {KEY}"}
QUESTION = json.dumps({"contact_id": "somebody", "message": "Hello?"}).encode()


def main() -> None:
    """Run the command."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.floor", description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=4, help="how long each load lasts")
    options.add_argument("--connections", type=int, default=32)
    given = options.parse_args()
    require_wrk()
    server_core, load_core = two_cores()
    for name, start in SERVERS.items():
        with start() as server:
            check_answers(name, server)
    print(
        f"answers are equal; {given.rounds} rounds of {given.seconds:g} s, {given.connections} connections; "
        f"server on core {server_core}, load on core {load_core}; each chat is the first of a new contact"
    )
    rounds = []
    for number in range(given.rounds):
        rates = {}
        for name in rotated(list(SERVERS), number):
            for load in LOADS:
                with SERVERS[name](core=server_core) as server:
                    rates[load, name] = measure(
                        server, load, seconds=given.seconds, connections=given.connections, core=load_core
                    )
        rounds.append(rates)
        print(
            f"round {number + 1}: "
            + ", ".join(f"{load} {name} {rates[load, name].by_clock:,.0f}/s" for load in LOADS for name in SERVERS),
            flush=True,
        )
    report(rounds)


def check_answers(name: str, server: Server) -> None:
    """Hold a server to the answers that all must give. Raises `AssertionError`."""
    healthy = server.ask("GET", "/healthz")
    assert healthy == (200, "application/json", b'{"status":"ok"}'), (name, healthy)
    status, kind, body = server.ask("POST", "/api/v1/chat", QUESTION, WITH_KEY)
    answer = json.loads(body)
    UUID(answer.pop("thread_id"))
    event = {"event_type": "comm.assistant_message", "event_data": {"role": "assistant", "content": "Hello?"}}
    expected = {"created_new_thread": True, "assistant_messages": ["Hello?"], "events": [event]}
    assert (status, kind, answer) == (200, "application/json", expected), (name, status, kind, answer)
    for headers in (JSON, {**JSON, "authorization": "Bearer wrong"}):
        refused = server.ask("POST", "/api/v1/chat", QUESTION, headers)
        assert refused[0] == 401, (name, refused)
    for faulty in (b"{", b"[]", b'{"contact_id":"somebody"}', QUESTION[:-1] + b',"thread_id":"none"}'):
        refused = server.ask("POST", "/api/v1/chat", faulty, WITH_KEY)
        assert refused[0] == 422, (name, faulty, refused)


def report(rounds: list[dict[tuple[str, str], Rate]]) -> None:
    """Print each server's rates, then what ours is of the others'."""
    print("\n" + f"{'':22}{'requests/s':>12}{'per processor second':>24}   (medians)")
    for load in LOADS:
        for name in SERVERS:
            rates = [one[load, name] for one in rounds]
            by_clock, by_processor = median(r.by_clock for r in rates), median(r.by_processor for r in rates)
            print(f"{load + ' ' + name:22}{by_clock:12,.0f}{by_processor:24,.0f}")
    print("\nours to the others', median of the rounds' ratios (lowest to highest)")
    for load, other, aim in AIMS:
        pairs = [(one[load, "jimsapi"], one[load, other]) for one in rounds]
        clock = spread([ours.by_clock / theirs.by_clock for ours, theirs in pairs])
        processor = spread([ours.by_processor / theirs.by_processor for ours, theirs in pairs])
        print(f"{load:8}/ {other:10}{clock}; by processor time {processor}; aim {aim:.2f}")


def spread(ratios: list[float]) -> str:
    """Median, lowest and highest of some ratios."""
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def two_cores() -> tuple[int | None, int | None]:
    """A processor for the server and one for the load; None where there are not two to choose from."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else (None, None)


def rotated(names: list[str], by: int) -> list[str]:
    """The same names, another one first each time."""
    by %= len(names)
    return names[by:] + names[:by]


if __name__ == "__main__":
    main()
