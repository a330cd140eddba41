"""The page for operators names every metric, and its commands and its configuration file work."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.command import python_path, run_command
from tests.docs.snippets import ROOT, blocks, indented, modules
from tests.serving import Served

pytestmark = pytest.mark.anyio


PAGE = "docs/operating.md"
COMMAND = f"{sys.executable} -m jimsapi "


def run_block(start: str, folder: Path) -> str:
    """Run the block of the page that starts so, in `folder`. Returns what it printed."""
    [code] = [code for code in indented(PAGE) if code.startswith(start)]
    done = subprocess.run(
        ["bash", "-euc", re.sub(r"^jimsapi ", COMMAND, code, flags=re.MULTILINE)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": python_path(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_the_configuration_file_of_the_page_is_accepted(tmp_path: Path) -> None:
    [code] = blocks(PAGE, "toml")
    keys = tmp_path / "keys"
    keys.write_text("a-key-that-is-long-enough\n", encoding="utf-8")
    (tmp_path / "jimsapi.toml").write_text(code.replace("/run/secrets/jims-keys", str(keys)), encoding="utf-8")
    ran = run_command("config", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    shown = [line.split("#")[0].strip() for line in ran.stdout.splitlines() if "# jimsapi.toml" in line]
    assert "run_timeout = 120.0" in shown
    assert len(shown) == len(re.findall(r"^\S+ = ", code, re.MULTILINE))


def test_the_commands_for_keys_create_list_and_revoke_one(tmp_path: Path) -> None:
    printed = run_block("install -m 600 /dev/null website.key", tmp_path)
    assert re.search(r'^website: chat only, contact "visitor", expires ', printed)
    key = tmp_path / "website.key"
    assert key.read_text(encoding="utf-8").strip()
    assert key.stat().st_mode & 0o777 == 0o600


def test_the_commands_export_and_delete_a_contact(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(modules("README.md")["bot.py"], encoding="utf-8")
    with (
        Served("--app", "bot:app", "--store", "sqlite:///jims.db", folder=tmp_path) as served,
        served.client() as client,
    ):
        client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"}).raise_for_status()
    [code] = [code for code in indented(PAGE) if code.startswith("jimsapi contacts export")]
    export, delete = code.replace(" --files-store file:///srv/files", "").splitlines()
    assert run_command(*export.split()[1:], cwd=tmp_path).returncode == 0
    with zipfile.ZipFile(tmp_path / "ann.zip") as archive:
        assert b"You said: hi" in archive.read("events.jsonl")
    assert run_command(*delete.split()[1:], "--yes", cwd=tmp_path).returncode == 0
    assert "there is nothing of the contact 'ann'" in run_command(*export.split()[1:], "--force", cwd=tmp_path).stderr


def test_the_commands_show_runs_threads_and_contacts(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(modules("README.md")["bot.py"], encoding="utf-8")
    [code] = [code for code in indented(PAGE) if code.startswith("jimsapi runs list")]
    [cancel] = [code for code in indented(PAGE) if code.startswith("jimsapi runs cancel")]
    (tmp_path / "operator.key").write_text("a-key", encoding="utf-8")
    with (
        Served("--app", "bot:app", "--store", "sqlite:///jims.db", folder=tmp_path) as served,
        served.client() as client,
    ):
        said = client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"}).raise_for_status()
        names = {"$RUN": said.headers["x-run-id"], "$THREAD": said.json()["thread_id"]}
        for line in code.splitlines():
            arguments = [names.get(word, word) for word in line.split()[1:]]
            assert run_command(*arguments, cwd=tmp_path).returncode == 0, line
        words = cancel.replace("http://localhost:8080", served.url).split()[1:]
        ended = run_command(*[names.get(word, word) for word in words], cwd=tmp_path)
        assert "has ended: it is completed" in ended.stderr
    assert b"You said: hi" in (tmp_path / "thread.json").read_bytes()


def test_the_command_for_a_webhook_secret_makes_one_that_the_server_accepts(tmp_path: Path) -> None:
    run_block("echo whsec_", tmp_path)
    ran = run_command("config", cwd=tmp_path, env={"JIMS_WEBHOOK_SECRET_FILE": "webhook.secret"})
    assert ran.returncode == 0, ran.stderr
    assert "webhook_secret" in ran.stdout


async def silent(ctx: ThreadContext) -> None:
    """Answers nothing."""


async def test_the_table_of_metrics_names_those_that_a_scrape_gives_and_no_others() -> None:
    written = re.findall(r"^\| `(jims_\w+)` \|", (ROOT / PAGE).read_text(encoding="utf-8"), re.MULTILINE)
    api = create_api(silent, store="memory:")
    async with TestClient(api):
        families = re.findall(r"^# TYPE (jims_\w+) \w+$", api.metrics(), re.MULTILINE)
    assert sorted(written) == sorted(families)
