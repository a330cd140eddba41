"""The exceptions that a handler raises or may catch."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

Fault = dict[str, Any]
"""One item of a 422 response: `type`, `loc`, `msg`, `input` and sometimes `ctx`, in FastAPI's format."""


class HTTPError(Exception):
    """Raised by a handler to answer with an error: `{"detail": detail}` with this status.

    `status` is the HTTP status code. `detail` is any JSON value; its default is the status's phrase. `headers` are
    added to the response. Raises `ValueError` if an answer cannot have the status.
    """

    def __init__(self, status: int, detail: Any = None, headers: Mapping[str, str] | None = None) -> None:
        if not isinstance(status, int) or not 200 <= status <= 999:
            raise ValueError(f"HTTPError cannot answer with the status {status!r}: give one such as 404 or 503.")
        self.status = status
        self.detail = HTTPStatus(status).phrase if detail is None else detail
        self.headers = headers
        super().__init__(status, self.detail)

    def __str__(self) -> str:
        return f"{self.status} {self.detail}"


class ValidationError(HTTPError):
    """422: the body or the query does not fit the route's model. `faults` lists every fault that was found."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = list(faults)
        super().__init__(422, self.faults)


class ClientDisconnected(Exception):
    """The client disconnected before its request was read or its response was sent. No response can be sent."""


class WebSocketDisconnected(ClientDisconnected):
    """A WebSocket was closed, by either side, or its connection was lost.

    `code` and `reason` are those of the close frame (RFC 6455, 7.4). The codes 1005 and 1006 mean that the other side
    sent none.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        self.code = code
        self.reason = reason
        super().__init__(code, reason)

    def __str__(self) -> str:
        return f"{self.code} {self.reason}".rstrip()
