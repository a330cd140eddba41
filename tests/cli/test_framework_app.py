"""The command serves a `jimsapi.asgi.App` by itself: its start, its drain, and the options that it does not have."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import orjson
import pytest

from jimsapi import create_api
from jimsapi.asgi import App
from jimsapi.builtin import builtin_plugins
from jimsapi.cli.framework import FrameworkApp
from jimsapi.cli.options import COMMAND_OPTIONS
from jimsapi.plugins.compose import AppWithoutPipeline, resolve_settings
from jimsapi.plugins.manager import PluginManager
from tests.command import hide_websockets, refusal, run_command
from tests.serving import Served
from tests.waiting import PATIENCE, eventually

SERVICE = '''\
import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path

from jimsapi.asgi import App, EventStreamResponse, Request, Response, ServerSentEvent, WebSocket


@asynccontextmanager
async def lifespan(app):
    yield
    Path("closed").touch()


app = App(title="Shop", lifespan=lifespan)
draining = asyncio.Event()


@app.get("/hello/{name}")
async def hello(request: Request) -> dict[str, str]:
    """Say hello."""
    return {"hello": request.path_params["name"]}


async def until_the_drain() -> None:
    while not app.draining:
        await asyncio.sleep(0.01)


async def write(name: str) -> None:
    await until_the_drain()
    await asyncio.sleep(0.2)
    Path(name).touch()


@app.post("/files/{name}")
async def file(request: Request) -> Response:
    request.start_background(write(request.path_params["name"]))
    return Response(status=202)


@app.get("/slow")
async def slow(request: Request) -> dict[str, str]:
    Path("asked").touch()
    await until_the_drain()
    await asyncio.sleep(2)
    return {"slow": "done"}


@app.get("/ticks")
async def ticks(request: Request) -> Response:
    async def events():
        while True:
            yield ServerSentEvent("tick")
            await asyncio.sleep(0.01)

    return EventStreamResponse(events(), endless=True)


@app.get("/stuck")
async def stuck(request: Request) -> Response:
    async def forever():
        Path("stuck").touch()
        await asyncio.sleep(3600)

    request.start_background(forever())
    return Response(status=202)


async def make():
    return app
'''

WEBSOCKET = """

@app.websocket("/echo")
async def echo(ws):
    await ws.accept()
"""


class ServedAlone(Served):
    """The command with an app of the framework, and without the options of the chat API."""

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder=folder)
        own = ("--app", "svc:app", "--port", "0", "--host", "127.0.0.1")
        self.command = [sys.executable, "-m", "jimsapi", *own, *options]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "svc.py").write_text(SERVICE, encoding="utf-8")
    return tmp_path


@pytest.fixture
def served(folder: Path) -> Iterator[ServedAlone]:
    with ServedAlone(folder, "--drain-time", "10") as server:
        yield server


def test_it_is_served_logged_and_stopped(served: ServedAlone, folder: Path) -> None:
    with served.client() as client:
        assert client.get("/hello/ann").json() == {"hello": "ann"}
        assert client.get("/healthz").status_code == 404
    assert served.stop() == 0
    assert "a jimsapi.asgi.App with 5 routes" in served.stderr
    assert "auth: none, every route is public" in served.stderr
    assert "/hello/{name}" in served.stderr  # the line of the request
    assert "Traceback" not in served.stderr
    assert (folder / "closed").exists()


def test_a_signal_drains_streams_background_work_and_requests(served: ServedAlone, folder: Path) -> None:
    with served.client() as client, ExitStack() as stack:
        ticks = stack.enter_context(client.stream("GET", "/ticks"))
        lines = ticks.iter_lines()
        assert next(lines) == "data: tick"
        assert client.post("/files/delivered").status_code == 202
        slow = subprocess.Popen(
            [sys.executable, "-c", f"import httpx; print(httpx.get('{served.url}/slow', timeout=30).text)"],
            stdout=subprocess.PIPE,
            text=True,
        )
        eventually((folder / "asked").exists)
        assert served.process is not None
        served.process.send_signal(signal.SIGTERM)
        rest = list(lines)  # raises if the stream is cut
        answer, _ = slow.communicate(timeout=30)
    assert set(rest) == {"", "data: tick"}
    assert orjson.loads(answer) == {"slow": "done"}
    assert served.process.wait(30) == 0
    assert (folder / "delivered").exists()
    assert (folder / "closed").exists()
    assert "Traceback" not in served.stderr


def test_work_that_does_not_end_is_logged_and_a_second_signal_hastens_it(served: ServedAlone, folder: Path) -> None:
    with served.client() as client:
        client.get("/stuck")
        eventually((folder / "stuck").exists)
        assert served.process is not None
        served.process.send_signal(signal.SIGTERM)
        eventually(lambda: client.get("/hello/ann").status_code == 503)  # the drain has begun
    assert served.stop() == 0
    assert "Background work was cancelled, since it did not end in time: stuck.<locals>.forever" in served.stderr
    assert "ends here" not in served.stderr


def test_a_factory_of_an_app_is_served(folder: Path) -> None:
    with ServedAlone(folder, "--app", "svc:make") as served, served.client() as client:
        assert client.get("/hello/ann").status_code == 200


def test_a_lifespan_that_fails_stops_the_start_with_its_traceback(folder: Path) -> None:
    code = SERVICE.replace("    yield\n", "    raise LookupError('no database')\n    yield\n", 1)
    (folder / "svc.py").write_text(code, encoding="utf-8")
    ran = run_command("--app", "svc:app", "--port", "0", cwd=folder)
    assert ran.returncode == 1
    assert "no database" in ran.stderr


def test_a_lifespan_that_exits_fails_the_start(folder: Path) -> None:
    code = SERVICE.replace("    yield\n", "    sys.exit()\n    yield\n", 1)
    (folder / "svc.py").write_text(code, encoding="utf-8")
    ran = run_command("--app", "svc:app", "--port", "0", cwd=folder)
    assert ran.returncode == 1
    assert "the start failed" in ran.stderr
    assert "in lifespan" in ran.stderr


EXITS = """

@app.get("/exits")
async def exits(request: Request) -> Response:
    async def leave():
        sys.exit(0)

    app.left_behind = asyncio.create_task(leave())
    return Response()
"""


def test_a_task_of_the_app_that_exits_ends_the_server_with_status_1(folder: Path) -> None:
    (folder / "svc.py").write_text(SERVICE + EXITS, encoding="utf-8")
    with ServedAlone(folder) as served, served.client() as client:
        with suppress(httpx.TransportError):  # the server may end before it has sent the answer
            client.get("/exits")
        assert served.process is not None
        assert served.process.wait(PATIENCE) == 1
        assert f"has called sys.exit() (at {folder}/svc.py:" in served.stderr


@pytest.mark.parametrize(
    ("options", "env", "named"),
    [
        (("--api-key", "k"), {}, "--api-key (JIMS_API_KEY)"),
        ((), {"JIMS_API_KEY": "k"}, "--api-key (JIMS_API_KEY)"),
        (("--store", "memory:"), {}, "--store"),
        (("--metrics-port", "9000"), {}, "--metrics-port"),
    ],
)
def test_an_option_without_effect_on_it_stops_the_start(
    options: tuple[str, ...], env: dict[str, str], named: str, folder: Path
) -> None:
    line = refusal(run_command("--app", "svc:app", "--port", "0", *options, cwd=folder, env=env))
    assert "svc:app is a jimsapi.asgi.App" in line
    assert named in line
    assert "App(admit=...)" in line


@pytest.mark.parametrize("arguments", [("--help",), ("check", "--help"), ("openapi", "--help")])
def test_the_help_lists_its_options_apart_from_those_of_the_chat_api(arguments: tuple[str, ...], folder: Path) -> None:
    shown = run_command(*arguments, cwd=folder).stdout
    every_app, _, chat = shown.partition("Options of the chat API (a jimsapi.asgi.App does not start with them):\n")
    flags_of_every_app, flags_of_the_chat = (
        set(re.findall(r"^  (--[\w-]+)", part, re.MULTILINE)) for part in (every_app, chat)
    )
    assert flags_of_every_app >= {
        "--app",
        "--port",
        "--drain-time",
        "--ssl-ca-certs",
        "--verbose",
        "--plugins",
        "--help",
    }
    assert flags_of_the_chat >= {"--api-key", "--store", "--metrics-port", "--max-body"}
    assert not flags_of_every_app & flags_of_the_chat


def test_options_of_every_app_do_not_stop_its_start(folder: Path) -> None:
    given = ["--app", "svc:app", "--drain-time", "9", "--host", "127.0.0.1", "--port", "0", "--root-path", "/shop"]
    given += ["--log-format", "json", "--forwarded-allow-ips", "*", "--plugins", "none", "--reload", "--verbose"]
    checked = run_command("check", *given, cwd=folder)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_check_and_openapi_describe_it(folder: Path) -> None:
    checked = run_command("check", "--app", "svc:app", "--metrics-port", "0", cwd=folder)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "a jimsapi.asgi.App with 5 routes" in checked.stdout
    document = orjson.loads(run_command("openapi", "--app", "svc:app", cwd=folder).stdout)
    assert document["info"]["title"] == "Shop"
    assert document["paths"]["/hello/{name}"]["get"]["summary"] == "Say hello."


@pytest.mark.parametrize(("routes", "count"), [("", 0), (WEBSOCKET, 1)], ids=["without", "with"])
def test_a_missing_package_for_websockets_is_warned_of_once_and_only_if_there_is_a_websocket(
    routes: str, count: int, folder: Path
) -> None:
    hide_websockets(folder)
    (folder / "svc.py").write_text(SERVICE + routes, encoding="utf-8")
    strict = run_command("check", "--strict", "--app", "svc:app", "--metrics-port", "0", cwd=folder)
    assert strict.returncode == count
    with ServedAlone(folder) as served:
        assert served.stop() == 0
        started = served.stderr
    for stderr in (strict.stderr, started):
        assert stderr.count("NO WEBSOCKET IS ACCEPTED") == count
        assert stderr.count("on /echo, since the package websockets is not installed: pip install 'jimsapi[") == count


def test_create_api_says_that_it_answers_no_messages() -> None:
    async def start() -> None:
        async with create_api(App(), store="memory:").lifespan():
            raise AssertionError("started")

    with pytest.raises(Exception, match="has no pipeline that answers messages"):
        asyncio.run(start())


def test_a_request_during_the_drain_gets_503_with_close(served: ServedAlone, folder: Path) -> None:
    with served.client() as client:
        client.post("/files/delivered")
        assert served.process is not None
        served.process.send_signal(signal.SIGTERM)
        eventually(lambda: client.get("/hello/ann").headers.get("connection") == "close")
    assert served.stop() == 0


def test_a_second_signal_cuts_requests_and_the_lifespan_ends_as_usual(folder: Path) -> None:
    (folder / "svc.py").write_text(SERVICE.replace("asyncio.sleep(2)", "asyncio.sleep(3600)"), encoding="utf-8")
    with ServedAlone(folder, "--drain-time", "120") as served:
        with socket.create_connection(("127.0.0.1", served.port)) as slow:
            slow.sendall(b"GET /slow HTTP/1.1\r\nhost: test\r\n\r\n")
            eventually((folder / "asked").exists)
            assert served.process is not None
            served.process.send_signal(signal.SIGTERM)
            eventually(lambda: not accepts(served.port))  # the drain has ended, and the request goes on
            assert served.stop() == 0
            assert slow.recv(65536).startswith(b"HTTP/1.1 500 ")
        assert "1 requests that were still answered are cut" in served.stderr
        assert (folder / "closed").exists()


def test_a_second_signal_gives_requests_no_more_time_than_other_work(folder: Path) -> None:
    (folder / "svc.py").write_text(SERVICE.replace("asyncio.sleep(2)", "asyncio.sleep(3600)"), encoding="utf-8")
    with ServedAlone(folder, "--drain-time", "120") as served, served.client() as client:
        client.get("/stuck")
        with socket.create_connection(("127.0.0.1", served.port)) as slow:
            slow.sendall(b"GET /slow HTTP/1.1\r\nhost: test\r\n\r\n")
            eventually((folder / "asked").exists)
            assert served.process is not None
            served.process.send_signal(signal.SIGTERM)
            eventually(lambda: client.get("/hello/ann").status_code == 503)  # the drain waits for `stuck`
            assert served.stop() == 0
        assert (folder / "closed").exists()


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize(("given", "seconds"), [({}, 7.0), ({"drain_time": "3"}, 3.0)])
def test_the_drain_time_of_the_app_holds_unless_the_option_is_given(given: dict[str, str], seconds: float) -> None:
    settings = resolve_settings(PluginManager(builtin_plugins()), COMMAND_OPTIONS, given, {})
    found = AppWithoutPipeline("--app svc:app", App(drain_time=7.0), settings)
    assert FrameworkApp(found).drain_time == seconds
