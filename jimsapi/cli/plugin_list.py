"""`jimsapi plugins`: lists the installed plugins."""

import click

from jimsapi.api.app import VERSION
from jimsapi.plugins.discovery import PluginOptions, discover, is_selected
from jimsapi.plugins.versions import allows


def list_plugins(options: PluginOptions) -> None:
    """Print the installed plugins in the order in which their hooks are called, and which of them are left out."""
    entries = discover()
    for number, entry in enumerate(entries, 1):
        requires = "" if allows(entry.requires, VERSION) else f"  (requires jimsapi {entry.requires})"
        left_out = "" if is_selected(entry, options) else "  (not loaded: --plugins or --without-plugin leaves it out)"
        click.echo(f"{number}. {entry.name}  {entry.distribution} {entry.version}  {entry.value}{requires}{left_out}")
    if not entries:
        click.echo("No plugins are installed besides the built-in ones.")
    click.echo("Nothing was imported; `jimsapi check` loads the plugins and lists their hooks.")
