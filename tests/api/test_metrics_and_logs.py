"""What an operator sees: metrics by the names that dashboards use, and log lines without secrets."""

import re
from collections.abc import Iterator

import httpx
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jimsapi.api.app import VERSION
from tests.ports import free_port
from tests.raw import ask, metric, request
from tests.serving import Served

CHAT = "/api/v1/chat"
KEY, TOKEN, MESSAGE = "operator-key", "stranger-token", "a private matter"
AUTHORIZED = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def served(metrics_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    store = f"sqlite:///{tmp_path_factory.mktemp('store') / 'metrics.db'}"
    options = ("--metrics-port", str(metrics_port), "--metrics-host", "127.0.0.1", "--log-format", "json", "--verbose")
    with Served("--api-key", KEY, "--store", store, *options) as server:
        yield server


def chat(client: httpx.Client, message: str = "hi", **headers: str) -> httpx.Response:
    return client.post(CHAT, json={"contact_id": "ann", "message": message}, headers={**AUTHORIZED, **headers})


def scrape(port: int) -> str:
    return httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text


def log_lines(served: Served) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in served.stderr.splitlines()]


def logged(served: Served, request_id: str) -> dict[str, object]:
    """The line of a request; lines are written in batches, so it may take a moment."""
    while True:
        for line in served.stderr.splitlines(keepends=True):
            if line.endswith("\n") and request_id in line and '"message":"request"' in line:
                found: dict[str, object] = orjson.loads(line)
                return found


def test_the_names_that_dashboards_use_are_there_with_their_buckets(client: httpx.Client, metrics_port: int) -> None:
    chat(client)
    chat(client, "raise it")
    text = scrape(metrics_port)
    assert metric(text, "jims_pipeline_runs_total", status="success", pipeline="steered") >= 1
    assert metric(text, "jims_pipeline_runs_total", status="failure", pipeline="steered") >= 1
    bounds = re.findall(r'jims_pipeline_run_duration_seconds_bucket\{(?=[^}]*"success")[^}]*le="([^"]+)"', text)
    assert [float(bound) for bound in bounds] == [0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, float("inf")]


def test_requests_admissions_runs_and_commits_are_counted(client: httpx.Client, metrics_port: int) -> None:
    before = scrape(metrics_port)
    chat(client)
    client.post(CHAT, headers={"authorization": f"Bearer {TOKEN}"})
    client.post(CHAT)
    client.get("/api/v1/threads/0192b5f2-2c03-7b91-9c6c-9a1234567890", headers=AUTHORIZED)
    client.get(f"/unknown?{TOKEN}")
    client.get("/healthz")
    after = scrape(metrics_port)

    def grown(name: str, **labels: str) -> float:
        return metric(after, name, **labels) - metric(before, name, **labels)

    requests = "jims_http_requests_total"
    assert grown(requests, method="POST", route=CHAT, status="200") == 1
    assert grown(requests, method="POST", route=CHAT, status="401") == 2
    assert grown(requests, method="GET", route="/api/v1/threads/{id:uuid}", status="404") == 1
    assert grown(requests, method="GET", route="unmatched", status="404") == 1
    assert grown(requests, method="GET", route="/healthz", status="200") == 1
    assert grown("jims_http_request_duration_seconds_count", route=CHAT) == 3
    assert grown("jims_auth_decisions_total", provider="key", outcome="admitted") == 2
    assert grown("jims_auth_decisions_total", provider="key", outcome="invalid") == 1
    assert grown("jims_auth_decisions_total", provider="key", outcome="passed") == 1
    assert grown("jims_runs_total", status="completed") == 1
    assert grown("jims_store_commits_total", outcome="ok") >= 2
    assert grown("jims_store_commit_duration_seconds_count") >= 2
    assert (metric(after, "jims_runs_open"), metric(after, "jims_draining")) == (0, 0)
    assert metric(after, "process_resident_memory_bytes") > 0
    assert "python_info" in after


def test_the_text_is_valid_and_no_name_is_given_twice(client: httpx.Client, metrics_port: int) -> None:
    chat(client)
    text = scrape(metrics_port)
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names))
    assert not [name for name in names if not name.startswith(("jims_", "python_", "process_"))]
    assert TOKEN not in text
    assert KEY not in text


def test_metrics_are_not_on_the_port_of_the_api(client: httpx.Client) -> None:
    assert client.get("/metrics").status_code == 404


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("abc-123_x.Y", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("has space", False),
        ('x"y', False),
        ("", False),
    ],
)
def test_a_well_formed_request_id_is_taken_over(client: httpx.Client, given: str, kept: bool) -> None:
    answered = chat(client, **{"x-request-id": given}).headers["x-request-id"]
    assert (answered == given) is kept
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", answered)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/unknown", 404), ("GET", CHAT, 405), ("POST", CHAT, 401), ("GET", "/docs", 200)],
)
def test_every_answer_but_the_probes_names_its_request(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    ids = {client.request(method, path).headers["x-request-id"] for _ in range(3)}
    assert client.request(method, path).status_code == status
    assert len(ids) == 3
    for probe in ("/healthz", "/readyz"):
        assert "x-request-id" not in client.get(probe).headers


def test_a_request_is_one_line_with_all_that_one_looks_for(served: Served, client: httpx.Client) -> None:
    answer = chat(client, **{"x-request-id": "line-1"})
    line = logged(served, "line-1")
    assert line["method"] == "POST"
    assert line["route"] == CHAT
    assert line["status"] == 200
    assert (line["provider"], line["distribution"], line["version"]) == ("key", "jimsapi", VERSION)
    assert line["thread_id"] == answer.json()["thread_id"]
    assert line["run_id"] == answer.headers["x-run-id"]
    assert isinstance(line["duration"], float)
    assert str(line["time"]).endswith("Z")


def test_a_failed_pipeline_is_logged_with_the_id_of_its_request(served: Served, client: httpx.Client) -> None:
    chat(client, "raise lamp", **{"x-request-id": "failed-1"})
    logged(served, "failed-1")
    failures = [line for line in log_lines(served) if "lamp" in str(line.get("exception"))]
    assert [line["request_id"] for line in failures] == ["failed-1"]


def test_probes_are_not_logged_and_no_line_holds_a_secret_or_what_was_said(
    served: Served, client: httpx.Client
) -> None:
    client.get("/healthz", headers={"x-request-id": "probe-1"})
    client.get(f"/unknown?key={KEY}&token={TOKEN}", headers={"authorization": f"Bearer {TOKEN}"})
    client.post(CHAT, headers={"authorization": f"Bearer {TOKEN}", "cookie": f"session={TOKEN}"})
    chat(client, MESSAGE, **{"x-request-id": "last-1"})
    logged(served, "last-1")
    for hidden in (KEY, TOKEN, MESSAGE, "probe-1"):
        assert hidden not in served.stderr


REFUSED = {
    "an unknown method": (b"BREW /pot HTTP/1.1\r\nhost: a\r\n\r\n", "_OTHER", 400, ""),
    "no Host": (b"GET /a?key=secret HTTP/1.1\r\n\r\n", "GET", 400, "/a"),
    "a URL with a password": (b"GET http://u:secret@a/ HTTP/1.1\r\nhost: a\r\n\r\n", "GET", 400, ""),
    "a large head": (request("PUT", "/b", "x: " + "x" * 70_000), "PUT", 431, "/b"),
    "a long path": (request("GET", "/" + "c" * 70_000), "GET", 431, "/" + "c" * 199 + "..."),
    "another version": (b"DELETE / HTTP/2.0\r\nhost: a\r\n\r\n", "DELETE", 505, "/"),
    "another coding": (request("POST", "/d", "transfer-encoding: gzip, chunked"), "POST", 501, "/d"),
    "a method of WebDAV": (b"PROPFIND /e HTTP/1.1\r\n\r\n", "_OTHER", 400, "/e"),
    "rubbish": (b"\x16\x03\x01\x02\x00", "_OTHER", 400, ""),
}


@pytest.mark.parametrize(("sent", "method", "status", "path"), REFUSED.values(), ids=REFUSED.keys())
def test_a_request_that_never_reaches_the_app_is_counted_and_logged(
    served: Served, metrics_port: int, sent: bytes, method: str, status: int, path: str
) -> None:
    labels = {"method": method, "route": "unmatched", "status": str(status)}
    before, lines = metric(scrape(metrics_port), "jims_http_requests_total", **labels), len(refusals(served))
    assert ask(served.port, sent)[0] == status
    assert metric(scrape(metrics_port), "jims_http_requests_total", **labels) == before + 1
    while len(refusals(served)) == lines:
        pass
    line = refusals(served)[-1]
    assert (line["method"], line["route"], line["status"], line["path"]) == (method, "unmatched", status, path)
    assert line["reason"]
    assert "secret" not in served.stderr


def refusals(served: Served) -> list[dict[str, object]]:
    """The lines of requests that the app did not see; the last line may not be whole yet."""
    whole = served.stderr.rpartition("\n")[0]
    return [line for line in map(orjson.loads, whole.splitlines()) if "reason" in line]


def test_a_body_that_is_refused_has_the_line_of_its_request(served: Served, metrics_port: int) -> None:
    labels = {"method": "POST", "route": CHAT, "status": "400"}
    before = metric(scrape(metrics_port), "jims_http_requests_total", **labels)
    fields = ("content-type: application/json", f"authorization: Bearer {KEY}", "x-request-id: faulty-1")
    faulty = request("POST", CHAT, "transfer-encoding: chunked", *fields, body=b"x\r\n")
    assert ask(served.port, faulty)[0] == 400
    assert logged(served, "faulty-1")["status"] == 400
    assert metric(scrape(metrics_port), "jims_http_requests_total", **labels) == before + 1


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/nothing/here?key=secret", "/nothing/here"),
        ("/a%20status=200%0Ab", "/a%20status%3D200%0Ab"),
        ("/%C3%A4", "/%C3%A4"),
        ("/" + "x" * 500, "/" + "x" * 199 + "..."),
    ],
)
def test_the_line_of_a_request_without_a_route_shows_its_path(
    served: Served, client: httpx.Client, path: str, shown: str
) -> None:
    identifier = client.get(path).headers["x-request-id"]
    assert logged(served, identifier)["path"] == shown
    assert "secret" not in served.stderr
