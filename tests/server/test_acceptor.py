"""Accepting connections over real sockets: in a flood, without descriptors, with TLS, and until the port closes."""

import asyncio
import json
import os
import resource
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from time import monotonic, process_time, sleep
from typing import Any, Protocol, Self

import pytest
import trustme
import uvicorn

from jimsapi.asgi.types import Receive, Scope, Send
from jimsapi.asgi.websocket import FIRST_FRAME_SECONDS
from jimsapi.server import acceptor
from jimsapi.server.descriptors import Descriptors
from jimsapi.server.http1 import Http1Protocol
from jimsapi.server.http1.batch import batch_of
from jimsapi.server.http1.connection import HEAD_WITHIN
from jimsapi.server.server import Server
from tests.apps.blocking import rest
from tests.faults.test_websockets import HANDSHAKE, WS, frame
from tests.raw import TIMEOUT, connect, ended, read_answer, request
from tests.serving import STOP_WITHIN, Served
from tests.waiting import eventually

PROBE = request("GET", "/healthz")
OTHER = request("GET", "/other")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the path, and accept WebSockets."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    body = scope["path"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Serving:
    """Our server in a thread; it accepts when it is entered.

    `paths` are what it has answered, in order, and `passes` those of its loop from the first answer to the last.
    Each answer blocks the loop for `blocks` seconds.
    """

    def __init__(self, loop: str = "uvloop", blocks: float = 0.0, **options: Any) -> None:
        self._blocks = blocks
        self.paths: list[str] = []
        self.passes = 0
        self._counted = 0
        self.loop: asyncio.AbstractEventLoop
        config = uvicorn.Config(
            self._call, http=Http1Protocol, loop=loop, interface="asgi3", lifespan="off", log_config=None, **options
        )
        self.server = Server(config, first=["/healthz"], on_cancelled=lambda: None, on_leaked=lambda tasks: None)
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self.port: int = self.listening.getsockname()[1]
        self._thread = threading.Thread(target=self.server.run, args=([self.listening],), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.should_exit = True
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.paths:
            self.loop = asyncio.get_running_loop()
            self._count()
        self.paths.append(scope["path"])
        self.passes = self._counted
        rest(self._blocks)
        await app(scope, receive, send)

    def _count(self) -> None:
        self._counted += 1
        if not self.server.should_exit:
            asyncio.get_running_loop().call_soon(self._count)


class Many(Protocol):
    """Opens connections to a port, on each of which something may be sent."""

    def __call__(self, port: int, number: int, sent: bytes = b"") -> list[socket.socket]: ...


@pytest.fixture
def many() -> Iterator[Many]:
    """The connections are closed in the end."""
    with ExitStack() as stack:

        def open_many(port: int, number: int, sent: bytes = b"") -> list[socket.socket]:
            opened = [stack.enter_context(closing(connect(port))) for _ in range(number)]
            for connection in opened:
                connection.sendall(sent)
            return opened

        yield open_many


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_probes_on_new_connections_overtake_others_that_wait(many: Many, loop: str) -> None:
    serving = Serving(loop)
    others = many(serving.port, 400, OTHER)
    (probe,) = many(serving.port, 1, PROBE)
    with serving:
        assert read_answer(probe)[2] == b"/healthz"
        for connection in others:
            assert read_answer(connection)[2] == b"/other"
    assert serving.paths.index("/healthz") < 2 * acceptor.OPENED_AT_ONCE


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_busy_loop_accepts_many_connections_in_each_of_its_passes(many: Many, loop: str) -> None:
    serving = Serving(loop)
    connections = many(serving.port, 400, OTHER)
    with serving:
        for connection in connections:
            assert read_answer(connection)[2] == b"/other"
    assert serving.passes < 200  # one for each connection would be 400


def test_a_probe_is_known_by_its_path_below_the_root_path_when_requests_wait_for_their_turn() -> None:
    with Serving(root_path="/bot") as serving:
        assert probed(serving.port, "/healthz") == 200
        scheduler = batch_of(serving.server.server_state, serving.loop).scheduler
        assert scheduler.first == {"/bot/healthz"}
        assert serving.paths == ["/bot/healthz"]


def test_a_client_that_does_not_end_its_tls_handshake_is_dropped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(acceptor, "HANDSHAKE_WITHIN", 0.2)
    certificate, context = issued(tmp_path)
    with Serving(ssl_certfile=certificate) as serving:
        with closing(connect(serving.port)) as silent, closing(connect(serving.port)) as plain:
            plain.sendall(PROBE)
            assert ended(silent)
            with suppress(ConnectionResetError):
                plain.recv(100)  # an alert
            assert ended(plain)
        monkeypatch.setattr(acceptor, "HANDSHAKE_WITHIN", 30.0)
        with context.wrap_socket(connect(serving.port), server_hostname="localhost") as client:
            client.sendall(PROBE)
            assert read_answer(client)[2] == b"/healthz"
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


def test_connections_without_a_descriptor_are_refused_and_later_ones_served(
    many: Many, caplog: pytest.LogCaptureFixture
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    with Serving() as serving:
        assert asked(serving.port, "/healthz") == 200
        eventually(lambda: not serving.server.server_state.connections)  # so that none makes room
        late = [socket.socket() for _ in range(3)]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 20, limits[1]))
            with suppress(OSError):
                while True:
                    held.append(os.open(os.devnull, os.O_RDONLY))
            for client in late:
                client.settimeout(TIMEOUT)
                client.connect(("127.0.0.1", serving.port))
                client.sendall(PROBE)
                assert read_answer(client)[0] == 503
        finally:
            for client in late:
                client.close()
            for descriptor in held:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        (last,) = many(serving.port, 1, PROBE)
        assert read_answer(last)[2] == b"/healthz"
    said = [record.getMessage() for record in caplog.records if record.name == "jimsapi"]
    assert len(said) == 1
    assert "raise the limit of open files" in said[0]


HOARDING = """
import os
from contextlib import suppress

held = []

async def app(ctx):
    with suppress(OSError):
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
"""


def answered(client: socket.socket) -> int | str:
    """The status of the answer to a request that was sent, or the name of what came in its place."""
    try:
        return read_answer(client)[0]
    except (OSError, EOFError) as fault:
        return type(fault).__name__


def test_a_stop_without_a_descriptor_answers_what_the_kernel_has_accepted_and_ends(many: Many, tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(HOARDING)
    with limited(Served("--app", "bot", folder=tmp_path), 128) as served:
        chat = b'{"contact_id":"ann","message":"hi"}'
        fields = ("content-type: application/json", f"content-length: {len(chat)}")
        (chatting,) = many(served.port, 1, request("POST", "/api/v1/chat", *fields, body=chat))
        assert read_answer(chatting)[0] == 200
        clients = many(served.port, 100, OTHER)
        began = monotonic()
        assert served.stop() == 0
        assert monotonic() - began < STOP_WITHIN / 3
        statuses = [answered(client) for client in clients]
        assert set(statuses) <= {404, 503}  # a few got the descriptors of idle connections
        assert statuses.count(503) > len(clients) / 2
        stop_and_check_log(served)


def test_a_stop_does_not_wait_until_a_slow_loop_has_accepted_all(many: Many, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "ACCEPTED_AT_ONCE", 1)
    monkeypatch.setattr(acceptor, "FINISH_WITHIN", 0.2)
    serving = Serving(blocks=0.02)
    clients = many(serving.port, 400, OTHER)
    with serving:
        assert read_answer(clients[0])[0] == 200
        serving.server.should_exit = True
    statuses = [answered(client) for client in clients[1:]]
    assert statuses.count(200) > 0
    assert statuses.count(200) < 200
    assert set(statuses) <= {200, "ConnectionResetError"}


def test_a_port_that_cannot_accept_is_logged_does_not_spin_and_does_not_keep_the_server_from_ending(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Serving("asyncio") as serving:
        eventually(lambda: serving.server.started)
        serving.listening.shutdown(socket.SHUT_RDWR)  # from now on `accept` fails with EINVAL, at once
        eventually(lambda: "cannot accept" in caplog.text, 5)
        used = process_time()
        sleep(1)
        assert process_time() - used < 0.5
    assert caplog.text.count("cannot accept") == 1
    assert "Invalid argument" in caplog.text


def limited(served: Served, descriptors: int) -> Served:
    """A server that may have no more descriptors open."""
    served.command = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh", *served.command]
    return served


def stop_and_check_log(served: Served) -> None:
    """The server has said once that descriptors ran out, and nothing went wrong."""
    served.stop()
    assert served.stderr.count("descriptors run out") == 1
    assert "Traceback" not in served.stderr


def probed(port: int, path: str, pause: float = 0.0) -> int:
    """The status of a probe that is asked again if it is refused, as orchestrators do. The request follows the
    connection after a `pause`."""
    for _ in range(20):
        with closing(connect(port)) as probe:
            sleep(pause)
            probe.sendall(request("GET", path))
            status, headers, _ = read_answer(probe)
            if status != 503:
                break
            assert headers["connection"] == "close"
    return status


def test_idle_connections_are_closed_to_make_room_for_new_ones(
    many: Many,
) -> None:
    with limited(Served(), 128) as served:
        idle = many(served.port, 200)
        eventually(lambda: probed(served.port, "/healthz") == 200, HEAD_WITHIN / 2)
        eventually(lambda: asked(served.port, "/openapi.json") == 200, HEAD_WITHIN / 2)
        # Several were opened in the same moment, and none of them is the oldest.
        assert not all(map(is_open, idle[:16]))
        stop_and_check_log(served)


def test_connections_whose_requests_have_arrived_are_not_closed_to_make_room(
    many: Many,
) -> None:
    with limited(Served(), 64) as served:
        known = many(served.port, 30, request("GET", "/healthz"))
        assert [read_answer(connection)[0] for connection in known] == [200] * len(known)
        sleep(2 * acceptor.SENDS_WITHIN)
        os.kill(served.pid, signal.SIGSTOP)  # as an event loop that is blocked for a while
        many(served.port, 30)
        for connection in known:
            connection.sendall(request("GET", "/openapi.json"))
        os.kill(served.pid, signal.SIGCONT)
        assert [read_answer(connection)[0] for connection in known] == [200] * len(known)


def test_probes_are_answered_though_work_has_taken_all_connections(
    many: Many,
) -> None:
    half = request("POST", "/api/v1/chat", "content-type: application/json", "content-length: 10", body=b"{")
    with limited(Served("--root-path", "/bot"), 128) as served:
        for _ in range(150):
            many(served.port, 1, half)
        with closing(Descriptors(128)) as descriptors:  # the rest is for probes, the store and the app
            eventually(lambda: len(os.listdir(f"/proc/{served.pid}/fd")) <= descriptors.exhausted, 5)
        (other,) = many(served.port, 1, OTHER)
        status, headers, _ = read_answer(other)
        assert (status, headers["connection"], headers["retry-after"]) == (503, "close", "1")
        # Connections that may turn out to be probes' keep their descriptors for a moment.
        eventually(lambda: [probed(served.port, path) for path in ("/healthz", "/readyz")] == [200, 200], 10)
        # So a probe is also known if its request comes a little later than its connection.
        eventually(lambda: probed(served.port, "/healthz", acceptor.PROBE_WITHIN / 5) == 200, 10)


def issued(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate's file for the server, and what its clients trust."""
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return folder / "server.pem", context


def asked(port: int, path: str, tls: ssl.SSLContext | None = None) -> int:
    """The status of a request on a new connection; 0 if the server closes the connection instead."""
    with suppress(OSError, EOFError), ExitStack() as stack:
        client = stack.enter_context(closing(connect(port)))
        if tls is not None:
            client = stack.enter_context(tls.wrap_socket(client, server_hostname="localhost"))
        client.sendall(request("GET", path))
        return read_answer(client)[0]
    return 0


def websocket(port: int, stack: ExitStack) -> socket.socket | None:
    """A WebSocket that has sent nothing but its handshake; None if the server has no room for it."""
    client = stack.enter_context(closing(connect(port)))
    client.sendall(request("GET", WS, *HANDSHAKE))
    with suppress(OSError, EOFError):
        if read_answer(client)[0] == 101:
            return client
    client.close()
    return None


def chat_frame(contact: str, message: str) -> bytes:
    """A message over a WebSocket."""
    return frame(json.dumps({"type": "chat", "contact_id": contact, "message": message}).encode())


def read_result(client: socket.socket) -> bytes:
    """Read frames up to that which ends a run. Raises `EOFError` if the server closes the WebSocket before."""
    read = b""
    while b'"result"' not in read:
        data = client.recv(65_536)
        if not data:
            raise EOFError("the server closed the WebSocket")
        read += data
    return read


def is_open(connection: socket.socket | None) -> bool:
    """Whether the server has neither closed the connection nor sent anything."""
    assert connection is not None
    connection.settimeout(0)
    try:
        connection.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        pass
    finally:
        connection.settimeout(TIMEOUT)
    return False


def test_tls_handshakes_that_do_not_end_make_room_for_new_connections(many: Many, tmp_path: Path) -> None:
    certificate, tls = issued(tmp_path)
    with limited(Served("--ssl-certfile", str(certificate)), 128) as served:
        silent = many(served.port, 200)
        eventually(
            lambda: asked(served.port, "/openapi.json", tls) == 200 and not is_open(silent[0]),
            acceptor.HANDSHAKE_WITHIN / 2,
        )
        stop_and_check_log(served)


def crowds_out(client: socket.socket | None, port: int, stack: ExitStack, sent: bytes = b"") -> bool:
    """Open one more WebSocket, which sends something. Returns whether the server has closed that of the client."""
    if (other := websocket(port, stack)) is not None:
        other.sendall(sent)
    return not is_open(client)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_evicted_clients_of_tls_need_not_end_their_side(tmp_path: Path, loop: str) -> None:
    certificate, tls = issued(tmp_path)
    with Serving(loop, ssl_certfile=certificate) as serving, ExitStack() as stack:
        client = stack.enter_context(tls.wrap_socket(connect(serving.port), server_hostname="localhost"))
        client.sendall(PROBE)
        assert read_answer(client)[2] == b"/healthz"
        connections: set[Any] = serving.server.server_state.connections
        (connection,) = connections
        eventually(connection.waiting_since)
        serving.loop.call_soon_threadsafe(connection.evict)
        eventually(lambda: not connections, acceptor.TLS_CLOSE_WITHIN / 2)


def test_websockets_that_have_sent_nothing_make_room_for_new_connections() -> None:
    with limited(Served("--api-key", "k" * 20), 128) as served, ExitStack() as stack:
        silent = [websocket(served.port, stack) for _ in range(200)]
        eventually(
            lambda: asked(served.port, "/openapi.json") == 200 and not is_open(silent[0]), FIRST_FRAME_SECONDS / 2
        )
        assert silent[0] is not None
        assert silent[0].recv(3)[1:] == (1012).to_bytes(2, "big")  # `is_open` has read the first byte
        stop_and_check_log(served)


def test_handshakes_of_tls_make_room_before_idle_connections_and_websockets(many: Many, tmp_path: Path) -> None:
    certificate, tls = issued(tmp_path)
    with limited(Served("--ssl-certfile", str(certificate)), 128) as served, ExitStack() as stack:
        silent = many(served.port, 80)
        idle, upgraded = (
            stack.enter_context(tls.wrap_socket(connect(served.port), server_hostname="localhost")) for _ in "ab"
        )
        upgraded.sendall(request("GET", WS, *HANDSHAKE))
        assert read_answer(upgraded)[0] == 101
        sleep(2 * acceptor.SENDS_WITHIN)  # younger connections are not closed
        many(served.port, 40)
        eventually(lambda: not is_open(silent[0]), acceptor.HANDSHAKE_WITHIN / 4)
        idle.sendall(PROBE)
        assert read_answer(idle)[0] == 200
        assert is_open(upgraded)


def test_idle_connections_make_room_before_websockets(many: Many) -> None:
    with limited(Served(), 128) as served, ExitStack() as stack:
        upgraded = websocket(served.port, stack)
        assert upgraded is not None
        idle = many(served.port, 80)
        sleep(2 * acceptor.SENDS_WITHIN)  # younger connections are not closed
        many(served.port, 40)
        eventually(lambda: not is_open(idle[0]), HEAD_WITHIN / 4)
        assert is_open(upgraded)


def test_websockets_with_open_runs_stay_and_those_that_have_sent_something_go_last() -> None:
    with limited(Served(), 128) as served, ExitStack() as stack:
        running, used = websocket(served.port, stack), websocket(served.port, stack)
        assert running is not None
        assert used is not None
        running.sendall(chat_frame("ann", "hold door"))
        used.sendall(chat_frame("bea", "reached door"))
        read_result(used)
        silent = websocket(served.port, stack)
        eventually(lambda: crowds_out(silent, served.port, stack), 15)
        assert is_open(used)
        eventually(lambda: crowds_out(used, served.port, stack, chat_frame("cay", "hi")), 15)
        used.close()
        eventually(lambda: asked(served.port, "/openapi.json") == 200, 5)
        last = websocket(served.port, stack)
        assert last is not None
        last.sendall(chat_frame("bea", "open door"))
        assert b"hold door" in read_result(running)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The `websockets` implementation is deprecated")
@pytest.mark.parametrize("ws", ["auto", "websockets", "wsproto"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_websockets_over_tls_need_not_answer_when_they_are_evicted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, loop: str, ws: str
) -> None:
    certificate, tls = issued(tmp_path)
    with Serving(loop, ws=ws, ssl_certfile=certificate) as serving, ExitStack() as stack:
        client = stack.enter_context(tls.wrap_socket(connect(serving.port), server_hostname="localhost"))
        client.sendall(request("GET", "/", *HANDSHAKE))
        assert read_answer(client)[0] == 101
        (opened,) = batch_of(serving.server.server_state, serving.loop).websockets
        eventually(opened.waiting_since)
        serving.loop.call_soon_threadsafe(opened.evict)
        eventually(lambda: not serving.server.server_state.connections, acceptor.TLS_CLOSE_WITHIN / 2)
        assert client.recv(4)[2:] == (1012).to_bytes(2, "big")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_connection_that_has_sent_nothing_when_the_server_ends_is_answered(many: Many, loop: str) -> None:
    with Serving(loop) as serving:
        (fresh,) = many(serving.port, 1)
        eventually(lambda: serving.server.server_state.connections)
        serving.server.should_exit = True
        eventually(lambda: serving.listening.fileno() == -1)
        fresh.sendall(PROBE)
        status, headers, body = read_answer(fresh)
        assert (status, headers["connection"], body) == (200, "close", b"/healthz")
        assert ended(fresh)


def test_a_port_can_be_opened_again_by_who_shares_its_socket() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening, closing(socket.socket()) as client:
        acceptor.refuse_new_connections(listening)
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.connect(listening.getsockname())
        acceptor.accept_new_connections(listening)
        connect(listening.getsockname()[1]).close()
