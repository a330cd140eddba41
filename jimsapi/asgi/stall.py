"""Measures for how long a client has read nothing."""

from time import monotonic

from .extension import ServerConnection


class Stall:
    """Measures during one `send` since when the client has read nothing.

    `since` is that time, by the clock `monotonic` in seconds. If the server does not show whether the client reads,
    `connection` is None, and `since` is the time at which the `send` began.
    """

    __slots__ = ("_connection", "_unread", "began", "since")

    def __init__(self, connection: ServerConnection | None, began: float) -> None:
        self.began = began
        self.since = began
        self._connection = connection
        self._unread = 0
        if connection is not None:
            self._unread = connection.unread_bytes()
            self.since = monotonic()  # whether the client has read anything before is unknown

    def update(self) -> None:
        """Measure again. Callers have to call it several times within their timeout."""
        if self._connection is None:
            return
        unread = self._connection.unread_bytes()
        if unread < self._unread:
            self.since = monotonic()
        self._unread = unread
