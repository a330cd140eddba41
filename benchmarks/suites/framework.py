"""Our framework beside others, on the same uvicorn: a routed GET, path parameters among 1,000 routes, a message that is
authenticated and validated, an unknown path, a stream of ten server-sent events."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.answers import PART, ROUTES, check_framework, check_parts
from benchmarks.environments import OURS as OURS_ENVIRONMENT
from benchmarks.installed import install
from benchmarks.load import Target, measure
from benchmarks.plan import Plan
from benchmarks.serving import Server, jimsapi, under_granian, under_hypercorn, under_uvicorn
from benchmarks.sheet import RATE, Aim, Sheet

OURS, OURS_ELSEWHERE, RAW = "jimsapi", "jimsapi, uvicorn's protocol", "raw ASGI"
PEERS = ("Starlette", "FastAPI", "Litestar", "BlackSheep", "Falcon")
CONNECTIONS = 32
PROTOCOL = "jimsapi.server.http1:Http1Protocol"
"""What our command has uvicorn speak HTTP/1.1 with."""
GET, PARTS, POST, MISSING, EVENTS = "routed GET", "parameters among 1,000 routes", "validated POST", "404", "SSE"
TARGETS = {
    GET: Target("get", "/hello"),
    PARTS: Target("get", PART),
    POST: Target("chat", "/messages"),
    MISSING: Target("get", "/nowhere", status=404),
    EVENTS: Target("get", "/stream"),
}
AIMS = (
    Aim(1, "Routed JSON GET, metrics on", GET, OURS, RATE, (RAW,), at_least=0.95),
    Aim(1, "Routed JSON GET, metrics on", GET, OURS, RATE, PEERS, at_least=1.0),
    Aim(1, "Parameters among 1,000 routes", PARTS, OURS, RATE, PEERS, at_least=1.0),
    Aim(2, "Authenticated, validated POST", POST, OURS, RATE, (RAW,), at_least=0.85),
    Aim(2, "Authenticated, validated POST", POST, OURS, RATE, PEERS, at_least=1.0),
    Aim(2, "Ten server-sent events", EVENTS, OURS, RATE, (RAW,), at_least=1.0),
)

Start = Callable[..., Server]


def run(plan: Plan) -> Sheet:
    """Measure. Raises `AssertionError` if two systems do not answer alike."""
    sheet = Sheet("framework", f"requests, {CONNECTIONS} connections", AIMS, dict.fromkeys(TARGETS, RAW))
    with tempfile.TemporaryDirectory() as folder:
        systems = starts(Path(folder))
        for name, start in systems.items():
            with few_routes(start) as server:
                check_framework(name, server)
            with many_routes(start) as server:
                check_parts(name, server)
        print("framework: answers are equal", flush=True)
        for number in range(plan.either(6, 1)):
            one_round(plan, sheet, systems)
            print(f"framework: round {number + 1}", flush=True)
    return sheet


def starts(folder: Path) -> dict[str, Start]:
    """What starts each system. `folder` is for the plugin that gives our command the routes."""
    routes = install(folder, "benchmarks.apps.ours")
    mounted = "benchmarks.apps.ours_mounted:api"
    apps = {"Starlette": "starlette_app", "FastAPI": "fast", "Litestar": "litestar_app"}
    apps |= {"BlackSheep": "blacksheep_app", "Falcon": "falcon_app"}
    return {
        RAW: under_uvicorn_with("raw", "raw"),
        "raw ASGI, jimsapi's protocol": partial(under_uvicorn_with("raw", OURS_ENVIRONMENT), http=PROTOCOL),
        OURS_ELSEWHERE: lambda core, environment: under_uvicorn(
            mounted, core=core, environment={**routes, **environment}
        ),
        OURS: lambda core, environment: jimsapi("memory:", core=core, environment={**routes, **environment}),
        "jimsapi on granian": lambda core, environment: under_granian(
            mounted, core=core, environment={**routes, **environment}
        ),
        "jimsapi on hypercorn": lambda core, environment: under_hypercorn(
            mounted, core=core, environment={**routes, **environment}
        ),
        **{name: under_uvicorn_with(app, name.lower()) for name, app in apps.items()},
    }


def under_uvicorn_with(app: str, python: str) -> Start:
    """What starts one of the apps in an environment."""
    return partial(under_uvicorn, f"benchmarks.apps.{app}:app", python=python)


def few_routes(start: Start, core: int | None = None) -> Server:
    """A system with the routes of all cases but one."""
    return start(core=core, environment={"BENCHMARK_ROUTES": "0"})


def many_routes(start: Start, core: int | None = None) -> Server:
    """A system with a thousand routes besides: those who try one after another would be slow in every case."""
    return start(core=core, environment={"BENCHMARK_ROUTES": str(ROUTES)})


def one_round(plan: Plan, sheet: Sheet, systems: dict[str, Start]) -> None:
    """Start all systems afresh, and load them in random order, case by case."""
    with ExitStack() as standing:
        few = {
            name: standing.enter_context(few_routes(systems[name], plan.server_core)) for name in plan.shuffled(systems)
        }
        many = {
            name: standing.enter_context(many_routes(systems[name], plan.server_core))
            for name in plan.shuffled(systems)
        }
        for case in plan.shuffled(TARGETS):
            for name in plan.shuffled(systems):
                server = (many if case == PARTS else few)[name]
                found = measure(server, TARGETS[case], seconds=1, connections=CONNECTIONS, core=plan.load_core)
                sheet.add(case, name, found)
