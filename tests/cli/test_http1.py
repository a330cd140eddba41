"""The command's HTTP/1.1 over real sockets, byte by byte: what clients, proxies, attackers and faulty apps may do to it."""

import asyncio
import contextvars
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Self

import pytest
import uvicorn

from jimsapi.asgi.types import ASGIApp, Receive, Scope, Send
from jimsapi.cli import http1
from jimsapi.cli.http1 import Http1Protocol
from tests.raw import TIMEOUT, connect, ended, request

Headers = list[tuple[bytes, bytes]]
LOOPS = ["asyncio", "uvloop"]
GET = request("GET", "/")


class Serving:
    """uvicorn with our protocol, in a thread. `app` may be changed between requests."""

    def __init__(self, loop: str, **options: Any) -> None:
        self.app: ASGIApp = echo
        self.config = uvicorn.Config(
            self._call,
            http=Http1Protocol,
            loop=loop,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=1,
            **options,
        )
        self.server = uvicorn.Server(self.config)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listening.getsockname()[1]
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        with closing(connect(self.port)) as client:
            client.sendall(GET)
            assert Answers(client).read()[0] == 200
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

    def do(self, call: Callable[[], object]) -> None:
        """Have something done in the loop."""
        self._loop.call_soon_threadsafe(call)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._loop = asyncio.get_running_loop()
        await self.app(scope, receive, send)

    def _run(self) -> None:
        self.server.run(sockets=[self._listening])


class Answers:
    """What a client reads, answer by answer."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._file = client.makefile("rb")

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


async def go_on(send: Send, body: bytes, more: bool = False) -> None:
    """A part of an answer's body, the last unless there is `more`."""
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def answer(send: Send, body: bytes, status: int = 200, headers: Headers | None = None) -> None:
    """A plain answer."""
    await start(send, status, [(b"content-length", b"%d" % len(body)), *(headers or [])])
    await go_on(send, body)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what was asked."""
    await answer(send, b"%b %b %b" % (scope["method"].encode(), scope["raw_path"], await read(receive)))


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
def client(serving: Serving) -> Iterator[socket.socket]:
    with closing(connect(serving.port)) as connection:
        yield connection


@pytest.fixture
def answers(client: socket.socket) -> Answers:
    return Answers(client)


@pytest.fixture
def seen() -> "queue.SimpleQueue[Any]":
    """What an app tells the test."""
    return queue.SimpleQueue()


Seen = queue.SimpleQueue[Any]


def next_of(seen: Seen) -> Any:
    return seen.get(timeout=TIMEOUT)


def eventually(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    until = time.monotonic() + TIMEOUT
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


def test_a_connection_serves_one_request_after_another(client: socket.socket, answers: Answers) -> None:
    for number in range(3):
        client.sendall(request("GET", f"/{number}"))
        status, headers, body = answers.read()
        assert (status, body) == (200, b"GET /%d " % number)
        assert "connection" not in headers and "date" in headers


@pytest.mark.parametrize(
    "sent",
    [
        request("GET", "/", "connection: close"),
        request("GET", "/", "Connection: Keep-Alive, CLOSE"),
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    ],
)
def test_a_client_that_wants_it_has_its_connection_closed(
    client: socket.socket, answers: Answers, sent: bytes
) -> None:
    client.sendall(sent)
    status, headers, body = answers.read()
    assert (status, headers["connection"], body) == (200, "close", b"GET / ")
    assert answers.end()


def test_an_app_may_close_a_connection(serving: Serving, client: socket.socket, answers: Answers) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"bye", headers=[(b"Connection", b"Close")])

    serving.app = app
    client.sendall(GET + GET)
    _, headers, body = answers.read()
    assert (headers["connection"], body) == ("Close", b"bye")
    assert answers.end()


def test_a_silent_connection_is_closed(
    serving: Serving, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "HEAD_WITHIN", 0.05)
    monkeypatch.setattr(serving.config, "timeout_keep_alive", 0.05)
    with closing(connect(serving.port)) as silent:
        assert ended(silent)


def test_an_idle_connection_is_closed(
    serving: Serving, client: socket.socket, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "HEAD_WITHIN", 0.05)
    monkeypatch.setattr(serving.config, "timeout_keep_alive", 0.05)
    with closing(connect(serving.port)) as idle:
        idle.sendall(GET)
        reader = Answers(idle)
        assert reader.read()[0] == 200
        assert reader.end()


def test_a_long_answer_is_no_idle_connection(
    serving: Serving, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "HEAD_WITHIN", 0.02)
    monkeypatch.setattr(serving.config, "timeout_keep_alive", 0.02)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.1)
        await answer(send, b"late")

    serving.app = app
    with closing(connect(serving.port)) as client:
        client.sendall(GET)
        assert Answers(client).read()[2] == b"late"


# Answers.


def test_head_is_answered_without_a_body(serving: Serving, client: socket.socket, answers: Answers) -> None:
    client.sendall(request("HEAD", "/") + request("GET", "/next"))
    status, headers, _ = answers.read("HEAD")
    assert (status, headers["content-length"]) == (200, "7")
    assert answers.read()[2] == b"GET /next "


@pytest.mark.parametrize("length", [[], [(b"content-length", b"5")]])
@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("body", [b"", b"wrong"])
def test_204_and_304_have_no_body(
    serving: Serving, client: socket.socket, answers: Answers, status: int, length: Headers, body: bytes
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, status, length)
        await go_on(send, body)

    serving.app = app
    client.sendall(GET)
    got, headers, _ = answers.read()
    assert got == status and "transfer-encoding" not in headers
    serving.app = echo
    client.sendall(GET)
    assert answers.read()[2] == b"GET / "


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    for part in (b"one", b"", b"two"):
        await go_on(send, part, more=True)
    await go_on(send, b"")


def test_a_body_of_unknown_length_is_chunked(serving: Serving, client: socket.socket, answers: Answers) -> None:
    serving.app = stream
    client.sendall(GET + GET)
    for _ in range(2):
        status, headers = answers.head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        assert [answers.chunk(), answers.chunk(), answers.chunk()] == [b"one", b"two", b""]


def test_http_1_0_has_it_until_the_end_of_the_connection(
    serving: Serving, client: socket.socket, answers: Answers
) -> None:
    serving.app = stream
    client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    status, headers, body = answers.read()
    assert (status, headers["connection"], body) == (200, "close", b"onetwo")
    assert "transfer-encoding" not in headers


def test_a_stream_begins_before_its_first_part(serving: Serving, client: socket.socket, answers: Answers) -> None:
    gate = Gate(serving)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await gate.wait()
        await go_on(send, b"part")

    serving.app = app
    client.sendall(GET)
    assert answers.head()[0] == 200
    gate.open()
    assert [answers.chunk(), answers.chunk()] == [b"part", b""]


def test_how_a_body_is_sent_is_not_for_the_app_to_say(serving: Serving, client: socket.socket, answers: Answers) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200, [(b"transfer-encoding", b"chunked"), (b"content-length", b"2")])
        await go_on(send, b"hi")

    serving.app = app
    client.sendall(GET)
    _, headers, body = answers.read()
    assert "transfer-encoding" not in headers and body == b"hi"


@pytest.mark.parametrize("last", [GET, request("GET", "/", "connection: close"), b"GET / HTTP/1.0\r\n\r\n"])
@pytest.mark.parametrize("size", [http1.MAX_JOINED, http1.MAX_JOINED + 1, 5_000_000])
def test_a_big_answer_is_whole_however_slowly_it_is_read(
    serving: Serving, client: socket.socket, answers: Answers, size: int, last: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.config, "timeout_keep_alive", 0.01)
    sent = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"x" * size)
        asyncio.get_running_loop().call_later(0.05, sent.set)

    serving.app = app
    client.sendall(last)
    assert sent.wait(TIMEOUT)  # the idle connection's time is over
    assert answers.read()[2] == b"x" * size


def test_a_status_that_python_does_not_know_is_sent(serving: Serving, client: socket.socket, answers: Answers) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"", 799)

    serving.app = app
    client.sendall(GET)
    assert answers.read()[0] == 799


def test_bodies_may_be_any_bytes(serving: Serving, client: socket.socket, answers: Answers) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await go_on(send, bytearray(b"a" * 3), more=True)
        kept = bytearray(b"b" * 100_000)
        await go_on(send, kept, more=True)
        kept[:] = b"c" * 100_000  # it is the app's own
        await go_on(send, memoryview(b"d"))  # type: ignore[arg-type] # what apps do

    serving.app = app
    client.sendall(GET)
    assert answers.read()[2] == b"aaa" + b"b" * 100_000 + b"d"


# Pipelining.


def test_pipelined_requests_are_answered_in_order(serving: Serving, client: socket.socket, answers: Answers) -> None:
    gate = Gate(serving)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/0":
            await gate.wait()
        await echo(scope, receive, send)

    serving.app = app
    client.sendall(b"".join(post(b"x" * number, f"/{number}") for number in range(20)))
    gate.open()
    assert [answers.read()[2] for _ in range(20)] == [b"POST /%d %b" % (n, b"x" * n) for n in range(20)]


def test_a_pipelined_body_comes_while_the_request_before_is_answered(
    serving: Serving, client: socket.socket, answers: Answers, seen: Seen
) -> None:
    gate = Gate(serving)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.put(scope["path"])
        if scope["path"] == "/first":
            await gate.wait()
        await echo(scope, receive, send)

    serving.app = app
    big = post(b"b" * 300_000, "/second")
    client.sendall(request("GET", "/first") + big[:200])
    assert next_of(seen) == "/first"
    rest = threading.Thread(target=client.sendall, args=(big[200:] + request("GET", "/third"),))
    rest.start()
    gate.open()
    assert [answers.read()[2] for _ in range(3)] == [b"GET /first ", b"POST /second " + b"b" * 300_000, b"GET /third "]
    rest.join()


def test_of_too_many_pipelined_requests_the_first_are_answered(
    serving: Serving, client: socket.socket, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "MAX_PIPELINED", 3)
    client.sendall(b"".join(request("GET", f"/{number}") for number in range(10)))
    got = [answers.read() for _ in range(4)]
    assert [body for _, _, body in got] == [b"GET /0 ", b"GET /1 ", b"GET /2 ", b"GET /3 "]
    assert [headers.get("connection") for _, headers, _ in got] == [None, None, None, "close"]
    assert answers.end()


def test_requests_are_answered_before_what_is_wrong_after_them_ends_the_connection(
    serving: Serving, client: socket.socket, answers: Answers
) -> None:
    client.sendall(request("GET", "/0") + request("GET", "/1") + b"RUBBISH\r\n\r\n" + request("GET", "/3"))
    assert [answers.read()[2] for _ in range(2)] == [b"GET /0 ", b"GET /1 "]
    assert answers.end()


@pytest.mark.parametrize("before", [b"", post(b"x" * 100_000)])
def test_requests_of_one_connection_share_no_context(
    serving: Serving, client: socket.socket, answers: Answers, before: bytes
) -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found = var.get()
        var.set(scope["path"])
        await read(receive)
        await answer(send, found.encode())

    serving.app = app
    client.sendall(before + request("GET", "/ann") + request("GET", "/bob"))
    for _ in range(3 if before else 2):
        assert answers.read()[2] == b""
    client.sendall(request("GET", "/cid"))
    assert answers.read()[2] == b""


# Bodies.


@pytest.mark.parametrize("sent", [post(b"hello"), chunked(b"he", b"llo"), chunked(b"h", b"e", b"l", b"l", b"o")])
def test_a_body_may_come_in_pieces(client: socket.socket, answers: Answers, sent: bytes) -> None:
    for place in range(len(sent)):
        client.sendall(sent[place : place + 1])
    assert answers.read()[2] == b"POST / hello"


def test_trailers_are_no_fields_of_a_request(
    serving: Serving, client: socket.socket, answers: Answers, seen: Seen
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.put([name for name, _ in scope["headers"]])
        await echo(scope, receive, send)

    serving.app = app
    for packet in (chunked(b"hello", trailer=b"authorization: Bearer x\r\n") + GET, GET):
        client.sendall(packet)
    assert [answers.read()[2] for _ in range(3)] == [b"POST / hello", b"GET / ", b"GET / "]
    assert [next_of(seen) for _ in range(3)] == [[b"host", b"transfer-encoding"], [b"host"], [b"host"]]


def test_chunk_extensions_are_left_out(client: socket.socket, answers: Answers) -> None:
    client.sendall(request("POST", "/", "transfer-encoding: chunked", body=b'3;a=b;c="d"\r\nabc\r\n0;last\r\n\r\n'))
    assert answers.read()[2] == b"POST / abc"


def test_a_trailer_without_end_is_refused(client: socket.socket, answers: Answers) -> None:
    client.sendall(chunked(b"hello")[:-2] + b"x: ")
    with pytest.raises(OSError):  # the connection is cut while it is sent
        while True:
            client.sendall(b"x" * 65_536)


def test_the_client_is_asked_once_for_a_body_that_it_keeps_back(client: socket.socket, answers: Answers) -> None:
    client.sendall(request("POST", "/", "content-length: 5", "Expect: 100-Continue"))
    assert answers.head() == (100, {})
    client.sendall(b"he")
    client.sendall(b"llo" + GET)
    assert answers.read()[2] == b"POST / hello"
    assert answers.read()[2] == b"GET / "


def test_http_1_0_is_not_asked_for_a_body(client: socket.socket, answers: Answers) -> None:
    client.sendall(b"POST / HTTP/1.0\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\nhel")
    client.sendall(b"lo")
    assert answers.read()[2] == b"POST / hello"


def test_an_early_answer_asks_for_no_body(serving: Serving, client: socket.socket, answers: Answers) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no", 401)
        assert (await receive())["type"] == "http.disconnect"

    serving.app = app
    client.sendall(request("POST", "/", "content-length: 5", "expect: 100-continue"))
    assert answers.read()[::2] == (401, b"no")
    serving.app = echo
    client.sendall(b"hello" + GET)
    assert answers.read()[2] == b"GET / "


def test_a_client_that_waits_to_be_asked_is_not_slow(
    serving: Serving, client: socket.socket, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "HEAD_WITHIN", 0.01)
    monkeypatch.setattr(http1, "BODY_WITHIN", 0.01)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.1)
        await echo(scope, receive, send)

    serving.app = app
    with closing(connect(serving.port)) as patient:
        patient.sendall(request("POST", "/", "content-length: 5", "expect: 100-continue"))
        reader = Answers(patient)
        assert reader.head() == (100, {})
        patient.sendall(b"hello")
        assert reader.read()[0] in (200, 408)  # from now on its time runs


def test_what_is_left_of_a_body_after_an_early_answer_is_no_request(
    serving: Serving, client: socket.socket, answers: Answers
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"early")

    serving.app = app
    body = request("GET", "/hidden") * 5000
    client.sendall(post(body)[:200])
    assert answers.read()[2] == b"early"
    serving.app = echo
    client.sendall(post(body)[200:] + GET)
    assert answers.read()[2] == b"GET / "


def test_a_body_that_nobody_reads_is_not_taken_from_the_connection(
    serving: Serving, client: socket.socket, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "BODY_WITHIN", 0.01)  # the client cannot help it that nobody reads
    monkeypatch.setattr(http1, "HEAD_WITHIN", 0.01)
    gate = Gate(serving)
    taken = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        while (message := await receive())["more_body"]:
            taken.append(len(message["body"]))
        await answer(send, b"%d" % (sum(taken) + len(message["body"])))

    serving.app = app
    with closing(connect(serving.port)) as big:
        body = b"x" * 30_000_000
        big.settimeout(0.3)
        sent = 0
        with pytest.raises(TimeoutError):
            head = request("POST", "/", f"content-length: {len(body)}")
            big.sendall(head)
            while True:
                sent += big.send(body[sent : sent + 1_000_000])
        monkeypatch.setattr(http1, "BODY_WITHIN", TIMEOUT)
        gate.open()
        big.settimeout(TIMEOUT)
        big.sendall(body[sent:])
        assert Answers(big).read()[2] == b"30000000"
    assert taken[0] < 1_000_000


# Heads.


@pytest.mark.parametrize("packets", [1, 2, 700])
@pytest.mark.parametrize("before", [b"", post(b"x" * 1000)])
@pytest.mark.parametrize("form", ["/%b", "/?%b"])
def test_a_head_has_64_kib_and_no_byte_more(
    serving: Serving, client: socket.socket, answers: Answers, packets: int, before: bytes, form: str
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        await answer(send, b"%d" % (len(scope["raw_path"]) + len(scope["query_string"])))

    serving.app = app
    fields = [f"x-{number}: {'v' * 90}" for number in range(300)]
    room = http1.MAX_HEAD - len(request("GET", form.replace("%b", ""), *fields))
    for more in (0, 1):
        with closing(connect(serving.port)) as one:
            reader = Answers(one)
            sent = before + request("GET", form.replace("%b", "u" * (room + more)), *fields)
            step = -(-len(sent) // packets)
            for place in range(0, len(sent), step):
                one.sendall(sent[place : place + step])
                time.sleep(0.0005)  # so that each is a packet
            if before:
                assert reader.read()[0] == 200
            if more and before and packets == 1:
                with pytest.raises((EOFError, ConnectionResetError)):  # the answer before was the last
                    reader.read()
            else:
                status, _, _ = reader.read()
                assert status == (431 if more else 200)
                assert not more or reader.end()


def test_a_field_without_end_is_refused(client: socket.socket, answers: Answers) -> None:
    client.sendall(b"GET / HTTP/1.1\r\nx: ")
    with pytest.raises(OSError):
        while True:
            client.sendall(b"x" * 65_536)


def test_many_small_fields_are_refused(client: socket.socket, answers: Answers) -> None:
    client.sendall(b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 20_000)
    client.sendall(b"b:\r\n" * 20_000)
    assert answers.read()[0] == 431
    assert answers.end()


def test_a_slow_head_is_408(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "HEAD_WITHIN", 0.1)
    with closing(connect(serving.port)) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nhost: a")
        status, headers, body = Answers(slow).read()
        assert (status, headers["connection"], body) == (408, "close", b'{"detail":"Request Timeout"}')


def test_a_head_that_is_slow_after_another_request_is_408(
    serving: Serving, client: socket.socket, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "HEAD_WITHIN", 0.1)
    with closing(connect(serving.port)) as slow:
        slow.sendall(GET + b"GET / HTTP/1.1\r\nhost: a")
        reader = Answers(slow)
        assert [reader.read()[0] for _ in range(2)] == [200, 408]
        assert reader.end()


def test_a_slow_body_is_408_and_its_app_is_told(
    serving: Serving, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "HEAD_WITHIN", 0.05)
    monkeypatch.setattr(http1, "BODY_WITHIN", 0.1)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            seen.put(message["body"])
        seen.put(message["type"])
        await answer(send, b"too late")  # nobody gets it

    serving.app = app
    with closing(connect(serving.port)) as slow:
        slow.sendall(post(b"hello")[:-2])
        reader = Answers(slow)
        assert reader.read()[0] == 408
        assert reader.end()
    assert [next_of(seen), next_of(seen)] == [b"hel", "http.disconnect"]


def test_a_slow_body_cuts_an_answer_that_has_begun(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "HEAD_WITHIN", 0.05)
    monkeypatch.setattr(http1, "BODY_WITHIN", 0.1)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        while (message := await receive())["type"] == "http.request":
            await go_on(send, message["body"], more=True)

    serving.app = app
    with closing(connect(serving.port)) as slow:
        slow.sendall(post(b"hello")[:-2])
        reader = Answers(slow)
        assert reader.head()[0] == 200
        assert reader.chunk() == b"hel"
        assert reader.end()


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
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no method": request("SMUGGLE", "/"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED.keys())
def test_what_may_be_read_in_two_ways_is_refused(client: socket.socket, answers: Answers, sent: bytes) -> None:
    client.sendall(sent + GET)
    status, headers, body = answers.read()
    assert (status, headers["connection"], body) == (400, "close", b'{"detail":"Bad Request"}')
    assert answers.end()


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
    client: socket.socket,
    answers: Answers,
    seen: Seen,
    target: str,
    path: str,
    raw: bytes,
    query: bytes,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.put((scope["path"], scope["raw_path"], scope["query_string"]))
        await answer(send, b"")

    serving.app = app
    client.sendall(request("OPTIONS", target))
    assert answers.read()[0] == 200
    assert next_of(seen) == (path, raw, query)


def test_an_app_is_told_what_asgi_promises(
    serving: Serving, client: socket.socket, answers: Answers, seen: Seen
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.put(scope)
        await answer(send, b"")

    serving.app = app
    client.sendall(request("DELETE", "/%61?b", "X-Twice: 1", "x-twice: 2"))
    answers.read()
    assert next_of(seen) == {
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


@pytest.mark.parametrize("loop", LOOPS)
def test_a_root_path_stands_before_the_path(loop: str, seen: Seen) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.put((scope["root_path"], scope["path"], scope["raw_path"]))
        await answer(send, b"")

    with Serving(loop, root_path="/bot") as serving, closing(connect(serving.port)) as client:
        serving.app = app
        client.sendall(request("GET", "/%61?b"))
        assert Answers(client).read()[0] == 200
    assert next_of(seen) == ("/bot", "/bot/a", b"/bot/%61")
