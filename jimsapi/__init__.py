"""Put a conversational pipeline behind HTTP."""

from typing import TYPE_CHECKING

from jimsapi.lazy_attributes import lazy_attributes

if TYPE_CHECKING:
    from jimsapi.api.app import create_api
    from jimsapi.asgi.app import App
    from jimsapi.asgi.connection import Connection, Request
    from jimsapi.asgi.errors import HTTPError, WebSocketDisconnected
    from jimsapi.asgi.response import JSONResponse, Response
    from jimsapi.asgi.routing import Router
    from jimsapi.asgi.websocket import WebSocket
    from jimsapi.plugins.hooks import hookimpl
    from jimsapi.plugins.options import Options, option
    from jimsapi.plugins.protocols import AccessDenied, AuthUnavailable, InvalidCredentials
    from jimsapi.plugins.secrets import Secret
    from jimsapi.runs.inbound import Inbound
    from jimsapi.runs.pipeline import JimsApp
    from jimsapi.threads.context import StatusEvent, ThreadContext
    from jimsapi.threads.event import Event
    from jimsapi.threads.identity import Identity
    from jimsapi.threads.run import ByExternalId, ById, Latest, New

__all__ = [
    "AccessDenied",
    "App",
    "AuthUnavailable",
    "ByExternalId",
    "ById",
    "Connection",
    "Event",
    "HTTPError",
    "Identity",
    "Inbound",
    "InvalidCredentials",
    "JSONResponse",
    "JimsApp",
    "Latest",
    "New",
    "Options",
    "Request",
    "Response",
    "Router",
    "Secret",
    "StatusEvent",
    "ThreadContext",
    "WebSocket",
    "WebSocketDisconnected",
    "create_api",
    "hookimpl",
    "option",
]

if not TYPE_CHECKING:  # a type checker would find every name
    __getattr__, __dir__ = lazy_attributes(
        __name__,
        {
            "jimsapi.api.app": ("create_api",),
            "jimsapi.asgi.app": ("App",),
            "jimsapi.asgi.connection": ("Connection", "Request"),
            "jimsapi.asgi.errors": ("HTTPError", "WebSocketDisconnected"),
            "jimsapi.asgi.response": ("JSONResponse", "Response"),
            "jimsapi.asgi.routing": ("Router",),
            "jimsapi.asgi.websocket": ("WebSocket",),
            "jimsapi.plugins.hooks": ("hookimpl",),
            "jimsapi.plugins.options": ("Options", "option"),
            "jimsapi.plugins.protocols": ("AccessDenied", "AuthUnavailable", "InvalidCredentials"),
            "jimsapi.plugins.secrets": ("Secret",),
            "jimsapi.runs.inbound": ("Inbound",),
            "jimsapi.runs.pipeline": ("JimsApp",),
            "jimsapi.threads.context": ("StatusEvent", "ThreadContext"),
            "jimsapi.threads.event": ("Event",),
            "jimsapi.threads.identity": ("Identity",),
            "jimsapi.threads.run": ("ByExternalId", "ById", "Latest", "New"),
        },
    )
