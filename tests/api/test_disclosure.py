"""What callers read of a pipeline's exception: its text, or with `--hide-errors` a reference; and never a secret."""

import json
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from jimsapi import JimsApp, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.threads.errors import StoreUnavailable
from tests.api.conversation import CHAT, RUNS, STREAM, body, parse
from tests.apps.scripted import Scripted
from tests.plugins.distributions import install
from tests.runs.receiver import SECRET, Receiver
from tests.serving import Served

pytestmark = pytest.mark.anyio

HIDDEN = "the model's address"
API_KEY = "sk-live/4f+9 c0ffee"
FAILS = f"raise {HIDDEN}"


@asynccontextmanager
async def serving(store: str = "memory:", **settings: Any) -> AsyncIterator[TestClient]:
    bot = Scripted()
    api = create_api(JimsApp(bot, conversation_start_pipeline=bot.greet), store=store, **settings)
    async with TestClient(api) as client:
        yield client


def reference(run_id: str) -> str:
    return f"Pipeline error: reference {run_id}"


async def ended(client: httpx.AsyncClient, run_id: str) -> Any:
    """A run as its caller sees it once it has ended."""
    await client.get(f"{RUNS}/{run_id}/stream")
    return (await client.get(f"{RUNS}/{run_id}")).json()


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (FAILS, {}),
        (f"unstorable {HIDDEN}", {}),
        ("hi", {"thread_config": {"greet": FAILS}, "run_conversation_start_on_new_thread": True}),
    ],
    ids=["raised", "unstorable", "greeting"],
)
async def test_a_hidden_error_is_a_reference_in_every_answer_of_the_api(message: str, fields: dict[str, Any]) -> None:
    async with serving(hide_errors=True) as client:
        answers = [await client.post(CHAT, json=body(message, **fields))]
        answers.append(await client.post(STREAM, json=body(message, "bea", **fields)))
        begun = await client.post(RUNS, json=body(message, "cid", **fields))
        view = await ended(client, begun.json()["run_id"])
        watched = await client.get(f"{RUNS}/{begun.json()['run_id']}/stream")
        async with client.websocket("/api/v1/chat/ws") as ws:
            await ws.send_json({"type": "chat", **body(message, "dan", **fields)})
            frames = [await ws.receive_json()]
            while frames[-1]["type"] != "error":
                frames.append(await ws.receive_json())
    assert (answers[0].status_code, answers[0].json()) == (500, {"detail": reference(answers[0].headers["x-run-id"])})
    assert parse(answers[1].text)[-1].data == {"detail": reference(answers[1].headers["x-run-id"])}
    assert view["error"] == {"detail": reference(view["run_id"]), "status": 500}
    assert parse(watched.text)[-1].data == {"detail": reference(view["run_id"])}
    assert frames[-1] == {"type": "error", "detail": reference(frames[0]["run_id"])}
    told = "".join([*(answer.text for answer in answers), json.dumps([view, frames]), watched.text])
    for text in (HIDDEN, "rag.step", "unstorable"):
        assert text not in told.replace(message, "")


async def test_a_hidden_error_is_a_reference_in_a_webhook_and_in_an_answer_that_is_replayed() -> None:
    settings: dict[str, Any] = {"webhook_secret": SECRET, "webhook_allow_private": True, "hide_errors": True}
    key = {"idempotency-key": "k"}
    async with Receiver() as receiver, serving(**settings) as client:
        message = body(FAILS, webhook_url=receiver.url())
        first = await client.post(CHAT, json=message, headers=key)
        event = (await receiver.call()).verified()
        again = await client.post(CHAT, json=message, headers=key)
    assert event["data"]["error"] == {"detail": reference(first.headers["x-run-id"]), "status": 500}
    assert again.json() == first.json() == {"detail": reference(first.headers["x-run-id"])}


async def test_a_hidden_error_is_not_stored_and_an_earlier_one_is_hidden_when_it_is_read(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    async with serving(store) as client:
        shown = (await client.post(CHAT, json=body(FAILS))).headers["x-run-id"]
        assert (await ended(client, shown))["error"]["detail"] == f"Pipeline error: {HIDDEN}"
    async with serving(store, hide_errors=True) as client:
        hidden = (await client.post(CHAT, json=body(FAILS))).headers["x-run-id"]
        assert (await ended(client, shown))["error"]["detail"] == reference(shown)
        replayed = await client.get(f"{RUNS}/{shown}/stream")
        assert parse(replayed.text)[-1].data == {"detail": reference(shown)}
    async with serving(store) as client:
        assert (await ended(client, hidden))["error"]["detail"] == reference(hidden)
    with closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
        stored = connection.execute("SELECT error FROM jimsapi_runs ORDER BY run_id").fetchall()
    assert stored == [(f"Pipeline error: {HIDDEN}",), (reference(hidden),)]


async def test_a_pipeline_that_the_store_fails_does_not_tell_where_the_store_is() -> None:
    async def bot(ctx: ThreadContext) -> None:
        raise StoreUnavailable("SQLite: /var/lib/jims.db did not answer")

    async with TestClient(create_api(bot, store="memory:")) as client:
        answer = await client.post(CHAT, json=body("hi"))
    assert answer.json() == {"detail": "Pipeline error: The store is not available; try again later"}


async def test_other_errors_of_a_run_keep_their_text_when_pipelines_errors_are_hidden() -> None:
    async with serving(hide_errors=True, run_timeout=0.5) as client:
        answer = await client.post(CHAT, json=body("hold on"))
        run = await ended(client, answer.headers["x-run-id"])
    assert answer.json() == {"detail": "The pipeline did not answer within 0.5 seconds"}
    assert run["error"] == {"detail": "The pipeline did not answer within 0.5 seconds", "status": 504}


def test_the_log_has_a_hidden_error_with_its_traceback_under_the_reference_that_the_caller_got() -> None:
    with Served("--log-format", "json", env={"JIMS_HIDE_ERRORS": "1"}) as served:
        with served.client() as client:
            detail = client.post(CHAT, json=body(FAILS)).json()["detail"]
        served.stop()
        lines = [json.loads(line) for line in served.stderr.splitlines()]
    [run_id] = re.findall(r"^Pipeline error: reference (\S+)$", detail)
    [failure] = [line for line in lines if "exception" in line]
    assert run_id in failure["message"]
    assert "Traceback" in failure["exception"]
    assert HIDDEN in failure["exception"]


BOT = """
import logging
from urllib.parse import quote
from jimsapi import JimsApp

KEY = {key!r}

async def bot(ctx):
    logging.getLogger("bot").warning("asking with %s", KEY)
    if ctx.get_last_user_message() == "url":
        raise RuntimeError("no answer from https://model/?key=" + quote(KEY))
    raise RuntimeError(f"no {{KEY}}, nor {{KEY}}, for redis://jims:open:sesame@host/ and db://jims:simsalabim@host/")

app = JimsApp(bot, store="db://jims:simsalabim@host/")
"""

PLUGIN = """
from jimsapi import *
from jimsapi.stores.sqlite import SQLiteStore

class ModelOptions(Options, prefix="model"):
    key: Secret | None = option(help="x")
    cache: str | None = option(help="x")

@hookimpl
def jimsapi_options():
    return ModelOptions

@hookimpl
def jimsapi_thread_store(url):
    return SQLiteStore("runs.db") if url.startswith("db:") else None
"""


@pytest.mark.parametrize("hide", [False, True])
def test_a_secret_in_an_exception_reaches_neither_the_caller_nor_the_store_nor_the_log(
    tmp_path: Path, hide: bool
) -> None:
    """A plugin's secret, read from a file; the password of a URL among the options; that of the app's own store."""
    install(tmp_path, "acme-model", PLUGIN)
    (tmp_path / "bot.py").write_text(BOT.format(key=API_KEY))
    (tmp_path / "key").write_text(f"{API_KEY}\n")
    env = {"JIMS_MODEL_KEY_FILE": str(tmp_path / "key"), "JIMS_MODEL_CACHE": "redis://jims:open%3Asesame@host/"}
    flags = ["--hide-errors"] if hide else []
    served = Served("--app", "bot", "--store", "", *flags, folder=tmp_path, env=env)
    with served:
        with served.client() as client:
            plain, url = (client.post(CHAT, json=body(message)).json()["detail"] for message in ("plain", "url"))
        assert served.stop() == 0
        log = served.stderr
    if not hide:
        assert plain == "Pipeline error: no ***, nor ***, for redis://jims:***@host/ and db://jims:***@host/"
        assert url == "Pipeline error: no answer from https://model/?key=***"
    assert "asking with ***" in log
    assert "RuntimeError: no ***, nor ***, for redis://jims:***@host/ and db://jims:***@host/" in log
    with closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
        stored = str(connection.execute("SELECT error FROM jimsapi_runs").fetchall())
    for secret in (API_KEY, "c0ffee", "sesame", "simsalabim"):
        assert secret not in plain + url + log + stored
