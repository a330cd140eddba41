"""The contract of a wrapper of pipelines, as tests. Pipelines behave with it as without it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from jimsapi.asgi.testing import TestClient
from jimsapi.runs.pipeline import JimsApp, Pipeline, is_pipeline
from jimsapi.testing.contract import (
    BuiltContract,
    CapturedOutput,
    cancel_in_mid_call,
    nothing_left,
    outcome,
    repeat,
    within,
)
from jimsapi.threads.context import ThreadContext
from jimsapi.threads.errors import RunClosed

Wrapper = Callable[[Pipeline, str], Pipeline]

MESSAGE = "Ann's cat is called Mephistopheles"
"""Text that must not appear in a log."""


class PipelineWrapperContract(BuiltContract):
    """Derive a class from this one in a test module, and declare the plugin and its options:

        class TestStopwatch(PipelineWrapperContract):
            distribution = "jimsapi-stopwatch"
            settings = {}
            unconfigured = DoesNotApply("it always measures")

    pytest then runs every case against the installed plugin: with pipelines of every kind that `JimsApp` accepts, which
    answer, raise, wait and are cancelled, and behind a server. What the wrapper adds is for tests of your own.
    """

    hook = "jimsapi_pipeline_wrapper"

    async def test_it_returns_an_async_pipeline(self) -> None:
        async with self.opened() as wrapper:
            pipeline = wrapper(repeat, "repeat")
            assert is_pipeline(pipeline), f"it returned a {type(pipeline).__name__}, which is not an async pipeline"

    async def test_it_calls_the_pipeline_once_and_its_events_reach_the_caller(self) -> None:
        calls = 0

        async def count(ctx: ThreadContext) -> None:
            nonlocal calls
            calls += 1
            await repeat(ctx)

        async with self.opened() as wrapper:
            assert await sent_by(wrapped(wrapper, count), "hi") == await sent_by(repeat, "hi")
        assert calls == 1, f"it called the pipeline {calls} times"

    async def test_pipelines_of_every_kind_answer_as_without_it(self) -> None:
        async with self.opened() as wrapper:
            for kind, app in apps_of_every_kind().items():
                sent = await within(sent_by(app.pipeline, "hi"))
                assert sent, f"the pipeline that is {kind} sends nothing"
                assert await within(sent_by(wrapped(wrapper, app.pipeline), "hi")) == sent, (
                    f"a pipeline that is {kind} does not answer as without it"
                )

    async def test_it_raises_what_the_pipeline_raises(self) -> None:
        async with self.opened() as wrapper:
            for error in (ValueError("wrong"), TimeoutError(), RunClosed(), ExceptionGroup("both", [KeyError("a")])):

                async def fail(ctx: ThreadContext, error: Exception = error) -> None:
                    await asyncio.sleep(0)
                    raise error

                raised = await outcome(wrapped(wrapper, fail)(ThreadContext.for_test("hi")))
                assert raised is error, f"the pipeline raised {error!r}, and its wrapper {raised!r}"

    async def test_a_pipeline_that_is_cancelled_ends(self) -> None:
        async def wait(ctx: ThreadContext) -> None:
            for _ in range(5):
                await asyncio.sleep(0)

        async with nothing_left(), self.opened() as wrapper:
            pipeline = wrapped(wrapper, wait)
            await cancel_in_mid_call(lambda: pipeline(ThreadContext.for_test("hi")))
            await self.use(wrapper)

    async def test_concurrent_runs_get_their_own_contexts(self) -> None:
        count = 20
        together = asyncio.Barrier(count)

        async def meet(ctx: ThreadContext) -> None:
            await together.wait()
            await repeat(ctx)

        async with self.opened() as wrapper:
            pipeline = wrapped(wrapper, meet)
            sent = await asyncio.gather(*(within(sent_by(pipeline, f"message {number}")) for number in range(count)))
        assert sent == [await sent_by(repeat, f"message {number}") for number in range(count)]

    async def test_each_pipeline_is_wrapped_for_itself(self) -> None:
        async def greet(ctx: ThreadContext) -> None:
            ctx.send_message("welcome")

        async with self.opened() as wrapper:
            pipelines = [wrapped(wrapper, repeat), wrapped(wrapper, greet)]
            sent = [await sent_by(pipeline, "hi") for pipeline in pipelines]
        assert sent == [await sent_by(pipeline, "hi") for pipeline in (repeat, greet)]

    async def test_neither_messages_nor_secrets_are_logged(self, shown: CapturedOutput) -> None:
        async with self.opened() as wrapper:
            await sent_by(wrapped(wrapper, repeat), MESSAGE)
            shown.add(wrapper)
        shown.assert_contains_none_of([MESSAGE, *self.secrets])

    async def test_a_server_answers_as_without_it(self) -> None:
        async with TestClient(self.api(app=answer)) as client:
            for message, status in (("hi", 200), ("fail", 500), ("again", 200)):
                body = {"contact_id": "ann", "message": message}
                sent = await client.post("/api/v1/chat", json=body)
                assert sent.status_code == status, f"the answer to {message!r} is {sent.status_code}: {sent.text}"

    async def use(self, wrapper: Wrapper) -> None:
        assert await within(sent_by(wrapped(wrapper, repeat), "hi"))


def wrapped(wrapper: Wrapper, pipeline: Pipeline) -> Pipeline:
    """Return a pipeline with the wrapper around it, as the app calls it: the wrapper may return an async generator."""
    return JimsApp(wrapper(pipeline, "bot")).pipeline


async def sent_by(pipeline: Pipeline, message: str) -> list[tuple[str, Any]]:
    """Call a pipeline with a message. Returns type and data of the events that it sent, and of what it streamed."""
    ctx = ThreadContext.for_test(message)
    await pipeline(ctx)
    return [(event.event_type, event.event_data) for event in ctx.complete()]


def apps_of_every_kind() -> dict[str, JimsApp]:
    """Return an app for each kind of pipeline. Wrappers get what `JimsApp` has made of it, which can be awaited."""

    async def pieces(ctx: ThreadContext) -> AsyncIterator[str]:
        for word in ("You ", "said: ", "hi"):
            await asyncio.sleep(0)
            yield word

    def repeat_in_a_thread(ctx: ThreadContext) -> None:
        ctx.send_message(f"You said: {ctx.get_last_user_message()}")

    def pieces_of_a_thread(ctx: ThreadContext) -> Iterator[str]:
        yield from ("You ", "said: ", "hi")

    return {
        "an async function": JimsApp(repeat),
        "an object with an async __call__": JimsApp(_Repeating()),
        "an async generator": JimsApp(pieces),
        "a plain function": JimsApp(repeat_in_a_thread),
        "a plain generator": JimsApp(pieces_of_a_thread),
        "a plain function that returns a coroutine": JimsApp(lambda ctx: repeat(ctx)),
        "a plain function that returns an async generator": JimsApp(lambda ctx: pieces(ctx)),
        "an async function in a thread": JimsApp(repeat, threaded=True),
        "an async generator in a thread": JimsApp(pieces, threaded=True),
    }


class _Repeating:
    async def __call__(self, ctx: ThreadContext) -> None:
        await repeat(ctx)


async def answer(ctx: ThreadContext) -> None:
    """The pipeline of the server under test. It raises for the message `fail`."""
    if ctx.get_last_user_message() == "fail":
        raise ValueError("the pipeline fails, as the test wants")
    await repeat(ctx)
