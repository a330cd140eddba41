"""What both bindings share: the responses of replies, and the keep-alive of those that take long."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import msgspec
import orjson

from jimsapi.asgi import EventStreamResponse, HTTPError, Request, Response, StreamingResponse
from jimsapi.runs import RunService
from jimsapi.threads import DomainError
from jimsapi.wire import data_event, with_run
from jimsapi_a2a.errors import A2AError, a2a_error
from jimsapi_a2a.replies import Reply

KEEP_ALIVE = 4.0
"""Seconds of silence after which a response gets a byte without meaning. The Python client gives up after 5."""


class Binding(msgspec.Struct, frozen=True):
    """How a binding encodes what methods return, in the answer to one request.

    - `content_type`: that of results.
    - `wrap` and `wrap_error` return a result and an error as JSON values.
    - `error_name`: the name of the event of an error in a stream; empty if it has none.
    - `has_statuses`: an error has an HTTP status of its own.
    """

    content_type: str
    wrap: Callable[[Any], Any]
    wrap_error: Callable[[A2AError], Any]
    error_name: bytes = b""
    has_statuses: bool = False


class WaitingResponse(StreamingResponse):
    """A JSON response whose body comes later. Until then it gets spaces, which JSON allows before a value."""

    __slots__ = ("keepalive",)

    ping = b" "

    def __init__(self, body: AsyncGenerator[bytes, None], content_type: str) -> None:
        super().__init__(body, content_type=content_type)
        self.keepalive: float | None = KEEP_ALIVE


class Encoder:
    """Makes the responses of one request."""

    def __init__(self, request: Request, service: RunService, binding: Binding) -> None:
        self._request = request
        self._service = service
        self._binding = binding

    def response(self, reply: Reply) -> Response:
        """Return the response for a reply."""
        response: Response
        if reply.events is not None:
            response = EventStreamResponse(self._events(reply.events), keepalive=KEEP_ALIVE)
        elif reply.later is not None:
            response = WaitingResponse(self._later(reply.later), self._binding.content_type)
        else:
            response = json_response(self._binding.wrap(reply.value), 200, self._binding.content_type)
        return response if reply.run is None else with_run(self._request, self._service, reply.run, response)

    def error(self, error: A2AError | HTTPError | DomainError) -> Response:
        """Return the response for an error of a method."""
        found = a2a_error(self._request, error)
        status = found.kind.status if self._binding.has_statuses else 200
        return with_headers(json_response(self._binding.wrap_error(found), status, self._binding.content_type), found)

    async def _later(self, value: Callable[[], Awaitable[Any]]) -> AsyncGenerator[bytes, None]:
        try:
            yield encode(self._binding.wrap(await value()))
        except (A2AError, DomainError, HTTPError) as error:
            if self._binding.has_statuses:  # the status was sent; a client sends the message again if the body is cut
                raise
            yield encode(self._binding.wrap_error(a2a_error(self._request, error)))

    async def _events(self, events: AsyncGenerator[Any, None]) -> AsyncGenerator[bytes, None]:
        async with aclosing(events):
            try:
                async for event in events:
                    yield data_event(self._binding.wrap(event))
            except (A2AError, DomainError, HTTPError) as error:
                name = self._binding.error_name
                head = b"event: %s\n" % name if name else b""
                yield head + data_event(self._binding.wrap_error(a2a_error(self._request, error)))


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
