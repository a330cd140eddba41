"""`jimsapi db`: upgrade a database before servers of a new version start."""

import asyncio
import logging
import os
from pathlib import Path

import click

from jimsapi.plugins import StartError

VARIABLE = "JIMS_STORE"


@click.group("db")
def db() -> None:
    """Manage the tables in PostgreSQL."""


@db.command("upgrade")
@click.option("--store", metavar="URL", help=f"The database, as postgresql://user:password@host/name. [{VARIABLE}]")
@click.pass_context
def upgrade(context: click.Context, store: str | None) -> None:
    """Create or change tables, indexes and functions while servers and other programs are running.

    If several processes run it at once, one upgrades and the others wait. It removes nothing and changes no row.
    """
    from jimsapi_postgres.schema import SCHEMA_VERSION, prepare
    from jimsapi_postgres.url import parse_url

    url = _url(context, store)
    try:
        target = parse_url(url)
    except ValueError as error:
        raise StartError(f"--store: {error}") from None
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    version = asyncio.run(prepare(target, wait=None, large=None))
    if version < SCHEMA_VERSION:
        click.echo(f"{target.name}: upgraded the schema from version {version} to {SCHEMA_VERSION}.")
    else:
        click.echo(f"{target.name}: the schema is at version {version}; there is nothing to do.")


def _url(context: click.Context, store: str | None) -> str:
    root_options: dict[str, object] = context.find_root().obj or {}
    url = store or root_options.get("store") or os.environ.get(VARIABLE)
    file = os.environ.get(f"{VARIABLE}_FILE")
    if not url and file:
        try:
            url = Path(file).read_text()
        except OSError as error:
            raise StartError(f"{VARIABLE}_FILE: {file}: {error.strerror}") from None
    if not isinstance(url, str) or not url.strip():
        raise StartError(f"name the database with --store postgresql://user:password@host/name, or with {VARIABLE}")
    return url.strip()
