"""The store of a server, opened by a command: beside a server that runs, if the command only reads."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from jimsapi.api.app import add_plugin_routes, run_service
from jimsapi.asgi.app import App
from jimsapi.cli.check import missing_store
from jimsapi.plugins.compose import (
    Built,
    Composer,
    Composition,
    Configuration,
    build_store,
    enter_built,
    without_password,
)
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.lifespans import Lifespans
from jimsapi.plugins.manager import at
from jimsapi.runs.pipeline import JimsApp
from jimsapi.runs.service import RunService
from jimsapi.stores.sqlite.lock import LockedByAnother
from jimsapi.threads.context import ThreadContext
from jimsapi.threads.errors import StoreLacks, StoreUnavailable

WRAPPERS = ("jimsapi_store_wrapper",)
"""The hooks of which the objects are entered. The one of `jimsapi-files` deletes files together with threads."""


def complete(work: Coroutine[Any, Any, None], beside_a_server: str = "") -> None:
    """Do the work of a command, and turn what may go wrong with a store into errors for the operator.

    `beside_a_server` is what to do if a server has locked the store.
    """
    try:
        asyncio.run(work)
    except LockedByAnother as error:
        raise StartError(f"{error}{beside_a_server}") from error
    except (StoreLacks, StoreUnavailable) as error:
        raise StartError(str(error)) from error
    except SystemExit as error:  # it would end the command with its own status
        raise StartError(f"a plugin called sys.exit(){at(error)}") from error


@asynccontextmanager
async def opened(
    configuration: Configuration, *, to_write: bool, needs_files: bool = False
) -> AsyncIterator[RunService]:
    """Open the stores of the server, and close them afterwards. Raises `StartError` if there is no database.

    The service is not started: it has the stores. `needs_files`: it also raises if opening would create a file store.
    """
    composer = Composer(configuration)
    composition = await _composition(composer, configuration)
    missing = missing_store(composition.store) if to_write else None
    if missing is not None:
        raise StartError(f"there is no database {composition.store.name}: give the --store that has the threads")
    for wrapper in composition.built[WRAPPERS[0]] if needs_files else ():
        if not isinstance(wrapper.value, type) and (missing := missing_store(wrapper)) is not None:
            raise StartError(
                f"{missing}; give the --files-store of the server, or leave it out and continue with --without-files"
            )
    if not to_write and (beside := getattr(composition.store.value, "beside_a_server", None)) is not None:
        composition = msgspec.structs.replace(
            composition, store=msgspec.structs.replace(composition.store, value=beside())
        )
    lifespans = Lifespans()
    try:
        composition = await composer.enter(composition, lifespans, hooks=WRAPPERS)
        service = run_service(composition)
        for resource in add_plugin_routes(App(), configuration.plugins, service, configuration.settings):
            if resource.value is service.files:
                await enter_built(resource, lifespans)
        yield service
    finally:
        await lifespans.leave()


async def built_store(configuration: Configuration, url: str | None) -> Built:
    """Return the store at a URL, or that of the server if it is None or empty. It is not open yet."""
    if not url:
        return (await _composition(Composer(configuration), configuration)).store
    return build_store(url, without_password(url), configuration.plugins, configuration.settings)


def require_methods(store: object, names: Sequence[str]) -> None:
    """Raise `StoreLacks` if a store lacks a method that not every store has."""
    for name in names:
        if not hasattr(store, name):
            raise StoreLacks(type(store).__name__, f"the method '{name}'")


async def _composition(composer: Composer, configuration: Configuration) -> Composition:
    """Build what a server has. The app is loaded only if it may name the store."""
    no_app = JimsApp(_answer_nothing)
    if configuration.settings.is_given("store"):
        return await composer.build(no_app)
    return msgspec.structs.replace(await composer.build(), app=no_app)


async def _answer_nothing(ctx: ThreadContext) -> None:
    """Stand in for the app, which the commands do not call."""
