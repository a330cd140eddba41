"""SIGTERM and SIGINT: what was accepted is answered, what comes later is refused, nothing is cut, the exit is clean."""

import asyncio
import fcntl
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest

from tests.faults.database import said, statuses
from tests.faults.paced import paced_server, until
from tests.faults.wire import Answer, NoAnswer, Wire, once
from tests.raw import read_answer, request
from tests.serving import ROOT, STEERED, STOP_WITHIN, Served
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

DRAIN_TIME = 5.0
DRAIN = ("--drain-time", f"{DRAIN_TIME:g}")
PATIENCE = 30.0
"""Seconds to wait for an exit. A run that nothing ends goes on for much longer."""


class Callers:
    """Callers that send one message after another over keep-alive connections until the server refuses."""

    def __init__(self, port: int) -> None:
        self.answered: set[str] = set()
        self.refusals: list[Answer] = []
        self._port = port

    async def call(self, contact: str, name: str) -> None:
        """Be one caller. Raises `CutAnswer` if an answer is cut."""
        wire = Wire(self._port)
        number = 0
        while True:
            number += 1
            message = f"{name}.{number} wait 0.05"
            try:
                answer = await wire.chat(contact, message)
            except NoAnswer:
                return
            if answer.status != 200:
                self.refusals.append(answer)
                wire.close()
                return
            assert answer.json()["assistant_messages"] == [message]
            self.answered.add(message)


async def probe_until_refused(port: int) -> Counter[int]:
    """Ask `/readyz` over new connections for as long as it answers; returns how often it said what."""
    seen: Counter[int] = Counter()
    with suppress(NoAnswer):
        while True:
            seen[(await once(port, "/readyz")).status] += 1
            await asyncio.sleep(0.01)
    return seen


async def exit_status(served: Served) -> int:
    """Wait for the exit. Raises `TimeoutExpired` if nothing brings it about."""
    assert served.process is not None
    return await asyncio.to_thread(served.process.wait, PATIENCE)


def signal_to(served: Served, number: int) -> None:
    assert served.process is not None
    served.process.send_signal(number)


@pytest.mark.parametrize(
    ("number", "options"),
    [(signal.SIGTERM, ()), (signal.SIGINT, ()), (signal.SIGTERM, ("--reload",))],
    ids=["SIGTERM", "SIGINT", "a reloader"],
)
async def test_a_signal_under_load_answers_all_accepted_runs_and_refuses_the_rest(
    tmp_path: Path, number: int, options: tuple[str, ...]
) -> None:
    database = tmp_path / "jims.db"
    # In the repository a reloader would look at the files of all virtual environments before it looks for a signal.
    with paced_server(database, *DRAIN, *options, folder=tmp_path) as served:
        load = Callers(served.port)
        async with asyncio.TaskGroup() as tasks:
            for caller in range(16):
                tasks.create_task(load.call(f"alone {caller}", f"{caller}"))
            for caller in range(16, 24):
                tasks.create_task(load.call("shared", f"{caller}"))
            await until(lambda: len(load.answered) >= 60)
            probes = tasks.create_task(probe_until_refused(served.port))
            signal_to(served, number)
            status = await exit_status(served)
        assert status == 0
        assert load.refusals
        assert {(refusal.status, refusal.closes) for refusal in load.refusals} == {(503, True)}
        assert probes.result().keys() <= {200, 503}
        assert probes.result()[503] > 0
        assert statuses(database).keys() == {"completed"}
        assert load.answered == said(database, "assistant").keys() == said(database, "user").keys()


@pytest.mark.parametrize("command", ["stubborn", "thread"])
async def test_a_pipeline_that_cannot_be_stopped_does_not_hold_up_the_exit(tmp_path: Path, command: str) -> None:
    database = tmp_path / "jims.db"
    with paced_server(database, "--drain-time", "3") as served:
        waiting = asyncio.create_task(Wire(served.port).chat("held", f"a {command}"))
        behind = asyncio.create_task(Wire(served.port).chat("held", "b now"))
        await until(lambda: statuses(database) == {"running": 1, "queued": 1})
        signal_to(served, signal.SIGTERM)
        assert await exit_status(served) == 0
        assert (await waiting).status == 503
        assert (await behind).status == 503
        assert "2 runs did not end within 1.5 s and are stopped: 1 started, 1 waiting, 0 waiting" in served.stderr
    assert statuses(database) == {"interrupted": 1, "cancelled": 1}
    assert said(database, "user") == {f"a {command}": 1}


async def test_a_plain_pipeline_that_never_returns_blocks_no_probe_and_does_not_hold_up_the_exit(
    tmp_path: Path,
) -> None:
    database = tmp_path / "jims.db"
    options = ("--app", "tests.apps.paced:plain", "--store", f"sqlite:///{database}", "--drain-time", "3")
    with Served(*options) as served:
        waiting = asyncio.create_task(Wire(served.port).chat("held", "a block"))
        await until(lambda: statuses(database) == {"running": 1})
        assert (await once(served.port, "/readyz")).status == 200
        assert (await Wire(served.port).chat("other", "b now")).json()["assistant_messages"] == ["b now"]
        signal_to(served, signal.SIGTERM)
        assert await exit_status(served) == 0
        assert (await waiting).status == 503
        assert "event loop" not in served.stderr
        assert "ends here" not in served.stderr  # nothing but the run was waited for
    assert statuses(database) == {"interrupted": 1, "completed": 1}


async def test_a_pipeline_that_blocks_the_loop_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    database = tmp_path / "jims.db"
    with paced_server(database, "--drain-time", "2") as served:
        wire = Wire(served.port)
        await wire.send_chat("held", "a block")
        await until(lambda: statuses(database) == {"running": 1})
        signal_to(served, signal.SIGTERM)
        assert await exit_status(served) == 0
        await asyncio.to_thread(served.start)
    assert statuses(database) == {"interrupted": 1}


async def test_a_log_that_nobody_reads_any_more_does_not_hold_up_the_exit() -> None:
    options = ("--app", STEERED, "--store", "memory:", "--metrics-port", "0", "--port", "0", "--host", "127.0.0.1")
    command = [sys.executable, "-m", "jimsapi", *options, "--drain-time", "2"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, bufsize=0) as process:
        assert process.stderr is not None
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        try:
            while (address := re.search(rb"at http://127.0.0.1:(\d+)", line := process.stderr.readline())) is None:
                assert line
            for _ in range(50):
                assert (await once(int(address[1]), "/nowhere")).status == 404
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, PATIENCE) == 0
        finally:
            process.kill()


async def test_a_half_sent_body_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    with paced_server(tmp_path / "jims.db", *DRAIN) as served:
        wire = Wire(served.port)
        await wire.send_chat("half", "a now", keep_back=3)
        assert (await once(served.port, "/readyz")).status == 200
        signal_to(served, signal.SIGTERM)
        assert await exit_status(served) == 0
        answer = await wire.answer()
        assert (answer.status, answer.closes) == (503, True)
        served.stop()
        assert "route=/api/v1/chat status=503" in served.stderr
        assert " ERROR " not in served.stderr


async def test_a_body_that_is_completed_during_the_drain_is_refused_and_its_connection_closed(tmp_path: Path) -> None:
    with paced_server(tmp_path / "jims.db", *DRAIN) as served:
        held, late = Wire(served.port), Wire(served.port)
        release = tmp_path / "release"
        working = asyncio.create_task(held.chat("held", f"a until {release}"))
        await late.send_chat("late", "a now", keep_back=3)
        await until(lambda: statuses(tmp_path / "jims.db") == {"running": 1})
        signal_to(served, signal.SIGTERM)
        await until_draining(served)
        await late.send(b'w"}')
        answer = await late.answer()
        assert (answer.status, answer.closes) == (503, True)
        release.touch()
        assert (await working).status == 200
        assert await exit_status(served) == 0


async def test_a_second_signal_interrupts_what_still_runs(tmp_path: Path) -> None:
    database = tmp_path / "jims.db"
    with paced_server(database, "--drain-time", "300") as served:
        caller = Wire(served.port)
        waiting = asyncio.create_task(caller.chat("held", "a wait 3600"))
        await until(lambda: statuses(database) == {"running": 1})
        signal_to(served, signal.SIGTERM)
        await until_draining(served)
        assert not waiting.done()
        signal_to(served, signal.SIGINT)
        answer = await waiting
        assert (answer.status, answer.json()) == (503, {"detail": "The run was interrupted; try again"})
        assert await exit_status(served) == 0
    assert statuses(database) == {"interrupted": 1}


async def until_draining(served: Served) -> None:
    """Wait until the server refuses new work."""
    while (await once(served.port, "/readyz")).status != 503:
        await asyncio.sleep(0.01)


def ask_until_refused(port: int, pause: float, seen: Counter[str]) -> None:
    """Ask over new connections until there is no port any more; `pause` seconds pass before each request is sent."""
    while True:
        with closing(socket.socket()) as client:
            client.settimeout(STOP_WITHIN)
            try:
                client.connect(("127.0.0.1", port))
            except ConnectionRefusedError:
                return
            try:
                time.sleep(pause)
                client.sendall(request("GET", "/readyz"))
                seen[str(read_answer(client)[0])] += 1
            except (OSError, EOFError) as fault:
                seen[type(fault).__name__] += 1


def test_no_new_connection_is_lost_when_the_port_closes() -> None:
    seen: Counter[str] = Counter()
    for _ in range(2):
        with Served(*DRAIN) as served:
            clients = [
                threading.Thread(target=ask_until_refused, args=(served.port, pause, seen))
                for pause in (0.0, 0.0, 0.0, 0.001, 0.01, 0.1)
            ]
            for client in clients:
                client.start()
            eventually(lambda: seen["200"])
            assert served.stop() == 0
            for client in clients:
                client.join()
    assert seen.keys() <= {"200", "503"}
    assert seen["503"] > 0


def under_nohup(served: Served) -> Served:
    """The same server, started with SIGHUP ignored."""
    served.command = ["sh", "-c", 'trap "" HUP && exec "$@"', "sh", *served.command]
    return served


def test_a_hangup_is_ignored_under_nohup() -> None:
    with under_nohup(Served()) as served, served.client() as client:
        signal_to(served, signal.SIGHUP)
        signal_to(served, signal.SIGUSR2)  # the next one is handled later
        eventually(lambda: "the log has details" in served.stderr)
        assert client.get("/readyz").status_code == 200


def test_a_reloader_under_nohup_goes_on_to_reload_after_a_hangup(tmp_path: Path) -> None:
    bot = tmp_path / "bot.py"
    bot.write_text("async def app(ctx):\n    ctx.send_message('old')\n")
    with under_nohup(Served("--app", "bot", "--reload", folder=tmp_path)) as served:
        signal_to(served, signal.SIGHUP)
        written_at, answer = 0.0, ""

        def is_new() -> bool:
            nonlocal written_at, answer
            # The reloader does not see a change from before it first looked at the file, and nothing shows when it has.
            if "old" in answer and time.monotonic() - written_at > 3:
                bot.write_text("async def app(ctx):\n    ctx.send_message('the new one')\n")
                written_at = time.monotonic()
            answer = ""
            with suppress(httpx.TransportError), served.client() as client:
                answer = client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"}).text
            return "the new one" in answer

        eventually(is_new)
        assert served.stop() == 0


def test_a_pipeline_that_cancels_every_task_ends_the_server_with_status_1(tmp_path: Path) -> None:
    database = tmp_path / "jims.db"
    options = ("--app", "tests.apps.unruly:app", "--store", f"sqlite:///{database}", *DRAIN)
    with Served(*options) as served, served.client() as client:
        assert client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"}).status_code == 200
        with suppress(httpx.HTTPError):  # its own request is cancelled too
            client.post("/api/v1/chat", json={"contact_id": "ann", "message": "cancel"})
        assert served.process is not None
        assert served.process.wait(PATIENCE) == 1
        assert "all tasks of the event loop were cancelled" in served.stderr
        served.start()
        with served.client() as again:
            assert again.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"}).status_code == 200
    assert said(database, "user") == {"hi": 2, "cancel": 1}


def test_tasks_that_a_pipeline_leaks_do_not_hold_up_the_exit() -> None:
    with Served("--app", "tests.apps.unruly:app", *DRAIN) as served, served.client() as client:
        assert client.post("/api/v1/chat", json={"contact_id": "ann", "message": "leak"}).status_code == 200
        assert served.stop() == 0
        assert "2 tasks of pipelines or plugins do not end after their cancellation: " in served.stderr
        assert "the shutdown took longer" not in served.stderr
