"""What the client's page shows works as it stands there, and prints what it says."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import python_path
from tests.docs.snippets import ROOT, blocks, modules
from tests.serving import Served

PAGE = "docs/client.md"
ADDRESS = "http://localhost:8080"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of the README's bot."""
    folder = tmp_path_factory.mktemp("bot")
    (folder / "bot.py").write_text(modules("README.md")["bot.py"], encoding="utf-8")
    with Served("--app", "bot:app", folder=folder) as server:
        yield server


def test_each_example_prints_what_the_page_says(served: Served, tmp_path: Path) -> None:
    examples, printed = blocks(PAGE, "python"), blocks(PAGE, "text")
    assert len(examples) == len(printed) == 4
    for code, expected in zip(examples, printed, strict=True):
        ran = subprocess.run(
            [sys.executable, "-c", code.replace(ADDRESS, served.url)],
            cwd=tmp_path,
            env={**served.env, "PYTHONPATH": python_path()},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (ran.stdout, ran.stderr) == (expected, "")


def test_the_terminal_chat_answers(served: Served) -> None:
    [command] = blocks(PAGE, "sh")
    arguments = command.replace(ADDRESS, served.url).split()
    assert arguments.pop(0) == "jimsapi"
    ran = subprocess.run(
        [sys.executable, "-m", "jimsapi", *arguments],
        input="Hello\n",
        env=served.env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("You said: Hello\n", "")


def test_the_page_names_all_that_the_client_exports() -> None:
    import jimsapi.client

    text = (ROOT / PAGE).read_text(encoding="utf-8")
    inner = {"ChatEvent", "Item", "MessageFields", "Run", "RunFault"}
    assert set(jimsapi.client.__all__) - inner - set(re.findall(r"\w+", text)) == set()
