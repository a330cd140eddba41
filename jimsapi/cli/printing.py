"""What commands for operators print: for people, or as JSON for machines. Stored texts are made safe for a terminal."""

import io
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import orjson

from jimsapi.cli.terminal.text import clean_line


def print_json(value: Any) -> None:
    """Print a value as JSON on one line. Times end with `Z`."""
    click.echo(orjson.dumps(value, option=orjson.OPT_UTC_Z).decode())


def print_row(values: Sequence[Any], widths: Sequence[int]) -> None:
    """Print values in columns of these widths. The last column may be wider."""
    allow_any_text()
    cells = [shown(value).ljust(width) for value, width in zip(values, widths, strict=True)]
    click.echo("  ".join(cells).rstrip())


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print names and values, one a line."""
    allow_any_text()
    width = max(map(len, fields))
    for name, value in fields.items():
        click.echo(f"{name.ljust(width)}  {shown(value)}".rstrip())


def shown(value: Any) -> str:
    """Return a value as one line of text. None is a dash, and a time is in UTC."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return clean_line(str(value))


def allow_any_text() -> None:
    """Let the standard output show a question mark for characters that its encoding lacks."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
