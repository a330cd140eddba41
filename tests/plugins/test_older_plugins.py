"""Plugins that were written before the list of public names work as they are, or after the change that CHANGELOG.md
names."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.docs.snippets import ROOT, install, modules

pytestmark = pytest.mark.anyio

MODULES = modules("tests/plugins/older_plugins.md")
AS_THEY_ARE = sorted(name for name in MODULES if name != "jimsapi_rooms.py")

Change = Callable[[str], str]


@pytest.fixture
def installed(site: Path) -> Path:
    """A folder with all plugins that work as they are."""
    for name in AS_THEY_ARE:
        install(site, name, MODULES[name])
    return site


async def echo(ctx: ThreadContext) -> None:
    ctx.send_message(f"You said: {ctx.get_last_user_message()}")


def moved_modules() -> dict[str, str]:
    """Where the names of older modules are now, by the table in the changelog."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^  \| `(jimsapi[\w.]+)` \| .* \| `(jimsapi[\w.]*)` \|$", text, re.MULTILINE))


def moved_names() -> list[tuple[str, str]]:
    """Each name that the changelog's table lists, with the module where it is now."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    rows = re.findall(r"^  \| `jimsapi[\w.]+` \| (.*) \| `(jimsapi[\w.]*)` \|$", text, re.MULTILINE)
    return [(name, module) for names, module in rows for name in re.findall(r"`(\w+)`", names)]


@pytest.mark.usefixtures("installed")
async def test_hooks_of_older_plugins_do_in_one_server_what_they_did(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    audit = site / "audit.jsonl"
    api = create_api("say:hello", store="memory:", ticket_secret="sesame", audit_file=audit, slow_seconds=0)
    ticket = {"x-ticket": "sesame"}
    message = {"contact_id": "ann", "message": "hi"}
    async with TestClient(api) as client:
        refused = await client.post("/api/v1/chat", json=message)
        answer = await client.post("/api/v1/chat", json=message, headers=ticket)
        desk = await client.post("/desk", json={"text": "Open?"}, headers=ticket)
        motto = await client.get("/api/v1/motto")
        metrics = api.metrics()
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Ticket")  # auth provider, options
    assert answer.json()["assistant_messages"] == ["hello"]  # loader
    assert desk.json() == {"answer": "hello"}  # routes with the service and a body
    assert motto.json() == {"motto": "Ask."}
    assert motto.headers["strict-transport-security"] == "max-age=31536000"  # wrapper
    assert re.search(r"^disk_free_bytes \d", metrics, re.MULTILINE)  # metrics
    runs = [record for record in caplog.records if record.name == "jimsapi_slow"]
    assert len(runs) == 2  # observer
    threads = [orjson.loads(line)["thread"] for line in audit.read_bytes().splitlines()]
    assert threads == [answer.json()["thread_id"]] * 3 + [threads[-1]] * 3  # sink


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("settings", [{}, {"session_pause": 60}])
async def test_resolvers_of_older_plugins_choose_the_threads(settings: dict[str, Any]) -> None:
    api = create_api(echo, store="memory:", **settings)
    async with TestClient(api) as client:
        answers = [
            (await client.post("/api/v1/chat", json={"contact_id": contact, "message": "hi"})).json()
            for contact in ("ann", "ann", "ben")
        ]
    threads = [answer["thread_id"] for answer in answers]
    assert threads[0] == threads[1] != threads[2]


async def test_an_older_adapter_recognizes_its_app(installed: Path) -> None:
    (installed / "lines.py").write_text("from jimsapi_script import Script\n\napp = Script({'hi': 'Hello!'})\n")
    async with TestClient(create_api("lines", store="memory:")) as client:
        answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
    assert answer.json()["assistant_messages"] == ["Hello!"]


def test_an_older_command_is_a_subcommand_and_the_check_accepts_the_plugins(installed: Path) -> None:
    mint = run(installed, "mint")
    assert (mint.returncode, len(mint.stdout.strip()) > 20) == (0, True), mint.stderr
    check = run(installed, "check", "--app", "say:hello", "--store", "memory:", "--ticket-secret", "sesame")
    assert check.returncode == 0, check.stdout + check.stderr
    for name in AS_THEY_ARE:
        assert name.removesuffix(".py").replace("_", "-") in check.stdout


def test_the_start_names_the_line_of_an_import_that_has_moved(site: Path) -> None:
    install(site, "jimsapi_rooms.py", MODULES["jimsapi_rooms.py"])
    check = run(site, "check", "--store", "room:support")
    assert check.returncode == 1
    assert "No module named 'jimsapi.threads.sqlite'" in check.stderr
    assert "jimsapi_rooms.py:5" in check.stderr


async def test_a_plugin_whose_import_has_moved_works_after_the_change_that_the_changelog_names(site: Path) -> None:
    code = MODULES["jimsapi_rooms.py"]
    changed = code.replace("jimsapi.threads.sqlite", moved_modules()["jimsapi.threads.sqlite"])
    install(site, "jimsapi_rooms.py", changed)
    for created in (True, False):
        async with TestClient(create_api(echo, store="room:support")) as client:
            answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
            assert answer.json()["created_new_thread"] is created
    assert (site / "support.db").is_file()


def test_each_name_that_the_changelog_says_has_moved_is_public_where_it_says() -> None:
    names = moved_names()
    assert len(names) > 20
    for name, module in names:
        assert name in importlib.import_module(module).__all__, (name, module)


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jimsapi", *arguments],
        cwd=site,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
