"""The contract of a `ReplicaLink`, as tests. By a link that passes them, every replica shows every live stream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import cached_property
from typing import Any

from jimsapi.testing.contract import (
    CapturedOutput,
    DoesNotApply,
    NamedContract,
    cancel_in_mid_call,
    needs,
    nothing_left,
    within,
)

LONGEST_QUESTION = bytes(range(192, 256))
"""A question of 64 bytes."""
LARGEST_ANSWER = bytes(range(256)) * 2048
"""An answer of 512 KiB."""
NOTICES = [b"\x00", b"\r\n", bytes(range(256)), bytes(range(256)) * 256]
"""Notices of any bytes. The last one has 64 KiB."""
SILENCE = 0.3
"""Seconds after which a question counts as one that nobody answers."""
ASKED_AGAIN_AFTER = 0.1
"""Seconds between two questions after an outage."""
MESSAGE = b"Ann's cat is called Mephistopheles"
"""What must not appear in a log."""

Answer = Callable[[bytes], Awaitable[bytes | None]]


async def silent(question: bytes) -> bytes | None:
    """The answer of a replica that does not work on the run."""
    return None


async def echo(question: bytes) -> bytes | None:
    """An answer that shows the question."""
    return b"to " + question


class ReplicaLinkContract(NamedContract):
    """Derive a class from this one in a test module. All links that the plugin builds with `settings` are replicas:

        class TestPost(ReplicaLinkContract):
            distribution = "jimsapi-post"
            outage = DoesNotApply("a folder is always there")

            @pytest.fixture(autouse=True)
            def place(self):
                with TemporaryDirectory() as self.path:  # not pytest's folder: the path of a socket has to be short
                    yield

            @property
            def settings(self):
                return {"post_folder": self.path}

    pytest then runs every case against the installed plugin. If the link also has the methods of a `NoticeLink`, set
    `carries_notices = True`.
    """

    hook = "jimsapi_replica_link"
    carries_notices = False

    @cached_property
    def outage(self) -> Callable[[], AbstractAsyncContextManager[Any]] | DoesNotApply:
        """Return an async context manager in which replicas cannot reach each other."""
        raise self.undeclared("outage", "an async context manager that stops the broker, or DoesNotApply(why)")

    @asynccontextmanager
    async def replicas(self, *answers: Answer) -> AsyncIterator[list[Any]]:
        """Return a link for each of `answers`, which serves it."""
        async with AsyncExitStack() as stack:
            links = [await stack.enter_async_context(self.opened()) for _ in answers]
            for link, answer in zip(links, answers, strict=True):
                await within(link.serve(answer))
            yield links

    async def test_the_replica_that_has_the_answer_gives_it(self) -> None:
        async with self.replicas(silent, silent, echo, silent) as links:
            answer, replica = await within(links[0].ask(b"all", None))
            assert answer == b"to all"
            answer, again = await within(links[0].ask(b"one", replica))
            assert answer == b"to one"
            assert again == replica, "the answer of a replica that was asked by its name has another name"

    async def test_a_question_to_one_replica_reaches_no_other(self) -> None:
        asked: list[tuple[int, bytes]] = []

        def noting(number: int) -> Answer:
            async def answer(question: bytes) -> bytes | None:
                asked.append((number, question))
                return str(number).encode()

            return answer

        async with self.replicas(silent, noting(1), noting(2)) as links:
            answer, replica = await within(links[0].ask(b"all", None))
            for _ in range(5):
                assert await within(links[0].ask(b"one", replica)) == (answer, replica)
        assert {number for number, question in asked if question == b"one"} == {int(answer)}

    async def test_questions_and_answers_of_any_bytes_arrive(self) -> None:
        asked: list[bytes] = []
        answers = [b"\x00", b"\r\n", bytes(range(256)), LARGEST_ANSWER]

        async def answer(question: bytes) -> bytes | None:
            asked.append(question)
            return answers[len(asked) - 1]

        async with self.replicas(silent, answer) as links:
            found = [await within(links[0].ask(LONGEST_QUESTION, None)) for _ in answers]
        assert [answer for answer, _ in found] == answers, "an answer was changed"
        assert asked == [LONGEST_QUESTION] * len(answers), "a question was changed"

    async def test_a_question_that_waits_delays_no_other(self) -> None:
        asked, ready = asyncio.Event(), asyncio.Event()

        async def answer(question: bytes) -> bytes | None:
            if question == b"wait":
                asked.set()
                await ready.wait()
            return await echo(question)

        async with self.replicas(silent, answer) as links:
            _, replica = await within(links[0].ask(b"all", None))
            waiting = asyncio.ensure_future(links[0].ask(b"wait", replica))
            await within(asked.wait())
            assert (await within(links[0].ask(b"now", replica)))[0] == b"to now"
            ready.set()
            assert (await within(waiting))[0] == b"to wait"

    async def test_many_questions_at_once_get_their_own_answers(self) -> None:
        async def answer(question: bytes) -> bytes | None:
            await asyncio.sleep(0.001 * (question[0] % 7))
            return await echo(question)

        questions = [bytes([number]) for number in range(100)]
        async with self.replicas(silent, answer) as links:
            found = await within(asyncio.gather(*(links[0].ask(question, None) for question in questions)))
        assert [answer for answer, _ in found] == [b"to " + question for question in questions]

    async def test_if_no_replica_has_the_answer_there_is_none_and_the_next_question_gets_one(self) -> None:
        async def answer(question: bytes) -> bytes | None:
            return None if question == b"unknown" else await echo(question)

        async with self.replicas(silent, answer, silent) as links:
            assert await answer_soon(links[0].ask(b"unknown", None)) is None
            assert (await within(links[0].ask(b"known", None)))[0] == b"to known"

    async def test_a_replica_does_not_answer_itself(self) -> None:
        async with self.replicas(echo, silent) as links:
            assert await answer_soon(links[0].ask(b"all", None)) is None

    async def test_a_cancelled_question_does_not_stop_the_next(self) -> None:
        async with nothing_left(), self.replicas(silent, echo) as links:
            await cancel_in_mid_call(lambda: links[0].ask(b"all", None), may_leave_tasks=True)
            assert (await within(links[0].ask(b"next", None)))[0] == b"to next"

    async def test_a_replica_that_has_left_gives_no_answer(self) -> None:
        async with self.replicas(silent) as links:
            async with self.replicas(echo):
                _, replica = await within(links[0].ask(b"all", None))
            assert await answer_soon(links[0].ask(b"one", replica)) is None
            assert await answer_soon(links[0].ask(b"all", None)) is None

    async def test_a_replica_that_leaves_while_it_waits_leaves_nothing_open(self) -> None:
        waiting = asyncio.Event()

        async def answer(question: bytes) -> bytes | None:
            waiting.set()
            await asyncio.Event().wait()
            return None

        async with nothing_left():
            async with self.replicas(silent, answer) as links:
                asking = asyncio.ensure_future(links[0].ask(b"all", None))
                await within(waiting.wait())
            asking.cancel()
            await asyncio.wait([asking])

    @needs("outage")
    async def test_after_an_outage_questions_get_answers_again(self) -> None:
        outage = self.outage
        assert not isinstance(outage, DoesNotApply)
        async with self.replicas(silent, echo) as links:
            assert (await within(links[0].ask(b"before", None)))[0] == b"to before"
            async with outage():
                assert await answer_soon(links[0].ask(b"meanwhile", None)) is None
            await within(answer_at_last(links[0]))

    @needs("carries_notices")
    async def test_a_notice_reaches_every_other_replica_once_and_unchanged(self) -> None:
        async with self.replicas(silent, silent, silent) as links:
            received = [await listen(link) for link in links]
            for notice in NOTICES:
                await within(links[0].publish(notice))
            for others in received[1:]:
                assert sorted([await within(others.get()) for _ in NOTICES]) == sorted(NOTICES), "a notice was changed"
            await within(links[1].publish(b"last"))
            assert await within(received[2].get()) == b"last", "a notice came twice"
            assert await within(received[0].get()) == b"last", "a replica got its own notice"

    @needs("carries_notices", "outage")
    async def test_after_an_outage_notices_arrive_again_without_those_of_the_outage(self) -> None:
        outage = self.outage
        assert not isinstance(outage, DoesNotApply)
        async with self.replicas(silent, silent) as links:
            received = await listen(links[1])
            await within(links[0].publish(b"before"))
            assert await within(received.get()) == b"before"
            async with outage():
                await answer_soon(links[0].publish(b"meanwhile"))
            assert await within(published_at_last(links[0], received)) == b"after"

    async def test_neither_answers_nor_secrets_are_logged(self, shown: CapturedOutput) -> None:
        async def answer(question: bytes) -> bytes | None:
            return MESSAGE

        async with self.replicas(silent, answer) as links:
            await within(links[0].ask(b"all", None))
            shown.add(*links)
        shown.assert_contains_none_of([MESSAGE.decode(), *self.secrets])

    async def use(self, link: Any) -> None:
        await within(link.serve(silent))
        assert await answer_soon(link.ask(b"all", None)) is None


async def answer_soon(asking: Awaitable[Any]) -> Any:
    """Return what a question gets within `SILENCE` seconds; None if that is nothing, or an exception."""
    try:
        async with asyncio.timeout(SILENCE):
            return await asking
    except Exception:
        return None


async def answer_at_last(link: Any) -> None:
    """Ask all until there is an answer."""
    while True:
        if await answer_soon(link.ask(b"again", None)) is not None:
            return
        await asyncio.sleep(ASKED_AGAIN_AFTER)


async def listen(link: Any) -> asyncio.Queue[bytes]:
    """Return a queue with the notices that a link receives from now on."""
    received: asyncio.Queue[bytes] = asyncio.Queue()
    await within(link.listen(received.put_nowait))
    return received


async def published_at_last(link: Any, received: asyncio.Queue[bytes]) -> bytes:
    """Publish until another replica has received a notice. Returns the first one."""
    while received.empty():
        await answer_soon(link.publish(b"after"))
        await asyncio.sleep(ASKED_AGAIN_AFTER)
    return received.get_nowait()
