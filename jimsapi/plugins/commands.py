"""The options in subcommands of plugins."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from jimsapi.plugins.options import Settings

SETTINGS = "jimsapi.settings"
"""The key in the `meta` of click's context that has the function that resolves the options."""

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


def pass_settings(command: Callable[Concatenate[Settings, Parameters], Returned]) -> Callable[Parameters, Returned]:
    """Decorator: passes the `Settings` to the function of a subcommand, before its other arguments.

    Put it below the decorators of click. The options are resolved when the command runs, as those of a server: from
    the flags before the name of the command, the variables, the files and the defaults. If one is invalid, the command
    ends with status 1 and a line that names the option. A test passes settings with `obj`, for example
    `CliRunner().invoke(group, ["mint"], obj=jimsapi_settings(mint_bytes=64))`.
    """

    @click.pass_context
    @wraps(command)
    def with_settings(context: click.Context, /, *arguments: Any, **options: Any) -> Returned:
        settings = context.find_object(Settings)
        if settings is None and SETTINGS not in context.meta:
            raise RuntimeError("the command was not called by jimsapi, so it has no settings: pass them as `obj`")
        return command(settings or context.meta[SETTINGS](), *arguments, **options)

    return with_settings
