"""The locks that keep an SQLite database to one process."""

import errno
import fcntl
import glob
import logging
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jimsapi.threads.errors import StoreUnavailable, StoreUnusable

logger = logging.getLogger("jimsapi.store")

# The bytes of a database that every open connection of SQLite keeps a shared lock on.
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510
# A byte far behind them, and behind the end of any database.
_OUR_BYTE = 1 << 62
_HELD_BY_ANOTHER = (errno.EAGAIN, errno.EACCES)

Identity = tuple[int, int]
"""Device and inode of a file."""

_locked_here: set[Identity] = set()
_locking = threading.Lock()


class DatabaseLock:
    """Locks `<path>.lock`, and where the system can, a byte of the database itself.

    The lock file works everywhere; but somebody may remove it, and under another name (a hard link) the database has
    another one. The lock in the database has neither weakness. It is an open file description lock (Linux; the file
    system has to know it): independent of the locks of SQLite, which other programs may take beside it. The system
    drops both when the process ends, however it ends.

    POSIX drops all locks of a process on a file as soon as the process closes any descriptor of that file, those of
    SQLite as well: so the database's descriptor is closed only after SQLite's connections are.

    Raises:
        StoreUnusable: another process, or another store of this one, has the database open; or a file cannot be made.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        with _locking:
            if identify(path) in _locked_here:
                raise StoreUnusable(_held_message(path, os.getpid()))
            self._lock_file = _lock_file(path)
            try:
                self.database = _lock_database(path)
            except BaseException:
                os.close(self._lock_file)
                raise
            self._identity = _identity(os.fstat(self.database))
            _locked_here.add(self._identity)

    def release(self) -> None:
        """Unlock. Close SQLite's connections before."""
        with _locking:
            _locked_here.discard(self._identity)
            os.close(self.database)
            os.close(self._lock_file)

    def keep(self) -> None:
        """Make the lock file again if it was removed. Raises `StoreUnavailable` if another process has done so."""
        if identify(f"{self._path}.lock") == _identity(os.fstat(self._lock_file)):
            return
        try:
            replaced, self._lock_file = self._lock_file, _lock_file(self._path)
        except StoreUnusable as error:
            raise StoreUnavailable(f"SQLite: {error}", "locked by another program") from error
        os.close(replaced)
        logger.warning("%s.lock was removed; it is made again", self._path)

    def protect_log(self) -> None:
        """Keep SQLite from moving and removing the log when it closes the last connection.

        It would remove the file that has the log's name by then, which another program may have written. It does so
        only if it gets the database for itself, which a shared lock on its own bytes prevents.
        """
        with suppress(OSError):
            _lock_bytes(self.database, fcntl.F_RDLCK, _SHARED_FIRST, _SHARED_SIZE)

    @contextmanager
    def without_others(self) -> Iterator[None]:
        """Keep other programs from opening the database. Raises `OSError` if one has it open.

        This process's SQLite holds the shared lock on the same bytes, and goes on with that afterwards.
        """
        fcntl.lockf(self.database, fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
        try:
            yield
        finally:
            fcntl.lockf(self.database, fcntl.LOCK_SH | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)


def identify(path: str) -> Identity | None:
    """Device and inode of a file; None if there is none, or it cannot be reached."""
    try:
        return _identity(os.stat(path))
    except OSError:
        return None


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino


def _lock_file(path: str) -> int:
    try:
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreUnusable(
            f"{path}: its lock file cannot be made ({error.strerror}); check the permissions of the folder "
            f"{os.path.dirname(path)}, or name another file with --store"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 20, 0).strip()
        os.close(descriptor)
        raise StoreUnusable(_held_message(path, int(holder) if holder.isdigit() else None)) from error
    with suppress(OSError):  # a full disk; the lock is held all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _lock_database(path: str) -> int:
    """Open the database, and lock it if the system can. A new one, and what SQLite puts beside it, is private."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreUnusable(
            f"{path}: cannot be opened for reading and writing ({error.strerror}); check the permissions of the file "
            f"and of its folder {os.path.dirname(path)}, in which SQLite keeps two more files"
        ) from error
    try:
        _lock_bytes(descriptor, fcntl.F_WRLCK, _OUR_BYTE, 1)
    except OSError as error:
        if error.errno in _HELD_BY_ANOTHER:
            holder = _process_that_locks(_identity(os.fstat(descriptor)))
            os.close(descriptor)
            raise StoreUnusable(_held_message(path, holder)) from error
    return descriptor


def _lock_bytes(descriptor: int, kind: int, start: int, size: int) -> None:
    """Take an open file description lock, where the system has them (not on macOS). Raises `OSError`."""
    if hasattr(fcntl, "F_OFD_SETLK"):
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi", kind, os.SEEK_SET, start, size, 0))


def _process_that_locks(database: Identity) -> int | None:
    """The process that has a lock of ours on a database, if this user may see it."""
    for info in glob.iglob("/proc/[0-9]*/fdinfo/*"):
        _, _, process, _, descriptor = info.split("/")
        with suppress(OSError):
            if identify(f"/proc/{process}/fd/{descriptor}") == database and "OFDLCK" in Path(info).read_text():
                return int(process)
    return None


def _held_message(path: str, process: int | None) -> str:
    holder = "another process" if process is None else f"process {process}"
    return (
        f"cannot open {path}: it is locked by {holder}; stop that server, or use PostgreSQL (--store postgresql://…) "
        "for several processes"
    )
