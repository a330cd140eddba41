"""What installed plugins cost that are not configured: 20 and 100 that add no route, and all of this repository."""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.answers import check_chat
from benchmarks.environments import OURS_WITH_ALL
from benchmarks.installed import install, install_idle
from benchmarks.load import CHAT, Target, measure
from benchmarks.plan import Plan
from benchmarks.serving import Server, jimsapi
from benchmarks.sheet import MEGABYTES, RATE, SECONDS, Aim, Sheet

NUMBERS = (0, 20, 100)
CONNECTIONS = 32
GET, CHATS, START = "routed GET", "chat, memory store", "start"
TARGETS = {GET: Target("get", "/hello"), CHATS: CHAT}
OURS = "every plugin of ours"
"""What a server with all plugins of this repository is called."""


def named(number: int) -> str:
    """What a server with so many plugins is called."""
    return f"{number} plugins"


AIMS = tuple(
    Aim(5, f"{name}, {case}", case, system, RATE, (named(0),), at_least=0.98)
    for name, system in (("100 idle plugins", named(100)), ("Every plugin of ours", OURS))
    for case in TARGETS
)


def run(plan: Plan) -> Sheet:
    """Measure."""
    title = f"installed plugins that are not configured, {CONNECTIONS} connections"
    sheet = Sheet("plugins", title, AIMS, dict.fromkeys((*TARGETS, START), named(0)))
    with tempfile.TemporaryDirectory() as folder:
        starts = systems(Path(folder), plan.server_core)
        # A process differs from the next by more than what is looked for: so rather many than long rounds.
        for number in range(plan.either(15, 1)):
            with ExitStack() as standing:
                servers = {}
                for name in plan.shuffled(starts):
                    servers[name] = server = standing.enter_context(starts[name]())
                    check_chat(name, server)
                    sheet.add(START, name, {SECONDS: server.started_in, MEGABYTES: server.resident_bytes() / 1e6})
                for case in plan.shuffled(TARGETS):
                    for name in plan.shuffled(servers):
                        found = measure(
                            servers[name], TARGETS[case], seconds=0.6, connections=CONNECTIONS, core=plan.load_core
                        )
                        sheet.add(case, name, found)
            print(f"plugins: round {number + 1}", flush=True)
    return sheet


def systems(folder: Path, core: int | None) -> Mapping[str, Callable[[], Server]]:
    """Put plugins into folders below `folder`. Returns what starts a server with each of them."""
    start = partial(jimsapi, "memory:", core=core)
    found: dict[str, Callable[[], Server]] = {}
    for number in NUMBERS:
        place = folder / str(number)
        environment = install_idle(place, number)
        install(place, "benchmarks.apps.ours")
        found[named(number)] = partial(start, environment=environment)
    routes = install(folder / "routes", "benchmarks.apps.ours")
    return {**found, OURS: partial(start, environment=routes, python=OURS_WITH_ALL)}
