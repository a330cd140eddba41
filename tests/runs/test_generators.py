"""Pipelines that are async generators: what they yield is said, and they are always closed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jimsapi import Inbound, JimsApp, ThreadContext
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.errors import PipelineFailed, RunTimedOut
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.live import RunRecord
from jimsapi.runs.pipeline import is_pipeline
from jimsapi.runs.service import RunService
from jimsapi.stores.memory import MemoryStore
from tests.runs.serving import ended, inbound, read_all, stored, texts, told

pytestmark = pytest.mark.anyio


class Generator:
    """Yields the words of its message; its cleanup waits too, and is noted."""

    def __init__(self) -> None:
        self.reached, self.may_go_on = asyncio.Event(), asyncio.Event()
        self.cleaned: list[str] = []

    async def __call__(self, ctx: ThreadContext) -> AsyncIterator[Any]:
        try:
            for word in str(ctx.get_last_user_message()).split():
                match word:
                    case "hold":
                        self.reached.set()
                        await self.may_go_on.wait()
                    case "raise":
                        raise RuntimeError("on purpose")
                    case "number":
                        yield 5
                    case "send":
                        ctx.send_message("".join(ctx_words(ctx)))
                    case _:
                        yield word
        finally:
            await asyncio.sleep(0)
            self.cleaned.append(str(ctx.get_last_user_message()))


def ctx_words(ctx: ThreadContext) -> list[str]:
    return [word for word in str(ctx.get_last_user_message()).split() if word != "send"] + ["!"]


async def greeting(ctx: ThreadContext) -> AsyncIterator[str]:
    yield "Wel"
    yield "come"


def service_of(app: JimsApp, store: MemoryStore, **options: Any) -> RunService:
    return RunService(app, store, [DefaultResolver()], **options)


async def test_what_it_yields_is_streamed_and_stored_as_one_message() -> None:
    generator = Generator()
    async with MemoryStore() as store, service_of(JimsApp(generator), store) as service:
        run = service.begin(inbound("a b c"), PUBLIC, watched=True)
        assert run.stream is not None
        reads = told(await read_all(run.stream))
        assert reads[:4] == ["started", "delta a", "delta b", "delta c"]
        assert (await run.answer).assistant_messages == ["abc"]
        assert (await service.chat(inbound("a b send"), PUBLIC)).assistant_messages == ["ab!"]
    assert generator.cleaned == ["a b c", "a b send"]


@pytest.mark.parametrize("kind", ["function", "object"])
async def test_functions_and_objects_may_be_generators_and_keep_their_names_in_metrics(kind: str) -> None:
    records: list[RunRecord] = []
    pipeline: Any = greeting if kind == "function" else Generator()
    assert is_pipeline(pipeline)
    async with MemoryStore() as store, service_of(JimsApp(pipeline), store, on_run=[records.append]) as service:
        await service.chat(inbound("a"), PUBLIC)
        await ended(service)
    assert [timing.pipeline for timing in records[0].pipelines] == ["greeting" if kind == "function" else "Generator"]


async def test_a_conversation_start_may_be_one_and_is_silent() -> None:
    async with MemoryStore() as store:
        app = JimsApp(Generator(), conversation_start_pipeline=greeting)
        async with service_of(app, store) as service:
            first = Inbound(contact_id="ann", message="a", run_conversation_start_on_new_thread=True)
            run = service.begin(first, PUBLIC, watched=True)
            assert run.stream is not None
            assert told(await read_all(run.stream))[:2] == ["started", "delta a"]
            events = (await store.events((await run.answer).thread_id, None, 10, None)).events
    assert [event.event_data for event in events][1] == b'{"role":"assistant","content":"Welcome"}'
    assert len(events) == 4


@pytest.mark.parametrize(
    ("message", "text"), [("a raise", "on purpose"), ("a number b", "a piece of a message must be a str, not int")]
)
async def test_one_that_fails_is_closed_and_says_why_and_stores_nothing(message: str, text: str) -> None:
    generator = Generator()
    async with MemoryStore() as store, service_of(JimsApp(generator), store) as service:
        run = service.begin(inbound(message), PUBLIC)
        with pytest.raises(PipelineFailed, match=text):
            await run.answer
        assert run.thread_id is not None
        assert await texts(service, run.thread_id) == ["user_message"]
    assert generator.cleaned == [message]


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_one_that_is_stopped_cleans_up_before_its_run_ends(how: str) -> None:
    generator = Generator()
    limits = RunLimits(run_timeout=0.5 if how == "timed out" else 60)
    async with MemoryStore() as store, service_of(JimsApp(generator), store, limits=limits) as service:
        run = service.begin(inbound("a hold b"), PUBLIC, watched=True)
        await generator.reached.wait()
        if how == "cancelled":
            await service.cancel(run.run_id)
        assert run.stream is not None
        assert told(await read_all(run.stream))[-1] == ("RunCancelled" if how == "cancelled" else "RunTimedOut")
        assert generator.cleaned == ["a hold b"]
        assert (await stored(service, run.run_id)).events == []
        if how == "timed out":
            with pytest.raises(RunTimedOut):
                await run.answer


async def test_one_that_is_stopped_while_it_speaks_without_end_is_closed() -> None:
    closed = asyncio.Event()

    async def endless(ctx: ThreadContext) -> AsyncIterator[str]:
        try:
            while True:
                yield "again "
        finally:
            closed.set()

    async with MemoryStore() as store, service_of(JimsApp(endless), store) as service:
        run = service.begin(inbound(), PUBLIC, watched=True)
        assert run.stream is not None
        await run.stream.next(5)
        await service.cancel(run.run_id)
        await closed.wait()
        assert told(await read_all(run.stream))[-1] == "RunCancelled"


async def test_what_is_wrapped_around_one_is_called_with_what_can_be_awaited() -> None:
    async with MemoryStore() as store:
        service = service_of(JimsApp(Generator()), store)
        service.wrap_pipelines(lambda pipeline, name: pipeline)
        async with service:
            assert (await service.chat(inbound("a b"), PUBLIC)).assistant_messages == ["ab"]
