"""What a command works with: the plugins, the configuration file, and the options that both give."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

import click

from jimsapi.cli.config import DEFAULT_FILE
from jimsapi.cli.options import COMMAND_OPTIONS
from jimsapi.cli.plugin_scopes import scopes_of_plugins
from jimsapi.plugins.compose import Configuration, resolve_settings
from jimsapi.plugins.config_option import ConfigOptions
from jimsapi.plugins.discovery import PluginOptions
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.manager import PluginManager
from jimsapi.plugins.options import Settings, specs
from jimsapi.plugins.secrets import redact
from jimsapi.threads.errors import StoreUnusable

SELECTING = [*specs(ConfigOptions), *specs(PluginOptions)]
"""The options that select plugins, or the file that may do so."""


def selecting_flags(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the values of the flags that select plugins, or the file that may do so, by key.

    jimsapi needs them before it knows the other flags, which plugins declare.
    """
    found: dict[str, Any] = {}
    for spec in SELECTING:
        values = []
        for position, argument in enumerate(arguments):
            flag, separator, value = argument.partition("=")
            if flag == spec.flag and (separator or position + 1 < len(arguments)):
                values.append(value if separator else arguments[position + 1])
        if values:
            found[spec.key] = values if spec.repeats else values[-1]
    return found


def with_config_file(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options, with `jimsapi.toml` as the configuration file if there is one and none is given."""
    named = given.get("config") or any(os.environ.get(name, "").strip() for name in ("JIMS_CONFIG", "JIMS_CONFIG_FILE"))
    return {**given} if named or not DEFAULT_FILE.is_file() else {**given, "config": str(DEFAULT_FILE)}


class Installation:
    """The plugins of one start, None for a command that imports none; and the errors of those that are broken."""

    def __init__(self, plugins: PluginManager | None, broken: list[StartError]) -> None:
        self.plugins = plugins
        self.broken = broken

    def configuration(self, given: Mapping[str, Any]) -> Configuration:
        """Resolve the options of the server. `given` has the values of flags by key.

        Raises the error of the first broken plugin, or `StartError` if an option is invalid.
        """
        if self.broken:
            raise self.broken[0]
        return self.load(given)

    def load(self, given: Mapping[str, Any]) -> Configuration:
        """Resolve the options of the server without the broken plugins. Raises `StartError` if one is invalid."""
        assert self.plugins is not None  # the commands without plugins do not call this
        given = with_config_file(given)
        return Configuration(self.plugins, resolve_settings(self.plugins, COMMAND_OPTIONS, given, os.environ))

    def settings(self, given: Mapping[str, Any]) -> Settings:
        """Resolve the options for a subcommand of a plugin. Raises as `configuration` does."""
        return self.configuration(given).settings

    def scopes(self, given: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
        """Return the scopes that routes of plugins require, with their distributions, and the errors of the others."""
        errors = list(self.broken)
        owners: dict[str, str] = {}
        try:
            owners, unread = asyncio.run(scopes_of_plugins(self.load(given)))
            errors += unread
        except StartError as error:  # an option is invalid
            errors.append(error)
        return owners, [redact(str(error)) for error in errors]


def show_errors(errors: Sequence[StartError | StoreUnusable]) -> None:
    """Print errors to standard error, without secrets."""
    for error in errors:
        click.echo(f"jimsapi: {redact(str(error))}", err=True)
