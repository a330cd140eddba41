"""The microframework: an ASGI app that handles a request in one function. It does not depend on chat or plugins."""

from .app import App
from .connection import Connection, Request, request_id
from .errors import ClientDisconnected, HTTPError, ValidationError, WebSocketDisconnected
from .fields import Headers, QueryParams
from .record import CLIENT_GONE, RequestRecord
from .response import ErrorResponse, JSONResponse, Response
from .route import Route, RouteConflict
from .routing import Router
from .sse import EventStreamResponse, ServerSentEvent
from .streaming import StreamingResponse
from .websocket import WebSocket

__all__ = [
    "CLIENT_GONE",
    "App",
    "ClientDisconnected",
    "Connection",
    "ErrorResponse",
    "EventStreamResponse",
    "HTTPError",
    "Headers",
    "JSONResponse",
    "QueryParams",
    "Request",
    "RequestRecord",
    "Response",
    "Route",
    "RouteConflict",
    "Router",
    "ServerSentEvent",
    "StreamingResponse",
    "ValidationError",
    "WebSocket",
    "WebSocketDisconnected",
    "request_id",
]
