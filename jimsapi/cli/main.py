"""The command `jimsapi`: serve, and list, describe or check what would be served."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import click
import orjson

from jimsapi.api.app import VERSION, Api, run_service
from jimsapi.asgi.app import App
from jimsapi.builtin import builtin_plugins
from jimsapi.cli.chat_command import chat_command
from jimsapi.cli.check import check
from jimsapi.cli.config import DEFAULT_FILE, show_config
from jimsapi.cli.connect_command import connect_command
from jimsapi.cli.contacts import Wanted as WantedContact
from jimsapi.cli.contacts import delete, delete_arguments, export, export_arguments
from jimsapi.cli.explain import explain
from jimsapi.cli.new_project import new_command
from jimsapi.cli.operator_commands import (
    Action,
    list_contacts_command,
    runs_commands,
    sinks_commands,
    store_commands,
    threads_commands,
)
from jimsapi.cli.options import COMMAND_OPTIONS, GroupedCommand, all_options, with_options
from jimsapi.cli.plugin_scopes import scopes_of_plugins
from jimsapi.cli.replay import FAILED, ReplayFailed, Wanted, replay, replay_arguments
from jimsapi.cli.scaffold import plugin_commands
from jimsapi.cli.serve import serve
from jimsapi.cli.signals_command import dump_command, log_level_command
from jimsapi.cli.worker import work
from jimsapi.plugins.commands import SETTINGS
from jimsapi.plugins.compose import AppWithoutPipeline, Composer, Configuration, resolve_settings
from jimsapi.plugins.config_option import ConfigOptions
from jimsapi.plugins.discovery import PluginOptions, discover, is_selected, plugin_options
from jimsapi.plugins.errors import StartError, cause_text
from jimsapi.plugins.manager import PluginManager, at
from jimsapi.plugins.options import Settings, is_on, specs
from jimsapi.plugins.secrets import redact
from jimsapi.plugins.versions import allows
from jimsapi.threads.errors import StoreUnusable

STRICT, CONNECT = "check_strict", "check_connect"
"""Keys of the flags of `check`. The server does not have these options."""
WORKER_HELP = (
    "Do the background runs that servers leave to workers, without a port for clients. The worker has the same app, "
    "store and plugins as the servers."
)
AS_JSON = "config_json"
"""The key of the flag of `config`."""
_SELECTING = [*specs(ConfigOptions), *specs(PluginOptions)]
SCOPES = "jimsapi.scopes"
"""The key of a function in the `meta` of the command's context. It returns what `_Commands.scopes` returns."""
_WITHOUT_PLUGINS = ("new", "plugins", "plugin", "chat", "connect", "dump", "log-level")
"""The commands that do not import plugins."""
PLUGINS_HELP = "List the installed plugins without importing them."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with 0 after success, 1 if it cannot start, 2 for wrong usage.

    `replay` exits with 1 if a turn has changed, and with 2 if it cannot start. `arguments` defaults to those of the
    command line.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        command_line(arguments).main(arguments, prog_name="jimsapi")
    except (StartError, StoreUnusable) as error:
        _show([error])
        if "--verbose" in arguments or is_on(os.environ.get("JIMS_VERBOSE", "")):
            click.echo(redact(cause_text(error)), err=True, nl=False)
        sys.exit(FAILED if isinstance(error, ReplayFailed) else 1)


def command_line(arguments: Sequence[str]) -> click.Group:
    """Return the command with the options and subcommands of the plugins that the arguments and variables select.

    The commands of `_WITHOUT_PLUGINS` and `--version` do not import plugins. If a plugin is broken, the commands that
    need all plugins raise its error. `check` first checks the others, `--help` shows the error, and `keys` works.

    Raises `StartError` if an option names a plugin that is not installed.
    """
    if _subcommand(arguments) in _WITHOUT_PLUGINS or "--version" in arguments:
        return _command_line(None, [])
    broken: list[StartError] = []
    try:
        options = plugin_options(with_config_file(selecting_flags(arguments)), os.environ)
    except StartError as error:  # of the configuration file, or of an option that selects plugins
        if "--help" not in arguments:
            raise
        options = PluginOptions()
        broken.append(error)
    return _command_line(PluginManager(builtin_plugins(), options=options, broken=broken), broken)


def _subcommand(arguments: Sequence[str]) -> str | None:
    """Return the first argument that is not one of the flags that select plugins, nor the value of one."""
    flags = [spec.flag for spec in _SELECTING]
    left = list(arguments)
    while left and left[0].partition("=")[0] in flags:
        del left[: 1 if "=" in left[0] else 2]
    return left[0] if left else None


def selecting_flags(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the values of the flags that select plugins, or the file that may do so, by key.

    jimsapi needs them before it knows the other flags, which plugins declare.
    """
    found: dict[str, Any] = {}
    for spec in _SELECTING:
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


class _CommandLine(click.Group, GroupedCommand):
    """The command. For an unknown option or subcommand, it shows the errors of broken plugins, which may have it."""

    broken: Sequence[StartError] = ()

    def make_context(self, *arguments: Any, **fields: Any) -> click.Context:
        with self._explain_errors():
            return super().make_context(*arguments, **fields)

    def invoke(self, context: click.Context) -> Any:
        with self._explain_errors():
            return super().invoke(context)

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except (click.NoSuchOption, _NoSuchCommand):
            _show(self.broken)
            raise

    def resolve_command(self, context: click.Context, arguments: list[str]) -> Any:
        try:
            return super().resolve_command(context, arguments)
        except click.UsageError as error:
            raise _NoSuchCommand(error.message, context) from None


class _NoSuchCommand(click.UsageError):
    """The first argument is not the name of a subcommand."""


class _Commands:
    """The actions of the command and its subcommands, with the plugins of one start.

    `given` has the options before and after a subcommand's name, by key.
    """

    def __init__(self, plugins: PluginManager | None, broken: Sequence[StartError]) -> None:
        self._plugins = plugins
        self._broken = broken

    def serve(self, given: Mapping[str, Any]) -> int:
        given = with_config_file(given)
        return serve(self.configuration(given), given)

    def work(self, given: dict[str, Any]) -> None:
        given = with_config_file(given)
        click.get_current_context().exit(work(self.configuration(given), given))

    def check(self, given: dict[str, Any]) -> None:
        """Check everything except the broken plugins, then raise the error of the first one."""
        strict, connect = given.pop(STRICT), given.pop(CONNECT)
        try:
            check(self._load(given), strict=bool(strict), connect=bool(connect))
        except (StartError, StoreUnusable):
            _show(self._broken)
            raise
        _show(self._broken[1:])
        if self._broken:
            raise self._broken[0]

    def list_plugins(self, given: dict[str, Any]) -> None:
        list_plugins(plugin_options(with_config_file(given), os.environ))

    def show_config(self, given: dict[str, Any]) -> None:
        as_json = given.pop(AS_JSON)
        show_config(self.configuration(given), as_json=bool(as_json))

    def openapi(self, given: dict[str, Any]) -> None:
        openapi(self.configuration(given))

    def explain(self, given: dict[str, Any]) -> None:
        token_file = given.pop("token_file")
        token = token_file.read().strip()
        if not token:
            raise StartError(f"{token_file.name} is empty: put the token in it")
        asyncio.run(explain(self.configuration(given), token))

    def replay(self, given: dict[str, Any]) -> None:
        """Replay turns, and exit with 1 if one has changed. Raises `ReplayFailed` if they cannot be replayed."""
        wanted = Wanted.take_from(given)
        try:
            status = replay(self.configuration(given), wanted)
        except ReplayFailed:
            raise
        except (StartError, StoreUnusable) as error:
            raise ReplayFailed(str(error)) from error
        click.get_current_context().exit(status)

    def export_contact(self, given: dict[str, Any]) -> None:
        wanted = WantedContact.take_from(given)
        export(self.configuration(given), wanted)

    def delete_contact(self, given: dict[str, Any]) -> None:
        wanted = WantedContact.take_from(given)
        delete(self.configuration(given), wanted)

    def scopes(self, given: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
        """Return the scopes that routes of plugins require, with their distributions, and the errors of the others."""
        errors = list(self._broken)
        owners: dict[str, str] = {}
        try:
            owners, unread = asyncio.run(scopes_of_plugins(self._load(given)))
            errors += unread
        except StartError as error:  # an option is invalid
            errors.append(error)
        return owners, [redact(str(error)) for error in errors]

    def settings(self, given: Mapping[str, Any]) -> Settings:
        """Resolve the options for a subcommand of a plugin."""
        return self.configuration(given).settings

    def configuration(self, given: Mapping[str, Any]) -> Configuration:
        """Resolve the options of the server. Raises the error of the first broken plugin."""
        if self._broken:
            raise self._broken[0]
        return self._load(given)

    def _load(self, given: Mapping[str, Any]) -> Configuration:
        assert self._plugins is not None  # the commands without plugins do not call this
        given = with_config_file(given)
        return Configuration(self._plugins, resolve_settings(self._plugins, COMMAND_OPTIONS, given, os.environ))


def _command_line(plugins: PluginManager | None, broken: list[StartError]) -> click.Group:
    add = with_options(all_options(plugins, broken))
    commands = _Commands(plugins, broken)
    group = _root_command(commands)
    add(group)
    group.add_command(add(_subcommand_of("plugins", commands.list_plugins, PLUGINS_HELP)))
    group.add_command(new_command())
    group.add_command(plugin_commands())
    group.add_command(chat_command())
    group.add_command(connect_command())
    group.add_command(dump_command())
    group.add_command(log_level_command())
    group.add_command(add(_subcommand_of("worker", commands.work, WORKER_HELP)))
    group.add_command(add(_check_command(commands)))
    group.add_command(add(_config_command(commands)))
    group.add_command(add(_subcommand_of("openapi", commands.openapi, "Print the OpenAPI document of the server.")))
    group.add_command(add(_replay_command(commands)))

    def made(name: str, action: Action, text: str, params: list[click.Parameter]) -> click.Command:
        command = _subcommand_of(name, action, text)
        command.params += params
        return add(command)

    group.add_command(runs_commands(made, commands.configuration))
    group.add_command(threads_commands(made, commands.configuration))
    group.add_command(sinks_commands(made, commands.configuration))
    group.add_command(store_commands(made, commands.configuration))
    contacts = click.Group("contacts", help="List the contacts; export or delete everything that is stored of one.")
    contacts.add_command(list_contacts_command(made, commands.configuration))
    contacts.add_command(add(_export_command(commands)))
    contacts.add_command(add(_delete_command(commands)))
    group.add_command(contacts)
    auth = click.Group("auth", help="Examine authentication.")
    auth.add_command(add(_explain_command(commands)))
    group.add_command(auth)
    if plugins is not None:
        _add_commands_of_plugins(group, plugins, broken)
    group.broken = broken
    group.epilog = " ".join(f"NOT LOADED: {error}" for error in broken) or None
    return group


def _root_command(commands: _Commands) -> _CommandLine:
    @click.pass_context
    def serve_by_default(context: click.Context, /, **given: Any) -> None:
        context.obj = given
        context.meta[SCOPES] = partial(commands.scopes, given)
        context.meta[SETTINGS] = partial(commands.settings, given)
        if context.invoked_subcommand is None:
            context.exit(commands.serve(given))

    group = _CommandLine(
        "jimsapi",
        callback=serve_by_default,
        invoke_without_command=True,
        help="Put a conversational pipeline behind HTTP. Without a subcommand, start the server.",
    )
    group.params.append(
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
        )
    )
    return group


def _check_command(commands: _Commands) -> click.Command:
    command = _subcommand_of("check", commands.check, "Load everything and print what would be served.")
    command.params += [
        click.Option(["--strict", STRICT], is_flag=True, help="Fail if there is a warning."),
        click.Option(
            ["--connect", CONNECT],
            is_flag=True,
            help="Also open, ping and close what a start opens, such as the store.",
        ),
    ]
    return command


def _config_command(commands: _Commands) -> click.Command:
    text = "Print all options that are in force, and where each value comes from. Secrets are not shown."
    command = _subcommand_of("config", commands.show_config, text)
    command.params.append(click.Option(["--json", AS_JSON], is_flag=True, help="Print a JSON object."))
    return command


def _replay_command(commands: _Commands) -> click.Command:
    text = (
        "Let the app answer stored messages again, and show how its answers differ from the stored ones. Nothing is "
        "stored. A THREAD is the identifier of a thread, or a file of a conversation. The exit status is 0 if no turn "
        "has changed, 1 if one has, and 2 if the replay cannot run."
    )
    command = _subcommand_of("replay", commands.replay, text)
    command.params += replay_arguments()
    return command


def _export_command(commands: _Commands) -> click.Command:
    text = (
        "Write the threads, events, feedback and files of a contact to one archive (ZIP). It works while the server "
        "runs, and changes nothing."
    )
    command = _subcommand_of("export", commands.export_contact, text)
    command.params += export_arguments()
    return command


def _delete_command(commands: _Commands) -> click.Command:
    text = "Delete the threads, events, runs, feedback and files of a contact. This cannot be undone."
    command = _subcommand_of("delete", commands.delete_contact, text)
    command.params += delete_arguments()
    return command


def _explain_command(commands: _Commands) -> click.Command:
    text = "Show the decision of each auth provider about a token."
    command = _subcommand_of("explain", commands.explain, text)
    file = click.File("rb")
    command.params.append(
        click.Option(["--token-file"], required=True, type=file, help="The file with the token; - is standard input.")
    )
    return command


def _subcommand_of(name: str, action: Action, text: str) -> click.Command:
    return GroupedCommand(name, callback=_merged(action), help=text)


def _add_commands_of_plugins(group: click.Group, plugins: PluginManager, broken: list[StartError]) -> None:
    for implementation in plugins.implementations("jimsapi_commands"):
        try:
            implementation(cli=group)
        except StartError as error:
            broken.append(error)


def _show(errors: Sequence[StartError | StoreUnusable]) -> None:
    for error in errors:
        click.echo(f"jimsapi: {redact(str(error))}", err=True)


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


def openapi(configuration: Configuration) -> None:
    """Print the OpenAPI document, including the routes of plugins, or that of a `jimsapi.asgi.App`."""
    logging.getLogger("jimsapi").addHandler(logging.StreamHandler(sys.stderr))
    click.echo(orjson.dumps(_load_app(configuration).openapi(), option=orjson.OPT_INDENT_2).decode())


def _load_app(configuration: Configuration) -> App:
    """Return the app that a start would serve, with its routes."""
    try:
        return asyncio.run(_declare(configuration))
    except AppWithoutPipeline as found:
        return found.app
    except SystemExit as error:  # it would end the command with success
        raise StartError(f"a plugin called sys.exit(){at(error)}") from error


async def _declare(configuration: Configuration) -> Api:
    composition = await Composer(configuration).build()
    api = Api(None, {})
    api.declare(composition, configuration.plugins, run_service(composition))
    return api
