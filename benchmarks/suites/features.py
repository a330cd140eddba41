"""What each thing costs that every request of ours has: our command, and the same without it (`apps/without.py`)."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.apps.features import FEATURES
from benchmarks.installed import install
from benchmarks.load import CHAT, Target, measure
from benchmarks.plan import Plan
from benchmarks.serving import jimsapi
from benchmarks.sheet import Sheet

OURS, CONNECTIONS = "jimsapi", 32
TARGETS = {
    "routed GET": Target("get", "/hello"),
    "validated POST": Target("chat", "/messages"),
    "chat, memory store": CHAT,
}


def run(plan: Plan) -> Sheet:
    """Measure."""
    title = f"what each always-on feature costs, {CONNECTIONS} connections"
    sheet = Sheet("features", title, beside=dict.fromkeys(TARGETS, OURS))
    modules: dict[str, tuple[str, ...]] = {OURS: ("jimsapi",)}
    modules |= {f"without {feature}": ("benchmarks.apps.without", feature) for feature in FEATURES}
    with tempfile.TemporaryDirectory() as folder:
        routes = install(Path(folder), "benchmarks.apps.ours")
        for number in range(plan.either(6, 1)):
            with ExitStack() as standing:
                servers = {
                    name: standing.enter_context(
                        jimsapi("memory:", core=plan.server_core, environment=routes, module=modules[name])
                    )
                    for name in plan.shuffled(modules)
                }
                for case in plan.shuffled(TARGETS):
                    for name in plan.shuffled(servers):
                        found = measure(
                            servers[name], TARGETS[case], seconds=1, connections=CONNECTIONS, core=plan.load_core
                        )
                        sheet.add(case, name, found)
            print(f"features: round {number + 1}", flush=True)
    return sheet
