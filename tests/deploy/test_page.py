"""docs/deploy.md names files that exist, and commands that a shell and jimsapi understand."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.proxies import DEPLOY
from tests.deploy.units import settings
from tests.serving import ROOT

PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?:^(?: {4}| {6}).*\n|^\n(?= {4}))+", PAGE, re.MULTILINE)
COMMANDS = "".join(block for block in BLOCKS if "[Service]" not in block or "printf" in block)
MADE_BY_THE_STEPS = ("deploy/compose/secrets/", "deploy/kubernetes/production/secrets/")


def test_each_file_of_deploy_that_it_names_exists() -> None:
    named = {path.rstrip(".,") for path in re.findall(r"\bdeploy/[\w./@-]+", PAGE)}
    assert len(named) > 15
    assert [path for path in named if not (ROOT / path).exists() and not path.startswith(MADE_BY_THE_STEPS)] == []


def test_it_names_each_folder_of_deploy() -> None:
    assert [each.name for each in DEPLOY.iterdir() if each.is_dir() and f"deploy/{each.name}" not in PAGE] == []


def test_a_shell_reads_all_commands() -> None:
    subprocess.run(["bash", "-n"], input=COMMANDS, text=True, check=True)


def test_no_command_changes_the_umask_of_later_ones() -> None:
    assert "umask" not in COMMANDS


@pytest.mark.parametrize("command", re.findall(r"jimsapi (keys new (?:.|\\\n)*?) >", COMMANDS))
def test_a_key_is_created_as_it_says(command: str, tmp_path: Path) -> None:
    arguments = shlex.split(command.replace("\\\n", " "))
    if "--keys-file" in arguments:
        arguments[arguments.index("--keys-file") + 1] = str(tmp_path / "keys.json")
    run = [sys.executable, "-m", "jimsapi", *arguments]
    made = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    assert len(made.stdout.split()) == 1
    assert (tmp_path / "keys.json").is_file()


def test_the_unit_reads_what_the_steps_write() -> None:
    service = settings("jimsapi@.service")
    [options], [credential], [command] = service["EnvironmentFile"], service["LoadCredential"], service["ExecStart"]
    for path in (options, credential.partition(":")[2], command):
        written = path.replace("/current/bin/jimsapi", "/current")
        assert re.search(rf"{re.escape(written)}(\s|$)", COMMANDS), path
    keys = dict(line.split("=", 1) for line in service["Environment"])["JIMS_KEYS_FILE"]
    assert f"--keys-file {keys}" in COMMANDS
