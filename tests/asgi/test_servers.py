"""The same behaviour on every server. Where a server makes a promise impossible, the test says which and how."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx
import pytest

from .servers import Server, Wire, ask, rows

WAIT = 30.0
STRANGERS_BODY = 64 * 1024 * 1024
ROWS = rows("uvicorn-h11", "hypercorn-asyncio")


@pytest.fixture(scope="module", params=ROWS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param) as running:
        yield running


def state(server: Server) -> dict[str, int]:
    with server.client() as client:
        found: dict[str, int] = client.get("/state").json()
    return found


def wait_until_closed(server: Server, before: int) -> None:
    wait_for(lambda: state(server)["closed"] > before, "the content was never closed")


def wait_for(happened: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + WAIT
    while not happened():
        assert time.monotonic() < until, otherwise
        time.sleep(0.02)


# Plain requests.


def test_the_lifespan_ran_once(server: Server) -> None:
    assert state(server)["started"] == 1


def test_a_json_body_is_read_and_answered_again_and_again_on_one_connection(server: Server) -> None:
    with server.client() as client:
        for size in (0, 10, 100_000, 1_000_000):
            answer = client.post("/json", json="x" * size)
            assert answer.json() == {"value": "x" * size, "client": True}
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-request-id"]
            assert "connection" not in answer.headers or answer.headers["connection"] == "keep-alive"


def test_an_empty_body_is_the_missing_fault(server: Server) -> None:
    with server.client() as client:
        answer = client.post("/json")
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body"])


def test_head_has_get_s_headers_and_leaves_the_connection_usable(server: Server) -> None:
    with Wire(server.port) as wire:
        wire.send("HEAD", "/healthz")
        status, headers = wire.head()
        assert (status, headers["content-length"]) == (200, "15")
        wire.send("GET", "/healthz")
        assert wire.answer()[::2] == (200, b'{"status":"ok"}')  # a body of HEAD would come before this answer


def test_head_of_a_stream_is_answered_without_one(server: Server) -> None:
    with server.client() as client:
        answer = client.head("/stream")
        assert (answer.status_code, answer.content) == (200, b"")
        assert client.get("/healthz").status_code == 200


def test_unknown_paths_wrong_methods_and_options(server: Server) -> None:
    with server.client() as client:
        assert client.get("/nowhere").json() == {"detail": "Not Found"}
        wrong = client.get("/private")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "OPTIONS, POST")
        options = client.options("/private")
        assert (options.status_code, options.headers["allow"], options.content) == (204, "OPTIONS, POST", b"")


def test_a_closing_slash_is_redirected_with_its_query(server: Server) -> None:
    with server.client() as client:
        answer = client.get("/healthz/?q=1%20")
    assert (answer.status_code, answer.headers["location"]) == (307, "/healthz?q=1%20")


def test_an_encoded_slash_separates_no_segments(server: Server) -> None:
    status, _, body = ask(server.port, "GET", "/things/a%2Fb%20c?q=%C3%A9&q=%2F")
    assert status == 200
    assert b'"name":"a/b c"' in body
    assert '"q":["é","/"]'.encode() in body


@pytest.mark.parametrize("target", ["/things/%ff?q=%ff", "/things/a%2F%ff", "/things/\xff?q=\xff", "//things/x", "/%"])
def test_bytes_that_are_no_utf_8_are_never_a_500(server: Server, target: str) -> None:
    with suppress(EOFError):  # a parser may hang up on bytes that no URL may hold
        assert ask(server.port, "GET", target)[0] in (200, 400, 404)
    assert state(server)["started"] == 1


def test_an_unexpected_error_is_a_500_and_the_connection_goes_on(server: Server) -> None:
    with server.client() as client:
        assert client.get("/breaks").json() == {"detail": "Internal Server Error"}
        assert client.get("/healthz").status_code == 200


# Handlers that are cancelled, and handlers in threads.


@pytest.mark.parametrize(("method", "size"), [("GET", 0), ("POST", 5), ("POST", 65_537)])
def test_a_handler_whose_client_leaves_is_cancelled_if_its_route_says_so(
    server: Server, method: str, size: int
) -> None:
    body = b"x" * size  # servers pause the reading of a connection when 65,536 bytes are unread
    with Wire(server.port) as wire:
        wire.send(method, "/waiting?delay=0.1", *([f"content-length: {len(body)}"] if body else []), body=body)
        wait_for(lambda: state(server)["waiting"] == 1, "the handler did not begin")
    wait_for(lambda: state(server)["waiting"] == 0, "the handler was not cancelled")
    assert "Traceback" not in server.log.rpartition("on purpose")[2]


def test_a_handler_that_is_watched_may_read_the_body_late_and_the_connection_goes_on(server: Server) -> None:
    with server.client() as client:
        for content in (b"", b"hello", b"x" * 500_000):
            for delay in ("0", "0.2"):
                answer = client.post("/waiting", params={"delay": delay, "answers": ""}, content=content)
                assert answer.json() == {"size": len(content)}
        assert client.get("/waiting", params={"delay": "0.2", "answers": ""}).json() == {"size": 0}


def test_a_plain_function_runs_in_a_thread(server: Server) -> None:
    with server.client() as client:
        assert client.get("/thread").json() == {"started": 1}


# Refusals and bodies left unread.


def test_a_stranger_is_refused_before_the_body_and_before_100_continue(server: Server) -> None:
    """Hypercorn answers `Expect` before it calls the app: there 100 comes first, and the 401 still before the body."""
    with Wire(server.port) as wire:
        wire.send("POST", "/private", "expect: 100-continue", f"content-length: {STRANGERS_BODY}")
        if server.name.startswith("hypercorn"):
            assert wire.head()[0] == 100
        status, headers, body = wire.answer()
        assert (status, body) == (401, b'{"detail":"Unauthorized"}')
        assert headers["connection"] == "close"
        assert headers["www-authenticate"] == "Key"


def test_who_is_admitted_gets_100_continue_when_the_body_is_wanted(server: Server) -> None:
    with Wire(server.port) as wire:
        wire.send("POST", "/private", "expect: 100-continue", "content-length: 5", "x-key: right")
        assert wire.head()[0] == 100
        wire.socket.sendall(b"hello")
        assert wire.answer()[::2] == (200, b'{"size":5}')


def test_a_stranger_s_64_mb_are_not_read_to_their_end(server: Server) -> None:
    with Wire(server.port) as wire:
        wire.send("POST", "/private", f"content-length: {STRANGERS_BODY}")
        assert wire.answer()[0] == 401
        sent, block = 0, b"x" * 65536
        wire.socket.settimeout(1)
        with suppress(OSError):  # it hangs up, or lets us stand with full buffers
            while sent < STRANGERS_BODY:
                sent += wire.socket.send(block)
    assert sent < STRANGERS_BODY / 2
    assert ask(server.port, "GET", "/healthz")[0] == 200


def test_a_refusal_of_a_small_body_leaves_the_connection_usable(server: Server) -> None:
    with Wire(server.port) as wire:
        for _ in range(3):
            wire.send("POST", "/private", "content-length: 1000", body=b"x" * 1000)
            assert wire.answer()[0] == 401
        wire.send("GET", "/healthz")
        assert wire.answer()[0] == 200


def test_a_declared_length_over_the_limit_is_413_at_once(server: Server) -> None:
    with Wire(server.port) as wire:
        wire.send("POST", "/json", "content-type: application/json", "content-length: 1048577")
        status, headers, _ = wire.answer()
    assert (status, headers["connection"]) == (413, "close")


def test_a_chunked_body_over_the_limit_is_413_and_ends_the_connection(server: Server) -> None:
    with Wire(server.port) as wire:
        wire.send("POST", "/json", "content-type: application/json", "transfer-encoding: chunked")
        for _ in range(17):
            wire.socket.sendall(b"10000\r\n" + b"1" * 0x10000 + b"\r\n")
        status, headers, _ = wire.answer()
    assert (status, headers["connection"]) == (413, "close")


def test_http_2_gets_no_connection_header(server: Server) -> None:
    """uvicorn speaks HTTP/1.1 only: there the header is sent."""
    http_2 = not server.name.startswith("uvicorn")
    with server.client(http_2) as client:
        answer = client.get("/closing")
        assert (answer.http_version, answer.text) == ("HTTP/2" if http_2 else "HTTP/1.1", "bye")
        assert ("connection" in answer.headers) is not http_2
        assert client.post("/json", json={"a": 1}).json()["value"] == {"a": 1}


# Streams.


@pytest.mark.parametrize("path", ["/stream", "/silent", "/tight"])
def test_a_client_that_leaves_a_stream_ends_and_closes_its_content(server: Server, path: str) -> None:
    before = state(server)["closed"]
    with Wire(server.port) as wire:
        wire.send("GET", path)
        assert wire.head()[0] == 200
        assert wire.read(8) == b"5\r\ntick\n"
    wait_until_closed(server, before)
    assert state(server)["open"] == 0


def test_a_tight_stream_does_not_hold_up_other_requests(server: Server) -> None:
    before = state(server)["closed"]
    with Wire(server.port) as wire:
        wire.send("GET", "/tight")
        assert wire.head()[0] == 200
        for _ in range(3):
            assert ask(server.port, "GET", "/healthz")[0] == 200
    wait_until_closed(server, before)


@pytest.mark.parametrize("size", [4000, 1_000_000])
def test_a_client_that_does_not_read_a_stream_ends_and_closes_its_content(server: Server, size: int) -> None:
    """hypercorn's trio worker shields what it sends, so there it ends when the client has left. uvicorn alone can be
    made to drop the connection too, with all that it holds for it."""
    before, sockets = state(server)["closed"], server.sockets()
    with Wire(server.port, receive_buffer=4096) as wire:
        wire.send("GET", f"/flood?size={size}")
        assert wire.head()[0] == 200
        if server.name != "hypercorn-trio":
            wait_until_closed(server, before)
        if server.name.startswith("uvicorn"):
            wait_for(lambda: server.sockets() <= sockets, "the connection was never dropped")
            assert "ASGI" not in server.log
    wait_until_closed(server, before)


def test_a_stream_that_fails_never_looks_finished(server: Server) -> None:
    with Wire(server.port) as wire:
        wire.send("GET", "/torn")
        assert wire.head()[0] == 200
        read = b""
        with suppress(ConnectionResetError):
            read = wire.read(1000)
    assert b"first" in read
    assert b"0\r\n\r\n" not in read
    with server.client() as client, pytest.raises(httpx.RemoteProtocolError):
        client.get("/torn")


def test_a_silent_event_stream_is_kept_alive_by_comments(server: Server) -> None:
    with server.client() as client:
        answer = client.get("/events")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text.startswith("event: greeting\ndata: hello\n\n: ping\n\n")
    assert answer.text.endswith(": ping\n\ndata: bye\n\n")


def test_a_client_that_leaves_in_mid_body_is_no_error(server: Server) -> None:
    with Wire(server.port) as wire:
        wire.send("POST", "/json", "content-type: application/json", "content-length: 100", body=b"{")
        wire.socket.shutdown(socket.SHUT_RDWR)
    assert ask(server.port, "GET", "/healthz")[0] == 200
    assert "ClientDisconnected" not in server.log


# Below a root path.


@pytest.mark.parametrize("name", ROWS)
def test_a_server_s_root_path_is_no_part_of_the_app_s_paths(name: str) -> None:
    """uvicorn puts the root path before the path that it got; hypercorn and granian hand the path on as it is."""
    with Server(name, root_path="/api") as server:
        found = [ask(server.port, "GET", path) for path in ("/things/x", "/things/a%2Fb")]
        assert [(status, body.split(b",")[0]) for status, _, body in found] == [
            (200, b'{"name":"x"'),
            (200, b'{"name":"a/b"'),
        ]
        assert all(b'"path":"/things/' in body for _, _, body in found)
        status, headers, _ = ask(server.port, "GET", "/healthz/")
        assert (status, headers["location"]) == (307, "/api/healthz")
