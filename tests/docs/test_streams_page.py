"""The page on streams and runs: its pipeline is served, its commands are run, and what they print is what it shows."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.snippets import blocks, modules
from tests.serving import Served

PAGE = "docs/streams-and-runs.md"
WATCH, RESUME, BEGIN, SHOW, CANCEL, LIST = blocks(PAGE, "sh")
[SHOWN] = blocks(PAGE, "text")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("page")
    for name, code in modules(PAGE).items():
        Path(folder, name).write_text(code, encoding="utf-8")
    with Served("--app", "slow:app", folder=folder) as server:
        yield server


def shell(served: Served, command: str, run_id: str = "") -> str:
    command = command.replace("http://localhost:8080", served.url)
    done = subprocess.run(
        ["bash", "-euc", command],
        env={**served.env, "RUN": run_id},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout.replace("\r", "")


def test_a_chat_is_watched_as_the_page_shows_it(served: Served) -> None:
    lines = iter(shell(served, WATCH).splitlines())
    for shown in SHOWN.splitlines():
        pattern = re.escape(shown).replace("…", ".*")
        assert any(re.fullmatch(pattern, line) for line in lines), shown


def test_a_stream_goes_on_after_the_id_that_was_read_and_names_its_run(served: Served) -> None:
    whole = shell(served, WATCH)
    run_id = re.search(r'"run_id":"([^"]+)"', whole)
    assert run_id is not None
    rest = shell(served, RESUME, run_id[1])
    assert whole.endswith(rest)
    assert re.findall("^id: (.*)$", rest, re.MULTILINE) == ["4", "5", "6", "end"]


def test_a_run_is_begun_shown_and_cancelled(served: Served) -> None:
    for _ in range(3):  # those before it in the thread hold it up meanwhile
        shell(served, BEGIN)
    begun = shell(served, BEGIN)
    run_id = re.search(r"^location: /api/v1/runs/(\S+)$", begun, re.MULTILINE)
    assert begun.startswith("HTTP/1.1 202")
    assert run_id is not None
    assert '"finished_at":null,"result":null,"error":null' in shell(served, SHOW, run_id[1])
    assert shell(served, CANCEL, run_id[1]).startswith("HTTP/1.1 202")
    shown = shell(served, SHOW, run_id[1])
    assert '"status":"cancelled"' in shown
    assert '"error":{"detail":"The run was cancelled","status":409}' in shown
    assert shell(served, CANCEL, run_id[1]).startswith("HTTP/1.1 409")


def test_the_list_of_runs_has_the_fields_that_the_page_names(served: Served) -> None:
    shell(served, WATCH)
    command = LIST.replace("status=failed", "status=completed")
    listed = json.loads(shell(served, command))["runs"]
    assert {run["status"] for run in listed} <= {"completed", "running"}
    text = (Path(__file__).parents[2] / PAGE).read_text(encoding="utf-8").partition("## List runs")[2]
    assert all(f"`{field}`" in text for field in listed[0])
