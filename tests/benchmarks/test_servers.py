"""What the benchmarks start and ask, with the Python of the tests in place of environments of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest

from benchmarks.answers import check_chat, check_framework, check_parts
from benchmarks.apps.features import FEATURES
from benchmarks.caller import Caller, is_whole
from benchmarks.environments import ROOT
from benchmarks.installed import install_idle
from benchmarks.serving import Server, free_port


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


def test_an_answer_is_not_whole_before_its_last_byte() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nx: y\r\n\r\nbody"
    assert [is_whole(answer[:length]) for length in range(len(answer) + 1)] == [False] * len(answer) + [True]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [((), "wrk, the load generator, is missing"), (("framwork",), "no suite framwork; there are")],
)
def test_what_is_missing_or_mistaken_is_told_before_anything_is_made(arguments: tuple[str, ...], told: str) -> None:
    done = run("-m", "benchmarks", *arguments, PATH="/nowhere")
    assert done.returncode
    assert told in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("feature", FEATURES)
def test_each_feature_can_be_left_out_of_what_is_measured(feature: str) -> None:
    code = "import sys; from benchmarks.apps.without import WITHOUT; WITHOUT[sys.argv[1]]()"
    done = run("-c", code, feature)
    assert done.returncode == 0, done.stderr


def test_every_kind_of_request_whose_instructions_are_counted_is_answered() -> None:
    done = run("-m", "benchmarks.in_process")
    assert done.returncode == 0, done.stderr


def test_idle_plugins_are_installed_plugins(tmp_path: Path) -> None:
    environment = install_idle(tmp_path, 20)
    assert len(list(distributions(path=[str(tmp_path)]))) == 20
    listed = run("-m", "jimsapi", "plugins", **environment)
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.count("idle_plugin_") >= 20
