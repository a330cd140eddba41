"""SIGTERM and SIGINT: what was accepted is answered, what comes later is refused, nothing is cut, the exit is clean."""

import asyncio
import fcntl
import re
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.reliability.database import said, statuses
from tests.reliability.paced import paced_server, until
from tests.reliability.wire import Answer, NoAnswer, Wire, once
from tests.serving import ROOT, STEERED, Served

pytestmark = pytest.mark.anyio

DRAIN_TIME = 5.0
DRAIN = ("--drain-time", f"{DRAIN_TIME:g}")


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
    """Wait for the exit, for as long as a drain may take. Raises `TimeoutExpired`."""
    assert served.process is not None
    return await asyncio.to_thread(served.process.wait, DRAIN_TIME)


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
    with paced_server(database, *DRAIN, *options) as served:
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
            assert await asyncio.to_thread(process.wait, DRAIN_TIME) == 0
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


async def test_an_idle_server_shows_its_drain_to_probes_before_its_port_closes(tmp_path: Path) -> None:
    with paced_server(tmp_path / "jims.db", *DRAIN) as served:
        signal_to(served, signal.SIGTERM)
        seen = await probe_until_refused(served.port)
        assert seen[503] > 1
        assert await exit_status(served) == 0


async def until_draining(served: Served) -> None:
    """Wait until the server refuses new work."""
    while (await once(served.port, "/readyz")).status != 503:
        await asyncio.sleep(0.01)
