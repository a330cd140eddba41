"""A rolling restart of instances behind proxies, under load: how many requests fail?

python -m tests.deploy.rolling --requests 2000

Proxies and instances have the configurations of `deploy/`. While clients send chats, streams and GETs through
each proxy, one instance after the other is stopped, started again, and waited for. With `--workers` each instance has
several processes on one PostgreSQL. Then no instance is stopped: SIGHUP has it replace its processes.
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from types import MappingProxyType

import httpx

from benchmarks.environments import of_tests
from tests.deploy.proxies import PROXIES, Proxy
from tests.deploy.units import Instance

CLIENTS = 12
"""Clients of each proxy; each sends one request after the other over connections that it keeps."""
PAUSE = 0.01
SETTLE = 3.0
"""Seconds after a start, so that the proxies have seen that the instance is ready."""

Figures = dict[str, Counter[str]]
"""By the name of a proxy: requests by kind, and failures by kind and reason."""


async def chat(client: httpx.AsyncClient, number: int) -> str | None:
    """Send a message and wait for its answer. Returns why it failed, or None."""
    message = f"{number} wait 0.05"
    answer = await client.post("/api/v1/chat", json={"contact_id": message, "message": message})
    if answer.status_code != httpx.codes.OK:
        return f"{answer.status_code} {answer.text[:80]}"
    return None if answer.json()["assistant_messages"] == [message] else answer.text[:80]


async def stream(client: httpx.AsyncClient, number: int) -> str | None:
    """Send a message and read its stream. Returns why it failed, or None."""
    message = f"{number} wait 0.3"
    answer = await client.post("/api/v1/chat/stream", json={"contact_id": message, "message": message})
    if answer.status_code != httpx.codes.OK:
        return f"{answer.status_code} {answer.text[:80]}"
    return None if "event: result" in answer.text else "a stream without a result"


async def get(client: httpx.AsyncClient, number: int) -> str | None:
    """Read a list of threads. Returns why it failed, or None."""
    answer = await client.get("/api/v1/threads", params={"contact_id": f"nobody {number}"})
    return None if answer.status_code == httpx.codes.OK else f"{answer.status_code} {answer.text[:80]}"


async def load(proxy: Proxy, requests: int, clients: int, over: asyncio.Event) -> Counter[str]:
    """Send requests until at least so many were sent and the restarts are over."""
    numbers = count()
    figures: Counter[str] = Counter(requests=0, failed=0)

    async def one_client(kinds: Sequence[str]) -> None:
        async with proxy.async_client() as client:
            while figures["requests"] < requests or not over.is_set():
                number = next(numbers)
                kind = kinds[number % len(kinds)]
                figures["requests"] += 1
                figures[kind] += 1
                try:
                    reason = await KINDS[kind](client, number)
                except httpx.HTTPError as error:
                    reason = repr(error)
                if reason is not None:
                    figures["failed"] += 1
                    figures[f"{kind}: {reason}"] += 1
                await asyncio.sleep(PAUSE)

    await asyncio.gather(*(one_client(("chat", "stream", "get", "chat")) for _ in range(clients)))
    return figures


KINDS = {"chat": chat, "stream": stream, "get": get}


@asynccontextmanager
async def deployed(
    names: Sequence[str], options: Mapping[str, str], *, held: bool, number: int
) -> AsyncIterator[tuple[list[Instance], list[Proxy]]]:
    """So many instances, and proxies in front of them."""
    with tempfile.TemporaryDirectory(prefix="rolling-") as folder, ExitStack() as stack:
        run = Path(folder) / "run"
        run.mkdir()
        instances = [stack.enter_context(Instance(run, options, held=held)) for _ in range(number)]
        ports = [instance.port for instance in instances]
        proxies = [stack.enter_context(PROXIES[name](Path(folder) / name, ports, run=run)) for name in names]
        yield instances, proxies


async def roll(
    names: Sequence[str],
    requests: int,
    options: Mapping[str, str] = MappingProxyType({}),
    *,
    held: bool = True,
    instances: int = 2,
    clients: int = CLIENTS,
    workers: int = 1,
) -> Figures:
    """Restart the instances under load, through each of the proxies at once.

    If an instance has several workers, it replaces them in place of a restart.
    """
    several: AbstractContextManager[Mapping[str, str]] = shared_store(workers) if workers > 1 else nullcontext({})
    with several as more:
        async with deployed(names, {**options, **more}, held=held, number=instances) as (started, proxies):
            over = asyncio.Event()
            loads = [asyncio.create_task(load(proxy, requests, clients, over)) for proxy in proxies]
            await asyncio.sleep(1)
            for instance in started:
                await asyncio.to_thread(instance.replace_workers if workers > 1 else partial(restart, instance))
                await asyncio.sleep(SETTLE)
            over.set()
            return dict(zip(names, await asyncio.gather(*loads), strict=True))


@contextmanager
def shared_store(workers: int) -> Iterator[Mapping[str, str]]:
    """A PostgreSQL server, and the options of instances with several workers on it."""
    with of_tests("jimsapi-postgres", "database").Postgres() as postgres:
        yield {"JIMS_WORKERS": str(workers), "JIMS_STORE": postgres.url()}


def restart(instance: Instance) -> None:
    """Stop an instance, and start it again."""
    assert instance.stop() == 0
    instance.start()


def main() -> int:
    parser = argparse.ArgumentParser(description="Restart two instances behind proxies, and count failed requests.")
    parser.add_argument("--requests", type=int, default=2000, help="the least number of requests through each proxy")
    parser.add_argument("--proxy", choices=list(PROXIES), action="append", help="all without it; repeats")
    parser.add_argument("--instances", type=int, choices=[1, 2], default=2, help="1 is for Caddy alone")
    parser.add_argument("--closed", action="store_true", help="the port is closed during a restart, as in containers")
    parser.add_argument(
        "--workers", type=int, default=1, help="with more than 1, SIGHUP replaces them in place of a restart"
    )
    given = parser.parse_args()
    names = given.proxy or list(PROXIES)
    rolling = roll(names, given.requests, held=not given.closed, instances=given.instances, workers=given.workers)
    all_figures = asyncio.run(rolling)
    for name, figures in all_figures.items():
        print(f"{name}: failed requests: {figures['failed']} of {figures['requests']}")
        for kind in sorted(figures.keys() - {"failed", "requests"}):
            print(f"  {kind}: {figures[kind]}")
    return 1 if any(figures["failed"] for figures in all_figures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
