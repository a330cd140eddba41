"""Plugins as if they were installed: distributions in a folder that a server gets on its path."""

from collections.abc import Mapping
from pathlib import Path

NOTHING = '''\
"""A plugin that adds no route, and is not configured."""

from jimsapi import Options, hookimpl, option


class IdleOptions(Options, prefix="idle{number}"):
    """Its options."""

    secret: str | None = option(help="What would configure it.")


@hookimpl
def jimsapi_options():
    return IdleOptions


@hookimpl
def jimsapi_auth_provider(settings):
    assert settings.get(IdleOptions).secret is None


@hookimpl
def jimsapi_observer(settings):
    return None
'''


def install(folder: Path, module: str) -> Mapping[str, str]:
    """Put a distribution into `folder` whose entry point is `module`. Returns the environment that shows the folder."""
    name = module.replace(".", "_")
    notes = folder / f"{name}-1.0.dist-info"
    notes.mkdir(parents=True)
    (notes / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (notes / "entry_points.txt").write_text(f"[jimsapi]\n{name} = {module}\n")
    return {"PYTHONPATH": str(folder)}


def install_idle(folder: Path, number: int) -> Mapping[str, str]:
    """Put so many plugins that do nothing into `folder`. Returns the environment that shows it."""
    folder.mkdir(exist_ok=True)
    for each in range(number):
        module = f"idle_plugin_{each}"
        (folder / f"{module}.py").write_text(NOTHING.replace("{number}", str(each)))
        install(folder, module)
    return {"PYTHONPATH": str(folder)}
