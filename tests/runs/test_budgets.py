"""Budgets of tokens and costs: what they read, when their periods end, and which runs they count."""

import asyncio
import logging
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from jimsapi import JimsApp, ThreadContext
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.budget import Budget
from jimsapi.runs.errors import RunCancelled
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.lookup import Runs
from jimsapi.runs.quota import QuotaExceeded, QuotaLimits
from jimsapi.runs.service import RunService
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import StoreUnavailable
from jimsapi.threads.prices import Prices
from jimsapi.threads.usage import UsageHolder, UsageTotal
from tests.apps.scripted import Scripted
from tests.runs.serving import STORES, caller, ended, inbound, make_store, serving

pytestmark = pytest.mark.anyio


def limits(tokens: str | None = None, cost: str | None = None) -> RunLimits:
    return RunLimits(
        quota=QuotaLimits(
            token_budget=None if tokens is None else Budget.of_tokens(tokens),
            cost_budget=None if cost is None else Budget.of_cost(cost),
        )
    )


async def spent(service: RunService, contact: str = "ann") -> int:
    found = await service.store.usage(UsageHolder(contact), date(2000, 1, 1), date(2100, 1, 1))
    return sum((one.total for one in found), UsageTotal()).tokens


@pytest.mark.parametrize(
    ("text", "amount", "shown"),
    [("1000000/day", 1_000_000, "1000000 tokens per day"), (" 7/month ", 7, "7 tokens per month")],
)
def test_budgets_of_tokens_are_read(text: str, amount: int, shown: str) -> None:
    budget = Budget.of_tokens(text)
    assert (budget.amount, str(budget)) == (amount, shown)


@pytest.mark.parametrize(
    ("text", "amount", "shown"),
    [("5/day", 5_000_000, "5 US dollars per day"), ("0.000001/month", 1, "1e-06 US dollars per month")],
)
def test_budgets_of_costs_are_counted_in_millionths_of_a_dollar(text: str, amount: int, shown: str) -> None:
    budget = Budget.of_cost(text)
    assert (budget.amount, str(budget)) == (amount, shown)


@pytest.mark.parametrize(
    "text", ["", "5", "0/day", "0.0/day", "1e3/day", "5/hour", "1000001/day", "٥/day", "5/day/day"]
)
def test_other_texts_are_no_budgets(text: str) -> None:
    with pytest.raises(ValueError, match="give US dollars"):
        Budget.of_cost(text)


@pytest.mark.parametrize(
    ("period", "now", "first", "seconds"),
    [
        ("day", datetime(2026, 2, 28, 23, 59, 59, 1, UTC), date(2026, 2, 28), 1),
        ("day", datetime(2026, 2, 28, 0, 0, tzinfo=UTC), date(2026, 2, 28), 86_400),
        ("month", datetime(2026, 2, 3, 0, 0, tzinfo=UTC), date(2026, 2, 1), 26 * 86_400),
        ("month", datetime(2026, 12, 31, 23, 0, tzinfo=UTC), date(2026, 12, 1), 3600),
        ("month", datetime(2028, 2, 1, 0, 0, tzinfo=UTC), date(2028, 2, 1), 29 * 86_400),
    ],
)
def test_a_period_is_one_of_the_calendar_in_utc(period: str, now: datetime, first: date, seconds: int) -> None:
    budget = Budget("tokens", 1, period)
    assert (budget.first_day(now.date()), budget.seconds_left(now)) == (first, seconds)


@pytest.mark.parametrize("kind", STORES)
async def test_the_usage_of_a_cancelled_run_counts_for_its_caller(kind: str, tmp_path: Path) -> None:
    bot = Scripted()
    async with serving(bot, make_store(kind, tmp_path), limits=limits("5/day")) as service:
        shop = caller("shop")
        run = service.begin(inbound("use 7; hold on"), shop)
        await bot.reached["on"].wait()
        await Runs(service).cancel(PUBLIC, run.run_id)
        with pytest.raises(RunCancelled):
            await run.answer
        await ended(service)
        with pytest.raises(QuotaExceeded):
            await service.chat(inbound(), shop)
        await service.chat(inbound(), caller("desk"))


@pytest.mark.parametrize("kind", STORES)
async def test_answers_outside_of_threads_take_their_part_of_a_budget(kind: str, tmp_path: Path) -> None:
    async with serving(Scripted(), make_store(kind, tmp_path), limits=limits("5/day")) as service:
        await service.answer_once(inbound("use 7; send a"), PUBLIC).wait_for_answer()
        with pytest.raises(QuotaExceeded):
            await service.answer_once(inbound(), PUBLIC).wait_for_answer()
        with pytest.raises(QuotaExceeded):
            await service.chat(inbound(), PUBLIC)
        assert (await service.store.threads("ann", 10, None)).threads == []


class Unsteady(MemoryStore):
    """A store whose `add_usage` fails twice, the second time after it has written."""

    calls = 0

    async def add_usage(self, *arguments: Any) -> None:
        self.calls += 1
        if self.calls != 1:
            await super().add_usage(*arguments)
        if self.calls < 3:
            raise StoreUnavailable("the disk is full")


async def test_an_answer_outside_of_threads_does_not_wait_for_a_store_that_is_not_available() -> None:
    async with serving(Scripted(), Unsteady()) as service:
        await service.answer_once(inbound("use 7; send a"), PUBLIC).wait_for_answer()
        assert await spent(service) == 0
        await ended(service)
        assert await spent(service) == 8


async def test_an_allowance_says_what_is_left_after_the_run() -> None:
    async with serving(Scripted(), limits=limits("100/day", "1/day")) as service:
        run = service.begin(inbound("use 7; use 1; send a"), PUBLIC)
        await run.answer
        tokens, cost = service.allowances(run)
        assert (tokens.remaining, cost.remaining) == (90, 1_000_000)
        nothing_left = service.begin(inbound("use 500; raise no"), PUBLIC)
        await asyncio.wait([nothing_left.answer])
        assert service.allowances(nothing_left)[0].remaining == 0


class Queries(MemoryStore):
    """A store that counts how often totals are read."""

    count = 0

    async def usage(self, *arguments: Any) -> Any:
        self.count += 1
        return await super().usage(*arguments)


@pytest.mark.parametrize(("tokens", "count"), [(None, 0), ("100/day", 2)])
async def test_a_message_reads_totals_once_and_only_if_there_is_a_budget(tokens: str | None, count: int) -> None:
    store = Queries()
    async with serving(Scripted(), store, limits=limits(tokens, tokens and "5/month")) as service:
        for _ in range(2):
            await service.chat(inbound(), PUBLIC)
    assert store.count == count


def test_the_price_of_a_known_model_is_that_of_its_provider() -> None:
    prices = Prices()
    cost = prices.cost_of("gpt-4o-mini", 1_000_000, 0, 0)
    assert cost is not None
    assert cost > 0
    cached = prices.cost_of("gpt-4o-mini", 1_000_000, 0, 2_000_000)  # more than the model read
    assert cached is not None
    assert cached < cost
    for name in ("openai:gpt-4o-mini", "openai/gpt-4o-mini"):
        assert prices.cost_of(name, 1_000_000, 0, 0) == cost


def test_a_model_without_a_price_costs_nothing_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    prices = Prices()
    with caplog.at_level(logging.INFO):
        for model in ("mine", "mine", "acme:mine"):
            assert prices.cost_of(model, 10, 10, 0) is None
    assert [record.args for record in caplog.records] == [("mine",), ("acme:mine",)]


async def test_a_budget_of_costs_counts_models_whose_price_is_known() -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        ctx.usage(model="gpt-4o-mini", input_tokens=100_000_000, output_tokens=0)

    app, one_dollar = JimsApp(pipeline), limits(cost="1/day")
    async with MemoryStore() as store, RunService(app, store, [DefaultResolver()], limits=one_dollar) as service:
        run = await service.chat(inbound(), PUBLIC)
        assert run.events
        with pytest.raises(QuotaExceeded):
            await service.chat(inbound(), PUBLIC)
