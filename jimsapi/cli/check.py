"""`jimsapi check`: checks whether a start would succeed, and prints what it would serve."""

import asyncio
import errno
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import click

from jimsapi.api.app import Api, require_shareable, run_service
from jimsapi.api.metrics import MetricsOptions, unusable_port
from jimsapi.builtin.client_certificate import CertificateOptions
from jimsapi.cli.framework import FrameworkApp
from jimsapi.cli.listening import address_of, cannot_listen, refuse_shared_port
from jimsapi.cli.options import ServerOptions
from jimsapi.cli.serve import start_lines
from jimsapi.cli.server_config import loaded_config, server_config, warn_of_missing_websockets
from jimsapi.plugins.compose import AppWithoutPipeline, Built, Composer, Composition, Configuration
from jimsapi.plugins.core import CoreOptions
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.lifespans import Lifespans
from jimsapi.plugins.manager import at, one_line
from jimsapi.plugins.options import Settings
from jimsapi.plugins.protocols import AuthUnavailable
from jimsapi.server.port import bind_port, check_unused
from jimsapi.threads.errors import StoreUnavailable, StoreUnusable

PING_WITHIN = 15.0
"""Seconds within which a store or an auth provider has to answer."""


def check(configuration: Configuration, *, strict: bool, connect: bool) -> None:
    """Do everything that a start does except serving, and print what would be served.

    If `connect` is true, it also opens, pings and closes the store and the other parts that a start opens, and a port
    or a store that another process uses is an error. If `strict` is true, warnings are errors.

    Raises `StartError` or `StoreUnusable` as the start would.
    """
    warnings = _Warnings()
    logging.getLogger().addHandler(warnings)
    server = configuration.settings.get(ServerOptions)
    address = address_of(server)
    try:
        composition, opened = asyncio.run(_compose(configuration, connect=connect))
    except AppWithoutPipeline as found:
        for line in FrameworkApp(found).start_lines(address):
            click.echo(line)
        return _reject_warnings(warnings.count if strict else 0)
    except SystemExit as error:  # it would end the command with success
        raise StartError(f"a plugin called sys.exit(){at(error)}") from error
    finally:
        logging.getLogger().removeHandler(warnings)
    for line in start_lines(composition, address):
        click.echo(line)
    for entry, hooks in composition.plugins:
        click.echo(f"  {entry.name} ({entry.distribution} {entry.version}): {', '.join(hooks)}")
    names = [built.name for built in composition.providers]
    if names:
        click.echo(f"who may enter: callers that one of these admits, tried in this order: {', '.join(names)}")
    else:
        click.echo("who may enter: EVERYBODY; no auth provider is configured")
    core = composition.settings.get(CoreOptions)
    click.echo(f"what a caller may send: {_limits(core)}")
    click.echo(f"what is kept: {_retention_text(core)}")
    for line in opened:
        click.echo(line)
    _reject_warnings(warnings.count if strict else 0)


def _limits(core: CoreOptions) -> str:
    """Return the limits of callers that are set, for the operator."""
    names = ("rate_limit", "identity_rate_limit", "contact_runs", "identity_runs", "token_budget", "cost_budget")
    limits = {name: getattr(core, name) for name in names}
    found = [f"--{name.replace('_', '-')} {limit}" for name, limit in limits.items() if limit is not None]
    return ", ".join(found) or "as many messages as --max-runs allows; no rate limit and no budget is set"


def _retention_text(core: CoreOptions) -> str:
    lifetime = core.expire_threads
    threads = "until they are deleted" if lifetime is None else f"for {lifetime} without a new event"
    return f"threads {threads}; records of finished runs for {core.keep_runs:g} days"


def _reject_warnings(count: int) -> None:
    if count:
        number = "1 warning" if count == 1 else f"{count} warnings"
        raise StartError(f"{number}, and --strict allows none")


class _Warnings(logging.StreamHandler[Any]):
    """Writes warnings and errors to standard error, and counts them."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setLevel(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        super().emit(record)


async def _compose(configuration: Configuration, *, connect: bool) -> tuple[Composition, list[str]]:
    """Return the composition that would serve, and lines about its store and the pinged parts."""
    settings = configuration.settings
    _check_ports(settings, connect=connect)
    api = Api(None, {})
    server, certificates = settings.get(ServerOptions), settings.get(CertificateOptions)
    config = loaded_config(server_config(server, certificates, settings.get(CoreOptions).max_body, api))
    composer = Composer(configuration)
    composition = await composer.build()
    if server.workers > 1:
        require_shareable(composition.store)
    missing = missing_store(composition.store)
    opened = [] if missing is None else [f"the store: {missing}"]
    lifespans = Lifespans()
    try:
        if connect:
            composition = await composer.enter(composition, lifespans, store=missing is None)
            opened += [line async for line in _ping_all(composition, store=missing is None)]
        api.declare(composition, configuration.plugins, run_service(composition))
        warn_of_missing_websockets(config, api, tries=True)
    finally:
        await lifespans.leave()
    return composition, opened


def _check_ports(settings: Settings, *, connect: bool) -> None:
    """Bind the addresses without listening. If one is in use, raise `StartError` only with `connect`."""
    server, metrics = settings.get(ServerOptions), settings.get(MetricsOptions)
    refuse_shared_port(server, metrics)
    try:
        if server.uds is not None:
            check_unused(server.uds)
        else:
            bind_port(server.host, server.port).close()
    except OSError as error:
        if connect or error.errno != errno.EADDRINUSE:
            raise StartError(cannot_listen(server, error)) from error
    if not metrics.port:
        return
    try:
        bind_port(metrics.host, metrics.port).close()
    except OSError as error:
        if connect or error.errno != errno.EADDRINUSE:
            raise StartError(unusable_port(metrics.host, metrics.port, error)) from error


def missing_store(store: Built) -> str | None:
    """Return what opening the store would create; None if it exists. Raises `StoreUnusable` if it cannot be opened.

    It does not open the store.
    """
    preflight = getattr(store.value, "preflight", None)
    missing: str | None = None if preflight is None else preflight()
    return missing


async def _ping_all(composition: Composition, *, store: bool) -> AsyncIterator[str]:
    """Ping the store and the auth providers, and yield a line for each. Raises `StartError` if one does not answer."""
    for built in ((composition.store,) if store else ()) + composition.providers:
        if (ping := getattr(built.value, "ping", None)) is None:
            continue
        part = f"auth provider {built.name}" if built.hook == "jimsapi_auth_provider" else f"store {built.name}"
        try:
            async with asyncio.timeout(PING_WITHIN):
                await ping()
        except (StoreUnavailable, StoreUnusable, AuthUnavailable) as error:
            raise StartError(f"{part}: {error}") from error
        except TimeoutError:
            raise StartError(f"{part}: it did not answer within {PING_WITHIN:g} seconds") from None
        except (Exception, SystemExit) as error:
            raise StartError(f"{part}: {one_line(error)}") from error
        yield f"it answers: {part}"
