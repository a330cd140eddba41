"""The command `jimsapi`: serve, and list, describe or check what would be served."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
import orjson

from jimsapi.api.app import VERSION, Api, run_service
from jimsapi.builtin import builtin_plugins
from jimsapi.cli.chat import chat_command
from jimsapi.cli.check import check
from jimsapi.cli.explain import explain
from jimsapi.cli.options import COMMAND_OPTIONS, all_options, with_options
from jimsapi.cli.scaffold import plugin_commands
from jimsapi.cli.serve import serve
from jimsapi.plugins.compose import Composer, Configuration, resolve_settings
from jimsapi.plugins.errors import PluginError, StartError
from jimsapi.plugins.manager import PluginManager, discover
from jimsapi.plugins.secrets import redact
from jimsapi.threads.errors import StoreUnusable

STRICT, CONNECT = "check_strict", "check_connect"
"""Keys of the flags of `check`. The server does not have these options."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with 0 after success, 1 if it cannot start, 2 for wrong usage.

    `arguments` defaults to those of the command line.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        command_line(arguments).main(arguments, prog_name="jimsapi")
    except (StartError, StoreUnusable) as error:
        click.echo(f"jimsapi: {redact(str(error))}", err=True)
        sys.exit(1)


def command_line(arguments: Sequence[str]) -> click.Group:
    """Return the command with the options and subcommands of the installed plugins.

    `plugins`, `plugin`, `chat` and `--version` do not import plugins, so they work if a plugin is broken. `--help` then
    shows only the built-in options, and the error.
    """
    if arguments[:1] in (["plugins"], ["plugin"], ["chat"]) or "--version" in arguments:
        return _command_line(None)
    try:
        return _command_line(PluginManager(builtin_plugins()))
    except PluginError as error:
        if "--help" not in arguments:
            raise
        return _command_line(None, broken=error)


def _command_line(plugins: PluginManager | None, *, broken: PluginError | None = None) -> click.Group:
    owned = all_options(plugins)

    def configuration(given: Mapping[str, Any]) -> Configuration:
        assert plugins is not None  # the commands without plugins do not call this
        return Configuration(plugins, resolve_settings(plugins, COMMAND_OPTIONS, given, os.environ))

    @click.pass_context
    def serve_by_default(context: click.Context, /, **given: Any) -> None:
        context.obj = given
        if context.invoked_subcommand is None:
            context.exit(serve(configuration(given), given))

    @_merged
    def check_all(given: dict[str, Any]) -> None:
        strict, connect = given.pop(STRICT), given.pop(CONNECT)
        check(configuration(given), strict=bool(strict), connect=bool(connect))

    @_merged
    def show_document(given: dict[str, Any]) -> None:
        openapi(configuration(given))

    @_merged
    def explain_token(given: dict[str, Any]) -> None:
        token_file = given.pop("token_file")
        token = token_file.read().strip()
        if not token:
            raise StartError(f"{token_file.name} is empty: put the token in it")
        asyncio.run(explain(configuration(given), token))

    group = click.Group(
        "jimsapi",
        callback=serve_by_default,
        invoke_without_command=True,
        help="Put a conversational pipeline behind HTTP. Without a subcommand, start the server.",
        epilog=None if broken is None else f"NOT LOADED: {broken}",
    )
    group.params.append(
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
        )
    )
    add = with_options(owned)
    add(group)
    group.add_command(
        click.Command("plugins", callback=list_plugins, help="List the installed plugins without importing them.")
    )
    group.add_command(plugin_commands())
    group.add_command(chat_command())
    check_command = add(
        click.Command("check", callback=check_all, help="Load everything and print what would be served.")
    )
    check_command.params += [
        click.Option(["--strict", STRICT], is_flag=True, help="Fail if there is a warning."),
        click.Option(
            ["--connect", CONNECT],
            is_flag=True,
            help="Also open, ping and close what a start opens, such as the store.",
        ),
    ]
    group.add_command(check_command)
    group.add_command(
        add(click.Command("openapi", callback=show_document, help="Print the OpenAPI document of the server."))
    )
    auth = click.Group("auth", help="Examine authentication.")
    explain_command = add(
        click.Command("explain", callback=explain_token, help="Show the decision of each auth provider about a token.")
    )
    explain_command.params.append(
        click.Option(
            ["--token-file"], required=True, type=click.File("rb"), help="The file with the token; - is standard input."
        )
    )
    auth.add_command(explain_command)
    group.add_command(auth)
    if plugins is not None:
        for implementation in plugins.implementations("jimsapi_commands"):
            implementation(cli=group)
    return group


def _version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"jimsapi {VERSION}")
        context.exit()


def _merged(command: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
    """Decorator: merges options before a subcommand's name with those after it."""

    @click.pass_context
    def merged(context: click.Context, /, **given: Any) -> None:
        command(_merge(context, given))

    return merged


def _merge(context: click.Context, given: Mapping[str, Any]) -> dict[str, Any]:
    before: Mapping[str, Any] = context.obj or {}
    return {key: given.get(key) or before.get(key) for key in {*before, *given}}


def list_plugins() -> None:
    """Print the installed plugins in the order in which their hooks are called."""
    entries = discover()
    for number, entry in enumerate(entries, 1):
        click.echo(f"{number}. {entry.name}  {entry.distribution} {entry.version}  {entry.value}")
    if not entries:
        click.echo("No plugins are installed besides the built-in ones.")
    click.echo("Nothing was imported; `jimsapi check` loads the plugins and lists their hooks.")


def openapi(configuration: Configuration) -> None:
    """Print the OpenAPI document, including the routes of plugins."""
    logging.getLogger("jimsapi").addHandler(logging.StreamHandler(sys.stderr))
    composition = asyncio.run(Composer(configuration).build())
    api = Api(None, {})
    api.declare(composition, configuration.plugins, run_service(composition))
    click.echo(orjson.dumps(api.openapi(), option=orjson.OPT_INDENT_2).decode())
