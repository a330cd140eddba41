"""Several processes on one port: they answer together, are replaced when they die or by SIGHUP, and stop as one."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import pytest

from jimsapi.cli import workers as workers_module
from jimsapi.cli.workers import folder_of_sockets
from jimsapi.plugins.errors import StartError
from jimsapi.server import workers as supervision
from jimsapi.server.workers import Link, Order, Serving, Worker, pause_after
from tests.command import refusal, run_command
from tests.serving import Served
from tests.waiting import eventually

PATIENCE = 30.0
"""Seconds in which what must happen has happened."""


class ServedByTwo(Served):
    """Two processes with an app of the framework, so without the options of the chat API."""

    def __init__(self, *options: str, folder: Path | None = None) -> None:
        super().__init__(env=None if folder is None else {"PIDS_FOLDER": str(folder)})
        app = ("--app", "tests.apps.pids:app", "--port", "0", "--host", "127.0.0.1")
        self.command = [sys.executable, "-m", "jimsapi", *app, "--workers", "2", *options]


@contextmanager
def serving(*options: str, folder: Path | None = None) -> Iterator[Served]:
    with ServedByTwo(*options, folder=folder) as served:
        eventually(lambda: "2 workers serve the port" in served.stderr)
        yield served


@contextmanager
def supervising(folder: Path) -> Iterator[Served]:
    """A supervisor of two workers that start fast, as `tests.server.supervised` describes."""
    served = Served()
    served.command = [sys.executable, "-m", "tests.server.supervised", str(folder)]
    served.launch()
    try:
        eventually(lambda: "ready" in served.stderr)
        yield served
    finally:
        served.stop()
        served.close()


def children(served: Served) -> list[int]:
    """The processes of the workers, the oldest first."""
    found = subprocess.run(["pgrep", "-P", str(served.pid), "-f", "spawn_main"], capture_output=True, text=True)
    return sorted(int(pid) for pid in found.stdout.split())


def pids(served: Served, count: int = 2) -> set[int]:
    """The processes that answer, when so many have."""
    found: set[int] = set()

    def all_have() -> bool:
        with served.client() as client:  # a connection each
            found.add(client.get("/pid").raise_for_status().json()["pid"])
        return len(found) == count

    eventually(all_have)
    return found


class Load:
    """Clients that ask again and again over connections that they keep, until the block ends. None may fail."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(8)
        self.answered = 0

    def __enter__(self) -> "Load":
        self._calls = [self._pool.submit(self._ask) for _ in range(8)]
        eventually(lambda: self.answered > 20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for call in self._calls:
            call.result()

    def _ask(self) -> None:
        with self._served.client() as client:
            while not self._stopped.is_set():
                client.get("/pid").raise_for_status()
                self.answered += 1


def test_all_processes_answer_on_one_port_and_stop_as_one(tmp_path: Path) -> None:
    with serving(folder=tmp_path) as served:
        assert served.pid not in pids(served)
        assert served.stderr.count(" serves tests.apps.pids:app") == 1
        with ThreadPoolExecutor(4) as pool, served.client() as client:
            slow = [pool.submit(client.get, "/slow") for _ in range(4)]
            eventually(lambda: len(list(tmp_path.glob("slow-*"))) == 4)
            assert served.stop() == 0
            assert {call.result().status_code for call in slow} == {200}
        with pytest.raises(httpx.ConnectError):
            served.client().get("/pid")


def test_a_process_that_is_killed_is_replaced_while_the_others_answer() -> None:
    with serving() as served:
        victim, other = pids(served)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: "has ended by SIGKILL" in served.stderr)
        assert other in (left := pids(served))
        assert victim not in left


def test_hangup_replaces_all_processes_and_no_request_fails() -> None:
    with serving() as served:
        before = pids(served)
        with Load(served):
            os.kill(served.pid, signal.SIGHUP)
            eventually(lambda: "SIGHUP: all workers are new" in served.stderr)
        assert not before & pids(served)
        assert served.stop() == 0


def test_a_second_hangup_replaces_all_processes_again_and_leaves_no_more_than_before(tmp_path: Path) -> None:
    with supervising(tmp_path) as served:
        before = children(served)
        os.kill(served.pid, signal.SIGHUP)
        eventually(lambda: len(children(served)) == 3)
        between = children(served)
        os.kill(served.pid, signal.SIGHUP)
        eventually(lambda: served.stderr.count("SIGHUP: all workers are new") == 2)
        time.sleep(1)  # an additional worker would have started by now
        after = children(served)
        assert len(after) == 2
        assert not {*before, *between} & {*after}


def test_a_process_that_does_not_end_when_it_is_replaced_is_killed_and_holds_up_nothing(tmp_path: Path) -> None:
    with supervising(tmp_path) as served:
        first, _ = before = children(served)
        os.kill(first, signal.SIGSTOP)
        os.kill(served.pid, signal.SIGHUP)
        eventually(lambda: "SIGHUP: all workers are new" in served.stderr)
        assert "worker 1 (process" in served.stderr
        assert "has not ended within 1 s and is killed" in served.stderr
        assert len(children(served)) == 2
        assert not {*before} & {*children(served)}


def test_a_stop_waits_no_longer_for_a_process_that_does_not_end(tmp_path: Path) -> None:
    with supervising(tmp_path) as served:
        os.kill(children(served)[0], signal.SIGSTOP)
        assert served.stop() == 0
        assert "has not ended within 1 s and is killed" in served.stderr


def test_a_process_that_is_stopped_in_its_start_holds_up_no_stop(tmp_path: Path) -> None:
    with supervising(tmp_path) as served:
        (tmp_path / "broken").touch()
        before = children(served)
        os.kill(served.pid, signal.SIGHUP)
        eventually(lambda: len(children(served)) == 3)
        (starting,) = {*children(served)} - {*before}
        os.kill(starting, signal.SIGSTOP)
        assert served.stop() == 0
        assert f"worker 3 (process {starting}) has not ended" in served.stderr


def test_signals_that_are_repeated_give_a_process_no_more_time_and_block_nothing(tmp_path: Path) -> None:
    with supervising(tmp_path) as served:
        os.kill(children(served)[0], signal.SIGSTOP)
        for _ in range(2000):  # more than a pipe has room for
            os.kill(served.pid, signal.SIGTERM)
            time.sleep(0.002)
            if "is killed" in served.stderr:
                break
        assert "has not ended within 1 s and is killed" in served.stderr


def test_the_log_says_how_to_give_up_a_process_that_does_not_start(tmp_path: Path) -> None:
    with supervising(tmp_path) as served:
        (tmp_path / "broken").touch()
        os.kill(served.pid, signal.SIGHUP)
        eventually(lambda: "worker 3 (process " in served.stderr)
        eventually(lambda: "has not started for 1 s; if it hangs, `kill -9 " in served.stderr)


def test_a_process_has_its_drain_time_before_it_is_killed() -> None:
    with serving("--drain-time", "2") as served:
        os.kill(children(served)[0], signal.SIGSTOP)
        assert served.stop() == 0
        assert "has not ended within 7 s and is killed" in served.stderr


def test_an_order_that_comes_between_start_and_service_is_told_to_the_process() -> None:
    supervisors_end, orders = multiprocessing.Pipe()
    link = Link(1, orders, multiprocessing.Pipe()[0])
    handled = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: handled.set())  # as a process that begins to serve
    try:
        link.listen()
        supervisors_end.send(Order.DRAIN)
        eventually(handled.is_set)
        serving = Serving(has_metrics=False, drains_within=0, retires_within=0)
        assert link.started(Deaf(), serving)
        assert supervisors_end.recv() == serving
    finally:
        signal.signal(signal.SIGTERM, before)


class Deaf:
    """A worker that ignores its orders."""

    def drain(self) -> None: ...

    def retire(self) -> None: ...


class Clock:
    """In place of the module `time`: `now` is the time in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(supervision, "time", made)
    return made


@pytest.fixture
def seen(clock: Clock) -> Iterator[tuple[Worker, Connection, Connection]]:
    """A worker as its supervisor sees it, and the worker's ends of its links: those of orders and of metrics."""
    orders, workers_orders = multiprocessing.Pipe()
    metrics, workers_metrics = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    process.start()
    yield Worker(1, process, orders, metrics), workers_orders, workers_metrics
    process.kill()
    process.join()


def test_a_process_that_serves_after_it_was_told_to_stop_has_its_time_from_then_on(
    clock: Clock, seen: tuple[Worker, Connection, Connection]
) -> None:
    worker, workers_orders, _ = seen
    worker.tell(Order.DRAIN)
    clock.now = 20
    workers_orders.send(Serving(has_metrics=False, drains_within=2, retires_within=2))
    worker.read()
    clock.now = 26
    worker.kill_if_late()
    worker.process.join(0.5)  # which a kill would end at once
    assert not worker.has_exited
    clock.now = 28
    worker.kill_if_late()
    worker.process.join(PATIENCE)
    assert worker.has_exited


def test_at_a_stop_a_process_that_was_being_replaced_has_no_more_time_than_others(
    clock: Clock, seen: tuple[Worker, Connection, Connection]
) -> None:
    worker, workers_orders, _ = seen
    workers_orders.send(Serving(has_metrics=False, drains_within=1, retires_within=100))
    worker.read()
    worker.tell(Order.RETIRE)
    clock.now = 10
    worker.tell(Order.DRAIN)
    clock.now = 17
    worker.kill_if_late()
    worker.process.join(PATIENCE)
    assert worker.has_exited


def test_a_process_that_answers_no_question_for_metrics_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, seen: tuple[Worker, Connection, Connection]
) -> None:
    worker, _, workers_metrics = seen
    monkeypatch.setattr(supervision, "ANSWERS_WITHIN", 0)
    for _ in range(3):
        assert worker.sample() is None
    assert workers_metrics.recv() is Order.METRICS
    assert not workers_metrics.poll()
    workers_metrics.send("five")
    assert worker.sample() == "five"
    assert workers_metrics.recv() is Order.METRICS


def test_metrics_that_cannot_be_read_are_logged_and_are_read_again_later(tmp_path: Path) -> None:
    with supervising(tmp_path) as served:
        eventually(lambda: "the sum is 20" in served.stderr)
        (tmp_path / "uncountable").touch()
        eventually(lambda: "the metrics of worker 1 cannot be read" in served.stderr)
        eventually(lambda: "the metrics of worker 2 cannot be read" in served.stderr)
        (tmp_path / "uncountable").unlink()
        (tmp_path / "more").touch()
        eventually(lambda: "the sum is 22" in served.stderr)


def test_a_process_that_is_told_to_stop_in_its_start_stops_once(tmp_path: Path) -> None:
    (tmp_path / "held").touch()
    served = ServedByTwo(folder=tmp_path)
    served.launch()
    try:
        eventually((tmp_path / "begun").exists)
        os.kill(served.pid, signal.SIGTERM)
        time.sleep(1)  # the order reaches the process, which would log nothing
        (tmp_path / "held").unlink()
        assert served.process is not None
        assert served.process.wait(PATIENCE) == 0
        assert "another signal has come" not in served.stderr
    finally:
        served.stop()
        served.close()


def test_a_process_that_dies_before_a_child_of_its_own_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "forks").touch()
    with supervising(tmp_path) as served:
        try:
            first, second = children(served)
            os.kill(first, signal.SIGKILL)
            eventually(lambda: "has ended by SIGKILL" in served.stderr)
            eventually(lambda: len(children(served)) == 2)
            assert second in children(served)
        finally:
            (tmp_path / "forks").unlink()


def test_a_process_whose_tasks_were_all_cancelled_ends_and_leaves_the_port_to_the_others(tmp_path: Path) -> None:
    with serving(folder=tmp_path) as served:
        before = pids(served)
        (tmp_path / "broken").touch()
        with served.client() as client, suppress(httpx.HTTPError):  # its own request is cancelled, too
            client.get("/cancel")
        eventually(lambda: "has ended with status 1" in served.stderr)
        with served.client() as client:
            assert client.get("/pid").json()["pid"] in before
        (tmp_path / "broken").unlink()
        assert len(before & pids(served)) == 1


def test_processes_that_die_are_replaced_after_two_hangups_whose_new_process_cannot_start(tmp_path: Path) -> None:
    with supervising(tmp_path) as served:
        (tmp_path / "broken").touch()
        os.kill(served.pid, signal.SIGHUP)
        eventually(lambda: len(children(served)) == 3)
        time.sleep(0.5)  # so that the first new process ends before a second one would
        os.kill(served.pid, signal.SIGHUP)
        eventually(lambda: served.stderr.count("the new worker could not start, so the old ones go on") == 2)
        (tmp_path / "broken").unlink()
        victim, other = children(served)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(children(served)) == 2 and victim not in children(served), within=15)
        assert other in children(served)


def test_processes_that_die_soon_after_their_start_are_replaced_ever_more_slowly(tmp_path: Path) -> None:
    with supervising(tmp_path) as served:
        (tmp_path / "dying").touch()
        eventually(lambda: "another one is started in 4 s" in served.stderr, within=15)
        (tmp_path / "dying").unlink()


def test_a_crash_loop_of_hours_does_not_end_the_supervisor() -> None:
    assert [pause_after(deaths) for deaths in (0, 1, 2, 3, 5000)] == [0, 1, 2, 4, 30]


def test_a_process_that_dies_while_metrics_are_read_is_counted_once(tmp_path: Path) -> None:
    def sums() -> list[str]:
        return [line for line in served.stderr.splitlines() if line.startswith("the sum is")]

    with supervising(tmp_path) as served:
        first, second = children(served)
        eventually(sums)
        os.kill(second, signal.SIGSTOP)  # from now on, reading the metrics takes two seconds
        try:
            time.sleep(0.2)
            before = len(sums())
            eventually(lambda: len(sums()) > before)
            time.sleep(0.5)
            os.kill(first, signal.SIGKILL)
            eventually(lambda: len(sums()) > before + 2)
        finally:
            os.kill(second, signal.SIGCONT)
        assert set(sums()) == {"the sum is 20"}


@pytest.mark.parametrize(
    "pause",
    [pytest.param(1.0, id="while it retires"), pytest.param(6.5, id="when it drains", marks=pytest.mark.long)],
)
def test_one_signal_lets_a_process_that_is_being_replaced_end_its_work(pause: float) -> None:
    """A process that is replaced waits five seconds for idle connections. Then it drains."""
    with serving() as served, ExitStack() as opened, ThreadPoolExecutor(2) as pool:
        clients: dict[int, httpx.Client] = {}
        while len(clients) < 2:
            client = opened.enter_context(served.client())
            clients[client.get("/pid").json()["pid"]] = client
        os.kill(served.pid, signal.SIGHUP)
        pids(served, 3)  # the new process serves, so one of the others retires
        slow = [pool.submit(client.get, "/slow?seconds=8") for client in clients.values()]
        time.sleep(pause)
        os.kill(served.pid, signal.SIGTERM)
        assert [call.result().status_code for call in slow] == [200, 200]
        assert served.stop() == 0


def test_the_sockets_of_workers_have_a_short_path_if_that_of_temporary_files_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with folder_of_sockets() as folder, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{folder}/4194304-0.sock.new")
        assert Path(folder).stat().st_mode & 0o077 == 0
    monkeypatch.setattr(workers_module, "SHORT_PARENT", str(tmp_path / "missing"))
    with pytest.raises(StartError, match="set TMPDIR to a folder"):
        folder_of_sockets()


def test_a_signal_to_the_whole_group_counts_once(tmp_path: Path) -> None:
    with serving(folder=tmp_path) as served, served.client() as client, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.get, "/slow", params={"seconds": 2})
        eventually(lambda: list(tmp_path.glob("slow-*")))
        for pid in (served.pid, *pids(served)):
            os.kill(pid, signal.SIGINT)
        assert slow.result().status_code == 200
        assert served.stop() == 0


def test_the_processes_stop_when_their_supervisor_is_killed() -> None:
    with serving() as served:
        workers = pids(served)
        os.kill(served.pid, signal.SIGKILL)
        eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers))
        assert "the supervisor has died" in served.stderr


def test_each_process_logs_its_state() -> None:
    with serving() as served:
        os.kill(served.pid, signal.SIGUSR1)
        eventually(lambda: served.stderr.count("SIGUSR1: end of the state") == 2)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--store", "memory:"), "only one process may open the store memory:"),
        (("--reload",), "a reloader serves in one process"),
    ],
)
def test_what_cannot_be_shared_is_refused(options: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    ran = run_command(
        "--app",
        "tests.apps.scripted:app",
        "--port",
        "0",
        "--metrics-port",
        "0",
        "--workers",
        "2",
        *options,
        cwd=tmp_path,
    )
    assert reason in refusal(ran)
