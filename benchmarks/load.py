"""Load by wrk: many connections that ask as fast as they are answered."""

import itertools
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving import ENVIRONMENT, Server
from benchmarks.sheet import LOAD_BUSY, LOAD_COST, P50, P99, PER_PROCESSOR, RATE, SERVER_BUSY

SCRIPTS = Path(__file__).resolve().parent
TIMEOUT = 60
"""Seconds after which an answer counts as missing."""
WARM_UP = 0.3
"""Seconds of load before those that are measured."""
STARTS = 3
"""How often wrk is started if it says nothing: a machine that pauses may interrupt it before it can answer that."""
_rounds = itertools.count(1)


@dataclass(frozen=True)
class Load:
    """What wrk saw: requests that were answered, how long it asked, and the median and 99th percentile of the seconds
    that an answer took; and the processor seconds that it used."""

    requests: int
    seconds: float
    p50: float
    p99: float
    used: float


@dataclass(frozen=True)
class Target:
    """What is asked of a server: by `script` (`get`, or `chat`, which posts messages) at `path`. `status` is what every
    answer has to have."""

    script: str
    path: str
    status: int = 200


CHAT = Target("chat", "/api/v1/chat")


def measure(
    server: Server,
    target: Target,
    *,
    seconds: float,
    connections: int,
    core: int | None,
    tokens: Path | None = None,
    warm_up: float = WARM_UP,
) -> dict[str, float]:
    """Load `server` from the processor `core`, after a warm-up. Returns what there is to say of it, by unit.

    `tokens` is a file of bearer tokens to take in turn; without it they bear the benchmark's key.

    Raises `RuntimeError` if any answer was missing or not as it has to be.
    """
    if warm_up:
        load(server, target, seconds=warm_up, connections=connections, core=core, tokens=tokens)
    used = server.processor_seconds()
    seen = load(server, target, seconds=seconds, connections=connections, core=core, tokens=tokens)
    used = server.processor_seconds() - used
    return figures(seen, used)


def figures(seen: Load, used: float) -> dict[str, float]:
    """What a load says by unit; `used` are the server's processor seconds. Raises `RuntimeError` without an answer."""
    if not seen.requests:
        raise RuntimeError(f"no answer came within {seen.seconds:g} s")
    return {
        RATE: seen.requests / seen.seconds,
        PER_PROCESSOR: seen.requests / used,
        P50: seen.p50 * 1e3,
        P99: seen.p99 * 1e3,
        SERVER_BUSY: 100 * used / seen.seconds,
        LOAD_BUSY: 100 * seen.used / seen.seconds,
        LOAD_COST: 1e6 * seen.used / seen.requests,
    }


def require_linux_and_wrk() -> None:
    """Raises `SystemExit` that says what is missing."""
    if sys.platform != "linux":
        raise SystemExit("Linux is needed: what servers take is read from /proc, and each is kept on a processor.")
    if shutil.which("wrk") is None:
        raise SystemExit("wrk, the load generator, is missing. Debian, Ubuntu: apt-get install wrk")


def load(
    server: Server,
    target: Target,
    *,
    seconds: float,
    connections: int,
    core: int | None = None,
    tokens: Path | None = None,
    check: bool = False,
) -> Load:
    """Load as `measure` does, once and without warming up. `check` has the body of every answer looked at (`chat`).

    Raises `RuntimeError` if any answer was missing, not of the status that it has to have, or wrong.
    """
    pin = ["taskset", "--cpu-list", str(core)] if core is not None else []
    # wrk itself takes whole seconds only, and ends as well when it is interrupted.
    stop = ["timeout", "--signal=INT", f"{seconds}s"]
    script = str(SCRIPTS / f"{target.script}.lua")
    options = ["-t1", f"-c{connections}", "-d1h", f"--timeout={TIMEOUT}s", "-s", script]
    environment = {**ENVIRONMENT, "BENCHMARK_ROUND": str(next(_rounds)), "BENCHMARK_STATUS": str(target.status)}
    if tokens is not None:
        environment["BENCHMARK_TOKENS"] = str(tokens)
    if check:
        environment["BENCHMARK_CHECK"] = "1"
    url = f"http://127.0.0.1:{server.port}{target.path}"
    for _ in range(STARTS):
        used = children_seconds()
        done = subprocess.run([*pin, *stop, "wrk", *options, url], env=environment, capture_output=True, text=True)
        used = children_seconds() - used
        line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
        if line is not None or done.stdout or done.stderr:
            break
    if line is None:
        raise RuntimeError(f"wrk gave no result:\n{done.stdout}{done.stderr}")
    requests, failed, microseconds, p50, p99 = map(int, line.split()[1:])
    if failed:
        raise RuntimeError(f"{failed} of {requests} requests failed:\n{done.stdout}")
    return Load(requests, microseconds / 1e6, p50 / 1e6, p99 / 1e6, used)


def children_seconds() -> float:
    """The processor time of the programs that were run here, and have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime
