"""The page on agents: its pipeline is served, its test passes, and what a client reads is what the page shows."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.command import python_path
from tests.docs.snippets import ROOT, blocks, modules
from tests.serving import Served

PAGE = "docs/agents.md"
[WATCH, WANT, APPROVE, _LOOK, ASK] = blocks(PAGE, "sh")
[QUESTION] = blocks(PAGE, "json")
[SHOWN] = blocks(PAGE, "text")


def write_modules(folder: Path) -> None:
    for name, code in modules(PAGE).items():
        Path(folder, name).write_text(code, encoding="utf-8")


def output(app: str, command: str, folder: Path) -> str:
    """What a command of the page prints while `app` is served."""
    write_modules(folder)
    with Served("--app", app, folder=folder) as served:
        command = command.replace("http://localhost:8080", served.url)
        done = subprocess.run(
            ["bash", "-euc", command], env=served.env, capture_output=True, text=True, check=True, timeout=30
        )
    return done.stdout


def test_a_client_reads_what_the_page_shows(tmp_path: Path) -> None:
    lines = [line for line in output("agent:app", WATCH, tmp_path).splitlines() if line and not line.startswith("id: ")]
    shown = SHOWN.splitlines()
    assert len(lines) == len(shown) + 4  # `started` and `result` are not shown
    for line, pattern in zip(lines[2:], shown, strict=False):
        assert re.fullmatch(re.escape(pattern).replace("…", "[^,{}]+"), line), line


def test_the_pipeline_of_the_page_reads_the_metadata(tmp_path: Path) -> None:
    answer = json.loads(output("located:app", ASK, tmp_path))
    assert answer["assistant_messages"] == ["You ask from /checkout."]


def test_a_person_answers_the_question_of_the_page(tmp_path: Path) -> None:
    keep = """echo "$answer"
QUESTION=$(echo "$answer" | grep -o '"question_id":"[^"]*"' | tail -1 | cut -d'"' -f4)
"""
    command = f"answer=$({WANT.strip()})\n{keep}{APPROVE}"
    asked, answered = output("refunds:app", command, tmp_path).splitlines()
    shown = json.loads(QUESTION)["questions"]
    assert [{**question, "question_id": "…"} for question in json.loads(asked)["questions"]] == shown
    assert json.loads(answered)["assistant_messages"] == ["Done: R-1."]


def test_callers_do_not_get_the_private_events_of_the_page(tmp_path: Path) -> None:
    answer = json.loads(output("discreet:app", ASK, tmp_path))
    assert [event["event_type"] for event in answer["events"]] == ["comm.assistant_message"]


def test_the_test_of_the_page_passes(tmp_path: Path) -> None:
    write_modules(tmp_path)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_agent.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": python_path(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_readme_leads_to_the_page() -> None:
    assert f"({PAGE})" in (ROOT / "README.md").read_text(encoding="utf-8")
