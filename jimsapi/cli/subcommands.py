"""The subcommands of `jimsapi`, without those of plugins. A server needs none, and does not import this module."""

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any

import click

from jimsapi.cli.chat_command import chat_command
from jimsapi.cli.check import check
from jimsapi.cli.config import show_config
from jimsapi.cli.connect_command import connect_command
from jimsapi.cli.contacts import Wanted as WantedContact
from jimsapi.cli.contacts import delete, delete_arguments, export, export_arguments
from jimsapi.cli.explain import explain
from jimsapi.cli.installation import Installation, show_errors, with_config_file
from jimsapi.cli.new_project import new_command
from jimsapi.cli.openapi import openapi
from jimsapi.cli.operator_commands import (
    PREFIX,
    Action,
    list_contacts_command,
    runs_commands,
    sinks_commands,
    store_commands,
    threads_commands,
)
from jimsapi.cli.options import GroupedCommand
from jimsapi.cli.plugin_list import list_plugins
from jimsapi.cli.replay import ReplayFailed, Wanted, replay, replay_arguments
from jimsapi.cli.scaffold import plugin_commands
from jimsapi.cli.signals_command import dump_command, log_level_command
from jimsapi.cli.worker import work
from jimsapi.plugins.discovery import plugin_options
from jimsapi.plugins.errors import StartError
from jimsapi.threads.errors import StoreUnusable

AddOptions = Callable[[click.Command], click.Command]
"""Adds the options of the server to a command, and returns the command."""

STRICT, CONNECT = "check_strict", "check_connect"
"""Keys of the flags of `check`. The server does not have these options."""
WORKER_HELP = (
    "Do the background runs that servers leave to workers, without a port for clients. The worker has the same app, "
    "store and plugins as the servers."
)
AS_JSON = "config_json"
"""The key of the flag of `config`."""
PLUGINS_HELP = "List the installed plugins without importing them."


class Subcommands:
    """Makes the subcommands, each when it is asked for."""

    def __init__(self, installation: Installation, add_options: AddOptions) -> None:
        self._actions = _Actions(installation)
        self._resolve = installation.configuration
        self._add = add_options

    def make(self, name: str) -> click.Command:
        """Return the subcommand with this name, one of `SUBCOMMANDS` in `main.py`."""
        makers: dict[str, Callable[[], click.Command]] = {
            "auth": self._auth,
            "chat": chat_command,
            "check": self._check,
            "config": self._config,
            "connect": connect_command,
            "contacts": self._contacts,
            "dump": dump_command,
            "log-level": log_level_command,
            "new": new_command,
            "openapi": self._openapi,
            "plugin": plugin_commands,
            "plugins": self._plugins,
            "replay": self._replay,
            "runs": lambda: runs_commands(self._made, self._resolve),
            "sinks": lambda: sinks_commands(self._made, self._resolve),
            "store": lambda: store_commands(self._made, self._resolve),
            "threads": lambda: threads_commands(self._made, self._resolve),
            "worker": self._worker,
        }
        return makers[name]()

    def _auth(self) -> click.Command:
        group = click.Group("auth", help="Examine authentication.")
        file = click.Option(
            ["--token-file"], required=True, type=click.File("rb"), help="The file with the token; - is standard input."
        )
        text = "Show the decision of each auth provider about a token."
        group.add_command(self._made("explain", self._actions.explain, text, [file]))
        return group

    def _check(self) -> click.Command:
        text = "Load everything and print what would be served."
        strict = click.Option(["--strict", STRICT], is_flag=True, help="Fail if there is a warning.")
        connect = click.Option(
            ["--connect", CONNECT],
            is_flag=True,
            help="Also open, ping and close what a start opens, such as the store.",
        )
        return self._made("check", self._actions.check, text, [strict, connect])

    def _config(self) -> click.Command:
        text = "Print all options that are in force, and where each value comes from. Secrets are not shown."
        as_json = click.Option(["--json", AS_JSON], is_flag=True, help="Print a JSON object.")
        return self._made("config", self._actions.show_config, text, [as_json])

    def _contacts(self) -> click.Command:
        group = click.Group("contacts", help="List the contacts; export or delete everything that is stored of one.")
        group.add_command(list_contacts_command(self._made, self._resolve))
        text = (
            "Write the threads, events, feedback and files of a contact to one archive (ZIP). It works while the "
            "server runs, and changes nothing."
        )
        group.add_command(self._made("export", self._actions.export_contact, text, export_arguments()))
        text = "Delete the threads, events, runs, feedback and files of a contact. This cannot be undone."
        group.add_command(self._made("delete", self._actions.delete_contact, text, delete_arguments()))
        return group

    def _openapi(self) -> click.Command:
        return self._made("openapi", self._actions.openapi, "Print the OpenAPI document of the server.", [])

    def _plugins(self) -> click.Command:
        return self._made("plugins", self._actions.list_plugins, PLUGINS_HELP, [])

    def _replay(self) -> click.Command:
        text = (
            "Let the app answer stored messages again, and show how its answers differ from the stored ones. Nothing "
            "is stored. A THREAD is the identifier of a thread, or a file of a conversation. The exit status is 0 if "
            "no turn has changed, 1 if one has, and 2 if the replay cannot run."
        )
        return self._made("replay", self._actions.replay, text, replay_arguments())

    def _worker(self) -> click.Command:
        return self._made("worker", self._actions.work, WORKER_HELP, [])

    def _made(self, name: str, action: Action, text: str, params: list[click.Parameter]) -> click.Command:
        command = GroupedCommand(name, callback=_merged(action), help=text)
        command.params += params
        return self._add(command)


class _Actions:
    """What the subcommands do. `given` has the options before and after a subcommand's name, by key."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    def work(self, given: dict[str, Any]) -> None:
        given = with_config_file(given)
        click.get_current_context().exit(work(self._installation.configuration(given), given))

    def check(self, given: dict[str, Any]) -> None:
        """Check everything except the broken plugins, then raise the error of the first one."""
        strict, connect = given.pop(STRICT), given.pop(CONNECT)
        try:
            check(self._installation.load(given), strict=bool(strict), connect=bool(connect))
        except (StartError, StoreUnusable):
            show_errors(self._installation.broken)
            raise
        show_errors(self._installation.broken[1:])
        if self._installation.broken:
            raise self._installation.broken[0]

    def list_plugins(self, given: dict[str, Any]) -> None:
        list_plugins(plugin_options(with_config_file(given), os.environ))

    def show_config(self, given: dict[str, Any]) -> None:
        as_json = given.pop(AS_JSON)
        show_config(self._installation.configuration(given), as_json=bool(as_json))

    def openapi(self, given: dict[str, Any]) -> None:
        openapi(self._installation.configuration(given))

    def explain(self, given: dict[str, Any]) -> None:
        token_file = given.pop("token_file")
        token = token_file.read().strip()
        if not token:
            raise StartError(f"{token_file.name} is empty: put the token in it")
        asyncio.run(explain(self._installation.configuration(given), token))

    def replay(self, given: dict[str, Any]) -> None:
        """Replay turns, and exit with 1 if one has changed. Raises `ReplayFailed` if they cannot be replayed."""
        wanted = Wanted.take_from(given)
        try:
            status = replay(self._installation.configuration(given), wanted)
        except ReplayFailed:
            raise
        except (StartError, StoreUnusable) as error:
            raise ReplayFailed(str(error)) from error
        click.get_current_context().exit(status)

    def export_contact(self, given: dict[str, Any]) -> None:
        wanted = WantedContact.take_from(given)
        export(self._installation.configuration(given), wanted)

    def delete_contact(self, given: dict[str, Any]) -> None:
        wanted = WantedContact.take_from(given)
        delete(self._installation.configuration(given), wanted)


def _merged(command: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
    """Decorator: merges options before a subcommand's name with those after it."""

    @click.pass_context
    def merged(context: click.Context, /, **given: Any) -> None:
        command(_merge(context, given))

    return merged


def _merge(context: click.Context, given: Mapping[str, Any]) -> dict[str, Any]:
    before: Mapping[str, Any] = context.obj or {}
    own = {key: value for key, value in given.items() if key.startswith(PREFIX)}
    return {key: given.get(key) or before.get(key) for key in {*before, *given}} | own
