"""How a run is made: which processor is whose, how long and in which order is measured."""

import os
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
PROCESSORS = Path("/sys/devices/system/cpu")


def two_cores() -> tuple[int | None, int | None]:
    """A processor for the server and one for the load, of another core if there is one; None where there are not two to
    choose from."""
    server, *others = sorted(os.sched_getaffinity(0))
    if not others:
        return None, None
    return server, min(others, key=lambda other: (share_a_core(server, other), other))


def share_a_core(one: int | None, other: int | None) -> bool:
    """Whether two processors are threads of one core, and so take from each other; also if they are not known."""
    if one is None or other is None:
        return True
    try:
        threads = (PROCESSORS / f"cpu{one}" / "topology" / "thread_siblings_list").read_text()
    except FileNotFoundError:  # some virtual machines do not say
        return False
    bounds = [part.partition("-") for part in threads.strip().split(",")]
    return any(int(first) <= other <= int(last or first) for first, _, last in bounds)


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
