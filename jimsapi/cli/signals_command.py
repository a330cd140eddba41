"""The commands `jimsapi dump` and `jimsapi log-level`, which send a signal to a server on this machine."""

import os
import re
from pathlib import Path

import click

from jimsapi.plugins.errors import StartError
from jimsapi.server.signals import DETAILS_AS_CONFIGURED, DETAILS_ON, number_of

_LEVELS = {"debug": DETAILS_ON, "configured": DETAILS_AS_CONFIGURED}
_PID = click.Option(["--pid"], type=click.IntRange(min=1), required=True, help="The process number of the server.")


def dump_command() -> click.Command:
    """Return the command `dump`. It does not import plugins."""
    return click.Command(
        "dump",
        callback=_dump,
        params=[_PID],
        help="Let a running server write what it works on to its log: runs, tasks with their stacks, queues, open "
        "streams, and limits in use. The stacks of its threads follow on its standard error. Nothing is stopped.",
    )


def log_level_command() -> click.Command:
    """Return the command `log-level`. It does not import plugins."""
    return click.Command(
        "log-level",
        callback=_set_log_level,
        params=[click.Argument(["level"], type=click.Choice(list(_LEVELS))), _PID],
        help="Change how much a running server logs: `debug` adds the details of --verbose, and `configured` is what "
        "it was started with.",
    )


def _dump(pid: int) -> None:
    _send("SIGUSR1", pid)
    click.echo(f"Process {pid} was told to write its state to its log, in lines with SIGUSR1.")


def _set_log_level(level: str, pid: int) -> None:
    _send(_LEVELS[level], pid)
    click.echo(f"Process {pid} was told to change the level; a line in its log says so.")


def _send(name: str, pid: int) -> None:
    """Send a signal to a process. Raises `StartError` if the process does not handle it: the signal might end it."""
    number = number_of(name)
    if number is None:
        raise StartError(f"this system has no {name}; send SIGUSR2 to process {pid}, which changes to the other level")
    handled, ignored = _handled_by(pid, name)
    bit = 1 << number - 1
    if ignored & bit:
        raise StartError(
            f"process {pid} ignores the signal: it has not started yet, or it is the parent of a --reload; give the "
            "number of the process that serves"
        )
    if not handled & bit:
        raise StartError(f"process {pid} does not handle the signal: it is not a server of jimsapi")
    try:
        os.kill(pid, number)
    except PermissionError:
        raise StartError(f"you may not signal process {pid}: run this as its user, or as root") from None
    except ProcessLookupError:
        raise _no_process(pid) from None


def _handled_by(pid: int, name: str) -> tuple[int, int]:
    """Return the signals that a process handles and those that it ignores, as sets of bits (proc_pid_status(5))."""
    if not Path("/proc/self/status").is_file():
        shown = name.removeprefix("SIG")
        raise StartError(f"this system has no /proc, which this command reads; use: kill -{shown} {pid}")
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        raise _no_process(pid) from None
    handled, ignored = (re.search(rf"^{field}:\s*([0-9a-f]+)$", status, re.MULTILINE) for field in ("SigCgt", "SigIgn"))
    if handled is None or ignored is None:
        raise StartError(f"/proc/{pid}/status does not show which signals the process handles")
    return int(handled[1], 16), int(ignored[1], 16)


def _no_process(pid: int) -> StartError:
    return StartError(f"there is no process {pid}; `pgrep --full jimsapi` finds the servers of this machine")
