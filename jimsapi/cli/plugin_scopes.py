"""The scopes that the routes of the plugins require, for commands that grant scopes."""

from jimsapi.asgi.routing import Router
from jimsapi.plugins.compose import Configuration
from jimsapi.plugins.errors import StartError
from jimsapi.runs.pipeline import JimsApp
from jimsapi.runs.service import RunService
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.context import ThreadContext


async def scopes_of_plugins(configuration: Configuration) -> tuple[dict[str, str], list[StartError]]:
    """Return the distribution that requires each scope, and the errors of plugins that could not declare their routes.

    The plugins declare their routes for a service that answers nothing, in an event loop as at a start. Neither the app
    nor the store is opened.
    """
    service = RunService(JimsApp(_no_pipeline), MemoryStore(), [])
    owners: dict[str, str] = {}
    errors: list[StartError] = []
    for implementation in configuration.plugins.implementations("jimsapi_routes"):
        router = Router()
        try:
            implementation(router=router, service=service, settings=configuration.settings)
        except StartError as error:
            errors.append(error)
        for route in router.routes:
            if route.scope is not None:
                owners.setdefault(route.scope, implementation.entry.distribution)
    return owners, errors


async def _no_pipeline(ctx: ThreadContext) -> None:
    """A pipeline in place of the app's."""
