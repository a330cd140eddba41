"""Conversations as regression tests: what an author of an app writes, and what the failure shows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jimsapi import JimsApp, ThreadContext
from jimsapi.runs.admission import PUBLIC
from jimsapi.testing import Conversation, assert_unchanged, replay
from tests.apps.scripted import Scripted
from tests.runs.serving import inbound, serving
from tests.testing.contract_run import run_pytest

pytestmark = pytest.mark.anyio

TEST = """
import asyncio

from jimsapi import JimsApp, ThreadContext
from jimsapi.testing import assert_unchanged, replay


async def answer(ctx: ThreadContext) -> None:
    text = ctx.get_last_user_message().removeprefix("send ")
    ctx.send_message(text.replace("quokka", "numbat") if CHANGED else text)


CHANGED = False


def test_the_same_app() -> None:
    assert_unchanged(asyncio.run(replay(JimsApp(answer), "saved.json")))


def test_a_changed_app(monkeypatch) -> None:
    monkeypatch.setitem(globals(), "CHANGED", True)
    assert_unchanged(asyncio.run(replay(answer, "saved.json")))
"""


async def conversation(*messages: str) -> Conversation:
    async with serving(Scripted()) as service:
        for message in messages:
            result = await service.chat(inbound(message), PUBLIC)
        return await Conversation.read(service.store, result.thread_id)


async def test_a_test_of_a_saved_conversation_passes_or_shows_what_has_changed(tmp_path: Path) -> None:
    saved = await conversation("send a quokka\x1b[31m", "send a mug")
    (tmp_path / "saved.json").write_bytes(saved.dump())
    (tmp_path / "test_it.py").write_text(TEST)
    ran = await asyncio.to_thread(run_pytest, tmp_path, "-W", "error")
    assert "1 failed, 1 passed" in ran.stdout, ran.stdout + ran.stderr
    shown = [line[1:].strip() for line in ran.stdout.splitlines() if line.startswith("E ")]
    assert [line for line in shown if line and "tokens" not in line] == [
        "AssertionError: 2 turns of 1 conversation: 1 changed, 1 the same",
        "saved.json 1",
        "> send a quokka[31m",
        "- message: a quokka[31m",
        "+ message: a numbat[31m",
    ]
    assert "\x1b[31m" not in ran.stdout
    assert "conversation.py" not in ran.stdout  # the failure is shown in the test, not in jimsapi


async def test_the_lifespan_of_the_app_is_entered_once_and_left() -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[str]:
        steps.append("entered")
        yield "the client"
        steps.append("left")

    async def answer(ctx: ThreadContext) -> None:
        steps.append(ctx.resources)

    await replay(JimsApp(answer, lifespan=lifespan), await conversation("send a", "send b"))
    assert steps == ["entered", "the client", "the client", "left"]


async def test_the_context_is_as_large_as_the_app_says() -> None:
    sizes: list[int] = []

    async def answer(ctx: ThreadContext) -> None:
        sizes.append(len(ctx.history))

    stored = await conversation("send a", "send b", "send c")
    await replay(JimsApp(answer, context_events=2), stored)
    await replay(JimsApp(answer), stored)
    assert sizes == [1, 3, 4, 1, 3, 5]


async def test_a_test_may_ignore_events_and_set_a_time_limit() -> None:
    bot = Scripted()

    async def answer(ctx: ThreadContext) -> None:
        ctx.send_event("rag.other", {})
        ctx.send_message("a")
        if len(ctx.history) > 1:
            await bot.do(ctx, "hold", "ever")

    stored = await conversation("own rag.step; send a", "send b")
    turns = await replay(answer, stored, ignore=["rag.*"], run_timeout=0.5)
    assert_unchanged(turns[:1])
    assert turns[1].new.error == "The pipeline did not answer within 0.5 seconds"


def test_a_conversation_without_messages_does_not_pass() -> None:
    with pytest.raises(AssertionError, match="nothing was replayed: the conversation has no message of a user"):
        assert_unchanged([])


async def test_a_file_that_is_no_conversation_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"other\.json is not a conversation"):
        await replay(Scripted(), path)
