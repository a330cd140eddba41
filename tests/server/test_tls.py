"""Connections over TLS whose clients read slowly, not at all, or leave: as plain ones, on both event loops."""

import gc
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from jimsapi.asgi.types import ASGIApp, Receive, Scope, Send
from jimsapi.server import acceptor, backlog
from tests.faults.test_websockets import HANDSHAKE
from tests.raw import TIMEOUT, connect, ended, read_answer, request
from tests.server.test_acceptor import Serving, issued
from tests.waiting import eventually

GET = request("GET", "/")
CLOSING = request("GET", "/", "connection: close")
Begin = Callable[[ASGIApp], Serving]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    return issued(tmp_path)


@pytest.fixture
def context(pair: tuple[Path, ssl.SSLContext]) -> ssl.SSLContext:
    return pair[1]


@pytest.fixture(params=["asyncio", "uvloop"])
def begin(request: pytest.FixtureRequest, pair: tuple[Path, ssl.SSLContext]) -> Begin:
    """Makes a server of an app; it accepts what has connected when it is entered."""

    class Serves(Serving):
        app: ASGIApp

        async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app(scope, receive, send)

    def begin(app: ASGIApp) -> Serving:
        serving = Serves(request.param, ssl_certfile=pair[0], timeout_keep_alive=600)
        serving.app = app
        return serving

    return begin


def small(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A client that keeps little of what it did not read."""
    client = socket.socket()
    client.settimeout(TIMEOUT)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    return context.wrap_socket(client, server_hostname="localhost")


def answers(*parts: bytes) -> ASGIApp:
    """An app that answers with these parts."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        length = b"%d" % sum(map(len, parts))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


@pytest.mark.parametrize("asked", [GET, CLOSING])
def test_an_answer_arrives_whole_however_long_its_client_waits_before_it_reads(
    begin: Begin, context: ssl.SSLContext, asked: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "TLS_CLOSE_WITHIN", 0.2)
    with begin(answers(b"x" * 10_000_000)) as serving, small(serving.port, context) as client:
        client.sendall(asked)
        time.sleep(0.5)  # longer than the client may take to answer the end of TLS
        assert read_answer(client)[2] == b"x" * 10_000_000


@pytest.mark.parametrize("begin", [pytest.param("asyncio", marks=pytest.mark.long), "uvloop"], indirect=True)
def test_a_client_that_reads_steadily_is_kept_and_one_that_reads_nothing_is_cut(
    begin: Begin, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "CHECK_RATE_EVERY", 1.0)
    monkeypatch.setattr(backlog, "MIN_READ_RATE", 10_000)
    with begin(answers(*[b"x" * 1_000_000] * 12)) as serving, ExitStack() as stack:
        steady, stuck = (stack.enter_context(small(serving.port, context)) for _ in range(2))
        for client in (steady, stuck):
            client.sendall(GET)
        left = 12_000_000
        while left > 0:
            got = len(steady.recv(50_000))
            assert got
            left -= got
            time.sleep(0.005)
        with pytest.raises((ConnectionError, ssl.SSLError, AssertionError, EOFError)):
            read_answer(stuck)


def test_what_clients_do_not_read_is_bounded_for_all_together(
    begin: Begin, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "CHECK_EVERY", 0.1)
    monkeypatch.setattr(backlog, "MAX_UNREAD", 20_000_000)
    asked: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope)
        await answers(b"x" * 10_000_000)(scope, receive, send)

    with begin(app) as serving, ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(small(serving.port, context)).sendall(GET)
        eventually(lambda: len(asked) == 6)
        eventually(lambda: 0 < len(serving.server.server_state.connections) < 6)


def test_a_handshake_may_begin_before_its_connection_is_accepted(
    begin: Begin, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "TLS_CLOSE_WITHIN", 0.2)
    serving = begin(answers(b"hello"))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with closing(connect(serving.port)) as early, closing(connect(serving.port)) as gone:
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        early.sendall(hello)
        gone.sendall(hello)
        gone.close()
        with serving:
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    early.sendall(outgoing.read())
                    incoming.write(early.recv(65_536))
            tls.write(CLOSING)
            early.sendall(outgoing.read())
            while True:
                try:
                    assert tls.read(65_536).endswith(b"hello")
                    break
                except ssl.SSLWantReadError:
                    incoming.write(early.recv(65_536))


def test_a_refused_websocket_leaves_neither_a_connection_nor_an_error(
    begin: Begin, context: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close"})

    with begin(app) as serving:
        with context.wrap_socket(connect(serving.port), server_hostname="localhost") as client:
            client.sendall(request("GET", "/ws", *HANDSHAKE))
            assert read_answer(client)[0] == 403
            assert ended(client)
        state = serving.server.server_state
        eventually(lambda: not state.connections and not state.tasks)
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


def test_a_client_that_leaves_as_its_handshake_ends_is_no_error(
    begin: Begin, context: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    with begin(answers(b"ok")) as serving:
        for _ in range(50):
            with context.wrap_socket(connect(serving.port), server_hostname="localhost") as tls:
                tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with closing(connect(serving.port)) as client, context.wrap_socket(client, server_hostname="localhost") as tls:
            tls.sendall(GET)
            assert read_answer(tls)[2] == b"ok"
    gc.collect()  # a task whose exception nobody has seen reports it when it is freed
    assert "NoneType" not in caplog.text
