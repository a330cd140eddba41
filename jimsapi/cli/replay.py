"""`jimsapi replay`: answers stored turns again with another app, writes nothing, and shows what differs."""

import asyncio
import io
import logging
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn, Self
from uuid import UUID

import click
import msgspec

from jimsapi.api.app import run_service
from jimsapi.cli.check import missing_store
from jimsapi.cli.options import LogOptions
from jimsapi.plugins.compose import Composer, Configuration
from jimsapi.plugins.core import CoreOptions
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.lifespans import Lifespans
from jimsapi.plugins.manager import at
from jimsapi.runs.conversation import Conversation, InvalidConversation, Turn
from jimsapi.runs.replay import ReplayedTurn, Replayer
from jimsapi.stores.sqlite.lock import LockedByAnother
from jimsapi.threads.errors import StoreUnavailable, ThreadNotFound
from jimsapi.threads.store import ThreadStore

SAME, CHANGED, FAILED = 0, 1, 2
"""The exit statuses: no turn has changed; a turn has changed; the replay cannot run. `diff` has the same ones."""

WRAPPERS = ("jimsapi_pipeline_wrapper", "jimsapi_store_wrapper")
"""The hooks of which a replay enters the objects. It needs no auth providers, and no sink may get an event."""

THREADS_AT_ONCE = 100

_BESIDE_A_SERVER = (
    "; to replay beside the server, replay a backup of the database (sqlite3 jims.db '.backup copy.db'), or a file "
    "with an answer of GET /api/v1/threads/ID/events?limit=1000"
)


class ReplayFailed(StartError):
    """The turns cannot be replayed. The exit status is `FAILED`, since 1 says that a turn has changed."""

    exit_status = FAILED


class Wanted(msgspec.Struct, frozen=True):
    """The arguments of the command: what to replay, and where to write."""

    names: tuple[str, ...]
    contact_id: str | None
    most_turns: int | None
    ignore: tuple[str, ...]
    html: Path | None
    save: Path | None

    @classmethod
    def take_from(cls, given: dict[str, Any]) -> Self:
        """Take the arguments of this command out of `given`, which then has only options of the app.

        Raises `click.UsageError` for arguments that do not fit together.
        """
        wanted = cls(
            tuple(given.pop("replay_names") or ()),
            given.pop("replay_contact"),
            given.pop("replay_turns"),
            tuple(given.pop("replay_ignore") or ()),
            given.pop("replay_html"),
            given.pop("replay_save"),
        )
        if not wanted.names and wanted.contact_id is None:
            raise click.UsageError("Name a thread by its identifier, a file of a conversation, or --contact-id.")
        if wanted.save is not None and (len(wanted.names) != 1 or wanted.contact_id is not None):
            raise click.UsageError("--save writes one conversation: name one thread, and no --contact-id.")
        return wanted

    @property
    def needs_store(self) -> bool:
        """Whether a conversation comes from the store. If not, the store is not opened."""
        return self.contact_id is not None or any(_thread_id(name) is not None for name in self.names)


def replay_arguments() -> list[click.Parameter]:
    """Return the arguments of the command, without the options of the app."""
    file = click.Path(dir_okay=False, writable=True, path_type=Path)
    return [
        click.Argument(["replay_names"], nargs=-1, metavar="[THREAD]..."),
        click.Option(["--contact-id", "replay_contact"], help="Replay the threads of this contact, the newest first."),
        click.Option(
            ["--turns", "replay_turns"],
            type=click.IntRange(min=1),
            help="Replay at most this number of turns: the newest ones of the first threads.",
        ),
        click.Option(
            ["--ignore", "replay_ignore"],
            multiple=True,
            metavar="TYPE",
            help="Do not compare events of this type, such as model.reasoning or 'rag.*'.",
        ),
        click.Option(["--html", "replay_html"], type=file, callback=_in_a_folder, help="Write a page with the result."),
        click.Option(
            ["--save", "replay_save"],
            type=file,
            callback=_in_a_folder,
            help="Write the stored conversation to a file, for tests and for later replays.",
        ),
    ]


def replay(configuration: Configuration, wanted: Wanted) -> int:
    """Replay the turns, print the result, and return the exit status.

    Raises `StartError` or `StoreUnusable` if the app or the store cannot be opened, and `ReplayFailed` if the turns
    cannot be read or a file cannot be written.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the encoding of a terminal may lack the arrow
    if configuration.settings.get(LogOptions).verbose:
        logging.getLogger("jimsapi").addHandler(logging.StreamHandler(sys.stderr))
        logging.getLogger("jimsapi.replay").setLevel(logging.DEBUG)
    try:
        return asyncio.run(_replay(configuration, wanted))
    except LockedByAnother as error:
        raise ReplayFailed(f"{error}{_BESIDE_A_SERVER}") from error
    except (StoreUnavailable, InvalidConversation) as error:
        raise ReplayFailed(str(error)) from error
    except SystemExit as error:  # it would end the command with its own status
        raise ReplayFailed(f"a plugin called sys.exit(){at(error)}") from error


async def _replay(configuration: Configuration, wanted: Wanted) -> int:
    from jimsapi.cli.replay_html import page  # imported here, since the start of a server does not need it
    from jimsapi.cli.replay_text import turn_line

    colour = _has_colours()
    turns: list[ReplayedTurn] = []
    async with _opened(configuration, wanted) as (store, replayer):
        chosen = await _choose(_conversations(store, wanted), wanted.most_turns)
        if not chosen:
            raise ReplayFailed("there is nothing to replay: these conversations have no message of a user")
        if wanted.save is not None:
            _write_file(wanted.save, chosen[0][0].dump())
        for conversation, turn in chosen:
            turns.append(await replayer.replay(conversation, turn))
            click.echo(turn_line(turns[-1], colour=colour), color=colour)
    _show_differences(turns, colour)
    if wanted.html is not None:
        _write_file(wanted.html, page(turns, configuration.settings.get(CoreOptions).app).encode())
    status = CHANGED if any(turn.changed for turn in turns) else SAME
    if replayer.abandoned:
        _exit_at_once(status)
    return status


@asynccontextmanager
async def _opened(configuration: Configuration, wanted: Wanted) -> AsyncIterator[tuple[ThreadStore, Replayer]]:
    """Open the app, the plugins that wrap its pipeline, and the store if it is needed. Close them afterwards."""
    composer = Composer(configuration)
    composition = await composer.build()
    if wanted.needs_store and missing_store(composition.store) is not None:
        name = composition.store.name
        raise ReplayFailed(f"there is no database {name}: give the --store that has the threads")
    lifespans = Lifespans()
    try:
        composition = await composer.enter(composition, lifespans, store=wanted.needs_store, hooks=WRAPPERS)
        service = run_service(composition)  # it is not started: it has the store, the pipeline and the limits
        yield (
            service.store,
            Replayer(
                service.app.pipeline,
                limits=service.limits,
                resources=composition.resources,
                disclosure=service.disclosure,
                ignore=wanted.ignore,
            ),
        )
    finally:
        await lifespans.leave()


async def _choose(conversations: AsyncIterator[Conversation], most: int | None) -> list[tuple[Conversation, Turn]]:
    """Return the turns to replay, and their conversations. `most` is the highest number of turns."""
    chosen: list[tuple[Conversation, Turn]] = []
    async for conversation in conversations:
        turns = conversation.turns()
        newest = turns if most is None else turns[-(most - len(chosen)) :]
        chosen += [(conversation, turn) for turn in newest]
        if len(chosen) == most:
            break
    return chosen


async def _conversations(store: ThreadStore, wanted: Wanted) -> AsyncIterator[Conversation]:
    """Read the conversations one after another. Raises `ReplayFailed` if there is no such thread, contact or file."""
    for name in wanted.names:
        thread_id = _thread_id(name)
        yield _load_from_file(name) if thread_id is None else await _read_from_store(store, thread_id)
    if wanted.contact_id is None:
        return
    after: str | None = None
    while True:
        found = await store.threads(wanted.contact_id, THREADS_AT_ONCE, after)
        if not found.threads and after is None:
            raise ReplayFailed(f"the contact {wanted.contact_id!r} has no threads in {store.name}")
        for thread in found.threads:
            yield await _read_from_store(store, thread.thread_id)
        after = found.next
        if after is None:
            return


def _thread_id(name: str) -> UUID | None:
    """Return the identifier of a thread that an argument is; None if it names a file."""
    try:
        return UUID(name)
    except ValueError:
        return None


async def _read_from_store(store: ThreadStore, thread_id: UUID) -> Conversation:
    try:
        return await Conversation.read(store, thread_id)
    except ThreadNotFound as error:
        raise ReplayFailed(f"there is no thread {thread_id} in {store.name}") from error


def _load_from_file(path: str) -> Conversation:
    try:
        return Conversation.load(path)
    except OSError as error:
        raise ReplayFailed(
            f"{path} is not the identifier of a thread, and as a file it cannot be read: {error.strerror}"
        ) from error


def _write_file(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ReplayFailed(f"{path} cannot be written: {error.strerror}") from error


def _show_differences(turns: Sequence[ReplayedTurn], colour: bool) -> None:
    from jimsapi.cli.replay_text import difference_lines, summary_lines

    for turn in turns:
        if turn.changed:
            click.echo()
            for line in difference_lines(turn, colour=colour):
                click.echo(line, color=colour)
    click.echo()
    for line in summary_lines(turns):
        click.echo(line)


def _has_colours() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def _in_a_folder(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Check before the replay, which may take long, that a file can be written."""
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"there is no folder {path.parent}", context, parameter)
    return path


def _exit_at_once(status: int) -> NoReturn:
    """End the process. Closing the event loop would wait forever for a pipeline that ignores its cancellation."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
