"""`jimsapi store check`, `stats`, `vacuum` and `migrate`: examine, measure, shrink and upgrade a database."""

import logging
from typing import Any, cast

import click
import msgspec

from jimsapi.cli.opened_store import built_store, complete, require_methods
from jimsapi.cli.printing import allow_any_text, print_fields, print_json, shown
from jimsapi.plugins.compose import Configuration
from jimsapi.plugins.errors import StartError
from jimsapi.threads.maintenance import MAINTENANCE_METHODS, MaintainedStore, Migration, StoreStats

_BESIDE_A_SERVER = "; this is not possible while a server uses the database"


def check(configuration: Configuration, *, url: str | None) -> None:
    """Print what is wrong with a database. Raises `StartError` if something is, or if it cannot be examined."""
    complete(_check(configuration, url))


async def _check(configuration: Configuration, url: str | None) -> None:
    store = await _maintained(configuration, url)
    faults = await store.find_faults()
    allow_any_text()
    for fault in faults:
        click.echo(shown(fault))
    if faults:
        found = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise StartError(f"{store.name} has {found}; docs/moving.md says what to do about each")
    click.echo(f"{store.name}: no faults found")


def stats(configuration: Configuration, *, url: str | None, as_json: bool) -> None:
    """Print how much a database has. Raises `StartError` or `StoreUnusable` if that is not possible."""
    complete(_stats(configuration, url, as_json))


async def _stats(configuration: Configuration, url: str | None, as_json: bool) -> None:
    store = await _maintained(configuration, url)
    found = await store.stats()
    if as_json:
        print_json({"store": store.name, **msgspec.structs.asdict(found)})
    else:
        print_fields({"store": store.name, **_stats_fields(found)})


def _stats_fields(found: StoreStats) -> dict[str, Any]:
    return {
        "schema": found.schema,
        "threads": found.threads,
        "events": found.events,
        "contacts": found.contacts,
        **{f"runs {status}": count for status, count in found.runs.items()},
        "bytes": found.size,
        **{f"bytes of {table}": size for table, size in found.tables.items()},
        "outbox rows": found.outbox,
        "dead letters": found.dead_letters,
        "webhooks": found.webhooks,
        "subscriptions": found.subscriptions,
        **{f"sink {name}": f"{waiting} waiting" for name, waiting in found.sinks.items()},
    }


def vacuum(configuration: Configuration, *, url: str | None) -> None:
    """Give space back, and print how much. Raises `StartError` or `StoreUnusable` if that is not possible."""
    complete(_vacuum(configuration, url), _BESIDE_A_SERVER)


async def _vacuum(configuration: Configuration, url: str | None) -> None:
    store = await _maintained(configuration, url)
    before, after = await store.vacuum()
    click.echo(f"{store.name}: {before} bytes before, {after} bytes after")


def migrate(configuration: Configuration, *, url: str | None, dry_run: bool) -> None:
    """Upgrade the tables of a database, or print what that would do.

    Raises `StartError` or `StoreUnusable` if that is not possible.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # an upgrade may take long, and logs each version
    complete(_migrate(configuration, url, dry_run), _BESIDE_A_SERVER)


async def _migrate(configuration: Configuration, url: str | None, dry_run: bool) -> None:
    store = await _maintained(configuration, url)
    migration = await (store.pending_migration() if dry_run else store.migrate())
    if migration.found == migration.newest:
        click.echo(f"{store.name}: the schema has version {migration.newest}; there is nothing to do")
    elif dry_run:
        _print_changes(migration)
        click.echo(f"{store.name}: would be upgraded from version {migration.found} to {migration.newest}")
    else:
        click.echo(f"{store.name}: upgraded from version {migration.found} to {migration.newest}")


def _print_changes(migration: Migration) -> None:
    for change in migration.changes:
        click.echo(f"version {change.version}: {change.statement}")


async def _maintained(configuration: Configuration, url: str | None) -> MaintainedStore:
    """Return the store, which is not open. Raises `StoreLacks` if it has no maintenance."""
    built = await built_store(configuration, url)
    require_methods(built.value, MAINTENANCE_METHODS)
    return cast(MaintainedStore, built.value)
