"""Checks the budgets of callers against the totals of usage in the store."""

from collections.abc import Sequence
from datetime import UTC, datetime

from jimsapi.runs.admission import Admission
from jimsapi.runs.budget import Budget
from jimsapi.runs.keys import caller_of
from jimsapi.runs.quota import Allowance, Policy, QuotaExceeded, budget_policy
from jimsapi.threads.store import ThreadStore
from jimsapi.threads.usage import UsageHolder, UsageTotal


class Spending:
    """The budgets of a server. The totals are in the store, so a restart or another process changes nothing.

    What a message uses is known only after it was answered. So the last messages may exceed a budget, by as much as
    those use that are answered at the same time. `policies` are all limits of a caller, for errors.
    """

    def __init__(self, budgets: Sequence[Budget], policies: Sequence[Policy]) -> None:
        self._budgets = budgets
        self._policies = policies

    async def check(self, store: ThreadStore, admission: Admission, contact_id: str) -> tuple[Allowance, ...]:
        """Return what is left of each budget. It reads from the store once.

        Raises:
            QuotaExceeded: a budget is used up.
            StoreUnavailable: the store is not available.
        """
        now = datetime.now(UTC)
        today = now.date()
        first = min(budget.first_day(today) for budget in self._budgets)
        days = await store.usage(holder_of(admission, contact_id), first, today)
        left: list[Allowance] = []
        for budget in self._budgets:
            begin = budget.first_day(today)
            spent = budget.spent(sum((one.total for one in days if one.day >= begin), UsageTotal()))
            remaining = max(budget.amount - spent, 0)
            left.append(Allowance(budget_policy(budget), remaining, budget.seconds_left(now)))
        used_up = [(budget, one) for budget, one in zip(self._budgets, left, strict=True) if not one.remaining]
        if used_up:
            budget, longest = max(used_up, key=lambda pair: pair[1].seconds or 0)
            seconds = longest.seconds or 1
            message = f"The budget of this contact is used up: {budget}; try again in {seconds} s"
            raise QuotaExceeded(message, seconds, self._policies, left)
        return tuple(left)

    def after(self, left: Sequence[Allowance], total: UsageTotal) -> list[Allowance]:
        """Return what is left of each budget when `total` was used, too. `left` is a result of `check`."""
        return [
            Allowance(one.policy, max(one.remaining - budget.spent(total), 0), one.seconds)
            for budget, one in zip(self._budgets, left, strict=True)
        ]


def holder_of(admission: Admission, contact_id: str) -> UsageHolder:
    """Return whose usage counts for a message: the caller's for the contact.

    A caller that is bound to a contact has one anyway. Its own totals also have what it used before it deleted its
    contact, so a deletion does not begin a new budget.
    """
    caller = caller_of(admission)
    return UsageHolder(caller=caller) if admission.identity.contact_id is not None else UsageHolder(contact_id, caller)
