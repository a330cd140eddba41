"""Background runs of a server that is killed or suspended: another one does them, as often as the app allows."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from database import Postgres

from tests.faults.places import PostgresPlace
from tests.faults.restarts import PLAIN, Notes, begin, run_of, types_in, wait_for
from tests.serving import Served
from tests.waiting import eventually

WHOLE = ["comm.user_message", "once.result", "comm.assistant_message"]


@pytest.fixture
def place(postgres: Postgres, database: str) -> PostgresPlace:
    return PostgresPlace(postgres, database)


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


@pytest.fixture
def pair(place: PostgresPlace, notes: Notes) -> Iterator[tuple[Served, Served]]:
    """Two servers on one database, of an app whose runs may start again twice."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(notes.served(place)) for _ in range(2))
        yield first, second


def test_runs_of_a_killed_server_are_done_by_the_other_the_waiting_one_once(
    place: PostgresPlace, notes: Notes, pair: tuple[Served, Served]
) -> None:
    killed, other = pair
    started, waiting = begin(killed, "first"), begin(killed, "second")
    eventually(lambda: notes.starts("first"))
    killed.stop(signal.SIGKILL)
    eventually(lambda: len(notes.starts("first")) == 2)
    notes.finish("first", "second")
    assert wait_for(other, started, "completed")["result"]["assistant_messages"] == ["first"]
    wait_for(other, waiting, "completed")
    assert notes.starts("first") == [killed.pid, other.pid]
    assert notes.starts("second") == [other.pid]
    assert notes.effects() == Counter(first=1, second=1)
    assert types_in(place) == ["jims.lifecycle.thread_created", *WHOLE, *WHOLE]


def test_a_started_run_of_a_killed_server_is_interrupted_if_the_app_says_nothing(
    place: PostgresPlace, notes: Notes
) -> None:
    with notes.served(place, app=PLAIN) as killed, notes.served(place, app=PLAIN) as other:
        started, waiting = begin(killed, "first"), begin(killed, "second")
        eventually(lambda: notes.starts("first"))
        killed.stop(signal.SIGKILL)
        notes.finish("first", "second")
        assert wait_for(other, started, "interrupted")["error"]["detail"] == "The run was interrupted; try again"
        wait_for(other, waiting, "completed")
        assert notes.starts("first") == [killed.pid]
        assert notes.starts("second") == [other.pid]


def test_a_run_whose_every_server_is_killed_ends_with_an_error_that_says_so(
    notes: Notes, pair: tuple[Served, Served]
) -> None:
    run = begin(pair[0], "first")
    for starts in (1, 2, 3):
        eventually(lambda: len(notes.starts("first")) == starts)  # noqa: B023
        [killed] = [served for served in pair if served.pid == notes.starts("first")[-1]]
        killed.stop(signal.SIGKILL)
        killed.start()
    error = "The run was interrupted: it was started 3 times, and its server died each time"
    assert wait_for(pair[0], run, "interrupted")["error"]["detail"] == error
    assert len(notes.starts("first")) == 3


def test_a_server_that_was_only_suspended_stops_its_pipeline_and_stores_no_second_answer(
    place: PostgresPlace, notes: Notes, pair: tuple[Served, Served]
) -> None:
    suspended, other = pair
    run = begin(suspended, "first")
    eventually(lambda: notes.starts("first"))
    os.kill(suspended.pid, signal.SIGSTOP)
    try:
        eventually(lambda: len(notes.starts("first")) == 2)
    finally:
        os.kill(suspended.pid, signal.SIGCONT)
    eventually(lambda: notes.is_cancelled("first", suspended.pid))
    assert run_of(other, run)["status"] == "running"
    notes.finish("first")
    for served in pair:
        assert wait_for(served, run, "completed")["result"]["assistant_messages"] == ["first"]
    assert not notes.is_cancelled("first", other.pid)
    assert types_in(place) == ["jims.lifecycle.thread_created", *WHOLE]


def test_a_run_of_a_killed_worker_starts_again_in_another_one(place: PostgresPlace, notes: Notes) -> None:
    with notes.served(place, "--workers", "2") as served:
        run = begin(served, "first")
        eventually(lambda: notes.starts("first"))
        [killed] = notes.starts("first")
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: len(notes.starts("first")) == 2)
        notes.finish("first")
        wait_for(served, run, "completed")
        assert killed not in notes.starts("first")[1:]
    assert types_in(place) == ["jims.lifecycle.thread_created", *WHOLE]
