"""What installed plugins cost that add no route and are not configured: 0, 20 and 100 of them."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.answers import check_chat
from benchmarks.installed import install, install_idle
from benchmarks.load import CHAT, Target, measure
from benchmarks.plan import Plan
from benchmarks.serving import jimsapi
from benchmarks.sheet import MEGABYTES, RATE, SECONDS, Aim, Sheet

NUMBERS = (0, 20, 100)
CONNECTIONS = 32
GET, CHATS, START = "routed GET", "chat, memory store", "start"
TARGETS = {GET: Target("get", "/hello"), CHATS: CHAT}


def named(number: int) -> str:
    """What a server with so many plugins is called."""
    return f"{number} plugins"


AIMS = tuple(
    Aim(5, f"100 idle plugins, {case}", case, named(100), RATE, (named(0),), at_least=0.98) for case in TARGETS
)


def run(plan: Plan) -> Sheet:
    """Measure."""
    title = f"installed plugins that do nothing, {CONNECTIONS} connections"
    sheet = Sheet("plugins", title, AIMS, dict.fromkeys((*TARGETS, START), named(0)))
    with tempfile.TemporaryDirectory() as folder:
        environments = {}
        for number in NUMBERS:
            place = Path(folder) / str(number)
            environments[named(number)] = install_idle(place, number)
            install(place, "benchmarks.apps.ours")
        # A process differs from the next by more than what is looked for: so rather many than long rounds.
        for number in range(plan.either(15, 1)):
            with ExitStack() as standing:
                servers = {}
                for name in plan.shuffled(environments):
                    server = jimsapi("memory:", core=plan.server_core, environment=environments[name])
                    servers[name] = standing.enter_context(server)
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
