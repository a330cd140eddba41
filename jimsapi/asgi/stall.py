"""For how long a client has read nothing."""

from time import monotonic

from .extension import ServerConnection


class Stall:
    """Since when the client has read nothing, while one `send` waits: `since`, by the clock `monotonic`. On a server
    that does not show whether the client reads, the `connection` is None: then since the `send` began."""

    __slots__ = ("_connection", "_unread", "began", "since")

    def __init__(self, connection: ServerConnection | None, began: float) -> None:
        self.began = began
        self.since = began
        self._connection = connection
        self._unread = 0
        if connection is not None:
            self._unread = connection.unread_bytes()
            self.since = monotonic()  # what the client read before is not known

    def update(self) -> None:
        """Look again. It has to be called several times within the time that matters."""
        if self._connection is None:
            return
        unread = self._connection.unread_bytes()
        if unread < self._unread:
            self.since = monotonic()
        self._unread = unread
