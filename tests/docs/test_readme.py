"""What the README shows works as it stands there."""

import contextlib
import importlib
import io
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from jimsapi import create_api
from jimsapi.asgi.testing import TestClient
from tests.docs.snippets import ROOT, blocks, indented, modules, pip_install
from tests.serving import Served

pytestmark = pytest.mark.anyio

PAGE = "README.md"
MODULES = modules(PAGE)
HELLO = {"contact_id": "ann", "message": "hi"}


@pytest.fixture
def bot(site: Path) -> Path:
    for name in ("bot.py", "service.py", "website.py"):
        (site / name).write_text(MODULES[name], encoding="utf-8")
    return site


@pytest.fixture
def example(site: Path) -> Iterator[str]:
    """The example, served by the command. Gives its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--app", "examples.interests:app", "--host", "127.0.0.1", "--port", str(port), "--metrics-port", "0"]
    server = subprocess.Popen(
        [sys.executable, "-m", "jimsapi", *options, "--store", f"sqlite:///{site / 'readme.db'}"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "INTERESTS_"))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    try:
        # The command binds the port before anything else: a request waits in its backlog until the start is done.
        said = next((line for line in server.stdout if str(port) in line), None)
        assert said is not None, "the server ended before it said where it serves"
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.communicate(timeout=30)


def test_the_python_example_asks_the_example_app(example: str) -> None:
    [code] = [code for code in blocks(PAGE, "python") if "httpx" in code]
    assert "http://localhost:8080" in code
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code.replace("http://localhost:8080", example), PAGE, "exec"), {})
    assert "Geneva Durben" in said.getvalue()


def test_curl_and_node_ask_the_same_of_the_same_address() -> None:
    [python] = [code for code in blocks(PAGE, "python") if "httpx" in code]
    for code in (*blocks(PAGE, "sh"), *blocks(PAGE, "js"), python):
        assert "http://localhost:8080" in code
        assert "/api/v1/chat" in code
        assert re.search(r'"?contact_id"?: "me", "?message"?: "Who likes Quokkas\?"', code)


def test_the_quick_start_s_commands_serve_the_bot_and_send_it_a_message(bot: Path) -> None:
    serve, message = indented(PAGE)[1:3]
    assert serve == "jimsapi --app bot:app"
    with Served(*serve.split()[1:], folder=bot) as served:
        assert sent(message, served, bot)["assistant_messages"] == ["You said: Hello"]


def test_the_commands_for_a_key_create_one_with_which_a_caller_chats(bot: Path) -> None:
    [start] = [code for code in indented(PAGE) if "jimsapi keys new" in code]
    [message] = [code for code in indented(PAGE) if "Authorization: Bearer" in code]
    *create, serve = start.splitlines()
    code = "\n".join(create).replace("jimsapi keys", f"{sys.executable} -m jimsapi keys")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", "-euc", code], cwd=bot, env=env, capture_output=True, check=True, timeout=60)
    assert (bot / "me.key").stat().st_mode & 0o777 == 0o600
    with Served(*serve.split()[1:], folder=bot) as served:
        assert sent(message, served, bot)["assistant_messages"] == ["You said: Hello"]
        with served.client() as client:
            assert client.post("/api/v1/chat", json=HELLO).status_code == 401


def sent(curl: str, served: Served, folder: Path) -> Any:
    """The server's answer to a command of the page."""
    code = curl.replace("http://localhost:8080", served.url).replace("curl", "curl --silent")
    done = subprocess.run(["bash", "-euc", code], cwd=folder, capture_output=True, check=True, timeout=30)
    return orjson.loads(done.stdout)


async def test_the_first_message_gets_the_answer_that_the_page_shows(bot: Path) -> None:
    [shown] = [orjson.loads(code) for code in blocks(PAGE, "json")]
    async with TestClient(create_api("bot:app", store="memory:")) as client:
        answer = await client.post("/api/v1/chat", json={"contact_id": "me", "message": "Hello"})
    got = orjson.loads(answer.content)
    assert UUID(shown.pop("thread_id")).version == UUID(got.pop("thread_id")).version
    assert got == shown


async def test_the_embedded_api_answers_and_keeps_threads_where_it_says(bot: Path) -> None:
    async with TestClient(importlib.import_module("service").api) as client:
        answer = await client.post("/api/v1/chat", json=HELLO)
    assert answer.json()["assistant_messages"] == ["You said: hi"]
    assert (bot / "jims.db").is_file()


async def test_the_api_mounted_in_starlette_answers_below_its_prefix(bot: Path) -> None:
    async with TestClient(importlib.import_module("website").site) as client:
        answer = await client.post("/bot/api/v1/chat", json=HELLO)
    assert answer.json()["assistant_messages"] == ["You said: hi"]


@pytest.mark.parametrize(("ticket", "status"), [("sesame", 200), ("simsim", 401), (None, 401)])
async def test_the_ticket_plugin_installed_by_pip_admits_its_bearer_and_nobody_else(
    bot: Path, tmp_path: Path, ticket: str | None, status: int
) -> None:
    pip_install(PAGE, "jimsapi_ticket.py", tmp_path / "jimsapi-ticket", bot)
    headers = {} if ticket is None else {"x-ticket": ticket}
    async with TestClient(create_api("bot:app", store="memory:", ticket_secret="sesame"), headers=headers) as client:
        answer = await client.post("/api/v1/chat", json=HELLO)
    assert answer.status_code == status
