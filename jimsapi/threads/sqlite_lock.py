"""The lock that keeps an SQLite database to one process."""

import fcntl
import os
from typing import Self

from jimsapi.threads.errors import StoreUnusable


class FileLock:
    """Holds `<database>.lock` while open. The system drops it when the process ends, however it ends.

    Raises:
        StoreUnusable: another process holds it, or the file cannot be made.
    """

    def __init__(self, database: str) -> None:
        try:
            self._descriptor = os.open(f"{database}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreUnusable(
                f"{database}: its lock file cannot be made ({error.strerror}); check the permissions of the folder "
                f"{os.path.dirname(database)}, or name another file with --store"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise StoreUnusable(
                f"{database}: another process or app has it open; stop that one, or use PostgreSQL "
                "(--store postgresql://…) to serve from several"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let the next process in."""
        os.close(self._descriptor)
