"""`jimsapi sinks`: how far the durable sinks are, and what becomes of the events that they refused."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from jimsapi.cli.opened_store import complete, opened
from jimsapi.cli.printing import print_json, print_row
from jimsapi.cli.progress import Progress
from jimsapi.plugins.compose import Configuration
from jimsapi.plugins.errors import StartError
from jimsapi.runs.service import RunService
from jimsapi.threads.outbox import MAX_SINK_NAME, DeadLetter, Outbox, SinkState

LETTERS_AT_ONCE = 1000
_BESIDE_A_SERVER = "; stop that server, or start it with the sink and repeat the command without --new"
COLUMNS = ("SINK", "WAITING", "SECONDS", "DEAD", "HISTORY SINCE", "PROCESS")
WIDTHS = (20, 8, 9, 6, 20, 0)
LETTER_COLUMNS = ("NUMBER", "FAILED", "AGAIN", "TYPE", "THREAD", "EVENT", "REASON")
LETTER_WIDTHS = (7, 20, 5, 24, 36, 36, 0)


def list_sinks(configuration: Configuration, *, as_json: bool) -> None:
    """Print the durable sinks. Raises `StartError` or `StoreUnusable` if that is not possible."""
    complete(_list(configuration, as_json))


async def _list(configuration: Configuration, as_json: bool) -> None:
    async with opened(configuration, to_write=False) as service:
        states = await _outbox(service).sinks()
        if not states:
            click.echo(f"no sink is registered in {service.store.name}", err=True)
        elif not as_json:
            print_row(COLUMNS, WIDTHS)
        for state in states:
            _print_sink(state, as_json)


def _print_sink(state: SinkState, as_json: bool) -> None:
    seconds = 0.0 if state.oldest is None else (datetime.now(UTC) - state.oldest).total_seconds()
    if as_json:
        print_json(
            {
                "name": state.name,
                "waiting": state.waiting,
                "lag_seconds": round(seconds, 3),
                "dead_letters": state.dead,
                "history_since": state.history,
                "process": state.owner,
                "held_until": state.held_until,
            }
        )
    else:
        row = (state.name, state.waiting, f"{seconds:.1f}", state.dead, state.history, state.owner)
        print_row(row, WIDTHS)


def list_dead_letters(configuration: Configuration, *, sink: str, limit: int, as_json: bool) -> None:
    """Print the events that a sink refused. Raises `StartError` or `StoreUnusable` if that is not possible."""
    complete(_list_dead(configuration, sink, limit, as_json))


async def _list_dead(configuration: Configuration, sink: str, limit: int, as_json: bool) -> None:
    async with opened(configuration, to_write=False) as service:
        outbox = await _outbox_with(service, sink)
        left, after = limit, 0
        with Progress("pages") as progress:
            while left:
                letters = await outbox.dead_letters(sink, min(left, LETTERS_AT_ONCE), after)
                progress.add()
                progress.clear()
                if not letters:
                    break
                if not after and not as_json:
                    print_row(LETTER_COLUMNS, LETTER_WIDTHS)
                for letter in letters:
                    _print_letter(letter, as_json)
                left, after = left - len(letters), letters[-1].number
        if not after:
            click.echo(f"the sink {sink} has no dead letters in {service.store.name}", err=True)
        elif not left and await outbox.dead_letters(sink, 1, after):
            click.echo("there are more dead letters; raise --limit to see them", err=True)


def _print_letter(letter: DeadLetter, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.structs.asdict(letter))
        return
    again = "yes" if letter.again else "no"
    what = (letter.event_type, letter.thread_id, letter.event_id, letter.reason)
    print_row((letter.number, letter.failed_at, again, *what), LETTER_WIDTHS)


def replay_dead_letters(configuration: Configuration, *, sink: str, numbers: Sequence[int]) -> None:
    """Let a sink receive dead letters again. Raises `StartError` or `StoreUnusable` if that is not possible."""
    complete(_choose(configuration, "replay", sink, numbers))


def drop_dead_letters(configuration: Configuration, *, sink: str, numbers: Sequence[int]) -> None:
    """Delete dead letters of a sink. Raises `StartError` or `StoreUnusable` if that is not possible."""
    complete(_choose(configuration, "drop", sink, numbers))


async def _choose(configuration: Configuration, method: str, sink: str, numbers: Sequence[int]) -> None:
    async with opened(configuration, to_write=False) as service:
        outbox = await _outbox_with(service, sink)
        count: int = await getattr(outbox, method)(sink, list(numbers) or None)
    if numbers and count < len(set(numbers)):
        raise StartError(
            f"the sink {sink} has only {count} of these dead letters; the others are unchanged: jimsapi sinks dead "
            f"{sink} lists them"
        )
    done = "will be delivered again" if method == "replay" else "are deleted"
    click.echo(f"{count} dead letters of the sink {sink} {done}")


def rewind_sink(configuration: Configuration, *, sink: str, since: datetime, new: bool) -> None:
    """Let a sink read all events since a time. If it is `new`, it is registered first.

    Raises `StartError` or `StoreUnusable` if that is not possible.
    """
    if new and len(sink) > MAX_SINK_NAME:
        raise StartError(f"the name of a sink has at most {MAX_SINK_NAME} characters")
    complete(_rewind(configuration, sink, since, new), _BESIDE_A_SERVER)


async def _rewind(configuration: Configuration, sink: str, since: datetime, new: bool) -> None:
    async with opened(configuration, to_write=new) as service:
        outbox = _outbox(service)
        if new:
            await outbox.register(sink)
        if not await outbox.rewind(sink, since):
            known = ", ".join(state.name for state in await outbox.sinks()) or "none"
            raise StartError(
                f"there is no sink {sink} in {service.store.name}, which has: {known}; for one that was never "
                "configured yet, add --new"
            )
    click.echo(f"the sink {sink} will receive all events since {since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")


def remove_sink(configuration: Configuration, *, sink: str, yes: bool) -> None:
    """Remove a sink with everything that waits for it. Raises `StartError` or `StoreUnusable` if it is not possible."""
    complete(_remove(configuration, sink, yes))


async def _remove(configuration: Configuration, sink: str, yes: bool) -> None:
    async with opened(configuration, to_write=False) as service:
        outbox = _outbox(service)
        state = await _state(service, outbox, sink)
        if state.owner is not None:
            raise StartError(
                f"a server works for the sink {sink}: stop it, or start it without the sink, and repeat the command "
                f"after {state.held_until:%H:%M:%S} UTC"
            )
        if not yes:
            waits = f"{state.waiting} events wait for it, and it has {state.dead} dead letters"
            click.confirm(f"Remove the sink {sink}? {waits}.", abort=True, err=True)
        await outbox.remove(sink)
    click.echo(f"removed the sink {sink}")


def _outbox(service: RunService) -> Outbox:
    outbox = service.store.outbox
    if outbox is None:
        raise StartError(f"{service.store.name} has no durable sinks: use another store")
    return outbox


async def _outbox_with(service: RunService, sink: str) -> Outbox:
    """Return the outbox. Raises `StartError` if the sink is not registered in it."""
    outbox = _outbox(service)
    await _state(service, outbox, sink)
    return outbox


async def _state(service: RunService, outbox: Outbox, sink: str) -> SinkState:
    states: dict[str, Any] = {state.name: state for state in await outbox.sinks()}
    if sink not in states:
        known = f"it has {', '.join(states)}" if states else "it has none"
        raise StartError(f"there is no sink {sink} in {service.store.name}; {known}")
    state: SinkState = states[sink]
    return state
