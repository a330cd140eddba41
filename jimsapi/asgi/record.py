"""What is told of a request once it is answered."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

CLIENT_GONE = 499
"""The status in the record of a request whose client left before the answer began."""
UNMATCHED = "unmatched"
"""The route in the record of a request that no route answers."""
OTHER_METHOD = "_OTHER"
"""The method in that record, if HTTP does not know the method: a metric must not have a label for each."""


class RequestRecord(msgspec.Struct, frozen=True, gc=False):
    """What observers are told of a request once it is answered.

    `method` is `_OTHER` for one that HTTP does not know, `route` the template (`unmatched` if there is none),
    `duration` in seconds up to the last byte handed to the server, `fields` what the handler noted for the log line.

    A WebSocket is told of once, at its end, with the method `WEBSOCKET`, the status 101 if its handshake was accepted,
    and how long it was open as `duration`.
    """

    method: str
    route: str
    path: str
    status: int
    duration: float
    request_id: str
    probe: bool
    fields: Mapping[str, Any]


Observer = Callable[[RequestRecord], None]
