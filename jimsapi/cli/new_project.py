"""`jimsapi new`: creates the project of a bot. Its tests pass without changes, and `jimsapi` serves it."""

from functools import partial
from pathlib import Path

import click

from jimsapi.cli.rendering import canonical_name, is_taken, write_folder, write_templates
from jimsapi.plugins.errors import StartError

RESERVED = frozenset({"build", "conftest", "dist", "docs", "mypy", "pytest", "ruff", "secrets", "tests", "wheels"})
"""Names of folders of the project, and of modules that its author runs there. A module of that name would hide them."""


def new_command() -> click.Command:
    """Return the command `new`. It does not import plugins."""
    return click.Command(
        "new",
        callback=new_project,
        params=[click.Argument(["name"])],
        help="Write a project into a new folder NAME: a pipeline, its tests, a Dockerfile, a file for Docker Compose, "
        "and a README.",
    )


def new_project(name: str) -> None:
    """Write the project and print the next steps. Raises `StartError` if the name cannot be used."""
    words = words_of(name)
    write_folder(name, partial(write_project, words=words))
    click.echo(f"{name} is written. Next:")
    click.echo(f"  cd {name}")
    click.echo("  pip install pytest")
    click.echo("  pytest")
    click.echo("  jimsapi")
    click.echo("The last one serves the bot on http://localhost:8080. Chat with it in another terminal:")
    click.echo("  jimsapi chat")
    click.echo("With the plugin jimsapi-playground, http://localhost:8080 is a page to chat with it in a browser.")


def words_of(name: str) -> dict[str, str]:
    """Return the names for the templates, by placeholder. Raises `StartError` if `name` cannot be used."""
    canonical = canonical_name(name)
    module = canonical.replace("-", "_")
    if not module[0].isalpha():
        raise StartError(f"{name} gives a module {module}: choose a name that begins with a letter")
    if module.startswith("jimsapi"):
        raise StartError(f"{name} begins with jimsapi, as jimsapi and its plugins do: choose another name")
    if is_taken(module, RESERVED):
        raise StartError(f"the module name {module} is not available: choose another name, for example {canonical}-bot")
    return {"name": name, "module": module}


def write_project(folder: Path, words: dict[str, str]) -> None:
    """Write the project into an empty folder. Raises `OSError`."""
    write_templates(folder, "project", words)
