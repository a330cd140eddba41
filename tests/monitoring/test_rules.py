"""The alert rules: their unit tests pass, they use metrics that exist, and each leads to its runbook."""

import re
import subprocess

import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.docs.runbooks import PAGE, anchors
from tests.monitoring.prometheus import MONITORING, alerts, program

ALERTS = alerts()
UNIT_TESTS = (MONITORING / "rules_test.yml").read_text(encoding="utf-8")
_METRIC = re.compile(r"\bjims_\w+")


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("promtool"), *arguments], cwd=MONITORING, capture_output=True, text=True, timeout=60, check=False
    )


def test_promtool_accepts_the_rules() -> None:
    ran = promtool("check", "rules", "--lint=all", "--lint-fatal", "rules.yml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(ALERTS)} rules found" in ran.stdout


@pytest.mark.parametrize("tests", ["rules_test.yml", "rules_slow_test.yml"])
def test_the_unit_tests_of_the_rules_pass(tests: str) -> None:
    ran = promtool("test", "rules", tests)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_history_in_which_it_fires_and_one_in_which_it_is_silent(alert: str) -> None:
    assert re.search(rf"alertname: {alert}\n +exp_alerts:\n +- exp_labels", UNIT_TESTS)
    assert re.search(rf"alertname: {alert}\}}$", UNIT_TESTS, re.MULTILINE)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_leads_to_a_section_of_the_runbooks_that_names_it(alert: str) -> None:
    [(page, anchor)] = re.findall(r"runbook_url: ([^#]+)#(\S+)$", ALERTS[alert], re.MULTILINE)
    assert page == PAGE
    assert f"`{alert}`" in anchors()[anchor]


@pytest.mark.anyio
async def test_the_rules_use_metrics_that_a_server_has() -> None:
    async def answer(ctx: ThreadContext) -> None:
        """Answers nothing."""

    api = create_api(answer, store="memory:")
    async with TestClient(api):
        names = set(re.findall(r"^# TYPE (\w+) ", api.metrics(), re.MULTILINE))
    used = {name for rule in ALERTS.values() for name in _METRIC.findall(rule)}
    assert {name.removesuffix("_count").removesuffix("_bucket") for name in used} <= names
