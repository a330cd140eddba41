"""Conversion of the errors of SQLite to domain errors."""

import sqlite3

from jimsapi.threads.errors import StoreUnavailable

DAMAGED = "database damaged"
"""The reason of a `StoreUnavailable` that is permanent: a part of the database cannot be read."""


def save_what_can_be_read(path: str = "FILE") -> str:
    """Return the instructions for the operator of a damaged database."""
    return (
        f"stop the server, and save what can be read: sqlite3 {path} .recover | sqlite3 saved.db; then remove "
        f"{path}-wal and {path}-shm, and put saved.db in its place, or restore a backup in the same way"
    )


_REASONS = {
    sqlite3.SQLITE_BUSY: "locked by another program",
    sqlite3.SQLITE_LOCKED: "locked by another program",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_INTERRUPT: "",
    sqlite3.SQLITE_IOERR: "disk error",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_FULL: "disk full",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_PROTOCOL: "locked by another program",
    sqlite3.SQLITE_NOTADB: DAMAGED,
}
_ADVICE = {
    "locked by another program": "; stop the program that keeps a transaction open",
    "read-only": "; check that the file system is mounted for writing",
    "disk error": "; check the disk, and the quota of the user that the server runs as",
    "disk full": "; make room on the disk of the database",
    "cannot be opened": "; check the permissions of the folder, and how many files the server may open",
    DAMAGED: f"; {save_what_can_be_read()}",
}


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code (https://www.sqlite.org/rescode.html); 0 if Python raised the error."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def as_domain_error(error: Exception) -> Exception:
    """Return the error for the caller of a failed operation: `StoreUnavailable` if the database failed."""
    if _is_undecodable(error):
        # The error's own text quotes stored text.
        unavailable = StoreUnavailable(f"SQLite: a text in the database is not UTF-8{_ADVICE[DAMAGED]}", DAMAGED)
    elif isinstance(error, sqlite3.Error) and (reason := _REASONS.get(primary_code(error))) is not None:
        unavailable = StoreUnavailable(f"SQLite: {error} ({error.sqlite_errorname}){_ADVICE.get(reason, '')}", reason)
    else:
        return error
    unavailable.__cause__ = error
    return unavailable


def as_unavailable(failure: Exception) -> StoreUnavailable:
    """Return the error of a failed transaction. Each operation needs its own: sharing one would mix tracebacks."""
    error = as_domain_error(failure)
    if isinstance(error, StoreUnavailable):
        unavailable = StoreUnavailable(*error.args)
    else:
        unavailable = StoreUnavailable(f"SQLite: {failure}")
    unavailable.__cause__ = failure.__cause__ if isinstance(failure, StoreUnavailable) else failure
    return unavailable


def one_line(error: Exception) -> str:
    """Return the text of an error of SQLite. If the database is damaged, the text may not be UTF-8."""
    return "its schema is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error).replace("\n", " ")


def _is_undecodable(error: Exception) -> bool:
    """Return whether Python could not decode a text of SQLite, from a row or from an error that quotes the schema."""
    if isinstance(error, sqlite3.OperationalError):
        return primary_code(error) == 0 and str(error).startswith("Could not decode to UTF-8")
    return isinstance(error, UnicodeDecodeError)
