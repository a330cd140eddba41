"""Background runs that workers do: real processes, which are killed, drained and cut off from NATS."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from nats_server import NatsServer
from worker_processes import Site

from tests.faults.restarts import PLAIN, RUNS, Notes, begin, run_of, wait_for
from tests.serving import ROOT, Served
from tests.waiting import PATIENCE, eventually

SCRIPTED = "tests.apps.scripted:app"
UNRULY = "tests.apps.unruly:app"
WHOLE = ["comm.user_message", "once.result", "comm.assistant_message"]


def begin_of(served: Served, contact: str, message: str, **fields: Any) -> str:
    """Begin a run of a contact in the background. Returns its identifier."""
    body = {"contact_id": contact, "message": message, **fields}
    with served.client() as client:
        return str(client.post(RUNS, json=body).raise_for_status().json()["run_id"])


def types_in(site: Site) -> Counter[str]:
    """How many events of each type are stored."""
    return Counter(event_type for (event_type,) in site.rows("SELECT event_type FROM thread_events"))


def queued(server: NatsServer) -> int:
    """How many runs the queue has."""
    return asyncio.run(server.queued())


def line_with(text: str, lines: Iterator[str]) -> None:
    """Read lines until one has a text. Raises `AssertionError` if only others come for long."""
    until = time.monotonic() + PATIENCE
    while text not in next(lines):
        assert time.monotonic() < until


def test_a_background_run_is_done_by_a_worker_and_not_by_the_server_that_accepted_it(
    site: Site, notes: Notes, server: NatsServer
) -> None:
    with site.served() as served:
        run = begin(served, "first")
        assert run_of(served, run)["status"] == "queued"
        with site.worker() as worker:
            eventually(lambda: notes.starts("first") == [worker.pid])
            notes.finish("first")
            assert wait_for(served, run, "completed")["result"]["assistant_messages"] == ["first"]
            eventually(lambda: queued(server) == 0)
            assert worker.stop() == 0
        assert run_of(served, run)["result"]["created_new_thread"]
    assert types_in(site) == Counter(["jims.lifecycle.thread_created", *WHOLE])


def test_a_waiting_run_whose_worker_is_killed_between_the_claim_and_the_start_is_done_by_another_one_once(
    site: Site, notes: Notes
) -> None:
    async def kill_between_claim_and_start(run: str) -> None:
        """Let a worker wait for a lock of the database, and kill it there."""
        locking = await asyncpg.connect(site.url)
        thread = await locking.fetchval("SELECT thread_id FROM jimsapi_runs WHERE run_id = $1", UUID(run))
        await locking.execute("BEGIN")
        await locking.execute("SELECT pg_advisory_xact_lock(uuid_hash_extended($1, 3))", thread)
        with site.worker() as killed:
            while not (waits := await locking.fetch("SELECT pid FROM pg_locks WHERE NOT granted")):
                await asyncio.sleep(0.01)
            killed.stop(signal.SIGKILL)
            for (pid,) in waits:
                await locking.execute(f"SELECT pg_terminate_backend({pid})")
        await locking.close()

    with site.served() as served:
        run = begin(served, "first")
        asyncio.run(kill_between_claim_and_start(run))
        assert run_of(served, run)["status"] == "queued"
        with site.worker() as other:
            eventually(lambda: notes.starts("first") == [other.pid])
            notes.finish("first")
            wait_for(served, run, "completed")
    assert notes.effects() == Counter(first=1)
    assert types_in(site) == Counter(["jims.lifecycle.thread_created", *WHOLE])


def test_a_started_run_whose_worker_is_killed_starts_again_in_another_one_if_its_app_allows_it(
    site: Site, notes: Notes, server: NatsServer
) -> None:
    with site.served() as served, ExitStack() as stack:
        workers = [stack.enter_context(site.worker()) for _ in range(2)]
        run = begin(served, "first")
        eventually(lambda: notes.starts("first"))
        [killed] = [worker for worker in workers if worker.pid == notes.starts("first")[0]]
        [other] = [worker for worker in workers if worker is not killed]
        killed.stop(signal.SIGKILL)
        eventually(lambda: notes.starts("first") == [killed.pid, other.pid])
        notes.finish("first")
        assert wait_for(served, run, "completed")["result"]["assistant_messages"] == ["first"]
        eventually(lambda: queued(server) == 0)
    assert notes.effects() == Counter(first=1)
    assert types_in(site) == Counter(["jims.lifecycle.thread_created", *WHOLE])


def test_a_started_run_whose_worker_is_killed_is_interrupted_if_its_app_says_nothing_and_the_next_is_done(
    site: Site, notes: Notes, server: NatsServer
) -> None:
    with site.served(app=PLAIN) as served:
        with site.worker(app=PLAIN) as killed:
            started, waiting = begin(served, "first"), begin(served, "second")
            eventually(lambda: notes.starts("first"))
            killed.stop(signal.SIGKILL)
        with site.worker(app=PLAIN) as other:
            notes.finish("first", "second")
            assert wait_for(served, started, "interrupted")["error"]["detail"] == "The run was interrupted; try again"
            wait_for(served, waiting, "completed")
            eventually(lambda: queued(server) == 0)
            assert notes.starts("first") == [killed.pid]
            assert notes.starts("second") == [other.pid]


def test_a_worker_that_drains_ends_its_run_and_begins_no_other(site: Site, notes: Notes) -> None:
    with site.served() as served, site.worker() as leaving:
        run = begin_of(served, "ann", "first")
        eventually(lambda: notes.starts("first"))
        assert leaving.process is not None
        leaving.process.send_signal(signal.SIGTERM)
        eventually(lambda: "the worker begins no other run" in leaving.stderr)
        later = begin_of(served, "ben", "second")
        with site.worker() as other:
            eventually(lambda: notes.starts("second") == [other.pid])
            notes.finish("second")
            wait_for(served, later, "completed")
            assert run_of(served, run)["status"] == "running"
            notes.finish("first")
            assert leaving.process.wait(30) == 0
            wait_for(served, run, "completed")
    assert notes.starts("first") == [leaving.pid]


def test_a_run_that_takes_longer_than_the_drain_time_is_interrupted_and_its_place_in_the_queue_ends(
    site: Site, notes: Notes, server: NatsServer
) -> None:
    with site.served() as served, site.worker("--drain-time", "2") as leaving:
        run = begin(served, "first")
        eventually(lambda: notes.starts("first"))
        assert leaving.stop() == 0
        assert notes.is_cancelled("first", leaving.pid)
        wait_for(served, run, "interrupted")
        eventually(lambda: queued(server) == 0)


def test_while_nats_is_down_runs_are_accepted_and_wait_in_the_store_also_if_their_server_is_killed(
    site: Site, notes: Notes, server: NatsServer
) -> None:
    with site.served() as served, site.served() as killed, site.worker() as worker:
        server.kill()
        runs = [begin_of(one, one.url, f"run-{one.port}") for one in (served, killed)]
        killed.stop(signal.SIGKILL)
        assert [run_of(served, run)["status"] for run in runs] == ["queued"] * 2
        assert notes.effects() == Counter()
        server.start()
        names = [f"run-{one.port}" for one in (served, killed)]
        eventually(lambda: all(notes.starts(name) == [worker.pid] for name in names))
        notes.finish(*names)
        for run in runs:
            wait_for(served, run, "completed")
        eventually(lambda: queued(server) == 0)
        assert "work queue nats does not receive runs, which wait in the store until it does" in served.stderr
    assert notes.effects() == Counter(names)


def test_a_run_goes_on_while_nats_is_down_and_is_done_once(site: Site, notes: Notes, server: NatsServer) -> None:
    with site.served() as served, site.worker() as one, site.worker() as other:
        run = begin(served, "first")
        eventually(lambda: notes.starts("first"))
        server.kill()
        eventually(lambda: all("the connection to the NATS server has ended" in each.stderr for each in (one, other)))
        server.start()
        later = begin_of(served, "ben", "second")
        eventually(lambda: notes.starts("second"))
        notes.finish("first", "second")
        for each in (run, later):
            wait_for(served, each, "completed")
        eventually(lambda: queued(server) == 0)
    assert notes.effects() == Counter(first=1, second=1)


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("exit", f"has called sys.exit() (at {ROOT}/tests/apps/unruly.py:"),
        ("cancel later", "has cancelled tasks"),
        (None, None),
    ],
    ids=["an exit", "a cancellation", "a stop"],
)
def test_tasks_that_a_pipeline_leaks_do_not_hold_up_the_exit_of_a_worker_which_says_why_it_stops(
    site: Site, message: str | None, cause: str | None
) -> None:
    with site.served(app=UNRULY) as served, site.worker(app=UNRULY) as worker:
        wait_for(served, begin_of(served, "ann", "leak"), "completed")
        assert worker.process is not None
        if message is None:
            worker.process.terminate()
        else:
            begin_of(served, "ben", message)
        assert worker.process.wait(PATIENCE) == (0 if message is None else 1)
        assert "2 tasks of pipelines or plugins do not end after their cancellation" in worker.stderr
        if cause is not None:
            assert cause in worker.stderr
            assert "the worker stops with status 1" in worker.stderr


def test_a_run_that_is_cancelled_while_it_waits_is_not_done(site: Site, notes: Notes, server: NatsServer) -> None:
    with site.served() as served:
        run = begin(served, "first")
        with served.client() as client:
            client.post(f"{RUNS}/{run}/cancel").raise_for_status()
        with site.worker():
            eventually(lambda: queued(server) == 0)
        assert run_of(served, run)["status"] == "cancelled"
    assert notes.starts("first") == []


def test_the_stream_of_a_run_of_a_worker_is_live_at_a_server(site: Site) -> None:
    with site.served(app=SCRIPTED) as served, served.client() as client, ExitStack() as stack:
        run = begin_of(served, "ann", "stream Hel; hold door; stream lo; send Hello")
        with client.stream("GET", f"{RUNS}/{run}/stream") as answer:
            lines = answer.iter_lines()
            line_with("started", lines)
            stack.enter_context(site.worker(app=SCRIPTED))
            line_with('"Hel"', lines)
            assert run_of(served, run)["status"] == "running", "it is live, since the run waits"
            begin_of(served, "ben", "open door")
            line_with('"lo"', lines)
            line_with('"Hello"', lines)
