"""A client of the API: sends messages, watches their runs, and resumes by itself what a broken connection cut.

It knows nothing of the server, and starts nothing when it is imported.
"""

from .answers import ChatEvent, Delta, Event, Gap, Item, Result, Run, RunFault, Started, Status
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
    "ApiError",
    "AsyncClient",
    "ChatEvent",
    "Client",
    "ClientError",
    "Conflict",
    "Delta",
    "Event",
    "Forbidden",
    "Gap",
    "InvalidRequest",
    "Item",
    "MessageFields",
    "NotFound",
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
