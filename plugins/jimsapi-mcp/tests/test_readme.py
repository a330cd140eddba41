"""The programs of the README work as they stand there."""

import subprocess
import sys
from pathlib import Path

import pytest
from mcp_wire import FORMS, PATH, chat, modern, result

from tests.docs.snippets import modules
from tests.serving import Served

PROGRAMS = modules("plugins/jimsapi-mcp/README.md")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "bot.py").write_text(PROGRAMS["bot.py"], encoding="utf-8")
    return tmp_path


def test_the_app_is_called_by_the_program_and_asks_for_a_refund(program: Path) -> None:
    with Served("--app", "bot:app", folder=program) as server, server.client() as client:
        ask = PROGRAMS["ask.py"].replace("http://127.0.0.1:8000", server.url)
        ran = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=60)
        assert ran.stdout == "I pay money back. Which order is it?\n", ran.stderr
        [first, *_] = result(client.post(PATH, **modern("tools/list")))["tools"]
        assert (first["title"], first["description"].split("\n")[0]) == ("refunds", "Pays customers of the shop back.")
        asked = result(client.post(PATH, **modern("tools/call", chat("refund order 7"), capabilities=FORMS)))
        [request] = asked["inputRequests"].values()
        assert request["params"]["requestedSchema"]["properties"]["answer"]["enum"] == ["yes", "no"]
