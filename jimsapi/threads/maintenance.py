"""What operators do with the database of a store: examine it, measure it, make it smaller, and upgrade its tables."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec


class StoreStats(msgspec.Struct, frozen=True):
    """How much a database has.

    - `schema` is the version of the tables.
    - `runs` are the numbers of runs by status.
    - `size` is in bytes, and `tables` has the bytes of each table with its indexes; it is empty if they are not known.
    - `outbox`, `dead_letters`, `webhooks` and `subscriptions` are numbers of rows, and `sinks` those that wait for each
      durable sink.
    """

    schema: int
    threads: int
    events: int
    contacts: int
    runs: Mapping[str, int]
    size: int
    tables: Mapping[str, int]
    outbox: int
    dead_letters: int
    webhooks: int
    sinks: Mapping[str, int]
    subscriptions: int = 0


class SchemaChange(msgspec.Struct, frozen=True):
    """A statement of an upgrade, on one line, and the version of the tables to which it belongs."""

    version: int
    statement: str


class Migration(msgspec.Struct, frozen=True):
    """The upgrade of a database from the version `found` (0: without tables of jimsapi) to `newest`, in this order."""

    found: int
    newest: int
    changes: Sequence[SchemaChange]


class MaintainedStore(Protocol):
    """The methods of a `ThreadStore` for the maintenance of its database.

    A store does not need them to serve. The store is not entered: each method opens what it needs, and closes it.

    Each method raises `StoreUnusable` if the database cannot be used, and `StoreUnavailable` if it fails meanwhile. All
    except `pending_migration` and `migrate` raise `StoreUnusable` too if the tables are not those of this version.
    """

    name: str

    async def find_faults(self) -> Sequence[str]:
        """Return what is wrong with the database, a line each. It only reads, and servers may run."""

    async def stats(self) -> StoreStats:
        """Return how much the database has. It only reads, and servers may run."""

    async def vacuum(self) -> tuple[int, int]:
        """Return space of deleted rows to the system, or make it free for new rows. Returns the bytes before and after.

        Raises `StoreUnusable` if that is not possible while a server runs, and one does.
        """

    async def pending_migration(self) -> Migration:
        """Return what `migrate` would do. It only reads, and servers may run."""

    async def migrate(self) -> Migration:
        """Upgrade the tables, and return what was done. No row of a table of JIMS changes.

        Raises `StoreUnusable` if that is not possible while a server runs, and one does.
        """


MAINTENANCE_METHODS = ("find_faults", "stats", "vacuum", "pending_migration", "migrate")
"""The names of the methods of `MaintainedStore`."""


def describe_fault(count: int, what: str, example: object) -> str:
    """Return a line about `count` rows of a fault. `what` says what they are, and `example` identifies one of them."""
    return f"{what}: {count}, for example {example}"
