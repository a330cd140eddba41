"""Converts errors of PostgreSQL and asyncpg to domain errors. No error of asyncpg leaves this package."""

import asyncpg

from jimsapi.threads import DomainError, StoreUnavailable, StoreUnusable

_PRIVILEGE = "42501"
_READ_ONLY = "25006"
_LOST_CLASSES = ("08", "57P")
"""Beginnings of SQLSTATEs: connection exceptions, and a server that shuts down, has crashed or starts up."""
_REFUSED_CLASSES = ("22", "23", "54")
"""Beginnings of SQLSTATEs: the data cannot be stored, so a retry does not help."""

DAMAGED = "database damaged"
DENIED = "access denied"
DISK_FULL = "disk full"
_REASONS = {
    _PRIVILEGE: DENIED,
    _READ_ONLY: "read-only",
    "53100": DISK_FULL,
    "53200": "out of memory",
    "53300": "too many connections",
    "57P03": "starting or stopping",
    "XX001": DAMAGED,
    "XX002": DAMAGED,
    "28": DENIED,
    "3D": "database missing",
    "42": "tables or functions missing",
    "57P": "no connection",
    "08": "no connection",
}
"""The reasons that `/readyz` shows, by SQLSTATE or its beginning. The first that matches is used."""


class ConnectionLost(StoreUnavailable):
    """The connection was lost. It is unknown whether the server has done the work."""


class NotConnected(StoreUnavailable):
    """No connection could be opened. The server has done nothing."""


class DataRefused(RuntimeError):
    """PostgreSQL rejects the data. A retry does not help."""


def is_lost(error: BaseException) -> bool:
    """Whether the connection must be replaced: it is closed, does not answer, or its server became read-only (a
    failover)."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state.startswith(_LOST_CLASSES) or state == _READ_ONLY
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(error, ValueError)
    return isinstance(error, OSError | EOFError | asyncpg.InternalClientError)  # TimeoutError is an OSError


def as_domain_error(error: Exception) -> Exception:
    """Return the error that callers of the store get for an error of asyncpg, of the network or of PostgreSQL."""
    if isinstance(error, DomainError):
        return error
    if is_lost(error):
        return ConnectionLost(f"PostgreSQL: {reason(error)}", public_reason(error))
    if isinstance(error, asyncpg.PostgresError):
        if (error.sqlstate or "").startswith(_REFUSED_CLASSES):
            return DataRefused(f"PostgreSQL: {reason(error)}")
        return StoreUnavailable(f"PostgreSQL: {reason(error)}", public_reason(error))
    if isinstance(error, asyncpg.InterfaceError):  # asyncpg could not encode a value
        return DataRefused(f"PostgreSQL: {type(error).__name__}: a value cannot be encoded")
    return error


def as_unusable(name: str, error: Exception) -> StoreUnusable:
    """Return the error for a store that cannot be opened, with the reason and a remedy. `name` is the database."""
    if isinstance(error, StoreUnusable):
        return error
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return StoreUnusable(
            f"{name}: {reason(error)}; run `jimsapi db upgrade --store …` with a role that may create tables, and "
            "grant the role of --store SELECT, INSERT, UPDATE and DELETE on them"
        )
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return StoreUnusable(f"{name}: {reason(error)}; check user and password")
    return StoreUnusable(
        f"{name}: cannot be used ({reason(error)}); check that PostgreSQL is running and that --store is right"
    )


def public_reason(error: BaseException) -> str:
    """Return the `reason` of a `StoreUnavailable`: a few words without names of servers, databases or roles."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return next((text for beginning, text in _REASONS.items() if state.startswith(beginning)), "")
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "read-only"
    return "no connection" if is_lost(error) else ""


def reason(error: BaseException) -> str:
    """Return one line for the log. It omits PostgreSQL's details and hints, which may quote stored data."""
    if isinstance(error, DomainError):
        return str(error)
    if isinstance(error, asyncpg.PostgresError):
        return f"{error.args[0] if error.args else type(error).__name__} ({error.sqlstate})"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "no server that accepts writes was found"
    return f"{type(error).__name__}: {error}".replace("\n", " ")
