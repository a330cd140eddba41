"""The built-in stores, which need no plugin: SQLite in a file, and memory."""

from pathlib import Path
from typing import Literal

from jimsapi.plugins import Options, Settings, ThreadStore, hookimpl, option
from jimsapi.stores import MemoryStore, SQLiteStore

_SCHEME = "sqlite:///"
_POSTGRESQL = ("postgresql:", "postgres:", "postgresql+")


class StoreOptions(Options):
    """Options of the SQLite store."""

    durability: Literal["durable", "relaxed"] = option(
        "durable", help="Whether answers wait until the disk, or only the operating system, has the data (SQLite)."
    )


@hookimpl
def jimsapi_options() -> type[Options]:
    return StoreOptions


@hookimpl
def jimsapi_thread_store(url: str, settings: Settings) -> ThreadStore | None:
    if url in ("memory:", "memory://"):
        return MemoryStore()
    if url.startswith(_POSTGRESQL):  # if the plugin were installed, jimsapi would have called it first
        raise ValueError("PostgreSQL needs jimsapi-postgres, which is not installed: pip install jimsapi-postgres")
    if not url.startswith("sqlite:"):
        return None
    path = url.removeprefix(_SCHEME)
    if not url.startswith(_SCHEME) or not path or path == ":memory:":
        raise ValueError(
            "invalid SQLite URL; use sqlite:///relative.db or sqlite:////absolute.db, or the URL `memory:` to keep "
            "threads only in memory"
        )
    if "?" in path:
        raise ValueError("a SQLite URL cannot have parameters; omit the ? and what follows it")
    return SQLiteStore(Path(path), durability=settings.get(StoreOptions).durability)
