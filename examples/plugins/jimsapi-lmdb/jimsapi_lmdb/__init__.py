"""Stores the threads of jimsapi in LMDB."""

from pathlib import Path
from typing import TYPE_CHECKING

from jimsapi import hookimpl

if TYPE_CHECKING:
    from jimsapi_lmdb.store import LmdbStore

SCHEME = "lmdb:"


@hookimpl
def jimsapi_thread_store(url: str) -> "LmdbStore | None":
    """Return the store for `lmdb:FOLDER`, or None if the URL has another scheme."""
    if not url.startswith(SCHEME):
        return None
    folder = url.removeprefix(SCHEME)
    if not folder:
        raise ValueError("give a folder, for example lmdb:threads")
    from jimsapi_lmdb.store import LmdbStore

    return LmdbStore(Path(folder))
