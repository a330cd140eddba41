"""The HTTP/1.1 server (RFC 9112) of the command: it converts a connection's bytes to ASGI messages, and back.

uvicorn provides the sockets, TLS, lifespan, signals and WebSockets, and httptools parses requests. `Http1Protocol`
replaces uvicorn's own protocol, which has these faults:

- It waits without a limit for the rest of a head or a body, and for a client that does not read.
- It accepts heads of any size.
- Small requests take 1.4 times as long (`python -m benchmarks framework`).

`Http1Protocol` is faster because a connection has one timer instead of one for each request, a plain response is
written at once, the head of a response is checked as a whole, and futures are created only when something awaits them.

`connection` reads requests and checks deadlines. `exchange` is one request with its response. `head` and `answer` check
the heads of requests and responses. `batch` writes the data of all connections together, once in each pass of the event
loop.
"""

from jimsapi.server.http1.connection import Http1Protocol

__all__ = ["Http1Protocol"]
