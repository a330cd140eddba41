"""What was measured: figures by case, system and unit, one a round; ratios of them within a round; aims."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

RATE, PER_PROCESSOR = "requests/s", "requests/processor s"
"""Answers by the second of the clock, and by the second of the server's own processor time, which hardly changes when
other programs take the processor away for a while."""
P50, P99 = "p50 ms", "p99 ms"
SERVER_BUSY, LOAD_BUSY, LOAD_COST = "server busy %", "load busy %", "load us each"
"""The shares of the clock that server and load generator had a processor, and what a request, chat or delta costs the
latter."""
SECONDS, MEGABYTES, MILLISECONDS, BYTES, DELTAS = "s", "MB", "ms", "bytes", "deltas/s"
PROCESSOR_COST, WRITTEN = "processor s/1,000 chats", "bytes written/chat"
"""What users pay for: the processor time of the server and its database, and what both write to the disk."""
LESS_IS_BETTER = {
    P50,
    P99,
    SERVER_BUSY,
    LOAD_BUSY,
    LOAD_COST,
    SECONDS,
    MEGABYTES,
    MILLISECONDS,
    BYTES,
    PROCESSOR_COST,
    WRITTEN,
}


@dataclass(frozen=True)
class Aim:
    """What a figure of one system is to reach: `at_least` or `at_most`, as a multiple of that of the best of `others`
    in the same round, or, without others, as the figure itself. `number` is that of the aim in the list of aims. Aims
    with the same `what` are one that has to be reached in several cases."""

    number: int
    what: str
    case: str
    system: str
    unit: str
    others: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None

    @property
    def text(self) -> str:
        """The aim as it is written in a table."""
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"

    def is_met_by(self, figure: float) -> bool:
        """Whether a figure reaches it."""
        return (self.at_least is None or figure >= self.at_least) and (self.at_most is None or figure <= self.at_most)


class Found(NamedTuple):
    """What there is beside an aim, and whether that reaches it: by the median."""

    median: float
    lowest: float
    highest: float
    met: bool


@dataclass
class Sheet:
    """The figures of one suite. `beside` names, by case, the system that the others are compared with. `others` is how
    many processors other programs kept busy meanwhile."""

    suite: str
    title: str
    aims: tuple[Aim, ...] = ()
    beside: dict[str, str] = field(default_factory=dict)
    figures: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    others: float = 0.0

    def add(self, case: str, system: str, figures: Mapping[str, float]) -> None:
        """Note what a system did in one round of a case, by unit."""
        for unit, figure in figures.items():
            self.figures.setdefault((case, system, unit), []).append(figure)

    def cases(self) -> list[str]:
        """The cases that were met, in the order of `beside`, and then of their first figures."""
        met = dict.fromkeys(case for case, _, _ in self.figures)
        return [*(case for case in self.beside if case in met), *(case for case in met if case not in self.beside)]

    def systems(self, case: str) -> list[str]:
        """The systems of a case: sizes from the smallest on; others by name, after that beside which they stand."""
        names = {system for found, system, _ in self.figures if found == case}
        sizes = {name: int(size.replace(",", "")) for name in names if (size := name.split()[0])[0].isdigit()}
        return sorted(names, key=lambda name: (sizes.get(name, 0), name != self.beside.get(case), name))

    def units(self, case: str) -> list[str]:
        """The units of a case."""
        return list(dict.fromkeys(unit for found, _, unit in self.figures if found == case))

    def ratios(self, case: str, system: str, others: Iterable[str], unit: str) -> list[float]:
        """The figure of a system to that of the best of others, round by round; the figure itself if there are none."""
        mine = self.figures.get((case, system, unit), [])
        theirs = [self.figures.get((case, other, unit), []) for other in others]
        if not theirs:
            return mine
        best = min if unit in LESS_IS_BETTER else max
        return [one / best(rest) for one, *rest in zip(mine, *theirs, strict=False)]

    def plain(self) -> dict[str, Any]:
        """The sheet as it is kept in a file."""
        return {
            "suite": self.suite,
            "title": self.title,
            "beside": self.beside,
            "processors used by others": round(self.others, 3),
            "figures": [
                {"case": case, "system": system, "unit": unit, "rounds": [float(f"{each:.6g}") for each in rounds]}
                for (case, system, unit), rounds in self.figures.items()
            ],
            "aims": [
                {
                    "number": aim.number,
                    "what": aim.what,
                    "case": aim.case,
                    "system": aim.system,
                    "unit": aim.unit,
                    "to the best of": aim.others,
                    "aim": aim.text,
                    "found": [float(f"{each:.6g}") for each in found[:3]],
                    "met": found.met,
                }
                for aim in self.aims
                if (found := self.found(aim)) is not None
            ],
        }

    def found(self, aim: Aim) -> Found | None:
        """What there is beside an aim. None if it was not measured."""
        ratios = self.ratios(aim.case, aim.system, aim.others, aim.unit)
        if not ratios:
            return None
        middle = median(ratios)
        return Found(middle, min(ratios), max(ratios), aim.is_met_by(middle))
