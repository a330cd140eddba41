"""A task or a callback that calls `sys.exit()` does not end the server; signals and signal handlers still do."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serving import Served
from tests.waiting import eventually

BOT = """
import asyncio
import signal
import sys

async def leave():
    sys.exit(0)

async def app(ctx):
    loop = asyncio.get_running_loop()
    match ctx.get_last_user_message():
        case "task":
            loop.create_task(leave())
        case "callback":
            loop.call_soon(sys.exit)
        case "timer":
            loop.call_later(0.01, sys.exit)
        case "awaited":
            await loop.create_task(leave())
        case "handler":
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    await asyncio.sleep(0.05)
    ctx.send_message("done")
"""
ROUTES = """
import asyncio
import os
import sys
from jimsapi.asgi import App

app = App()

async def leave():
    sys.exit(0)

@app.get("/exit")
async def exit(request):
    app.left_behind = asyncio.create_task(leave())
    return {"pid": os.getpid()}
"""
HANDLER_OF_THE_APP = "import signal\nimport sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
EXITED = "a task or a callback has called sys.exit()"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bot.py").write_text(BOT)
    return tmp_path


@pytest.fixture(params=["uvloop", "asyncio"])
def served(request: pytest.FixtureRequest, folder: Path) -> Iterator[Served]:
    if request.param == "asyncio":
        hide_uvloop(folder)
    with Served("--app", "bot", folder=folder) as served:
        yield served


def hide_uvloop(folder: Path) -> None:
    """Let servers with `folder` on their path use the event loop of asyncio."""
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['uvloop'] = None\n")


def chat(served: Served, message: str) -> int:
    with served.client() as client:
        return client.post("/api/v1/chat", json={"contact_id": message, "message": message}).status_code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_server_and_its_runs_go_on_after_exits_and_signals_stop_it(served: Served, number: signal.Signals) -> None:
    assert [chat(served, message) for message in ("task", "callback", "timer", "hi")] == [200] * 4
    eventually(lambda: served.stderr.count(EXITED) == 3)
    assert served.stderr.count(f"(at {served.folder}/bot.py:7); the server goes on") == 1
    assert served.stop(number) == 0
    assert "is interrupted" not in served.stderr


def test_a_run_fails_if_it_awaits_a_task_that_exits(served: Served) -> None:
    assert chat(served, "awaited") == 500
    assert chat(served, "hi") == 200


def test_a_signal_handler_of_a_pipeline_still_ends_the_server(folder: Path) -> None:
    hide_uvloop(folder)  # uvloop sometimes drops what a signal handler raises
    with Served("--app", "bot", folder=folder) as served:
        assert chat(served, "handler") == 200
        served.stop()
        assert "the server goes on" not in served.stderr


def test_a_signal_handler_that_an_app_installs_first_still_ends_the_server_after_its_drain(folder: Path) -> None:
    (folder / "bot.py").write_text(HANDLER_OF_THE_APP + BOT)
    with Served("--app", "bot", folder=folder) as served:
        assert chat(served, "task") == 200
        served.stop()
        assert served.stderr.count("the server goes on") == 1
        assert "took longer than --drain-time" not in served.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_go_on_too(folder: Path, number: signal.Signals) -> None:
    (folder / "routes.py").write_text(ROUTES)
    served = Served(folder=folder)
    served.command = [sys.executable, "-m", "jimsapi", "--app", "routes:app", "--port", "0", "--host", "127.0.0.1"]
    served.command += ["--workers", "2"]
    with served:
        eventually(lambda: "2 workers serve the port" in served.stderr)
        pids = {httpx.get(f"{served.url}/exit", timeout=30, trust_env=False).json()["pid"] for _ in range(20)}
        eventually(lambda: served.stderr.count(EXITED) == 20)
        pids |= {httpx.get(f"{served.url}/exit", timeout=30, trust_env=False).json()["pid"] for _ in range(20)}
        assert len(pids) <= 2
        assert served.stop(number) == 0
        assert "has ended" not in served.stderr
