"""The figures of a run of faults: printed one a line, with exit status 1 if one of them breaks a promise."""

import sys
from collections.abc import Collection, Mapping

Figures = dict[str, int]


def broken(figures: Mapping[str, int], promised_none: Collection[str]) -> Figures:
    """The figures that must be 0 and are not."""
    return {name: figures[name] for name in promised_none if figures.get(name)}


def show(title: str, figures: Mapping[str, int], promised_none: Collection[str]) -> bool:
    """Print the figures, and return whether every promise was kept."""
    print(title)
    for name, value in figures.items():
        print(f"  {name}: {value}" + ("   <- must be 0" if name in promised_none and value else ""))
    sys.stdout.flush()
    return not broken(figures, promised_none)
