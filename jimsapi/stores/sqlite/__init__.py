"""The store in an SQLite database.

One writer, and readers beside it: `writer` decides what is committed together, `writes` and `reads` are the operations.
"""

from jimsapi.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
