"""A client of the API: it sends messages, streams their runs, and resumes a stream after a lost connection.

It imports nothing else of jimsapi, and importing it starts no threads or connections.
"""

from .answers import (
    Activity,
    ChatEvent,
    Delta,
    Event,
    File,
    Gap,
    Item,
    Question,
    Reasoning,
    Result,
    Run,
    RunFault,
    Started,
    Status,
)
from .client import AsyncClient, Client
from .errors import (
    ApiError,
    ClientError,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    RunFailed,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from .request import MessageFields

__all__ = [
    "Activity",
    "ApiError",
    "AsyncClient",
    "ChatEvent",
    "Client",
    "ClientError",
    "Conflict",
    "Delta",
    "Event",
    "File",
    "Forbidden",
    "Gap",
    "InvalidRequest",
    "Item",
    "MessageFields",
    "NotFound",
    "Question",
    "Reasoning",
    "Result",
    "Run",
    "RunFailed",
    "RunFault",
    "Started",
    "Status",
    "TimedOut",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
]
