"""How a run is made: which processor is whose, how long and in which order is measured."""

import os
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


def two_cores() -> tuple[int | None, int | None]:
    """A processor for the server and one for the load; None where there are not two to choose from."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else (None, None)


@dataclass(frozen=True)
class Plan:
    """What the suites are told. `server_core` and `load_core` are the processors that server and load are kept on."""

    quick: bool
    order: random.Random
    server_core: int | None
    load_core: int | None

    def either(self, full: T, quick: T) -> T:
        """What a full or a quick run takes."""
        return quick if self.quick else full

    def shuffled(self, things: Iterable[T]) -> list[T]:
        """The same things in random order."""
        listed = list(things)
        return self.order.sample(listed, len(listed))

    @contextmanager
    def as_load(self) -> Iterator[None]:
        """Keep this process, which is the load, on the load's processor."""
        allowed = os.sched_getaffinity(0)
        if self.load_core is not None:
            os.sched_setaffinity(0, {self.load_core})
        try:
            yield
        finally:
            os.sched_setaffinity(0, allowed)
