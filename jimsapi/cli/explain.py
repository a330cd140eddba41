"""`jimsapi auth explain`: shows the outcome of each auth provider for a token, and of a request with that token."""

import logging
import sys

import click

from jimsapi.api.admission import Gate
from jimsapi.api.app import run_service
from jimsapi.asgi.connection import Connection
from jimsapi.asgi.errors import HTTPError
from jimsapi.plugins.compose import Composer, Configuration
from jimsapi.plugins.lifespans import Lifespans
from jimsapi.plugins.protocols import AdmissionRecord
from jimsapi.runs.admission import Admission
from jimsapi.runs.observers import Observers
from jimsapi.runs.pipeline import JimsApp
from jimsapi.threads.context import ThreadContext

_PRECEDENCE = (403, 503, 401)
"""If no provider admits, the first of these statuses that occurred is the answer, as in `Gate.admit`."""

_OUTCOMES = {"passed": "not its kind of credentials, so it leaves the request to the others"}
"""What is shown of an outcome, if its name in metrics does not explain itself."""


async def explain(configuration: Configuration, token: bytes) -> None:
    """Call every auth provider with a bearer token, and print the outcomes.

    The reasons of rejections are written to standard error. The token is not shown, and the store is not opened.

    Raises `StartError` as a start would.
    """
    _log_to_stderr()
    composer = Composer(configuration)
    composition = await composer.build(JimsApp(_no_pipeline))
    service = run_service(composition)
    connection = Connection({"type": "http", "headers": [(b"authorization", b"Bearer " + token)]})
    lifespans = Lifespans()
    try:
        providers = await composer.enter_providers(composition, lifespans)
        admissions: list[Admission] = []
        refusals: list[HTTPError] = []
        for number, built in enumerate(providers, 1):
            records: list[AdmissionRecord] = []
            try:
                admissions.append(await Gate([built], service, Observers([records.append])).admit(connection))
                outcome = f"admitted, {_describe(admissions[-1])}"
            except HTTPError as error:
                refusals.append(error)
                outcome = _OUTCOMES.get(records[0].outcome, records[0].outcome)
            click.echo(f"{number}. {built.name} ({built.entry.distribution} {built.entry.version}): {outcome}")
    finally:
        await lifespans.leave()
    if not providers:
        click.echo("No auth provider is configured: every request is admitted, with any token or none.")
    elif admissions:
        click.echo(f"A request with this token is admitted by {admissions[0].provider}.")
    else:
        answer = min(refusals, key=lambda error: _PRECEDENCE.index(error.status))
        click.echo(f"A request with this token is answered {answer.status} {answer.detail}.")


async def _no_pipeline(ctx: ThreadContext) -> None:
    """A pipeline in place of the app's: authentication does not depend on the app."""


def _describe(admission: Admission) -> str:
    identity = admission.identity
    contact = "any contact" if identity.contact_id is None else f"contact {identity.contact_id!r} alone"
    if identity.scopes is None:
        scopes = "every scope, also those of plugins"
    else:
        scopes = "scopes: " + (", ".join(sorted(identity.scopes)) or "none")
    return f"as {identity.subject!r}, for {contact}, {scopes}"


def _log_to_stderr() -> None:
    """Write the reasons of rejections, which are debug logs, to standard error."""
    logging.getLogger("jimsapi").addHandler(logging.StreamHandler(sys.stderr))
    logging.getLogger("jimsapi.auth").setLevel(logging.DEBUG)
