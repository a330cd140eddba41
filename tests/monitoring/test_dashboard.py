"""The dashboard and the rules beside a real Prometheus, which scrapes two servers: every query finds its series."""

import re
from typing import Any

import pytest

from tests.docs.snippets import ROOT
from tests.monitoring.conftest import Scraped
from tests.monitoring.prometheus import alerts, dashboard, for_servers, panels
from tests.waiting import eventually

SPAN = "1m"
"""What `$__rate_interval` stands for: the servers have not been scraped for longer."""
_SELECTOR = re.compile(r"\b(?:jims_\w+|process_\w+|up)\{[^}]*\}")
SELECTORS = sorted({selector for rule in alerts().values() for selector in _SELECTOR.findall(rule)})
TARGETS = [target for panel in panels() for target in panel["targets"]]
BY_SERVER = [target["expr"] for target in TARGETS if "{{instance}}" in target["legendFormat"]]
QUERIES = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]


def instances(series: list[Any]) -> set[str]:
    return {one["metric"]["instance"] for one in series}


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_a_query_of_the_dashboard_returns_series(scraped: Scraped, title: str, query: str) -> None:
    eventually(lambda: scraped.prometheus.query(for_servers(query, SPAN)))


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_a_query_of_the_dashboard_is_limited_to_the_servers_that_are_chosen(
    scraped: Scraped, title: str, query: str
) -> None:
    second = scraped.servers[1].metrics_port
    selectors = _SELECTOR.findall(for_servers(query, SPAN, [second]))
    assert len(selectors) == query.count('job="$job"') > 0
    for selector in selectors:
        assert instances(scraped.prometheus.query(selector)) <= {f"127.0.0.1:{second}"}


@pytest.mark.parametrize("query", BY_SERVER)
def test_a_panel_of_each_server_has_a_line_for_each(scraped: Scraped, query: str) -> None:
    both = {f"127.0.0.1:{server.metrics_port}" for server in scraped.servers}
    eventually(lambda: instances(scraped.prometheus.query(for_servers(query, SPAN))) == both)


@pytest.mark.parametrize("selector", SELECTORS)
def test_a_selector_of_the_rules_finds_series(scraped: Scraped, selector: str) -> None:
    eventually(lambda: scraped.prometheus.query(selector))


def test_prometheus_evaluates_every_rule(scraped: Scraped) -> None:
    eventually(lambda: {rule["health"] for rule in scraped.prometheus.rules().values()} == {"ok"})
    assert scraped.prometheus.rules().keys() == alerts().keys()


def test_the_queries_of_the_variables_name_a_metric_that_every_server_has(scraped: Scraped) -> None:
    queries = [variable["query"]["query"] for variable in dashboard()["templating"]["list"][1:]]
    assert queries == ["label_values(jims_build_info, job)", 'label_values(jims_build_info{job="$job"}, instance)']
    eventually(lambda: len(scraped.prometheus.query('jims_build_info{job="jimsapi"}')) == 2)


def test_no_panel_lies_upon_another_and_each_has_a_name_of_its_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    for key in ("id", "title"):
        assert len({panel[key] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


def test_the_dashboard_shows_every_metric_of_the_page_for_operators() -> None:
    page = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    shown = " ".join(query for _, query in QUERIES)
    missing = {name for name in re.findall(r"^\| `(jims_\w+)` \|", page, re.MULTILINE) if name not in shown}
    assert missing == set()


def test_the_page_for_operators_has_the_picture() -> None:
    data = (ROOT / "docs" / "dashboard.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) < 200_000
