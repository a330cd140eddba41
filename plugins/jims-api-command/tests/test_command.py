"""The command that operators of jims-api know, with its flags, variables and defaults."""

import importlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from jims_api.main import reason_to_refuse

from jimsapi.cli.main import command_line
from jimsapi.cli.options import COMMAND_OPTIONS
from jimsapi.plugins.core import CoreOptions
from jimsapi.plugins.options import Options, specs
from tests.ports import free_port
from tests.raw import metric
from tests.serving import Served

JIMS_BOT = """
import sqlalchemy.ext.asyncio as sa_aio
from jims_core.app import JimsApp

async def echo(ctx):
    ctx.send_message(f"Echo: {ctx.get_last_user_message()}")

async def make_app():
    engine = sa_aio.create_async_engine("sqlite+aiosqlite:///jims.db")
    return JimsApp(sessionmaker=sa_aio.async_sessionmaker(engine, expire_on_commit=False), pipeline=echo)

app = make_app()
"""
NATIVE_BOT = "async def app(ctx):\n    ctx.send_message('native')\n"

TODAY = {
    "--app": "app",
    "--host": "0.0.0.0",
    "--port": 8080,
    "--api-key": None,
    "--authentik-url": None,
    "--authentik-app-slug": None,
    "--metrics-port": 8000,
    "--verbose": False,
}
"""The flags of jims-api 0.6.2 and their defaults; each also reads `JIMS_<FLAG>`. `--enable-sentry`: see below."""


class Command(Served):
    """`python -m jims_api.main` with exactly these arguments."""

    def __init__(self, *arguments: str, folder: Path, env: Mapping[str, str] | None = None) -> None:
        super().__init__(folder=folder, env=env)
        self.command = [sys.executable, "-m", "jims_api.main", *arguments]


def say(served: Served, authorization: str | None = None) -> httpx.Response:
    headers = {} if authorization is None else {"authorization": authorization}
    with served.client() as client:
        return client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"}, headers=headers)


def run(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "jims_api.main", *arguments],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_owners_command_serves_a_jims_app_with_key_and_metrics(tmp_path: Path) -> None:
    (tmp_path / "core.py").write_text(JIMS_BOT)
    metrics = str(free_port())
    arguments = ("--app", "core:app", "--host", "0.0.0.0", "--port", str(free_port()), "--api-key", "your-secret-token")
    with Command(*arguments, "--metrics-port", metrics, "--verbose", folder=tmp_path) as served:
        assert say(served).status_code == 401
        answer = say(served, "Bearer your-secret-token")
        scraped = httpx.get(f"http://127.0.0.1:{metrics}/metrics", trust_env=False).text
    assert (answer.status_code, answer.json()["assistant_messages"]) == (200, ["Echo: hi"])
    assert metric(scraped, "jims_pipeline_runs_total", status="success", pipeline="echo") == 1
    assert (tmp_path / "jims.db").exists()


def test_variables_do_as_well_and_half_of_authentik_admits_nobody(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(NATIVE_BOT)
    variables = {
        "APP": "bot",
        "HOST": "127.0.0.1",
        "PORT": str(free_port()),
        "METRICS_PORT": str(free_port()),
        "VERBOSE": "1",
    }
    env = {f"JIMS_{name}": value for name, value in variables.items()}
    with Command(folder=tmp_path, env={**env, "JIMS_STORE": "memory:"}) as served:
        assert str(served.port) == variables["PORT"]
        assert say(served).json()["assistant_messages"] == ["native"]
    half = {"JIMS_AUTHENTIK_APP_SLUG": "bot", "JIMS_STORE": "memory:"}
    with Command(folder=tmp_path, env={**env, **half}) as served:
        assert {say(served).status_code, say(served, "Bearer anything").status_code} == {401}


@pytest.mark.parametrize("flag", TODAY)
def test_each_flag_of_today_has_its_variable_and_default(flag: str) -> None:
    authentik = importlib.import_module("jimsapi_authentik").AuthentikOptions
    key = importlib.import_module("jimsapi.builtin.bearer_key").KeyOptions
    classes: list[type[Options]] = [CoreOptions, *COMMAND_OPTIONS, authentik, key]
    [spec] = [spec for cls in classes for spec in specs(cls) if spec.flag == flag]
    assert spec.variable == "JIMS_" + flag.removeprefix("--").upper().replace("-", "_")
    assert (spec.default or None) == (TODAY[flag] or None)
    assert flag in [name for parameter in command_line([]).params for name in parameter.opts]


@pytest.mark.parametrize(
    ("arguments", "variables", "source"),
    [
        (["--enable-sentry"], {}, "--enable-sentry"),
        ([], {"JIMS_ENABLE_SENTRY": "true"}, "JIMS_ENABLE_SENTRY"),
        ([], {"JIMS_ENABLE_SENTRY": "1"}, "JIMS_ENABLE_SENTRY"),
    ],
)
def test_sentry_without_its_plugin_stops_the_start_with_its_name(
    arguments: list[str], variables: dict[str, str], source: str
) -> None:
    refusal = reason_to_refuse(arguments, variables)
    assert refusal is not None
    assert refusal.startswith(f"{source} is set, but jimsapi-sentry is not installed: pip install jimsapi-sentry")


@pytest.mark.parametrize("value", ["", " ", "0", "false", "No"])
def test_sentry_that_is_switched_off_does_not(value: str) -> None:
    assert reason_to_refuse(["--app", "bot"], {"JIMS_ENABLE_SENTRY": value}) is None


def test_a_refusal_is_one_line_and_status_1(tmp_path: Path) -> None:
    ran = run("--app", "bot", "--enable-sentry", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stderr.startswith("jims_api: ")


def test_what_stops_jimsapi_stops_it_with_the_same_line(tmp_path: Path) -> None:
    ran = run("--app", "nowhere", "--port", "0", cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith("jimsapi: --app nowhere: there is no module nowhere")
