"""Traces of a JIMS app that calls a model: the spans of jims-core and of the model are children of jimsapi's spans."""

import os
import runpy
from pathlib import Path

import pytest
from model_server import ModelServer

from tests.serving import Served

COLLECTOR = Path(__file__).resolve().parents[2] / "jimsapi-otel" / "tests" / "otlp_collector.py"
CHAT = "/api/v1/chat"
BOT = """
import logging

import sqlalchemy.ext.asyncio as sa_aio
from jims_core.app import JimsApp
from jims_core.thread.thread_controller import tracer
from openinference.instrumentation.litellm import LiteLLMInstrumentor

LiteLLMInstrumentor().instrument()
logger = logging.getLogger("bot")


async def assistant(ctx):
    with tracer.start_as_current_span("a span of jims-core"):
        logger.warning("the model is asked")
        said = await ctx.llm.chat_completion_plain(ctx.history)
    ctx.send_message(said.content)
    if ctx.get_last_user_message() == "raise":
        raise LookupError("on purpose")


engine = sa_aio.create_async_engine("sqlite+aiosqlite:///jims.db")
app = JimsApp(sessionmaker=sa_aio.async_sessionmaker(engine, expire_on_commit=False), pipeline=assistant)
"""


def test_each_run_is_one_span_of_its_pipeline_with_jims_cores_own_and_the_models_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(variable)
    (tmp_path / "bot.py").write_text(BOT)
    collector = runpy.run_path(str(COLLECTOR))["Collector"]()
    with ModelServer() as model:
        env = {"OPENAI_API_BASE": model.url, "OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "k"}
        env["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
        with Served("--app", "bot", "--store", "sqlite:///jims.db", folder=tmp_path, env=env) as server:
            with server.client() as client:
                answers = [client.post(CHAT, json={"contact_id": "ann", "message": say}) for say in ("hi", "raise")]
            assert server.stop() == 0
            lines = [line for line in server.stderr.splitlines() if "the model is asked" in line]
    collector.close()
    assert [answer.status_code for answer in answers] == [200, 500]

    requests = collector.named(f"POST {CHAT}")
    pipelines = collector.named("jims.run_pipeline_with_context")
    cores, models = collector.named("a span of jims-core"), collector.named("acompletion")
    for below, above in ((pipelines, requests), (cores, pipelines), (models, cores)):
        assert [span.parent_id for span in below] == [span.span_id for span in above]
    assert len(requests) == 2
    assert [span.attributes["jims.pipeline"] for span in pipelines] == ["assistant", "assistant"]
    assert {span.attributes["jims.thread.id"] for span in pipelines} == {answers[0].json()["thread_id"]}
    assert pipelines[1].attributes["error.type"] == "LookupError"
    assert len(lines) == 2  # the app's own logger speaks in the server's log
    for line, answer in zip(lines, answers, strict=True):
        assert line.endswith(f"request_id={answer.headers['x-request-id']}")
