"""Budgets: how many tokens, or how much money, the models may use for one contact in a day or month."""

import re
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from typing import Literal

import msgspec

from jimsapi.threads.usage import UsageTotal

MICRO = 1_000_000
"""The parts of a dollar in which costs are counted, because fields of HTTP have integers."""
MAX_TOKENS = 1_000_000_000_000
MAX_DOLLARS = 1_000_000

_TOKENS = re.compile(r"([1-9][0-9]{0,12})/(day|month)", re.ASCII)
_COST = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,6})?)/(day|month)", re.ASCII)
_SECONDS = {"day": 86_400, "month": 31 * 86_400}


class Budget(msgspec.Struct, frozen=True):
    """`amount` tokens, or millionths of a US dollar, in a day or a month of the calendar in UTC."""

    name: Literal["tokens", "cost"]
    amount: int
    period: str

    @classmethod
    def of_tokens(cls, text: str) -> "Budget":
        """Read a budget such as `1000000/day`. Raises `ValueError` with the valid form if it is invalid."""
        found = _TOKENS.fullmatch(text.strip())
        if found is None or int(found[1]) > MAX_TOKENS:
            raise ValueError(
                f"give a number of tokens from 1 to {MAX_TOKENS} and a time: 1000000/day or 20000000/month"
            )
        return cls("tokens", int(found[1]), found[2])

    @classmethod
    def of_cost(cls, text: str) -> "Budget":
        """Read a budget such as `5/day` or `0.50/day`. Raises `ValueError` with the valid form if it is invalid."""
        found = _COST.fullmatch(text.strip())
        amount = round(float(found[1]) * MICRO) if found else 0
        if found is None or not 0 < amount <= MAX_DOLLARS * MICRO:
            raise ValueError(f"give US dollars, at most {MAX_DOLLARS}, and a time: 5/day, 0.50/day or 100/month")
        return cls("cost", amount, found[2])

    @property
    def seconds(self) -> int:
        """The length of the period in seconds. A month counts as its longest, 31 days."""
        return _SECONDS[self.period]

    @property
    def unit(self) -> str:
        """What `amount` counts, as answers name it."""
        return "tokens" if self.name == "tokens" else "microdollars"

    def spent(self, total: UsageTotal) -> int:
        """Return how much of the budget a total of usage takes."""
        return total.tokens if self.name == "tokens" else round(total.cost * MICRO)

    def first_day(self, today: date) -> date:
        """Return the first day of the period that `today` is in."""
        return today if self.period == "day" else today.replace(day=1)

    def seconds_left(self, now: datetime) -> int:
        """Return the seconds until the period of `now` (UTC) ends: at least 1."""
        last = now.date() if self.period == "day" else now.replace(day=monthrange(now.year, now.month)[1]).date()
        end = datetime.combine(last + timedelta(days=1), datetime.min.time(), UTC)
        return max(-(-(end - now) // timedelta(seconds=1)), 1)

    def __str__(self) -> str:
        amount = f"{self.amount} tokens" if self.name == "tokens" else f"{self.amount / MICRO:g} US dollars"
        return f"{amount} per {self.period}"
