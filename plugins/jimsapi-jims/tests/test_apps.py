"""An app is recognised however the loader came by it, and its pipelines run as jims-api runs them."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from jims import Sessions, echo, sessions_in
from jims_core.app import JimsApp
from jims_core.thread.thread_context import ThreadContext as JimsContext
from jims_core.thread.thread_controller import ThreadController

from jimsapi import create_api
from jimsapi.asgi.testing import TestClient
from tests.raw import metric

pytestmark = pytest.mark.anyio

SHAPES = """
from jims_core import JimsApp
from jims import echo, sessions_of

SESSIONS = sessions_of("sqlite+aiosqlite:///shapes.sqlite")

class Special(JimsApp):
    def __init__(self):
        super().__init__(SESSIONS, echo)

def make():
    return JimsApp(sessionmaker=SESSIONS, pipeline=echo)

async def make_later():
    return make()

class Container:
    app = make()

app = make()
special = Special()
makes_a_coroutine = lambda: make_later()
"""
COROUTINE = "from shapes import make_later\n\napp = make_later()\n"


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return sessions_in(tmp_path)


async def say(client: httpx.AsyncClient, message: str = "hi", **fields: Any) -> httpx.Response:
    return await client.post("/api/v1/chat", json={"contact_id": "ann", "message": message, **fields})


@pytest.mark.parametrize(
    "reference",
    [
        *("shapes", "shapes:app", "shapes:special", "shapes:Special", "shapes:Container.app"),
        *("shapes:make", "shapes:make_later", "coroutine", "shapes:makes_a_coroutine"),
    ],
)
async def test_an_app_of_any_shape_answers(module: Callable[[str, str], None], reference: str) -> None:
    module("shapes", SHAPES)
    module("coroutine", COROUTINE)
    async with TestClient(create_api(reference)) as client:
        answer = await say(client)
    assert answer.json()["assistant_messages"] == ["Echo: hi"]


async def test_an_app_that_makes_its_threads_in_a_way_of_its_own_is_warned_of(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    class Special(JimsApp):
        async def new_thread(self, *arguments: Any, **more: Any) -> ThreadController:
            return await super().new_thread(*arguments, **more)

    class Plain(JimsApp):
        pass

    for app in (Plain(sessions, echo), Special(sessions, echo)):
        with caplog.at_level(logging.WARNING, logger="jimsapi.jims"):
            async with TestClient(create_api(app)):
                pass
    [record] = [record for record in caplog.records if record.name == "jimsapi.jims"]
    assert "Special overrides new_thread" in record.getMessage()


@pytest.mark.parametrize(("options", "seen"), [({}, 603), ({"context_events": 200}, 400)])
async def test_a_pipeline_sees_the_whole_thread_unless_the_operator_says_otherwise(
    sessions: Sessions, options: dict[str, int], seen: int
) -> None:
    async def count(ctx: JimsContext) -> None:
        said = [event for event in ctx.events if event.event_type.startswith("comm.")]
        assert len(said) == len(ctx.history)
        ctx.outgoing_events.clear()
        for _ in range(300):
            ctx.send_message(f"{len(said)}")

    async with TestClient(create_api(JimsApp(sessions, count), **options)) as client:
        for _ in range(3):
            answer = (await say(client)).json()
    assert answer["assistant_messages"][0] == str(seen)


class RagPipeline:
    async def __call__(self, ctx: JimsContext) -> None:
        if ctx.get_last_user_message() == "fail":
            raise RuntimeError("no")


class NamedPipeline(RagPipeline):
    name = "the named one"


@pytest.mark.parametrize(
    ("pipeline", "label"), [(RagPipeline(), "RagPipeline"), (NamedPipeline(), "the named one"), (echo, "echo")]
)
async def test_metrics_name_the_jims_pipeline(sessions: Sessions, pipeline: Any, label: str) -> None:
    api = create_api(JimsApp(sessions, pipeline))
    async with TestClient(api) as client:
        await say(client)
        await say(client, "fail")
        text = api.metrics()
    failed = 0 if pipeline is echo else 1
    assert metric(text, "jims_pipeline_runs_total", status="success", pipeline=label) == 2 - failed
    assert metric(text, "jims_pipeline_runs_total", status="failure", pipeline=label) == failed
    assert metric(text, "jims_pipeline_run_duration_seconds_count", status="success", pipeline=label) == 2 - failed


@pytest.mark.parametrize("role", ["pipeline", "conversation_start_pipeline"])
async def test_a_pipeline_that_cannot_be_called_stops_the_start(sessions: Sessions, role: str) -> None:
    pipelines: dict[str, Any] = {"pipeline": echo, role: "echo"}
    app = JimsApp(sessions, **pipelines)
    with pytest.raises(RuntimeError, match=rf"the JIMS app's {role} is a str: it must be `async def \(ctx\)`"):
        async with TestClient(create_api(app)):
            pass
