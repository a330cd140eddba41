"""A plugin that calls `sys.exit()` cannot end the server as if the operator had stopped it."""

from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.command import refusal, run_command
from tests.plugins.distributions import install
from tests.serving import Served
from tests.waiting import PATIENCE

BOT = "async def app(ctx):\n    ctx.send_message('hello')\n"
HEAD = "import sys\nfrom jimsapi import *\n\n"

AT_START = {
    "a hook that builds": "@hookimpl\ndef jimsapi_observer():\n    sys.exit()\n",
    "the hook of options": "@hookimpl\ndef jimsapi_options():\n    sys.exit()\n",
    "the hook of metrics": "@hookimpl\ndef jimsapi_metrics():\n    sys.exit()\n",
    "the hook of routes": "@hookimpl\ndef jimsapi_routes():\n    sys.exit()\n",
    "the hook of commands": "@hookimpl\ndef jimsapi_commands():\n    sys.exit()\n",
    "a wrapper of the app": (
        "@hookimpl\ndef jimsapi_asgi_wrapper():\n    def wrap(app):\n        sys.exit()\n    return wrap\n"
    ),
    "a wrapper of pipelines": (
        "@hookimpl\ndef jimsapi_pipeline_wrapper():\n    def wrap(pipe, name):\n        sys.exit()\n    return wrap\n"
    ),
    "a wrapper of the store": (
        "@hookimpl\ndef jimsapi_store_wrapper():\n    def wrap(store):\n        sys.exit()\n    return wrap\n"
    ),
    "a sink that is entered": """
class Sink:
    name = "sink"
    async def __aenter__(self):
        sys.exit()
    async def __aexit__(self, *error):
        pass
    async def deliver(self, events):
        pass

@hookimpl
def jimsapi_event_sink():
    return Sink()
""",
}
"""Plugins that exit while the server starts."""

WHILE_SERVING = """
class Observer:
    def on_request(self, record):
        sys.exit()
    def on_admission(self, record):
        sys.exit()
    def on_run(self, record):
        sys.exit()
    def on_commit(self, record):
        sys.exit()

class Sink:
    name = "sink"
    async def deliver(self, events):
        sys.exit()

@hookimpl
def jimsapi_observer():
    return Observer()

@hookimpl
def jimsapi_event_sink():
    return Sink()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bot.py").write_text(BOT, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("place", AT_START)
def test_a_plugin_that_exits_during_the_start_fails_the_start(folder: Path, place: str) -> None:
    install(folder, "acme-exits", HEAD + AT_START[place])
    line = refusal(run_command("--app", "bot", "--store", "memory:", "--port", "0", "--metrics-port", "0", cwd=folder))
    assert "acme" in line
    assert "SystemExit" in line


SCHEME = """
class Door:
    name = "door"

    async def authenticate(self, connection):
        return None

    @property
    def security_scheme(self):
        sys.exit()

@hookimpl
def jimsapi_auth_provider():
    return Door()
"""


@pytest.mark.parametrize("command", ["check", "openapi"])
def test_a_plugin_that_exits_does_not_end_another_command_with_success(folder: Path, command: str) -> None:
    install(folder, "acme-exits", HEAD + SCHEME)
    line = refusal(run_command(command, "--app", "bot", "--store", "memory:", cwd=folder))
    assert line == f"jimsapi: a plugin called sys.exit() (at {folder}/acme_exits.py:13)"


WRAPPERS = """
import sys
from jimsapi import *

def exit_if(word, text):
    if word in str(text):
        sys.exit()

@hookimpl
def jimsapi_asgi_wrapper():
    def wrap(app):
        async def wrapped(scope, receive, send):
            if scope["type"] != "lifespan":
                exit_if("exit-app", scope["query_string"])
            await app(scope, receive, send)
        return wrapped
    return wrap

@hookimpl
def jimsapi_pipeline_wrapper():
    def wrap(pipeline, name):
        async def wrapped(ctx):
            exit_if("exit-pipeline", ctx.get_last_user_message())
            await pipeline(ctx)
        return wrapped
    return wrap

class Store:
    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def accept(self, plan):
        exit_if("exit-store", plan.contact_id)
        return await self._store.accept(plan)

    async def delete_contact(self, contact_id):
        sys.exit()

@hookimpl
def jimsapi_store_wrapper():
    return Store

@hookimpl
def jimsapi_routes(router):
    @router.get("/exits", public=True)
    async def exits(request):
        sys.exit()
"""


def test_wrappers_and_routes_that_exit_fail_their_request_and_the_server_goes_on(folder: Path) -> None:
    install(folder, "acme-exits", WRAPPERS)
    with Served("--app", "bot", folder=folder) as served, served.client() as client:
        for path in ("/healthz?exit-app", "/exits"):
            assert client.get(path).status_code == 500
        body = {"contact_id": "ann", "message": "exit-pipeline"}
        assert client.post("/api/v1/chat", json=body).status_code == 500
        # An exit in the store counts as an outage.
        body = {"contact_id": "exit-store", "message": "hi"}
        assert client.post("/api/v1/chat", json=body).status_code == 503
        assert client.delete("/api/v1/contacts?contact_id=ann").status_code == 500
        assert client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"}).status_code == 200
        assert served.stop() == 0
        assert served.stderr.count("SystemExit") >= 5


def test_a_wrapper_that_exits_closes_its_websocket_and_the_server_goes_on(folder: Path) -> None:
    install(folder, "acme-exits", WRAPPERS)
    with Served("--app", "bot", folder=folder) as served, served.client() as client:
        with (
            pytest.raises(InvalidStatus, match="500"),
            connect(f"ws://127.0.0.1:{served.port}/api/v1/chat/ws?exit-app"),
        ):
            pass
        assert client.get("/healthz").status_code == 200
        assert served.stop() == 0
        assert "SystemExit" in served.stderr


def test_observers_and_sinks_that_exit_affect_no_request(folder: Path) -> None:
    install(folder, "acme-exits", HEAD + WHILE_SERVING)
    with Served("--app", "bot", "--api-key", "k", folder=folder) as served, served.client() as client:
        for _ in range(3):
            answer = client.post(
                "/api/v1/chat", json={"contact_id": "ann", "message": "hi"}, headers={"authorization": "Bearer k"}
            )
            assert answer.status_code == 200
        assert served.stop() == 0
        assert "event sink sink failed" in served.stderr
        assert served.stderr.count("the observer of plugin acme_exits") == 4


STAYS = """
import sys
from jimsapi import *

class Sink:
    name = "sink"
    async def __aenter__(self):
        pass
    async def __aexit__(self, *error):
        sys.exit()
    async def deliver(self, events):
        pass

@hookimpl
def jimsapi_event_sink():
    return Sink()
"""


def test_a_plugin_that_exits_while_it_is_closed_is_logged_and_the_rest_is_closed(folder: Path) -> None:
    install(folder, "acme-exits", STAYS)
    with Served("--app", "bot", "--store", "sqlite:///jims.db", folder=folder) as served, served.client() as client:
        assert client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"}).status_code == 200
        assert served.stop() == 0
        assert "acme-exits failed on exit: SystemExit" in served.stderr
        assert "stopped" in served.stderr.splitlines()[-1]
    assert not (folder / "jims.db-wal").exists()


LEFT_BEHIND = """
import asyncio
import sys
from jimsapi import *

async def exit_soon():
    sys.exit(0)

class Observer:
    def on_request(self, record):
        if record.path == "/nowhere":
            self.task = asyncio.create_task(exit_soon())

@hookimpl
def jimsapi_observer():
    return Observer()
"""


def test_a_task_of_a_plugin_that_exits_ends_the_server_with_status_1(folder: Path) -> None:
    install(folder, "acme-exits", LEFT_BEHIND)
    with Served("--app", "bot", folder=folder) as served, served.client() as client:
        assert client.get("/nowhere").status_code == 404
        assert served.process is not None
        assert served.process.wait(PATIENCE) == 1
        assert f"has called sys.exit() (at {folder}/acme_exits.py:7); the server stops with status 1" in served.stderr
