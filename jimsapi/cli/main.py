"""The command `jimsapi`. Without a subcommand, it serves."""

import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import click

from jimsapi.api.app import VERSION
from jimsapi.builtin import builtin_plugins
from jimsapi.cli.installation import SELECTING, Installation, selecting_flags, show_errors, with_config_file
from jimsapi.cli.options import GroupedCommand, all_options, with_options
from jimsapi.cli.serve import serve
from jimsapi.plugins.commands import SETTINGS
from jimsapi.plugins.discovery import PluginOptions, plugin_options
from jimsapi.plugins.errors import StartError, cause_text
from jimsapi.plugins.manager import PluginManager
from jimsapi.plugins.options import is_on
from jimsapi.plugins.secrets import redact
from jimsapi.threads.errors import StoreUnusable

SCOPES = "jimsapi.scopes"
"""The key of a function in the `meta` of the command's context. It returns what `Installation.scopes` returns."""
SUBCOMMANDS = (
    "auth",
    "chat",
    "check",
    "config",
    "connect",
    "contacts",
    "dump",
    "log-level",
    "new",
    "openapi",
    "plugin",
    "plugins",
    "replay",
    "runs",
    "sinks",
    "store",
    "threads",
    "worker",
)
"""The names of our subcommands, which `subcommands.py` makes."""
_WITHOUT_PLUGINS = ("new", "plugins", "plugin", "chat", "connect", "dump", "log-level")
"""The commands that do not import plugins."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with 0 after success, 1 if it cannot start, 2 for wrong usage.

    `replay` exits with 1 if a turn has changed, and with 2 if it cannot start. `arguments` defaults to those of the
    command line.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _open_closed_streams()
    # The objects that imports have made live until the end. A command ends sooner if the garbage collector does not
    # traverse them, as it would when Python exits. A program that only imports this module has objects of its own.
    gc.freeze()
    try:
        with _explain_unwritable_output():
            command_line(arguments).main(arguments, prog_name="jimsapi")
    except (StartError, StoreUnusable) as error:
        show_errors([error])
        if "--verbose" in arguments or is_on(os.environ.get("JIMS_VERBOSE", "")):
            click.echo(redact(cause_text(error)), err=True, nl=False)
        sys.exit(error.exit_status if isinstance(error, StartError) else 1)


@contextmanager
def _explain_unwritable_output() -> Iterator[None]:
    """Raise `StartError` if the output of a command cannot be written. click itself handles a closed pipe."""
    try:
        yield
    except OSError as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if frame.f_code is not click.echo.__code__:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python writes what is left at the exit, which would fail again
        raise StartError(
            f"the output cannot be written: {error.strerror or error}; redirect it to another place"
        ) from error


def _open_closed_streams() -> None:
    """Open the null device in place of each standard stream that is closed.

    A socket would get the number of a closed one otherwise, and libuv aborts the process when it closes that socket.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number, which is this one
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def command_line(arguments: Sequence[str]) -> click.Group:
    """Return the command with the options and subcommands of the plugins that the arguments and variables select.

    The commands of `_WITHOUT_PLUGINS` and `--version` do not import plugins. If a plugin is broken, the commands that
    need all plugins raise its error. `check` first checks the others, `--help` shows the error, and `keys` works.

    Raises `StartError` if an option names a plugin that is not installed.
    """
    if _subcommand(arguments) in _WITHOUT_PLUGINS or "--version" in arguments:
        return _command_line(Installation(None, []))
    broken: list[StartError] = []
    try:
        options = plugin_options(with_config_file(selecting_flags(arguments)), os.environ)
    except StartError as error:  # of the configuration file, or of an option that selects plugins
        if "--help" not in arguments:
            raise
        options = PluginOptions()
        broken.append(error)
    plugins = PluginManager(builtin_plugins(), options=options, broken=broken)
    return _command_line(Installation(plugins, broken))


def _subcommand(arguments: Sequence[str]) -> str | None:
    """Return the first argument that is not one of the flags that select plugins, nor the value of one."""
    flags = [spec.flag for spec in SELECTING]
    left = list(arguments)
    while left and left[0].partition("=")[0] in flags:
        del left[: 1 if "=" in left[0] else 2]
    return left[0] if left else None


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
            show_errors(self.broken)
            raise

    def resolve_command(self, context: click.Context, arguments: list[str]) -> Any:
        try:
            return super().resolve_command(context, arguments)
        except click.UsageError as error:
            raise _NoSuchCommand(error.message, context) from None


class _NoSuchCommand(click.UsageError):
    """The first argument is not the name of a subcommand."""


class _LazyCommands(MutableMapping[str, click.Command]):
    """The subcommands by name. Ours are made when they are asked for: a server does not even import what they need."""

    def __init__(self, names: Sequence[str], make: Callable[[str], click.Command]) -> None:
        self._commands: dict[str, click.Command | None] = dict.fromkeys(names)
        self._make = make

    def __getitem__(self, name: str) -> click.Command:
        command = self._commands[name]
        if command is None:
            command = self._commands[name] = self._make(name)
        return command

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        del self._commands[name]

    def __contains__(self, name: object) -> bool:
        return name in self._commands

    def __iter__(self) -> Iterator[str]:
        return iter(self._commands)

    def __len__(self) -> int:
        return len(self._commands)


def _command_line(installation: Installation) -> click.Group:
    add_options = with_options(all_options(installation.plugins, installation.broken))

    def make(name: str) -> click.Command:
        from jimsapi.cli.subcommands import Subcommands

        return Subcommands(installation, add_options).make(name)

    group = _root_command(installation)
    add_options(group)
    group.commands = _LazyCommands(SUBCOMMANDS, make)
    if installation.plugins is not None:
        _add_commands_of_plugins(group, installation)
    group.broken = installation.broken
    group.epilog = " ".join(f"NOT LOADED: {error}" for error in installation.broken) or None
    return group


def _root_command(installation: Installation) -> _CommandLine:
    @click.pass_context
    def serve_by_default(context: click.Context, /, **given: Any) -> None:
        context.obj = given
        context.meta[SCOPES] = partial(installation.scopes, given)
        context.meta[SETTINGS] = partial(installation.settings, given)
        if context.invoked_subcommand is None:
            context.exit(_serve(installation, given))

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


def _serve(installation: Installation, given: Mapping[str, Any]) -> int:
    given = with_config_file(given)
    return serve(installation.configuration(given), given)


def _add_commands_of_plugins(group: click.Group, installation: Installation) -> None:
    assert installation.plugins is not None
    for implementation in installation.plugins.implementations("jimsapi_commands"):
        try:
            implementation(cli=group)
        except StartError as error:
            installation.broken.append(error)


def _version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"jimsapi {VERSION}")
        context.exit()
