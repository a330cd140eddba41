"""Every command `jimsapi …` on a page has subcommands, options and values that exist, those of plugins too."""

import base64
import re
import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import click
import pytest

from jimsapi.builtin import builtin_plugins
from jimsapi.cli.main import command_line
from jimsapi.cli.options import COMMAND_OPTIONS, all_options
from jimsapi.plugins import StartError, specs
from jimsapi.plugins.compose import resolve_settings
from jimsapi.plugins.manager import PluginManager
from tests.docs.snippets import ROOT, blocks, indented

PAGES = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "docs/*.md", "plugins/*/README.md", "examples/README.md", "examples/*/README.md")
    for path in sorted(ROOT.glob(pattern))
]
ELSEWHERE = ("--signed-", "--ticket-secret", "--config production.toml", "--without-plugin front-door")
"""Parts of commands that the tests of tutorials run, and of one for a plugin that is not installed here."""

VARIABLES = {
    "$RUN": "01a225a7-8b12-7c3e-9f00-5d8f2b6c1e4a",
    "$THREAD": "01a225a7-8b12-7c3e-9f00-5d8f2b6c1e4b",
    "$PID": "7",
}
"""Values for the variables of a shell whose options are checked while they are read."""

EXPORTED = {"JIMS_EVENT_WEBHOOK_SECRET": f"whsec_{base64.b64encode(bytes(32)).decode()}"}
"""Values for the variables that pages export before their commands, since other options need them."""

_COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )*jimsapi(?: (?P<arguments>.*))?$")
_ENDS = {"|", ">", ">>", "&&", "&", ";"}


def commands(page: str) -> list[str]:
    """The lines of a page that run the command, as a shell reads them."""
    lines = "\n".join([*blocks(page, "sh"), *indented(page)]).replace("\\\n", " ").splitlines()
    found = [line for line in map(str.strip, lines) if _COMMAND.match(line)]
    return [line for line in found if not any(part in line for part in ELSEWHERE)]


def arguments_of(line: str) -> list[str]:
    """The arguments of the command, without what follows it in a pipe and the like. `…` stands for more of them."""
    found = _COMMAND.match(line)
    assert found is not None
    lexer = shlex.shlex(found["arguments"] or "", posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    arguments = list(lexer)
    end = next((number for number, argument in enumerate(arguments) if argument in _ENDS), len(arguments))
    return [VARIABLES.get(argument, argument) for argument in arguments[:end] if argument != "…"]


def parse(arguments: list[str]) -> list[dict[str, Any]]:
    """The options of the command and its subcommands, as click reads them. Nothing of the command is run."""
    seen: list[dict[str, Any]] = []

    def see(**given: Any) -> None:
        seen.append(given)

    def quieten(command: click.Command) -> None:
        command.callback = see
        if isinstance(command, click.Group):
            for subcommand in command.commands.values():
                quieten(subcommand)

    group = command_line(arguments)
    quieten(group)
    group.main(arguments, prog_name="jimsapi", standalone_mode=False)
    return seen


def exported(page: str) -> dict[str, str]:
    """Those of `EXPORTED` that a page exports."""
    lines = "\n".join([*blocks(page, "sh"), *indented(page)]).splitlines()
    names = {line.removeprefix("export ").partition("=")[0] for line in lines if line.startswith("export ")}
    return {name: value for name, value in EXPORTED.items() if name in names}


def give(line: str, environment: Mapping[str, str] = MappingProxyType({})) -> None:
    """Read the options of a command and their values. Raises the error that the command would end with."""
    plugins = PluginManager(builtin_plugins())
    options = {spec.key for owned in all_options(plugins) for spec in specs(owned.options)} - {"config"}
    for given in parse(arguments_of(line)):
        resolve_settings(plugins, COMMAND_OPTIONS, {key: given[key] for key in given.keys() & options}, environment)


@pytest.mark.parametrize(("page", "line"), [(page, line) for page in PAGES for line in commands(page)])
def test_the_command_of_a_page_can_be_given(page: str, line: str) -> None:
    give(line, exported(page))


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("jimsapi --app bot:app --prot 80", click.NoSuchOption, "--prot"),
        ("jimsapi serve --port 80", click.UsageError, "No such command"),
        ("jimsapi --app bot:app --run-timeout soon | tee log", StartError, "--run-timeout"),
        ("JIMS_LOG_FORMAT=json jimsapi check … --oidc-isuer x", click.NoSuchOption, "--oidc-isuer"),
    ],
)
def test_a_mistake_in_a_command_is_found(line: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        give(line)


def test_the_pages_have_many_commands() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 40
