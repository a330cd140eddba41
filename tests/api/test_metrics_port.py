"""The metrics port: what it answers, and that neither idle clients nor a blocked event loop take it away."""

import asyncio
import gzip
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from jimsapi.api.metrics import CombinedRegistry, Exposition, MetricsPort
from jimsapi.asgi.connection import Request
from jimsapi.plugins.errors import StartError
from jimsapi.server import thread
from tests.ports import free_port
from tests.raw import connect, ended, read_answer, request
from tests.serving import Served
from tests.waiting import eventually

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("apples", "Apples.", registry=registry).inc(3)
    return registry


@pytest.fixture
def port(registry: CollectorRegistry) -> Iterator[int]:
    opened = MetricsPort("127.0.0.1", 0, CombinedRegistry(registry))
    yield opened.port
    opened.close()


def scrape(port: int, path: str = "/metrics", method: str = "GET", **headers: str) -> httpx.Response:
    with httpx.Client(trust_env=False, headers={"accept-encoding": "identity"}) as client:
        return client.request(method, f"http://127.0.0.1:{port}{path}", headers=headers)


# What it answers.


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/", "/any/path"])
def test_metrics_are_text_for_who_asks_for_nothing_else(port: int, path: str) -> None:
    answer = scrape(port, path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert families["apples"].samples[0].value == 3
    assert "python_info" in families
    assert answer.headers["date"]
    assert answer.headers["vary"] == "accept, accept-encoding"


def test_metrics_are_open_metrics_for_who_asks_for_that(port: int) -> None:
    answer = scrape(port, accept=f"{OPENMETRICS},text/plain;version=0.0.4;q=0.5")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert answer.text.endswith("# EOF\n")
    assert "apples" in {family.name for family in openmetrics(answer.text)}  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("accept", ["*/*", OPENMETRICS])
def test_metrics_are_compressed_for_who_can_read_that(port: int, accept: str) -> None:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(request("GET", "/metrics", f"accept: {accept}", "accept-encoding: deflate, gzip;q=1.0"))
        status, headers, body = read_answer(connection)
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert b"apples_total 3.0" in gzip.decompress(body)


@pytest.mark.parametrize("accept", ["*/*", OPENMETRICS])
@pytest.mark.parametrize(
    "query",
    [
        "name[]=apples_total",
        "name%5B%5D=pears&name%5B%5D=apples_created",
        "name[]=weights_bucket&name[]=weights_sum",
        "name[]=none",
    ],
)
def test_a_scrape_of_some_names_is_answered_as_the_server_of_prometheus_client_answers_it(
    port: int, registry: CollectorRegistry, query: str, accept: str
) -> None:
    Gauge("pears", "Pears.", ["colour"], registry=registry).labels("green").set(2)
    Histogram("weights", "Weights.", buckets=[1, 2], registry=registry).observe(1.5)
    server, serving = start_http_server(0, "127.0.0.1", registry)
    try:
        theirs, ours = (scrape(one, f"/metrics/?{query}", accept=accept) for one in (server.server_port, port))
        assert sorted(ours.text.splitlines()) == sorted(theirs.text.splitlines())  # theirs has a set's order
        assert ours.headers["content-type"] == theirs.headers["content-type"]
    finally:
        server.shutdown()
        server.server_close()
        serving.join()


def test_the_name_of_a_family_gives_all_of_its_samples(port: int, registry: CollectorRegistry) -> None:
    Histogram("weights", "Weights.", buckets=[1, 2], registry=registry).observe(1.5)
    text = scrape(port, "/metrics?name[]=weights", accept=OPENMETRICS).text
    (family,) = openmetrics(text)  # type: ignore[no-untyped-call]
    assert family.name == "weights"
    assert {sample.name for sample in family.samples} >= {"weights_bucket", "weights_sum", "weights_count"}
    assert "apples" not in text


def test_a_head_has_the_fields_alone_and_other_methods_are_refused(port: int) -> None:
    head = scrape(port, method="HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 0
    posted = scrape(port, method="POST")
    assert posted.status_code == 405
    assert "GET" in posted.headers["allow"]


def test_a_collector_that_fails_is_500_and_is_logged_and_the_next_scrape_is_answered(
    port: int, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> float:
        raise LookupError("no such row")

    broken = Gauge("broken", "Broken.", registry=registry)
    broken.set_function(fail)
    assert scrape(port).status_code == 500
    assert "no such row" in caplog.text
    registry.unregister(broken)
    assert scrape(port).status_code == 200


def test_a_port_that_cannot_be_opened_is_one_line(port: int) -> None:
    with pytest.raises(StartError, match=f"the metrics port 127.0.0.1:{port} cannot be opened: Address already in use"):
        MetricsPort("127.0.0.1", port, CollectorRegistry())
    for host in ("no.such.host.invalid", "a..b", "nul\0"):
        with pytest.raises(StartError, match=r"cannot be opened: .*; give another --metrics-port"):
            MetricsPort(host, 0, CollectorRegistry())


def test_closing_ends_the_thread_and_the_connections_and_frees_the_port() -> None:
    opened = MetricsPort("127.0.0.1", 0, CollectorRegistry())
    with connect(opened.port) as connection:
        connection.sendall(request("GET", "/metrics"))
        assert read_answer(connection)[0] == 200
        opened.close()
        assert ended(connection)
    assert "metrics port" not in {one.name for one in threading.enumerate()}
    again = MetricsPort("127.0.0.1", opened.port, CollectorRegistry())
    again.close()
    again.close()


def test_scrapes_in_one_pass_of_the_loop_share_one_text() -> None:
    class Counting(Collector):
        asked = 0

        def collect(self) -> Iterator[Metric]:
            self.asked += 1
            return iter(())

    def asked(encoding: str) -> Request:
        headers = [(b"accept-encoding", encoding.encode())]
        return Request({"type": "http", "headers": headers, "query_string": b""}, None, None)  # type: ignore[arg-type] # neither is used

    async def scrapes(counting: Counting) -> list[int]:
        exposition = Exposition(counting)
        counts = []
        for _ in range(2):
            for encoding in ("gzip", "identity") * 20:
                exposition.answer(asked(encoding))
            counts.append(counting.asked)
            await asyncio.sleep(0)
        return counts

    assert asyncio.run(scrapes(Counting())) == [2, 4]


# Whom it withstands.


def status_of(served: Served, field: str) -> int:
    """A number of /proc/PID/status: threads, or KiB."""
    lines = Path(f"/proc/{served.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


def test_400_idle_connections_cost_no_thread_and_less_than_10_mb() -> None:
    port = free_port()
    with Served("--metrics-host", "127.0.0.1", "--metrics-port", str(port)) as served, ExitStack() as stack:
        for _ in range(20):
            assert scrape(port).status_code == 200
        threads, memory = status_of(served, "Threads"), status_of(served, "VmRSS")
        for _ in range(400):
            stack.enter_context(connect(port))
        answer = scrape(port)  # it is accepted after them
        assert status_of(served, "Threads") == threads
        assert status_of(served, "VmRSS") - memory < 10 * 1024
        assert answer.status_code == 200
        assert "process_open_fds" in answer.text
        with served.client() as client:
            assert client.get("/healthz").status_code == 200


def test_a_connection_beyond_the_limit_closes_the_one_that_is_idle_longest(
    monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    monkeypatch.setattr(thread, "MAX_CONNECTIONS", 2)
    with connect(port) as first, connect(port) as second:
        for connection in (second, first):
            connection.sendall(request("GET", "/metrics"))
            assert read_answer(connection)[0] == 200
        with connect(port) as third:
            assert ended(second)
            for connection in (first, third):
                connection.sendall(request("GET", "/metrics"))
                assert read_answer(connection)[0] == 200


def test_the_metrics_port_holds_at_most_an_eighth_of_the_descriptors() -> None:
    port = free_port()
    served = Served("--metrics-host", "127.0.0.1", "--metrics-port", str(port))
    served.command = ["bash", "-c", 'ulimit -n 64; exec "$@"', "bash", *served.command]
    with served, ExitStack() as stack:
        descriptors = Path(f"/proc/{served.pid}/fd")
        before = len(list(descriptors.iterdir()))
        os.kill(served.pid, signal.SIGSTOP)  # so that it accepts all of them at once
        for _ in range(200):
            stack.enter_context(connect(port))
        os.kill(served.pid, signal.SIGCONT)
        assert scrape(port).status_code == 200
        assert len(list(descriptors.iterdir())) <= before + 64 // thread.SHARE + 1
        with served.client() as client:
            assert client.get("/openapi.json").status_code == 200
        served.stop()
        assert "descriptors" not in served.stderr
        assert "accepts no connections" not in served.stderr


BLOCKING = """
import pathlib, time

async def app(ctx):
    pathlib.Path("blocked").touch()
    while not pathlib.Path("released").exists():
        time.sleep(0.01)
"""


def test_a_scrape_is_answered_while_a_pipeline_blocks_the_event_loop(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "bot.py").write_text(BLOCKING)
    flags = ("--app", "bot", "--metrics-host", "127.0.0.1", "--metrics-port", str(port))
    with Served(*flags, folder=tmp_path) as served, connect(served.port) as connection:
        chat = b'{"contact_id":"ann","message":"hi"}'
        fields = ("content-type: application/json", f"content-length: {len(chat)}")
        connection.sendall(request("POST", "/api/v1/chat", *fields, body=chat))
        while not (tmp_path / "blocked").exists():
            time.sleep(0.01)
        try:
            assert "jims_runs_open 1.0" in scrape(port).text
        finally:
            (tmp_path / "released").touch()
        assert read_answer(connection)[0] == 200


def cpu_seconds(served: Served) -> float:
    fields = Path(f"/proc/{served.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


HOARDING = """
import asyncio, os
from contextlib import suppress

async def app(ctx):
    held = []
    with suppress(OSError):
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    while not os.path.exists("released"):
        await asyncio.sleep(0.05)
    for descriptor in held:
        os.close(descriptor)
"""


def test_descriptors_that_run_out_are_logged_once_do_not_spin_and_the_port_recovers(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "bot.py").write_text(HOARDING)
    flags = ("--app", "bot", "--metrics-host", "127.0.0.1", "--metrics-port", str(port))
    served = Served(*flags, folder=tmp_path)
    served.command = ["bash", "-c", 'ulimit -n 64; exec "$@"', "bash", *served.command]
    with served, connect(served.port) as chatting:
        chat = b'{"contact_id":"ann","message":"hi"}'
        fields = ("content-type: application/json", f"content-length: {len(chat)}")
        chatting.sendall(request("POST", "/api/v1/chat", *fields, body=chat))
        eventually(lambda: len(list(Path(f"/proc/{served.pid}/fd").iterdir())) == 64, 10)
        with connect(port) as waiting:
            waiting.sendall(request("GET", "/metrics"))
            eventually(lambda: "accepts no connections now" in served.stderr, 10)
            used = cpu_seconds(served)
            time.sleep(2.5)  # in which it tries again twice
            assert cpu_seconds(served) - used < 0.3
            assert served.stderr.count("accepts no connections now") == 1
            assert "Too many open files" in served.stderr
            (tmp_path / "released").touch()
            assert read_answer(waiting)[0] == 200
        assert read_answer(chatting)[0] == 200
        assert "Traceback" not in served.stderr


def test_an_error_of_the_loop_that_is_no_lack_of_descriptors_is_logged_as_asyncio_does(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    opened = MetricsPort("127.0.0.1", 0, CombinedRegistry(registry))
    with caplog.at_level(logging.ERROR):
        loop = opened._server._loop
        loop.call_soon_threadsafe(lambda: 1 / 0)
        assert scrape(opened.port).status_code == 200
    opened.close()
    assert "ZeroDivisionError" in caplog.text
