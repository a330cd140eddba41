"""What a start costs: seconds from exec to the first `/healthz`, and resident memory after the first chat.

Ours by its command with an SQLite store that does not exist yet, metrics and a key, alone and with all plugins of this
repository installed; beside it jims-api on SQLite, and an app written by hand on uvicorn, which has no store.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.answers import QUESTION, WITH_KEY
from benchmarks.environments import OURS_WITH_ALL
from benchmarks.plan import Plan
from benchmarks.serving import Server, jims_api, jimsapi, under_uvicorn
from benchmarks.sheet import MEGABYTES, SECONDS, Aim, Sheet

CASE, OURS, THEIRS, RAW = "start to first answer", "jimsapi", "jims-api 0.6.2", "raw ASGI"
WITH_ALL = "jimsapi, every plugin of ours"
AIMS = (
    Aim(6, "Start to first answer", CASE, OURS, SECONDS, at_most=0.25),
    Aim(6, "Start to first answer, every plugin of ours installed", CASE, WITH_ALL, SECONDS, at_most=0.25),
    Aim(6, "Memory after the first chat", CASE, OURS, MEGABYTES, at_most=50),
    Aim(6, "Memory after the first chat, every plugin of ours installed", CASE, WITH_ALL, MEGABYTES, at_most=50),
)


def run(plan: Plan) -> Sheet:
    """Measure."""
    sheet = Sheet("start", "from exec to the first answer, and memory after the first chat", AIMS, {CASE: RAW})
    systems: dict[str, Callable[[Path], Server]] = {
        OURS: lambda path: jimsapi(f"sqlite:///{path}", core=plan.server_core),
        WITH_ALL: lambda path: jimsapi(f"sqlite:///{path}", core=plan.server_core, python=OURS_WITH_ALL),
        THEIRS: lambda path: jims_api(f"sqlite:///{path}", core=plan.server_core),
        RAW: lambda path: under_uvicorn("benchmarks.apps.raw:app", core=plan.server_core, python="raw"),
    }
    for number in range(-1, plan.either(7, 1)):  # the first compiles what is not compiled yet
        for name in plan.shuffled(systems):
            found = start(systems[name])
            if number >= 0:
                sheet.add(CASE, name, found)
    return sheet


def start(system: Callable[[Path], Server]) -> dict[str, float]:
    """Start once and chat once. Returns the seconds that the start took, and megabytes (of 10^6 bytes)."""
    with tempfile.TemporaryDirectory() as folder, system(Path(folder) / "jims.db") as server:
        status, _, body = server.ask("POST", "/api/v1/chat", QUESTION, WITH_KEY)
        if status != 200:
            raise RuntimeError(f"the chat was answered {status}: {body.decode()}")
        return {
            SECONDS: server.started_in,
            "processor s": server.start_used,
            MEGABYTES: server.resident_bytes() / 1e6,
        }
