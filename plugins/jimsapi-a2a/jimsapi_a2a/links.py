"""The URLs of this server as other agents reach it."""

from jimsapi.asgi import Connection


class Links:
    """Makes absolute URLs: below `base` if it is given, else by the host of the request."""

    def __init__(self, base: str | None) -> None:
        self._base = None if base is None else base.rstrip("/")

    def url(self, request: Connection | None, path: str) -> str:
        """Return the URL of a path of this app. `path` begins with a slash.

        Without a request and without a `base`, it is the path, which the receiver resolves against the agent's URL.
        """
        if self._base is not None:
            return f"{self._base}{path}"
        return path if request is None else request.public_url(path)
