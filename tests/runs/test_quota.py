"""What a caller may ask for: rates by a clock that the test turns, open runs, and who is counted with whom."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from fractions import Fraction
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jimsapi import Identity, Inbound, JimsApp, ThreadContext
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs.admission import PUBLIC, Admission
from jimsapi.runs.errors import (
    ContactForbidden,
    PipelineFailed,
    RunCancelled,
    RunInterrupted,
    RunTimedOut,
    ServerDraining,
    TooManyRuns,
)
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.live import Stop
from jimsapi.runs.quota import Quota, QuotaExceeded, QuotaLimits, Rate, RateLimit, quota_keys
from jimsapi.runs.service import RunService
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import DomainError, InputRefused, StoreUnavailable, ThreadNotFound

pytestmark = pytest.mark.anyio

DAY = 86_400


def caller(subject: str = "shop", provider: str | None = "key") -> Admission:
    return Admission(Identity(subject), provider, "jimsapi", "1")


def quota(room: int = 100_000, **limits: Any) -> Quota:
    rates: dict[str, Any] = {
        name: Rate.parse(value) if isinstance(value, str) else value for name, value in limits.items()
    }
    return Quota(QuotaLimits(**rates), room)


def passes(limited: Quota, now: float, contact: str = "ann", admission: Admission | None = None) -> bool:
    """Whether a message gets through; its run has ended at once."""
    try:
        limited.release(limited.acquire(admission or caller(), contact, now))
    except QuotaExceeded:
        return False
    return True


def refusal(limited: Quota, now: float, contact: str = "ann") -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as raised:
        limited.acquire(caller(), contact, now)
    return raised.value


@pytest.mark.parametrize(
    ("text", "count", "seconds"),
    [("5/s", 5, 1), ("60/min", 60, 60), (" 1000/h ", 1000, 3600), ("10000/day", 10_000, DAY), ("1000000/s", 10**6, 1)],
)
def test_a_rate_is_a_number_and_a_unit(text: str, count: int, seconds: int) -> None:
    rate = Rate.parse(text)
    assert (rate.count, rate.seconds) == (count, seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "60",
        "/min",
        "60/",
        "60/minute",
        "60 / min",
        "0/min",
        "-1/min",
        "1.5/s",
        "1e3/s",
        "1000001/s",
        "٣/s",
        "60/MIN",
    ],
)
def test_what_is_no_rate_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"5/s, 60/min, 1000/h or 10000/day"):
        Rate.parse(text)


def test_a_rate_lets_a_burst_through_then_one_at_a_time() -> None:
    limited = quota(rate="60/min")
    assert [passes(limited, 1000.0) for _ in range(61)] == [True] * 60 + [False]
    assert [passes(limited, 1000.5), passes(limited, 1001.0), passes(limited, 1001.0)] == [False, True, False]
    assert [passes(limited, 1011.0) for _ in range(11)] == [True] * 10 + [False]
    assert [passes(limited, 5000.0) for _ in range(61)] == [True] * 60 + [False]


def test_a_refusal_says_when_to_come_back_in_whole_seconds_and_no_less_than_one() -> None:
    limited = quota(rate="3/h")
    assert all(passes(limited, 0.0) for _ in range(3))
    for now, seconds in ((0.0, 1200), (0.25, 1200), (1.0, 1199), (1199.75, 1)):
        refused = refusal(limited, now)
        assert refused.retry_after == seconds
        assert str(refused) == f"Too many messages of this contact: at most 3 per hour; try again in {seconds} s"
    assert passes(limited, 1200.0)
    fast = quota(rate="1000/s")
    assert all(passes(fast, 0.0) for _ in range(1000))
    assert refusal(fast, 0.0).retry_after == 1


def test_what_is_left_is_told_with_the_time_until_it_is_more() -> None:
    limited = quota(rate="4/min", identity_rate="10/min", contact_runs=2, identity_runs=3)
    keys = limited.acquire(caller(), "ann", 0.0)
    limited.acquire(caller(), "ben", 3.0)
    told = [(left.policy.name, left.remaining, left.seconds) for left in limited.allowances(keys, 3.0)]
    assert told == [("contact", 3, 12), ("identity", 8, 3), ("contact-runs", 1, None), ("identity-runs", 1, None)]
    later = [(left.remaining, left.seconds) for left in limited.allowances(keys, 15.0)]
    assert later == [(4, 15), (10, 6), (1, None), (1, None)]


def test_contacts_callers_and_providers_are_counted_apart() -> None:
    limited = quota(rate="1/day")
    assert passes(limited, 0.0, "ann")
    assert not passes(limited, 0.0, "ann")
    assert passes(limited, 0.0, "ben")
    assert passes(limited, 0.0, "ann", caller("desk"))
    assert passes(limited, 0.0, "ann", caller("shop", "oidc"))
    assert passes(limited, 0.0, "ann", PUBLIC)
    assert passes(limited, 0.0, "ann", caller(PUBLIC.identity.subject, "None"))
    assert not passes(limited, 0.0, "ann", PUBLIC)


def test_the_same_letters_in_other_places_are_other_callers() -> None:
    all_keys = [
        quota_keys(caller(subject, provider), contact)
        for subject, provider, contact in [
            ("ab", "k", "c"),
            ("a", "k", "bc"),
            ("b", "ka", "c"),
            ("', 'a", "k", "c"),
            ("ab", "k", ""),
            ("", "k", "ab"),
            ("\ud800", "k", "c"),
        ]
    ]
    # Without the bytes that are there for finding a caller's shared bucket, and too few to tell callers apart.
    assert len({keys.contact[2:] for keys in all_keys}) == len(all_keys)


def test_inventing_contacts_does_not_pass_the_limit_of_the_caller() -> None:
    limited = quota(rate="60/min", identity_rate="5/min", identity_runs=2)
    assert [passes(limited, 0.0, f"invented {number}") for number in range(8)] == [True] * 5 + [False] * 3
    assert passes(limited, 0.0, "ann", caller("desk"))
    assert "this caller: at most 5 per minute" in str(refusal(limited, 0.0))


def test_a_refused_message_takes_nothing_of_any_limit() -> None:
    limited = quota(rate="2/day", identity_rate="3/day", contact_runs=1)
    keys = limited.acquire(caller(), "ann", 0.0)
    for _ in range(9):
        assert refusal(limited, 0.0).exhausted[0].policy.name == "contact-runs"
    limited.release(keys)
    assert passes(limited, 0.0)
    for _ in range(9):
        assert [left.policy.name for left in refusal(limited, 0.0).exhausted] == ["contact"]
    assert passes(limited, 0.0, "ben")
    assert [left.policy.name for left in refusal(limited, 0.0, "ben").exhausted] == ["identity"]
    assert passes(limited, DAY / 3, "ben")  # not put off by those that were refused


def test_of_several_limits_the_longest_wait_is_told() -> None:
    limited = quota(rate="1/min", identity_rate="1/h", contact_runs=1)
    limited.acquire(caller(), "ann", 0.0)
    refused = refusal(limited, 0.0)
    assert refused.retry_after == 3600
    assert [left.policy.name for left in refused.exhausted] == ["contact", "identity", "contact-runs"]
    assert [policy.name for policy in refused.policies] == ["contact", "identity", "contact-runs"]


def test_as_many_runs_may_be_open_as_the_limit_says() -> None:
    limited = quota(contact_runs=2, identity_runs=3)
    first = limited.acquire(caller(), "ann", 0.0)
    limited.acquire(caller(), "ann", 0.0)
    refused = refusal(limited, 0.0)
    assert refused.retry_after == 1
    assert str(refused) == "Too many messages of this contact are being answered: at most 2 at once; try again later"
    limited.acquire(caller(), "ben", 0.0)
    assert "of this caller are being answered: at most 3 at once" in str(refusal(limited, 0.0, "cem"))
    limited.acquire(caller("desk"), "ann", 0.0)
    limited.release(first)
    limited.acquire(caller(), "ann", 0.0)


def test_nothing_is_kept_of_callers_without_an_open_run_or_with_a_full_bucket() -> None:
    limit = RateLimit("contact", Rate.parse("60/min"), by_contact=True)
    for number in range(1000):
        limit.acquire(quota_keys(caller(), f"{number}").contact, float(number))
    assert len(limit) < 10
    runs = quota(contact_runs=1, identity_runs=5)
    for number in range(1000):
        assert passes(runs, 0.0, f"{number}")
    assert [len(limit) for limit in runs._limits] == [0, 0]


def test_who_invents_contacts_fills_the_room_and_gains_nothing_by_it() -> None:
    limited = quota(room=50, rate="3/day")
    assert [passes(limited, 0.0, "ann") for _ in range(4)] == [True, True, True, False]
    passed = sum(passes(limited, 0.0, f"invented {number}") for number in range(5000))
    assert passed == 49 + 3  # those that found room, and a bucket for all the others
    [limit] = limited._limits
    assert len(limit) == 51
    assert not passes(limited, 0.0, "ann")  # nobody is forgotten before the time
    assert passes(limited, 0.0, "ann", caller("another"))  # who else comes has a share of the rest
    assert not passes(limited, DAY / 3 - 1, "invented 4999")


def test_a_full_room_takes_a_bounded_number_of_bytes_whoever_invents_contacts() -> None:
    tracemalloc.start()
    try:
        limited = quota(room=5000, rate="60/min")
        for number in range(20_000):
            passes(limited, 0.0, f"invented {number}")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 5000 * 320


def test_a_bucket_that_was_used_again_is_kept_until_it_is_full() -> None:
    limited = quota(rate="2/day")
    assert [passes(limited, 0.0), passes(limited, 1.0), passes(limited, 2.0)] == [True, True, False]
    assert passes(limited, DAY / 2 + 1, "ben")  # looks for full ones; ann's would be, had it been used once
    assert [passes(limited, DAY / 2 + 1), passes(limited, DAY / 2 + 1)] == [True, False]


def test_who_shared_a_bucket_does_not_begin_afresh_when_there_is_room_again() -> None:
    limited = quota(room=1, rate="2/day")
    assert passes(limited, 0.0, "ann")
    assert [passes(limited, 1.0, "ben") for _ in range(3)] == [True, True, False]  # no room for its own
    assert passes(limited, DAY / 2 + 1, "ben")  # ann's is full again, and so gone
    assert not passes(limited, DAY / 2 + 2, "ben")


class Tokens:
    """The limit as one would explain it: a bucket in exact numbers."""

    def __init__(self, rate: Rate) -> None:
        self.rate, self.left, self.at = rate, Fraction(rate.count), Fraction(0)

    def passes(self, now: Fraction) -> bool:
        self.left = min(self.left + (now - self.at) * self.rate.count / self.rate.seconds, Fraction(self.rate.count))
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


TICK = Fraction(1, 512)
"""Seconds; a float holds every multiple, and so does a number of nanoseconds."""

rates = st.builds(Rate, st.integers(1, 7), st.sampled_from(["s", "min"]))
steps = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 4)), max_size=80)


@given(rates, steps)
def test_a_bucket_is_what_the_explanation_says(rate: Rate, steps: list[tuple[int, int]]) -> None:
    limited, explained, now = quota(rate=rate), [Tokens(rate) for _ in range(5)], Fraction(0)
    for ticks, contact in steps:
        now += ticks * TICK
        assert passes(limited, float(now), str(contact)) == explained[contact].passes(now)


@given(rates, steps, st.integers(0, 3))
def test_no_time_sees_more_than_a_burst_and_what_flowed_in_however_little_room_there_is(
    rate: Rate, steps: list[tuple[int, int]], room: int
) -> None:
    limited, passed, now = quota(room=room, rate=rate), [list[Fraction]() for _ in range(5)], Fraction(0)
    for ticks, contact in steps:
        now += ticks * TICK
        if passes(limited, float(now), str(contact)):
            passed[contact].append(now)
    [limit] = limited._limits
    assert len(limit) <= room + 1
    for times in passed:
        for first, begin in enumerate(times):
            for last, end in enumerate(times[first:], first):
                assert last - first + 1 <= rate.count + (end - begin) * rate.count / rate.seconds


class Bot:
    """A pipeline that can be held: `hold` waits, `raise` fails, everything else is echoed."""

    def __init__(self) -> None:
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()

    async def __call__(self, ctx: ThreadContext) -> None:
        message = ctx.get_last_user_message()
        if message == "hold":
            self.begun.set()
            await self.may_end.wait()
        if message == "swallow":
            while not self.may_end.is_set():
                with suppress(asyncio.CancelledError):
                    await self.may_end.wait()
        if message == "raise":
            raise RuntimeError("on purpose")
        ctx.send_message(f"You said: {message}")


@asynccontextmanager
async def serving(pipeline: Any, store: MemoryStore | None = None, **limits: Any) -> AsyncIterator[RunService]:
    quota_limits = {name: limits.pop(name) for name in list(limits) if name in QuotaLimits.__struct_fields__}
    async with (
        store or MemoryStore() as opened,
        RunService(
            JimsApp(pipeline),
            opened,
            [DefaultResolver()],
            limits=RunLimits(quota=QuotaLimits(**quota_limits), **limits),
        ) as service,
    ):
        yield service


def inbound(message: str, contact: str = "ann", **fields: Any) -> Inbound:
    return Inbound(contact_id=contact, message=message, **fields)


async def test_without_a_limit_nothing_is_counted() -> None:
    async with serving(Bot()) as service:
        run = service.begin(inbound("hi"), PUBLIC)
        await run.answer
        assert (service.quota, run.quota_keys, service.allowances(run)) == (None, None, ())


async def test_a_refused_message_is_not_stored_and_opens_no_run() -> None:
    async with serving(Bot(), rate=Rate(1, "day")) as service:
        await service.chat(inbound("hi"), PUBLIC)
        for _ in range(3):
            with pytest.raises(QuotaExceeded):
                service.begin(inbound("again", "ann"), PUBLIC)
        assert service.open_runs == 0
        [thread] = (await service.store.threads("ann", 10, None)).threads
        events = (await service.store.events(thread.thread_id, None, 100, None)).events
    assert [event.event_type for event in events][1:] == ["comm.user_message", "comm.assistant_message"]


async def test_a_run_that_fails_has_taken_its_part_of_the_rate() -> None:
    async with serving(Bot(), rate=Rate(2, "day")) as service:
        with pytest.raises(PipelineFailed):
            await service.chat(inbound("raise"), PUBLIC)
        with pytest.raises(ThreadNotFound):
            await service.chat(inbound("hi", thread_id=uuid4()), PUBLIC)
        with pytest.raises(QuotaExceeded):
            await service.chat(inbound("hi"), PUBLIC)


async def test_what_others_refuse_takes_nothing() -> None:
    bound = Admission(Identity("ann", contact_id="ann"), "oidc")
    bot = Bot()
    async with serving(bot, rate=Rate(1, "day"), identity_rate=Rate(3, "day"), max_runs=1) as service:
        with pytest.raises(ContactForbidden):
            service.begin(inbound("hi", "ben"), bound)
        with pytest.raises(InputRefused):
            service.begin(inbound("\0", "ann"), bound)
        held = service.begin(inbound("hold", "cem"), PUBLIC)
        await bot.begun.wait()
        with pytest.raises(TooManyRuns):
            service.begin(inbound("hi", "ann"), bound)
        bot.may_end.set()
        await held.answer
        await service.chat(inbound("hi", "ann"), bound)
        service.draining = True
        with pytest.raises(ServerDraining):
            service.begin(inbound("hi", "ann"), bound)


ENDS: list[tuple[Stop, type[DomainError]]] = [
    (Stop.CANCELLED, RunCancelled),
    (Stop.DELETED, ThreadNotFound),
    (Stop.DRAINED, RunInterrupted),
    (Stop.TIMED_OUT, RunTimedOut),
]


@pytest.mark.parametrize(("reason", "error"), ENDS)
async def test_a_stopped_run_is_open_no_longer(reason: Stop, error: type[DomainError]) -> None:
    bot = Bot()
    async with serving(bot, contact_runs=1, identity_runs=1) as service:
        run = service.begin(inbound("hold"), PUBLIC)
        await bot.begun.wait()
        with pytest.raises(QuotaExceeded):
            service.begin(inbound("hi"), PUBLIC)
        service.stop_runs([run.run_id], reason)
        with pytest.raises(error):
            await run.answer
        await service.chat(inbound("hi"), PUBLIC)


async def test_waiting_ones_are_open_too_and_leave_with_their_queue() -> None:
    bot = Bot()
    async with serving(bot, contact_runs=2, queue_timeout=0.3) as service:
        held = service.begin(inbound("hold"), PUBLIC)
        await bot.begun.wait()
        late = service.begin(inbound("late"), PUBLIC)
        with pytest.raises(QuotaExceeded):
            service.begin(inbound("third"), PUBLIC)
        with pytest.raises(DomainError):
            await late.answer
        again = service.begin(inbound("again"), PUBLIC)
        bot.may_end.set()
        await asyncio.gather(held.answer, again.answer)


async def test_a_run_whose_pipeline_was_let_go_is_open_no_longer() -> None:
    bot = Bot()
    async with serving(bot, contact_runs=1, run_timeout=0.5) as service:
        with pytest.raises(RunTimedOut):
            await service.chat(inbound("swallow"), PUBLIC)
        await service.chat(inbound("hi"), PUBLIC)
        assert service.abandoned_pipelines == 1
        bot.may_end.set()


class Broken(MemoryStore):
    """A store whose `accept` fails once."""

    def __init__(self, failure: Callable[[], Exception]) -> None:
        super().__init__()
        self._failures = [failure]

    async def accept(self, plan: Any) -> Any:
        if self._failures:
            raise self._failures.pop()()
        return await super().accept(plan)


@pytest.mark.parametrize("failure", [lambda: StoreUnavailable("away"), lambda: RuntimeError("a defect")])
async def test_a_run_that_the_store_did_not_take_is_open_no_longer(failure: Callable[[], Exception]) -> None:
    async with serving(Bot(), Broken(failure), contact_runs=1) as service:
        with pytest.raises(DomainError):
            await service.chat(inbound("hi"), PUBLIC)
        await service.chat(inbound("hi"), PUBLIC)


async def test_a_caller_that_hangs_up_keeps_its_run_open() -> None:
    bot = Bot()
    async with serving(bot, contact_runs=1) as service:
        waiting = asyncio.create_task(service.chat(inbound("hold"), PUBLIC))
        await bot.begun.wait()
        waiting.cancel()
        with pytest.raises(QuotaExceeded):
            service.begin(inbound("hi"), PUBLIC)
        bot.may_end.set()
        while service.open_runs:
            await asyncio.sleep(0)
        await service.chat(inbound("hi"), PUBLIC)


async def test_one_after_another_never_meet_each_other() -> None:
    async with serving(Bot(), contact_runs=1, identity_runs=1) as service:
        for _ in range(20):
            await service.chat(inbound("hi"), PUBLIC)
