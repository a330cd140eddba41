"""WebSockets by a real client on the servers. Where one makes a promise impossible, the test says which and how.

hypercorn's trio worker is not among them: there the whole server ends (`trio.BusyResourceError`) when both sides close
at once, whatever the app. `test_websockets.py` runs on trio.
"""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from .servers import Server, Wire, rows
from .test_servers import state, wait_until_closed


@pytest.fixture(scope="module", params=rows("uvicorn-h11", without="hypercorn-trio"))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param) as running:
        yield running


@contextmanager
def opened(server: Server, path: str, *subprotocols: str, **options: Any) -> Iterator[ClientConnection]:
    if subprotocols:
        options["subprotocols"] = [Subprotocol(name) for name in subprotocols]
    url = f"ws://127.0.0.1:{server.port}{path}"
    with connect(url, proxy=None, open_timeout=10, close_timeout=2, max_size=None, **options) as ws:
        yield ws


def refusal(server: Server, path: str, *subprotocols: str, **options: Any) -> tuple[int, bytes]:
    """Status and body of the answer to a handshake."""
    with pytest.raises(InvalidStatus) as refused, opened(server, path, *subprotocols, **options):
        pass
    return refused.value.response.status_code, bytes(refused.value.response.body or b"")


def closed(ws: ClientConnection) -> tuple[int, str]:
    """Code and reason of the server's close."""
    with pytest.raises(ConnectionClosed) as ended:
        ws.recv(timeout=10)
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code, ended.value.rcvd.reason


def test_messages_of_all_sizes_go_both_ways(server: Server) -> None:
    """granian leaves out the headers that an app adds to the handshake's answer."""
    with opened(server, "/ws/echo", "other", "jims.chat") as ws:
        assert ws.subprotocol == "jims.chat"
        assert ws.response is not None
        if server.name != "granian":
            assert ws.response.headers["x-more"] == "1"
            assert ws.response.headers["x-request-id"]
        for message in ("é", "", b"\x00\xff", "x" * 1_000_000, b"x" * 1_000_000):
            ws.send(message)
            assert ws.recv(timeout=10) == message
        ws.send(["frag", "ments"])
        assert ws.recv(timeout=10) == "fragments"


def test_an_unexpected_error_closes_with_1011_and_tells_nothing(server: Server) -> None:
    with opened(server, "/ws/breaks") as ws:
        assert closed(ws) == (1011, "")
    assert server.log.count("LookupError: on purpose") == 1


def test_faulty_messages_close_with_their_codes(server: Server) -> None:
    for message, code in (("{", 1007), (b"1", 1003), ("x" * 1_048_577, 1009)):
        with opened(server, "/ws/json") as ws:
            ws.send(message)
            assert closed(ws)[0] == code


def test_who_is_not_known_is_refused_before_the_handshake(server: Server) -> None:
    unauthorized = (401, b'{"detail":"Unauthorized"}')
    assert refusal(server, "/ws/refused") == unauthorized
    assert refusal(server, "/ws/refused?token=right") == unauthorized
    assert refusal(server, "/ws/refused", "jims.chat", "bearer.wrong") == unauthorized
    assert refusal(server, "/nowhere")[0] == 404
    assert refusal(server, "/healthz")[0] == 404
    assert refusal(server, "/ws/echo", origin=Origin("https://evil.example"))[0] == 403
    assert "admitted" not in server.log


def test_credentials_come_by_header_by_subprotocol_and_in_the_first_frame(server: Server) -> None:
    with opened(server, "/ws/private", additional_headers={"authorization": "Bearer right"}) as ws:
        assert ws.recv(timeout=10) == "known"
    with opened(server, "/ws/private", "bearer.right") as ws:
        assert (ws.subprotocol, ws.recv(timeout=10)) == (None, "known")
    with opened(server, "/ws/private") as ws:
        ws.send('{"type":"auth","token":"right"}')
        assert ws.recv(timeout=10) == "known"
    with opened(server, "/ws/private") as ws:
        ws.send('{"type":"auth","token":"wrong"}')
        assert closed(ws) == (1008, "Unauthorized")


def test_a_page_of_the_server_s_own_host_may_connect(server: Server) -> None:
    with opened(server, "/ws/echo", origin=Origin(f"http://127.0.0.1:{server.port}")) as ws:
        ws.send("hello")
        assert ws.recv(timeout=10) == "hello"


@pytest.mark.parametrize("path", ["/ws/counted", "/ws/pushed"])
@pytest.mark.parametrize("politely", [True, False])
def test_a_handler_ends_when_its_client_leaves(server: Server, politely: bool, path: str) -> None:
    before = state(server)["closed"]
    with opened(server, path) as ws:
        if politely:
            ws.close()
        else:
            ws.socket.shutdown(socket.SHUT_RDWR)
        wait_until_closed(server, before)


def test_a_client_that_does_not_read_ends_its_handler(server: Server) -> None:
    before = state(server)["closed"]
    with Wire(server.port, receive_buffer=4096) as wire:
        wire.send("GET", "/ws/counted", *HANDSHAKE)
        assert wire.head()[0] == 101
        wire.socket.sendall(b"\x81\x85\x00\x00\x00\x00flood")  # a masked text frame
        wait_until_closed(server, before)
    with opened(server, "/ws/echo") as ws:
        ws.send("on")
        assert ws.recv(timeout=10) == "on"


HANDSHAKE = (
    "connection: upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)


def test_a_request_to_a_websocket_s_route_is_told_so(server: Server) -> None:
    with server.client() as client:
        answer = client.get("/ws/echo")
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")


def test_uvicorn_s_shutdown_closes_with_1012() -> None:
    with Server("uvicorn-httptools") as server, opened(server, "/ws/counted") as ws:
        ws.send("hello")
        server.signal(signal.SIGTERM)
        assert closed(ws)[0] == 1012


def test_without_an_implementation_of_websockets_the_log_says_what_to_install() -> None:
    with Server("uvicorn-httptools", more=("--ws", "none")) as server, Wire(server.port) as wire:
        wire.send("GET", "/ws/echo", *HANDSHAKE)
        assert wire.answer()[::2] == (501, b'{"detail":"This server does not speak WebSocket"}')
        assert "install the package `websockets`" in server.log
