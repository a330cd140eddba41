"""The locks that prevent two processes from opening an SQLite database."""

import errno
import fcntl
import glob
import logging
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

from jimsapi.threads.errors import StoreUnavailable, StoreUnusable

logger = logging.getLogger("jimsapi.store")

# Every open connection of SQLite keeps a shared lock on these bytes of a database.
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510
# A byte far after them, and after the end of any database.
_LOCK_BYTE = 1 << 62
_LOCKED_BY_ANOTHER = (errno.EAGAIN, errno.EACCES)

Identity = tuple[int, int]
"""Device and inode of a file."""

_locked_here: set[Identity] = set()
_locking = threading.Lock()


class LockedByAnother(StoreUnusable):
    """The database is open in another process, or in another store of this process."""


class _Record(NamedTuple):
    """The content of a lock file: the process that locked it last, and its database. None: unknown."""

    process: int | None = None
    host: str | None = None
    database: int | None = None
    """The inode of the database. The device is omitted, since a volume may have another one after the next mount."""

    @classmethod
    def read(cls, lock_file: int) -> Self:
        words = os.pread(lock_file, 400, 0).decode(errors="replace").split()
        process = int(words[0]) if words and words[0].isdigit() else None
        if len(words) != 3 or not words[2].isdigit():
            return cls(process)
        return cls(process, words[1], int(words[2]))

    def write(self, lock_file: int) -> None:
        with suppress(OSError):  # the disk is full; the process has the lock nevertheless
            os.ftruncate(lock_file, 0)
            os.pwrite(lock_file, f"{self.process} {self.host} {self.database}\n".encode(), 0)
            os.fsync(lock_file)  # otherwise, after a power cut, an old inode would make the log look foreign


class DatabaseLock:
    """Locks the file `<path>.lock` and, if the system supports it, a byte of the database.

    The lock file works on every system. But users may remove it, and a hard link to the database has another lock file.
    The lock in the database has neither weakness. It is an open file description lock (Linux; the file system must
    support it), which is independent of the locks of SQLite. The system releases both locks when the process ends.

    If a process closes any descriptor of a file, POSIX releases all locks of the process on that file, including those
    of SQLite. So the database's descriptor is closed only after SQLite's connections.

    The lock file stores the inode of the database. If a killed process left a log, and another file now has the name of
    the database (such as a restored backup), SQLite would apply the log to that file. So the server does not start.

    Raises:
        LockedByAnother: the database is open in another process, or in another store of this process.
        StoreUnusable: a file cannot be created, the log belongs to another file, or the database has several names.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        with _locking:
            if identify(path) in _locked_here:
                raise LockedByAnother(_locked_message(path, f"process {os.getpid()}"))
            self._lock_file = _lock_file(path)
            try:
                _refuse_foreign_log(path, _Record.read(self._lock_file))
                self.database = _lock_database(path)
            except BaseException:
                os.close(self._lock_file)
                raise
            self._identity = _identity(os.fstat(self.database))
            _locked_here.add(self._identity)
            self._write_record()

    def release(self) -> None:
        """Release the locks. Close SQLite's connections first."""
        with _locking:
            _locked_here.discard(self._identity)
            os.close(self.database)
            os.close(self._lock_file)

    def restore(self) -> None:
        """Create the lock file again if it was removed.

        Raises `StoreUnavailable` if another process has created and locked it, or if it cannot be created.
        """
        if identify(f"{self._path}.lock") == _identity(os.fstat(self._lock_file)):
            return
        try:
            replaced, self._lock_file = self._lock_file, _lock_file(self._path)
        except LockedByAnother as error:
            raise StoreUnavailable(f"SQLite: {error}", "locked by another program") from error
        except StoreUnusable as error:
            raise StoreUnavailable(f"SQLite: {error}", "lock file cannot be made") from error
        os.close(replaced)
        self._write_record()
        logger.warning("%s.lock was removed; it is made again", self._path)

    def _write_record(self) -> None:
        _Record(os.getpid(), socket.gethostname(), self._identity[1]).write(self._lock_file)

    def protect_log(self) -> None:
        """Prevent SQLite from checkpointing and removing the log when it closes the last connection.

        SQLite would remove the file that then has the log's name, which may be another program's. It does so only if it
        gets an exclusive lock on the database, which a shared lock on the same bytes prevents.
        """
        with suppress(OSError):
            _lock_bytes(self.database, fcntl.F_RDLCK, _SHARED_FIRST, _SHARED_SIZE)

    @contextmanager
    def without_others(self) -> Iterator[None]:
        """Prevent other programs from opening the database during the `with` block.

        Raises `OSError` if one has it open. SQLite in this process keeps its shared lock on the same bytes afterwards.
        """
        fcntl.lockf(self.database, fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
        try:
            yield
        finally:
            fcntl.lockf(self.database, fcntl.LOCK_SH | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)


def refuse_lock(path: str) -> None:
    """Raise `StoreUnusable` if the lock file, or a log that belongs to another file, would prevent a start."""
    lock_file = f"{path}.lock"
    if os.path.isdir(lock_file):
        raise _no_lock_file(path, errno.EISDIR)
    if not os.path.exists(lock_file):
        _refuse_foreign_log(path, _Record())
        return
    if not os.access(lock_file, os.R_OK | os.W_OK):
        raise _no_lock_file(path, errno.EACCES)
    with open(lock_file, "rb") as file:
        _refuse_foreign_log(path, _Record.read(file.fileno()))


def identify(path: str) -> Identity | None:
    """Return the device and inode of a file; None if it does not exist or is not accessible."""
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
        raise _no_lock_file(path, error.errno) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = _Record.read(descriptor)
        os.close(descriptor)
        raise LockedByAnother(_locked_message(path, _holder(holder))) from error
    return descriptor


def _no_lock_file(path: str, code: int | None) -> StoreUnusable:
    lock_file = f"{path}.lock"
    faulty_path = lock_file if os.path.lexists(lock_file) else f"the folder {os.path.dirname(path)}"
    return StoreUnusable(
        f"{path}: its lock file cannot be made or written ({os.strerror(code or errno.EIO)}); check the permissions of "
        f"{faulty_path}, or name another file with --store"
    )


def _refuse_foreign_log(path: str, record: _Record) -> None:
    """Raise `StoreUnusable` if there is a log that belongs to another database file, or a log without a database.

    SQLite would apply the first to the wrong file, and would remove the second.
    """
    log = f"{path}-wal"
    try:
        if os.path.getsize(log) == 0:
            return
    except OSError:
        return
    database = identify(path)
    if database is None:
        raise StoreUnusable(
            f"{path}: does not exist, but its write-ahead log {log} does; put the database back, or remove {log} and "
            f"{path}-shm to begin a new one or to put a backup in place"
        )
    if record.database not in (None, database[1]):
        raise StoreUnusable(
            f"{path}: its write-ahead log {log} belongs to another file that had this name and would damage this; "
            f"if this is a backup, remove {log} and {path}-shm; if the database and its log were copied here together, "
            f"remove {path}.lock"
        )


def _lock_database(path: str) -> int:
    """Open the database, and lock it if the system supports it. A new one is readable only by its user."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreUnusable(
            f"{path}: cannot be opened for reading and writing ({error.strerror}); check the permissions of the file "
            f"and of its folder {os.path.dirname(path)}, in which SQLite keeps two more files"
        ) from error
    try:
        _lock_bytes(descriptor, fcntl.F_WRLCK, _LOCK_BYTE, 1)
    except OSError as error:
        if error.errno in _LOCKED_BY_ANOTHER:
            process = _process_that_locks(_identity(os.fstat(descriptor)))
            os.close(descriptor)
            raise LockedByAnother(_locked_message(path, _holder(_Record(process)))) from error
    try:
        refuse_hard_links(path)
        if os.fstat(descriptor).st_size == 0:
            _sync_folder(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _sync_folder(path: str) -> None:
    """Make the name of a new database durable before SQLite creates the log, since a log without one stops a start."""
    with suppress(OSError):
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def refuse_hard_links(path: str) -> None:
    """Raise `StoreUnusable` if the database has several names: SQLite keeps a log for each name."""
    names = os.stat(path).st_nlink
    if names > 1:
        raise StoreUnusable(
            f"{path}: this file has {names} names (hard links), and SQLite would keep a separate log for each, so that "
            f"messages would be lost; stop what uses it, and remove every name (find / -xdev -samefile {path}) except "
            "the one that has a -wal file beside it"
        )


def _lock_bytes(descriptor: int, kind: int, start: int, size: int) -> None:
    """Set an open file description lock if the system supports it (macOS does not). Raises `OSError`."""
    if hasattr(fcntl, "F_OFD_SETLK"):
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi", kind, os.SEEK_SET, start, size, 0))


def _process_that_locks(database: Identity) -> int | None:
    """Return the process that has jimsapi's lock on a database; None if this user may not see it."""
    for info in glob.iglob("/proc/[0-9]*/fdinfo/*"):
        _, _, process, _, descriptor = info.split("/")
        with suppress(OSError):
            if identify(f"/proc/{process}/fd/{descriptor}") == database and "OFDLCK" in Path(info).read_text():
                return int(process)
    return None


def _holder(record: _Record) -> str:
    if record.process is None:
        return "another process"
    if record.host in (None, socket.gethostname()):
        return f"process {record.process}"
    return f"process {record.process} of the host or container {record.host}"


def _locked_message(path: str, holder: str) -> str:
    return (
        f"cannot open {path}: it is locked by {holder}; stop that server, or use PostgreSQL (--store postgresql://…) "
        "for several processes"
    )
