"""The command's arguments: every flag of the promise, its default, and its variable."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from jimsapi.cli import main
from jimsapi.cli.main import SUBCOMMANDS, command_line
from jimsapi.cli.options import all_options
from jimsapi.plugins.options import specs
from tests.command import ROOT, refusal, run_command

DEFAULTS = {
    "--app": "app",
    "--host": "0.0.0.0",
    "--port": 8080,
    "--api-key": (),
    "--keys-file": None,
    "--ssl-ca-certs": None,
    "--rate-limit": None,
    "--identity-rate-limit": None,
    "--contact-runs": None,
    "--identity-runs": None,
    "--metrics-port": 8000,
    "--verbose": False,
    "--metrics-host": "0.0.0.0",
    "--store": "sqlite:///jims.db",
    "--durability": "durable",
    "--context-events": 200,
    "--thread-queue": 256,
    "--queue-timeout": 60.0,
    "--run-timeout": 300.0,
    "--max-runs": 1000,
    "--max-body": 1_048_576,
    "--drain-time": 20.0,
    "--keep-runs": 30.0,
    "--log-format": "text",
    "--root-path": "",
    "--forwarded-allow-ips": None,
    "--ssl-certfile": None,
    "--ssl-keyfile": None,
    "--reload": False,
    "--auth-order": None,
}


@pytest.mark.parametrize("flag", DEFAULTS)
def test_every_option_of_the_promise_is_there_with_its_default_and_its_variable(flag: str) -> None:
    [spec] = [spec for item in all_options() for spec in specs(item.options) if spec.flag == flag]
    assert spec.default == DEFAULTS[flag]
    assert spec.variable == "JIMS_" + flag.removeprefix("--").replace("-", "_").upper()


def test_help_shows_every_flag_variable_and_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--help"])
    assert exited.value.code == 0
    shown = capsys.readouterr().out
    words = set(re.split(r"[\s\[\]]+", shown))
    for flag in (*DEFAULTS, "--version"):
        assert flag in words
    for command in ("plugins", "openapi", "check", "keys", "auth", "replay"):
        assert re.search(rf"^  {command}\s", shown, re.MULTILINE)
    assert "authentik" not in shown


def test_an_unknown_flag_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--aap", "x"])
    assert exited.value.code == 2
    assert "--aap" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        (["--port", "http"], {}, "--port: 'http' is not a whole number from 0 to 65535"),
        (["--port", "70000"], {}, "--port: '70000' is not a whole number from 0 to 65535"),
        ([], {"JIMS_PORT": "x"}, "JIMS_PORT: 'x' is not a whole number"),
        (["--log-format", "xml"], {}, "--log-format: 'xml' is not one of json, text"),
    ],
)
def test_a_faulty_value_is_one_line_and_exit_1(
    tmp_path: Path, arguments: list[str], env: dict[str, str], message: str
) -> None:
    assert message in refusal(run_command(*arguments, cwd=tmp_path, env=env))


def test_options_stand_before_or_behind_a_subcommand_and_repeat(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("async def app(ctx): pass\n")
    for arguments in (
        ["--app", "bot", "--api-key", "a", "--api-key", "b", "check"],
        ["check", "--app", "bot", "--api-key", "a", "--api-key", "b"],
    ):
        checked = run_command(*arguments, cwd=tmp_path)
        assert checked.returncode == 0, checked.stderr
        assert "tried in this order: key" in checked.stdout


def test_a_server_loads_no_http_client_and_nothing_of_the_chat_for_its_other_commands() -> None:
    code = (
        "import sys; from jimsapi.cli.main import command_line; command = command_line([]); "
        "print('chat' in command.commands, "
        "{'httpx', 'rich', 'prompt_toolkit', 'markdown_it', 'jimsapi.cli.terminal'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "True set()\n"


def test_a_server_imports_no_subcommand_and_no_package_for_websockets_before_it_needs_them() -> None:
    code = (
        "import sys; from jimsapi.cli.main import command_line; from jimsapi.cli.options import ServerOptions; "
        "from jimsapi.cli.server_config import loaded_config, server_config; "
        "from jimsapi.builtin.client_certificate import CertificateOptions; "
        "command = command_line([]); "
        "config = loaded_config(server_config(ServerOptions(), CertificateOptions(), 9, 0)); "
        "unwanted = {'jimsapi.cli.subcommands', 'jimsapi.cli.replay', 'jimsapi.cli.worker', 'websockets', 'wsproto'}; "
        "print(config.ws_protocol_class is not None, unwanted & set(sys.modules)); "
        "print('store' in command.commands, 'jimsapi.cli.subcommands' in sys.modules); "
        "print(command.commands['store'].name, 'jimsapi.cli.subcommands' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "True set()\nTrue False\nstore True\n"


def test_every_subcommand_can_be_made() -> None:
    commands = command_line([]).commands
    assert [commands[name].name for name in commands] == [*SUBCOMMANDS, "keys"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "command",
    [
        "config",
        "plugins",
        "openapi --app examples.interests:app --api-key sixteen-letters-",
        "--help",
        "--version",
    ],
)
def test_a_command_whose_output_cannot_be_written_fails_with_one_line(command: str, unbuffered: str) -> None:
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    line = f"{shlex.quote(sys.executable)} -m jimsapi {command}"
    full = subprocess.run(["bash", "-c", f"{line} > /dev/full"], cwd=ROOT, env=env, capture_output=True, text=True)
    told = refusal(full)
    assert told == "jimsapi: the output cannot be written: No space left on device; redirect it to another place"


def test_a_command_is_silent_if_the_reader_of_its_output_has_left() -> None:
    line = f"{shlex.quote(sys.executable)} -m jimsapi config | true"
    ran = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("", "")
