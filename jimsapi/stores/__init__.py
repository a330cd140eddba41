"""The built-in stores: in memory, and in an SQLite database."""

from typing import TYPE_CHECKING

from jimsapi.lazy_attributes import lazy_attributes

if TYPE_CHECKING:
    from jimsapi.stores.memory import MemoryStore
    from jimsapi.stores.sqlite import SQLiteStore

__all__ = [
    "MemoryStore",
    "SQLiteStore",
]

if not TYPE_CHECKING:  # a type checker would find every name
    __getattr__, __dir__ = lazy_attributes(
        __name__,
        {
            "jimsapi.stores.memory": ("MemoryStore",),
            "jimsapi.stores.sqlite": ("SQLiteStore",),
        },
    )
