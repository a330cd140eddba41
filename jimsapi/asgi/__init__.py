"""The microframework: an ASGI app that handles a request in one function. It does not depend on chat or plugins."""

from .app import App
from .body import decode_json
from .connection import Connection, Request, local_path, request_id
from .cors import Cors, same_origin
from .errors import ClientDisconnected, HTTPError, ValidationError, WebSocketDisconnected
from .fields import Headers, QueryParams
from .nesting import nesting_depth
from .record import CLIENT_GONE, RequestRecord
from .response import ErrorResponse, JSONResponse, Response
from .route import METHODS, Route, RouteConflict
from .routing import Router
from .sse import EventStreamResponse, ServerSentEvent
from .streaming import StreamingResponse
from .types import ASGIApp, Receive, Scope, Send
from .validation import convert_body
from .websocket import WebSocket

__all__ = [
    "CLIENT_GONE",
    "METHODS",
    "ASGIApp",
    "App",
    "ClientDisconnected",
    "Connection",
    "Cors",
    "ErrorResponse",
    "EventStreamResponse",
    "HTTPError",
    "Headers",
    "JSONResponse",
    "QueryParams",
    "Receive",
    "Request",
    "RequestRecord",
    "Response",
    "Route",
    "RouteConflict",
    "Router",
    "Scope",
    "Send",
    "ServerSentEvent",
    "StreamingResponse",
    "ValidationError",
    "WebSocket",
    "WebSocketDisconnected",
    "convert_body",
    "decode_json",
    "local_path",
    "nesting_depth",
    "request_id",
    "same_origin",
]
