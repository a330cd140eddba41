"""What a handler raises instead of answering."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

Fault = dict[str, Any]
"""One item of a 422 answer: `type`, `loc`, `msg`, `input` and sometimes `ctx`, as FastAPI's clients know it."""


class HTTPError(Exception):
    """An answer other than the hoped-for one: `{"detail": detail}` with this status.

    `status` is the HTTP status code, `detail` whatever JSON can hold (the status's phrase if left out), `headers` are
    added to the answer.
    """

    def __init__(self, status: int, detail: Any = None, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.detail = HTTPStatus(status).phrase if detail is None else detail
        self.headers = headers
        super().__init__(status, self.detail)

    def __str__(self) -> str:
        return f"{self.status} {self.detail}"


class ValidationError(HTTPError):
    """422: the body or the query is not what the route asks for. `faults` lists every fault found."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = list(faults)
        super().__init__(422, self.faults)


class ClientDisconnected(Exception):
    """The client hung up before its request was read or its answer was sent. Nobody is left to be answered."""


class WebSocketDisconnected(ClientDisconnected):
    """A WebSocket is closed, by whichever side, or its connection is gone. `code` and `reason` are those of the close
    (RFC 6455, 7.4): 1005 and 1006 say that the other side gave none."""

    def __init__(self, code: int, reason: str = "") -> None:
        self.code = code
        self.reason = reason
        super().__init__(code, reason)

    def __str__(self) -> str:
        return f"{self.code} {self.reason}".rstrip()
