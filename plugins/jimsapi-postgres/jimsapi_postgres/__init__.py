"""A store for production: threads in PostgreSQL (`--store postgresql://…`), for several servers with one database.

This module contains the hooks. They import the rest of the package only when it is needed.
"""

from typing import TYPE_CHECKING

from jimsapi import hookimpl
from jimsapi.plugins import ThreadStore

if TYPE_CHECKING:
    import click

SCHEMES = ("postgresql:", "postgres:", "postgresql+")


@hookimpl
def jimsapi_thread_store(url: str) -> ThreadStore | None:
    if not url.startswith(SCHEMES):
        return None
    from jimsapi_postgres.store import PostgresStore

    return PostgresStore(url)


@hookimpl
def jimsapi_commands(cli: "click.Group") -> None:
    from jimsapi_postgres.command import db

    cli.add_command(db)
