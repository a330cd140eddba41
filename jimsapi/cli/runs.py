"""`jimsapi runs`: list the runs of a store, show one, and cancel one in the store or through a server."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import click

from jimsapi.api.runs import run_item, run_view
from jimsapi.cli.client_key import client_key
from jimsapi.cli.opened_store import complete, opened
from jimsapi.cli.printing import print_fields, print_json, print_row
from jimsapi.cli.progress import Progress
from jimsapi.plugins.compose import Configuration
from jimsapi.plugins.errors import StartError
from jimsapi.threads.errors import RunNotFound, ThreadNotFound
from jimsapi.threads.run import OPEN, ListedRun, RunFilter, RunStatus, StoredRun

RUNS_AT_ONCE = 1000
COLUMNS = ("RUN", "STATUS", "ACCEPTED", "SECONDS", "THREAD", "CONTACT")
WIDTHS = (36, 11, 20, 8, 36, 0)
ATTEMPTS = 2
"""How often a cancellation is sent again if the server does not answer."""
ANSWER_WITHIN = 10.0
"""Seconds for each attempt. A server cancels a run at once."""

_BESIDE_A_SERVER = (
    "; while that server runs, cancel the run through it: give its --url, and a key that has the scope threads with "
    "--api-key-file or JIMS_API_KEY_FILE"
)


def list_runs(
    configuration: Configuration,
    *,
    statuses: Sequence[str],
    contact_id: str | None,
    thread_id: UUID | None,
    limit: int,
    as_json: bool,
) -> None:
    """Print runs, newest first. Raises `StartError` or `StoreUnusable` if that is not possible."""
    only = RunFilter(tuple(map(RunStatus, statuses)), contact_id, thread_id)
    complete(_list(configuration, only, limit, as_json))


async def _list(configuration: Configuration, only: RunFilter, limit: int, as_json: bool) -> None:
    async with opened(configuration, to_write=False) as service:
        left, after = limit, None
        with Progress("pages") as progress:
            while left:
                try:
                    page = await service.store.runs(None, min(left, RUNS_AT_ONCE), after, only)
                except ThreadNotFound as error:
                    raise StartError(f"there is no thread {only.thread_id} in {service.store.name}") from error
                progress.add()
                if page.runs:
                    progress.clear()
                if page.runs and left == limit and not as_json:
                    print_row(COLUMNS, WIDTHS)
                for run in page.runs:
                    _print_run(run, as_json)
                left, after = left - len(page.runs), page.next
                if after is None:
                    break
        if left == limit:
            click.echo(f"there are no such runs in {service.store.name}", err=True)
        elif after is not None:
            click.echo("there may be more runs; raise --limit to see them", err=True)


def _print_run(run: ListedRun, as_json: bool) -> None:
    if as_json:
        print_json(run_item(run))
        return
    began, ended = run.started_at, run.finished_at
    seconds = None if began is None or ended is None else f"{(ended - began).total_seconds():.3f}"
    print_row((run.run_id, run.status, run.accepted_at, seconds, run.thread_id, run.contact_id), WIDTHS)


def show_run(configuration: Configuration, *, run_id: UUID, as_json: bool) -> None:
    """Print the state of a run. Raises `StartError` or `StoreUnusable` if that is not possible."""
    complete(_show(configuration, run_id, as_json))


async def _show(configuration: Configuration, run_id: UUID, as_json: bool) -> None:
    async with opened(configuration, to_write=False) as service:
        try:
            run = await service.store.run(run_id, None, None)
        except RunNotFound as error:
            raise _no_run(run_id, service.store.name) from error
    if as_json:
        print_json({**run_view(run), "contact_id": run.contact_id, "failure": run.failure})
    else:
        print_fields(_fields(run))


def _fields(run: StoredRun) -> dict[str, Any]:
    return {
        "run": run.run_id,
        "thread": run.thread_id,
        "contact": run.contact_id,
        "message": run.message_id,
        "status": run.status,
        "failure": run.failure,
        "error": run.error,
        "accepted": run.accepted_at,
        "started": run.started_at,
        "finished": run.finished_at,
        "events": None if run.status in OPEN else len(run.events),
    }


def cancel_run(configuration: Configuration, *, run_id: UUID) -> None:
    """Cancel a run in the store. A server that works on it stops it, if several processes can open the store.

    Raises `StartError` if the run cannot be cancelled, or `StoreUnusable`.
    """
    complete(_cancel(configuration, run_id), _BESIDE_A_SERVER)


async def _cancel(configuration: Configuration, run_id: UUID) -> None:
    async with opened(configuration, to_write=True) as service:
        settled = await service.store.cancel(run_id)
        where = service.store.name
    if settled.status is None:
        raise _no_run(run_id, where)
    if not settled.counted:
        raise StartError(f"the run {run_id} has ended: it is {settled.status}")
    click.echo(f"cancelled the run {run_id} in {where}")


def cancel_run_at(url: str, key: str | None, key_file: str | None, run_id: UUID) -> None:
    """Cancel a run through a server, with a key, or the one in a file.

    Raises `StartError` if the server refuses, or does not answer.
    """
    from jimsapi.client import Client, ClientError

    try:
        with Client(url, api_key=client_key(key, key_file), timeout=ANSWER_WITHIN, attempts=ATTEMPTS) as client:
            client.cancel(run_id)
    except (ClientError, ValueError) as error:
        raise StartError(f"{url}: {error}") from error
    click.echo(f"cancelled the run {run_id} at {url}")


def _no_run(run_id: UUID, store: str) -> StartError:
    return StartError(f"there is no run {run_id} in {store}")
