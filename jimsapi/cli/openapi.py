"""`jimsapi openapi`: prints the OpenAPI document of what a start would serve."""

import asyncio
import logging
import sys

import click
import orjson

from jimsapi.api.app import Api, run_service
from jimsapi.asgi.app import App
from jimsapi.plugins.compose import AppWithoutPipeline, Composer, Configuration
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.manager import at


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
