"""The store in an SQLite database.

One connection writes, and others read at the same time. `writer` groups operations into transactions. `writes` and
`reads` have the operations.
"""

from jimsapi.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
