"""The page for developers who used the Assistants API: its pipeline is served, and its programs do what it says."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.snippets import modules
from tests.serving import Served

PROGRAMS = modules("docs/from-assistants.md")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "support.py").write_text(PROGRAMS["support.py"], encoding="utf-8")
    with Served("--app", "support:app", "--api-key", "KEY", folder=folder) as server:
        yield server, folder


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        (
            "converse.py",
            [
                "4 words, after 0 earlier messages",
                "2 words, after 1 earlier messages",
                *["message", "mcp_call", "message"] * 2,
            ],
        ),
        ("later.py", ["completed 4 words, after 0 earlier messages", "2 words, after 1 earlier messages"]),
        ("decide.py", ["The money is on its way."]),
        ("bring.py", ["5 words, after 1 earlier messages"]),
    ],
)
def test_a_program_of_the_page_prints_what_it_says(page: tuple[Served, Path], program: str, printed: list[str]) -> None:
    served, folder = page
    path = folder / program
    path.write_text(PROGRAMS[program].replace("http://localhost:8080", served.url), encoding="utf-8")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.splitlines()) == (0, printed), done.stderr


def test_every_program_of_the_page_is_run() -> None:
    assert PROGRAMS.keys() == {"support.py", "converse.py", "later.py", "decide.py", "bring.py"}
