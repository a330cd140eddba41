"""Errors that stop a start. Each message is one line: what is wrong, where, and what to do about it."""

import traceback


class StartError(Exception):
    """The server cannot start as configured. The message is for the operator and contains no secret."""

    exit_status = 1
    """With which status the command ends."""


class PluginError(StartError):
    """A plugin cannot be used. The message names the plugin and its distribution."""


class OptionError(StartError):
    """An option has an invalid value or an invalid declaration."""


def cause_text(error: BaseException) -> str:
    """Return the traceback of the exception that caused an error; empty if there is none. It may contain secrets."""
    cause = error.__cause__
    return "" if cause is None else "".join(traceback.format_exception(cause))
