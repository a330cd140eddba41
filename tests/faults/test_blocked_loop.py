"""Something blocks the event loop of a real server: the log names it while it does, and the metrics show it."""

import asyncio
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import httpx
import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.runs import watchdog as module
from jimsapi.runs.watchdog import Watchdog
from tests.apps.blocking import rest
from tests.plugins.distributions import install
from tests.raw import metric
from tests.serving import Served
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

BLOCKING = ("--app", "tests.apps.blocking:app")
CHAT = "/api/v1/chat"
BLOCKED = "the event loop is blocked"
WORKS_AGAIN = "the event loop works again"
SLOW_ROUTE = """
import time
from jimsapi import Response, hookimpl

async def slow(request):
    time.sleep(1.5)
    return Response(b"", 204)

@hookimpl
def jimsapi_routes(router):
    router.get("/slow", public=True)(slow)
"""


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(*BLOCKING) as server:
        yield server


def chat(served: Served, message: str) -> httpx.Response:
    with served.client() as client:
        return client.post(CHAT, json={"contact_id": "ann", "message": message})


@contextmanager
def chatting(served: Served, message: str) -> Iterator[None]:
    """Send a message meanwhile; it is answered in the end."""
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(chat(served, message)))
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert [answer.status_code for answer in answers] == [200]


def line_of(served: Served, text: str) -> str:
    """The line of the log that has `text`, once it is there."""
    eventually(lambda: any(text in line and line.endswith("\n") for line in served.stderr.splitlines(keepends=True)))
    return next(line for line in served.stderr.splitlines() if text in line)


@pytest.mark.parametrize(
    ("command", "where"),
    [
        ("sleep 2.5", r"in answer > \S+:\d+ in rest: time\.sleep\(seconds\)"),
        ("compute 2.5", r"in answer > \S+:\d+ in think: "),
    ],
)
def test_a_blocking_pipeline_is_logged_with_its_run_and_its_line_while_it_blocks(
    served: Served, command: str, where: str
) -> None:
    with chatting(served, command):
        line = line_of(served, BLOCKED)
        assert WORKS_AGAIN not in served.stderr
        assert re.search(r"pipeline answer \(run [0-9a-f-]{36}, thread [0-9a-f-]{36}\) is at /", line)
        assert re.search(where, line)
        assert "asyncio" not in line
        assert "jimsapi/runs" not in line
    again = re.search(r"pipeline answer \(run .* blocked it for (\d\.\d) s", line_of(served, WORKS_AGAIN))
    assert again is not None
    assert float(again[1]) >= 1.0  # the time that the machine gave to others is not counted


def test_a_call_that_keeps_the_interpreter_to_itself_is_logged_when_it_ends() -> None:
    # Any thread that waits for the interpreter may get it when the call ends. So the store's come to rest before, and
    # a few attempts are allowed: the line then has only the duration.
    for _ in range(3):
        with Served(*BLOCKING) as served:
            assert chat(served, "match 0.3").status_code == 200
            line = line_of(served, "served nobody")
        if BLOCKED in line:
            break
    assert re.search(r"pipeline answer .* in answer > .* in match: ", line)


def hold(seconds: float) -> None:
    """Keep the interpreter, in one call, until this thread has computed for so many seconds.

    No step is code of Python, so no other thread gets the interpreter in between.
    """
    end = time.thread_time() + seconds
    any(map(end.__le__, iter(time.thread_time, None)))


@contextmanager
def only_when_it_is_left() -> Iterator[None]:
    """Another thread gets the interpreter only from one that waits."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(100)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


async def until_counted(watchdog: Watchdog, blocks: int) -> None:
    async with asyncio.timeout(30):
        while watchdog.blocks < blocks:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)  # so that the watchdog sees the loop beat
    assert watchdog.blocks == blocks


async def test_a_call_that_ended_before_the_watchdog_could_look_is_logged_without_its_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Watchdog() as watchdog:
        await asyncio.sleep(0.3)
        with only_when_it_is_left():
            hold(1.5)
            await until_counted(watchdog, 1)
    [line] = caplog.messages
    assert re.search(r"^the event loop was blocked and served nobody for \d\.\d s: a call kept the interpreter", line)


@pytest.mark.parametrize("unseen", [False, True])
async def test_calls_that_keep_the_interpreter_one_after_another_are_counted_once_each(
    caplog: pytest.LogCaptureFixture, unseen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_FOR", 600.0)  # a machine that is busy with others may take long over all three
    async with Watchdog() as watchdog:
        with only_when_it_is_left() if unseen else nullcontext():
            for blocks in (1, 2, 3):
                await asyncio.sleep(0.3)
                hold(1.5)
                await until_counted(watchdog, blocks)
    assert sum("served nobody" in line for line in caplog.messages) == 1


async def test_other_threads_that_compute_while_the_loop_waits_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    all_began = threading.Barrier(4)  # before one holds the interpreter: to begin another would block the loop

    def compute() -> None:
        all_began.wait()
        hold(0.5)

    async with Watchdog() as watchdog:
        await asyncio.gather(*(asyncio.to_thread(compute) for _ in range(4)))
        await asyncio.sleep(0.5)
    assert watchdog.blocks == 0
    assert caplog.messages == []


def test_a_task_that_the_pipeline_started_is_logged_with_its_line(served: Served) -> None:
    with chatting(served, "child 1.5"):
        assert re.search(r"blocking\.py:\d+ in search > \S+:\d+ in rest: time\.sleep", line_of(served, BLOCKED))


def test_blocks_that_follow_are_counted_and_not_logged_one_by_one(served: Served) -> None:
    for _ in range(2):
        assert chat(served, "sleep 1.2").status_code == 200
    line_of(served, WORKS_AGAIN)
    assert served.stderr.count(BLOCKED) == 1


def test_a_plugin_that_blocks_a_route_is_logged_with_its_line(site: Path) -> None:
    install(site, "slow-plugin", SLOW_ROUTE)
    with Served(*BLOCKING, folder=site) as served, served.client() as client:
        assert client.get("/slow").status_code == 204
        line = line_of(served, BLOCKED)
        assert re.search(r"task Task-\d+ \([\w.]+\) is at \S*slow_plugin\.py:\d+ in slow: time\.sleep\(1\.5\)$", line)


def test_the_time_during_which_the_process_was_stopped_does_not_count() -> None:
    for _ in range(3):  # on a machine that has no processor left, the work itself may take too long
        with Served(*BLOCKING) as served:
            with chatting(served, "compute 0.25"):
                time.sleep(0.1)
                os.kill(served.pid, signal.SIGSTOP)
                time.sleep(1.5)
                os.kill(served.pid, signal.SIGCONT)
            assert chat(served, "nothing").status_code == 200
            log = served.stderr
        if "event loop" not in log:
            break
    assert "event loop" not in log


@pytest.mark.parametrize("command", ["many 20", "debug"])
def test_many_short_calls_and_a_debugger_are_not_logged(served: Served, command: str) -> None:
    assert chat(served, command).status_code == 200
    assert chat(served, "nothing").status_code == 200
    assert "event loop" not in served.stderr


def test_what_a_signal_logs_does_not_bear_the_identifier_of_the_request_that_it_interrupts(served: Served) -> None:
    def block() -> None:
        with served.client() as client:
            body = {"contact_id": "ann", "message": "sleep 1.2"}
            client.post(CHAT, json=body, headers={"x-request-id": "the-blocker"})

    thread = threading.Thread(target=block)
    thread.start()
    line_of(served, BLOCKED)
    os.kill(served.pid, signal.SIGUSR1)
    os.kill(served.pid, signal.SIGUSR2)
    lines = [line_of(served, text) for text in ("runs are open", "SIGUSR1: task", "the log has details")]
    thread.join()
    assert not [line for line in lines if "the-blocker" in line]


def test_a_loop_that_is_not_run_for_a_time_is_not_blocked(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(ctx: ThreadContext) -> None:
        """Answers nothing."""

    async def block() -> None:
        rest(0.5)

    api = create_api(answer, store="memory:")
    with asyncio.Runner() as runner:
        lifespan = api.lifespan()
        runner.run(lifespan.__aenter__())
        rest(1.5)  # as a notebook or a test does between two calls
        assert metric(api.metrics(), "jims_event_loop_late_seconds") == 0
        runner.run(block())
        runner.run(lifespan.__aexit__(None, None, None))
    assert "event loop" not in caplog.text


def test_a_loop_that_is_run_by_other_code_than_at_first_is_not_called_blocked(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(ctx: ThreadContext) -> None:
        """Answers nothing."""

    def enter() -> None:  # as a fixture does, which has returned when the test runs
        runner.run(lifespan.__aenter__())

    api = create_api(answer, store="memory:")
    with asyncio.Runner() as runner:
        lifespan = api.lifespan()
        enter()
        loop = runner.get_loop()
        loop.call_soon(rest, 1.5)
        runner.run(asyncio.sleep(0))
        runner.run(lifespan.__aexit__(None, None, None))
    assert "event loop" not in caplog.text


@pytest.mark.anyio
async def test_the_metrics_show_a_block_while_it_lasts_and_afterwards() -> None:
    async def block(ctx: ThreadContext) -> None:
        rest(1.5)

    api = create_api(block, store="memory:")
    during: list[str] = []
    async with TestClient(api) as client:
        scrape = threading.Timer(1.2, lambda: during.append(api.metrics()))
        scrape.start()
        await client.post(CHAT, json={"contact_id": "ann", "message": "hi"})
        scrape.join()
        await asyncio.sleep(0.5)  # the next beats
        after = api.metrics()
    assert metric(during[0], "jims_event_loop_late_seconds") > 0.5
    assert metric(after, "jims_event_loop_late_seconds") < 1
    assert metric(after, "jims_event_loop_blocks_total") == 1
    count = metric(after, "jims_event_loop_lag_seconds_count")
    assert metric(after, "jims_event_loop_lag_seconds_bucket", le="1.0") == count - 1
