"""A real Prometheus for tests: it scrapes servers of this machine, and evaluates the rules of `deploy/monitoring`."""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.ports import free_port
from tests.serving import ROOT
from tests.waiting import eventually

MONITORING = ROOT / "deploy" / "monitoring"
RULES = MONITORING / "rules.yml"
SCRAPE_EVERY = "500ms"
EARLIER = " offset 3m"
"""How rules look for a failure that is not the newest one."""
SHARE, SMALL_SHARE = "> 0.8 * jims_run_timeout_seconds", "> 0.01 * jims_run_timeout_seconds"
LAG, SMALL_LAG = 'jims_sink_lag_seconds{job="jimsapi"}) > 300', 'jims_sink_lag_seconds{job="jimsapi"}) > 1'
_ALERT = re.compile(r"^      - alert: (\w+)\n(.*?)(?=^      -|\Z)", re.DOTALL | re.MULTILINE)
_WAITS = re.compile(r"^ +for: .*\n", re.MULTILINE)


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`. Raises `LookupError` that says what to do if it is not installed."""
    path = shutil.which(name)
    if path is None:
        raise LookupError(f"the tests of deploy/monitoring need {name}: apt-get install prometheus")
    return path


class Prometheus:
    """Scrapes the metrics ports `targets` as the job `jimsapi`, twice a second, while it is entered.

    Its alerts are those of the rules, but they fire at once: the rules' unit tests have the times that they wait. A run
    counts as stuck after three seconds of the default limit, and a sink lags after one.
    """

    def __init__(self, *targets: int) -> None:
        self._targets = targets
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="prometheus-"))
        self._write_configuration()
        port = free_port()
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False)
        arguments = [
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen([program("prometheus"), *arguments], stdout=log, stderr=log)
        eventually(self._is_ready)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._client.close()
        shutil.rmtree(self._folder)

    def query(self, expression: str) -> list[Any]:
        """The series that an expression returns now."""
        answer = self._client.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        assert answer["data"]["resultType"] == "vector", expression
        result: list[Any] = answer["data"]["result"]
        return result

    def query_range(self, expression: str, begin: float, end: float, step: float) -> list[Any]:
        """The series that an expression returns over a span of time, in seconds since 1970."""
        parameters: dict[str, str | float] = {"query": expression, "start": begin, "end": end, "step": step}
        answer = self._client.get("/api/v1/query_range", params=parameters).json()
        assert answer["status"] == "success", (expression, answer)
        result: list[Any] = answer["data"]["result"]
        return result

    def rules(self) -> dict[str, Any]:
        """The rules by the names of their alerts, as Prometheus has read them."""
        groups = self._client.get("/api/v1/rules").json()["data"]["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}

    def firing(self) -> dict[str, Any]:
        """The alerts that fire now, by name. If one fires for several servers, it has the newest."""
        alerts = self._client.get("/api/v1/alerts").json()["data"]["alerts"]
        return {alert["labels"]["alertname"]: alert for alert in alerts if alert["state"] == "firing"}

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"Prometheus does not start:\n{(self._folder / 'log').read_text()}")
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def _write_configuration(self) -> None:
        rules = RULES.read_text(encoding="utf-8")
        assert rules.count(SHARE) == 1
        assert rules.count(LAG) == 1
        assert rules.count(EARLIER) == 3
        at_once = _WAITS.sub("", rules).replace(EARLIER, "").replace(SHARE, SMALL_SHARE).replace(LAG, SMALL_LAG)
        (self._folder / "rules.yml").write_text(at_once)
        times = {"scrape_interval": SCRAPE_EVERY, "scrape_timeout": SCRAPE_EVERY, "evaluation_interval": SCRAPE_EVERY}
        targets = [f"127.0.0.1:{port}" for port in self._targets]
        configuration = {
            "global": times,
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "jimsapi", "static_configs": [{"targets": targets}]}],
        }
        (self._folder / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML


def alerts() -> dict[str, str]:
    """The text of each rule by the name of its alert."""
    return dict(_ALERT.findall(RULES.read_text(encoding="utf-8")))


def dashboard() -> Any:
    """The dashboard."""
    return json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))


def panels() -> list[Any]:
    """The panels of the dashboard that show something, in order."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def for_servers(expression: str, span: str, instances: Sequence[int] = ()) -> str:
    """A query of the dashboard with its variables replaced, as Grafana does. Without `instances`: all servers."""
    chosen = "|".join(re.escape(f"127.0.0.1:{port}") for port in instances).replace("\\", "\\\\") or ".*"
    for name, value in (("$job", "jimsapi"), ("$instance", chosen), ("$__rate_interval", span)):
        expression = expression.replace(name, value)
    return expression
