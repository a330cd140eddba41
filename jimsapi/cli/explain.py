"""`jimsapi auth explain`: what each auth provider says of a token, and how a request with it would be answered."""

import logging
import sys

import click

from jimsapi.api.admission import Gate
from jimsapi.api.app import run_service
from jimsapi.asgi.connection import Connection
from jimsapi.asgi.errors import HTTPError
from jimsapi.plugins.compose import Composer, Configuration
from jimsapi.plugins.protocols import AdmissionRecord
from jimsapi.plugins.residents import Residents
from jimsapi.runs.identity import Admission
from jimsapi.runs.pipeline import JimsApp
from jimsapi.threads.context import ThreadContext

_WEIGHT = (403, 503, 401)


async def explain(configuration: Configuration, token: bytes) -> None:
    """Ask every provider about a bearer token and print its answer; the store is not opened, the token not shown.

    Why a token is refused goes to standard error. Raises `StartError` as a start would.
    """
    _tell_reasons()
    composer = Composer(configuration)
    composition = await composer.build(JimsApp(_no_pipeline))
    service = run_service(composition)
    connection = Connection({"type": "http", "headers": [(b"authorization", b"Bearer " + token)]})
    residents = Residents()
    try:
        providers = await composer.enter_providers(composition, residents)
        admissions: list[Admission] = []
        refusals: list[HTTPError] = []
        for number, built in enumerate(providers, 1):
            told: list[AdmissionRecord] = []
            try:
                admissions.append(await Gate([built], service, [told.append]).admit(connection))
                says = f"admitted, {_described(admissions[-1])}"
            except HTTPError as error:
                refusals.append(error)
                says = told[0].outcome
            click.echo(f"{number}. {built.name} ({built.entry.distribution} {built.entry.version}): {says}")
    finally:
        await residents.leave()
    if not providers:
        click.echo("No auth provider is configured: everybody enters, with any token or none.")
    elif admissions:
        click.echo(f"A request with this token is let in by {admissions[0].provider}.")
    else:
        # None admits, so the weightiest refusal is the answer, as the gate has it: denied, then unavailable.
        answer = min(refusals, key=lambda error: _WEIGHT.index(error.status))
        click.echo(f"A request with this token is answered {answer.status} {answer.detail}.")


async def _no_pipeline(ctx: ThreadContext) -> None:
    """Stands for the app, which who may enter does not depend on."""


def _described(admission: Admission) -> str:
    identity = admission.identity
    contact = "any contact" if identity.contact_id is None else f"contact {identity.contact_id!r} alone"
    scopes = "chat and threads" if identity.scopes is None else ", ".join(sorted(identity.scopes)) or "none"
    return f"as {identity.subject!r}, for {contact}, scopes: {scopes}"


def _tell_reasons() -> None:
    """Show what the gate logs of a refusal, which a server shows with `--verbose`."""
    reasons = logging.getLogger("jimsapi")
    reasons.addHandler(logging.StreamHandler(sys.stderr))
    logging.getLogger("jimsapi.auth").setLevel(logging.DEBUG)
