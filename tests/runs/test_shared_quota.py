"""Rate limits that replicas count together: what they admit in all, and what happens if notices are late or lost."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jimsapi.runs import shared_quota
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.budget import Budget
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.quota import Quota, QuotaExceeded, QuotaLimits, Rate, quota_keys
from jimsapi.runs.replicas import Replicas
from jimsapi.runs.service import RunService
from jimsapi.runs.shared_quota import MAX_NOTICE, SharedQuota
from jimsapi.stores.memory import MemoryStore
from tests.apps.scripted import Scripted
from tests.runs.serving import caller, inbound, serving
from tests.runs.test_quota import TICK, Tokens, passes, rates

pytestmark = pytest.mark.anyio

Receive = Callable[[bytes], None]
ANN = quota_keys(PUBLIC, "ann")


class Bus:
    """What connects the links of a test. `notices` are those that were published so far."""

    def __init__(self) -> None:
        self.receivers: dict[object, Receive] = {}
        self.notices: asyncio.Queue[bytes] = asyncio.Queue()

    async def notice(self) -> bytes:
        """Wait for the next notice."""
        async with asyncio.timeout(10):
            return await self.notices.get()


class BusLink:
    """A link in one process. It carries notices only."""

    name = "bus"

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    async def serve(self, answer: Any) -> None:
        pass

    async def ask(self, question: bytes, replica: str | None) -> None:
        pass

    async def listen(self, receive: Receive) -> None:
        self.bus.receivers[self] = receive

    async def publish(self, notice: bytes) -> None:
        for link, receive in self.bus.receivers.items():
            if link is not self:
                receive(notice)
        self.bus.notices.put_nowait(notice)


def limited(rate: str | None = None, **limits: Any) -> RunLimits:
    return RunLimits(quota=QuotaLimits(rate=None if rate is None else Rate.parse(rate), **limits))


@asynccontextmanager
async def replicas(*links: Any, limits: RunLimits) -> AsyncIterator[list[RunService]]:
    """Services on one store, each with a link."""
    store = MemoryStore()
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(serving(Scripted(), store, limits=limits, replicas=[Replicas(link)]))
            for link in links
        ]


async def admits(service: RunService) -> bool:
    try:
        await service.chat(inbound("send hello"), PUBLIC)
    except QuotaExceeded:
        return False
    return True


steps = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 2)), max_size=80)


@given(rates, steps)
def test_replicas_that_hear_of_each_message_at_once_are_like_one(rate: Rate, steps: list[tuple[int, int]]) -> None:
    quotas, explained, now = [Quota(QuotaLimits(rate=rate)) for _ in range(3)], Tokens(rate), Fraction(0)
    for ticks, asked in steps:
        now += ticks * TICK
        admitted = passes(quotas[asked], float(now), admission=PUBLIC)
        assert admitted == explained.passes(now)
        for replica, other in enumerate(quotas):
            if admitted and replica != asked:
                other.count_elsewhere(ANN, 1, float(now))


@given(rates, steps, st.lists(st.booleans(), min_size=80, max_size=80))
def test_what_replicas_admit_before_they_hear_of_each_other_bounds_what_they_admit_in_all(
    rate: Rate, steps: list[tuple[int, int]], hear: list[bool]
) -> None:
    quotas = [Quota(QuotaLimits(rate=rate)) for _ in range(3)]
    unheard, heard_at, longest = [0, 0, 0], Fraction(0), Fraction(0)
    now, total = Fraction(0), 0
    for (ticks, asked), hears in zip(steps, hear, strict=False):
        now += ticks * TICK
        longest = max(longest, now - heard_at)
        if passes(quotas[asked], float(now), admission=PUBLIC):
            unheard[asked] += 1
            total += 1
        if hears:
            for replica, messages in enumerate(unheard):
                for other in quotas:
                    if other is not quotas[replica] and messages:
                        other.count_elsewhere(ANN, messages, float(now))
            unheard, heard_at = [0, 0, 0], now
        assert total <= rate.count + now * rate.count / rate.seconds + 2 * (
            rate.count + longest * rate.count / rate.seconds
        )


def test_what_exceeds_a_limit_is_owed() -> None:
    quotas = [Quota(QuotaLimits(rate=Rate.parse("6/min"))) for _ in range(3)]
    for quota in quotas:
        assert [passes(quota, 0.0, admission=PUBLIC) for _ in range(7)] == [*[True] * 6, False]
    for quota in quotas:
        quota.count_elsewhere(ANN, 12, 0.0)
        with pytest.raises(QuotaExceeded) as raised:
            quota.acquire(PUBLIC, "ann", 0.0)
        assert raised.value.retry_after == 130
        assert [one.remaining for one in raised.value.exhausted] == [0]
        assert not passes(quota, 129.0, admission=PUBLIC)
        assert passes(quota, 130.0, admission=PUBLIC)


def test_messages_that_another_replica_puts_back_may_be_sent_here() -> None:
    quota = Quota(QuotaLimits(rate=Rate.parse("3/day")))
    quota.count_elsewhere(ANN, 3, 0.0)
    assert not passes(quota, 0.0, admission=PUBLIC)
    quota.count_elsewhere(ANN, -2, 0.0)
    assert [passes(quota, 0.0, admission=PUBLIC) for _ in range(3)] == [True, True, False]


async def test_a_message_at_one_replica_counts_at_the_others() -> None:
    bus = Bus()
    async with replicas(BusLink(bus), BusLink(bus), BusLink(bus), limits=limited("4/day")) as services:
        for service in (*services, services[0]):
            assert await admits(service)
            await bus.notice()
        assert [await admits(service) for service in services] == [False] * 3


async def test_a_message_of_one_contact_counts_for_its_caller_at_the_others() -> None:
    bus = Bus()
    limits = RunLimits(quota=QuotaLimits(identity_rate=Rate.parse("2/day")))
    async with replicas(BusLink(bus), BusLink(bus), limits=limits) as (one, other):
        for contact in ("ann", "ben"):
            await one.chat(inbound(contact=contact), caller("shop"))
            await bus.notice()
        with pytest.raises(QuotaExceeded, match="Too many messages of this caller"):
            await other.chat(inbound(contact="cleo"), caller("shop"))
        await other.chat(inbound(contact="cleo"), caller("desk"))


async def test_a_message_beyond_a_budget_counts_at_no_replica() -> None:
    bus = Bus()
    limits = limited("2/day", token_budget=Budget.of_tokens("5/day"))
    async with replicas(BusLink(bus), limits=limits) as [staying]:
        async with replicas(BusLink(bus), limits=limits) as [leaving]:
            await leaving.chat(inbound("use 7; send hello"), PUBLIC)
            for _ in range(3):
                with pytest.raises(QuotaExceeded, match="The budget of this contact is used up"):
                    await leaving.chat(inbound("send hello"), PUBLIC)
        assert staying.quota is not None
        now = asyncio.get_running_loop().time()
        assert [passes(staying.quota, now, admission=PUBLIC) for _ in range(2)] == [True, False]


async def test_what_a_replica_counted_last_is_published_when_it_ends() -> None:
    bus = Bus()
    async with replicas(BusLink(bus), limits=limited("1/day")) as [staying]:
        async with replicas(BusLink(bus), limits=limited("1/day")) as [leaving]:
            assert await admits(leaving)
        assert not await admits(staying)


async def test_without_a_rate_limit_nothing_is_published() -> None:
    bus = Bus()
    limits = RunLimits(quota=QuotaLimits(contact_runs=2, token_budget=Budget.of_tokens("5/day")))
    async with replicas(BusLink(bus), limits=limits) as [service]:
        assert await admits(service)
    assert bus.notices.empty()
    assert bus.receivers == {}


async def test_without_a_link_a_process_counts_as_before() -> None:
    async with serving(Scripted(), limits=limited("1/day")) as service:
        assert type(service.quota) is Quota


async def test_a_refused_message_publishes_nothing() -> None:
    bus = Bus()
    async with replicas(BusLink(bus), limits=limited("1/day")) as [service]:
        assert await admits(service)
        await bus.notice()
        assert not await admits(service)
    assert bus.notices.empty()


@pytest.mark.parametrize(
    "notice", [b"", b"\x01", b"\x01" + bytes(37), b"\x02" + ANN.identity + ANN.contact + bytes([0, 0, 0, 9])]
)
async def test_what_is_no_notice_of_this_version_counts_nothing(notice: bytes) -> None:
    bus = Bus()
    async with replicas(BusLink(bus), limits=limited("1/day")) as [service]:
        for receive in bus.receivers.values():
            receive(notice)
        assert await admits(service)


async def test_many_counts_are_published_in_notices_of_limited_size() -> None:
    bus = Bus()
    one, other = (SharedQuota(QuotaLimits(rate=Rate.parse("1/day")), BusLink(bus)) for _ in range(2))
    await other.start()
    for number in range(4000):
        one.acquire(PUBLIC, f"contact {number}", 0.0)
    await one.stop()
    await other.stop()
    sizes = [len(bus.notices.get_nowait()) for _ in range(bus.notices.qsize())]
    assert len(sizes) == 3
    assert max(sizes) <= MAX_NOTICE
    now = asyncio.get_running_loop().time()
    assert not any(passes(other, now, f"contact {number}", PUBLIC) for number in range(4000))


async def test_a_message_that_is_put_back_at_once_is_not_published() -> None:
    bus = Bus()
    quota = SharedQuota(QuotaLimits(rate=Rate.parse("1/day")), BusLink(bus))
    quota.put_back(quota.acquire(PUBLIC, "ann", 0.0))
    await quota.stop()
    assert bus.notices.empty()


class Faulty(BusLink):
    """A link whose `publish` fails. `published` counts the calls."""

    published = 0

    async def publish(self, notice: bytes) -> None:
        self.published += 1
        self.bus.notices.put_nowait(notice)
        raise ConnectionError("the cable is cut")


async def test_a_link_that_fails_is_logged_once_and_each_replica_counts_for_itself(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_quota, "PUBLISH_EVERY", 0.0)
    bus = Bus()
    async with replicas(Faulty(bus), Faulty(bus), limits=limited("2/day")) as (one, other):
        for service in (one, one, other, other):
            assert await admits(service)
            await bus.notice()
        assert [await admits(one), await admits(other)] == [False, False]
    lines = [line for line in caplog.messages if "the cable is cut" in line]
    assert lines == ["replica link bus failed: ConnectionError: the cable is cut"] * 2, "one for each replica"


class Mute(BusLink):
    """A link that does not come back."""

    async def listen(self, receive: Receive) -> None:
        await asyncio.Event().wait()

    async def publish(self, notice: bytes) -> None:
        self.bus.notices.put_nowait(notice)
        await asyncio.Event().wait()


async def test_no_message_waits_for_a_link_that_does_not_come_back(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_quota, "LISTEN_WITHIN", 0.01)
    monkeypatch.setattr(shared_quota, "PUBLISH_WITHIN", 0.01)
    bus = Bus()
    with caplog.at_level(logging.ERROR):
        async with replicas(Mute(bus), limits=limited("3/day")) as [service]:
            for _ in range(3):
                assert await admits(service)
            for _ in range(2):
                await bus.notice()
                service.quota.put_back(ANN)  # type: ignore[union-attr] # there is a limit
    assert "replica link bus cannot listen" in caplog.text
    assert "replica link bus failed: TimeoutError" in caplog.text
