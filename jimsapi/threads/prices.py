"""Prices of models, for usage whose cost the pipeline does not give.

They come from the package `genai-prices`, which has the prices of many providers in its releases. It is optional
(`pip install jimsapi[prices]`), and imported when a price is needed for the first time.
"""

import logging
import re
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("jimsapi.prices")

MAX_NAMED = 1000
"""The most models without a price that the log names. A pipeline may make up names."""

_PREFIX = re.compile(r"([a-z0-9_-]+)[:/](.+)", re.DOTALL)
"""A model with its provider, as pydantic-ai (`openai:gpt-5`) and LiteLLM (`openai/gpt-5`) write it."""


class Prices:
    """Calculates costs. One for the process, since prices do not depend on an app."""

    def __init__(self) -> None:
        self._calculate: Callable[[str, str | None, int, int, int], float] | None = None
        self._loaded = False
        self._unknown: set[str] = set()

    def load(self) -> bool:
        """Import the package, which takes some tenths of a second. Returns whether it is installed."""
        if not self._loaded:
            self._calculate = _calculator()
            self._loaded = True
        return self._calculate is not None

    def cost_of(self, model: str, input_tokens: int, output_tokens: int, cached_tokens: int) -> float | None:
        """Return the cost of one call in US dollars; None if the package or the model is not known.

        `cached_tokens` are among the input tokens.
        """
        if not self.load() or self._calculate is None:
            return None
        counts = input_tokens, output_tokens, min(cached_tokens, input_tokens)
        prefix = _PREFIX.fullmatch(model)
        names = [(model, None)] if prefix is None else [(model, None), (prefix[2], prefix[1])]
        for name, provider in names:
            try:
                return self._calculate(name, provider, *counts)
            except LookupError:
                continue
            except Exception:  # a call that was made must not fail because of its price
                logger.exception("the price of the model %r cannot be calculated", model)
                return None
        self._report_unknown(model)
        return None

    def _report_unknown(self, model: str) -> None:
        if model not in self._unknown and len(self._unknown) < MAX_NAMED:
            self._unknown.add(model)
            logger.info(
                "genai-prices has no price for the model %r, so its calls cost nothing in totals and budgets: give "
                "ctx.usage(cost=…), or upgrade genai-prices",
                model,
            )


def _calculator() -> Callable[[str, str | None, int, int, int], float] | None:
    try:
        import genai_prices
    except ImportError:
        return None

    def calculate(model: str, provider: str | None, input_tokens: int, output_tokens: int, cached_tokens: int) -> float:
        used: Any = genai_prices.Usage(
            input_tokens=input_tokens, output_tokens=output_tokens, cache_read_tokens=cached_tokens
        )
        return float(genai_prices.calc_price(used, model, provider_id=provider).total_price)

    return calculate


prices = Prices()
