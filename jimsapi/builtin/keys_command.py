"""`jimsapi keys`: creates, lists and revokes the named keys of a keys file."""

import json
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any

import click
from msgspec import UNSET

from jimsapi.builtin.keys_file import KeysFile, NamedKey
from jimsapi.plugins import StartError
from jimsapi.runs import SCOPES

VARIABLE = "JIMS_KEYS_FILE"

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_SPAN = re.compile(r"([0-9]{1,9})([hdw])")


@click.group("keys")
def keys() -> None:
    """Create, list and revoke the keys of a keys file. A server with --keys-file accepts these keys.

    A running server notices a change within about a second.
    """


def _with_file(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: passes the keys file to a command.

    --keys-file may be before or after the command's name. Without it, the variable names the file.
    """

    @click.option("--keys-file", metavar="FILE", help=f"The keys file. [{VARIABLE}]")
    @click.pass_context
    @wraps(command)
    def with_file(context: click.Context, /, keys_file: str | None, **given: Any) -> None:
        path = keys_file or (context.obj or {}).get("keys_file") or os.environ.get(VARIABLE)
        if not path or not path.strip():
            raise StartError(f"name the keys file: --keys-file FILE, or {VARIABLE}")
        command(KeysFile(Path(path)), **given)

    return with_file


@keys.command("new")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="NAME",
    callback=lambda context, _, names: _known_scopes(context, names),
    help="A scope of the key: chat, threads, or one of a plugin; repeats. [all]",
)
@click.option("--contact", metavar="ID", help="The only contact_id that the key may act for. [any]")
@click.option("--expires", metavar="WHEN", help="For example 12h, 30d, 8w, 2027-01-31 or 2027-01-31T12:00Z. [never]")
@_with_file
def new(file: KeysFile, name: str, scopes: tuple[str, ...], contact: str | None, expires: str | None) -> None:
    """Create a key and print it. The file stores only its hash, so it cannot be printed again."""
    expires_at = None if expires is None else parse_expiry(expires, datetime.now(UTC))
    key, entry = file.add(name, scopes=scopes, contact_id=contact, expires=expires_at)
    if sys.stdout.isatty():
        shown = "This is its key, which cannot be shown again:"
    else:
        shown = "Its key is written to standard output, and cannot be shown again."
    click.echo(f"{entry.name}: {_limits(entry)}. {shown}", err=True)
    click.echo(key)


@keys.command("list")
@_with_file
def list_keys(file: KeysFile) -> None:
    """List the keys and their limits."""
    found = file.read()
    now = datetime.now(UTC)
    for key in found:
        click.echo(
            f"{key.name}: {_limits(key)}, created {_format_time(key.created)}{' (EXPIRED)' * key.has_expired(now)}"
        )
    if not found:
        click.echo("There are no keys; a server with this file accepts no named key.", err=True)


@keys.command("revoke")
@click.argument("name")
@_with_file
def revoke(file: KeysFile, name: str) -> None:
    """Remove a key from the file."""
    file.revoke(name)
    click.echo(f"{name} is revoked; running servers notice it within about a second.", err=True)


def _known_scopes(context: click.Context, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the scopes. Raises `click.BadParameter` if one is neither ours nor required by a route of a plugin.

    For our own scopes no plugin is asked, so a broken plugin does not matter.
    """
    if set(names) <= set(SCOPES):
        return names
    read = context.meta.get("jimsapi.scopes", lambda: ({}, []))
    of_plugins, faults = read()
    for name in set(names) - {*SCOPES, *of_plugins}:
        others = [f"{scope!r} (of {owner})" for scope, owner in of_plugins.items() if scope not in SCOPES]
        known = ", ".join([*map(repr, SCOPES), *others])
        advice = "To grant a scope of a plugin, install the plugin, and set its options here as for the server."
        unread = "".join(f"\nThe scopes of a plugin are not known: {fault}" for fault in faults)
        raise click.BadParameter(f"{name!r} is not one of {known}. {advice}{unread}")
    return names


def parse_expiry(text: str, now: datetime) -> datetime:
    """Parse --expires: hours, days or weeks after `now`, or a date or time in ISO 8601, in UTC without an offset.

    A date means its midnight. Raises `StartError` for any other text, and for a time in the past.
    """
    try:
        if span := _SPAN.fullmatch(text):
            expires_at = now + int(span[1]) * _UNITS[span[2]]
        else:
            time = datetime.fromisoformat(text)
            expires_at = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise StartError(f"--expires: {text!r} is not a time; give 12h, 30d, 8w, or a date like 2027-01-31") from None
    if expires_at <= now:
        raise StartError(f"--expires: {text} is in the past")
    return expires_at.replace(microsecond=0)


def _limits(key: NamedKey) -> str:
    scopes = "all scopes" if key.scopes is UNSET else " and ".join(sorted(set(key.scopes))) + " only"
    contact = "any contact" if key.contact_id is UNSET else f"contact {json.dumps(key.contact_id, ensure_ascii=False)}"
    expires = "never expires" if key.expires is UNSET else f"expires {_format_time(key.expires)}"
    return f"{scopes}, {contact}, {expires}"


def _format_time(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
