"""`jimsapi config`: shows the options that are in force, and where each value comes from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from jimsapi.cli.options import all_options
from jimsapi.plugins.compose import Configuration
from jimsapi.plugins.options import specs
from jimsapi.plugins.secrets import Secret, redact

HIDDEN = "***"
DEFAULT_FILE = Path("jimsapi.toml")


def show_config(configuration: Configuration, *, as_json: bool) -> None:
    """Print every option as a line of TOML, with the source of its value. Secrets are not shown."""
    entries = list(_entries(configuration))
    if as_json:
        values = {key: {"value": value, "source": source} for key, value, source in entries}
        click.echo(redact(json.dumps(values, indent=2, ensure_ascii=False)))
        return
    for key, value, source in entries:
        if value is None or value == []:
            line = f"# {key} is not set"
        elif _is_hidden(value):
            line = f"# {key} = {HIDDEN}"
        else:
            line = f"{_in_comment(key)}{key} = {_toml(value)}"
        click.echo(f"{redact(line):60}  # {redact(source)}")


def _entries(configuration: Configuration) -> Iterator[tuple[str, Any, str]]:
    settings = configuration.settings
    for owned in all_options(configuration.plugins):
        instance = settings.get(owned.options)
        for spec in specs(owned.options):
            yield spec.key, _shown(getattr(instance, spec.field)), settings.origin(spec.key)


def _shown(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_shown(item) for item in value]
    if isinstance(value, Secret):
        return HIDDEN
    return str(value) if isinstance(value, Path) else value


def _in_comment(key: str) -> str:
    """Begin a comment for the option that a configuration file cannot have."""
    return "# " if key == "config" else ""


def _is_hidden(value: Any) -> bool:
    return value == HIDDEN or (isinstance(value, list) and HIDDEN in value)


def _toml(value: Any) -> str:
    """Return a value in TOML: JSON's texts, numbers, booleans and arrays are TOML's, too."""
    return json.dumps(value, ensure_ascii=False)
