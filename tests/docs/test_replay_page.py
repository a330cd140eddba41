"""The page on replays: its commands print what the page shows, its tests pass, and its picture is of its apps."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import python_path, run_command
from tests.docs.replay_picture import write_page
from tests.docs.snippets import ROOT, blocks, modules
from tests.serving import Served

PAGE = "docs/replay.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
COMPARE, BESIDE, SAVE = blocks(PAGE, "sh")
[SHOWN] = blocks(PAGE, "text")
MESSAGES = ("Do you have a kettle?", "Do you have a teapot?", "What does a mug cost?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules of the page."""
    folder = tmp_path_factory.mktemp("shop")
    for name, code in modules(PAGE).items():
        (folder / name).write_text(code, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def thread(folder: Path) -> str:
    """The thread in which the first version has answered the messages of the page, in `folder`. The server has ended.

    While it runs, the command of the page that gets the events from it is executed.
    """
    with Served("--app", "shop:app", "--store", "sqlite:///shop.db", folder=folder) as served:
        with served.client() as client:
            for message in MESSAGES:
                answer = client.post("/api/v1/chat", json={"contact_id": "ann", "message": message}).json()
        thread: str = answer["thread_id"]
        command = BESIDE.splitlines()[0].replace("http://localhost:8080", served.url)
        subprocess.run(["bash", "-euc", command], cwd=folder, env={**os.environ, "THREAD": thread}, check=True)
    return thread


def run(command: str, folder: Path, thread: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the page."""
    name, *arguments = command.replace("$THREAD", thread).split()
    assert name == "jimsapi"
    return run_command(*arguments, cwd=folder, env={"PYTHONUTF8": "1"})


def test_the_command_prints_what_the_page_shows(folder: Path, thread: str) -> None:
    ran = run(COMPARE, folder, thread)
    assert (ran.returncode, ran.stderr) == (1, "")
    lines = [" ".join(line.split()) for line in ran.stdout.splitlines()]
    for line, shown in zip(lines, SHOWN.splitlines(), strict=True):
        pattern = re.escape(" ".join(shown.split())).replace("…", r"\S+")
        assert re.fullmatch(pattern, line), (line, shown)
    assert "sold out" in (folder / "replay.html").read_text(encoding="utf-8")


def test_the_events_of_a_running_server_can_be_replayed(folder: Path, thread: str) -> None:
    ran = run(BESIDE.splitlines()[1], folder, thread)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "3 turns of 1 conversation: 2 changed, 1 the same" in ran.stdout


def test_the_tests_of_the_page_pass_for_the_first_version_and_fail_for_the_next(folder: Path, thread: str) -> None:
    saved = run(SAVE, folder, thread)
    assert (saved.returncode, saved.stderr) == (0, "")
    passed = run_tests(folder)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    first = (folder / "shop.py").read_text(encoding="utf-8")
    (folder / "shop.py").write_text(first + "\nSTOCK['teapot'] = 1\n", encoding="utf-8")
    failed = run_tests(folder)
    (folder / "shop.py").write_text(first, encoding="utf-8")
    assert "1 failed, 1 passed" in failed.stdout
    assert re.search(r"^E +\+ message: We have 1 of this teapot\.$", failed.stdout, re.MULTILINE)


def run_tests(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": python_path(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_argument_of_the_command_is_on_the_page() -> None:
    from jimsapi.cli.replay import replay_arguments

    for argument in replay_arguments():
        name = argument.opts[0] if argument.param_type_name == "option" else "THREAD"
        assert f"| `{name}" in TEXT


def test_the_picture_can_be_drawn_again_from_50_turns_of_the_apps_of_the_page(tmp_path: Path) -> None:
    html = write_page(tmp_path).read_text(encoding="utf-8")
    assert "50 turns of 1 conversation: 15 changed, 35 the same" in re.sub(r"<[^>]+>", "", html)
    assert "50 turns, of which 15 have changed" in TEXT
