"""`jimsapi config`: shows the options that are in force, and where each value comes from."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from jimsapi.cli.options import all_options
from jimsapi.plugins.compose import Configuration
from jimsapi.plugins.options import specs
from jimsapi.plugins.secrets import Secret, redact

DEFAULT_FILE = Path("jimsapi.toml")
"""The configuration file of the command if no other one is named and it is in the current folder."""

_HIDDEN = "***"
_PASSWORD = re.compile(r"(://[^/?#@\s]*?:)[^/?#@\s]*(?=@)|(\b(?:password|passwd|pwd)\s*=\s*)[^\s&]+", re.IGNORECASE)
"""A password in a URL or in a connection string. It is found by its place, since `redact` does not find short ones."""


class _Entry(msgspec.Struct, frozen=True):
    """An option: its value as TOML and JSON have it, whether a part of it is hidden, and its source."""

    key: str
    value: Any
    is_hidden: bool
    source: str


def show_config(configuration: Configuration, *, as_json: bool) -> None:
    """Print every option as a line of TOML, with the source of its value. Secrets are not shown."""
    for warning in configuration.settings.warnings:
        click.echo(f"jimsapi: {redact(warning)}", err=True)
    entries = list(_entries(configuration))
    if as_json:
        shown = {entry.key: {"value": _json(entry.value), "source": entry.source} for entry in entries}
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    for entry in entries:
        click.echo(f"{_line(entry):60}  # {entry.source}")


def _entries(configuration: Configuration) -> Iterator[_Entry]:
    settings = configuration.settings
    for owned in all_options(configuration.plugins):
        instance = settings.get(owned.options)
        for spec in specs(owned.options):
            original = getattr(instance, spec.field)
            value = _display_value(original)
            is_hidden = value != _display_value(original, hide=False)
            source = settings.origin(spec.key)
            if spec.key == "config" and original == DEFAULT_FILE:
                source = "the current folder"
            yield _Entry(spec.key, value, is_hidden, source)


def _display_value(value: Any, *, hide: bool = True) -> Any:
    if isinstance(value, tuple):
        return [_display_value(item, hide=hide) for item in value]
    if isinstance(value, Secret):
        return _HIDDEN if hide else value.reveal()
    text = str(value) if isinstance(value, Path) else value
    if isinstance(text, str) and hide:
        return _PASSWORD.sub(lambda found: f"{found[1] or found[2]}{_HIDDEN}", redact(text))
    return text


def _line(entry: _Entry) -> str:
    if entry.value is None or entry.value == []:
        return f"# {entry.key} is not set"
    # With a hidden part it is not what the server needs, and a file cannot name the file itself.
    comment = "# " if entry.is_hidden or entry.key == "config" else ""
    return f"{comment}{entry.key} = {_toml(entry.value)}"


def _toml(value: Any) -> str:
    """Return a value in TOML: its texts, numbers, booleans and arrays are JSON's, apart from a few."""
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _json(value: Any) -> Any:
    return str(value) if isinstance(value, float) and math.isinf(value) else value
