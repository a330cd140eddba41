"""Two run services on one database, as two servers are: one queue for each thread, whoever took the message."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from jimsapi_postgres.store import PostgresStore

from jimsapi import Inbound, JimsApp, ThreadContext
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.service.identity import PUBLIC
from jimsapi.service.run import RunService

pytestmark = pytest.mark.anyio


async def tell(ctx: ThreadContext) -> None:
    """Answer with the number of messages of the person that the context holds."""
    await asyncio.sleep(0)
    ctx.send_message(str(sum(said["role"] == "user" for said in ctx.history)))


@pytest.fixture
async def services(url: str) -> AsyncIterator[tuple[RunService, RunService]]:
    async with AsyncExitStack() as stack:
        pair = []
        for _ in range(2):
            store = await stack.enter_async_context(PostgresStore(url))
            pair.append(await stack.enter_async_context(RunService(JimsApp(tell), store, [DefaultResolver()])))
        yield pair[0], pair[1]


async def test_fifty_first_messages_through_both_make_one_thread(services: tuple[RunService, RunService]) -> None:
    calls = [services[number % 2].chat(Inbound(contact_id="ann", message=f"m{number}"), PUBLIC) for number in range(50)]
    answers = await asyncio.gather(*calls)
    assert len({answer.thread_id for answer in answers}) == 1
    assert sum(answer.created_new_thread for answer in answers) == 1


async def test_a_hundred_messages_through_both_are_answered_one_after_another(
    services: tuple[RunService, RunService],
) -> None:
    thread_id = (await services[0].chat(Inbound(contact_id="ann", message="m"), PUBLIC)).thread_id
    calls = [
        services[number % 2].chat(Inbound(contact_id="ann", message="m", thread_id=thread_id), PUBLIC)
        for number in range(100)
    ]
    answers = await asyncio.gather(*calls)
    assert sorted(int(answer.assistant_messages[0]) for answer in answers) == list(range(2, 102))
