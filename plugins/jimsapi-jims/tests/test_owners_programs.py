"""The unchanged client programs of the API's owner, with a server that serves a JIMS app.

Their text is the owner's, indented as the languages have it. They name port 8080, so it must be free.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Served

KEY = "your-secret-bearer-token"
PORT = 8080
FREE_WITHIN = 30.0

BOT = """
import sqlalchemy.ext.asyncio as sa_aio
from jims_core.app import JimsApp

async def echo(ctx):
    ctx.send_message(f"Echo: {ctx.get_last_user_message()}")

app = JimsApp(sa_aio.async_sessionmaker(sa_aio.create_async_engine("sqlite+aiosqlite:///jims.db")), echo)
"""

HTTPX = """\
import httpx
async def ask(message: str, contact_id: str, thread_id=None):
    async with httpx.AsyncClient() as client:
        resp = await client.post(
            "http://localhost:8080/api/v1/chat",
            headers={"Authorization": f"Bearer {API_KEY}"},
            json={"contact_id": contact_id, "message": message, "thread_id": thread_id},
            timeout=60,
        )
        resp.raise_for_status()
        return resp.json()
"""

FETCH = """\
const resp = await fetch("http://localhost:8080/api/v1/chat", {
  method: "POST",
  headers: {
    "Content-Type": "application/json",
    "Authorization": `Bearer ${process.env.VEDANA_API_KEY}`,
  },
  body: JSON.stringify({
    contact_id: userId,
    message: text,
    thread_id: threadId,
  }),
});
const data = await resp.json();
"""

ASK = """
import asyncio, json, sys
import ask

ask.API_KEY = sys.argv[1]
print(json.dumps(asyncio.run(ask.ask(**json.loads(sys.argv[2])))))
"""

FETCH_BEGINS = "const [userId, text, threadId] = JSON.parse(process.argv[2]);\n"
FETCH_ENDS = "console.log(JSON.stringify(data));\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that the programs reach, with the key."""
    folder = tmp_path_factory.mktemp("owner")
    (folder / "bot.py").write_text(BOT)
    wait_for_port()
    options = ("--app", "bot", "--port", str(PORT), "--api-key", KEY)
    with Served(*options, "--store", f"sqlite:///{folder / 'jims.db'}", folder=folder) as server:
        yield server


def wait_for_port() -> None:
    """Wait until no process listens on the programs' port. Another run of the tests may use it."""
    until = time.monotonic() + FREE_WITHIN
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", PORT)) != 0:
                return
        if time.monotonic() > until:
            pytest.fail(f"another program serves port {PORT}, which the owner's programs name: stop it and run again")
        time.sleep(0.2)


def run(*command: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=60, check=False
    )


def python(folder: Path, key: str, **arguments: str | None) -> subprocess.CompletedProcess[str]:
    """Call the owner's `ask` in a process of its own, and print what it returns."""
    (folder / "ask.py").write_text(HTTPX)
    return run(sys.executable, "-c", ASK, key, json.dumps(arguments), cwd=folder)


def node(folder: Path, key: str, user: str, text: str, thread: str | None) -> subprocess.CompletedProcess[str]:
    """Run the owner's lines in Node, and print the data."""
    program = shutil.which("node")
    if program is None:
        pytest.fail(
            "the owner's Node program needs Node 18 or newer: install it (Debian, Ubuntu: apt-get install nodejs)"
        )
    (folder / "chat.mjs").write_text(FETCH_BEGINS + FETCH + FETCH_ENDS)
    return run(program, "chat.mjs", json.dumps([user, text, thread]), cwd=folder, env={"VEDANA_API_KEY": key})


def printed(program: subprocess.CompletedProcess[str]) -> Any:
    assert program.returncode == 0, program.stderr
    return json.loads(program.stdout)


def test_the_httpx_program_talks_and_goes_on_in_its_thread(served: Served, tmp_path: Path) -> None:
    first = printed(python(tmp_path, KEY, message="What are Geneva Durben's interests?", contact_id="user-123"))
    assert first["assistant_messages"] == ["Echo: What are Geneva Durben's interests?"]
    second = printed(python(tmp_path, KEY, message="ü", contact_id="x", thread_id=first["thread_id"]))
    assert (second["thread_id"], second["created_new_thread"]) == (first["thread_id"], False)


def test_the_httpx_program_with_a_wrong_key_raises(served: Served, tmp_path: Path) -> None:
    refused = python(tmp_path, "wrong", message="hi", contact_id="user-123")
    assert refused.returncode != 0
    assert "401 Unauthorized" in refused.stderr


def test_the_node_program_talks_and_goes_on_in_its_thread(served: Served, tmp_path: Path) -> None:
    first = printed(node(tmp_path, KEY, "node-user", "What does she like? 😀", None))
    assert first["assistant_messages"] == ["Echo: What does she like? 😀"]
    second = printed(node(tmp_path, KEY, "node-user", "And he?", first["thread_id"]))
    assert (second["thread_id"], second["created_new_thread"]) == (first["thread_id"], False)


def test_the_node_program_with_a_wrong_key_gets_the_detail(served: Served, tmp_path: Path) -> None:
    assert printed(node(tmp_path, "wrong", "node-user", "hi", None)) == {"detail": "Unauthorized"}
