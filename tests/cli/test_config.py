"""The configuration file: its place among flags, variables and defaults, its faults, and `jimsapi config`."""

import json
import os
import tomllib
from pathlib import Path

import httpx
import pytest

from jimsapi.api.app import configure, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.cli.options import LogOptions, ServerOptions
from jimsapi.plugins.config_option import OF_THE_COMMAND
from jimsapi.plugins.core import CoreOptions
from jimsapi.plugins.options import specs
from tests.apps.scripted import Scripted
from tests.command import refusal, run_command
from tests.plugins.distributions import install
from tests.serving import Served
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

APP = "tests.apps.scripted:app"
SECRET = "a-key-that-no-output-has"


def shown(*arguments: str, folder: Path, **environ: str) -> dict[str, list[str]]:
    """What `jimsapi config` says of each option: its value and its source."""
    ran = run_command("config", "--json", *arguments, cwd=folder, env=environ)
    assert ran.returncode == 0, ran.stderr
    assert SECRET not in ran.stdout
    return {key: [entry["value"], entry["source"]] for key, entry in json.loads(ran.stdout).items()}


def test_a_value_comes_from_flag_variable_file_of_a_variable_configuration_or_default(tmp_path: Path) -> None:
    (tmp_path / "jimsapi.toml").write_text("max-runs = 4\nqueue_timeout = 2.5\n[metrics]\nport = 0\n")
    (tmp_path / "three").write_text("3\n")
    layers: list[tuple[tuple[str, ...], dict[str, str], int, str]] = [
        ((), {}, 4, "jimsapi.toml: max_runs"),
        ((), {"JIMS_MAX_RUNS_FILE": "three"}, 3, "JIMS_MAX_RUNS_FILE"),
        ((), {"JIMS_MAX_RUNS_FILE": "three", "JIMS_MAX_RUNS": "2"}, 2, "JIMS_MAX_RUNS"),
        (("--max-runs", "1"), {"JIMS_MAX_RUNS": "2"}, 1, "--max-runs"),
    ]
    for flags, variables, value, source in layers:
        found = shown(*flags, "--app", APP, folder=tmp_path, **variables)
        assert found["max_runs"] == [value, source]
        assert found["metrics_port"] == [0, "jimsapi.toml: metrics_port"]
        assert found["queue_timeout"] == [2.5, "jimsapi.toml: queue_timeout"]
        assert found["port"] == [8080, "default"]


def test_the_file_may_be_named_by_a_flag_or_a_variable_in_place_of_that_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "jimsapi.toml").write_text("max-runs = 1\n")
    (tmp_path / "other.toml").write_text("max-runs = 2\n")
    for flags, variables in ((("--config", "other.toml"), {}), ((), {"JIMS_CONFIG": "other.toml"})):
        assert shown(*flags, folder=tmp_path, **variables)["max_runs"] == [2, "other.toml: max_runs"]


def test_a_server_does_what_its_file_says_and_names_it_at_its_start(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# comment\n{SECRET}\n")
    (tmp_path / "jimsapi.toml").write_text(
        f'app = "{APP}"\napi_key_file = "{tmp_path}/keys"\ncors-origin = ["https://a.example", "https://b.example"]\n'
    )
    with Served("--app", APP, folder=tmp_path) as server:
        assert "configuration: jimsapi.toml" in server.stderr
        url = f"{server.url}/api/v1/threads?contact_id=ann"
        assert httpx.get(url).status_code == 401
        headers = {"authorization": f"Bearer {SECRET}", "origin": "https://b.example"}
        answer = httpx.get(url, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://b.example"
        (tmp_path / "keys").write_text("another-key-in-the-same-file\n")  # it is read again
        eventually(lambda: httpx.get(url, headers=headers).status_code == 401)
        assert SECRET not in server.stderr


async def test_a_mounted_app_reads_a_file_only_if_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jimsapi.toml").write_text('docs = "off"\n')
    for settings, status in (({}, 200), ({"config": "jimsapi.toml"}, 404)):
        async with TestClient(create_api(Scripted(), store="memory:", **settings)) as client:
            assert (await client.get("/docs")).status_code == status


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("max-run = 1", "jimsapi.toml: there is no option max_run; did you mean max_runs?"),
        ("quokka = 1", "jimsapi.toml: there is no option quokka; is its plugin installed and loaded?"),
        ("max-runs = 0", "jimsapi.toml: max_runs: 0 is not a whole number from 1 to 1000000"),
        ("max-runs = true", "jimsapi.toml: max_runs: True is not a whole number"),
        ("max-runs = [1]", "jimsapi.toml: max_runs: an array is not a whole number"),
        (f'auth-order = ["postgresql://u:{SECRET}@h/db"]', "jimsapi.toml: auth_order: an array is not text"),
        (f'max-runs = "postgresql://u:{SECRET}@h/db"', "'postgresql://u:***@h/db' is not a whole number"),
        ('max-runs = 1\nmax-runs-file = "x"', "jimsapi.toml: max_runs and max_runs_file are both set"),
        ("max-runs = 1\nmax_runs = 2", "jimsapi.toml: the option max_runs is set twice"),
        ("metrics-port = 1\n[metrics]\nport = 2", "jimsapi.toml: the option metrics_port is set twice"),
        ("max-runs = ", "the configuration file jimsapi.toml is not TOML: "),
        (f'api-key = "{SECRET}"', "jimsapi.toml: api_key is a secret: put it in a file of its own"),
        (f'api-key = ["{SECRET}"]', "jimsapi.toml: api_key is a secret"),
        ('api-key-file = "nowhere"', "jimsapi.toml: api_key_file: cannot read nowhere: No such file"),
        (
            "api-key-file = 1",
            "jimsapi.toml: api_key_file: expected a file path as a string, got int; write the path in quotes",
        ),
        ('config = "other.toml"', "jimsapi.toml: config has no effect in the file itself"),
        ("auth-order = 2026-01-01", "auth_order: a value of the type date is not text"),
        ('[authentik]\nurl = "https://a.example"', "jimsapi.toml: authentik_url is set, but jimsapi-authentik is not"),
    ],
)
def test_a_faulty_file_stops_the_start_with_its_name_and_key(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "jimsapi.toml").write_text(text)
    for command in ((), ("check",), ("config",)):
        message = refusal(run_command(*command, "--app", APP, "--port", "0", "--store", "memory:", cwd=tmp_path))
        assert fault in message
        assert SECRET not in message


def test_a_file_that_is_named_and_missing_stops_the_start(tmp_path: Path) -> None:
    message = refusal(run_command("check", "--app", APP, "--config", "nowhere.toml", cwd=tmp_path))
    assert "cannot read the configuration file nowhere.toml: No such file" in message


TICKETS = """
from jimsapi import *

class Tickets(Options, prefix="ticket"):
    secret: Secret | None = option(help="A secret.")
    colour: str = option("red", help="A colour.")

@hookimpl
def jimsapi_options():
    return Tickets
"""


def test_options_of_plugins_may_be_in_a_table_of_their_name(tmp_path: Path) -> None:
    install(tmp_path, "acme-tickets", TICKETS)
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "jimsapi.toml").write_text('[ticket]\nsecret-file = "secret"\ncolour = "blue"\n')
    found = shown(folder=tmp_path)
    assert found["ticket_colour"] == ["blue", "jimsapi.toml: ticket_colour"]
    assert found["ticket_secret"] == ["***", "jimsapi.toml: ticket_secret_file"]


def test_options_of_plugins_that_are_left_out_stay_in_the_file_and_are_reported(tmp_path: Path) -> None:
    install(tmp_path, "acme-tickets", TICKETS)
    (tmp_path / "jimsapi.toml").write_text('plugins = "none"\n[ticket]\ncolour = "blue"\n')
    ran = run_command("config", cwd=tmp_path)
    assert ran.returncode == 0
    assert "jimsapi.toml: ticket_colour is not read: no loaded plugin has this option" in ran.stderr


def test_what_config_prints_is_a_configuration_file_with_the_same_values(tmp_path: Path) -> None:
    flags = ("--app", APP, "--max-runs", "7", "--cors-origin", "https://a.example", "--rate-limit", "5/s", "--verbose")
    secrets = ("--api-key", SECRET, "--store", f"postgresql://me:{SECRET}@localhost/jims")
    printed = run_command("config", *flags, cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr
    assert tomllib.loads(printed.stdout)["max_runs"] == 7
    before = shown(*flags, folder=tmp_path)
    (tmp_path / "jimsapi.toml").write_text(printed.stdout)
    after = shown(folder=tmp_path)
    before["config"] = after["config"] = []
    assert {key: entry[:1] for key, entry in after.items()} == {key: entry[:1] for key, entry in before.items()}
    hidden = run_command("config", *flags, *secrets, cwd=tmp_path)
    assert SECRET not in hidden.stdout + hidden.stderr
    assert '# api_key = ["***"]' in hidden.stdout
    assert '# store = "postgresql://me:***@localhost/jims"' in hidden.stdout
    assert "store" not in tomllib.loads(hidden.stdout)


@pytest.mark.parametrize("password", ["abc", "8080", "store", "true", "default"])
def test_a_short_or_common_password_is_hidden_and_nothing_else_is(tmp_path: Path, password: str) -> None:
    store = f"postgresql://me:{password}@localhost/jims"
    printed = run_command("config", "--store", store, cwd=tmp_path)
    assert f":{password}@" not in printed.stdout
    values = tomllib.loads(printed.stdout)
    assert (values["port"], "store" in values) == (8080, False)
    found = json.loads(run_command("config", "--json", "--store", store, cwd=tmp_path).stdout)
    assert found["store"] == {"value": "postgresql://me:***@localhost/jims", "source": "--store"}
    assert found["port"] == {"value": 8080, "source": "default"}


def test_odd_texts_are_printed_as_valid_toml(tmp_path: Path) -> None:
    odd = 'a"b\\c\x7f\té'
    printed = run_command("config", "--auth-order", odd, cwd=tmp_path)
    assert tomllib.loads(printed.stdout)["auth_order"] == odd


def test_a_file_of_the_command_may_serve_an_app_that_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "shared.toml").write_text('port = 1\nlog-format = "json"\nmax-runs = 3\n')
    configuration = configure((), {"config": str(tmp_path / "shared.toml")})
    assert configuration.settings.get(CoreOptions).max_runs == 3
    keys = {spec.key for options in (ServerOptions, LogOptions) for spec in specs(options)}
    assert keys == OF_THE_COMMAND


def test_a_blank_variable_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "jimsapi.toml").write_bytes(b"\xef\xbb\xbfmax-runs = 5\n")
    found = shown(folder=tmp_path, JIMS_CONFIG=" ")
    assert found["max_runs"] == [5, "jimsapi.toml: max_runs"]
    assert found["config"] == ["jimsapi.toml", "the current folder"]


def test_help_is_shown_beside_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "jimsapi.toml").write_text("max-runs = ")
    ran = run_command("--help", cwd=tmp_path)
    assert (ran.returncode, "--max-runs" in ran.stdout) == (0, True)
    assert "is not TOML" in ran.stdout


def test_a_pipe_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "it is not a regular file" in refusal(run_command("check", "--config", "pipe", cwd=tmp_path))


def test_a_shell_completes_options(tmp_path: Path) -> None:
    environ = {"_JIMSAPI_COMPLETE": "bash_complete", "COMP_WORDS": "jimsapi --max-r", "COMP_CWORD": "1"}
    assert "plain,--max-runs" in run_command(cwd=tmp_path, env=environ).stdout
