"""WebSockets (RFC 6455): the object that a handler receives, and how callers are admitted.

The server handles the handshake, frames, pings and the check of UTF-8. A browser allows pages of any origin to connect
and sends its cookies, so the app checks the origin with `same_origin`. A page cannot set headers, so credentials may
also come as a subprotocol or in the first frame.
"""

import asyncio
import binascii
import re
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from http import HTTPStatus
from time import monotonic
from typing import Any

import anyio
import msgspec
import orjson
from anyio.lowlevel import checkpoint

from .body import decode_json
from .connection import MAX_BODY, Connection
from .errors import HTTPError, ValidationError, WebSocketDisconnected
from .extension import ServerConnection, connection_of, websocket_of
from .response import Response, header
from .stall import Stall
from .streaming import CHECKS_PER_TIMEOUT, SEND_TIMEOUT, cut_off
from .types import Message, Receive, Scope, Send

WEBSOCKET = "WEBSOCKET"
"""The method in the record and the log line of a WebSocket. `WebSocket.method` is that of its handshake."""

FIRST_FRAME_SECONDS = 10.0
FIRST_FRAME_BYTES = 16_384

_BEARER = "bearer."
_ENCODED_BEARER = "base64url.bearer."
_ENCODED_AUTHORIZATION = "base64url.authorization."
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")

# Close codes (RFC 6455, 7.4.1, and IANA's registry) for the statuses of errors after the handshake is accepted.
_CLOSE_CODES = {401: 1008, 403: 1008, 413: 1009, 415: 1003, 422: 1007, 429: 1013, 503: 1013}
_POLICY_VIOLATION = 1008
_INTERNAL_ERROR = 1011
_NORMAL = 1000
_MESSAGE_TOO_BIG = 1009
_ABNORMAL = 1006
_REASON_BYTES = 123


class WebSocket(Connection):
    """A `Connection` that sends and receives messages after the handler has accepted it.

    - `max_message`: the limit for a message from the client, in bytes. The handler may set it.
    - `send_timeout`: for how many seconds the client may read nothing of what is sent. Then the connection is cut, as
      if the client had disconnected. If the server does not show whether the client reads, it is the limit for sending
      one message. The handler may set it.
    - `close_code`: None while the WebSocket is open.

    When the handler returns, the WebSocket is closed with 1000. If the handler raises, the close code follows from the
    status that a request would get for the error: 1003 for 415, 1007 for 422, 1009 for 413, 1013 for 429 and 503, and
    else 1008. It is 1011 for an unexpected error, which is logged and not sent to the client. If the handler raises
    before `accept`, the response to the handshake is that of a request, if the server can send it (the extension
    `websocket.http.response`), else 403.

    Several tasks may send, but only one may receive. Servers stop reading while messages wait to be received, and then
    notice neither pongs nor a disconnect. So a handler that works for long should receive in another task meanwhile,
    and a handler that only sends should do so in the context `while_open`.
    """

    __slots__ = (
        "_accept_headers",
        "_connection",
        "_credentials",
        "_only_sends",
        "_raw_send",
        "_receive",
        "_working",
        "admit",
        "close_code",
        "close_reason",
        "max_message",
        "on_idle",
        "send_timeout",
        "status",
        "subprotocol",
        "subprotocols",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_message: int = MAX_BODY) -> None:
        super().__init__(scope)
        self._receive = receive
        self._raw_send = send
        self._connection = connection_of(scope, send)
        self.status: int | None = None
        """The status of the response to the handshake (101 if it was accepted); None before the response."""
        self._accept_headers: list[tuple[bytes, bytes]] = []
        self.max_message = max_message
        self.send_timeout = SEND_TIMEOUT
        self.close_code: int | None = None
        self.close_reason = ""
        self.subprotocol: str | None = None
        """The subprotocol that was selected, or None."""
        offered: list[str] = list(scope.get("subprotocols") or ())
        self.subprotocols = tuple(name for name in offered if not _is_credential(name))
        """The subprotocols that the client offers, without those that have credentials, which must never be echoed."""
        self._credentials = [name for name in offered if _is_credential(name)]
        self.admit: Callable[[Any, Any], Awaitable[object]] | None = None
        """The function that admitted the caller; None on a public route."""
        self._only_sends: anyio.CancelScope | None = None  # of the block in `while_open`
        self._working = 0
        self.on_idle: Callable[[], None] | None = None
        """The app's callback for the end of all work; None while the app is not drained."""

    @property
    def accepted(self) -> bool:
        """Whether the handshake was accepted, by the handler or to receive the first frame."""
        return self.status == 101

    async def readmit(self) -> None:
        """Check the caller again, and renew `admission`.

        A WebSocket may be open for days, and keys can expire or be revoked in that time. `admit` is called with the
        handshake's headers again, and tells this call from the first one by `admission`, which is None at the first one
        and has the last result here. Does nothing on a public route. Raises what the app's `admit` raises.
        """
        if self.admit is not None:
            self.admission = await self.admit(self, self.route)

    async def accept(self, subprotocol: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        """Accept the handshake.

        `subprotocol` is one of those that the client offers. The default is the first of the route's subprotocols that
        the client offers. `headers` are added to the response. Does nothing if the handshake is accepted already, which
        the framework does to receive credentials in the first frame.

        Raises `ValueError` for a subprotocol that the client does not offer and for a header that HTTP cannot carry,
        and `WebSocketDisconnected` if the client has disconnected.
        """
        if self.accepted:
            return
        if subprotocol is None:
            route_subprotocols = self.route.subprotocols if self.route is not None else ()
            subprotocol = next((name for name in route_subprotocols if name in self.subprotocols), None)
        elif subprotocol not in self.subprotocols:
            raise ValueError(f"The client does not offer the subprotocol {subprotocol!r}.")
        pairs = [header(name, value) for name, value in (headers or {}).items()] + self._accept_headers
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": pairs})
        self.status = 101
        self.subprotocol = subprotocol
        if self.route is not None and self.route.app is not None:
            self.route.app.open_work.add_websocket(self)

    async def receive(self) -> str | bytes:
        """Return the next message: text as `str`, binary as `bytes`.

        Raises `WebSocketDisconnected` if the WebSocket is closed. A message over `max_message` bytes closes it with
        1009.
        """
        return await self._next(self.max_message)

    async def receive_json(self) -> Any:
        """Return the JSON value of the next message. The limits for the JSON of a request's body apply.

        Raises `HTTPError` 415 for a binary message, and `ValidationError` (422) for a message that is not JSON or that
        contains what some databases cannot store. After both the handler may receive more. Else raises as `receive`
        does.
        """
        message = await self.receive()
        if isinstance(message, bytes):
            raise HTTPError(415, "JSON must come in a text message")
        return decode_json(_utf8_bytes(message))

    async def send_text(self, text: str) -> None:
        """Send a text message.

        Raises `WebSocketDisconnected` if the WebSocket is closed, or was cut because the client read nothing for
        `send_timeout` seconds.
        """
        await self._send_message({"type": "websocket.send", "text": text})

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message. Raises as `send_text` does."""
        await self._send_message({"type": "websocket.send", "bytes": data})

    async def send_json(self, value: Any) -> None:
        """Send a value, as `JSONResponse` accepts it, as JSON in a text message. Raises as `send_text` does."""
        await self.send_text(orjson.dumps(value, default=msgspec.to_builtins, option=orjson.OPT_UTC_Z).decode())

    async def close(self, code: int = _NORMAL, reason: str = "") -> None:
        """Close the WebSocket, or reject the handshake with 403 before `accept`. Does nothing if it is closed.

        `code` is 1000 or another code that a program may send (RFC 6455, 7.4). `reason` is cut to 123 bytes.
        """
        if self.close_code is not None:
            return
        if self.status is None:
            self.status = 403
        reason = reason.encode()[:_REASON_BYTES].decode(errors="ignore")
        try:
            await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except anyio.get_cancelled_exc_class():
            # Some servers wait for the client's close frame, and a drain does not wait that long.
            self._mark_closed(code, reason)
            raise
        self._mark_closed(code, reason)

    async def refuse(self, response: Response) -> None:
        """Answer the handshake with `response`. If it is accepted already, close with the code for its status."""
        if self.close_code is not None:
            return
        if self.accepted:
            code = _CLOSE_CODES.get(response.status, _INTERNAL_ERROR if response.status >= 500 else _POLICY_VIOLATION)
            await self.close(code, "" if code == _INTERNAL_ERROR else _phrase(response.status))
        elif response.body is None or "websocket.http.response" not in (self.scope.get("extensions") or {}):
            await self.close(_POLICY_VIOLATION)
        else:
            self.status = response.status
            headers = response.raw_headers + self._accept_headers
            if self.scope.get("http_version", "1.1") != "1.1":  # HTTP/2 does not allow it (RFC 9113, 8.2.2)
                headers = [pair for pair in headers if pair[0] != b"connection"]
            await self._send({"type": "websocket.http.response.start", "status": response.status, "headers": headers})
            await self._send({"type": "websocket.http.response.body", "body": response.body})
            self._mark_closed(_ABNORMAL, "")

    def __aiter__(self) -> "WebSocket":
        return self

    async def __anext__(self) -> str | bytes:
        """Return the next message. The iteration ends when the WebSocket is closed."""
        try:
            return await self.receive()
        except WebSocketDisconnected:
            raise StopAsyncIteration from None

    @asynccontextmanager
    async def while_open(self) -> AsyncIterator[None]:
        """Context manager for a handler that only sends: its block ends at once when the WebSocket is closed.

            await ws.accept()
            async with ws.while_open():
                async for price in prices():
                    await ws.send_json(price)

        The block is cancelled when the client leaves, and when a drain of the app or another task closes the WebSocket.
        The handler then goes on after the block, and `close_code` is the code of the close. A `WebSocketDisconnected`
        of a send ends the block in the same way, also if a task group in the block raises it. What else the block
        raises is raised.

        Messages that the client sends meanwhile are received and dropped, so the block must not receive: that raises
        `RuntimeError`. The handler may receive before the block and after it. Raises `RuntimeError` before `accept`.
        """
        if not self.accepted:
            raise RuntimeError("Accept the WebSocket before you send: await ws.accept().")
        receive = self._receive
        failure: Exception | None = None

        async def drop_messages() -> None:
            nonlocal failure
            try:
                while (message := await receive())["type"] != "websocket.disconnect":
                    pass
                self._mark_closed(message.get("code") or 1005, message.get("reason") or "")
            except Exception as error:
                failure = error
                tasks.cancel_scope.cancel()

        has_ended = False  # by a send
        try:
            async with anyio.create_task_group() as tasks:
                self._receive, self._only_sends = _must_not_receive, tasks.cancel_scope
                if self.close_code is not None:
                    tasks.cancel_scope.cancel()
                tasks.start_soon(drop_messages)
                try:
                    yield
                except Exception as error:  # the task group would wrap it
                    has_ended = self.close_code is not None and _is_disconnect(error)
                    failure = None if has_ended else error
                finally:
                    self._receive, self._only_sends = receive, None
                    tasks.cancel_scope.cancel()
        except asyncio.CancelledError:
            # Since Python 3.13, `asyncio.TaskGroup` repeats our cancellation when it raises the errors of its tasks.
            task = asyncio.current_task()
            if not has_ended or task is None or task.cancelling():
                raise
        if failure is not None:
            raise failure

    def working(self) -> AbstractContextManager[None]:
        """Return a context for work whose result the client waits for. Several tasks may be in it at once.

        If the server has no file descriptors left for new connections, it closes the WebSockets that have been silent
        for the longest time, except those whose handler is in this context. Other servers than the command's do not.

        A drain of the app closes WebSockets with 1012. It waits for those whose handler is in this context, up to the
        drain time.
        """
        connection = websocket_of(self.scope)
        return self._work(nullcontext() if connection is None else connection.working())

    @property
    def is_working(self) -> bool:
        """Whether a task is in the context of `working`."""
        return self._working > 0

    @contextmanager
    def _work(self, at_server: AbstractContextManager[None]) -> Iterator[None]:
        self._working += 1
        try:
            with at_server:
                yield
        finally:
            self._working -= 1
            if not self._working and self.on_idle is not None:
                self.on_idle()

    # For the app.

    def set_request_id(self, request_id: bytes) -> None:
        """Set the request id, which is sent with the response to the handshake."""
        self.request_id = request_id.decode()
        self._accept_headers.append((b"x-request-id", request_id))

    def present_offered(self) -> None:
        """Convert the credentials among the subprotocols, if there are any, to a header `authorization`.

        Several become several headers, which `admit` rejects.
        """
        for name in self._credentials:
            self._present(_offered_credentials(name))

    async def present_first_frame(self) -> None:
        """Accept the handshake, and convert the credentials of the first message to a header `authorization`.

        Raises `HTTPError` 401 if the message is invalid, or does not arrive within `FIRST_FRAME_SECONDS`.
        """
        await self.accept()
        try:
            with anyio.fail_after(FIRST_FRAME_SECONDS):
                message = await self._next(FIRST_FRAME_BYTES)
        except TimeoutError:
            raise HTTPError(401, "No credentials came in time") from None
        try:
            frame = decode_json(_utf8_bytes(message)) if isinstance(message, str) else None
        except ValidationError:
            frame = None
        match frame:
            case {"type": "auth", "token": str(token), **others} if token and "authorization" not in others:
                self._present(f"Bearer {token}")
            case {"type": "auth", "authorization": str(credentials), **others} if credentials and "token" not in others:
                self._present(credentials)
            case _:
                raise HTTPError(401, "The first message must be an auth frame")

    def _present(self, credentials: str) -> None:
        if not credentials.isprintable():  # a header cannot contain them
            raise HTTPError(401, "The credentials hold characters that a header cannot contain")
        self.present(credentials)

    async def _next(self, limit: int) -> str | bytes:
        if not self.accepted:
            raise RuntimeError("Accept the WebSocket before you receive: await ws.accept().")
        if self.close_code is not None:
            raise WebSocketDisconnected(self.close_code, self.close_reason)
        received = await self._receive()
        if received["type"] == "websocket.disconnect":
            self._mark_closed(received.get("code") or 1005, received.get("reason") or "")
            raise WebSocketDisconnected(received.get("code") or 1005, self.close_reason)
        text: str | None = received.get("text")
        message: str | bytes = bytes(received["bytes"]) if text is None else text
        # A character has at most four bytes, so a small text need not be encoded to be measured.
        if len(message) * 4 > limit and len(_utf8_bytes(message)) > limit:
            await self.close(_MESSAGE_TOO_BIG, f"A message may have at most {limit} bytes")
            raise WebSocketDisconnected(_MESSAGE_TOO_BIG, self.close_reason)
        return message

    async def _send_message(self, message: Message) -> None:
        if not self.accepted:
            raise RuntimeError("Accept the WebSocket before you send: await ws.accept().")
        await self._send(message)

    async def _send(self, message: Message) -> None:
        if self.close_code is not None:
            raise WebSocketDisconnected(self.close_code, self.close_reason)
        try:
            with anyio.CancelScope() as scope:
                deadline = _SendDeadline(scope, self._connection, self.send_timeout)
                try:
                    return await self._raw_send(message)
                finally:
                    deadline.end()
            cut_off(self, self.send_timeout, self._connection)
            await checkpoint()  # so that the server handles the abort before the app returns
        except OSError:  # ASGI: the client has disconnected
            pass
        except RuntimeError:  # uvicorn raises it after it has closed the WebSocket because of an unanswered ping
            if not self.accepted:
                raise
        self._mark_closed(_ABNORMAL, "")
        raise WebSocketDisconnected(_ABNORMAL)

    def _mark_closed(self, code: int, reason: str) -> None:
        if self.close_code is None:
            self.close_code, self.close_reason = code, reason
            if self._only_sends is not None:
                self._only_sends.cancel()


def _is_disconnect(error: Exception) -> bool:
    """Whether an error is a `WebSocketDisconnected`, or a group of nothing else, as a task group raises it."""
    if isinstance(error, ExceptionGroup):
        return error.split(WebSocketDisconnected)[1] is None
    return isinstance(error, WebSocketDisconnected)


async def _must_not_receive() -> Message:
    raise RuntimeError("The context `while_open` drops what the client sends: receive before it or after it.")


class _SendDeadline:
    """Cancels a send if the client reads nothing for `timeout` seconds; on trio, if the send takes that long."""

    __slots__ = ("_connection", "_handle", "_scope", "_stall", "_timeout")

    def __init__(self, scope: anyio.CancelScope, connection: ServerConnection | None, timeout: float) -> None:
        self._scope = scope
        self._connection = connection
        self._timeout = timeout
        self._handle: asyncio.Handle | None = None
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            scope.deadline = anyio.current_time() + timeout
        else:
            self._handle = loop.call_soon(self._begin)  # nearly all sends end before this call

    def end(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _begin(self) -> None:
        self._stall = Stall(self._connection, monotonic())
        self._check_after(self._timeout)

    def _check_after(self, left: float) -> None:
        self._handle = asyncio.get_running_loop().call_later(min(left, self._timeout / CHECKS_PER_TIMEOUT), self._check)

    def _check(self) -> None:
        self._stall.update()
        left = self._stall.since + self._timeout - monotonic()
        if left > 0:
            self._check_after(left)
        else:
            self._scope.cancel()


def _is_credential(subprotocol: str) -> bool:
    return subprotocol.startswith((_BEARER, _ENCODED_BEARER, _ENCODED_AUTHORIZATION))


def _offered_credentials(subprotocol: str) -> str:
    """Return the value of `authorization` that a subprotocol has. Raises `HTTPError` 401 if it cannot be decoded."""
    if subprotocol.startswith(_BEARER):
        return "Bearer " + subprotocol.removeprefix(_BEARER)
    if subprotocol.startswith(_ENCODED_BEARER):
        return "Bearer " + _decode_base64url(subprotocol.removeprefix(_ENCODED_BEARER))
    return _decode_base64url(subprotocol.removeprefix(_ENCODED_AUTHORIZATION))


def _decode_base64url(encoded: str) -> str:
    try:
        if not _BASE64URL.fullmatch(encoded):
            raise ValueError
        return urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except (ValueError, binascii.Error):
        text = "The credentials in the subprotocol are not encoded as base64url without padding"
        raise HTTPError(401, text) from None


def _utf8_bytes(message: str | bytes) -> bytes:
    return message.encode(errors="surrogatepass") if isinstance(message, str) else message


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
