"""A thread that is made for a message: a fork, or one with earlier events. It is made when the message is accepted."""

from pathlib import Path
from uuid import UUID

import pytest

from jimsapi import Inbound
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.quota import QuotaExceeded, QuotaLimits, Rate
from jimsapi.runs.service import RunService
from jimsapi.threads.errors import StoreUnavailable
from jimsapi.threads.event import THREAD_CREATED, NewEvent
from jimsapi.threads.facts import ForkPlan, ThreadPlan
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import Accepted, ByExternalId, RunPlan
from tests.apps.scripted import Scripted
from tests.runs.serving import STORES, inbound, make_store, serving, texts

pytestmark = pytest.mark.anyio


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


async def fork_of(service: RunService, thread_id: UUID) -> ForkPlan:
    return await service.plan_fork(thread_id, None)


def begun() -> ThreadPlan:
    events = (NewEvent(uuid7(), THREAD_CREATED, b"{}"), NewEvent(uuid7(), "comm.user_message", b'{"content":"old"}'))
    return ThreadPlan(thread_id=uuid7(), contact_id="ann", events=events, thread_config=b"{}")


async def count(service: RunService) -> int:
    return len((await service.store.threads("ann", 100, None)).threads)


async def test_a_message_goes_on_in_its_fork_and_the_parent_stays(kind: str, tmp_path: Path) -> None:
    async with serving(Scripted(), make_store(kind, tmp_path)) as service:
        first = await service.chat(inbound("send a"), PUBLIC)
        before = await texts(service, first.thread_id)
        plan = await fork_of(service, first.thread_id)
        second = await service.begin(inbound("send b"), PUBLIC, makes=plan).wait_for_answer()
        assert second.thread_id == plan.thread_id
        assert await texts(service, first.thread_id) == before
        assert len(await texts(service, second.thread_id)) > len(before)


async def test_a_thread_with_earlier_events_is_the_context_of_the_message(kind: str, tmp_path: Path) -> None:
    async with serving(Scripted(), make_store(kind, tmp_path)) as service:
        answer = await service.begin(inbound("send b"), PUBLIC, makes=begun()).wait_for_answer()
        kinds = await texts(service, answer.thread_id)
    assert kinds[:2] == ["user_message", "user_message"]


async def test_a_message_that_a_limit_refuses_makes_no_thread(kind: str, tmp_path: Path) -> None:
    limits = QuotaLimits(rate=Rate.parse("1/day"))
    async with serving(Scripted(), make_store(kind, tmp_path), limits=RunLimits(quota=limits)) as service:
        first = await service.chat(inbound("send a"), PUBLIC)
        for makes in (await fork_of(service, first.thread_id), begun()):
            with pytest.raises(QuotaExceeded):
                service.begin(inbound("send b"), PUBLIC, makes=makes)
        assert await count(service) == 1


async def test_a_message_that_is_repeated_makes_one_thread(kind: str, tmp_path: Path) -> None:
    async with serving(Scripted(), make_store(kind, tmp_path)) as service:
        first = await service.chat(inbound("send a"), PUBLIC)
        found = (ByExternalId("c-1"),)

        async def say() -> UUID:
            plan = await fork_of(service, first.thread_id)
            message: Inbound = inbound("send b")
            run = service.begin(message, PUBLIC, key="k-1", selectors=found, makes=plan)
            return (await run.wait_for_answer()).run_id

        assert await say() == await say()
        assert await count(service) == 2


@pytest.mark.parametrize(("text", "threads"), [("send b", 1), ("send c", 2)])
async def test_a_thread_whose_message_was_not_accepted_is_left_to_the_repetition_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, threads: int
) -> None:
    async with serving(Scripted(), make_store(kind, tmp_path)) as service:
        accept = service.store.accept

        async def unavailable(plan: RunPlan) -> Accepted:
            if plan.selectors:
                raise StoreUnavailable("the store is away")
            return await accept(plan)

        with monkeypatch.context() as patch:
            patch.setattr(service.store, "accept", unavailable)
            with pytest.raises(StoreUnavailable):
                await service.begin(inbound("send b"), PUBLIC, key="k-1", makes=begun()).wait_for_answer()
        await service.begin(inbound(text), PUBLIC, key="k-1", makes=begun()).wait_for_answer()
        assert await count(service) == threads
