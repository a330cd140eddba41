"""Selects the connections that the server closes to make room for new ones."""

from collections.abc import Iterable
from itertools import islice
from typing import Protocol, TypeVar


class Evictable(Protocol):
    """A connection that the server may close to make room for another."""

    def waiting_since(self) -> float | None:
        """Return the loop's time since which the connection waits for its client; None if the server works for it."""

    @property
    def has_arrived(self) -> bool:
        """Whether the kernel has data from the client that the server has not read yet."""

    def evict(self) -> None:
        """Close the connection, and free its descriptor in the next pass of the loop, whatever the client does."""


E = TypeVar("E", bound=Evictable)


def longest_waiting(connections: Iterable[E], count: int, before: float) -> list[E]:
    """Return up to `count` connections that have waited since before the time `before`, the longest waiting first.

    A connection with unread data does not count as waiting. There may be many of these after the event loop was
    blocked.
    """
    found = [(since, one) for one in connections if (since := one.waiting_since()) is not None and since < before]
    found.sort(key=lambda pair: pair[0])
    return list(islice((one for _, one in found if not one.has_arrived), count))
