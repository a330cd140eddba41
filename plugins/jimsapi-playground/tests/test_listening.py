"""When the page is served: by the option, by what the server listens on, and by who asks."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from jimsapi_playground.local import is_local

from jimsapi import create_api
from jimsapi.asgi import Request
from jimsapi.asgi.testing import TestClient
from tests.raw import connect, read_answer
from tests.serving import ROOT, Served

pytestmark = pytest.mark.anyio

APP = ("--app", "tests.apps.scripted:app")


def status_of(server: Served, headers: dict[str, str] | None = None) -> int:
    with server.client() as client:
        return client.get("/", headers=headers).status_code


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ((), 200),
        (("--host", "localhost"), 200),
        (("--host", "0.0.0.0"), 404),
        (("--root-path", "/bot"), 404),
        (("--forwarded-allow-ips", "127.0.0.1"), 404),
        (("--playground", "off"), 404),
        (("--playground", "on", "--host", "0.0.0.0"), 200),
    ],
    ids=str,
)
def test_auto_serves_the_page_if_the_server_listens_for_this_machine_alone(
    options: tuple[str, ...], status: int
) -> None:
    with Served(*APP, *options) as server:
        assert status_of(server) == status


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), "the playground is at the path /, for browsers of this machine\n"),
        (("--playground", "on", "--host", "0.0.0.0"), "the playground is at the path /\n"),
        (("--host", "0.0.0.0"), "the playground is not served, since others than this machine may reach the server:"),
    ],
    ids=str,
)
def test_the_log_says_whether_the_page_is_served(options: tuple[str, ...], line: str) -> None:
    with Served(*APP, *options) as server:
        assert f"INFO jimsapi.playground {line}" in server.stderr


def test_an_unknown_value_of_the_option_stops_the_start() -> None:
    refused = "'maybe' is not one of auto, on, off"
    with pytest.raises(RuntimeError, match=refused), Served(*APP, "--playground", "maybe"):
        pass


def test_auto_does_not_serve_the_page_on_a_socket_of_the_service_manager() -> None:
    options = (*APP, "--store", "memory:", "--metrics-port", "0", "--host", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as passed:
        script = f'exec 3<&{passed.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
        started = subprocess.Popen(
            ["bash", "-c", script, "bash", sys.executable, "-m", "jimsapi", *options],
            cwd=ROOT, pass_fds=(passed.fileno(),), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:  # the socket listens already, so this waits in the kernel until the server has started
            url = f"http://127.0.0.1:{passed.getsockname()[1]}"
            assert httpx.get(f"{url}/healthz", timeout=30).status_code == 200
            assert httpx.get(url, timeout=30).status_code == 404
        finally:
            started.kill()
            started.wait()


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with Served(*APP) as server:
        yield server


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "127.9.9.9", "[::1]:80", "bot.localhost"])
def test_a_name_of_this_machine_shows_the_page(server: Served, host: str) -> None:
    assert status_of(server, {"host": host}) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "bot.example"},
        {"host": "127.0.0.1.bot.example"},
        {"referer": "http://[::1"},
        {"x-forwarded-for": "203.0.113.7"},
        {"x-forwarded-host": "bot.example"},
        {"x-real-ip": "203.0.113.7"},
        {"forwarded": "for=203.0.113.7"},
        {"via": "1.1 proxy"},
        {"origin": "https://bot.example"},
        {"referer": "https://bot.example/"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/", "/playground/app.js"])
def test_a_sign_of_a_proxy_hides_the_page(server: Served, headers: dict[str, str], path: str) -> None:
    with server.client() as client:
        assert client.get(path).status_code == 200
        assert client.get(path, headers=headers).status_code == 404


def test_a_proxy_that_names_this_machine_and_uses_an_old_version_of_http_does_not_show_the_page(
    server: Served,
) -> None:
    statuses = []
    for version in ("1.1", "1.0"):
        with connect(server.port) as connection:
            connection.sendall(f"GET / HTTP/{version}\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
            statuses.append(read_answer(connection)[0])
    assert statuses == [200, 404]


@pytest.mark.parametrize(
    ("client", "local"), [(("127.0.0.1", 1), True), (("::1", 1), True), (("203.0.113.7", 1), False), (None, False)]
)
def test_only_a_client_with_an_address_of_this_machine_is_local(client: tuple[str, int] | None, local: bool) -> None:
    async def receive() -> dict[str, object]:
        raise AssertionError("the body is not read")

    scope = {"type": "http", "http_version": "1.1", "client": client, "headers": [(b"host", b"localhost")]}
    assert is_local(Request(scope, receive)) is local


async def test_another_server_than_the_command_does_not_serve_the_page_by_itself() -> None:
    async with TestClient(create_api("tests.apps.scripted:app", store="memory:")) as client:
        assert (await client.get("/")).status_code == 404
    async with TestClient(create_api("tests.apps.scripted:app", store="memory:", playground="on")) as client:
        assert (await client.get("/")).status_code == 200


async def test_the_page_hides_no_route_and_answers_no_other_path() -> None:
    async with TestClient(create_api("tests.apps.scripted:app", store="memory:", playground="on")) as client:
        assert (await client.get("/docs")).status_code == 200
        assert (await client.get("/playground/../nothing")).status_code == 404
        assert (await client.get("/nothing")).status_code == 404
        assert (await client.post("/")).status_code == 405
        paths = (await client.get("/openapi.json")).json()["paths"]
        own = sorted(path for path in paths if path == "/" or path.startswith("/playground"))
        assert own == ["/", "/playground/app.css", "/playground/app.js", "/playground/icon.svg"]


async def test_the_page_is_served_below_the_path_of_a_proxy() -> None:
    api = create_api("tests.apps.scripted:app", store="memory:", playground="on")
    async with TestClient(api, root_path="/bot") as client:
        page = (await client.get("/")).text
        assert 'data-root="/bot"' in page
        assert 'src="/bot/playground/app.js"' in page
