"""`jimsapi contacts`: write everything that the stores hold of one contact to an archive, or delete it."""

import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self

import click
import msgspec

from jimsapi.api.app import VERSION
from jimsapi.cli.contact_archive import Contact, Counts, FilesLeftOut
from jimsapi.cli.opened_store import complete, opened
from jimsapi.cli.operator_commands import checked_contact
from jimsapi.cli.output_file import new_file, refuse_existing
from jimsapi.cli.progress import Progress
from jimsapi.plugins.compose import Configuration
from jimsapi.plugins.errors import StartError
from jimsapi.runs.service import RunService
from jimsapi.threads.errors import StoredFileNotFound, ThreadNotFound

_BESIDE_A_SERVER = (
    "; while that server runs, it deletes a contact itself: DELETE /api/v1/contacts?contact_id=… with a key that has "
    "the scope threads"
)


class Wanted(msgspec.Struct, frozen=True):
    """The arguments of both commands. `output` is None for a deletion.

    The command line has None in place of empty texts and flags that are not given, so every field has a default. The
    empty text is a contact like any other.
    """

    contact_id: str = ""
    without_files: bool = False
    output: Path | None = None
    force: bool = False
    yes: bool = False

    @classmethod
    def take_from(cls, given: dict[str, Any]) -> Self:
        """Take the arguments of the command out of `given`, which then has only options of the server."""
        taken = {name: given.pop(f"contacts_{name}", None) for name in cls.__struct_fields__}
        return cls(**{name: value for name, value in taken.items() if value is not None})


def export_arguments() -> list[click.Parameter]:
    """Return the arguments of `contacts export`, without the options of the server."""
    output = click.Path(dir_okay=False, writable=True, path_type=Path)
    return [
        *_arguments(),
        click.Option(
            ["--output", "contacts_output"], type=output, required=True, help="The archive to write, such as ann.zip."
        ),
        click.Option(["--force", "contacts_force"], is_flag=True, help="Replace the file if it exists."),
    ]


def delete_arguments() -> list[click.Parameter]:
    """Return the arguments of `contacts delete`, without the options of the server."""
    return [*_arguments(), click.Option(["--yes", "contacts_yes"], is_flag=True, help="Do not ask for confirmation.")]


def _arguments() -> list[click.Parameter]:
    return [
        click.Argument(["contacts_contact_id"], metavar="CONTACT", callback=checked_contact),
        click.Option(
            ["--without-files", "contacts_without_files"],
            is_flag=True,
            help="Continue although messages have files and the command has no file store to find them in.",
        ),
    ]


def export(configuration: Configuration, wanted: Wanted) -> None:
    """Write the archive of a contact. Raises `StartError` or `StoreUnusable` if that is not possible."""
    assert wanted.output is not None
    refuse_existing(wanted.output, force=wanted.force)
    _run(_export(configuration, wanted, wanted.output))


async def _export(configuration: Configuration, wanted: Wanted, output: Path) -> None:
    async with opened(configuration, to_write=False, needs_files=True) as service:
        counts = await _write(_contact(service, wanted), wanted, output, service.store.name)
    kinds = {"thread": counts.threads, "event": counts.events, "rating": counts.feedback}
    numbers = ", ".join(_number(count, noun) for noun, count in kinds.items())
    click.echo(f"{output}: {numbers}, {_files(counts)} of the contact {wanted.contact_id!r}")


async def _write(contact: Contact, wanted: Wanted, output: Path, store: str) -> Counts:
    with new_file(output, force=wanted.force) as file, Progress("lines") as progress:
        counts = await contact.write(file, VERSION, without_files=wanted.without_files, on_line=progress.add)
        if not counts:
            raise _nothing(wanted.contact_id, store)
    return counts


def delete(configuration: Configuration, wanted: Wanted) -> None:
    """Delete everything of a contact. Raises `StartError` or `StoreUnusable` if that is not possible."""
    if not wanted.yes and not sys.stdin.isatty():
        raise click.UsageError("This cannot be undone: give --yes, since there is no terminal to ask on.")
    _run(_delete(configuration, wanted))


async def _delete(configuration: Configuration, wanted: Wanted) -> None:
    async with opened(configuration, to_write=True, needs_files=True) as service:
        contact = _contact(service, wanted)
        counts = await contact.count()
        where = service.store.name
        if not counts:
            await service.store.delete_contact(wanted.contact_id)  # what the counts do not show
            click.echo(f"there is nothing of the contact {wanted.contact_id!r} in {where}")
            return
        if not wanted.without_files:
            await contact.check_files()
        what = f"{_number(counts.threads, 'thread')} and {_files(counts)} of the contact {wanted.contact_id!r}"
        if not wanted.yes:
            click.confirm(f"Delete {what} from {where}? This cannot be undone.", abort=True)
        await service.store.delete_contact(wanted.contact_id)
    click.echo(f"deleted {what} from {where}")


def _contact(service: RunService, wanted: Wanted) -> Contact:
    files = None if service.files is None else service.files.store
    return Contact(wanted.contact_id, service.store, files)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Do the work, and turn what may go wrong into errors for the operator."""
    try:
        complete(work, _BESIDE_A_SERVER)
    except (ThreadNotFound, StoredFileNotFound) as error:
        raise StartError(
            "a part of the contact was deleted while it was read; run the command again for what is left"
        ) from error
    except FilesLeftOut as error:
        raise StartError(
            "messages of this contact have files, and the command has no file store: name it as for the server "
            "(--files-store, with jimsapi-files installed), or leave the files where they are with --without-files"
        ) from error


def _nothing(contact_id: str, store: str) -> StartError:
    return StartError(f"there is nothing of the contact {contact_id!r} in {store}")


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _files(counts: Counts) -> str:
    return f"{_number(counts.files, 'file')} ({counts.file_bytes} bytes)"
