"""A JIMS app that calls a model, served by the command. The model is a local server with OpenAI's API."""

from collections.abc import Iterator

import httpx
import pytest
from model_server import COMPLETION_TOKENS, PROMPT_TOKENS, ModelServer

from tests.ports import free_port
from tests.raw import metric
from tests.serving import Served

BOT = """
from dataclasses import asdict

import sqlalchemy.ext.asyncio as sa_aio
from jims_core.app import JimsApp


class Assistant:
    async def __call__(self, ctx):
        await ctx.update_agent_status("thinking")
        said = await ctx.llm.chat_completion_plain(ctx.history)
        ctx.send_message(said.content)
        ctx.send_event("rag.query_processed", {"model_stats": {m: asdict(u) for m, u in ctx.llm.usage.items()}})


async def make_app():
    engine = sa_aio.create_async_engine("sqlite+aiosqlite:///jims.db")
    return JimsApp(sessionmaker=sa_aio.async_sessionmaker(engine, expire_on_commit=False), pipeline=Assistant())


app = make_app()
"""


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def served(model: ModelServer, metrics_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("assistant")
    (folder / "assistant.py").write_text(BOT)
    env = {"OPENAI_API_BASE": model.url, "OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "k", "NO_PROXY": "127.0.0.1"}
    options = ("--app", "assistant", "--metrics-port", str(metrics_port), "--metrics-host", "127.0.0.1")
    with Served(*options, "--store", f"sqlite:///{folder / 'jims.db'}", folder=folder, env=env) as server:
        yield server


def say(served: Served, message: str, contact: str) -> httpx.Response:
    with served.client() as client:
        return client.post("/api/v1/chat", json={"contact_id": contact, "message": message})


def test_the_models_answer_is_the_apps_and_the_model_saw_the_whole_history(served: Served, model: ModelServer) -> None:
    assert say(served, "one", "ann").json()["assistant_messages"] == ["You said: one"]
    answer = say(served, "two", "ann").json()
    assert answer["assistant_messages"] == ["You said: two"]
    assert [(said["role"], said["content"]) for said in model.asked[-1]["messages"]] == [
        ("user", "one"),
        ("assistant", "You said: one"),
        ("user", "two"),
    ]
    assert [event["event_type"] for event in answer["events"]] == ["comm.assistant_message", "rag.query_processed"]
    [usage] = answer["events"][1]["event_data"]["model_stats"].values()
    assert (usage["requests_count"], usage["prompt_tokens"]) == (1, PROMPT_TOKENS)


def test_the_usage_of_models_is_among_the_metrics(served: Served, metrics_port: int) -> None:
    def scrape() -> str:
        return httpx.get(f"http://127.0.0.1:{metrics_port}/metrics", trust_env=False).text

    before = scrape()
    model = say(served, "three", "bea").json()["events"][1]["event_data"]["model_stats"].popitem()[0]
    after = scrape()
    counted = {"llm_calls_total": 1, "llm_usage_prompt_tokens_total": PROMPT_TOKENS}
    for name, more in {**counted, "llm_usage_completion_tokens_total": COMPLETION_TOKENS}.items():
        assert metric(after, name, model=model) - metric(before, name, model=model) == more
    runs = {"status": "success", "pipeline": "Assistant"}
    assert metric(after, "jims_pipeline_runs_total", **runs) - metric(before, "jims_pipeline_runs_total", **runs) == 1
