"""Which connections the server closes to make room for new ones."""

from collections.abc import Iterable
from itertools import islice
from typing import Protocol, TypeVar


class Evictable(Protocol):
    """A connection that the server may close to make room for another."""

    def waiting_since(self) -> float | None:
        """The loop's time since when the connection waits for its client; None if the server works on it."""

    @property
    def has_arrived(self) -> bool:
        """Whether something of its client has arrived that the server has not read yet."""

    def evict(self) -> None:
        """Close the connection, and free its descriptor in the next pass of the loop, whatever the client does."""


E = TypeVar("E", bound=Evictable)


def longest_waiting(connections: Iterable[E], count: int, before: float) -> list[E]:
    """The `count` connections that have waited longest, oldest first, without those that wait only since `before`.

    After the event loop was blocked, much has arrived that the server has not read. Whoever has sent something does not
    wait.
    """
    found = [(since, one) for one in connections if (since := one.waiting_since()) is not None and since < before]
    found.sort(key=lambda pair: pair[0])
    return list(islice((one for _, one in found if not one.has_arrived), count))
