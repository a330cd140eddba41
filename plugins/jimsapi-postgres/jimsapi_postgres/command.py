"""`jimsapi db`: bring a database up to date before servers of a new version start."""

import asyncio
import logging
import os
from pathlib import Path

import click

from jimsapi.plugins.errors import StartError

VARIABLE = "JIMS_STORE"


@click.group("db")
def db() -> None:
    """Look after the tables in PostgreSQL."""


@db.command("upgrade")
@click.option("--store", metavar="URL", help=f"The database, as postgresql://user:password@host/name. [{VARIABLE}]")
@click.pass_context
def upgrade(context: click.Context, store: str | None) -> None:
    """Make or change tables, indexes and functions, beside servers and other programs that are at work.

    Several may call it at once: one does it, the others wait. Nothing is removed, and no row is changed.
    """
    from jimsapi_postgres.schema import MIGRATIONS, prepare
    from jimsapi_postgres.url import parse_url

    url = _url(context, store)
    try:
        target = parse_url(url)
    except ValueError as fault:
        raise StartError(f"--store: {fault}") from None
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = asyncio.run(prepare(target, wait=None, large=None))
    known = len(MIGRATIONS)
    if found < known:
        click.echo(f"{target.name}: the schema went from version {found} to {known}.")
    else:
        click.echo(f"{target.name}: the schema is at version {found}; there is nothing to do.")


def _url(context: click.Context, store: str | None) -> str:
    given: dict[str, object] = context.find_root().obj or {}
    url = store or given.get("store") or os.environ.get(VARIABLE)
    file = os.environ.get(f"{VARIABLE}_FILE")
    if not url and file:
        try:
            url = Path(file).read_text()
        except OSError as error:
            raise StartError(f"{VARIABLE}_FILE: {file}: {error.strerror}") from None
    if not isinstance(url, str) or not url.strip():
        raise StartError(f"name the database: --store postgresql://user:password@host/name, or {VARIABLE}")
    return url.strip()
