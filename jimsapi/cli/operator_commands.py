"""The commands for operators with their arguments: `runs`, `threads`, `sinks`, `store`, and `contacts list`.

What they do is imported when one is called, since a server needs none of it.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import click

from jimsapi.plugins.compose import Configuration
from jimsapi.runs.inbound import check_contact_id
from jimsapi.threads.errors import InputRefused
from jimsapi.threads.run import RunStatus

Resolve = Callable[[Mapping[str, Any]], Configuration]
"""Resolves the options of the server."""
Action = Callable[[dict[str, Any]], None]
Make = Callable[[str, Action, str, list[click.Parameter]], click.Command]
"""Makes a subcommand with arguments of its own, and the options of the server."""

_STATUS = click.Choice([status.value for status in RunStatus])
PREFIX = "wanted_"
"""How the keys of arguments begin that are not options of the server."""
_STATUS_TEXT = "The exit status is 0, 1 if it is not possible, and 2 for wrong usage."
_BESIDE = f"It works while a server has the store open, and changes nothing. {_STATUS_TEXT}"


def runs_commands(make: Make, resolve: Resolve) -> click.Group:
    """Return the group `runs`."""
    calls = partial(_calls, resolve)

    def cancel_run(given: dict[str, Any]) -> None:
        from jimsapi.cli.runs import cancel_run, cancel_run_at

        wanted = _taken(given)
        if wanted["url"]:
            key = next(iter(given["api_key"] or ()), None)
            cancel_run_at(wanted["url"], key, wanted["api_key_file"] or None, wanted["run_id"])
        else:
            cancel_run(resolve(given), run_id=wanted["run_id"])

    listing: list[click.Parameter] = [
        _option("--status", "statuses", type=_STATUS, multiple=True, help="Only runs with this status."),
        _option("--contact-id", callback=checked_contact, help="Only runs of this contact."),
        _option("--thread-id", type=click.UUID, help="Only runs of this thread."),
        _limit("runs"),
        _json("Print a JSON object for each run, one a line."),
    ]
    showing: list[click.Parameter] = [_argument("run_id", "RUN"), _json("Print a JSON object, with the result.")]
    cancelling: list[click.Parameter] = [
        _argument("run_id", "RUN"),
        _option("--url", help="Cancel it through the server at this URL, and not in the store."),
        _option("--api-key-file", metavar="FILE", help="With --url: the file with the key. [JIMS_API_KEY_FILE]"),
    ]
    group = click.Group("runs", help="List the runs of a store, show one, or cancel one.")
    group.add_command(make("list", calls("runs.list_runs"), f"List runs, newest first. {_BESIDE}", listing))
    group.add_command(make("show", calls("runs.show_run"), f"Show the state of a run. {_BESIDE}", showing))
    text = (
        "Cancel a run. On PostgreSQL, the server that works on it stops it. On SQLite, give the --url of the server "
        f"that has the database open. {_STATUS_TEXT}"
    )
    group.add_command(make("cancel", cancel_run, text, cancelling))
    return group


def threads_commands(make: Make, resolve: Resolve) -> click.Group:
    """Return the group `threads`."""
    calls = partial(_calls, resolve)

    file = click.Path(dir_okay=False, writable=True, path_type=Path)
    listing: list[click.Parameter] = [
        _argument("contact_id", "CONTACT", type=str, callback=checked_contact),
        _limit("threads"),
        _json("Print a JSON object for each thread, one a line."),
    ]
    showing: list[click.Parameter] = [
        _argument("thread_id", "THREAD"),
        _option("--events", type=click.IntRange(0), default=20, show_default=True, help="Show at most so many events."),
        _json("Print a JSON object."),
    ]
    exporting: list[click.Parameter] = [
        _argument("thread_id", "THREAD"),
        _option("--output", type=file, required=True, help="The file to write, such as thread.json."),
        _option("--force", is_flag=True, help="Replace the file if it exists."),
    ]
    deleting: list[click.Parameter] = [
        _argument("thread_id", "THREAD"),
        _option("--yes", is_flag=True, help="Do not ask for confirmation."),
    ]
    group = click.Group("threads", help="List the threads of a contact, and show, export or delete one.")
    text = f"List the threads of a contact, newest first. {_BESIDE}"
    group.add_command(make("list", calls("threads.list_threads"), text, listing))
    group.add_command(
        make("show", calls("threads.show_thread"), f"Show a thread and its newest events. {_BESIDE}", showing)
    )
    text = f"Write a thread with all events and ratings to a file, which `jimsapi replay` reads. {_BESIDE}"
    group.add_command(make("export", calls("threads.export_thread"), text, exporting))
    text = f"Delete a thread with its events, runs and ratings. This cannot be undone. {_STATUS_TEXT}"
    group.add_command(make("delete", calls("threads.delete_thread"), text, deleting))
    return group


def list_contacts_command(make: Make, resolve: Resolve) -> click.Command:
    """Return the command `contacts list`."""
    calls = partial(_calls, resolve)

    listing: list[click.Parameter] = [_limit("contacts"), _json("Print a JSON object for each contact, one a line.")]
    return make("list", calls("contact_list.list_contacts"), f"List the contacts that have threads. {_BESIDE}", listing)


def sinks_commands(make: Make, resolve: Resolve) -> click.Group:
    """Return the group `sinks`."""
    calls = partial(_calls, resolve)

    def decides(function: str) -> Action:
        """Return the action of a command for the dead letters that its arguments choose."""

        def act(given: dict[str, Any]) -> None:
            wanted = _taken(given)
            if bool(wanted["numbers"]) == wanted.pop("all"):
                raise click.UsageError("give the numbers of dead letters, or --all")
            _call(f"sinks.{function}", resolve(given), wanted)

        return act

    def sink() -> click.Argument:
        return _argument("sink", "SINK", type=str)

    def chosen() -> list[click.Parameter]:
        numbers = _argument("numbers", "[NUMBER]...", type=click.IntRange(1, 2**63 - 1), nargs=-1)
        return [sink(), numbers, _option("--all", is_flag=True, help="All of them.")]

    time = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"])
    since = _option(
        "--since", type=time, callback=_utc, required=True, help="The time, in UTC unless it has an offset."
    )
    beside = f"It works while a server has the store open. {_STATUS_TEXT}"
    group = click.Group("sinks", help="List the durable sinks, and decide about the events that they refused.")
    text = f"List the durable sinks: how many events wait for each, and for how long. {_BESIDE}"
    group.add_command(
        make("list", calls("sinks.list_sinks"), text, [_json("Print a JSON object for each sink, one a line.")])
    )
    listing = [sink(), _limit("dead letters"), _json("Print a JSON object for each dead letter, one a line.")]
    text = f"List the dead letters of a sink: the events that it refused, and why. {_BESIDE}"
    group.add_command(make("dead", calls("sinks.list_dead_letters"), text, listing))
    text = f"Let a sink receive dead letters once more: those with these numbers, or --all. {beside}"
    group.add_command(make("replay", decides("replay_dead_letters"), text, chosen()))
    text = f"Delete dead letters of a sink: those with these numbers, or --all. This cannot be undone. {beside}"
    group.add_command(make("drop", decides("drop_dead_letters"), text, chosen()))
    text = (
        "Let a sink read the events of all threads since a time, and then go on. It receives some events again. "
        f"{beside}"
    )
    new = _option(
        "--new", is_flag=True, help="Register a sink that was never configured yet; SQLite: without a server."
    )
    group.add_command(make("rewind", calls("sinks.rewind_sink"), text, [sink(), since, new]))
    text = f"Remove a sink that is no longer configured, and everything that waits for it. {beside}"
    removing = [sink(), _option("--yes", is_flag=True, help="Do not ask for confirmation.")]
    group.add_command(make("remove", calls("sinks.remove_sink"), text, removing))
    return group


def store_commands(make: Make, resolve: Resolve) -> click.Group:
    """Return the group `store`."""
    calls = partial(_calls, resolve)

    def place() -> click.Argument:
        return _argument("url", "[URL]", type=str, required=False)

    group = click.Group("store", help="Copy a store to another one; check, measure, vacuum or upgrade its database.")
    text = (
        "Copy everything of the store FROM to the store TO, such as sqlite:///a.db to postgresql://host/name, and "
        "compare the two. If it is interrupted, run it again: it adds what is missing. Stop the servers of both stores "
        "first. The exit status is 0 if the two are equal, 1 if they are not or cannot be copied, 2 for wrong usage."
    )
    copying: list[click.Parameter] = [_argument("source", "FROM", type=str), _argument("target", "TO", type=str)]
    group.add_command(make("copy", calls("store_copy.copy"), text, copying))
    of_server = "URL is a store as --store names it; without it, the command takes the one of the server."
    text = f"Look for faults in a database. {of_server} It works while servers run, and changes nothing. {_STATUS_TEXT}"
    group.add_command(make("check", calls("store_maintenance.check"), text, [place()]))
    text = f"Show how much a database has. {of_server} {_BESIDE}"
    group.add_command(make("stats", calls("store_maintenance.stats"), text, [place(), _json("Print a JSON object.")]))
    text = (
        f"Free the space of what was deleted, and show the bytes before and after. {of_server} On SQLite, the file "
        f"gets smaller, and no server may have it open. On PostgreSQL, new rows get the space. {_STATUS_TEXT}"
    )
    group.add_command(make("vacuum", calls("store_maintenance.vacuum"), text, [place()]))
    text = (
        f"Upgrade the tables of a database to this version of jimsapi. {of_server} No row of JIMS changes. On "
        f"PostgreSQL, servers may run meanwhile, also older ones. {_STATUS_TEXT}"
    )
    dry_run = _option(
        "--dry-run", is_flag=True, help="Print the statements that would be executed, and change nothing."
    )
    group.add_command(make("migrate", calls("store_maintenance.migrate"), text, [place(), dry_run]))
    return group


def _calls(resolve: Resolve, function: str) -> Action:
    """Return the action of a command: it calls a function of `jimsapi.cli` with the command's arguments."""

    def act(given: dict[str, Any]) -> None:
        wanted = _taken(given)
        _call(function, resolve(given), wanted)

    return act


def _call(function: str, configuration: Configuration, wanted: Mapping[str, Any]) -> None:
    resolve_name(f"jimsapi.cli.{function}")(configuration, **wanted)


def _taken(given: dict[str, Any]) -> dict[str, Any]:
    """Take the arguments of a command out of `given`, which then has only options of the server."""
    names = [name for name in given if name.startswith(PREFIX)]
    return {name.removeprefix(PREFIX): given.pop(name) for name in names}


def checked_contact(context: click.Context, parameter: click.Parameter, contact_id: str | None) -> str | None:
    """Return the value of a parameter. Raises `click.BadParameter` if it cannot be a contact."""
    try:
        if contact_id is not None:
            check_contact_id(contact_id)
    except InputRefused as error:
        raise click.BadParameter(f"this cannot be a contact: {error}", context, parameter) from None
    return contact_id


def _utc(context: click.Context, parameter: click.Parameter, time: datetime) -> datetime:
    return time.replace(tzinfo=time.tzinfo or UTC)


def _option(flag: str, name: str | None = None, **fields: Any) -> click.Option:
    return click.Option([flag, PREFIX + (name or flag.strip("-").replace("-", "_"))], **fields)


def _argument(name: str, metavar: str, **fields: Any) -> click.Argument:
    return click.Argument([PREFIX + name], metavar=metavar, **{"type": click.UUID, **fields})


def _limit(noun: str) -> click.Option:
    return _option(
        "--limit", type=click.IntRange(1), default=100, show_default=True, help=f"List at most so many {noun}."
    )


def _json(text: str) -> click.Option:
    return _option("--json", "as_json", is_flag=True, help=text)
