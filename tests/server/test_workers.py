"""Several processes on one port: they answer together, are replaced when they die or by SIGHUP, and stop as one."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.command import refusal, run_command
from tests.serving import Served
from tests.waiting import eventually


class ServedByTwo(Served):
    """Two processes with an app of the framework, so without the options of the chat API."""

    def __init__(self) -> None:
        super().__init__()
        app = ("--app", "tests.apps.pids:app", "--port", "0", "--host", "127.0.0.1")
        self.command = [sys.executable, "-m", "jimsapi", *app, "--workers", "2"]


@contextmanager
def serving() -> Iterator[Served]:
    with ServedByTwo() as served:
        eventually(lambda: "2 workers serve the port" in served.stderr)
        yield served


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


def test_all_processes_answer_on_one_port_and_stop_as_one() -> None:
    with serving() as served:
        assert served.pid not in pids(served)
        assert served.stderr.count(" serves tests.apps.pids:app") == 1
        with ThreadPoolExecutor(4) as pool, served.client() as client:
            slow = [pool.submit(client.get, "/slow") for _ in range(4)]
            eventually(lambda: any(call.running() for call in slow))
            assert served.stop() == 0
            assert {call.result().status_code for call in slow} <= {200, 503}
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


def test_a_signal_to_the_whole_group_counts_once() -> None:
    with serving() as served, served.client() as client, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.get, "/slow")
        eventually(slow.running)
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
