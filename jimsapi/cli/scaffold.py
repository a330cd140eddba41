"""`jimsapi plugin new`: creates a complete distribution with one or several plugins. Its tests pass without changes.

It copies the templates in `templates/every` and in the folder of each kind. `usage.md` becomes a part of the README.

With several kinds, each kind is a plugin of its own: a package inside the package, with its own entry point, options
and test module.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from jimsapi.builtin import builtin_plugins
from jimsapi.cli.options import all_options
from jimsapi.cli.rendering import (
    LONGEST_NAME,
    TEMPLATES,
    canonical_name,
    is_taken,
    render,
    write_folder,
    write_templates,
)
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.options import specs

KINDS = {
    "auth": "Admits callers that send a secret.",
    "store": "Stores the threads of jimsapi in a place of its own.",
    "file-store": "Stores the files of contacts in a place of its own.",
    "sink": "Writes every stored event to a file.",
    "replica-link": "Lets servers on one machine show each other's live streams.",
    "resolver": "Begins a new thread after a pause.",
    "routes": "Adds routes to jimsapi.",
    "observer": "Logs slow runs.",
    "metrics": "Counts runs for Prometheus.",
    "adapter": "Serves apps of another framework.",
    "loader": "Loads apps from references of its own format.",
    "wrapper": "Logs slow pipelines and slow writes to the store.",
    "asgi-wrapper": "Adds a header to every answer.",
    "commands": "Adds a subcommand to jimsapi.",
}
"""The kinds of plugins, and what the new plugin does."""

LONGEST_NAME_OF_SEVERAL = 30
"""Characters of a name with several kinds. The kind is then a part of the names of modules and options."""

OPTIONS = ("secret", "file", "folder", "pause", "seconds")
"""The options in the templates. For a plugin `door`, the first one is `--door-secret`."""

COMMON_MODULES = frozenset({"api", "app", "bot", "conftest", "main", "test", "tests"})
"""Names of modules in many projects, including the tests of the new plugin. Modules of one name hide each other."""

_USAGE = "usage.md"
_TEST_REQUIREMENTS = {
    "": ("mypy >= 1.15", "pytest >= 8.3", "ruff >= 0.9"),
    "store": ("hypothesis >= 6.115",),
    "wrapper": ("hypothesis >= 6.115",),
}


def plugin_commands() -> click.Group:
    """Return the commands for authors of plugins. They do not import plugins."""
    group = click.Group("plugin", help="Write a plugin.")
    group.add_command(
        click.Command(
            "new",
            callback=new_plugin,
            params=[
                click.Argument(["name"]),
                click.Option(
                    ["--kind", "kinds"],
                    type=click.Choice(list(KINDS)),
                    multiple=True,
                    required=True,
                    help="What the plugin builds (wrapper: of pipelines and of the store). Repeat it for several.",
                ),
            ],
            help="Write a distribution called NAME into a new folder NAME: code, tests, README and CI. The names of "
            "plugins usually begin with jimsapi-; the entry point is NAME without that.",
        )
    )
    return group


def new_plugin(name: str, kinds: Sequence[str]) -> None:
    """Write the distribution and print the next steps. Raises `StartError` if the name cannot be used."""
    kinds = list(dict.fromkeys(kinds))
    words = words_of(name, LONGEST_NAME if len(kinds) == 1 else LONGEST_NAME_OF_SEVERAL)
    if len(kinds) > 1:
        for kind in kinds:
            _refuse_builtin(_words_of_part(words, kind)["entry"])
    commands = getattr(click.get_current_context().find_root().command, "commands", {})
    if "commands" in kinds and words["name"] in commands:
        raise StartError(f"{words['name']} is a subcommand of jimsapi: choose another name")
    write_folder(name, partial(write_distribution, kinds=kinds, words=words))
    click.echo(f"{name} is written. Next:")
    click.echo(f"  cd {name}")
    click.echo("  pip install --editable '.[test]'")
    click.echo("  pytest")


def words_of(name: str, longest: int = LONGEST_NAME) -> dict[str, str]:
    """Return the names for the templates, by placeholder. Raises `StartError` if `name` cannot be used.

    `longest` is the number of characters that the name may have.
    """
    canonical = canonical_name(name, longest)
    module = canonical.replace("-", "_")
    short = canonical.removeprefix("jimsapi-")
    option = short.replace("-", "_")
    _refuse_builtin(short)
    if not short[0].isalpha():
        raise StartError(f"{name} gives options like --{short}-…: choose a name that begins with a letter")
    for field in OPTIONS:
        if f"{option}_{field}" in _taken_options():
            raise StartError(f"{name} may give the option --{short}-{field}, which jimsapi has: choose another name")
    if is_taken(module, COMMON_MODULES | {"jimsapi"}):
        other = f"acme-{short}" if canonical == f"jimsapi-{short}" else f"jimsapi-{short}"
        raise StartError(f"the module name {module} is not available: choose another name, for example {other}")
    return {
        "distribution": name,
        "module": module,
        "name": short,
        "entry": short,
        "option": option,
        "flag": short,
        "VARIABLE": option.upper(),
        "Class": "".join(word.capitalize() for word in option.split("_")),
        "year": str(datetime.now(UTC).year),
    }


def _refuse_builtin(plugin: str) -> None:
    if plugin in builtin_plugins():
        raise StartError(f"{plugin} is the name of a plugin that comes with jimsapi: choose another name")


def _taken_options() -> set[str]:
    """The keys of jimsapi's own options, and the keys whose variables would be the `_FILE` variables of these."""
    keys = {spec.key for owned in all_options(None) for spec in specs(owned.options)}
    return keys | {f"{key}_file" for key in keys}


def write_distribution(folder: Path, kinds: Sequence[str], words: Mapping[str, str]) -> None:
    """Write the distribution into an empty folder. Raises `OSError`."""
    requirements = {one for kind in ("", *kinds) for one in _TEST_REQUIREMENTS.get(kind, ())}
    parts = [words] if len(kinds) == 1 else [_words_of_part(words, kind) for kind in kinds]
    packages = list(dict.fromkeys([words["module"], *(part["module"] for part in parts)]))
    whole = {
        **words,
        "summary": " ".join(KINDS[kind] for kind in kinds),
        "test_requirements": _lines(sorted(requirements)),
        "packages": f" {packages[0]}" if len(packages) == 1 else f"\n{_lines(packages)}",
        "entry_points": _lines(f"{part['entry']} = {part['module']}" for part in parts),
        "usage": "\n".join(_usage(kind, part, len(parts)) for kind, part in zip(kinds, parts, strict=True)),
    }
    write_templates(folder, "every", whole)
    if len(kinds) == 1:
        write_templates(folder, kinds[0], whole, left_out=_USAGE)
        return
    text = f'"""The plugins of {words["distribution"]}, a package for each."""\n'
    (folder / words["module"] / "__init__.py").write_text(text, encoding="utf-8")
    for kind, part in zip(kinds, parts, strict=True):
        words_of_kind = {**part, "summary": KINDS[kind]}
        test_module = f"test_{_identifier(kind)}.py"
        write_templates(folder, kind, words_of_kind, left_out=_USAGE, test_module=test_module)


def _words_of_part(words: Mapping[str, str], kind: str) -> dict[str, str]:
    """The names for one of several kinds: those that have to be unique get the kind at their end."""
    kind_name = _identifier(kind)
    return {
        **words,
        "module": f"{words['module']}.{kind_name}",
        "entry": f"{words['entry']}-{kind}",
        "option": f"{words['option']}_{kind_name}",
        "flag": f"{words['flag']}-{kind}",
        "VARIABLE": f"{words['VARIABLE']}_{kind_name.upper()}",
    }


def _identifier(kind: str) -> str:
    return kind.replace("-", "_")


def _lines(texts: Iterable[str]) -> str:
    """The lines of a list in setup.cfg."""
    return "\n".join(f"    {text}" for text in texts)


def _usage(kind: str, words: Mapping[str, str], count: int) -> str:
    """The part of the README about one of `count` kinds."""
    text = render(TEMPLATES / kind / f"{_USAGE}.txt", words)
    return text if count == 1 else f"### {words['entry']}\n\n{KINDS[kind]}\n\n{text}"
