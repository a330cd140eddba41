"""What the benchmarks start and ask, with the Python of the tests in place of environments of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.answers import check_chat, check_framework, check_parts
from benchmarks.apps import agent
from benchmarks.caller import Caller
from benchmarks.environments import ROOT
from benchmarks.load import CHAT, load
from benchmarks.rows import CALLS, MESSAGES, fill_sqlite
from benchmarks.serving import ENVIRONMENT, Server, free_port
from benchmarks.suites.conversation import PLUGINS, install_all
from jimsapi import create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.stores.sqlite import SQLiteStore

pytestmark = pytest.mark.anyio


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python from the root."""
    told = {**os.environ, "BENCHMARK_KEY": "key", **environment}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=told, capture_output=True, text=True)


@pytest.fixture(scope="module")
def raw() -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.apps.raw:app", "--port", str(port)]
    with Server(command, port, environment={"BENCHMARK_ROUTES": "1000"}) as server:
        yield server


def test_the_floor_answers_as_all_must(raw: Server) -> None:
    check_framework("raw", raw)
    check_parts("raw", raw)
    check_chat("raw", raw)


def test_a_server_that_answers_otherwise_is_not_measured(raw: Server) -> None:
    with pytest.raises(AssertionError, match="liar"):
        check_chat("liar", raw, "/nowhere")


@pytest.mark.parametrize(("silent", "runs"), [(0, 1), (1, 2), (2, 3)])
def test_a_load_generator_that_said_nothing_is_started_again(
    raw: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: int, runs: int
) -> None:
    generator = tmp_path / "wrk"
    starts = tmp_path / "starts"
    generator.write_text(
        f'#!/bin/sh\necho >>"{starts}"\n[ "$(wc -l <"{starts}")" -gt {silent} ] && echo RESULT 7 0 2000000 1000 3000\n'
    )
    generator.chmod(0o755)
    monkeypatch.setitem(ENVIRONMENT, "PATH", f"{tmp_path}:{ENVIRONMENT['PATH']}")
    assert load(raw, CHAT, seconds=5, connections=1).requests == 7
    assert starts.read_text().count("\n") == runs


def test_no_setting_of_the_one_who_measures_reaches_a_server() -> None:
    code = "from benchmarks.serving import ENVIRONMENT; print(*ENVIRONMENT)"
    set_up = {"JIMS_STORE": "memory:", "UVICORN_WORKERS": "2", "WEB_CONCURRENCY": "2", "PYTHONDEVMODE": "1"}
    passed_on = run("-c", code, OTHER="kept", **set_up).stdout.split()
    assert "OTHER" in passed_on
    assert not set(set_up) & set(passed_on)


def test_a_caller_reads_answer_after_answer_and_notices_one_that_is_not_due(raw: Server) -> None:
    caller = Caller(raw.port)
    for number in range(3):
        spent = caller(f"contact {number}", new=True)
        assert 0 <= spent.own <= spent.seconds
    with pytest.raises(RuntimeError, match="'contact 3'"):
        caller("contact 3")  # to raw everybody is new


@pytest.mark.parametrize(
    ("arguments", "told"),
    [((), "wrk, the load generator, is missing"), (("framwork",), "no suite framwork; there are")],
)
def test_what_is_missing_or_mistaken_is_told_before_anything_is_made(arguments: tuple[str, ...], told: str) -> None:
    done = run("-m", "benchmarks", *arguments, PATH="/nowhere")
    assert done.returncode
    assert told in done.stderr
    assert done.stdout == ""


def test_every_kind_of_request_whose_instructions_are_counted_is_answered() -> None:
    done = run("-m", "benchmarks.in_process")
    assert done.returncode == 0, done.stderr


def test_all_that_conversations_may_have_is_installed_for_the_measurement(tmp_path: Path) -> None:
    listed = run("-m", "jimsapi", "plugins", **install_all(tmp_path))
    assert listed.returncode == 0, listed.stderr
    for name in PLUGINS:
        assert f"jimsapi_{name}" in listed.stdout, name


async def test_a_chat_beside_all_that_is_idle_is_answered_as_any_other() -> None:
    async with TestClient(create_api(agent.app, store="memory:")) as client:
        answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "Hello?"})
        assert answer.json()["assistant_messages"] == ["Hello?"]
        asked = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "/do it"})
        assert [question["key"] for question in asked.json()["questions"]] == ["go"]


async def test_threads_of_calls_of_tools_are_written_and_forked(tmp_path: Path) -> None:
    path = tmp_path / "jims.db"
    async with SQLiteStore(path):
        pass
    fill_sqlite(path, [("ann", CALLS, 30), ("bea", MESSAGES, 2)])
    async with TestClient(create_api(agent.app, store=f"sqlite:///{path}")) as client:
        thread_id = (await client.get("/api/v1/threads?contact_id=ann")).json()["threads"][0]["thread_id"]
        fork = await client.post(f"/api/v1/threads/{thread_id}/fork", json={})
        events = await client.get(f"/api/v1/threads/{fork.json()['thread_id']}/events")
        kinds = [event["event_type"] for event in events.json()["events"]]
        assert kinds == ["tool.call"] * 30
