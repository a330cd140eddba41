"""Cases of the contract: totals of usage."""

import asyncio
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest

from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import (
    CONTEXT,
    OTHER_OWNER,
    OWNER,
    completed,
    make_event,
    make_plan,
)
from jimsapi.threads.errors import IdentifierTaken, ThreadNotFound
from jimsapi.threads.event import NewEvent
from jimsapi.threads.facts import ForkPlan
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import New, Outcome, RunPlan, RunStatus
from jimsapi.threads.store import ThreadStore
from jimsapi.threads.usage import MAX_MODEL, NO_CALLER, UsageHolder, UsageTotal

LONG_AGO, LATER = date(2000, 1, 1), date(2100, 1, 1)
SHOP, BANK = uuid7(), uuid7()
"""Two callers."""


def usage_event(model: str = "m", tokens: int = 1, cost: float | None = None) -> NewEvent:
    """Return a `model.usage` as `ctx.usage` makes it: with `tokens` that were read, 2 written and 0 cached."""
    counts = {"input_tokens": tokens, "output_tokens": 2, "cached_tokens": 0}
    return make_event("model.usage", {"model": model, **counts, "cost": cost})


def total_of(calls: int, tokens: int, cost: float = 0.0) -> UsageTotal:
    """Return the total of `calls` events of `usage_event` that have `tokens` together."""
    return UsageTotal(calls, tokens, 2 * calls, 0, cost)


async def usage_of(
    store: ThreadStore, contact_id: str | None = None, caller: UUID | None = None
) -> dict[str, UsageTotal]:
    """Return the totals of a contact or caller by model, over all days."""
    totals: dict[str, UsageTotal] = {}
    for one in await store.usage(UsageHolder(contact_id, caller), LONG_AGO, LATER):
        totals[one.model] = totals.get(one.model, UsageTotal()) + one.total
    return totals


async def thread_usage(store: ThreadStore, thread_id: UUID) -> dict[str, UsageTotal]:
    """Return the totals of a thread by model."""
    return {one.model: one.total for one in await store.thread_usage(thread_id, None)}


async def spend(store: ThreadStore, *events: NewEvent, contact_id: str = "ann", caller: UUID | None = SHOP) -> UUID:
    """Let a run complete with these events. Returns its thread."""
    plan = make_plan(contact_id, caller=caller)
    accepted = await store.accept(plan)
    assert (await store.finish(plan.run_id, OWNER, completed(*events))).counted
    return accepted.thread.thread_id


async def begin(store: ThreadStore, contact_id: str = "ann", **fields: Any) -> tuple[RunPlan, UUID]:
    """Accept a message of the shop. Returns its plan and its thread."""
    plan = make_plan(contact_id, caller=SHOP, **fields)
    return plan, (await store.accept(plan)).thread.thread_id


class UsageTotals(StoreTests):
    """Cases that `ThreadStoreContract` has."""

    async def test_usage_is_added_up_by_model_for_the_thread_the_contact_and_the_caller(
        self, store: ThreadStore
    ) -> None:
        thread_id = await spend(store, usage_event("a", 10, 0.5), make_event(), usage_event("b", 20))
        assert await spend(store, usage_event("a", 30, 0.25)) == thread_id
        both = {"a": total_of(2, 40, 0.75), "b": total_of(1, 20)}
        assert await thread_usage(store, thread_id) == both
        assert await usage_of(store, "ann") == await usage_of(store, None, SHOP) == both
        assert await usage_of(store, "ann", SHOP) == both
        assert await usage_of(store, "bob") == await usage_of(store, None, BANK) == {}

    async def test_usage_of_a_day_is_found_by_its_day_and_in_the_order_of_models(self, store: ThreadStore) -> None:
        await spend(store, usage_event("b"), usage_event("ä"), usage_event("B"))
        found = await store.usage(UsageHolder("ann"), LONG_AGO, LATER)
        assert [one.model for one in found] == ["B", "b", "ä"]
        day = found[0].day
        for holder in (UsageHolder("ann"), UsageHolder(caller=SHOP), UsageHolder("ann", SHOP)):
            assert await store.usage(holder, day, day) == found
            assert await store.usage(holder, LONG_AGO, day - timedelta(days=1)) == []
            assert await store.usage(holder, day + timedelta(days=1), LATER) == []

    async def test_contacts_and_callers_have_totals_of_their_own(self, store: ThreadStore) -> None:
        await spend(store, usage_event(tokens=1))
        await spend(store, usage_event(tokens=10), contact_id="bob")
        await spend(store, usage_event(tokens=100), caller=BANK)
        await spend(store, usage_event(tokens=1000), caller=None)
        assert await usage_of(store, "ann") == {"m": total_of(3, 1101)}
        assert await usage_of(store, "bob") == {"m": total_of(1, 10)}
        assert await usage_of(store, None, SHOP) == {"m": total_of(2, 11)}
        assert await usage_of(store, "ann", SHOP) == {"m": total_of(1, 1)}
        assert await usage_of(store, "ann", NO_CALLER) == {"m": total_of(1, 1000)}

    async def test_answers_without_usage_leave_no_totals(self, store: ThreadStore) -> None:
        thread_id = await spend(store, make_event(), make_event("model.reasoning", {"content": "Hm"}))
        assert await thread_usage(store, thread_id) == await usage_of(store, "ann") == {}

    async def test_usage_of_runs_that_did_not_complete_counts(self, store: ThreadStore) -> None:
        for status in (RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.INTERRUPTED):
            plan, thread_id = await begin(store)
            await store.finish(plan.run_id, OWNER, Outcome(status, (usage_event(),), usage=(usage_event(tokens=5),)))
        assert await thread_usage(store, thread_id) == {"m": total_of(3, 15)}

    async def test_a_run_counts_once(self, store: ThreadStore) -> None:
        plan, thread_id = await begin(store)
        outcome = completed(usage_event(tokens=7))
        for _ in range(3):
            await store.finish(plan.run_id, OWNER, outcome)
        await store.finish(plan.run_id, OTHER_OWNER, completed(usage_event()))
        assert await thread_usage(store, thread_id) == await usage_of(store, "ann") == {"m": total_of(1, 7)}

    async def test_a_refused_outcome_counts_nothing(self, store: ThreadStore) -> None:
        plan, thread_id = await begin(store)
        with pytest.raises(IdentifierTaken):
            await store.finish(
                plan.run_id, OWNER, completed(usage_event(), NewEvent(plan.message.event_id, "x", b"{}"))
            )
        assert await thread_usage(store, thread_id) == await usage_of(store, "ann") == {}

    async def test_usage_of_a_conversation_start_counts(self, store: ThreadStore) -> None:
        plan, thread_id = await begin(store, conversation_start=True)
        for _ in range(2):
            await store.start(plan.run_id, OWNER, [usage_event(tokens=3)], CONTEXT)
        assert await thread_usage(store, thread_id) == await usage_of(store, "ann", SHOP) == {"m": total_of(1, 3)}

    async def test_appended_usage_counts_for_the_caller_of_its_run(self, store: ThreadStore) -> None:
        plan, thread_id = await begin(store)
        await store.cancel(plan.run_id)
        events = [usage_event(tokens=3)]
        for _ in range(2):
            await store.append(thread_id, None, events, plan.run_id)
        await store.append(thread_id, None, [usage_event(tokens=50)])
        await store.append(thread_id, None, [usage_event(tokens=100)], uuid7())
        assert await thread_usage(store, thread_id) == await usage_of(store, "ann") == {"m": total_of(3, 153)}
        assert await usage_of(store, None, SHOP) == {"m": total_of(1, 3)}
        assert await usage_of(store, None, NO_CALLER) == {"m": total_of(2, 150)}

    async def test_a_message_is_no_usage_whatever_its_type(self, store: ThreadStore) -> None:
        data = {"input_tokens": 9}
        plan, thread_id = await begin(store, event_type="model.usage", beside=[("model.usage", data)])
        await store.finish(plan.run_id, OWNER, completed())
        assert await thread_usage(store, thread_id) == await usage_of(store, "ann") == {}

    async def test_usage_outside_of_threads_counts_once(self, store: ThreadStore) -> None:
        run_id, other = uuid7(), uuid7()
        for _ in range(2):
            await store.add_usage(run_id, "ann", SHOP, [usage_event("a"), usage_event("b"), usage_event("a")])
        await store.add_usage(other, "ann", SHOP, [usage_event("a")])
        expected = {"a": total_of(3, 3), "b": total_of(1, 1)}
        assert await usage_of(store, "ann", SHOP) == await usage_of(store, None, SHOP) == expected

    async def test_a_fork_has_used_nothing_yet(self, store: ThreadStore) -> None:
        parent_id = await spend(store, usage_event())
        fork = await store.fork(ForkPlan(thread_id=uuid7(), parent_id=parent_id, acting_for=None))
        assert await thread_usage(store, fork.thread_id) == {}
        assert await usage_of(store, "ann") == {"m": total_of(1, 1)}

    async def test_the_totals_of_a_thread_end_with_it_and_others_stay(self, store: ThreadStore) -> None:
        thread_id = await spend(store, usage_event())
        await store.delete_thread(thread_id, None)
        with pytest.raises(ThreadNotFound):
            await store.thread_usage(thread_id, None)
        assert await usage_of(store, "ann") == await usage_of(store, None, SHOP) == {"m": total_of(1, 1)}

    async def test_the_totals_of_a_contact_end_with_it_and_those_of_its_callers_stay(self, store: ThreadStore) -> None:
        await spend(store, usage_event())
        await spend(store, usage_event(), contact_id="bob")
        await store.add_usage(uuid7(), "without threads", SHOP, [usage_event()])
        await store.delete_contact("ann")
        await store.delete_contact("without threads")
        assert await usage_of(store, "ann") == await usage_of(store, "without threads", SHOP) == {}
        assert await usage_of(store, "bob") == {"m": total_of(1, 1)}
        assert await usage_of(store, None, SHOP) == {"m": total_of(3, 3)}

    async def test_only_those_who_may_see_a_thread_see_its_usage(self, store: ThreadStore) -> None:
        thread_id = await spend(store, usage_event())
        assert len(await store.thread_usage(thread_id, "ann")) == 1
        for target, acting_for in ((thread_id, "bob"), (thread_id, ""), (uuid7(), None)):
            with pytest.raises(ThreadNotFound) as refused:
                await store.thread_usage(target, acting_for)
            assert refused.value.thread_id == target

    async def test_figures_of_any_kind_count_as_far_as_they_are_figures(self, store: ThreadStore) -> None:
        data: list[Any] = [
            {},
            None,
            [1],
            {"model": None, "input_tokens": -5, "output_tokens": 1.5, "cached_tokens": True, "cost": "much"},
            {"model": "x" * 1000, "input_tokens": 10**18, "cost": 1e300},
            {"model": "🦊" * 1000},
            {"cost": -1},
        ]
        thread_id = await spend(store, *[make_event("model.usage", one) for one in data])
        totals = await thread_usage(store, thread_id)
        assert totals == await usage_of(store, "ann")
        assert totals[""] == UsageTotal(5)
        assert totals["🦊" * MAX_MODEL] == UsageTotal(1)
        assert totals["x" * MAX_MODEL] == UsageTotal(1, 10**12, 0, 0, 1e9)

    async def test_usage_of_contacts_with_the_longest_identifiers_counts(self, store: ThreadStore) -> None:
        contact_id = "".join(map(chr, range(0x4E00, 0x4E00 + 666)))  # 1998 bytes, which compress badly
        model = "".join(map(chr, range(0x1F300, 0x1F300 + MAX_MODEL)))
        await spend(store, usage_event(model), contact_id=contact_id)
        assert await usage_of(store, contact_id) == {model: total_of(1, 1)}

    async def test_concurrent_runs_all_count(self, store: ThreadStore) -> None:
        plans = [make_plan(f"c{number % 3}", caller=SHOP, selectors=(New(),)) for number in range(30)]
        await asyncio.gather(*map(store.accept, plans))
        outcomes = [completed(*[usage_event(model) for model in "abc"]) for _ in plans]
        await asyncio.gather(
            *[store.finish(plan.run_id, OWNER, outcome) for plan, outcome in zip(plans, outcomes, strict=True)]
        )
        assert await usage_of(store, None, SHOP) == {model: total_of(30, 30) for model in "abc"}
        assert await usage_of(store, "c1") == {model: total_of(10, 10) for model in "abc"}
