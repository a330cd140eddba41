"""A server that is killed while a run waits or its pipeline works: the next start does what the app declares."""

import signal
from collections import Counter
from pathlib import Path

from tests.faults.places import SQLitePlace
from tests.faults.restarts import PLAIN, Notes, begin, run_of, types_in, wait_for
from tests.waiting import eventually

WHOLE = ["once.result", "comm.assistant_message"]


def test_a_killed_run_starts_again_and_the_run_behind_it_starts_once_if_the_app_says_so(tmp_path: Path) -> None:
    notes, place = Notes(tmp_path), SQLitePlace(tmp_path)
    with notes.served(place) as served:
        first, second = begin(served, "first"), begin(served, "second")
        eventually(lambda: notes.starts("first"))
        killed = served.pid
        served.stop(signal.SIGKILL)
        served.start()
        eventually(lambda: len(notes.starts("first")) == 2)
        assert run_of(served, first)["status"] == "running"
        notes.finish("first", "second")
        result = wait_for(served, first, "completed")["result"]
        assert result["assistant_messages"] == ["first"]
        assert result["created_new_thread"]
        wait_for(served, second, "completed")
        assert notes.starts("first") == [killed, served.pid]
        assert notes.starts("second") == [served.pid]
    assert notes.effects() == Counter(first=1, second=1)
    message = "comm.user_message"
    assert types_in(place) == ["jims.lifecycle.thread_created", message, *WHOLE, message, *WHOLE]


def test_a_killed_run_is_interrupted_if_the_app_says_nothing(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    with notes.served(SQLitePlace(tmp_path), app=PLAIN) as served:
        first, second = begin(served, "first"), begin(served, "second")
        eventually(lambda: notes.starts("first"))
        served.stop(signal.SIGKILL)
        notes.finish("first", "second")
        served.start()
        assert wait_for(served, first, "interrupted")["error"]["detail"] == "The run was interrupted; try again"
        wait_for(served, second, "completed")
        assert [len(notes.starts(message)) for message in ("first", "second")] == [1, 1]


def test_a_run_whose_every_process_is_killed_ends_with_an_error_that_says_so(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    with notes.served(SQLitePlace(tmp_path)) as served:
        run = begin(served, "first")
        for starts in (1, 2, 3):
            eventually(lambda: len(notes.starts("first")) == starts)  # noqa: B023
            served.stop(signal.SIGKILL)
            served.start()
        assert wait_for(served, run, "interrupted")["error"] == {
            "detail": "The run was interrupted: it was started 3 times, and its server died each time",
            "status": 503,
        }
        notes.finish("second")
        wait_for(served, begin(served, "second"), "completed")
        assert len(notes.starts("first")) == 3
