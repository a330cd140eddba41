"""The plugin in the real command: found, built, and of no cost where it is not asked for."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from database import Postgres

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.serving import ROOT, Served

PLUGIN = Path(__file__).parents[1]

UNCONFIGURED = """
import sys
from jimsapi.plugins.manager import PluginManager
from jimsapi.builtin import builtin_plugins
from jimsapi.cli.main import command_line
manager = PluginManager(builtin_plugins())
command_line([])
assert "jimsapi_postgres" in sys.modules
from jimsapi_postgres import jimsapi_thread_store
assert jimsapi_thread_store("sqlite:///x.db") is None
print("asyncpg" in sys.modules, "jimsapi_postgres.store" in sys.modules)
"""


def _run(*arguments: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
    )


def test_an_unconfigured_plugin_imports_no_driver(tmp_path: Path) -> None:
    done = _run("-c", UNCONFIGURED, cwd=tmp_path)
    assert done.stdout == "False False\n", done.stderr


def test_the_command_upgrades_a_database_and_says_what_it_did(
    tmp_path: Path, postgres: Postgres, database: str, url: str
) -> None:
    first = _run("-m", "jimsapi", "db", "upgrade", "--store", url, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "from version 0 to 10" in first.stdout
    (tmp_path / "url").write_text(url + "\n")
    for environment in ({"JIMS_STORE": url}, {"JIMS_STORE_FILE": str(tmp_path / "url")}):
        again = _run("-m", "jimsapi", "db", "upgrade", cwd=tmp_path, **environment)
        assert again.returncode == 0, again.stderr
        assert "at version 10; there is nothing to do" in again.stdout
    assert postgres.psql("SELECT version FROM jimsapi_schema", database) == "10"
    assert list(tmp_path.iterdir()) == [tmp_path / "url"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name the database with --store"),
        (("--store", "mysql://h/d"), "give one of postgresql://"),
        (("--store", "postgresql://postgres:geheim@127.0.0.1:1/d"), "cannot be used"),
    ],
)
def test_the_command_that_cannot_upgrade_says_why(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = _run("-m", "jimsapi", "db", "upgrade", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert "geheim" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_check_builds_the_store_without_a_trace(tmp_path: Path, postgres: Postgres, database: str, url: str) -> None:
    (tmp_path / "bot.py").write_text("async def app(ctx): ctx.send_message('hi')\n")
    done = _run("-m", "jimsapi", "check", "--app", "bot:app", "--store", url, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"127.0.0.1:{postgres.port}/{database}" in done.stdout
    assert postgres.psql("SELECT count(*) FROM pg_class WHERE relname LIKE 'jimsapi%'", database) == "0"


@pytest.mark.anyio
async def test_two_apis_on_one_database_share_a_conversation(url: str) -> None:
    async def count(ctx: ThreadContext) -> None:
        await asyncio.sleep(0)
        ctx.send_message(f"{len(ctx.history)}")

    first, second = create_api(count, store=url), create_api(count, store=url)
    async with first.lifespan(), second.lifespan():
        clients = TestClient(first), TestClient(second)
        said: list[Any] = []
        for turn in range(6):
            body = {"contact_id": "ann", "message": "hi"}
            answer = await clients[turn % 2].post("/api/v1/chat", json=body)
            assert answer.status_code == 200
            said += answer.json()["assistant_messages"]
        assert said == ["1", "3", "5", "7", "9", "11"]


def test_check_refuses_a_faulty_port_in_the_words_of_the_start_without_the_password(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("async def app(ctx): pass")
    options = ["--app", "bot", "--port", "0", "--metrics-port", "0", "--store", "postgresql://u:sesame@h:notaport/d"]
    check, start = (
        _run("-m", "jimsapi", *command, *options, cwd=tmp_path, PYTHONPATH=f"{ROOT}:{PLUGIN}")
        for command in (["check"], [])
    )
    assert (check.returncode, start.returncode) == (1, 1)
    assert (
        check.stderr.splitlines()[-1]
        == start.stderr.splitlines()[-1]
        == ("jimsapi: --store postgresql://***@h:notaport/d: the port 'notaport' is not a whole number from 1 to 65535")
    )


def test_check_with_connect_opens_the_database_beside_a_server_that_uses_it(
    url: str, server: Callable[..., Served], tmp_path: Path
) -> None:
    (tmp_path / "store").write_text(f"{url}\n")
    (tmp_path / "gone").write_text("postgresql://postgres:geheim@127.0.0.1:1/d\n")
    (tmp_path / "bot.py").write_text("async def app(ctx): pass\n")
    check = ("-m", "jimsapi", "check", "--connect", "--app", "bot", "--port", "0", "--metrics-port", "0")
    with server(url) as served, served.client() as client:
        done = _run(*check, cwd=tmp_path, PYTHONPATH=str(ROOT), JIMS_STORE_FILE="store")
        assert done.returncode == 0, done.stderr
        assert "it answers: store postgresql://" in done.stdout
        assert client.get("/readyz").status_code == 200
    gone = _run(*check, cwd=tmp_path, PYTHONPATH=str(ROOT), JIMS_STORE_FILE="gone")
    assert gone.returncode == 1
    assert "cannot be used" in gone.stderr
    assert "geheim" not in gone.stderr
