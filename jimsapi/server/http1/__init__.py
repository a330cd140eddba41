"""HTTP/1.1 (RFC 9112) as the command serves it: from a connection's bytes to ASGI's messages, and back.

uvicorn has the sockets, TLS, lifespan, signals and WebSockets, httptools parses, and `Http1Protocol` stands in place of
uvicorn's own protocol. That one waits for ever for the rest of a head or a body, and for a client that does not read,
takes heads of any size, and has small requests take 1.4 times as long (`python -m benchmarks framework`). Here a
connection has one timer instead of one for each request, a plain answer is written in one piece, its head is checked as
a whole, and nothing is made to wait with before somebody waits.

`connection` reads requests and has the deadlines, `exchange` is one request with its answer, `head` and `answer` say
what a head may be, and `batch` writes what all connections have to write in one pass of the event loop.
"""

from jimsapi.server.http1.connection import Http1Protocol

__all__ = ["Http1Protocol"]
