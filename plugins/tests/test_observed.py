"""Sentry and OpenTelemetry on together in one server: each gets what is its own, once, and spoils nothing."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Served
from tests.waiting import eventually

CHAT = "/api/v1/chat"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SENTRY_TRACE, SENTRY_SPAN = "1af7651916cd43dd8448eb211c80319d", "c7ad6b7169203332"

BOT = """
import sentry_sdk
from opentelemetry import propagate, trace

tracer = trace.get_tracer("bot")

async def app(ctx):
    with tracer.start_as_current_span("think"), sentry_sdk.start_span(name="think"):
        carrier = {}
        propagate.inject(carrier)
        ctx.send_message(carrier["traceparent"])
        if ctx.get_last_user_message().startswith("raise"):
            raise RuntimeError("on purpose")
"""
HEADERS = {
    "traceparent": f"00-{TRACE}-{SPAN}-01",
    "sentry-trace": f"{SENTRY_TRACE}-{SENTRY_SPAN}-1",
    "x-request-id": "request-1",
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No option and no proxy comes from outside."""
    for variable in list(os.environ):
        if variable.startswith(("JIMS_", "OTEL_", "SENTRY_")) or variable.lower().endswith("_proxy"):
            monkeypatch.delenv(variable)


def variables(sentry: Any, collector: Any) -> dict[str, str]:
    return {
        "JIMS_ENABLE_SENTRY": "1",
        "SENTRY_DSN": sentry.dsn,
        "SENTRY_TRACES_SAMPLE_RATE": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
    }


def test_a_good_and_a_failed_run_are_told_to_each_once_and_their_traces_stay_apart(
    sentry: Any, collector: Any, tmp_path: Path
) -> None:
    (tmp_path / "bot.py").write_text(BOT)
    env = variables(sentry, collector)
    with Served("--app", "bot:app", folder=tmp_path, env=env) as server, server.client(headers=HEADERS) as client:
        good = client.post(CHAT, json={"contact_id": "ann", "message": "hi"}).json()
        failed = client.post(CHAT, json={"contact_id": "ann", "message": "raise"})
        assert failed.json() == {"detail": "Pipeline error: on purpose"}
        assert server.stop() == 0

    # OpenTelemetry: a trace of each run, which goes on in what the pipeline calls.
    requests, pipelines = collector.named(f"POST {CHAT}"), collector.named("jims.run_pipeline_with_context")
    thoughts = collector.named("think")
    assert [span.parent_id for span in requests] == [SPAN] * 2
    assert [span.parent_id for span in pipelines] == [span.span_id for span in requests]
    assert [span.parent_id for span in thoughts] == [span.span_id for span in pipelines]
    for operation in ("accept", "finish"):
        writes = collector.named(f"jims.store.{operation}")
        assert [span.parent_id for span in writes] == [span.span_id for span in requests]
    assert {span.trace_id for span in collector.spans} == {TRACE}
    assert len(collector.spans) == 10
    assert good["assistant_messages"] == [f"00-{TRACE}-{thoughts[0].span_id}-01"]
    assert [span.attributes["jims.pipeline"] for span in pipelines] == ["app", "app"]

    # Sentry: its own trace of each run, and one event.
    transactions = sentry.payloads("transaction")
    assert [transaction["transaction"] for transaction in transactions] == [f"POST {CHAT}"] * 2
    for transaction in transactions:
        trace = transaction["contexts"]["trace"]
        assert (trace["trace_id"], trace["parent_span_id"]) == (SENTRY_TRACE, SENTRY_SPAN)
        assert [span["description"] for span in transaction["spans"]] == ["jims.run_pipeline_with_context", "think"]
    [event] = sentry.payloads("event")
    assert event["exception"]["values"][-1]["type"] == "RuntimeError"
    assert event["tags"] == {
        "request_id": "request-1",
        "run_id": failed.headers["x-run-id"],
        "thread_id": good["thread_id"],
        "pipeline": "app",
    }
    assert event["contexts"]["trace"]["trace_id"] == SENTRY_TRACE


def test_a_collector_that_is_away_is_no_event_in_sentry_and_neither_holds_up_the_exit(
    sentry: Any, collector: Any
) -> None:
    collector.close()
    env = {**variables(sentry, collector), "OTEL_BSP_SCHEDULE_DELAY": "10", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    with Served(env=env) as server, server.client() as client:
        assert client.post(CHAT, json={"contact_id": "ann", "message": "hi"}).status_code == 200
        eventually(lambda: "ERROR opentelemetry" in server.stderr)
        assert server.stop() == 0
    assert sentry.payloads("event") == []
    assert len(sentry.payloads("transaction")) == 1
