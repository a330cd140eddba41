"""Titles that pipelines give to their threads."""

from typing import Any

import pytest

from jimsapi import Inbound, JimsApp, ThreadContext
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.errors import PipelineFailed
from jimsapi.runs.service import RunService
from jimsapi.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio


async def title_after(pipeline: Any, *, fails: bool = False) -> str | None:
    """Answer one message and return the title of its thread."""
    async with MemoryStore() as store, RunService(JimsApp(pipeline), store, [DefaultResolver()]) as service:
        run = service.begin(Inbound(contact_id="ann", message="hi"), PUBLIC)
        if fails:
            with pytest.raises(PipelineFailed):
                await run.wait_for_answer()
        else:
            await run.wait_for_answer()
        assert run.thread is not None
        (summary,) = await store.summaries([run.thread.thread_id])
        return summary.facts.title


@pytest.mark.parametrize(
    ("given", "stored"),
    [("Marsupials", "Marsupials"), ("x" * 1000, "x" * 500), ("a\0b\ud800", "a?b?"), ("", None), (5, "5")],
)
async def test_a_pipeline_gives_its_thread_a_title(given: Any, stored: str | None) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        assert ctx.title is None
        ctx.title = given

    assert await title_after(pipeline) == stored


class Nameless:
    def __str__(self) -> str:
        raise ValueError("no name")


async def test_a_title_without_a_text_costs_the_message_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def pipeline(ctx: Any) -> None:
        ctx.title = Nameless()

    assert await title_after(pipeline) is None
    assert "its title is not stored: no name" in caplog.text


async def test_a_plain_function_gives_its_thread_a_title() -> None:
    def pipeline(ctx: ThreadContext) -> None:
        ctx.title = "Marsupials"

    assert await title_after(pipeline) == "Marsupials"


async def test_a_title_stays_if_the_pipeline_fails_after_it() -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        ctx.title = "Marsupials"
        raise LookupError

    assert await title_after(pipeline, fails=True) == "Marsupials"


async def test_a_thread_whose_pipeline_gives_no_title_has_none() -> None:
    async def pipeline(ctx: ThreadContext) -> None: ...

    assert await title_after(pipeline) is None
