"""What a start costs: nothing of jims-core for other apps, and never a wait for the network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from jimsapi_jims import PRICES, jimsapi_adapt_app

from jimsapi.plugins.options import Settings

JIMS = """
import sqlalchemy.ext.asyncio as sa_aio
from jims_core.app import JimsApp

async def echo(ctx):
    ctx.send_message(f"Echo: {ctx.get_last_user_message()}")

app = JimsApp(sa_aio.async_sessionmaker(sa_aio.create_async_engine("sqlite+aiosqlite:///jims.db")), echo)
"""

NATIVE = """
async def app(ctx):
    ctx.send_message("native")
"""

CHAT = """
import socket, sys

def look_away(address):
    print("asked for", address, file=sys.stderr)
    raise OSError("no network here")

def connect(self, address):
    look_away(address)

socket.socket.connect = connect
socket.getaddrinfo = lambda host, *rest, **more: look_away(host)

import anyio
from jimsapi import create_api
from jimsapi.asgi.testing import TestClient

async def main():
    async with TestClient(create_api("bot")) as client:
        answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
    print(answer.json()["assistant_messages"], *sorted({"jims_core", "litellm", "sqlalchemy"} & set(sys.modules)))

anyio.run(main)
"""


def chat(folder: Path, bot: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Chat once with an app, in a new process that reaches no network and prints what it asked for."""
    (folder / "bot.py").write_text(bot)
    clean = {name: value for name, value in os.environ.items() if name != PRICES}
    return subprocess.run(
        [sys.executable, "-c", CHAT],
        cwd=folder,
        env={**clean, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def test_a_jims_app_starts_and_answers_without_asking_the_network(tmp_path: Path) -> None:
    ran = chat(tmp_path, JIMS)
    assert ran.stdout == "['Echo: hi'] jims_core litellm sqlalchemy\n"
    assert "asked for" not in ran.stderr


def test_who_wants_the_newest_prices_gets_them_asked_for(tmp_path: Path) -> None:
    ran = chat(tmp_path, JIMS, **{PRICES: "False"})
    assert "asked for raw.githubusercontent.com" in ran.stderr


def test_another_app_does_not_import_jims_core(tmp_path: Path) -> None:
    assert chat(tmp_path, NATIVE).stdout == "['native']\n"


@pytest.mark.parametrize("obj", [None, object(), JIMS, "app", int, chat])
def test_what_is_no_jims_app_is_left_to_others(obj: object) -> None:
    assert jimsapi_adapt_app(obj, Settings([], {}, {})) is None
