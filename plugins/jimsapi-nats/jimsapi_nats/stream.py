"""What the event sink and the work queue share: each has a connection, and looks at its stream when it is entered."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from jimsapi_nats.connection import Connection, Servers


class StreamClient(ABC):
    """Publishes to `subject`, whose messages the stream `stream` keeps. `purpose` names the connection."""

    def __init__(self, servers: Servers, purpose: str, subject: str, stream: str) -> None:
        self._connection = Connection(servers, purpose)
        self._subject = subject
        self._stream = stream

    async def __aenter__(self) -> Self:
        """Connect, and look at the stream. Raises `StartError` if the server can be reached and the stream is unfit."""
        await self._connection.__aenter__()
        try:
            await self._check_stream()
        except BaseException:
            await self._connection.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._connection.__aexit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._subject!r})"

    @abstractmethod
    async def _check_stream(self) -> None:
        """Raise `StartError` if the server can be reached, and lacks the stream or has an unfit one."""


def receives(pattern: str, subject: str) -> bool:
    """Whether a stream with this subject, which may have wildcards, receives messages to another subject."""
    parts, words = pattern.split("."), subject.split(".")
    for number, part in enumerate(parts):
        if part == ">":
            return len(words) > number
        if number >= len(words) or part not in ("*", words[number]):
            return False
    return len(parts) == len(words)
