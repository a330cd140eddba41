"""What the proxies of `deploy/` do with streams, WebSockets, long runs, lost connections and restarts."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Origin

from tests.deploy.proxies import PROXIES, Nginx, NginxBelow, NginxOnSockets, Proxy, Traefik
from tests.deploy.rolling import roll
from tests.on_socket import OnSocket
from tests.ports import free_port
from tests.serving import Served
from tests.waiting import eventually

PACED = ("--app", "tests.apps.paced:app", "--forwarded-allow-ips", "127.0.0.1")
LONGER_THAN_THE_DEFAULT = "a wait 1.5"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with Served(*PACED) as served:
        yield served


@pytest.fixture(scope="module", params=list(PROXIES))
def proxy(request: pytest.FixtureRequest, server: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Each proxy, in front of a server and of a port on which nothing listens."""
    folder = tmp_path_factory.mktemp("proxy") / request.param
    # It is bound, so that no other test's server gets it, and does not listen, so that connections are refused.
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", free_port()))
        with PROXIES[request.param](folder, (server.port, nobody.getsockname()[1])) as running:
            yield running


def chat(message: str) -> dict[str, str]:
    return {"contact_id": message, "message": message}


def test_an_event_of_a_stream_arrives_while_its_run_still_works(proxy: Proxy, tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    with (
        proxy.client() as client,
        client.stream("POST", "/api/v1/chat/stream", json=chat(f"{ends} until {ends}")) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines) == "event: started"
        ends.touch()  # a proxy that waited for the end of the answer would not come this far
        assert "event: result" in list(lines)


def test_a_page_of_the_site_chats_over_a_websocket(proxy: Proxy) -> None:
    received = chat_over_a_websocket(proxy, proxy.url)
    assert received[0] == "started"
    assert received[-1] == "result"


def chat_over_a_websocket(proxy: Proxy, page: str) -> list[str]:
    """The types of the frames that a page receives for a message, up to the result or an error."""

    # The client with threads reads in one and writes in another. Before Python 3.13, TLS may then lose what it writes.
    async def received() -> list[str]:
        address = proxy.url.replace("http", "ws", 1) + "/api/v1/chat/ws"
        types: list[str] = []
        async with connect(address, ssl=proxy.tls, origin=Origin(page), proxy=None) as websocket:
            await websocket.send(orjson.dumps({"type": "chat", **chat("over a websocket")}).decode())
            while not types or types[-1] not in {"result", "error"}:
                types.append(orjson.loads(await asyncio.wait_for(websocket.recv(), 30))["type"])
        return types

    return asyncio.run(received())


@pytest.mark.parametrize("foreign", ["https://evil.example:{port}", "https://127.0.0.1:1", "http://127.0.0.1:{port}"])
def test_a_page_of_another_host_or_port_or_without_tls_opens_no_websocket(proxy: Proxy, foreign: str) -> None:
    assert handshake(proxy, foreign.format(port=proxy.port)) == 403
    assert handshake(proxy, proxy.url) == 101


def handshake(proxy: Proxy, origin: str) -> int:
    """The status of the answer to the WebSocket handshake of a page.

    The client is not websockets: over TLS, its sync client may wait without end for the end of a refused connection.
    """
    fields = {
        "origin": origin,
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with proxy.client() as client, client.stream("GET", "/api/v1/chat/ws", headers=fields) as answer:
        return answer.status_code


def test_a_run_that_takes_longer_than_the_default_of_the_proxy_is_answered(proxy: Proxy) -> None:
    with proxy.client() as client:
        answer = client.post("/api/v1/chat", json=chat(LONGER_THAN_THE_DEFAULT))
    assert (answer.status_code, answer.json()["assistant_messages"]) == (200, [LONGER_THAN_THE_DEFAULT])


def test_a_message_goes_to_the_other_instance_if_nothing_listens_on_the_first(proxy: Proxy) -> None:
    if not isinstance(proxy, Traefik):
        assert refused_messages(proxy, within=30) == [200] * 6
        return

    def all_are_answered() -> bool:
        with suppress(httpx.ReadTimeout):
            assert refused_messages(proxy, within=5) == [200] * 6
            return True
        return False

    # Until its probe has seen that the instance is dead, it may leave a message without an answer (docs/deploy.md).
    eventually(all_are_answered)


def refused_messages(proxy: Proxy, *, within: float) -> list[int]:
    """The statuses of the answers to some messages, of which some go to the dead instance first.

    Raises `httpx.ReadTimeout` if one is not answered within so many seconds.
    """
    with proxy.client() as client:
        sent = (client.post("/api/v1/chat", json=chat(f"refused {number}"), timeout=within) for number in range(6))
        return [answer.status_code for answer in sent]


class HangsUp(BaseHTTPRequestHandler):
    """An instance that is ready, reads each message to its end, and dies before it answers."""

    protocol_version = "HTTP/1.1"
    read: list[bytes]

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.read.append(self.rfile.read(int(self.headers["content-length"])))
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads this log."""


@contextmanager
def dying_instances() -> Iterator[tuple[tuple[int, int], list[bytes]]]:
    """Two instances that hang up. Gives their ports, and the messages that both have read."""
    read: list[bytes] = []
    handler = type("Handler", (HangsUp,), {"read": read})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    for each in servers:
        threading.Thread(target=each.serve_forever, daemon=True).start()
    try:
        yield (servers[0].server_port, servers[1].server_port), read
    finally:
        for each in servers:
            each.shutdown()
            each.server_close()


@pytest.mark.parametrize("name", PROXIES)
def test_a_message_that_an_instance_has_read_is_not_sent_again(name: str, tmp_path: Path) -> None:
    with (
        dying_instances() as (ports, read),
        PROXIES[name](tmp_path / name, ports) as proxy,
        proxy.client() as client,
    ):
        answer = client.post("/api/v1/chat", json=chat("once"))
        assert answer.status_code == httpx.codes.BAD_GATEWAY
        assert len(read) == 1


def test_nginx_sends_a_message_with_an_idempotency_key_to_the_other_instance(tmp_path: Path) -> None:
    with dying_instances() as (ports, read), Nginx(tmp_path / "nginx", ports) as proxy, proxy.client() as client:
        client.post("/api/v1/chat", json=chat("twice"), headers={"idempotency-key": "k"})
        assert len(read) == 2
        assert len(set(read)) == 1


def test_an_instance_of_nginx_that_leaves_gets_no_new_messages(tmp_path: Path) -> None:
    with (
        Served(*PACED) as staying,
        dying_instances() as ((leaving, _), read),
        Nginx(tmp_path / "nginx", (leaving, staying.port), run=tmp_path) as proxy,
        proxy.client() as client,
    ):
        (tmp_path / f"{leaving}.leaving").touch()
        answers = [client.post("/api/v1/chat", json=chat(f"left {number}")) for number in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 6
        assert read == []
        (tmp_path / f"{leaving}.leaving").unlink()

        def it_gets_one() -> bool:
            client.post("/api/v1/chat", json=chat("back"))
            return bool(read)

        eventually(it_gets_one)


def test_nginx_reaches_an_instance_by_its_unix_socket_and_names_the_client(tmp_path: Path) -> None:
    proxy = NginxOnSockets(tmp_path / "nginx", (1, 2), run=tmp_path)
    options = ("--forwarded-allow-ips", "unix", "--log-client")
    with OnSocket(proxy.socket(1), *PACED[:2], *options) as served, proxy, proxy.client() as client:
        assert client.post("/api/v1/chat", json=chat("by a socket")).status_code == 200
        assert chat_over_a_websocket(proxy, proxy.url)[-1] == "result"
        eventually(lambda: served.stderr.count(" client=127.0.0.1") >= 2)
        assert " client=unix" not in served.stderr


def test_nginx_shows_a_server_below_a_path_that_it_does_not_remove(tmp_path: Path) -> None:
    with (
        Served(*PACED, "--root-path", "/bot", "--root-path-kept") as below,
        NginxBelow(tmp_path / "nginx", (below.port, free_port())) as proxy,
        proxy.client() as client,
    ):
        assert client.post("/api/v1/chat", json=chat("below")).status_code == 200
        assert '"/bot/openapi.json"' in client.get("/docs").text
        assert chat_over_a_websocket(proxy, proxy.url.removesuffix("/bot"))[-1] == "result"


def test_a_rolling_restart_behind_nginx_fails_no_request() -> None:
    options = {"JIMS_DRAIN_DELAY": "0.5"}
    figures = asyncio.run(roll(["nginx"], requests=100, options=options, clients=4))["nginx"]
    assert figures["failed"] == 0, figures
    assert figures["requests"] >= 100


def test_workers_that_sighup_replaces_behind_nginx_fail_no_request() -> None:
    figures = asyncio.run(roll(["nginx"], requests=100, clients=4, workers=2))["nginx"]
    assert figures["failed"] == 0, figures
    assert figures["requests"] >= 100
