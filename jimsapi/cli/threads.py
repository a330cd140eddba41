"""`jimsapi threads`: list the threads of a contact, and show, export or delete one."""

import sys
from datetime import UTC
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import click
import orjson

from jimsapi.api.feedback import feedback_item
from jimsapi.api.threads import event_item, thread_item
from jimsapi.cli.contact_archive import thread_json
from jimsapi.cli.opened_store import complete, opened
from jimsapi.cli.output_file import new_file, refuse_existing
from jimsapi.cli.printing import print_fields, print_json, print_row
from jimsapi.cli.progress import Progress
from jimsapi.plugins.compose import Configuration
from jimsapi.plugins.errors import StartError
from jimsapi.runs.conversation import all_events
from jimsapi.threads.errors import ThreadNotFound
from jimsapi.threads.event import EventRow, row_id, row_time
from jimsapi.threads.facts import ThreadSummary
from jimsapi.threads.run import EventRecord, ThreadPage, ThreadRecord
from jimsapi.threads.storable import load_stored, stored_json
from jimsapi.threads.store import ThreadStore

THREADS_AT_ONCE = 25
"""The threads whose first and newest messages are in memory at once. Each may have a mebibyte."""
COLUMNS = ("THREAD", "CREATED", "ACTIVE", "ARCHIVED", "TITLE")
WIDTHS = (36, 20, 20, 20, 0)

EVENT_WIDTHS = (20, 30, 0)

_BESIDE_A_SERVER = (
    "; while that server runs, it deletes a thread itself: DELETE /api/v1/threads/{id} with a key that has the scope "
    "threads"
)


def list_threads(configuration: Configuration, *, contact_id: str, limit: int, as_json: bool) -> None:
    """Print the threads of a contact, newest first. Raises `StartError` or `StoreUnusable` if it cannot."""
    complete(_list(configuration, contact_id, limit, as_json))


async def _list(configuration: Configuration, contact_id: str, limit: int, as_json: bool) -> None:
    async with opened(configuration, to_write=False) as service:
        left, after = limit, None
        while left:
            page: ThreadPage = await service.store.threads(contact_id, min(left, THREADS_AT_ONCE), after)
            if page.threads and left == limit and not as_json:
                print_row(COLUMNS, WIDTHS)
            for thread, summary in zip(page.threads, await _summaries(service.store, page.threads), strict=True):
                _print_thread(thread_item(thread, summary), thread, summary, as_json)
            left, after = left - len(page.threads), page.next
            if after is None:
                break
        if left == limit:
            click.echo(f"there are no threads of the contact {contact_id!r} in {service.store.name}", err=True)
        elif after is not None:
            click.echo("there are more threads; raise --limit to see them", err=True)


async def _summaries(store: ThreadStore, threads: list[ThreadRecord]) -> list[ThreadSummary]:
    return await store.summaries([thread.thread_id for thread in threads])


def _print_thread(item: dict[str, Any], thread: ThreadRecord, summary: ThreadSummary, as_json: bool) -> None:
    if as_json:
        print_json(item)
        return
    times = thread.created_at, summary.active_at, summary.facts.archived_at
    print_row((thread.thread_id, *times, item["title"]), WIDTHS)


def show_thread(configuration: Configuration, *, thread_id: UUID, events: int, as_json: bool) -> None:
    """Print a thread and its newest events. Raises `StartError` or `StoreUnusable` if it cannot."""
    complete(_show(configuration, thread_id, events, as_json))


async def _show(configuration: Configuration, thread_id: UUID, count: int, as_json: bool) -> None:
    async with opened(configuration, to_write=False) as service:
        thread = await _find(service.store, thread_id)
        [summary] = await _summaries(service.store, [thread])
        events = [_record(row) for row in await service.store.load_events(thread_id, None, count)]
    item = thread_item(thread, summary)
    if as_json:
        print_json({**item, "events": [event_item(event) for event in events]})
        return
    texts = {name: orjson.dumps(item[name]).decode() for name in ("thread_config", "metadata")}
    parent = summary.facts.parent
    print_fields(
        {
            "thread": thread.thread_id,
            "contact": thread.contact_id,
            "title": item["title"],
            "created": thread.created_at,
            "active": summary.active_at,
            "archived": summary.facts.archived_at,
            "config": texts["thread_config"],
            "metadata": texts["metadata"],
            "parent": None if parent is None else parent.thread_id,
            "forks": summary.forks,
            "questions": summary.questions,
        }
    )
    for event in events:
        print_row((event.created_at, event.event_type, _text(event)), EVENT_WIDTHS)


def _text(event: EventRecord) -> str:
    """Return the text of a message, or the data of another event as JSON."""
    data = None if event.event_data is None else load_stored(event.event_data)
    if event.event_type.startswith("comm.") and isinstance(data, dict) and isinstance(data.get("content"), str):
        return str(data["content"])
    return "-" if event.event_data is None else orjson.dumps(stored_json(event.event_data)).decode()


def _record(row: EventRow) -> EventRecord:
    return EventRecord(row_id(row), row_time(row).replace(tzinfo=UTC), row.event_type, row.data)


def export_thread(configuration: Configuration, *, thread_id: UUID, output: Path, force: bool) -> None:
    """Write a thread to a file, which `jimsapi replay` reads. Raises `StartError` or `StoreUnusable` if it cannot."""
    refuse_existing(output, force=force)
    complete(_export(configuration, thread_id, output, force))


async def _export(configuration: Configuration, thread_id: UUID, output: Path, force: bool) -> None:
    async with opened(configuration, to_write=False) as service:
        thread = await _find(service.store, thread_id)
        try:
            with new_file(output, force=force) as file:
                count = await _write(file, service.store, thread)
        except ThreadNotFound as error:
            raise StartError(f"the thread {thread_id} was deleted while it was read") from error
    click.echo(f"{output}: {count} {'event' if count == 1 else 'events'} of the thread {thread_id}")


async def _write(file: IO[bytes], store: ThreadStore, thread: ThreadRecord) -> int:
    """Write a JSON object with an event on each line. Returns the number of events."""
    [summary] = await _summaries(store, [thread])
    head = {"contact_id": thread.contact_id, **thread_json(thread, summary)}
    feedback = await store.feedback(thread.thread_id, None)
    rest = {"feedback": [feedback_item(given) for given in feedback], "next": None}
    count = 0
    file.write(orjson.dumps(head)[:-1] + b',"events":[')
    with Progress("events") as progress:
        async for event in all_events(store, thread.thread_id):
            file.write((b",\n" if count else b"\n") + orjson.dumps(event_item(event)))
            count += 1
            progress.add()
    file.write(b"\n]," + orjson.dumps(rest)[1:] + b"\n")
    return count


def delete_thread(configuration: Configuration, *, thread_id: UUID, yes: bool) -> None:
    """Delete a thread with its events and runs. Raises `StartError` or `StoreUnusable` if it cannot."""
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("This cannot be undone: give --yes, since there is no terminal to ask on.")
    complete(_delete(configuration, thread_id, yes), _BESIDE_A_SERVER)


async def _delete(configuration: Configuration, thread_id: UUID, yes: bool) -> None:
    async with opened(configuration, to_write=True) as service:
        thread = await _find(service.store, thread_id)
        what = f"the thread {thread_id} of the contact {thread.contact_id!r}"
        if not yes:
            click.confirm(f"Delete {what} from {service.store.name}? This cannot be undone.", abort=True)
        try:
            await service.store.delete_thread(thread_id, None)
        except ThreadNotFound as error:
            raise _no_thread(thread_id, service.store.name) from error
        where = service.store.name
    click.echo(f"deleted {what} from {where}")


async def _find(store: ThreadStore, thread_id: UUID) -> ThreadRecord:
    try:
        return await store.thread(thread_id, None)
    except ThreadNotFound as error:
        raise _no_thread(thread_id, store.name) from error


def _no_thread(thread_id: UUID, store: str) -> StartError:
    return StartError(f"there is no thread {thread_id} in {store}")
