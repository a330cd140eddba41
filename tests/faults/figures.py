"""What a measurement prints: figures, and which of the promises they break."""

from collections.abc import Sequence
from math import ceil


class Report:
    """Prints each figure as a line `name: value`, and keeps it by name."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self.broken: list[str] = []
        """Names of the figures that break a promise."""

    def show(self, name: str, value: float, unit: str = "") -> None:
        """Print a figure that nothing is promised about."""
        self.figures[name] = value
        print(f"{name}: {_text(value)}{_after(unit)}", flush=True)

    def at_most(self, name: str, value: float, bound: float, unit: str = "") -> None:
        """Print a figure and the most that it may be."""
        self._judge(name, value, unit, f"at most {_text(bound)}", value <= bound)

    def at_least(self, name: str, value: float, bound: float, unit: str = "") -> None:
        """Print a figure and the least that it may be."""
        self._judge(name, value, unit, f"at least {_text(bound)}", value >= bound)

    def say(self, text: str) -> None:
        """Print a remark."""
        print(text, flush=True)

    def verdict(self) -> int:
        """Print whether all promises were kept. Returns the command's exit status."""
        print(f"verdict: broken: {', '.join(self.broken)}" if self.broken else "verdict: kept", flush=True)
        return 1 if self.broken else 0

    def _judge(self, name: str, value: float, unit: str, aim: str, kept: bool) -> None:
        self.figures[name] = value
        if not kept:
            self.broken.append(name)
        print(f"{name}: {_text(value)}{_after(unit)} ({aim}{'' if kept else ', BROKEN'})", flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least `share` of all are not above; 0 if there are none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def given_back(before: float) -> float:
    """The most bytes of memory that may be in use after a load, if it was so many before: within 10 %, or 6 MB.

    The allocator returns memory only when all that lies in a piece of it is gone, and pieces are large beside a process
    of 50 MB. What a leak keeps grows with the load, and is more than that at the full size of a measurement.
    """
    return max(1.1 * before, before + 6e6)


def megabytes(size: float) -> float:
    """Bytes as megabytes (10^6)."""
    return size / 1e6


def _text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def _after(unit: str) -> str:
    return f" {unit}" if unit else ""
