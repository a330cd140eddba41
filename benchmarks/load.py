"""Load by wrk: many connections that ask as fast as they are answered."""

import itertools
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving import ENVIRONMENT, Server

SCRIPTS = Path(__file__).resolve().parent
TIMEOUT = 60
"""Seconds after which an answer counts as missing."""
_rounds = itertools.count(1)


@dataclass(frozen=True)
class Rate:
    """What a server did: answers by the second of the clock, and by the second of its own processor time.

    The second figure hardly changes when other programs take the processor away for a while.
    """

    by_clock: float
    by_processor: float


@dataclass(frozen=True)
class Load:
    """What wrk saw: requests that were answered, how long it asked, and the median and 99th percentile of the seconds
    that an answer took."""

    requests: int
    seconds: float
    p50: float
    p99: float


def measure(
    server: Server, script: str, *, seconds: float, connections: int, core: int | None, tokens: Path | None = None
) -> Rate:
    """Load `server` with the requests of `script` (`healthz` or `chat`) from the processor `core`.

    `tokens` is a file of bearer tokens to take in turn; without it they bear the benchmark's key.

    Raises `RuntimeError` if any answer was missing or not a success.
    """
    load(server, script, seconds=max(1.0, seconds / 4), connections=connections, core=core, tokens=tokens)  # warm up
    used = server.processor_seconds()
    seen = load(server, script, seconds=seconds, connections=connections, core=core, tokens=tokens)
    return Rate(seen.requests / seen.seconds, seen.requests / (server.processor_seconds() - used))


def require_wrk() -> None:
    """Raises `SystemExit` that says how to get wrk if it is not there."""
    if shutil.which("wrk") is None:
        raise SystemExit(
            "wrk, the load generator, is missing. Debian, Ubuntu: apt-get install wrk; macOS: brew install wrk"
        )


def load(
    server: Server,
    script: str,
    *,
    seconds: float,
    connections: int,
    core: int | None = None,
    tokens: Path | None = None,
    check: bool = False,
) -> Load:
    """Load as `measure` does, once and without warming up. `check` has the body of every answer looked at (`chat`).

    Raises `RuntimeError` if any answer was missing, not a success, or wrong.
    """
    pin = ["taskset", "--cpu-list", str(core)] if core is not None else []
    options = [
        "-t1",
        f"-c{connections}",
        f"-d{round(seconds)}s",
        f"--timeout={TIMEOUT}s",
        "-s",
        str(SCRIPTS / f"{script}.lua"),
    ]
    environment = {**ENVIRONMENT, "BENCHMARK_ROUND": str(next(_rounds))}
    if tokens is not None:
        environment["BENCHMARK_TOKENS"] = str(tokens)
    if check:
        environment["BENCHMARK_CHECK"] = "1"
    url = f"http://127.0.0.1:{server.port}/healthz"
    done = subprocess.run([*pin, "wrk", *options, url], env=environment, capture_output=True, text=True)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise RuntimeError(f"wrk gave no result:\n{done.stdout}{done.stderr}")
    requests, failed, *microseconds = map(int, line.split()[1:])
    if failed:
        raise RuntimeError(f"{failed} of {requests} requests failed:\n{done.stdout}")
    return Load(requests, *(each / 1e6 for each in microseconds))
