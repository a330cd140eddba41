"""Checks that an open SQLite database still writes to the files that the next program will open.

If a file of the database is removed, replaced or renamed, SQLite continues to write to it and reports success. If the
write-ahead log (`-wal`) is removed, everything that was committed since the last checkpoint is lost when the process
ends. So the files are checked before every commit.

The check must be cheap. If an entry of a folder changes, the change time of the folder (`st_ctime`) changes, too. So
the entries are checked only if that time is new. Programs such as `rsync -a` set the modification time back, but no
program can set the change time.
"""

import logging
import os
import sqlite3
import time

from jimsapi.stores.sqlite.errors import DAMAGED, save_what_can_be_read
from jimsapi.stores.sqlite.lock import DatabaseLock, Identity, identify
from jimsapi.threads.errors import StoreUnavailable

logger = logging.getLogger("jimsapi.store")

LOG_REMOVED = "write-ahead log removed"
"""The reason of a `StoreUnavailable` until a removed log is rescued."""
SETTLED = 3_000_000_000
"""Nanoseconds after which a folder's change time is trusted: two changes within one tick of the file system's
clock, which is 2 seconds at the coarsest, have the same time."""
TICK = 20_000_000
"""Nanoseconds that are longer than a tick of the clock of nearly every file system. Until `SETTLED`, the entries are
checked once per `TICK`, for the few file systems with longer ticks."""
SHORT_FOR = 1.0
"""Seconds for which a database that is too short must stay unchanged before it counts as damaged. While another program
checkpoints, the first page may have the new size before the other pages are written."""
CHECK_AGAIN_AFTER = 0.02
"""Seconds between two checks of a database that is too short."""

_LOG_SUFFIXES = ("-wal", "-shm")
_Shortage = tuple[int, int]
"""The size in bytes of a database that is too short, and the size that its first page has."""


class DatabaseFiles:
    """Checks the files of an open database, and rescues the content of a removed log.

    Create it after SQLite has opened the database and its log. Only the thread that uses the writer's connection may
    call its methods.
    """

    def __init__(self, path: str, lock: DatabaseLock) -> None:
        self._path = path
        self._folder = os.path.dirname(path)
        self._lock = lock
        self._database = identify(path)
        self._log = self._identify_log()
        self._settled_at = 0
        self._checked_change = 0
        self._checked_at = 0
        self._size = 0
        self._cut: _Shortage | None = None
        self.log_is_lost = False
        """Whether SQLite writes to a log, or an index of the log, whose name was removed or replaced."""

    def check(self) -> None:
        """Raise `StoreUnavailable` if a commit would not reach the files with the names of the database."""
        size = self._check_database()
        if size < self._size and (shortage := self._shortage(size)) is not None:
            raise self._shortage_error(shortage)
        self._size = size
        folder_changed_at = os.stat(self._folder).st_ctime_ns
        if folder_changed_at != self._settled_at and not self._is_checked(folder_changed_at):
            now = time.time_ns()
            self._check_entries()
            self._checked_change, self._checked_at = folder_changed_at, now
            if now - folder_changed_at > SETTLED:
                self._settled_at = folder_changed_at

    def wait_while_short(self) -> None:
        """Wait until the database has the size that its first page has, or was too short for `SHORT_FOR` seconds.

        If it is still too short, `check` reports it as damaged. Raises `StoreUnavailable` if it was removed.
        """
        seen: _Shortage | None = None
        seen_at = 0.0
        while (size := self._check_database()) < self._size:
            shortage = self._shortage(size)
            if shortage is None or shortage == self._cut:
                return
            if shortage != seen:
                seen, seen_at = shortage, time.monotonic()
            elif time.monotonic() - seen_at > SHORT_FOR:
                self._cut = shortage
                return
            time.sleep(CHECK_AGAIN_AFTER)

    def rescue(self, connection: sqlite3.Connection) -> None:
        """Move the content of a removed log into the database, and begin a new log.

        No other connection of this process may be open.

        Raises:
            StoreUnavailable: another program has the database open and may use the removed log or a new one. Retry
                later; nothing is lost as long as this process runs. If another program has written to a new log, the
                two logs cannot be merged, and every call raises.
        """
        self._check_database()
        if self._identify_log() == self._log:  # another program has restored the log
            self.log_is_lost = False
            return
        try:
            with self._lock.without_others():
                self._refuse_second_log()
                _move_log(connection)
                for mode in ("DELETE", "WAL"):  # the first mode closes and removes the log
                    connection.execute(f"PRAGMA journal_mode = {mode}").fetchone()
                connection.execute("SELECT version FROM jimsapi_schema").fetchone()  # creates the new log
        except OSError as error:
            if identify(f"{self._path}-wal") is None:  # other programs use the removed log
                _move_log(connection)
            raise StoreUnavailable(
                f"{self._log_message()}; the server continues when no other program has {self._path} open: "
                "stop them, and do not restart the server before that",
                LOG_REMOVED,
            ) from error
        self._log = self._identify_log()
        self.log_is_lost = False

    def put_orphaned_log_aside(self) -> None:
        """Rename the log if another file has the database's name now, since SQLite would apply the log to that file.

        Call it after SQLite has closed the database.
        """
        if identify(self._path) in (None, self._database):
            return
        now = time.strftime("%Y%m%d-%H%M%S")
        for suffix, identity in zip(_LOG_SUFFIXES, self._log, strict=True):
            name = self._path + suffix
            if identity is not None and identify(name) == identity:
                renamed = f"{name}.orphan-{now}"
                os.rename(name, renamed)
                logger.warning(
                    "%s was replaced; %s belongs to the former file and is now %s", self._path, name, renamed
                )

    def _identify_log(self) -> list[Identity | None]:
        return [identify(self._path + suffix) for suffix in _LOG_SUFFIXES]

    def _is_checked(self, folder_changed_at: int) -> bool:
        """Return whether the entries were checked less than a tick ago, and more than a tick after the last change."""
        if folder_changed_at != self._checked_change or self._checked_at <= folder_changed_at + TICK:
            return False
        return self._checked_at <= time.time_ns() < self._checked_at + TICK

    def _check_entries(self) -> None:
        self.log_is_lost = self._identify_log() != self._log
        if self.log_is_lost:
            raise StoreUnavailable(self._log_message(), LOG_REMOVED)
        self._lock.restore()

    def _log_message(self) -> str:
        return f"SQLite: {self._path}-wal or -shm was removed or replaced while the server uses it"

    def _check_database(self) -> int:
        """Return the size of the database. Raises `StoreUnavailable` if the file was removed or replaced."""
        try:
            found = os.stat(self._path)
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._database:
            raise StoreUnavailable(
                f"SQLite: {self._path} was removed or replaced; put it back, or restart the server; before you "
                f"put a backup in its place, stop the server and remove {self._path}-wal and {self._path}-shm",
                "database file removed or replaced",
            )
        return found.st_size

    def _refuse_second_log(self) -> None:
        path = f"{self._path}-wal"
        if identify(path) not in (None, self._log[0]) and os.path.getsize(path) > 0:
            raise StoreUnavailable(
                f"{self._log_message()}, and another program has written to a new one: restart the server to "
                "continue with what that program wrote, or restore a backup",
                LOG_REMOVED,
            )

    def _shortage(self, size: int) -> _Shortage | None:
        """Return both sizes if the database is shorter than its first page says, which VACUUM does not cause."""
        header = os.pread(self._lock.database, 32, 0)
        page_size = int.from_bytes(header[16:18], "big")
        expected = int.from_bytes(header[28:32], "big") * (65536 if page_size == 1 else page_size)
        return (size, expected) if len(header) < 32 or size < expected else None

    def _shortage_error(self, shortage: _Shortage) -> StoreUnavailable:
        size, expected = shortage
        if shortage == self._cut:
            return StoreUnavailable(
                f"SQLite: {self._path} was cut to {size} bytes; {save_what_can_be_read(self._path)}", DAMAGED
            )
        return StoreUnavailable(
            f"SQLite: {self._path} has {size} of {expected} bytes while another program moves its log; "
            "the server continues after that",
            "locked by another program",
        )


def _move_log(connection: sqlite3.Connection) -> None:
    """Checkpoint the whole log. Raises `StoreUnavailable`, or SQLite's error if the disk is full."""
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
    if busy:
        raise StoreUnavailable("SQLite: another program prevents a checkpoint of the write-ahead log", LOG_REMOVED)
