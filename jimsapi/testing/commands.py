"""The contract of subcommands that a plugin adds to the command `jimsapi`, as tests."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import click

from jimsapi.builtin import builtin_plugins
from jimsapi.cli.main import command_line
from jimsapi.plugins.manager import PluginManager
from jimsapi.testing.contract import DoesNotApply, PluginContract, needs

ENDS_WITHIN = 60.0
"""Seconds within which a command must end."""


class CommandsContract(PluginContract):
    """Derive a class from this one in a test module, and declare the names of the commands and examples of calls:

        class TestMint(CommandsContract):
            distribution = "jimsapi-mint"
            commands = ("mint",)
            calls = (["mint"],)

    pytest then runs every case against the installed plugin: the commands run in processes of their own, without any
    `JIMS_*` variable. What they print is for tests of your own. A hidden command (`hidden=True`) is in `commands` too,
    and `jimsapi --help` need not list it.
    """

    hook = "jimsapi_commands"

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Options, as for `create_api`, with which a server starts. The default is none.

        Commands do not get them: `calls` may have flags before the name of a command.
        """
        return {}

    @cached_property
    def commands(self) -> Sequence[str]:
        """The names of the commands that the plugin adds."""
        raise self.undeclared("commands", 'the names of its commands: ("mint",)')

    @cached_property
    def calls(self) -> Sequence[Sequence[str]] | DoesNotApply:
        """Arguments of `jimsapi` that call the commands with success."""
        raise self.undeclared("calls", 'arguments that call its commands: (["mint"],), or DoesNotApply(why)')

    def test_it_adds_its_commands_and_no_others(self) -> None:
        assert set(self.added().commands) == set(self.examples("commands"))

    def test_no_command_replaces_another(self) -> None:
        plugins = PluginManager(builtin_plugins())
        group = command_line(["plugins"])  # without the commands of plugins
        for other in plugins.implementations(self.hook):
            if not self.is_mine(other.entry):
                other(cli=group)
        replaced = set(group.commands) & set(self.added().commands)
        assert not replaced, f"{', '.join(sorted(replaced))} would replace a command of jimsapi or of another plugin"

    def test_the_help_shows_each_command_with_a_text(self) -> None:
        for name, command in each_command(self.added()):
            assert command.get_short_help_str(), f"{name} has no help text: give its function a docstring"
        listed = jimsapi("--help")
        assert listed.returncode == 0, listed.stderr
        hidden = {name for name, command in self.added().commands.items() if command.hidden}
        for name in self.examples("commands"):
            assert name in hidden or f"\n  {name}" in listed.stdout, f"`jimsapi --help` does not list {name}"

    def test_the_help_of_each_command_needs_no_configuration(self) -> None:
        for name, _ in each_command(self.added()):
            ran = jimsapi(*name.split(), "--help")
            assert (ran.returncode, ran.stderr) == (0, ""), f"{name} --help: {ran.stderr}"

    def test_wrong_usage_is_reported_without_a_traceback(self) -> None:
        for name in self.examples("commands"):
            ran = jimsapi(name, "--no-such-option")
            assert ran.returncode == 2, f"{name} --no-such-option ended with {ran.returncode}, not 2"
            assert "Traceback" not in ran.stderr, ran.stderr

    @needs("calls")
    def test_calls_succeed(self) -> None:
        for arguments in self.examples("calls"):
            ran = jimsapi(*arguments)
            assert ran.returncode == 0, f"{' '.join(arguments)} ended with {ran.returncode}: {ran.stderr}"

    def added(self) -> click.Group:
        """Return a group with the commands of the plugin, and no others."""
        group = click.Group("jimsapi")
        for hook in self.implementations(PluginManager(builtin_plugins())):
            hook(cli=group)
        return group


def each_command(group: click.Group, parent: str = "") -> Iterator[tuple[str, click.Command]]:
    """Return the commands of a group with their names, and those of the groups in it."""
    for name, command in group.commands.items():
        yield parent + name, command
        if isinstance(command, click.Group):
            yield from each_command(command, f"{parent}{name} ")


def jimsapi(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command `jimsapi` in a process of its own, without input."""
    return subprocess.run(
        [sys.executable, "-m", "jimsapi", *arguments],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=ENDS_WITHIN,
        check=False,
    )
