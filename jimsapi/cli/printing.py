"""What commands for operators print: for people, or as JSON for machines. Stored texts are made safe for a terminal."""

import io
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import orjson

from jimsapi.cli.terminal.text import clean_line

_NOT_PRINTABLE = re.compile("[^ -~]")


def print_json(value: Any) -> None:
    """Print a value as JSON on one line, in printable ASCII: no stored text acts on a terminal. Times end with `Z`."""
    text = orjson.dumps(value, option=orjson.OPT_UTC_Z).decode()
    click.echo(_NOT_PRINTABLE.sub(_escape, text))


def _escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


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
