"""What both bindings share: the responses of replies, and the keep-alive of those that take long."""

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import orjson

from jimsapi.asgi import EventStreamResponse, HTTPError, Request, Response, StreamingResponse
from jimsapi.runs import RunService
from jimsapi.threads import DomainError
from jimsapi.wire import data_event, with_run
from jimsapi_a2a.errors import A2AError, a2a_error
from jimsapi_a2a.replies import Reply

KEEP_ALIVE = 4.0
"""Seconds of silence after which a response gets a byte without meaning. The Python client gives up after 5."""

Wrap = Callable[[Any], Any]
"""Returns a result in the form of a binding."""
WrapError = Callable[[A2AError], bytes]
"""Returns an error of a stream, as an event, in the form of a binding."""


class WaitingResponse(StreamingResponse):
    """A JSON response whose body comes later. Until then it gets spaces, which JSON allows before a value."""

    __slots__ = ("keepalive",)

    ping = b" "

    def __init__(self, body: AsyncGenerator[bytes, None], content_type: str) -> None:
        super().__init__(body, content_type=content_type)
        self.keepalive: float | None = KEEP_ALIVE


class Encoder:
    """Makes responses of replies. `wrap` and `wrap_error` are a binding's, and `content_type` is that of results."""

    def __init__(self, request: Request, service: RunService, content_type: str) -> None:
        self._request = request
        self._service = service
        self._content_type = content_type

    def response(self, reply: Reply, wrap: Wrap, wrap_error: WrapError) -> Response:
        """Return the response for a reply."""
        response: Response
        if reply.events is not None:
            events = self._events(reply.events, wrap, wrap_error)
            response = EventStreamResponse(events, keepalive=KEEP_ALIVE)
        elif reply.later is not None:
            response = WaitingResponse(self._later(reply.later, wrap), self._content_type)
        else:
            response = json_response(wrap(reply.value), 200, self._content_type)
        return response if reply.run is None else with_run(self._request, self._service, reply.run, response)

    async def _later(self, value: Coroutine[Any, Any, Any], wrap: Wrap) -> AsyncGenerator[bytes, None]:
        yield encode(wrap(await value))

    async def _events(
        self, events: AsyncGenerator[Any, None], wrap: Wrap, wrap_error: WrapError
    ) -> AsyncGenerator[bytes, None]:
        async with aclosing(events):
            try:
                async for event in events:
                    yield data_event(wrap(event))
            except (A2AError, DomainError, HTTPError) as error:
                yield wrap_error(a2a_error(self._request, error))


def encode(value: Any) -> bytes:
    """Return a value as JSON."""
    return orjson.dumps(value)


def json_response(value: Any, status: int, content_type: str) -> Response:
    """Return a response with a JSON value."""
    return Response(encode(value), status, content_type=content_type)


def with_headers(response: Response, error: A2AError) -> Response:
    """Add the headers of an error to its response."""
    response.raw_headers += error.headers
    response.names_connection = response.names_connection or any(name == b"connection" for name, _ in error.headers)
    return response
