"""Servers of the bot whose runs may start again, and what its runs have noted."""

from collections import Counter
from pathlib import Path
from typing import Any

from tests.apps.restartable import FOLDER
from tests.faults.places import Place
from tests.serving import Served
from tests.waiting import eventually

RUNS = "/api/v1/runs"
APP = "tests.apps.restartable:app"
PLAIN = "tests.apps.restartable:plain"


class Notes:
    """What the runs of the bot have noted in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.env = {FOLDER: str(folder)}

    def served(self, place: Place, *options: str, app: str = APP) -> Served:
        """Return a server with the bot on a place. It is not started yet."""
        return place.served(*options, folder=self._folder, env=self.env, app=app)

    def finish(self, *messages: str) -> None:
        """Let the runs of these messages answer."""
        for message in messages:
            (self._folder / message).touch()

    def starts(self, message: str) -> list[int]:
        """Return the processes that started the run of a message, in order."""
        words = [line.split() for line in self._lines("notes")]
        return [int(pid) for said, what, _, pid in words if (said, what) == (message, "started")]

    def is_cancelled(self, message: str, pid: int) -> bool:
        """Whether the pipeline of a message was cancelled in a process."""
        return f"{message} cancelled in {pid}" in self._lines("notes")

    def effects(self) -> Counter[str]:
        """Return how often each message had its effect."""
        return Counter(self._lines("effects"))

    def _lines(self, name: str) -> list[str]:
        path = self._folder / name
        return path.read_text().splitlines() if path.exists() else []


def begin(served: Served, message: str) -> str:
    """Begin a run of Ann's in the background. Returns its identifier."""
    with served.client() as client:
        return str(
            client.post(RUNS, json={"contact_id": "ann", "message": message}).raise_for_status().json()["run_id"]
        )


def run_of(served: Served, run_id: str) -> dict[str, Any]:
    """Return a run as the server shows it."""
    with served.client() as client:
        found: dict[str, Any] = client.get(f"{RUNS}/{run_id}").raise_for_status().json()
        return found


def wait_for(served: Served, run_id: str, status: str) -> dict[str, Any]:
    """Wait until a run has a status, and return the run."""
    eventually(lambda: run_of(served, run_id)["status"] == status)
    return run_of(served, run_id)


def types_in(place: Place) -> list[str]:
    """Return the types of all stored events, in the order of their times."""
    return [event_type for (event_type,) in place.rows("SELECT event_type FROM thread_events ORDER BY created_at")]
