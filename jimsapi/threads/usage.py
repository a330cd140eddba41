"""Totals of what pipelines have used of models. Stores add to them when they store events `model.usage`."""

from collections.abc import Iterable, Mapping
from datetime import date
from math import isfinite
from typing import Any
from uuid import UUID

import msgspec

from jimsapi.threads.activity import MODEL_USAGE
from jimsapi.threads.event import EventRow, NewEvent
from jimsapi.threads.storable import load_stored, storable_text

NO_CALLER = UUID(int=0)
"""The caller of usage that belongs to no run, such as that of `RunService.append`."""

MAX_MODEL = 128
"""The characters of a model's name in totals. The rest of a longer name is cut off."""
MAX_USAGE_CONTACT = 2_000
"""The bytes of UTF-8 of a contact that has totals. Threads of other JIMS programs may have longer ones."""
_MOST_TOKENS = 1_000_000_000_000
_MOST_COST = 1_000_000_000.0
"""What one event can add at most. An event of a pipeline's own may have any number."""


class UsageTotal(msgspec.Struct, frozen=True, gc=False):
    """What a number of model calls have used. `cached_tokens` are among the input tokens.

    `cost` is in US dollars. Calls whose cost is not known add nothing to it.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: float = 0.0

    @property
    def tokens(self) -> int:
        """The number of tokens that the models read and wrote."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "UsageTotal") -> "UsageTotal":
        return UsageTotal(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.cost + other.cost,
        )


class ModelTotal(msgspec.Struct, frozen=True, gc=False):
    """What one model was used for. `model` has at most `MAX_MODEL` characters."""

    model: str
    total: UsageTotal


class DayTotal(msgspec.Struct, frozen=True, gc=False):
    """What one model was used for on one day in UTC."""

    day: date
    model: str
    total: UsageTotal


class UsageHolder(msgspec.Struct, frozen=True):
    """Whose usage `ThreadStore.usage` returns.

    - Only `contact_id`: that of a contact, whoever called for it.
    - Only `caller`: that of a caller, for all its contacts. It also has what the caller used for contacts that were
      deleted since. `caller` is the digest that runs have.
    - Both: that of a caller for one contact.
    """

    contact_id: str | None = None
    caller: UUID | None = None


NO_USAGE: Mapping[str, UsageTotal] = {}


def usage_by_model(events: Iterable[NewEvent | EventRow]) -> Mapping[str, UsageTotal]:
    """Return what the events `model.usage` among `events` add to the total of each model. Most answers have none."""
    totals: dict[str, UsageTotal] | None = None  # a plain loop: every answer goes through it, nearly always for nothing
    for event in events:
        if event.event_type != MODEL_USAGE:
            continue
        if totals is None:
            totals = {}
        data = {} if event.data is None else load_stored(event.data)
        model, total = _read(data if isinstance(data, dict) else {})
        totals[model] = totals.get(model, UsageTotal()) + total
    return NO_USAGE if totals is None else totals


def sum_usage(total: Mapping[str, UsageTotal], more: Mapping[str, UsageTotal]) -> Mapping[str, UsageTotal]:
    """Return the sum of two totals by model."""
    return {model: total.get(model, UsageTotal()) + more.get(model, UsageTotal()) for model in {**total, **more}}


def _read(data: dict[str, Any]) -> tuple[str, UsageTotal]:
    """Return the model and the total of one event. Events of a pipeline's own may have anything in its fields."""
    model, cost = data.get("model"), data.get("cost")
    known = isinstance(cost, int | float) and not isinstance(cost, bool) and isfinite(cost) and cost > 0
    total = UsageTotal(
        1,
        _count(data.get("input_tokens")),
        _count(data.get("output_tokens")),
        _count(data.get("cached_tokens")),
        min(float(cost), _MOST_COST) if known and cost is not None else 0.0,
    )
    return (storable_text(model[:MAX_MODEL]) if isinstance(model, str) else ""), total


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return min(max(value, 0), _MOST_TOKENS)
