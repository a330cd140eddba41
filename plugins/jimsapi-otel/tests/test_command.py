"""What the real command exports."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command import run_command
from tests.serving import Served
from tests.waiting import eventually

CHAT = "/api/v1/chat"
CALLER_TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER_SPAN = "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{CALLER_TRACE}-{CALLER_SPAN}-01", "tracestate": "vendor=7", "x-request-id": "request-1"}

SERVER = 2
UNSET, OK, ERROR = 0, 1, 2


def test_a_good_and_a_failed_run_are_traces_of_request_pipeline_and_store(collector: Any, tmp_path: Path) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    store = f"sqlite:///{tmp_path}/jims.db"
    with Served("--store", store, env=env) as server, server.client(headers=HEADERS) as client:
        good = client.post(CHAT, json={"contact_id": "ann", "message": "hi"})
        assert good.status_code == 200
        failed = client.post(CHAT, json={"contact_id": "ann", "message": "raise said-by-ann"})
        assert failed.status_code == 500
        assert server.stop() == 0
    assert set(collector.paths) == {"/v1/traces"}

    requests = collector.named(f"POST {CHAT}")
    assert [request.attributes["http.response.status_code"] for request in requests] == [200, 500]
    for request in requests:
        assert request.kind == SERVER
        assert (request.trace_id, request.parent_id, request.trace_state) == (CALLER_TRACE, CALLER_SPAN, "vendor=7")
        assert request.attributes["http.request.method"] == "POST"
        assert request.attributes["http.route"] == request.attributes["url.path"] == CHAT
        assert request.attributes["url.scheme"] == "http"
        assert request.attributes["server.port"] == server.port
        assert request.attributes["jims.request.id"] == "request-1"
        assert request.resource["service.name"] == "jimsapi"
        assert request.resource["service.version"]
    assert [request.status for request in requests] == [UNSET, ERROR]
    assert requests[1].attributes["error.type"] == "500"

    pipelines = collector.named("jims.run_pipeline_with_context")
    for request, pipeline in zip(requests, pipelines, strict=True):
        assert pipeline.parent_id == request.span_id
        assert pipeline.attributes["jims.thread.id"] == good.json()["thread_id"]
        assert pipeline.attributes["jims.pipeline"] == "steered"
    assert [pipeline.status for pipeline in pipelines] == [OK, ERROR]
    assert pipelines[1].description == "Pipeline execution failed: RuntimeError"
    assert pipelines[1].attributes["error.type"] == "RuntimeError"
    [(name, event)] = pipelines[1].events
    assert name == "exception"
    assert event["exception.type"] == "RuntimeError"
    assert "in steered" in event["exception.stacktrace"]
    assert pipelines[0].events == []

    for operation in ("accept", "finish"):
        writes = collector.named(f"jims.store.{operation}")
        assert [write.parent_id for write in writes] == [request.span_id for request in requests]
        assert {write.attributes["db.system.name"] for write in writes} == {"sqlite"}
        assert {write.attributes["db.operation.name"] for write in writes} == {operation}
        assert {write.status for write in writes} == {UNSET}


def test_nothing_that_people_said_and_no_secret_is_exported(collector: Any) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    headers = {"authorization": "Bearer key-of-the-operator", "cookie": "session=cookie-of-ann", "user-agent": "anns"}
    with Served("--api-key", "key-of-the-operator", env=env) as server, server.client(headers=headers) as client:
        for message in ("said-by-ann", "raise said-by-ann", "exit said-by-ann", "unstorable said-by-ann"):
            client.post(f"{CHAT}?token=query-of-ann", json={"contact_id": "ann@example.org", "message": message})
        client.delete("/api/v1/contacts?contact_id=ann@example.org")
        client.get("/nowhere/ann@example.org")
        server.stop()
    assert len(collector.named("jims.run_pipeline_with_context")) == 4
    assert len(collector.named("GET")) == 1
    sent = b"".join(collector.raw)
    for secret in (
        b"said-by-ann", b"key-of-the-operator", b"cookie-of-ann", b"query-of-ann", b"ann@example.org", b"anns",
        b"127.0.0.1:",
    ):  # fmt: skip
        assert secret not in sent


def test_probes_are_not_traced_and_a_caller_that_samples_not_is_heeded(collector: Any) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    unsampled = {"traceparent": f"00-{CALLER_TRACE}-{CALLER_SPAN}-00"}
    with Served(env=env) as server, server.client() as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200
        client.post(CHAT, json={"contact_id": "ann", "message": "hi"}, headers=unsampled)
        assert client.get("/openapi.json").status_code == 200
        server.stop()
    assert [span.name for span in collector.spans] == ["GET /openapi.json"]


def test_the_operator_s_resource_and_sampler_count(collector: Any) -> None:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_RESOURCE_ATTRIBUTES": "service.version=7,deployment.environment.name=staging",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }
    with Served(env=env) as server, server.client() as client:
        client.get("/openapi.json")
        server.stop()
    [span] = collector.spans
    assert span.resource["service.name"] == "shop"
    assert span.resource["service.version"] == "7"
    assert span.resource["deployment.environment.name"] == "staging"

    collector.clear()
    with Served(env={**env, "OTEL_TRACES_SAMPLER": "always_off"}) as server, server.client() as client:
        client.get("/openapi.json")
        server.stop()
    assert collector.spans == []


def test_a_collector_that_never_answers_keeps_neither_requests_nor_the_exit_waiting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "600",  # of which an exit that waited for it would remind us
            "OTEL_BSP_MAX_QUEUE_SIZE": "16",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4",
        }
        with Served(env=env) as server, server.client() as client:
            for number in range(20):
                answer = client.post(CHAT, json={"contact_id": f"c{number}", "message": "hi"})
                assert answer.status_code == 200
            assert server.stop() == 0
            assert "the last spans within 2 s" in server.stderr


@pytest.mark.parametrize(
    "variables",
    [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}],
    ids=str,
)
def test_without_the_variables_it_is_off_and_opentelemetry_is_not_imported(variables: dict[str, str]) -> None:
    program = """
import asyncio, sys
from jimsapi import create_api
async def echo(ctx): ctx.send_message("hi")
async def main():
    async with create_api(echo, store="memory:").lifespan():
        print("jimsapi_otel" in sys.modules, [name for name in sys.modules if name.startswith("opentelemetry")])
asyncio.run(main())
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], env={"PATH": "", **variables}, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "True []\n"


def test_a_protocol_that_it_does_not_speak_is_warned_of_and_serving_goes_on(collector: Any) -> None:
    """Platforms put these variables into every program's environment."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with Served(env=env) as server, server.client() as client:
        assert client.get("/openapi.json").status_code == 200
        server.stop()
        assert "NO TRACES ARE EXPORTED: OTEL_EXPORTER_OTLP_PROTOCOL is grpc" in server.stderr
    assert collector.paths == []


def test_neither_keys_in_the_variables_nor_what_strangers_send_come_into_the_log(collector: Any) -> None:
    collector.close()
    env = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/v1/traces?key=sesame",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization: simsalabim",
        "OTEL_BSP_SCHEDULE_DELAY": "10",
    }
    strange = {"baggage": "said-by-ann", "traceparent": HEADERS["traceparent"], "tracestate": "x=1,x=2,SAID-BY-ANN=1"}
    with Served("--api-key", "k", env=env) as server, server.client(headers=strange) as client:
        assert client.post(CHAT, json={}).status_code == 401
        eventually(lambda: "while exporting" in server.stderr)
        server.stop()
        log = server.stderr
    assert "OTEL_EXPORTER_OTLP_HEADERS" in log
    for secret in ("sesame", "simsalabim", "said-by-ann"):
        assert secret not in log.lower()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("OTEL_PROPAGATORS", "carrier-pigeon", "OTEL_PROPAGATORS: Propagator carrier-pigeon not found"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "an OpenTelemetry variable is invalid: max_queue_size"),
    ],
)
def test_a_faulty_variable_stops_the_start_in_one_line(variable: str, value: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("async def app(ctx): pass")
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", variable: value}
    options = ("--app", "bot:app", "--store", "memory:", "--metrics-port", "0", "--port", "0")
    ran = run_command(*options, cwd=tmp_path, env=env)
    assert ran.returncode == 1
    assert message in ran.stderr.splitlines()[-1]
    assert "pip uninstall" not in ran.stderr
    assert "Traceback" not in ran.stderr
