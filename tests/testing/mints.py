"""A plugin with a command in many versions: one keeps the contract, and some each break one thing.

The tests install this module as the distribution `acme-mint`; the variable `ACME_MINT` chooses.
"""

import os
from typing import Any

import click

from jimsapi import hookimpl

VERSION = os.environ.get("ACME_MINT", "Sound")


class CannotHelp(click.Command):
    def get_help(self, ctx: click.Context) -> str:
        raise click.ClickException("name the mint: ACME_MINT_NAME")


@hookimpl
def jimsapi_commands(cli: click.Group) -> None:
    kind = CannotHelp if VERSION == "HelpNeedsAName" else click.Command
    help_text = "" if VERSION == "WithoutHelp" else "Print a new ticket."
    context = {"ignore_unknown_options": True} if VERSION == "AcceptsEverything" else {}
    flag = click.Argument(["rest"], nargs=-1) if VERSION == "AcceptsEverything" else click.Option(["--long"])
    if VERSION != "AddsNothing":
        hidden = VERSION == "Hidden"
        cli.add_command(
            kind("mint", callback=mint, help=help_text, params=[flag], context_settings=context, hidden=hidden)
        )
    if VERSION == "AddsMore":
        cli.add_command(click.Command("melt", callback=mint, help="Make a ticket void."))
    if VERSION == "TakesCheck":
        cli.add_command(click.Command("check", callback=mint, help="Check a ticket."))


def mint(**given: Any) -> None:
    if VERSION == "Fails":
        raise ValueError("no paper")
    click.echo("ticket")


@hookimpl
def jimsapi_observer() -> Any:
    if VERSION == "ForbidsServers":
        raise ValueError("no server")
