"""The URLs of this server as other agents reach it."""

from jimsapi.asgi import Connection


class Links:
    """Makes absolute URLs: below `base` if it is given, else by the host of the request."""

    def __init__(self, base: str | None) -> None:
        self._base = None if base is None else base.rstrip("/")

    def url(self, request: Connection, path: str) -> str:
        """Return the URL of a path of this app. `path` begins with a slash."""
        return request.public_url(path) if self._base is None else f"{self._base}{path}"
