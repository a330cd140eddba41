"""`--workers`: several processes of one command on one database, with one metrics port."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from zipfile import ZipFile

import httpx
import pytest

from tests.command import run_command
from tests.ports import free_port
from tests.serving import Served
from tests.waiting import PATIENCE, eventually

CHAT = "/api/v1/chat"
RUNS = "/api/v1/runs"


class TwoWorkers:
    """A server of two processes."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.metrics_port = int(served.command[served.command.index("--metrics-port") + 1])

    def metric(self, name: str) -> float:
        """The value of a metric of all processes together; 0 if there is none."""
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30).text
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))

    def pids(self) -> list[int]:
        """The processes that serve."""
        found = subprocess.run(
            ["pgrep", "-P", str(self.served.pid), "-f", "spawn_main"], capture_output=True, text=True
        )
        return [int(pid) for pid in found.stdout.split()]

    def chat(self, number: int) -> httpx.Response:
        """A chat over a connection of its own, which any process may accept."""
        with self.served.client() as client:
            return client.post(CHAT, json={"contact_id": f"contact {number % 5}", "message": "hi"})

    def read_stream(self, run: str, after: int, begun: Barrier) -> list[tuple[str, str]]:
        """The events of a run's stream after a position, over a connection of its own: the type and data of each.
        After the first one it waits until all others have begun."""
        headers = {"last-event-id": str(after)} if after else {}
        names, data = [], []
        with self.served.client() as client, client.stream("GET", f"{RUNS}/{run}/stream", headers=headers) as answer:
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    names.append(value)
                elif name == "data":
                    data.append(value)
                    if len(data) == 1:
                        begun.wait()
        return list(zip(names, data, strict=True))


@pytest.fixture
def two(url: str) -> Iterator[TwoWorkers]:
    options = ("--app", "tests.apps.scripted:app", "--store", url, "--workers", "2")
    with Served(*options, "--metrics-port", str(free_port())) as served:
        eventually(lambda: "2 workers serve the port" in served.stderr)
        yield TwoWorkers(served)


def test_their_metrics_are_one_sum_that_a_killed_process_does_not_shrink(two: TwoWorkers) -> None:
    for number in range(20):
        two.chat(number).raise_for_status()
    assert two.metric("jims_runs_total") == 20  # which reads what both have counted
    os.kill(two.pids()[0], signal.SIGKILL)
    eventually(lambda: two.metric("jims_worker_restarts_total") == 1 and len(two.pids()) == 2)
    for number in range(10):
        eventually(lambda: two.chat(number).status_code == 200)  # noqa: B023
    eventually(lambda: two.metric("jims_runs_total") >= 30)
    assert two.metric("jims_build_info") == 1


def test_a_waiting_run_of_a_killed_process_is_continued_by_the_others(two: TwoWorkers) -> None:
    with two.served.client() as client:
        held = client.post(RUNS, json={"contact_id": "ann", "message": "hold door"}).json()["run_id"]
        waits = client.post(RUNS, json={"contact_id": "ann", "message": "hi"}).json()["run_id"]
        eventually(lambda: client.get(f"{RUNS}/{held}").json()["status"] == "running")
        for pid in two.pids():
            os.kill(pid, signal.SIGKILL)

        def status(run: str) -> str:
            with two.served.client() as other:
                return str(other.get(f"{RUNS}/{run}").json()["status"])

        eventually(lambda: status(held) == "interrupted", within=60)
        eventually(lambda: status(waits) == "completed", within=60)


def test_the_server_starts_although_the_path_of_temporary_files_is_too_long_for_a_socket(
    url: str, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    options = ("--app", "tests.apps.scripted:app", "--store", url, "--workers", "2")
    with Served(*options, "--metrics-port", str(free_port()), env={"TMPDIR": str(long)}) as served:
        eventually(lambda: "2 workers serve the port" in served.stderr)
        assert TwoWorkers(served).chat(1).status_code == 200


def test_any_process_shows_the_live_stream_of_a_run_from_any_position(two: TwoWorkers) -> None:
    """Ten readers connect anew, so nearly surely to both processes. One of these works on the run."""
    with two.served.client() as client:
        script = "stream Hel; stream lo; hold door; stream Bye; send Bye"
        run = client.post(RUNS, json={"contact_id": "ann", "message": script}).json()["run_id"]
        eventually(lambda: client.get(f"{RUNS}/{run}").json()["status"] == "running")
        begun = Barrier(11, timeout=PATIENCE)
        with ThreadPoolExecutor(10) as readers:
            reading = [readers.submit(two.read_stream, run, after, begun) for after in (0, 1) * 5]
            begun.wait()
            for number in range(20):  # so that the process hears it that holds the door
                with two.served.client() as other:
                    other.post(CHAT, json={"contact_id": f"opener {number}", "message": "open door"}).raise_for_status()
            streams = [reader.result() for reader in reading]
    whole = streams[0]
    assert [name for name, _ in whole].count("delta") >= 3
    for number, stream in enumerate(streams):
        assert stream == whole[number % 2 :]


def test_any_process_has_the_files_of_users_and_pipelines_and_the_export_has_all_of_them(
    url: str, tmp_path: Path
) -> None:
    stores = ("--store", url, "--files-store", f"file://{tmp_path / 'files'}")
    options = ("--app", "tests.apps.scripted:app", *stores, "--workers", "2", "--metrics-port", str(free_port()))
    contents = {f"sent {number}".encode() for number in range(8)}
    with Served(*options) as served:
        eventually(lambda: "2 workers serve the port" in served.stderr)
        for content in contents:  # each over connections of its own, which the kernel gives to any of the processes
            with served.client() as client:
                files = {"files": ("b.txt", content, "text/plain")}
                form = {"contact_id": "ann", "message1": json.dumps({"role": "user", "text": f"file made {content!r}"})}
                [made] = client.post("/deep-chat", data=form, files=files).raise_for_status().json()["files"]
            with served.client() as client:
                assert client.get(made["src"], headers={"range": "bytes=0-3"}).content == b"made"
        ran = run_command("contacts", "export", "ann", *stores, "--output", "ann.zip", cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        with ZipFile(tmp_path / "ann.zip") as archive:
            exported = {archive.read(name) for name in archive.namelist() if name.startswith("files/")}
        assert exported == {*contents, *(f"made {content!r}".encode() for content in contents)}
        with served.client() as client:
            client.delete("/api/v1/contacts?contact_id=ann").raise_for_status()
        with served.client() as client:
            assert client.get(made["src"]).status_code == 404
            assert client.get("/api/v1/files?contact_id=ann").json()["files"] == []
