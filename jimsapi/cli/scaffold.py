"""`jimsapi plugin new`: creates a complete distribution with one plugin. Its tests pass without changes.

It copies the templates in `templates/every` and in the folder of the plugin's kind. The path of a template is its path
in the distribution, with two exceptions: `package` becomes the module's name, and `dot.` becomes `.`, because hidden
files are easily missing from a wheel. `usage.md` becomes a part of the README.
"""

import keyword
import re
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import packages_distributions
from pathlib import Path
from string import Template

import click

from jimsapi.builtin import builtin_plugins
from jimsapi.cli.options import all_options
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.options import specs

KINDS = {
    "auth": "Admits callers that send a secret.",
    "store": "Stores the threads of jimsapi in a place of its own.",
    "sink": "Writes every stored event to a file.",
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

LONGEST_NAME = 40
"""Characters. With a longer name, lines of the generated code would be too long for the linter."""

OPTIONS = ("secret", "file", "pause", "seconds")
"""The options in the templates. For a plugin `door`, the first one is `--door-secret`."""

COMMON_MODULES = frozenset({"api", "app", "bot", "conftest", "main", "test", "tests"})
"""Names of modules in many projects, including the tests of the new plugin. Modules of one name hide each other."""

_TEMPLATES = Path(__file__).with_name("templates")
_TEST_REQUIREMENTS = {
    "": ("mypy >= 1.15", "pytest >= 8.3", "ruff >= 0.9"),
    "store": ("hypothesis >= 6.115",),
    "wrapper": ("hypothesis >= 6.115",),
}

# PEP 508.
_NAME = re.compile(r"[A-Z0-9]([A-Z0-9._-]*[A-Z0-9])?", re.IGNORECASE | re.ASCII)


def plugin_commands() -> click.Group:
    """Return the commands for authors of plugins. They do not import plugins."""
    group = click.Group("plugin", help="Write a plugin.")
    group.add_command(
        click.Command(
            "new",
            callback=new_plugin,
            params=[
                click.Argument(["name"]),
                click.Option(["--kind"], type=click.Choice(list(KINDS)), required=True, help="What the plugin builds."),
            ],
            help="Write a distribution called NAME into a new folder NAME: code, tests, README and CI. The names of "
            "plugins usually begin with jimsapi-; the entry point is NAME without that.",
        )
    )
    return group


def new_plugin(name: str, kind: str) -> None:
    """Write the distribution and print the next steps. Raises `StartError` if the name cannot be used."""
    folder = Path.cwd() / name
    words = words_of(name)
    commands = getattr(click.get_current_context().find_root().command, "commands", {})
    if kind == "commands" and words["name"] in commands:
        raise StartError(f"{words['name']} is a subcommand of jimsapi: choose another name")
    try:
        folder.mkdir()
    except FileExistsError:
        raise StartError(f"{name} already exists here: choose another name, or work in another folder") from None
    except OSError as error:
        raise StartError(f"{name} cannot be created here: {error.strerror}") from None
    try:
        write_distribution(folder, kind, words)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise StartError(f"{name} cannot be written: {error.strerror}") from None
    click.echo(f"{name} is written. Next:")
    click.echo(f"  cd {name}")
    click.echo("  pip install --editable '.[test]'")
    click.echo("  pytest")


def words_of(name: str) -> dict[str, str]:
    """Return the names for the templates, by placeholder. Raises `StartError` if `name` cannot be used."""
    if not _NAME.fullmatch(name):
        raise StartError(
            f"{name!r} is not a valid distribution name: use letters, digits, and - _ . between them (PEP 508)"
        )
    if len(name) > LONGEST_NAME:
        raise StartError(f"{name} is longer than {LONGEST_NAME} characters: choose a shorter name")
    canonical = re.sub(r"[-_.]+", "-", name).lower()
    module = canonical.replace("-", "_")
    short = canonical.removeprefix("jimsapi-")
    option = short.replace("-", "_")
    if short in builtin_plugins():
        raise StartError(f"{short} is the name of a plugin that comes with jimsapi: choose another name")
    if not short[0].isalpha():
        raise StartError(f"{name} gives options like --{short}-…: choose a name that begins with a letter")
    for field in OPTIONS:
        if f"{option}_{field}" in _taken_options():
            raise StartError(f"{name} may give the option --{short}-{field}, which jimsapi has: choose another name")
    if _is_taken(module):
        other = f"acme-{short}" if canonical == f"jimsapi-{short}" else f"jimsapi-{short}"
        raise StartError(f"the module name {module} is not available: choose another name, for example {other}")
    return {
        "distribution": name,
        "module": module,
        "name": short,
        "option": option,
        "flag": short,
        "VARIABLE": option.upper(),
        "Class": "".join(word.capitalize() for word in option.split("_")),
        "year": str(datetime.now(UTC).year),
    }


def _taken_options() -> set[str]:
    """The keys of jimsapi's own options, and the keys whose variables would be the `_FILE` variables of these."""
    keys = {spec.key for owned in all_options(None) for spec in specs(owned.options)}
    return keys | {f"{key}_file" for key in keys}


def _is_taken(module: str) -> bool:
    """Whether Python, an installed distribution or many projects already have a module of this name."""
    reserved = sys.stdlib_module_names | COMMON_MODULES | {"jimsapi"}
    return keyword.iskeyword(module) or module in reserved or module in packages_distributions()


def write_distribution(folder: Path, kind: str, words: dict[str, str]) -> None:
    """Write the distribution into an empty folder. Raises `OSError`."""
    requirements = sorted([*_TEST_REQUIREMENTS[""], *_TEST_REQUIREMENTS.get(kind, ())])
    words = {
        **words,
        "summary": KINDS[kind],
        "test_requirements": "\n".join(f"    {requirement}" for requirement in requirements),
    }
    words["usage"] = _render(_TEMPLATES / kind / "usage.md.txt", words)
    for relative, template in _templates(kind, words["module"]):
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_render(template, words), encoding="utf-8")


def _templates(kind: str, module: str) -> Iterator[tuple[Path, Path]]:
    """The path of each file in the distribution, and its template."""
    for root in (_TEMPLATES / "every", _TEMPLATES / kind):
        for template in sorted(root.rglob("*.txt")):
            relative = template.relative_to(root).with_suffix("")
            if relative.name != "usage.md":
                parts = (module if part == "package" else part for part in relative.parts)
                yield Path(*(re.sub(r"^dot\.", ".", part) for part in parts)), template


def _render(template: Path, words: dict[str, str]) -> str:
    return Template(template.read_text(encoding="utf-8")).substitute(words)
