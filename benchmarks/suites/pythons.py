"""Our command on each Python of this machine, from 3.11 on, free-threaded ones included."""

import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks import pythons
from benchmarks.answers import check_chat
from benchmarks.environments import OURS_ON, python_of
from benchmarks.installed import install
from benchmarks.load import CHAT, Target, measure
from benchmarks.plan import Plan
from benchmarks.serving import Server, jimsapi
from benchmarks.sheet import MEGABYTES, SECONDS, Sheet

CONNECTIONS = 32
ON_SQLITE, START = "chat, SQLite", "start, SQLite"
TARGETS = {
    "routed GET": Target("get", "/hello"),
    "validated POST": Target("chat", "/messages"),
    "chat, memory store": CHAT,
    ON_SQLITE: CHAT,
}


def system_of(version: str) -> str:
    """What a server on a version of Python is called."""
    return f"Python {version}"


def run(plan: Plan) -> Sheet:
    """Measure."""
    versions = [version for version in pythons.found() if is_installed(version)]
    if not versions:
        raise SystemExit(f"there is no Python of {', '.join(pythons.VERSIONS)} with venv and pip")
    beside = dict.fromkeys((*TARGETS, START), system_of(versions[0]))
    sheet = Sheet("pythons", f"each Python of the machine, {CONNECTIONS} connections", beside=beside)
    with tempfile.TemporaryDirectory() as folder:
        routes = install(Path(folder) / "plugins", "benchmarks.apps.ours")
        for version in versions:
            with start(plan, version, "memory:", routes) as server:  # compiles what is not compiled yet
                check_chat(version, server)
        for number in range(plan.either(6, 1)):
            one_round(plan, sheet, versions, routes)
            print(f"pythons: round {number + 1}", flush=True)
    return sheet


def is_installed(version: str) -> bool:
    """Whether jimsapi can be installed on a version: for a new one, some dependency may not be built yet."""
    try:
        python_of(f"{OURS_ON}{version}")
    except subprocess.CalledProcessError:
        print(f"pythons: without Python {version}, on which jimsapi cannot be installed", flush=True)
        return False
    return True


def one_round(plan: Plan, sheet: Sheet, versions: list[str], routes: Mapping[str, str]) -> None:
    """Start a server on each Python with each store, and load them in random order, case by case."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as standing:
        in_memory: dict[str, Server] = {}
        on_sqlite: dict[str, Server] = {}
        for version in plan.shuffled(versions):
            in_memory[version] = standing.enter_context(start(plan, version, "memory:", routes))
            server = standing.enter_context(start(plan, version, f"sqlite:///{folder}/{version}.db", routes))
            on_sqlite[version] = server
            found = {SECONDS: server.started_in, MEGABYTES: server.resident_bytes() / 1e6}
            sheet.add(START, system_of(version), found)
        for case in plan.shuffled(TARGETS):
            servers = on_sqlite if case == ON_SQLITE else in_memory
            for version in plan.shuffled(versions):
                found = measure(
                    servers[version], TARGETS[case], seconds=1, connections=CONNECTIONS, core=plan.load_core
                )
                sheet.add(case, system_of(version), found)


def start(plan: Plan, version: str, store: str, routes: Mapping[str, str]) -> Server:
    """Start our command on a version of Python."""
    return jimsapi(store, core=plan.server_core, environment=routes, python=f"{OURS_ON}{version}")
