"""`jimsapi connect`: asks a server what it serves, and prints what a person pastes into clients of it."""

import asyncio

import click

from jimsapi.cli.client_key import client_key
from jimsapi.cli.client_setup.address import parse_address
from jimsapi.cli.client_setup.report import print_report, print_report_json
from jimsapi.cli.client_setup.survey import NoServer, survey
from jimsapi.cli.terminal.text import clean_line
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.secrets import Secret, redact

FAILED = 1
"""The exit status if clients cannot use the server."""


def connect(
    context: click.Context, /, url: str, api_key: str | None, api_key_file: str | None, as_json: bool, timeout: float
) -> None:
    """Print what clients need. Exits with 1 if something does not work, which standard error says.

    Raises `StartError` if there is no server, and `click.UsageError` for an invalid URL.
    """
    group_keys = (context.obj or {}).get("api_key") or ()  # given before the name of the command
    key = client_key(api_key or (group_keys[-1] if group_keys else None), api_key_file)
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise StartError("the API key has characters that no header can have: a key is visible ASCII, on one line")
    secret = None if key is None else Secret(key)
    try:
        address = parse_address(url)
    except ValueError as error:
        raise click.UsageError(str(error), context) from None
    try:
        found = asyncio.run(survey(address, secret, timeout))
    except NoServer as error:
        raise StartError(redact(clean_line(str(error)))) from None
    if as_json:
        print_report_json(found)
    else:
        print_report(found)
    for problem in found.all_problems:
        click.echo(redact(f"jimsapi: {clean_line(problem)}"), err=True)
    if found.all_problems:
        context.exit(FAILED)
