"""What conversations cost: plain chats beside all that they leave idle, turns beside many calls of tools, and forks.

A plain chat with files, questions, tools, private events and the other protocols installed stands beside the same chat
without them, within each round. Threads with calls of tools are plain rows, written past the service; a turn there
reads no more of them than a context has, so a thread with more calls is compared with one of 1,000. A fork
copies all events of its thread in one transaction: its time is shown by their number.
"""

import hashlib
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks.answers import WITH_KEY, check_chat
from benchmarks.environments import ROOT, of_tests
from benchmarks.installed import install
from benchmarks.load import CHAT, measure
from benchmarks.plan import Plan
from benchmarks.rows import CALLS, MESSAGES
from benchmarks.serving import Server, jimsapi
from benchmarks.sheet import MILLISECONDS, RATE, Aim, Sheet
from benchmarks.suites.growth import LIMIT, PostgreSQL, SQLite, Store, calling, events, figures, made, one_round

PLUGINS = ("files", "openai", "agui", "vercel", "deepchat")
ALONE, IDLE = "chats alone", "all of it idle"
CONNECTIONS = 32
MEMORY, ON_SQLITE = "chat, memory store", "chat, SQLite"
SLOWER = 0.97
"""The least share of the chats that is answered with all of it idle."""
TOOLS, FEW_CALLS = "turn beside calls of tools", 1_000
TURNS = 20
"""Turns in a thread in each round; their median is the round's figure."""
FORK = "fork"
FORKS = 5
"""Forks of a thread in each round."""


def calls(number: int) -> str:
    """What a thread with so many calls of tools is called."""
    return f"{number:,} calls"


def run(plan: Plan) -> Sheet:
    """Measure."""
    numbers = plan.either((0, FEW_CALLS, 100_000), (0, FEW_CALLS, 10_000))
    sheet = Sheet("conversation", "what conversations cost", aims(numbers[-1]), {MEMORY: ALONE, ON_SQLITE: ALONE})
    measure_idle(plan, sheet)
    with ExitStack() as standing:
        folder = standing.enter_context(tempfile.TemporaryDirectory())
        server = standing.enter_context(of_tests("jimsapi-postgres", "database").Postgres())
        for store in (SQLite(folder), PostgreSQL(server, standing)):
            measure_turns(plan, sheet, store, numbers)
            measure_forks(plan, sheet, store)
    return sheet


def aims(most: int) -> tuple[Aim, ...]:
    """What is to be reached with the most calls of tools that are measured."""
    idle = (
        Aim(8, f"Plain {case}, {IDLE}", case, IDLE, RATE, (ALONE,), at_least=SLOWER) for case in (MEMORY, ON_SQLITE)
    )
    turns = (
        Aim(9, f"Turn beside {calls(most)} of tools, {store}", f"{store}, {TOOLS}", calls(most), MILLISECONDS,
            (calls(FEW_CALLS),), at_most=LIMIT)
        for store in (SQLite.name, PostgreSQL.name)
    )  # fmt: skip
    return (*idle, *turns)


def install_all(folder: Path) -> Mapping[str, str]:
    """Put the plugins of conversations into `folder`. Returns the environment that shows them."""
    places = [str(folder)]
    for name in PLUGINS:
        install(folder, f"jimsapi_{name}")
        places.append(str(ROOT / "plugins" / f"jimsapi-{name}"))
    return {"PYTHONPATH": ":".join(places)}


def idle_server(plan: Plan, store: str, folder: Path, name: str) -> Server:
    """Our command with nothing beside chats, or with all that conversations may have."""
    if name == ALONE:
        return jimsapi(store, core=plan.server_core)
    files = f"file://{tempfile.mkdtemp(dir=folder)}"
    app, environment = "benchmarks.apps.agent", install_all(Path(tempfile.mkdtemp(dir=folder)))
    return jimsapi(store, "--files-store", files, app=app, core=plan.server_core, environment=environment)


def measure_idle(plan: Plan, sheet: Sheet) -> None:
    """Chat in memory and in SQLite, with and without what is left idle."""
    # A process differs from the next by more than what is looked for: so rather many than long rounds.
    for number in range(plan.either(15, 1)):
        for case in plan.shuffled((MEMORY, ON_SQLITE)):
            with tempfile.TemporaryDirectory() as folder, ExitStack() as standing:
                servers = {}
                for name in plan.shuffled((ALONE, IDLE)):
                    store = "memory:" if case == MEMORY else f"sqlite:///{tempfile.mkdtemp(dir=folder)}/jims.db"
                    servers[name] = standing.enter_context(idle_server(plan, store, Path(folder), name))
                    check_chat(name, servers[name])
                for name in plan.shuffled(servers):
                    found = measure(servers[name], CHAT, seconds=0.6, connections=CONNECTIONS, core=plan.load_core)
                    sheet.add(case, name, found)
        print(f"conversation: round {number + 1}", flush=True)


def measure_turns(plan: Plan, sheet: Sheet, store: Store, numbers: tuple[int, ...]) -> None:
    """Chat in threads with a turn and then so many calls of tools, which other turns have made."""
    rounds = plan.either(5, 2)
    case = f"{store.name}, {TOOLS}"
    sheet.beside[case] = calls(FEW_CALLS)
    place = made(store)
    # A chat adds to a thread, which would lengthen one without calls, so that each round has one of its own.
    owners = {(number, each): f"{number} calls, {each}" for number in numbers for each in range(rounds)}
    store.fill(place, ((who, CALLS if number else MESSAGES, number or 2) for (number, _), who in owners.items()))
    store.analyze(place)
    with calling(store.serve, place, plan) as caller, plan.as_load():
        for each in range(rounds):
            turns = {(CALLS, number): owners[number, each] for number in numbers}
            for (_, number), spent in one_round(plan, caller, turns, TURNS).items():
                sheet.add(case, calls(number), figures(spent))
    print(f"conversation: {store.name}, turns", flush=True)


def measure_forks(plan: Plan, sheet: Sheet, store: Store) -> None:
    """Fork threads of all lengths, each as often in a round."""
    case, lengths = f"{store.name}, {FORK}", (10, 1_000, 10_000)
    sheet.beside[case] = events(lengths[0])
    place = made(store)
    store.fill(place, ((events(length), MESSAGES, length) for length in lengths))
    store.analyze(place)
    with store.serve(place, plan.server_core) as server, plan.as_load():
        for _ in range(plan.either(5, 2)):
            spent: dict[int, list[float]] = {length: [] for length in lengths}
            for turn in range(-1, FORKS):  # the first brings a thread's pages in
                for length in plan.shuffled(lengths):
                    seconds = fork(server, events(length))
                    if turn >= 0:
                        spent[length].append(seconds)
            for length, each in spent.items():
                sheet.add(case, events(length), {MILLISECONDS: 1e3 * sorted(each)[len(each) // 2]})
    print(f"conversation: {store.name}, forks", flush=True)


def fork(server: Server, contact_id: str) -> float:
    """Fork the thread of a contact that `benchmarks.rows` wrote. Returns the seconds until the answer was read.

    Raises `RuntimeError` for another answer than 201.
    """
    path = f"/api/v1/threads/{hashlib.md5(contact_id.encode()).hexdigest()}/fork"
    began = time.perf_counter()
    status, _, body = server.ask("POST", path, b"{}", {**WITH_KEY, "content-type": "application/json"})
    seconds = time.perf_counter() - began
    if status != 201:
        raise RuntimeError(f"the fork of the thread of {contact_id!r} was answered {status} {body.decode()}")
    return seconds
