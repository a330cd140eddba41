"""The command's HTTP/1.1 over real sockets, byte by byte, with clients, proxies, attackers and apps as they may be."""

import asyncio
import contextvars
import gc
import io
import queue
import resource
import socket
import struct
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from copy import deepcopy
from typing import Any, Self

import pytest
import uvicorn
from websockets.frames import Close, Frame, Opcode

from jimsapi.asgi import (
    CLIENT_GONE,
    App,
    Request,
    Response,
    StreamingResponse,
    WebSocket,
    WebSocketDisconnected,
)
from jimsapi.asgi.extension import EXTENSION
from jimsapi.asgi.types import ASGIApp, Message, Receive, Scope, Send
from jimsapi.server import backlog, memory
from jimsapi.server.http1 import Http1Protocol, head
from jimsapi.server.http1 import batch as batch_module
from jimsapi.server.http1 import connection as connection_module
from jimsapi.server.http1.exchange import Exchange
from tests.raw import TIMEOUT, ask, connect, ended, request
from tests.server.busy import always_busy
from tests.serving import Served

Headers = list[tuple[bytes, bytes]]
LOOPS = ["asyncio", "uvloop"]
DEFAULT_LOOP = [pytest.param("asyncio", marks=pytest.mark.long), "uvloop"]
on_default_loop = pytest.mark.parametrize("server", DEFAULT_LOOP, indirect=True, scope="module")
"""For what depends on what is read, or on the time, and not on how the loop reads and writes."""
GET = request("GET", "/")


class Serving:
    """uvicorn with our protocol or another, in a thread. `app` may be changed between requests."""

    def __init__(self, loop: str, http: Any = Http1Protocol, root: ASGIApp | None = None, **options: Any) -> None:
        self.app: ASGIApp = echo
        self.config = uvicorn.Config(
            root or self._call,
            http=http,
            loop=loop,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=10,
            **options,
        )
        self.server = uvicorn.Server(self.config)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listening.getsockname()[1]
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        with Client(self.port) as client:
            assert client.ask(GET)[0] == 200
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self.join()

    def stop(self) -> None:
        """Begin the graceful shutdown."""
        self.server.should_exit = True

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether it serves."""
        return self._thread.is_alive()

    @property
    def connections(self) -> list[Http1Protocol]:
        """Those that are open."""
        return list(self.server.server_state.connections)  # type: ignore[arg-type] # uvicorn lists its own

    def serves(self, app: ASGIApp) -> ASGIApp:
        """Decorates the app of the next requests."""
        self.app = app
        return app

    def do(self, call: Callable[[], object]) -> None:
        """Have something done in the loop."""
        self._loop.call_soon_threadsafe(call)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._loop = asyncio.get_running_loop()
        await self.app(scope, receive, send)

    def _run(self) -> None:
        self.server.run(sockets=[self._listening])


class Client(socket.socket):
    """A client of a server on this machine, which reads what it is sent answer by answer.

    Its side of the connection keeps little that it did not read if `kept`, in bytes, is small.
    """

    buffered = io.DEFAULT_BUFFER_SIZE

    def __init__(self, port: int, kept: int | None = None) -> None:
        super().__init__()
        self.settimeout(TIMEOUT)
        if kept is not None:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kept)
        self.connect(("127.0.0.1", port))
        self._file = io.BufferedReader(socket.SocketIO(self, "r"), self.buffered)

    def ask(self, sent: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send something, and read a whole answer."""
        self.sendall(sent)
        return self.read()

    def upgrade(self) -> None:
        """Open a WebSocket at `/ws`."""
        self.sendall(request("GET", "/ws", *HANDSHAKE))
        assert self.head()[0] == 101

    def head(self) -> tuple[int, dict[str, str]]:
        """A status line and fields. Raises `EOFError` if the connection ends instead."""
        line = self._file.readline()
        if not line:
            raise EOFError
        headers: dict[str, str] = {}
        while (field := self._file.readline().rstrip(b"\r\n")) != b"":
            name, _, value = field.decode("latin-1").partition(": ")
            assert name not in headers
            headers[name] = value
        return int(line.split()[1]), headers

    def read(self, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """A whole answer."""
        status, headers = self.head()
        if method == "HEAD" or status in (204, 304):
            return status, headers, b""
        if headers.get("transfer-encoding") == "chunked":
            return status, headers, b"".join(iter(self.chunk, b""))
        if "content-length" in headers:
            return status, headers, self.take(int(headers["content-length"]))
        return status, headers, self._file.read()

    def chunk(self) -> bytes:
        """A chunk; empty at the end."""
        size = int(self._file.readline(), 16)
        data = self.take(size)
        assert self._file.readline() == b"\r\n"
        return data

    def take(self, size: int) -> bytes:
        """Bytes of a body. Raises `EOFError` if it is cut."""
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def end(self) -> bool:
        """Whether the connection ends here, without another byte."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True


class SteadyClient(Client):
    """A client that reads small pieces, one each 5 ms."""

    buffered = 50_000

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        """Read a piece, for the file."""
        time.sleep(0.005)
        return super().recv_into(buffer, min(size, self.buffered) or self.buffered, flags)


async def read(receive: Receive) -> bytes:
    """A request's body."""
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        more = message["more_body"]
    return body


async def start(send: Send, status: int = 200, headers: Headers | None = None) -> None:
    """Begin an answer."""
    await send({"type": "http.response.start", "status": status, "headers": headers or []})


async def go_on(send: Send, body: bytes | bytearray | memoryview, more: bool = False) -> None:
    """A part of an answer's body, the last unless there is `more`."""
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def answer(send: Send, body: bytes, status: int = 200, headers: Headers | None = None) -> None:
    """A plain answer."""
    await start(send, status, [(b"content-length", b"%d" % len(body)), *(headers or [])])
    await go_on(send, body)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what was asked."""
    await answer(send, b"%b %b %b" % (scope["method"].encode(), scope["raw_path"], await read(receive)))


async def wait_until_cancelled(seen: "Seen") -> None:
    """Wait without end, and tell the test when that is cancelled."""
    try:
        await asyncio.Event().wait()
    finally:
        seen.put("cancelled")


@contextmanager
def without_garbage_collector() -> Iterator[None]:
    """What the block leaves in cycles stays."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def post(body: bytes, path: str = "/", *headers: str) -> bytes:
    """A request with a body."""
    return request("POST", path, f"content-length: {len(body)}", *headers, body=body)


def chunked(*parts: bytes, trailer: bytes = b"", headers: tuple[str, ...] = ()) -> bytes:
    """A request whose body comes in chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return request("POST", "/", "transfer-encoding: chunked", *headers, body=body + b"0\r\n" + trailer + b"\r\n")


@pytest.fixture(scope="module", params=LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[Serving]:
    with Serving(request.param) as serving:
        yield serving


@pytest.fixture
def serving(server: Serving) -> Iterator[Serving]:
    server.app = echo
    yield server
    assert server.alive


@pytest.fixture
def client(serving: Serving) -> Iterator[Client]:
    with Client(serving.port) as connection:
        yield connection


@pytest.fixture
def seen() -> "queue.SimpleQueue[Any]":
    """What an app tells the test."""
    return queue.SimpleQueue()


@pytest.fixture
def gate(serving: Serving) -> "Gate":
    return Gate(serving)


Seen = queue.SimpleQueue[Any]


def next_of(seen: Seen) -> Any:
    return seen.get(timeout=TIMEOUT)


def eventually(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    until = time.monotonic() + 3 * TIMEOUT  # websockets 13 waits TIMEOUT itself for a client that has left
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


class Gate:
    """Where an app waits until the test lets it go on."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._event = asyncio.Event()

    async def wait(self) -> None:
        """Wait, in the app."""
        await self._event.wait()

    def open(self) -> None:
        """Let go on, from the test."""
        self._serving.do(self._event.set)


# Connections.


def test_a_connection_serves_one_request_after_another(client: Client) -> None:
    for number in range(3):
        status, headers, body = client.ask(request("GET", f"/{number}"))
        assert (status, body) == (200, b"GET /%d " % number)
        assert "connection" not in headers
        assert "date" in headers


@pytest.mark.parametrize(
    "sent",
    [
        request("GET", "/", "connection: close"),
        request("GET", "/", "Connection: Keep-Alive, CLOSE"),
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    ],
)
def test_a_client_that_wants_it_has_its_connection_closed(client: Client, sent: bytes) -> None:
    status, headers, body = client.ask(sent)
    assert (status, headers["connection"], body) == (200, "close", b"GET / ")
    assert client.end()


def test_an_app_may_close_a_connection(serving: Serving, client: Client) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"bye", headers=[(b"Connection", b"Close")])

    _, headers, body = client.ask(GET + GET)
    assert (headers["connection"], body) == ("Close", b"bye")
    assert client.end()


@on_default_loop
def test_a_silent_connection_is_closed(serving: Serving, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAD_WITHIN", 0.05)
    monkeypatch.setattr(serving.config, "timeout_keep_alive", 0.05)
    with Client(serving.port) as silent:
        assert ended(silent)


@on_default_loop
def test_an_idle_connection_is_closed(serving: Serving, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAD_WITHIN", 0.5)
    monkeypatch.setattr(serving.config, "timeout_keep_alive", 0.5)
    with Client(serving.port) as idle:
        assert idle.ask(GET)[0] == 200
        assert idle.end()


@on_default_loop
def test_a_long_answer_is_no_idle_connection(serving: Serving, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAD_WITHIN", 0.3)
    monkeypatch.setattr(serving.config, "timeout_keep_alive", 0.3)

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1.0)
        await answer(send, b"late")

    with Client(serving.port) as client:
        assert client.ask(GET)[2] == b"late"


# Answers.


def test_head_is_answered_without_a_body(serving: Serving, client: Client) -> None:
    client.sendall(request("HEAD", "/") + request("GET", "/next"))
    status, headers, _ = client.read("HEAD")
    assert (status, headers["content-length"]) == (200, "7")
    assert client.read()[2] == b"GET /next "


@on_default_loop
@pytest.mark.parametrize("length", [[], [(b"content-length", b"5")]])
@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("body", [b"", b"wrong"])
def test_204_and_304_have_no_body(serving: Serving, client: Client, status: int, length: Headers, body: bytes) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, status, length)
        await go_on(send, body)

    got, headers, _ = client.ask(GET)
    assert got == status
    assert "transfer-encoding" not in headers
    serving.app = echo
    assert client.ask(GET)[2] == b"GET / "


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    for part in (b"one", b"", b"two"):
        await go_on(send, part, more=True)
    await go_on(send, b"")


def test_a_body_of_unknown_length_is_chunked(serving: Serving, client: Client) -> None:
    serving.app = stream
    client.sendall(GET + GET)
    for _ in range(2):
        status, headers = client.head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        assert [client.chunk(), client.chunk(), client.chunk()] == [b"one", b"two", b""]


def test_http_1_0_has_it_until_the_end_of_the_connection(serving: Serving, client: Client) -> None:
    serving.app = stream
    status, headers, body = client.ask(b"GET / HTTP/1.0\r\n\r\n")
    assert (status, headers["connection"], body) == (200, "close", b"onetwo")
    assert "transfer-encoding" not in headers


def test_a_stream_begins_before_its_first_part(serving: Serving, gate: Gate, client: Client) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await gate.wait()
        await go_on(send, b"part")

    client.sendall(GET)
    assert client.head()[0] == 200
    gate.open()
    assert [client.chunk(), client.chunk()] == [b"part", b""]


def test_how_a_body_is_sent_is_not_for_the_app_to_say(serving: Serving, client: Client) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200, [(b"transfer-encoding", b"chunked"), (b"content-length", b"2")])
        await go_on(send, b"hi")

    _, headers, body = client.ask(GET)
    assert "transfer-encoding" not in headers
    assert body == b"hi"


@pytest.mark.parametrize("last", [GET, request("GET", "/", "connection: close"), b"GET / HTTP/1.0\r\n\r\n"])
@pytest.mark.parametrize("size", [batch_module.MAX_JOINED, batch_module.MAX_JOINED + 1, 20_000_000])
def test_a_big_answer_is_whole_however_slowly_it_is_read(
    serving: Serving, size: int, last: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "HEAD_WITHIN", 0.2)
    monkeypatch.setattr(serving.config, "timeout_keep_alive", 0.2)
    sent = threading.Event()

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"x" * size)
        asyncio.get_running_loop().call_later(0.5, sent.set)

    with Client(serving.port) as client:
        client.sendall(last)
        assert sent.wait(TIMEOUT)  # an idle connection's time is over
        monkeypatch.setattr(serving.config, "timeout_keep_alive", TIMEOUT)
        assert client.read()[2] == b"x" * size
        if last == GET and size > 1_000_000:  # the time counts from when all was taken
            assert client.ask(GET)[2] == b"x" * size


def test_a_status_that_python_does_not_know_is_sent(serving: Serving, client: Client) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"", 799)

    assert client.ask(GET)[0] == 799


def test_bodies_may_be_any_bytes(serving: Serving, client: Client) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await go_on(send, bytearray(b"a" * 3), more=True)
        kept = bytearray(b"b" * 100_000)
        await go_on(send, kept, more=True)
        kept[:] = b"c" * 100_000  # it is the app's own
        await go_on(send, memoryview(b"d"))

    assert client.ask(GET)[2] == b"aaa" + b"b" * 100_000 + b"d"


# Pipelining.


def test_pipelined_requests_are_answered_in_order(serving: Serving, gate: Gate, client: Client) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/0":
            await gate.wait()
        await echo(scope, receive, send)

    client.sendall(b"".join(post(b"x" * number, f"/{number}") for number in range(20)))
    gate.open()
    assert [client.read()[2] for _ in range(20)] == [b"POST /%d %b" % (n, b"x" * n) for n in range(20)]


def test_a_pipelined_body_comes_while_the_request_before_is_answered(
    serving: Serving, gate: Gate, client: Client, seen: Seen
) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.put(scope["path"])
        if scope["path"] == "/first":
            await gate.wait()
        await echo(scope, receive, send)

    big = post(b"b" * 300_000, "/second")
    client.sendall(request("GET", "/first") + big[:200])
    assert next_of(seen) == "/first"
    rest = threading.Thread(target=client.sendall, args=(big[200:] + request("GET", "/third"),))
    rest.start()
    gate.open()
    assert [client.read()[2] for _ in range(3)] == [b"GET /first ", b"POST /second " + b"b" * 300_000, b"GET /third "]
    rest.join()


def test_of_too_many_pipelined_requests_the_first_are_answered(
    serving: Serving, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "MAX_PIPELINED", 3)
    client.sendall(b"".join(request("GET", f"/{number}") for number in range(10)))
    got = [client.read() for _ in range(4)]
    assert [body for _, _, body in got] == [b"GET /0 ", b"GET /1 ", b"GET /2 ", b"GET /3 "]
    assert [headers.get("connection") for _, headers, _ in got] == [None, None, None, "close"]
    assert client.end()


def test_requests_are_answered_before_what_is_wrong_after_them_ends_the_connection(
    serving: Serving, client: Client
) -> None:
    client.sendall(request("GET", "/0") + request("GET", "/1") + b"RUBBISH\r\n\r\n" + request("GET", "/3"))
    assert [client.read()[2] for _ in range(2)] == [b"GET /0 ", b"GET /1 "]
    assert client.end()


@pytest.mark.parametrize("before", [b"", post(b"x" * 100_000)])
def test_requests_of_one_connection_share_no_context(serving: Serving, client: Client, before: bytes) -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="")

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found = var.get()
        var.set(scope["path"])
        await read(receive)
        await answer(send, found.encode())

    client.sendall(before + request("GET", "/ann") + request("GET", "/bob"))
    for _ in range(3 if before else 2):
        assert client.read()[2] == b""
    assert client.ask(request("GET", "/cid"))[2] == b""


# Bodies.


@on_default_loop
@pytest.mark.parametrize("sent", [post(b"hello"), chunked(b"he", b"llo"), chunked(b"h", b"e", b"l", b"l", b"o")])
def test_a_body_may_come_in_pieces(client: Client, sent: bytes) -> None:
    for place in range(len(sent)):
        client.sendall(sent[place : place + 1])
    assert client.read()[2] == b"POST / hello"


def test_trailers_are_no_fields_of_a_request(serving: Serving, client: Client, seen: Seen) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.put([name for name, _ in scope["headers"]])
        await echo(scope, receive, send)

    for packet in (chunked(b"hello", trailer=b"authorization: Bearer x\r\n") + GET, GET):
        client.sendall(packet)
    assert [client.read()[2] for _ in range(3)] == [b"POST / hello", b"GET / ", b"GET / "]
    assert [next_of(seen) for _ in range(3)] == [[b"host", b"transfer-encoding"], [b"host"], [b"host"]]


def test_chunk_extensions_are_left_out(client: Client) -> None:
    client.sendall(request("POST", "/", "transfer-encoding: chunked", body=b'3;a=b;c="d"\r\nabc\r\n0;last\r\n\r\n'))
    assert client.read()[2] == b"POST / abc"


def test_a_trailer_without_end_is_refused(client: Client) -> None:
    assert client.ask(chunked(b"hello")[:-2] + b"x: " + b"x" * 2_000_000)[0] == 431
    assert client.end()


def test_the_client_is_asked_once_for_a_body_that_it_keeps_back(client: Client) -> None:
    client.sendall(request("POST", "/", "content-length: 5", "Expect: 100-Continue"))
    assert client.head() == (100, {})
    client.sendall(b"he")
    assert client.ask(b"llo" + GET)[2] == b"POST / hello"
    assert client.read()[2] == b"GET / "


def test_http_1_0_is_not_asked_for_a_body(serving: Serving, client: Client, seen: Seen) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.put("reads")
        await echo(scope, receive, send)

    client.sendall(b"POST / HTTP/1.0\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n")
    assert next_of(seen) == "reads"
    assert client.ask(b"hello")[2] == b"POST / hello"


def test_an_early_answer_asks_for_no_body(serving: Serving, client: Client) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no", 401)
        assert (await receive())["type"] == "http.disconnect"

    assert client.ask(request("POST", "/", "content-length: 5", "expect: 100-continue"))[::2] == (401, b"no")
    serving.app = echo
    assert client.ask(b"hello" + GET)[2] == b"GET / "


def test_a_client_that_waits_to_be_asked_is_not_slow(
    serving: Serving, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "HEAD_WITHIN", 0.01)
    monkeypatch.setattr(connection_module, "BODY_WITHIN", 0.01)

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.1)
        monkeypatch.setattr(connection_module, "BODY_WITHIN", TIMEOUT)
        await echo(scope, receive, send)

    with Client(serving.port) as patient:
        patient.sendall(request("POST", "/", "content-length: 5", "expect: 100-continue"))
        assert patient.head() == (100, {})
        assert patient.ask(b"hello")[2] == b"POST / hello"


def test_what_is_left_of_a_body_after_an_early_answer_is_no_request(serving: Serving, client: Client) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"early")

    body = request("GET", "/hidden") * 5000
    assert client.ask(post(body)[:200])[2] == b"early"
    serving.app = echo
    assert client.ask(post(body)[200:] + GET)[2] == b"GET / "


def test_a_body_that_nobody_reads_is_not_taken_from_the_connection(
    serving: Serving, gate: Gate, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "BODY_WITHIN", 0.01)  # the client cannot help it that nobody reads
    monkeypatch.setattr(connection_module, "HEAD_WITHIN", 0.01)
    taken = []

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        while (message := await receive())["more_body"]:
            taken.append(len(message["body"]))
        await answer(send, b"%d" % (sum(taken) + len(message["body"])))

    with Client(serving.port) as big:
        sending = threading.Thread(target=big.sendall, args=(post(b"x" * 30_000_000),))
        sending.start()
        sending.join(0.2)
        assert sending.is_alive()
        monkeypatch.setattr(connection_module, "BODY_WITHIN", TIMEOUT)
        gate.open()
        assert big.read()[2] == b"30000000"
        sending.join()
    assert taken[0] < 1_000_000


# Heads.


@on_default_loop
@pytest.mark.parametrize("packets", [1, 2, 700])
@pytest.mark.parametrize("before", [b"", post(b"x" * 1000)])
@pytest.mark.parametrize("form", ["/%b", "/?%b"])
def test_a_head_has_64_kib_and_no_byte_more(
    serving: Serving, client: Client, packets: int, before: bytes, form: str
) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        await answer(send, b"%d" % (len(scope["raw_path"]) + len(scope["query_string"])))

    fields = [f"x-{number}: {'v' * 140}" for number in range(200)]
    room = head.MAX_HEAD - len(request("GET", form.replace("%b", ""), *fields))
    for more in (0, 1):
        with Client(serving.port) as one:
            sent = before + request("GET", form.replace("%b", "u" * (room + more)), *fields)
            step = -(-len(sent) // packets)
            for place in range(0, len(sent), step):
                one.sendall(sent[place : place + step])
                time.sleep(0.0005)  # so that each is a packet
            if before:
                assert one.read()[0] == 200
            if more and before and packets <= 2:
                # If the server reads both requests at once, the answer before is the last.
                with suppress(EOFError, ConnectionResetError):
                    assert one.read()[0] == 431
            else:
                status, _, _ = one.read()
                assert status == (431 if more else 200)
                assert not more or one.end()


def test_a_field_without_end_is_refused(client: Client) -> None:
    assert client.ask(b"GET / HTTP/1.1\r\nx: " + b"x" * 2_000_000)[0] == 431
    assert client.end()


def test_many_small_fields_are_refused(client: Client) -> None:
    assert client.ask(b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 200_000)[0] == 431
    assert client.end()


def test_a_slow_head_is_408(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAD_WITHIN", 0.1)
    with Client(serving.port) as slow:
        status, headers, body = slow.ask(b"GET / HTTP/1.1\r\nhost: a")
        assert (status, headers["connection"], body) == (408, "close", b'{"detail":"Request Timeout"}')


def test_a_head_that_is_slow_after_another_request_is_408(
    serving: Serving, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "HEAD_WITHIN", 0.1)
    with Client(serving.port) as slow:
        slow.sendall(GET + b"GET / HTTP/1.1\r\nhost: a")
        assert [slow.read()[0] for _ in range(2)] == [200, 408]
        assert slow.end()


def test_a_slow_body_is_408_and_its_app_is_told(serving: Serving, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAD_WITHIN", 0.05)
    monkeypatch.setattr(connection_module, "BODY_WITHIN", 0.1)

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            seen.put(message["body"])
        seen.put(message["type"])
        await answer(send, b"too late")  # nobody gets it

    with Client(serving.port) as slow:
        assert slow.ask(post(b"hello")[:-2])[0] == 408
        assert slow.end()
    assert [next_of(seen), next_of(seen)] == [b"hel", "http.disconnect"]


def test_a_body_that_was_asked_for_has_its_time(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAD_WITHIN", 0.05)
    monkeypatch.setattr(connection_module, "BODY_WITHIN", 0.1)
    with Client(serving.port) as slow:
        slow.sendall(request("POST", "/", "content-length: 5", "expect: 100-continue"))
        assert [slow.head()[0], slow.read()[0]] == [100, 408]


def test_a_body_is_not_asked_for_in_mid_answer(serving: Serving, client: Client) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await go_on(send, await read(receive))

    client.sendall(request("POST", "/", "content-length: 5", "expect: 100-continue"))
    assert client.head()[0] == 200
    client.sendall(b"hello")
    assert [client.chunk(), client.chunk()] == [b"hello", b""]


def test_a_faulty_body_behind_a_request_that_waits_is_no_fault_of_that(serving: Serving, client: Client) -> None:
    faulty = request("POST", "/", "transfer-encoding: chunked", body=b"x\r\n")
    client.sendall(request("GET", "/0") + request("GET", "/1") + faulty)
    assert [client.read()[2] for _ in range(2)] == [b"GET /0 ", b"GET /1 "]
    assert client.end()


def test_a_slow_body_cuts_an_answer_that_has_begun(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAD_WITHIN", 0.05)
    monkeypatch.setattr(connection_module, "BODY_WITHIN", 0.1)

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        while (message := await receive())["type"] == "http.request":
            await go_on(send, message["body"], more=True)

    with Client(serving.port) as slow:
        slow.sendall(post(b"hello")[:-2])
        assert slow.head()[0] == 200
        assert slow.chunk() == b"hel"
        assert slow.end()


def trickle(client: Client, data: bytes, seconds: float, size: int = 1) -> None:
    """Send `data` in pieces of `size` bytes, one every so many seconds, until the server closes the connection."""
    for place in range(0, len(data), size):
        try:
            client.sendall(data[place : place + size])
        except (BrokenPipeError, ConnectionResetError):
            return
        time.sleep(seconds)


@on_default_loop
def test_a_body_that_trickles_in_is_408(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAD_WITHIN", 0.05)
    monkeypatch.setattr(connection_module, "BODY_WITHIN", 0.3)
    with Client(serving.port) as slow:
        slow.sendall(post(b"x" * 1000)[:100])
        sending = threading.Thread(target=trickle, args=(slow, b"x" * 900, 0.02))
        sending.start()
        assert slow.read()[0] == 408
        assert slow.end()
        sending.join()


@on_default_loop
def test_a_body_that_keeps_to_the_rate_is_read_however_long_it_takes(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "HEAD_WITHIN", 0.05)
    monkeypatch.setattr(connection_module, "BODY_WITHIN", 2.0)
    body = b"x" * 9000
    with Client(serving.port) as slow:
        slow.sendall(post(body)[:-9000])
        trickle(slow, body, 0.15, size=300)  # 2,000 bytes a second, for more than twice `BODY_WITHIN`
        assert slow.read()[2] == b"POST / " + body


class _Kept:
    """Something that a scope refers to."""


def test_nothing_of_a_request_is_kept_while_the_rest_of_its_body_comes_after_the_answer(
    serving: Serving, client: Client
) -> None:
    kept: list[weakref.ref[_Kept]] = []

    @serving.serves
    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        scope["kept"] = _Kept()
        kept.append(weakref.ref(scope["kept"]))
        await answer(send, b"no", 401)

    assert client.ask(request("POST", "/", "content-length: 10") + b"12345")[0] == 401
    eventually(lambda: kept[0]() is None)
    serving.app = echo
    assert client.ask(b"67890" + GET)[0] == 200


@on_default_loop
def test_the_rest_of_a_body_that_is_answered_already_gains_no_time(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "REST_WITHIN", 0.3)
    monkeypatch.setattr(connection_module, "CHECK_EVERY", 0.05)
    monkeypatch.setattr(connection_module, "HEAD_WITHIN", 0.05)

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no", 401)

    with Client(serving.port) as slow:
        assert slow.ask(request("POST", "/", "content-length: 60000"))[0] == 401
        sending = threading.Thread(target=trickle, args=(slow, b"x" * 60_000, 0.01, 100))  # twenty times the rate
        sending.start()
        assert slow.end()
        sending.join()
    eventually(lambda: not serving.connections)


def test_chunks_have_a_bounded_amount_of_framing(serving: Serving, client: Client) -> None:
    chunk = b"1;" + b"a" * 10_000 + b"\r\nx\r\n"
    with Client(serving.port) as flooding:
        flooding.sendall(request("POST", "/", "transfer-encoding: chunked"))
        trickle(flooding, chunk * 20, 0.0, size=len(chunk))
        assert flooding.read()[0] == 431
    assert client.ask(chunked(*[b"x"] * 50_000))[2] == b"POST / " + b"x" * 50_000


def test_what_follows_a_faulty_request_is_not_read_without_end_while_an_earlier_one_is_answered(
    serving: Serving, gate: Gate, client: Client
) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await answer(send, b"late")

    client.sendall(GET + b"RUBBISH\r\n\r\n")
    refused = []

    def send_on() -> None:
        try:
            client.sendall(b"x" * 64_000_000)
        except (BrokenPipeError, ConnectionResetError) as error:
            refused.append(error)

    sending = threading.Thread(target=send_on)
    sending.start()
    eventually(lambda: serving.connections and serving.connections[0]._paused)
    gate.open()
    sending.join()
    assert refused


REFUSED = {
    "length and chunks": request("POST", "/", "content-length: 5", "transfer-encoding: chunked", body=b"0\r\n\r\n"),
    "chunks and length": request("POST", "/", "transfer-encoding: chunked", "content-length: 5", body=b"0\r\n\r\n"),
    "two lengths": request("POST", "/", "content-length: 5", "content-length: 6", body=b"hello!"),
    "a list of lengths": request("POST", "/", "content-length: 5, 5", body=b"hello"),
    "a negative length": request("POST", "/", "content-length: -5"),
    "a signed length": request("POST", "/", "content-length: +5", body=b"hello"),
    "an endless length": request("POST", "/", f"content-length: {2**70}"),
    "an endless chunk": request("POST", "/", "transfer-encoding: chunked", body=b"f" * 20 + b"\r\n"),
    "another coding": request("POST", "/", "transfer-encoding: gzip", body=b"hello"),
    "chunks not last": request("POST", "/", "transfer-encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "bare LF": b"GET / HTTP/1.1\nhost: a\n\n",
    "bare LF after a field": b"GET / HTTP/1.1\r\nhost: a\n\r\n",
    "bare LF in chunks": request("POST", "/", "transfer-encoding: chunked", body=b"1\nx\n0\n\n"),
    "a long chunk": request("POST", "/", "transfer-encoding: chunked", body=b"1\r\nxyz\r\n0\r\n\r\n"),
    "bare CR": b"GET / HTTP/1.1\r\nhost: a\rb: c\r\n\r\n",
    "a folded field": b"GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n z\r\n\r\n",
    "NUL": b"GET / HTTP/1.1\r\nhost: a\0b\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nhost : a\r\n\r\n",
    "a space before a field": b"GET / HTTP/1.1\r\n host: a\r\n\r\n",
    "a target without a slash": request("GET", "index.html"),
    "a target beyond ASCII": request("GET", "/ä"),
    "a query beyond ASCII": request("GET", "/?ä"),
    "CONNECT": request("CONNECT", "example.com:443"),
    "CONNECT to a path": request("CONNECT", "/path"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no method": request("SMUGGLE", "/"),
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "no Host for a URL": b"GET http://a/ HTTP/1.1\r\n\r\n",
    "two Hosts": request("GET", "/", "host: test"),
    "two Hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n",
    "two Hosts before an upgrade": request("GET", "/", "Host: b", "connection: upgrade", "upgrade: h2c"),
    **{
        f"Host {host[:10]}": f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode("latin-1")
        for host in (
            "",
            "a b",
            "a/b",
            "a@b",
            "a,b",
            "a;b",
            "a'b",
            "a+b",
            "a%2fb",
            "a:b",
            "a:80:80",
            "[::1",
            "::1",
            "http://a",
            "a:123456",
            "ä",
            "a" * 262,
        )
    },
    "a bad Host in HTTP/1.0": b"GET / HTTP/1.0\r\nhost: a/b\r\n\r\n",
    "a URL of another scheme": request("GET", "ftp://a/"),
    "a URL without a host": request("GET", "http:///a"),
    "a URL with a user": request("GET", "http://user@a/"),
    "an asterisk": request("GET", "*"),
    "RTSP": b"OPTIONS / RTSP/1.0\r\nhost: a\r\n\r\n",
    "RTSP/1.1": b"GET / RTSP/1.1\r\nhost: a\r\n\r\n",
    "RTSP after empty lines": b"\r\n\r\nGET / RTSP/1.0\r\nhost: a\r\n\r\n",
    "RTSP with a field that looks like HTTP": b"GET / RTSP/1.0\r\nx: / HTTP/1.1\r\nhost: a\r\n\r\n",
    "ICE": b"SOURCE / ICE/1.0\r\nhost: a\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    **{
        f"chunks, {name}": b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding" + field + b"\r\n\r\n0\r\n\r\n"
        for name, field in {
            "a space before the colon": b" : chunked",
            "a vertical tab": b": \x0bchunked",
            "a semicolon": b": chunked;",
            "a parameter": b": chunked;a=b",
            "quoted": b': "chunked"',
            "another name": b": xchunked",
            "identity": b": identity",
            "no coding": b":",
            "folded": b":\r\n chunked",
            "twice": b": chunked\r\ntransfer-encoding: chunked",
            "last of two fields": b": gzip\r\ntransfer-encoding: chunked",
        }.items()
    },
    **{
        f"a chunk's size, {size!r}": request(
            "POST", "/", "transfer-encoding: chunked", body=size + b"\r\nx\r\n0\r\n\r\n"
        )
        for size in (b"0x1", b"+1", b" 1", b"1 ", b"1_0", b"", b"1" + b"0" * 16, b"1;a\nb", b"1;a\rb", b'1;a="\r\n"')
    },
    "a length that is not there": request("POST", "/", "content-length:"),
    "the same length twice": request("POST", "/", "content-length: 1", "content-length: 1", body=b"x"),
    **{
        f"a length, {length!r}": request("POST", "/", f"content-length: {length}", body=b"x")
        for length in ("\x0b1", "1 1", "0x1", "1_0", "1;")
    },
    "a name with a space": request("GET", "/", "a b: c"),
    "no name": request("GET", "/", ": c"),
    "a tab before the target": b"GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@on_default_loop
@pytest.mark.parametrize(("before", "size"), [(GET, 10_000), (GET, 5), (b"", 7), (b"", 1)])
def test_a_refusal_does_not_depend_on_packets(serving: Serving, before: bytes, size: int) -> None:
    for name, sent in REFUSED.items():
        with Client(serving.port) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            trickle(client, before + sent, 0.0, size)
            statuses = []
            try:
                while True:
                    statuses.append(client.read()[0])
            except (EOFError, ConnectionResetError):
                pass
        # A line of another protocol is searched for in whole packets, so it may refuse the request before it, too.
        expected = [[200], [200, 400]] if before else [[400]]
        if "RTSP" in name or "ICE" in name:
            expected.append([400])
        assert statuses in expected, name


@on_default_loop
@pytest.mark.parametrize(
    "sent",
    [
        b"POST / HTTP/1.0\r\ncontent-length: 14\r\n\r\nwhat is / RTSP/1.0?"[:-5],
        b"\r\nPOST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n / ICE/1.0 ",
        b"GET / HTTP/1.0\r\nx: a/ RTSP/ b\r\n\r\n",
    ],
)
def test_what_a_request_says_of_other_protocols_is_no_fault(serving: Serving, client: Client, sent: bytes) -> None:
    assert client.ask(sent)[0] == 200


UNSUPPORTED = {
    "no version": (b"GET /\r\n\r\n", 400),
    "HTTP/0.9": (b"GET / HTTP/0.9\r\nhost: a\r\n\r\n", 400),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nhost: a\r\n\r\n", 505),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nhost: a\r\n\r\n", 505),
    "HTTP/3.0": (b"GET / HTTP/3.0\r\nhost: a\r\n\r\n", 505),
    "gzip before chunked": (request("POST", "/", "transfer-encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    "nothing before chunked": (request("POST", "/", "transfer-encoding: ,chunked", body=b"0\r\n\r\n"), 501),
    "too many fields": (request("GET", "/", *["a:"] * head.MAX_FIELDS), 431),
}


@on_default_loop
@pytest.mark.parametrize(("sent", "status"), UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_what_the_server_does_not_support_is_refused(client: Client, sent: bytes, status: int) -> None:
    assert client.ask(sent + GET)[0] == status
    assert client.end()


@on_default_loop
@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        request("GET", "/", *["a:"] * (head.MAX_FIELDS - 1)),
        *(
            f"GET / HTTP/1.1\r\nHOST: {host}\r\n\r\n".encode()
            for host in ("a", "a.example:80", "a:", "127.0.0.1", "[::1]:8080", "my_host", "a~b", "a.", "A", "\ta \t")
        ),
    ],
)
def test_a_request_with_a_proper_host_is_served(client: Client, sent: bytes) -> None:
    assert client.ask(sent)[2] == b"GET / "


def test_a_body_that_speaks_of_other_protocols_is_a_body(client: Client) -> None:
    body = b"GET /b RTSP/1.0\r\n  /b HTTP/1.1\r\n"
    client.sendall(GET + post(body, "/a") + GET)
    assert [client.read()[2] for _ in range(3)] == [b"GET / ", b"POST /a " + body, b"GET / "]


def test_the_host_of_a_url_is_the_one_that_counts(serving: Serving, client: Client, seen: Seen) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.put(scope["headers"])
        await answer(send, b"")

    assert client.ask(request("GET", "http://other:80/path", "a: b"))[0] == 200
    assert next_of(seen) == [(b"host", b"other:80"), (b"a", b"b")]


@on_default_loop
@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED.keys())
def test_what_may_be_read_in_two_ways_is_refused(client: Client, sent: bytes) -> None:
    status, headers, body = client.ask(sent + GET)
    assert (status, headers["connection"], body) == (400, "close", b'{"detail":"Bad Request"}')
    assert client.end()


@on_default_loop
@pytest.mark.parametrize(
    ("target", "path", "raw", "query"),
    [
        ("/a/b", "/a/b", b"/a/b", b""),
        ("/a?b=c&d=%20", "/a", b"/a", b"b=c&d=%20"),
        ("/?", "/", b"/", b""),
        ("/a#b", "/a", b"/a", b""),
        ("/a?b#c?d", "/a", b"/a", b"b"),
        ("/%C3%A4%2Fb", "/ä/b", b"/%C3%A4%2Fb", b""),
        ("/%ff%zz", "/\N{REPLACEMENT CHARACTER}%zz", b"/%ff%zz", b""),
        ("//host/path", "//host/path", b"//host/path", b""),
        ("//host/path?q", "//host/path", b"//host/path", b"q"),
        ("/a/../b", "/a/../b", b"/a/../b", b""),
        ("http://other/path?q", "/path", b"/path", b"q"),
        ("http://other", "/", b"/", b""),
        ("*", "*", b"*", b""),
    ],
)
def test_targets(
    serving: Serving,
    client: Client,
    seen: Seen,
    target: str,
    path: str,
    raw: bytes,
    query: bytes,
) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.put((scope["path"], scope["raw_path"], scope["query_string"]))
        await answer(send, b"")

    assert client.ask(request("OPTIONS", target))[0] == 200
    assert next_of(seen) == (path, raw, query)


def test_an_app_is_told_what_asgi_promises(serving: Serving, client: Client, seen: Seen) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.put(scope)
        await answer(send, b"")

    client.sendall(request("DELETE", "/%61?b", "X-Twice: 1", "x-twice: 2"))
    client.read()
    scope = next_of(seen)
    assert set(scope.pop("extensions")) == {EXTENSION}
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", serving.port),
        "client": client.getsockname(),
        "scheme": "http",
        "root_path": "",
        "method": "DELETE",
        "path": "/a",
        "raw_path": b"/%61",
        "query_string": b"b",
        "headers": [(b"host", b"test"), (b"x-twice", b"1"), (b"x-twice", b"2")],
        "state": {},
    }


def test_a_scope_may_be_copied_deeply(serving: Serving, client: Client, seen: Seen) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.put(deepcopy(scope)["path"])
        await answer(send, b"")

    client.sendall(request("GET", "/a"))
    client.read()
    assert next_of(seen) == "/a"


@pytest.mark.parametrize("loop", LOOPS)
def test_a_root_path_stands_before_the_path(loop: str, seen: Seen) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.put((scope["root_path"], scope["path"], scope["raw_path"]))
        await answer(send, b"")

    with Serving(loop, root_path="/bot") as serving, Client(serving.port) as client:
        serving.app = app
        assert client.ask(request("GET", "/%61?b"))[0] == 200
    assert next_of(seen) == ("/bot", "/bot/a", b"/bot/%61")


# Upgrades.

H2C = (
    "connection: Upgrade, HTTP2-Settings",
    "upgrade: h2c",
    "http2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
)
HANDSHAKE = (
    "connection: keep-alive, Upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)


@on_default_loop
@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (request("GET", "/", *H2C), b"GET / "),
        (post(b"hello", "/", *H2C), b"POST / hello"),
        (post(request("GET", "/hidden"), "/", *H2C), b"POST / " + request("GET", "/hidden")),
        (chunked(b"he", b"llo", headers=H2C), b"POST / hello"),
        (post(b"hello", "/", *HANDSHAKE), b"POST / hello"),
        (request("GET", "/", "connection: upgrade", "upgrade: a", "upgrade: b"), b"GET / "),
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
def test_an_offered_upgrade_is_left_alone_and_the_body_is_read(
    client: Client, sent: bytes, body: bytes, size: int
) -> None:
    both = sent + sent + GET
    trickle(client, both, 0.0, size)
    assert [client.read()[2] for _ in range(3)] == [body, body, b"GET / "]


def test_an_app_sees_that_an_upgrade_was_offered(serving: Serving, client: Client, seen: Seen) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.put(sorted(scope["headers"]))
        await answer(send, b"")

    client.sendall(request("GET", "/", "connection: upgrade", "upgrade: h2c") + GET)
    assert [client.read()[0] for _ in range(2)] == [200, 200]
    assert next_of(seen) == [(b"connection", b"upgrade"), (b"host", b"test"), (b"upgrade", b"h2c")]
    assert next_of(seen) == [(b"host", b"test")]


async def websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what was said, and where."""
    if scope["type"] == "http":
        return await echo(scope, receive, send)
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": f"{scope['path']} {message['text']}"})


def frame(text: str) -> bytes:
    """What a client says in a WebSocket."""
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=True)


def said(client: Client) -> bytes:
    """What the server says in one, if it is short."""
    start, length = client.take(2)
    assert start == 0x81
    return client.take(length)


@pytest.mark.parametrize("size", [1, 10_000])
def test_a_handshake_and_its_first_frames_may_come_at_once(serving: Serving, client: Client, size: int) -> None:
    serving.app = websocket
    sent = request("GET", "/ws", *HANDSHAKE) + frame("one") + frame("two")
    trickle(client, sent, 0.0, size)
    assert client.head()[0] == 101
    client.sendall(frame("three"))
    assert [said(client) for _ in range(3)] == [b"/ws one", b"/ws two", b"/ws three"]
    client.sendall(Frame(Opcode.CLOSE, Close(1000, "").serialize()).serialize(mask=True))


@on_default_loop
@pytest.mark.parametrize(
    "sent",
    [
        request("GET", "/ws", *HANDSHAKE[:3]),
        request("GET", "/ws", *HANDSHAKE, "content-length: 5", body=b"hello"),
        request("GET", "/ws", *HANDSHAKE, "transfer-encoding: chunked", body=b"0\r\n\r\n"),
        request("GET", "/ws", *HANDSHAKE, HANDSHAKE[3]),
        request("GET", "ws", *HANDSHAKE),
    ],
    ids=["no key", "a body", "chunks", "two keys", "a bad target"],
)
def test_a_handshake_that_cannot_be_read_is_refused(serving: Serving, client: Client, sent: bytes) -> None:
    serving.app = websocket
    assert client.ask(sent)[0] == 400
    assert client.end()
    client.close()
    eventually(lambda: not serving.connections)


async def websocket_scope(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept with a subprotocol, if there was one, and tell what is in the scope."""
    if scope["type"] == "http":
        return await echo(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
    headers = b" ".join(b"%b=%d" % (name, len(value)) for name, value in scope["headers"] if name[:3] != b"sec")
    where = scope["path"].encode() + b" " + scope["raw_path"] + b" " + scope["query_string"]
    await send({"type": "websocket.send", "bytes": where + b" " + headers})


@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ((f"cookie: {'c' * 9_000}",), b" cookie=9000"),
        ((f"x: {'v' * 60_000}",), b" x=60000"),
        (("a: b",) * (head.MAX_FIELDS - 5), b" a=1" * (head.MAX_FIELDS - 5)),
        (("sec-websocket-protocol: a",) * 200, b""),
    ],
    ids=["a long cookie", "60,000 bytes", "many fields", "many subprotocols"],
)
@pytest.mark.parametrize("implementation", ["auto", "wsproto"])
def test_a_handshake_may_be_as_large_as_other_requests(
    implementation: str, fields: tuple[str, ...], seen: bytes
) -> None:
    with Serving("asyncio", ws=implementation) as serving, Client(serving.port) as client:
        serving.app = websocket_scope
        client.sendall(request("GET", "/w%20s?q", *HANDSHAKE, *fields))
        assert client.head()[0] == 101
        kind, length = client.take(2)
        assert kind == 0x82
        if length == 126:
            length = int.from_bytes(client.take(2), "big")
        assert client.take(length) == b"/w s /w%20s q host=4 connection=19 upgrade=9" + seen


def test_the_fields_of_a_handshake_itself_have_8_kib(serving: Serving, client: Client) -> None:
    serving.app = websocket
    assert client.ask(request("GET", "/ws", *HANDSHAKE, f"sec-websocket-protocol: {'p' * 8_192}"))[0] == 431
    assert client.end()
    with Client(serving.port) as other:
        other.sendall(request("GET", "/ws", *HANDSHAKE, f"sec-websocket-protocol: {'p' * 7_900}"))
        assert other.head()[0] == 101


@pytest.mark.parametrize("behind", [b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"\xff" * 1000], ids=["a request", "rubbish"])
def test_what_is_no_frame_behind_a_handshake_closes_the_websocket_and_nothing_of_it_remains(
    serving: Serving, client: Client, behind: bytes
) -> None:
    serving.app = websocket
    client.sendall(request("GET", "/ws", *HANDSHAKE) + behind)
    assert client.head()[0] == 101
    assert client.take(4)[2:] == (1002).to_bytes(2, "big")
    client.close()
    eventually(lambda: not serving.connections)


@pytest.mark.parametrize("behind", [b"", frame("one"), b"hello"], ids=["nothing", "a frame", "rubbish"])
@pytest.mark.parametrize("refusal", ["an answer", "a close"])
def test_a_refused_handshake_is_no_error_and_nothing_of_it_remains(
    serving: Serving,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    refusal: str,
    behind: bytes,
) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if refusal == "a close":
            return await send({"type": "websocket.close"})
        await send({"type": "websocket.http.response.start", "status": 403, "headers": [(b"x", b"y")]})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    client.sendall(request("GET", "/ws", *HANDSHAKE) + behind)
    assert client.head()[0] == 403
    eventually(lambda: not serving.connections)
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


@pytest.mark.parametrize("ends_first", ["the client", "the app"])
def test_an_ended_websocket_leaves_nothing_to_the_garbage_collector(
    serving: Serving, client: Client, ends_first: str
) -> None:
    kept: list[weakref.ref[_Kept]] = []

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["kept"] = _Kept()
        kept.append(weakref.ref(scope["kept"]))
        await receive()
        await send({"type": "websocket.accept"})
        if ends_first == "the app":
            await send({"type": "websocket.close"})
        else:
            while (await receive())["type"] != "websocket.disconnect":
                pass

    with without_garbage_collector():
        client.upgrade()
        if ends_first == "the app":
            client.take(4)
        client.shutdown(socket.SHUT_RDWR)
        eventually(lambda: kept[0]() is None)


def test_an_app_that_answers_late_gets_what_came_before_its_answer(serving: Serving, client: Client) -> None:
    accept = asyncio.Event()

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept.wait()
        await websocket(scope, receive, send)

    client.sendall(request("GET", "/ws", *HANDSHAKE) + frame("x" * 100))
    for _ in range(20):
        client.sendall(frame("y" * 100) * 100)  # more than is kept
    serving.do(accept.set)
    assert client.head()[0] == 101
    assert [said(client) for _ in range(2001)] == [b"/ws " + b"x" * 100, *[b"/ws " + b"y" * 100] * 2000]


def test_a_client_that_reads_nothing_does_not_keep_its_closed_websocket_open(
    serving: Serving, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "CHECK_RATE_EVERY", 0.2)

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": b"x" * 20_000_000})

    client.upgrade()
    eventually(lambda: not serving.connections)


@pytest.mark.parametrize("loop", DEFAULT_LOOP)
def test_a_websocket_whose_client_reads_steadily_outlasts_the_times_of_messages_and_pings(loop: str) -> None:
    app = App()

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        ws.send_timeout = 1.0
        await ws.accept()
        for _ in range(2):
            await ws.send_bytes(b"x" * 16_000_000)

    with (
        Serving(loop, ws_ping_interval=0.2, ws_ping_timeout=0.6) as serving,
        SteadyClient(serving.port, kept=65_536) as client,
    ):
        serving.app = app
        client.upgrade()
        read = 0
        while read < 32_000_000:
            start, length = client.take(2)
            if start == 0x89:  # a ping that the client reads late, and does not answer
                assert length == 0
                continue
            assert (start, length) == (0x82, 127)
            read += len(client.take(int.from_bytes(client.take(8))))


@pytest.mark.parametrize("loop", LOOPS)
def test_a_websocket_whose_client_reads_nothing_is_cut(loop: str, seen: Seen) -> None:
    app = App()

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        ws.send_timeout = 0.4
        await ws.accept()
        try:
            while True:
                await ws.send_bytes(b"x" * 1_000_000)
        finally:
            seen.put("ended")

    with Serving(loop) as serving, Client(serving.port, kept=4096) as client:
        serving.app = app
        client.upgrade()
        assert next_of(seen) == "ended"
        eventually(lambda: not serving.connections)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_websocket_whose_client_sends_but_does_not_read_is_closed_by_a_ping(loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": b"x" * 8_000_000})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    with Serving(loop, ws_ping_interval=0.1, ws_ping_timeout=0.2) as serving, Client(serving.port, kept=4096) as client:
        serving.app = app
        client.upgrade()

        def is_closed() -> bool:
            try:
                client.sendall(frame("I am here"))
            except (BrokenPipeError, ConnectionResetError):
                return True
            return False

        eventually(is_closed)
        eventually(lambda: not serving.connections)


def test_a_handshake_after_an_answered_request(serving: Serving, client: Client) -> None:
    serving.app = websocket
    assert client.ask(post(b"hello"))[2] == b"POST / hello"
    client.sendall(request("GET", "/ws", *HANDSHAKE) + frame("one"))
    assert client.head()[0] == 101
    assert said(client) == b"/ws one"


def test_a_handshake_behind_an_answer_that_is_read_slowly_opens_a_websocket_that_stays(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "CHECK_RATE_EVERY", 1.0)
    monkeypatch.setattr(backlog, "MIN_READ_RATE", 1_000_000_000)  # nobody reads so fast

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            return await answer(send, b"x" * 20_000_000)
        await websocket(scope, receive, send)

    with Client(serving.port, kept=4096) as client:
        client.sendall(GET)
        eventually(lambda: any(getattr(one, "blocked", None) for one in serving.connections))
        client.sendall(request("GET", "/ws", *HANDSHAKE))
        eventually(lambda: not any(isinstance(one, Http1Protocol) for one in serving.connections))
        time.sleep(1.2)  # longer than `CHECK_RATE_EVERY`
        assert client.read()[2] == b"x" * 20_000_000
        assert client.head()[0] == 101
        client.sendall(frame("one"))
        assert said(client) == b"/ws one"


@pytest.mark.parametrize("requests", [1, 3])
@pytest.mark.parametrize("size", [7, 10_000])
def test_a_handshake_behind_requests_opens_a_websocket_when_they_are_answered(
    serving: Serving, gate: Gate, client: Client, seen: Seen, requests: int, size: int
) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.put(scope["type"])
        if scope["type"] == "http":
            await gate.wait()
        await websocket(scope, receive, send)

    sent = GET * requests + request("GET", "/ws", *HANDSHAKE) + frame("one") + frame("two")
    trickle(client, sent, 0.0, size)
    assert next_of(seen) == "http"
    # While a request waits behind another the server reads no further, unless both came in one packet.
    eventually(lambda: any(one._handshake or one.pipelined for one in serving.connections))
    assert seen.empty()
    gate.open()
    assert [client.read()[2] for _ in range(requests)] == [b"GET / "] * requests
    assert client.head()[0] == 101
    client.sendall(frame("three"))
    assert [said(client) for _ in range(3)] == [b"/ws one", b"/ws two", b"/ws three"]


@on_default_loop
@pytest.mark.parametrize("fault", [HANDSHAKE[:3], (*HANDSHAKE, "content-length: 5")], ids=["no key", "a body"])
def test_a_faulty_handshake_behind_a_request_is_refused_when_that_is_answered(
    serving: Serving, client: Client, fault: tuple[str, ...]
) -> None:
    serving.app = websocket
    assert client.ask(GET + request("GET", "/ws", *fault))[2] == b"GET / "
    assert client.read()[0] == 400
    assert client.end()
    client.close()
    eventually(lambda: not serving.connections)


def test_a_handshake_behind_the_last_answer_is_dropped(serving: Serving, client: Client) -> None:
    serving.app = websocket
    assert client.ask(request("GET", "/", "connection: close") + request("GET", "/ws", *HANDSHAKE))[2] == b"GET / "
    assert client.end()


@on_default_loop
def test_a_websocket_is_not_subject_to_the_times_of_requests(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAD_WITHIN", 0.5)
    monkeypatch.setattr(serving.config, "timeout_keep_alive", 0.5)
    serving.app = websocket
    with Client(serving.port) as client:
        client.upgrade()
        time.sleep(1.5)
        client.sendall(frame("one"))
        assert said(client) == b"/ws one"


@pytest.mark.parametrize("loop", LOOPS)
def test_a_websocket_that_answers_no_ping_is_closed(loop: str) -> None:
    with (
        Serving(loop, ws_ping_interval=0.05, ws_ping_timeout=0.05) as serving,
        Client(serving.port) as client,
    ):
        serving.app = websocket
        client.upgrade()
        assert client.take(1) == b"\x89"
        eventually(lambda: not serving.connections)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_handler_that_sends_while_the_server_closes_its_websocket_sees_a_client_that_has_left(loop: str) -> None:
    seen: queue.Queue[Exception] = queue.Queue()
    app = App()

    @app.websocket("/ws")
    async def sending(ws: WebSocket) -> None:
        await ws.accept()
        try:
            while True:
                await ws.send_text("still here")
                await asyncio.sleep(0)
        except Exception as error:
            seen.put(error)
            raise

    # uvicorn's own protocol closes a WebSocket whose client reads and answers no ping; ours does not.
    with (
        Serving(loop, http="h11", ws_ping_interval=0.05, ws_ping_timeout=0.05) as serving,
        Client(serving.port) as client,
    ):
        serving.app = app
        client.sendall(request("GET", "/ws", *HANDSHAKE))
        with suppress(ConnectionError):
            while client.recv(65_536):
                pass
        assert isinstance(seen.get(timeout=TIMEOUT), WebSocketDisconnected)


@pytest.mark.parametrize("loop", LOOPS)
def test_without_an_implementation_of_websockets_a_handshake_is_a_request(loop: str) -> None:
    with Serving(loop, ws="none") as serving, Client(serving.port) as client:
        client.sendall(request("GET", "/ws", *HANDSHAKE) + GET)
        assert [client.read()[2] for _ in range(2)] == [b"GET /ws ", b"GET / "]


# Apps that go wrong.


def begins(length: int) -> Message:
    """The beginning of an answer."""
    headers = [(b"content-length", b"%d" % length)]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def ends(body: object) -> Message:
    """The end of an answer."""
    return {"type": "http.response.body", "body": body}


def sends(*messages: Message, error: Exception | None = None) -> ASGIApp:
    """An app that sends just this, and raises the error."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    return app


async def exits(scope: Scope, receive: Receive, send: Send) -> None:
    raise SystemExit(3)


class Panic(BaseException):
    """What extensions in Rust raise if they panic is not an `Exception` either."""


async def panics(scope: Scope, receive: Receive, send: Send) -> None:
    raise Panic


async def cancels_itself(scope: Scope, receive: Receive, send: Send) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.Event().wait()


def with_header(name: Any, value: Any) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"body", 200, [(name, value)])

    return app


def with_status(status: int) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"", status)

    return app


FAULTY: dict[str, ASGIApp] = {
    "an error before the start": sends(error=ValueError("oops")),
    "an error after the start": sends(begins(5), error=ValueError("oops")),
    "nothing": sends(),
    "a start alone": sends(begins(5)),
    "an exit": exits,
    "a panic": panics,
    "the body first": sends(ends(b"body")),
    "two starts": sends(begins(0), begins(0)),
    "text for a body": sends(begins(100_000), ends("x" * 100_000)),
    "too much": sends(begins(4), ends(b"hello")),
    "too little": sends(begins(6), ends(b"hello")),
    "a message of no kind": sends({"type": "http.response.trailers", "headers": []}),
    "CR in a value": with_header(b"x", b"a\rb"),
    "LF in a value": with_header(b"x", b"a\nset-cookie: b"),
    "CRLF in a value": with_header(b"x", b"a\r\nset-cookie: b"),
    "CRLF at the end": with_header(b"x", b"a\r\n"),
    "NUL in a value": with_header(b"x", b"a\0b"),
    "CRLF in a name": with_header(b"x: y\r\nset-cookie", b"a"),
    "a colon in a name": with_header(b"x: y", b"a"),
    "a space after a name": with_header(b"x ", b"a"),
    "no name": with_header(b"", b"a"),
    "a name beyond ASCII": with_header("ä".encode(), b"a"),
    "text for a value": with_header(b"x", "a"),
    "text for a name": with_header("x", b"a"),
    "another length": with_header(b"content-length", b"5"),
    "the length twice": with_header(b"content-length", b"4"),
    "a status that ends nothing": with_status(100),
    "an upgrade": with_status(101),
    "a status of four digits": with_status(2000),
}


@on_default_loop
@pytest.mark.parametrize("app", FAULTY.values(), ids=FAULTY.keys())
def test_a_fault_of_an_app_is_500_and_told(
    serving: Serving, client: Client, app: ASGIApp, caplog: pytest.LogCaptureFixture
) -> None:
    serving.app = app
    status, headers, body = client.ask(post(b"hello") + GET)
    assert (status, headers["connection"], body) == (500, "close", b"Internal Server Error")
    assert client.end()
    assert len([record for record in caplog.records if record.name == "uvicorn.error"]) == 1


@on_default_loop
@pytest.mark.parametrize("length", ["+4", " 4", "4_0", "-1", "0x4", "", "four"])
def test_a_length_is_a_number(serving: Serving, client: Client, length: str) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200, [(b"content-length", length.encode())])
        await go_on(send, b"four")

    assert client.ask(GET)[0] == 500


def test_an_app_may_mend_a_start_that_was_refused(serving: Serving, client: Client) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(RuntimeError, match="line break"):
            await start(send, 200, [(b"x", b"a\r\nb: c")])
        await answer(send, b"mended")

    assert client.ask(GET)[2] == b"mended"


@on_default_loop
@pytest.mark.parametrize(
    "fault", ["raises", "returns", "exits", "panics", "sends too much", "sends too little", "is cancelled"]
)
@pytest.mark.parametrize("framing", ["length", "chunks", "end"])
def test_a_fault_in_mid_answer_cuts_it(serving: Serving, client: Client, fault: str, framing: str) -> None:
    if framing != "length" and fault.startswith("sends"):
        fault = "raises"

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200, [(b"content-length", b"10")] if framing == "length" else [])
        await go_on(send, b"hello", more=True)
        match fault:
            case "raises":
                raise ValueError("oops")
            case "exits":
                raise SystemExit
            case "panics":
                raise Panic
            case "sends too much":
                await go_on(send, b"hello!", more=True)
            case "sends too little":
                await go_on(send, b"hell")
            case "is cancelled":
                await cancels_itself(scope, receive, send)

    client.sendall((b"GET / HTTP/1.0\r\n\r\n" if framing == "end" else GET) + GET)
    with pytest.raises((EOFError, ValueError, ConnectionResetError)):  # ValueError: no size of a chunk
        client.read()


def test_a_task_that_is_cancelled_before_it_answers_is_500(serving: Serving, client: Client) -> None:
    serving.app = cancels_itself
    assert client.ask(GET)[0] == 500
    assert client.end()


def test_an_app_may_work_on_after_its_answer(serving: Serving, gate: Gate, client: Client, seen: Seen) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"done")
        await gate.wait()
        seen.put((await receive())["type"])
        with pytest.raises(RuntimeError, match="after the end"):
            await go_on(send, b"more")
        with pytest.raises(RuntimeError, match="after the end"):
            await start(send)
        seen.put("ended")
        raise ValueError("too late to be told to the client")

    assert client.ask(GET)[2] == b"done"
    serving.app = echo
    assert client.ask(GET)[2] == b"GET / "
    gate.open()
    assert [next_of(seen), next_of(seen)] == ["http.disconnect", "ended"]
    assert client.ask(GET)[2] == b"GET / "


def test_who_waits_for_the_end_is_told_when_the_answer_is_complete(
    serving: Serving, client: Client, seen: Seen
) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        watching = asyncio.ensure_future(receive())
        await asyncio.sleep(0)  # so that it waits
        await start(send)
        await go_on(send, b"part", more=True)
        assert not watching.done()
        await go_on(send, b"")
        seen.put((await watching)["type"])

    assert client.ask(GET)[2] == b"part"
    assert next_of(seen) == "http.disconnect"


def test_who_waits_for_the_end_is_told_even_if_another_stopped_to_wait(
    serving: Serving, client: Client, seen: Seen
) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        waiting = [asyncio.ensure_future(receive()) for _ in range(3)]
        await asyncio.sleep(0)  # so that they wait
        waiting[1].cancel()
        await asyncio.sleep(0)
        await answer(send, b"done")
        for told in (waiting[0], waiting[2]):
            seen.put((await told)["type"])

    assert client.ask(GET)[2] == b"done"
    assert [next_of(seen), next_of(seen)] == ["http.disconnect"] * 2


# Handlers that are cancelled if their client leaves.


def watched(serving: Serving, seen: Seen, handler: Any, admit: Any = None) -> None:
    """Serve the handler. The test is told the status in the record, and how often the task is still cancelled."""
    app = App(admit=admit)
    app.get("/", public=admit is None, cancel_on_disconnect=True)(handler)
    app.on_request.append(lambda record: seen.put(record.status))

    @serving.serves
    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            seen.put("cancelled")
            raise
        finally:
            seen.put(task.cancelling())


def leave_while_it_waits(client: Client, seen: Seen, sent: bytes = GET) -> None:
    """Ask, and leave when the handler `waits`."""
    client.sendall(sent)
    assert next_of(seen) == "waits"
    client.close()


async def waits(seen: Seen) -> None:
    seen.put("waits")
    await asyncio.get_running_loop().create_future()


def test_a_handler_whose_client_leaves_is_cancelled_and_its_task_goes_on(
    serving: Serving, client: Client, seen: Seen
) -> None:
    async def handler(request: Request) -> Response:
        await waits(seen)
        raise AssertionError

    watched(serving, seen, handler)
    leave_while_it_waits(client, seen)
    assert [next_of(seen), next_of(seen)] == [CLIENT_GONE, 0]


def test_a_handler_that_suppresses_its_cancellation_is_recorded_as_left_by_its_client(
    serving: Serving, client: Client, seen: Seen
) -> None:
    async def handler(request: Request) -> Response:
        with suppress(asyncio.CancelledError):
            await waits(seen)
        return Response("nobody reads this")

    watched(serving, seen, handler)
    leave_while_it_waits(client, seen)
    assert [next_of(seen), next_of(seen)] == [CLIENT_GONE, 0]


def test_what_a_cancelled_handler_raises_is_logged_and_its_task_goes_on(
    serving: Serving, client: Client, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: Request) -> Response:
        try:
            await waits(seen)
        finally:
            raise LookupError("in its cleanup")

    watched(serving, seen, handler)
    leave_while_it_waits(client, seen)
    assert [next_of(seen), next_of(seen)] == [500, 0]
    assert "in its cleanup" in caplog.text


def test_another_cancellation_of_the_handler_s_task_goes_on(serving: Serving, client: Client, seen: Seen) -> None:
    async def handler(request: Request) -> Response:
        try:
            await waits(seen)
        finally:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # as a timeout of a wrapper would at the same time
        raise AssertionError

    watched(serving, seen, handler)
    leave_while_it_waits(client, seen)
    assert [next_of(seen), next_of(seen)] == ["cancelled", 1]


def test_a_handler_whose_client_has_left_already_does_not_begin(serving: Serving, client: Client, seen: Seen) -> None:
    async def admit(request: Request, route: Any) -> object:
        seen.put("admits")
        while (await request.receive())["type"] != "http.disconnect":
            pass
        return "known"

    async def handler(request: Request) -> Response:
        await waits(seen)
        raise AssertionError

    watched(serving, seen, handler, admit)
    client.sendall(GET)
    assert next_of(seen) == "admits"
    client.close()
    assert [next_of(seen), next_of(seen)] == [CLIENT_GONE, 0]


def test_a_client_that_leaves_a_stream_of_a_watched_handler_cancels_its_task_once(
    serving: Serving, client: Client, seen: Seen
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield b"part"
            await asyncio.sleep(0.01)

    async def handler(request: Request) -> Response:
        return StreamingResponse(parts())

    watched(serving, seen, handler)
    client.sendall(GET)
    assert client.recv(100)
    client.close()
    assert [next_of(seen), next_of(seen)] == [200, 0]


async def in_a_group(work: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work)


async def until_the_end(work: Coroutine[Any, Any, None]) -> None:
    await asyncio.wait({asyncio.create_task(work)})


@pytest.mark.parametrize("run", [in_a_group, until_the_end])
def test_a_handler_that_a_wrapper_runs_in_another_task_is_cancelled_and_the_wrapper_is_not(
    serving: Serving, client: Client, seen: Seen, run: Callable[[Coroutine[Any, Any, None]], Awaitable[None]]
) -> None:
    async def handler(request: Request) -> Response:
        await waits(seen)
        raise AssertionError

    watched(serving, seen, handler)
    app = serving.app

    @serving.serves
    async def wrapper(scope: Scope, receive: Receive, send: Send) -> None:
        async def work() -> None:
            await app(scope, receive, send)

        await run(work())
        await asyncio.sleep(0)
        seen.put("the wrapper goes on")

    leave_while_it_waits(client, seen)
    assert [next_of(seen) for _ in range(3)] == [CLIENT_GONE, 0, "the wrapper goes on"]


class InAnotherTask(App):
    """An app that runs each request in a task of its own."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send, *, inside: bool = False) -> None:
        await until_the_end(super().__call__(scope, receive, send, inside=inside))


@contextmanager
def serving_itself(app: App, seen: Seen) -> Iterator[Client]:
    """Serve an app that nothing is in front of, and yield a client. Tasks of the test end with "goes on" if they do."""
    app.get("/")(answers_at_once)
    app.on_request.append(lambda record: None if record.path == "/" else seen.put(record.status))
    with Serving("asyncio", root=app, proxy_headers=False) as serving, Client(serving.port) as client:
        yield client


async def answers_at_once(request: Request) -> Response:
    return Response("here")


def waiting_app(app: App, seen: Seen) -> App:
    @app.get("/waiting", cancel_on_disconnect=True)
    async def handler(request: Request) -> Response:
        await waits(seen)
        raise AssertionError

    return app


@pytest.mark.parametrize("kind", [App, InAnotherTask])
def test_a_handler_of_an_app_that_the_server_calls_itself_is_cancelled(seen: Seen, kind: type[App]) -> None:
    with serving_itself(waiting_app(kind(), seen), seen) as client:
        leave_while_it_waits(client, seen, request("GET", "/waiting"))
        assert next_of(seen) == CLIENT_GONE


@pytest.mark.parametrize("run", [in_a_group, until_the_end])
def test_wrappers_of_an_app_that_the_server_calls_itself_are_not_cancelled(
    seen: Seen, run: Callable[[Coroutine[Any, Any, None]], Awaitable[None]]
) -> None:
    app = waiting_app(App(), seen)

    def wrapper(inner: ASGIApp) -> ASGIApp:
        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            async def work() -> None:
                await inner(scope, receive, send)

            await run(work())
            await asyncio.sleep(0)
            if scope["path"] == "/waiting":
                seen.put("the wrapper goes on")

        return wrapped

    app.wrap(wrapper)
    with serving_itself(app, seen) as client:
        leave_while_it_waits(client, seen, request("GET", "/waiting"))
        assert [next_of(seen), next_of(seen)] == [CLIENT_GONE, "the wrapper goes on"]


def test_a_handler_that_calls_another_app_in_a_task_is_not_cancelled_for_it(seen: Seen) -> None:
    inner, outer = waiting_app(App(), seen), App()
    inner.on_request.append(lambda record: seen.put(record.status))

    async def discard(message: Message) -> None: ...

    @outer.get("/waiting")
    async def handler(request: Request) -> Response:
        await until_the_end(inner(request.scope, request.receive, discard))
        seen.put("the outer handler goes on")
        return Response("nobody reads this")

    with serving_itself(outer, seen) as client:
        leave_while_it_waits(client, seen, request("GET", "/waiting"))
        assert [next_of(seen), next_of(seen)] == [CLIENT_GONE, "the outer handler goes on"]


def test_streams_that_are_sent_at_once_each_have_their_own_parts_in_order(serving: Serving) -> None:
    number = 8
    everybody = asyncio.Event()
    waiting: list[Scope] = []

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        waiting.append(scope)
        if len(waiting) == number:
            everybody.set()
        await everybody.wait()  # so that all send in the same turns of the loop
        await start(send)
        for part in range(200):
            await go_on(send, b"%b %d;" % (scope["raw_path"], part), more=True)
            if part % 3 == 0:
                await asyncio.sleep(0)
        await go_on(send, b"")

    with ExitStack() as stack:
        clients = [stack.enter_context(Client(serving.port)) for _ in range(number)]
        for index, client in enumerate(clients):
            client.sendall(request("GET", f"/{index}"))
        for index, client in enumerate(clients):
            expected = b"".join(b"/%d %d;" % (index, part) for part in range(200))
            assert client.read()[2] == expected


# Clients that leave.


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_an_app_is_told_that_the_client_left(serving: Serving, seen: Seen, reset: bool, begun: bool) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await start(send)
            await go_on(send, b"part", more=True)
        assert await read(receive) == b"hello"
        seen.put("read")
        seen.put((await receive())["type"])
        seen.put((await receive())["type"])  # it stays so
        await start(send)  # and nothing that is sent is wrong, or goes anywhere
        await go_on(send, b"for nobody", more=True)
        seen.put("sent")

    client = Client(serving.port)
    client.sendall(post(b"hello"))
    assert next_of(seen) == "read"
    if reset:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert [next_of(seen) for _ in range(3)] == ["http.disconnect", "http.disconnect", "sent"]


def test_an_app_is_told_that_the_rest_of_a_body_will_not_come(serving: Serving, seen: Seen) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            assert message["more_body"]
        seen.put(message["type"])

    with Client(serving.port) as client:
        client.sendall(post(b"hello")[:-1])
    assert next_of(seen) == "http.disconnect"


def test_what_was_answered_reaches_a_client_that_only_hears(serving: Serving) -> None:
    for _ in range(50):
        with Client(serving.port) as client:
            client.sendall(GET)
            client.shutdown(socket.SHUT_WR)
            try:
                assert client.read()[2] == b"GET / "
            except EOFError:
                pytest.fail("the answer was dropped")
            assert client.end()


def test_a_client_that_hears_only_gets_an_answer_as_a_whole_or_none(serving: Serving, seen: Seen) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        seen.put((await receive())["type"])
        await answer(send, b"late")

    with Client(serving.port) as client:
        client.sendall(GET)
        client.shutdown(socket.SHUT_WR)
        assert client.end()
    assert next_of(seen) == "http.disconnect"


# Our own streams, which hear of it without a task that waits.


def streaming(content: Callable[[], AsyncIterator[bytes]], send_timeout: float = TIMEOUT) -> App:
    """An app that answers with a stream of ours."""
    app = App()

    @app.get("/")
    async def handler(request: Request) -> Response:
        response = StreamingResponse(content())
        response.send_timeout = send_timeout
        return response

    app.post("/")(handler)
    return app


def ask_and_leave(serving: Serving, seen: Seen) -> Any:
    """Ask, and leave once the app has told something, which is returned when the server knows that the client left."""
    with Client(serving.port) as client:
        client.sendall(GET)
        told = next_of(seen)
        [connection] = serving.connections
    eventually(lambda: connection not in serving.connections)
    return told


def test_a_stream_s_content_is_cancelled_when_its_client_leaves_and_needs_no_task_for_that(
    serving: Serving, seen: Seen
) -> None:
    async def content() -> AsyncIterator[bytes]:
        before = len(asyncio.all_tasks())
        yield b"part"
        await asyncio.sleep(0.01)
        seen.put(len(asyncio.all_tasks()) - before)
        await wait_until_cancelled(seen)

    serving.app = streaming(content)
    with Client(serving.port) as client:
        client.sendall(GET)
        assert next_of(seen) == 0
    assert next_of(seen) == "cancelled"


def test_a_stream_whose_client_has_left_before_it_begins_is_cancelled(serving: Serving, gate: Gate, seen: Seen) -> None:
    async def content() -> AsyncIterator[bytes]:
        try:
            yield b"part"
            await asyncio.Event().wait()
        finally:
            seen.put("cancelled")

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.put("asked")
        await gate.wait()
        await streaming(content)(scope, receive, send)

    assert ask_and_leave(serving, seen) == "asked"
    gate.open()
    assert next_of(seen) == "cancelled"


def test_who_works_on_after_a_stream_failed_is_not_cancelled_when_the_client_leaves(
    serving: Serving, gate: Gate, seen: Seen
) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"part"
        raise ValueError("no more")

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(ValueError, match="no more"):
            await streaming(content)(scope, receive, send)
        seen.put("failed")
        await gate.wait()
        seen.put("went on")

    assert ask_and_leave(serving, seen) == "failed"
    gate.open()
    assert next_of(seen) == "went on"


@pytest.mark.parametrize(
    "sent",
    [
        request("POST", "/", "transfer-encoding: chunked", body=b"5\r\nhello\r\n"),
        request("POST", "/", "content-length: 5", "expect: 100-continue"),
        request("POST", "/", "content-length: 500000", body=b"hello"),
    ],
)
def test_a_stream_whose_request_s_body_nobody_reads_is_cancelled_when_its_client_leaves(
    serving: Serving, seen: Seen, sent: bytes
) -> None:
    async def content() -> AsyncIterator[bytes]:
        seen.put("begun")
        try:
            await asyncio.Event().wait()
            yield b"never"
        finally:
            seen.put("cancelled")

    serving.app = streaming(content)
    with Client(serving.port) as client:
        client.sendall(sent)
        assert next_of(seen) == "begun"
    assert next_of(seen) == "cancelled"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_stream_that_its_client_does_not_read_is_cut_at_once_and_does_not_look_whole(
    serving: Serving, seen: Seen, version: str
) -> None:
    async def content() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 50_000
        finally:
            seen.put("closed")

    serving.app = streaming(content, send_timeout=0.1)
    with Client(serving.port, kept=4096) as client:
        client.sendall(f"GET / HTTP/{version}\r\nhost: test\r\n\r\n".encode())
        assert next_of(seen) == "closed"
        eventually(lambda: not serving.connections)
        with pytest.raises((EOFError, ValueError, ConnectionResetError)):
            client.read()


def wrapped(app: ASGIApp) -> ASGIApp:
    """An app within a wrapper that copies the scope and replaces `receive` and `send`."""

    async def wrapper(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_here() -> Message:
            return await receive()

        async def send_here(message: Message) -> None:
            await send(message)

        await app({**scope}, receive_here, send_here)

    return wrapper


def test_a_stream_within_a_wrapper_is_cut_at_once_too_if_its_client_does_not_read(serving: Serving, seen: Seen) -> None:
    async def content() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 50_000
        finally:
            seen.put("closed")

    serving.app = wrapped(streaming(content, send_timeout=0.1))
    with Client(serving.port, kept=4096) as client:
        client.sendall(GET)
        assert next_of(seen) == "closed"
        eventually(lambda: not serving.connections)


def test_a_stream_hears_from_a_wrapper_that_its_client_has_left(serving: Serving, client: Client, seen: Seen) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"part"
        await wait_until_cancelled(seen)

    @serving.serves
    async def wrapper(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_here() -> Message:
            return {"type": "http.disconnect"}

        await streaming(content)(scope, receive_here, send)

    client.sendall(GET)
    assert client.head()[0] == 200
    assert next_of(seen) == "cancelled"


def whole(body: bytes, called: Callable[[], None] = lambda: None) -> App:
    """An app that answers with the body at once."""
    app = App()

    @app.get("/", public=True)
    async def handler(request: Request) -> Response:
        called()
        return Response(body)

    return app


def test_a_wrapper_that_replaces_send_gets_the_messages_of_a_whole_answer(
    serving: Serving, client: Client, seen: Seen
) -> None:
    app = whole(b"hi")

    @serving.serves
    async def wrapper(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_here(message: Message) -> None:
            seen.put(message["type"])
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-wrapped", b"yes"))
            await send(message)

        await app(scope, receive, send_here)

    status, headers, body = client.ask(GET)
    assert (status, headers["x-wrapped"], body) == (200, "yes", b"hi")
    assert [next_of(seen), next_of(seen)] == ["http.response.start", "http.response.body"]


def test_whole_answers_wait_for_a_client_that_reads_slowly(serving: Serving) -> None:
    called = 0

    def count() -> None:
        nonlocal called
        called += 1

    serving.app = whole(b"x" * 2_000_000, count)
    with Client(serving.port, kept=4096) as client:
        client.sendall(10 * GET)
        eventually(lambda: any(one.blocked for one in serving.connections))
        assert client.head()[0] == 200
        assert called <= 3  # one is read, one may be in the system's buffers, and one waits
        assert client.take(2_000_000) == b"x" * 2_000_000
        for _ in range(9):
            assert client.read()[2] == b"x" * 2_000_000
    assert called == 10


def test_a_whole_answer_for_a_client_that_has_left_is_dropped(serving: Serving, gate: Gate, seen: Seen) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope["extensions"][EXTENSION]
        seen.put("called")
        await gate.wait()
        await exchange.respond(200, [(b"content-length", b"2")], b"hi")
        seen.put((exchange.gone, exchange.started))

    with Client(serving.port) as client:
        client.sendall(GET)
        assert next_of(seen) == "called"
    eventually(lambda: not serving.connections)
    gate.open()
    assert next_of(seen) == (True, False)


def test_a_whole_answer_after_another_is_a_fault_of_the_app(serving: Serving, client: Client, seen: Seen) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope["extensions"][EXTENSION]
        await exchange.respond(200, [(b"content-length", b"2")], b"hi")
        try:
            await exchange.respond(200, [(b"content-length", b"2")], b"ho")
        except RuntimeError as error:
            seen.put(str(error))

    assert client.ask(GET)[2] == b"hi"
    assert next_of(seen) == "the request has an answer already"
    assert client.ask(GET)[2] == b"hi"


def test_an_app_that_works_on_after_its_answer_cannot_abort_the_answer_to_the_next_request(
    serving: Serving, gate: Gate, client: Client
) -> None:
    connections: list[Any] = []

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connections.append(scope["extensions"][EXTENSION])
        if scope["path"] == "/second":
            await gate.wait()
        await echo(scope, receive, send)
        if scope["path"] == "/first":
            await gate.wait()
            connections[0].abort()

    assert client.ask(request("GET", "/first") + request("GET", "/second"))[2] == b"GET /first "
    eventually(lambda: len(connections) == 2)
    gate.open()
    assert client.read()[2] == b"GET /second "
    assert connections[0] is not connections[1]


def test_an_answered_request_leaves_nothing_to_the_garbage_collector(serving: Serving, client: Client) -> None:
    kept: list[weakref.ref[_Kept]] = []

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["kept"] = _Kept()
        kept.append(weakref.ref(scope["kept"]))
        await echo(scope, receive, send)

    with without_garbage_collector():
        assert client.ask(GET)[0] == 200
        eventually(lambda: kept[0]() is None)


def test_a_part_may_take_longer_than_its_timeout_as_long_as_the_client_reads(serving: Serving) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"x" * 12_000_000
        yield b"x"

    serving.app = streaming(content, send_timeout=0.4)
    with SteadyClient(serving.port, kept=65_536) as client:
        assert client.ask(GET)[2] == b"x" * 12_000_001


def test_an_ended_stream_leaves_nothing_to_the_garbage_collector(serving: Serving, client: Client) -> None:
    made: list[weakref.ref[Any]] = []

    async def parts() -> AsyncIterator[bytes]:
        yield b"part"
        await asyncio.sleep(0)

    def content() -> AsyncIterator[bytes]:
        items = parts()
        made.append(weakref.ref(items))
        return items

    serving.app = streaming(content)
    with without_garbage_collector():
        assert client.ask(GET)[2] == b"part"
        eventually(lambda: made[0]() is None)


def test_a_stream_waits_with_no_timer_of_its_connection(
    serving: Serving, gate: Gate, client: Client, seen: Seen
) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"part"
        await gate.wait()

    serving.app = streaming(content)
    client.sendall(GET)
    client.head()
    assert client.chunk() == b"part"
    [connection] = serving.connections
    assert connection._timer is None
    gate.open()
    assert client.chunk() == b""
    eventually(lambda: connection._timer is not None)  # for the next request


def test_an_app_waits_for_a_client_that_reads_slowly(serving: Serving, seen: Seen) -> None:
    sent = 0

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await start(send)
        for _ in range(400):
            await go_on(send, b"x" * 50_000, more=True)
            sent += 1
        await go_on(send, b"")

    with Client(serving.port, kept=4096) as client:
        client.sendall(GET)
        assert client.head()[0] == 200
        eventually(lambda: any(one.blocked for one in serving.connections))
        assert sent < 400
        assert b"".join(iter(client.chunk, b"")) == b"x" * 20_000_000


@pytest.mark.parametrize("how", ["stream", "HTTP/1.0 stream", "answer", "closing answer"])
def test_a_client_that_takes_nothing_is_cut(
    serving: Serving, seen: Seen, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(backlog, "CHECK_RATE_EVERY", 0.1)
    monkeypatch.setattr(serving.config, "timeout_keep_alive", 0.05)

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if how.endswith("stream"):
            await start(send)
            for _ in range(1000):
                await go_on(send, b"x" * 50_000, more=True)
        else:
            await answer(send, b"x" * 20_000_000, 200, [(b"connection", b"close")] if how != "answer" else [])
        seen.put((await receive())["type"])

    with Client(serving.port, kept=4096) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n" if how.startswith("HTTP/1.0") else GET)
        assert next_of(seen) == "http.disconnect"
        eventually(lambda: not serving.connections)
        with pytest.raises((EOFError, ValueError, ConnectionResetError)):
            client.read()


def test_of_many_clients_that_do_not_read_the_slowest_are_cut(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "CHECK_EVERY", 600.0)  # so it does not wait for that
    monkeypatch.setattr(backlog, "MAX_UNREAD", 20_000_000)

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"x" * 10_000_000)

    with ExitStack() as stack:
        stuck = [stack.enter_context(Client(serving.port, kept=4096)) for _ in range(6)]
        reader = stack.enter_context(Client(serving.port, kept=4096))
        for client in (reader, *stuck):
            client.sendall(GET)
        left = 10_000_000
        eventually(lambda: len(serving.connections) == 7)

        def too_much() -> bool:
            return sum(one.transport.get_write_buffer_size() for one in serving.connections) > 20_000_000

        until = time.monotonic() + TIMEOUT
        while left > 0 or too_much() or len(serving.connections) == 7:
            assert time.monotonic() < until
            if left > 0:
                got = len(reader.recv(40_000))
                assert got
                left -= got
            time.sleep(0.001)


def resident(process: int) -> int:
    """Bytes of memory that a process has."""
    with open(f"/proc/{process}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_the_memory_of_connections_is_given_back_after_they_have_ended() -> None:
    half = b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"x" * 60_000
    with Served() as served, ExitStack() as staying:
        assert ask(served.port, GET)[0] == 404
        before = resident(served.pid)
        with ExitStack() as leaving:
            for number in range(300):
                client = leaving.enter_context(closing(connect(served.port)))
                client.sendall(half)
                if number % 10 == 9:  # what these keep is between what the others leave
                    client = staying.enter_context(closing(connect(served.port)))
                    client.sendall(half)
            eventually(lambda: resident(served.pid) > before + 10_000_000)
        eventually(lambda: resident(served.pid) < before + 4_500_000)  # a tenth of the process


def test_what_a_client_sent_of_a_body_is_forgotten_once_the_request_is_answered(
    serving: Serving, client: Client
) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no", 401)

    assert client.ask(post(b"x" * 60_000)[:-1])[0] == 401
    [connection] = serving.connections
    assert connection.reading is not None
    assert connection.reading._chunks is None
    assert client.ask(b"x" + GET)[0] == 401


def test_a_refused_connection_that_stays_keeps_no_head(serving: Serving, client: Client) -> None:
    assert client.ask(b"GET / HTTP/1.1\r\n" + b"a:\r\n" * (head.MAX_FIELDS + 2))[0] == 431
    [connection] = serving.connections
    assert (connection._headers, connection._url, connection._parser) == ([], b"", None)


def test_a_client_that_takes_less_than_the_rate_is_cut(
    serving: Serving, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "CHECK_RATE_EVERY", 0.3)
    monkeypatch.setattr(backlog, "MIN_READ_RATE", 50_000_000)

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"x" * 30_000_000)
        seen.put((await receive())["type"])

    with Client(serving.port, kept=4096) as client:
        client.sendall(GET)
        while not seen.qsize():
            assert client.recv(4096)  # some 400,000 bytes a second
            time.sleep(0.01)
        assert next_of(seen) == "http.disconnect"


def test_a_client_that_sends_on_gets_the_last_answer(serving: Serving, client: Client) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await answer(send, b"too long", 413, [(b"connection", b"close")])

    assert client.ask(post(b"x" * 3_000_000) + GET)[::2] == (413, b"too long")
    assert client.end()


def test_a_client_that_sends_on_and_on_after_the_last_answer_is_cut(
    serving: Serving, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "LINGER_FOR", 600.0)
    client.sendall(b"RUBBISH\r\n\r\n")
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        client.sendall(b"x" * 64_000_000)
    eventually(lambda: not serving.connections)


@pytest.mark.parametrize("sent", [b"RUBBISH\r\n\r\n", GET + b"RUBBISH\r\n\r\n"])
def test_a_client_that_stays_after_the_last_answer_is_cut(
    serving: Serving, client: Client, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "LINGER_FOR", 0.02)
    assert client.ask(sent)[0] in (200, 400)
    assert client.end()
    eventually(lambda: not serving.connections)


# What is written.


def test_answers_of_many_connections_keep_to_their_own_and_in_order(serving: Serving) -> None:
    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["raw_path"]
        await start(send)
        for number in range(200):
            await go_on(send, b"%b %d," % (name, number), more=True)
            if number % 7 == 0:
                await asyncio.sleep(0)
        await go_on(send, name * 30_000, more=True)
        await go_on(send, b"end")

    clients = [Client(serving.port) for _ in range(10)]
    try:
        for number, client in enumerate(clients):
            client.sendall(request("GET", f"/{number}", "connection: close"))
        for number, client in enumerate(clients):
            name = b"/%d" % number
            parts = b"".join(b"%b %d," % (name, part) for part in range(200))
            assert client.read()[2] == parts + name * 30_000 + b"end"
    finally:
        for client in clients:
            client.close()


def test_an_app_that_never_pauses_is_held_up_by_its_client(serving: Serving, seen: Seen) -> None:
    leaving = threading.Event()

    @serving.serves
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        while not leaving.is_set():
            await go_on(send, b"x" * 1000, more=True)

    eventually(lambda: not serving.connections)
    with Client(serving.port, kept=4096) as client:
        client.sendall(GET)
        eventually(lambda: any(one.blocked for one in serving.connections))
        serving.do(lambda: seen.put("the loop is free"))
        assert next_of(seen) == "the loop is free"
        leaving.set()


def test_an_app_makes_the_next_part_only_when_the_client_has_room_for_it(serving: Serving) -> None:
    made: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        for _ in range(2):
            made.append(b"x" * 10_000_000)
            await go_on(send, made[-1], more=True)
        await go_on(send, b"")

    eventually(lambda: not serving.connections)
    serving.app = app
    with Client(serving.port, kept=4096) as client:
        client.sendall(GET)
        eventually(lambda: any(one.blocked for one in serving.connections))
        assert len(made) == 1
        assert len(client.read()[2]) == 20_000_000


# Shutdown.


@pytest.mark.parametrize("loop", LOOPS)
def test_a_shutdown_answers_what_was_asked_and_closes_the_rest(loop: str) -> None:
    with Serving(loop) as serving:
        gate = Gate(serving)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await echo(scope, receive, send)

        idle, busy, pipelined, half, kept = (Client(serving.port) for _ in range(5))
        assert kept.ask(GET)[0] == 200
        serving.app = app
        busy.sendall(GET)
        pipelined.sendall(request("GET", "/0") + request("GET", "/1") + request("GET", "/2"))
        half.sendall(b"GET / HTTP/1.1\r\nhost:")
        eventually(lambda: len(serving.connections) == 5)
        eventually(lambda: sum(one.exchange is not None for one in serving.connections) == 2)
        eventually(lambda: any(one.pipelined for one in serving.connections))
        serving.stop()
        assert [ended(one) for one in (idle, half, kept)] == [True, True, True]
        gate.open()
        _, headers, body = busy.read()
        assert (headers["connection"], body) == ("close", b"GET / ")
        got = [pipelined.read() for _ in range(3)]
        assert [body for _, _, body in got] == [b"GET /0 ", b"GET /1 ", b"GET /2 "]
        assert [headers.get("connection") for _, headers, _ in got] == [None, None, "close"]
        assert pipelined.end()
        serving.join()
        for client in (idle, busy, pipelined, half, kept):
            client.close()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("before", [b"", GET], ids=["alone", "pipelined"])
def test_a_shutdown_refuses_a_request_whose_body_does_not_come_and_is_no_error(
    loop: str, before: bytes, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    with Serving(loop) as serving, Client(serving.port) as client:
        gate = Gate(serving)

        @serving.serves
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["method"] == "GET":
                await gate.wait()
                return await echo(scope, receive, send)
            while (message := await receive())["type"] == "http.request":
                pass
            seen.put(message["type"])

        client.sendall(before + post(b"hello")[:-1])
        eventually(lambda: any(one.reading is not None for one in serving.connections))
        serving.stop()
        gate.open()
        if before:
            assert client.read()[2] == b"GET / "
        status, headers, _ = client.read()
        assert (status, headers["connection"]) == (503, "close")
        assert next_of(seen) == "http.disconnect"
        assert client.end()
        serving.join()  # though the client keeps its side open
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("loop", LOOPS)
def test_a_shutdown_answers_a_request_whose_body_comes_within_half_a_second(loop: str) -> None:
    with Serving(loop) as serving, Client(serving.port) as client:
        client.sendall(post(b"hello")[:-1])
        eventually(lambda: any(one.exchange is not None for one in serving.connections))
        serving.stop()
        eventually(lambda: any(one.ending for one in serving.connections))
        status, headers, body = client.ask(b"o")
        assert (status, headers["connection"], body) == (200, "close", b"POST / hello")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_shutdown_cuts_an_answer_whose_request_does_not_come_whole(
    loop: str, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await go_on(send, b"begun", True)
        while (message := await receive())["type"] == "http.request":
            pass
        seen.put(message["type"])

    with Serving(loop) as serving, Client(serving.port) as client:
        serving.app = app
        client.sendall(post(b"hello")[:-1])
        assert client.head()[0] == 200
        assert client.chunk() == b"begun"
        serving.stop()
        assert next_of(seen) == "http.disconnect"
        assert client.end()
        serving.join()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("loop", LOOPS)
def test_a_shutdown_does_not_wait_for_the_rest_of_a_body_that_is_answered(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"early")

    with Serving(loop) as serving, Client(serving.port) as client:
        serving.app = app
        assert client.ask(post(b"hello")[:-1])[2] == b"early"
        serving.stop()
        assert client.end()
        serving.join()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    ("status", "order"),
    [
        (404, ["first", "other", "second", "third"]),
        (401, ["first", "other", "second", "third"]),
        (200, ["first", "second", "other", "third"]),
    ],
)
def test_only_the_request_after_an_error_on_its_connection_waits_while_the_process_is_busy(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, status: int, order: list[str]
) -> None:
    asked: list[str] = []
    always_busy(monkeypatch, 1.0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"][1:])
        answer = status if asked[-1] == "first" else 200
        await send({"type": "http.response.start", "status": answer, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    with Client(serving.port) as other, Client(serving.port) as client:
        serving.app = app
        assert client.ask(request("GET", "/first"))[0] == status
        client.sendall(request("GET", "/second"))
        if status == 200:
            assert client.read()[0] == 200
        assert other.ask(request("GET", "/other"))[0] == 200
        if status != 200:
            assert client.read()[0] == 200
        always_busy(monkeypatch, 600.0)
        assert client.ask(request("GET", "/third"))[0] == 200  # what followed an error was none
    assert asked == order


def test_a_request_that_waits_for_its_turn_leaves_nothing_when_its_client_leaves(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    always_busy(monkeypatch, 600.0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    def alive() -> int:
        return sum(isinstance(each, Exchange | Http1Protocol) for each in gc.get_objects())

    with Client(serving.port) as client:
        serving.app = app
        assert client.ask(request("GET", "/first"))[0] == 404
        gc.collect()
        with without_garbage_collector():
            before = alive()
            client.sendall(request("POST", "/second", "content-length: 5", body=b"12345"))
            eventually(lambda: alive() == before + 1)
            client.close()
            eventually(lambda: alive() == before - 1)


@pytest.mark.parametrize("by_server", [False, True])
def test_what_a_request_leaves_behind_that_was_cut_is_collected(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, by_server: bool
) -> None:
    class Left:
        def __init__(self) -> None:
            self.itself = self

    left: list[weakref.ref[Left]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        of_the_request = Left()
        left.append(weakref.ref(of_the_request))
        while (await receive())["type"] != "http.disconnect":
            pass

    monkeypatch.setattr(memory, "TRIM_EVERY", 0.1)
    with without_garbage_collector():
        with Client(serving.port) as client:
            serving.app = app
            client.sendall(request("POST", "/", "transfer-encoding: chunked"))
            eventually(lambda: left)
            if by_server:
                assert client.ask(b"no chunk\r\n")[0] == 400
        eventually(lambda: left[0]() is None)
