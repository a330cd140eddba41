"""The page on agents: its pipeline is served, its test passes, and what a client reads is what the page shows."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.command import python_path, run_command
from tests.docs.snippets import blocks, modules
from tests.serving import Served

PAGE = "docs/agents.md"
[WATCH, WANT, APPROVE, _LOOK, TITLE, ASK, SAVE] = blocks(PAGE, "sh")
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
            ["bash", "-euc", command],
            cwd=folder,
            env=served.env,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    return done.stdout


def test_a_client_reads_what_the_page_shows(tmp_path: Path) -> None:
    lines = [line for line in output("agent:app", WATCH, tmp_path).splitlines() if line and not line.startswith("id: ")]
    for line, pattern in zip(lines, SHOWN.splitlines(), strict=True):
        expected = re.escape(pattern).replace(r"\[…\]", r"\[.+\]").replace("…", "[^,{}]+")
        assert re.fullmatch(expected, line), line


def test_the_pipeline_of_the_page_reads_the_metadata(tmp_path: Path) -> None:
    answer = json.loads(output("located:app", ASK, tmp_path))
    assert answer["assistant_messages"] == ["You ask from /checkout."]


def asked_and_answered(app: str, folder: Path) -> list[str]:
    """The answers to the message with which the page asks for a refund, and to that with which it approves."""
    return output(app, f"{WANT}echo\n{APPROVE}", folder).splitlines()


def test_the_first_pipeline_of_the_page_gives_the_agent_the_messages_of_the_thread(tmp_path: Path) -> None:
    said = [json.loads(line) for line in output("begin:app", f"{ASK}\necho\n{ASK}", tmp_path).splitlines()]
    assert [one["assistant_messages"] for one in said] == [["You have sent 1 messages."], ["You have sent 2 messages."]]


def test_a_question_of_the_page_that_a_model_has_decided_keeps_its_decision(tmp_path: Path) -> None:
    asked, answered = map(json.loads, asked_and_answered("deciding:app", tmp_path))
    assert asked["assistant_messages"] == ["I have to ask first."]
    assert answered["assistant_messages"] == ["You said yes."]
    assert [event["event_type"] for event in answered["events"]] == ["tool.call", "comm.assistant_message"]


def test_a_tool_of_the_page_before_the_question_is_recorded_once(tmp_path: Path) -> None:
    asked, answered = map(json.loads, asked_and_answered("looked_up:app", tmp_path))
    recorded = [event["event_type"] for event in asked["events"]]
    assert (recorded.count("tool.call"), recorded.count("model.usage")) == (1, 1)
    assert [event["event_type"] for event in answered["events"]] == ["comm.assistant_message"]
    assert answered["assistant_messages"] == ["Order 17 is refunded."]


def test_the_title_of_the_page_is_in_the_list_of_threads(tmp_path: Path) -> None:
    [thread] = json.loads(output("titled:app", TITLE, tmp_path))["threads"]
    assert thread["title"] == "Life of Quokkas"


def test_a_person_answers_the_question_of_the_page(tmp_path: Path) -> None:
    asked, answered = asked_and_answered("refunds:app", tmp_path)
    shown = json.loads(QUESTION)["questions"]
    assert [{**question, "question_id": "…"} for question in json.loads(asked)["questions"]] == shown
    assert json.loads(answered)["assistant_messages"] == ["Done: R-1."]


def test_callers_do_not_get_the_private_events_of_the_page(tmp_path: Path) -> None:
    answer = json.loads(output("discreet:app", ASK, tmp_path))
    assert [event["event_type"] for event in answer["events"]] == ["comm.assistant_message"]


def test_the_test_of_the_page_passes(tmp_path: Path) -> None:
    write_modules(tmp_path)
    ran = run_tests("test_agent.py", tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_saved_conversation_is_a_test_that_fails_when_the_answer_changes(tmp_path: Path) -> None:
    write_modules(tmp_path)
    served = Served("--app", "agent:app", "--store", "sqlite:///agent.db", folder=tmp_path)
    with served, served.client() as client:
        message = {"contact_id": "me", "message": "Where do Quokkas live?"}
        thread = client.post("/api/v1/chat", json=message).json()["thread_id"]
    name, *arguments = SAVE.replace("$THREAD", thread).split()
    saved = run_command(*arguments, cwd=tmp_path)
    assert (name, saved.returncode, saved.stderr) == ("jimsapi", 0, "")
    passed = run_tests("test_replay.py", tmp_path)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    agent = tmp_path / "agent.py"
    agent.write_text(agent.read_text().replace("live on", "still live on"))
    failed = run_tests("test_replay.py", tmp_path)
    assert "still live on Rottnest" in failed.stdout
    assert failed.returncode == 1


def run_tests(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": python_path(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
