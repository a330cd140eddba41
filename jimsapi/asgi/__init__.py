"""The microframework: an ASGI app whose request path is one function. It knows neither chat nor plugins."""

from .app import CLIENT_GONE, App, RequestRecord
from .connection import Connection, Headers, QueryParams, Request, request_id
from .errors import ClientDisconnected, HTTPError, ValidationError, WebSocketDisconnected
from .response import JSONResponse, Response, StreamingResponse
from .routing import Route, RouteConflict, Router
from .sse import EventStreamResponse, ServerSentEvent
from .websocket import WebSocket

__all__ = [
    "CLIENT_GONE",
    "App",
    "ClientDisconnected",
    "Connection",
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
