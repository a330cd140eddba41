"""The record of an answered request, which observers receive."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

CLIENT_GONE = 499
"""The status in the record of a request whose client disconnected before the response began."""
UNMATCHED = "unmatched"
"""The route in the record of a request without a route."""
OTHER_METHOD = "_OTHER"
"""The method in the record if it is not one of HTTP's. A metric must not have a label for each invented method."""


class RequestRecord(msgspec.Struct, frozen=True, gc=False):
    """The record that observers receive after a request is answered.

    - `method`: the HTTP method, or `_OTHER` for methods that are not HTTP's.
    - `route`: the path template of the route, or `unmatched` without one.
    - `duration`: seconds until the last byte was passed to the server.
    - `fields`: the fields that the handler noted for the log line, and those that `App.describe_request` has added.

    A WebSocket has one record, at its end. Its method is `WEBSOCKET`, its status is 101 if the handshake was accepted,
    and its duration is how long it was open.
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
