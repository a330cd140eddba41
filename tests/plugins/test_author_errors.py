"""Errors for authors of plugins: they name the plugin and the line of its code, once, and affect nothing else."""

import logging
from pathlib import Path

import pytest

from jimsapi import create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.plugins.errors import PluginError
from tests.command import run_command
from tests.plugins.distributions import install
from tests.serving import Served
from tests.waiting import eventually

KEY = {"authorization": "Bearer a-key-of-enough-length"}
MESSAGE = {"contact_id": "ann", "message": "hi"}

FAILING_HOOK = """
import json
from jimsapi import *

def connect():
    FAIL

@hookimpl
def jimsapi_observer():
    connect()
"""
FAILING_OBSERVER = """
from jimsapi import *

class Bad:
    def METHOD(self, record):
        raise LookupError("no backend")

@hookimpl
def jimsapi_observer():
    return Bad()
"""
FAILING_COLLECTOR = """
import sys
from jimsapi import *
from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily

BAD_LABEL = GaugeMetricFamily("acme", "x", labels=("name",))
BAD_LABEL.add_metric((None,), 1)

class Bad:
    def describe(self):
        return []
    def collect(self):
        yield METRICS

@hookimpl
def jimsapi_metrics(registry):
    registry.register(Bad())
    Counter("acme_visits", "Visits.", registry=registry).inc()
"""
FAILING_PROVIDER = """
from jimsapi import *

class Door:
    name = "door"
    async def authenticate(self, connection):
        raise LookupError(connection.headers.get("authorization"))

@hookimpl
def jimsapi_auth_provider():
    return Door()
"""


@pytest.fixture
def bot(site: Path) -> Path:
    (site / "bot.py").write_text("async def app(ctx):\n    ctx.send_message('hi')\n")
    return site


def line_of(site: Path, text: str) -> str:
    """`file:line` of the only line with a text in the plugin."""
    path = site / "acme_bad.py"
    [number] = [number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line]
    return f"{path}:{number}"


@pytest.mark.anyio
@pytest.mark.parametrize("statement", ['raise LookupError("no backend")', 'json.loads("{")'])
async def test_a_hook_that_raises_is_named_with_the_line_of_its_own_code(bot: Path, statement: str) -> None:
    install(bot, "acme-bad", FAILING_HOOK.replace("FAIL", statement))
    with pytest.raises(PluginError) as refused:
        async with create_api("bot", store="memory:", api_key="k").lifespan():
            pass
    assert f"(at {line_of(bot, statement)})" in str(refused.value)


def test_only_with_verbose_the_command_prints_the_traceback(bot: Path) -> None:
    install(bot, "acme-bad", FAILING_HOOK.replace("FAIL", 'raise LookupError("no backend")'))
    brief = run_command("check", "--app", "bot", "--store", "memory:", cwd=bot)
    verbose = run_command("check", "--app", "bot", "--store", "memory:", "--verbose", cwd=bot)
    assert brief.returncode == verbose.returncode == 1
    assert "Traceback" not in brief.stderr
    assert "in connect" in verbose.stderr
    assert "LookupError: no backend" in verbose.stderr


@pytest.mark.parametrize("options", [(), ("--verbose",)])
def test_only_with_verbose_the_process_of_a_reloader_prints_the_traceback(bot: Path, options: tuple[str, ...]) -> None:
    install(bot, "acme-bad", FAILING_HOOK.replace("FAIL", 'raise LookupError("no backend")'))
    served = Served("--app", "bot", "--reload", *options, folder=bot)
    served.launch()
    try:
        eventually(lambda: "jimsapi: plugin acme_bad" in served.stderr and served.stderr.endswith("\n"))
        # The reloader waits for a change, so the status of its end is not that of the failed start.
        assert served.stop() == 0
        assert "jimsapi_observer failed: LookupError: no backend" in served.stderr
        assert ("Traceback" in served.stderr) is ("in connect" in served.stderr) is bool(options)
    finally:
        served.stop()
        served.close()


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["on_request", "on_admission", "on_run", "on_commit"])
async def test_an_observer_that_fails_names_its_plugin_and_is_logged_once(
    bot: Path, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    install(bot, "acme-bad", FAILING_OBSERVER.replace("METHOD", method))
    async with TestClient(create_api("bot", store="memory:", api_key="a-key-of-enough-length")) as client:
        for _ in range(3):
            assert (await client.post("/api/v1/chat", json=MESSAGE, headers=KEY)).status_code == 200
    [logged] = [record for record in caplog.records if "observer" in record.getMessage()]
    assert "plugin acme_bad (acme_bad, distribution acme-bad 1.0)" in logged.getMessage()
    assert logged.exc_info is not None


@pytest.mark.anyio
@pytest.mark.parametrize(
    "metrics", ["1 / 0", "7", "GaugeMetricFamily('acme', 'x', value='x')", "BAD_LABEL", "sys.exit()"]
)
async def test_a_collector_that_fails_is_left_out_counted_and_logged_once(
    bot: Path, caplog: pytest.LogCaptureFixture, metrics: str
) -> None:
    install(bot, "acme-bad", FAILING_COLLECTOR.replace("METRICS", metrics))
    api = create_api("bot", store="memory:", api_key="a-key-of-enough-length")
    async with TestClient(api):
        api.metrics()
        scraped = api.metrics()
    assert "acme_visits_total 1.0" in scraped
    assert "jims_runs_open 0.0" in scraped
    assert 'jims_metrics_failures_total{plugin="acme_bad"} 1.0' in scraped  # of the scrapes before
    [logged] = [record for record in caplog.records if record.name == "jimsapi.metrics"]
    assert "acme_bad" in logged.getMessage()


@pytest.mark.anyio
async def test_a_provider_that_raises_is_logged_with_its_line_and_without_the_credentials(
    bot: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(bot, "acme-bad", FAILING_PROVIDER)
    async with TestClient(create_api("bot", store="memory:")) as client:
        with caplog.at_level(logging.DEBUG, "jimsapi.auth"):
            for _ in range(3):
                answer = await client.post("/api/v1/chat", json=MESSAGE, headers={"authorization": "Bearer sesame"})
                assert answer.status_code == 503
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    frames = [record.getMessage() for record in caplog.records if "in authenticate" in record.getMessage()]
    assert errors == [f"auth provider door failed with LookupError at {line_of(bot, 'raise LookupError')}"]
    assert len(frames) == 1
    assert "sesame" not in caplog.text
