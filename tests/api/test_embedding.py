"""The API as an ASGI app: mounted in others, more than once in a process, and under every server."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from jimsapi import JimsApp, create_api
from jimsapi.api.app import Api
from jimsapi.asgi.testing import TestClient
from tests.apps.mounted import fastapi, starlette
from tests.apps.steered import app, greet, steered
from tests.raw import ask, connect, ended, metric, read_answer, request
from tests.serving import ROOT

pytestmark = pytest.mark.anyio

CHAT = "/api/v1/chat"
HELLO = {"contact_id": "ann", "message": "hi"}
HOSTS: list[Callable[..., Any]] = [starlette, fastapi]


def api(**settings: Any) -> Api:
    return create_api(app, store="memory:", **settings)


@pytest.fixture(autouse=True)
def no_settings_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("JIMS_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("host", HOSTS)
async def test_mounted_it_answers_below_its_prefix(host: Callable[..., Any]) -> None:
    async with TestClient(host(api(api_key="k"))) as client:
        home = await client.get("/")
        stranger = await client.post("/bot" + CHAT, json=HELLO)
        client.headers["authorization"] = "Bearer k"
        answer = await client.post("/bot" + CHAT, json=HELLO)
        thread = await client.get(f"/bot/api/v1/threads/{answer.json()['thread_id']}")
        health = await client.get("/bot/healthz")
        document = (await client.get("/bot/openapi.json")).json()
        elsewhere = await client.post(CHAT, json=HELLO)
    assert home.text.strip('"') == "home"
    assert (stranger.status_code, elsewhere.status_code) == (401, 404)
    assert answer.json()["assistant_messages"] == ["You said: hi"]
    assert (thread.status_code, health.json()) == (200, {"status": "ok"})
    assert CHAT in document["paths"]


async def test_the_document_of_our_own_routes_declares_every_answer_of_admission_itself() -> None:
    served = api(api_key="k")
    async with served.lifespan():
        with_admit = served.openapi()
        served.admit = None
        assert with_admit == served.openapi()


@pytest.mark.parametrize("host", HOSTS)
async def test_until_its_lifespan_is_entered_every_answer_is_a_503_that_says_so(host: Callable[..., Any]) -> None:
    async with TestClient(host(api(), live=False)) as client:
        for method, path in (("POST", CHAT), ("GET", "/healthz"), ("GET", "/unknown"), ("GET", "/docs")):
            answer = await client.request(method, "/bot" + path)
            assert answer.status_code == 503
            assert "api.lifespan()" in answer.json()["detail"]
            assert answer.headers["retry-after"]
        assert (await client.get("/")).status_code == 200


async def test_after_its_lifespan_it_is_a_503_again_and_may_be_entered_anew() -> None:
    served = api()
    transport = httpx.ASGITransport(served)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for _ in range(2):
            async with served.lifespan():
                assert (await client.post(CHAT, json=HELLO)).json()["created_new_thread"]
                assert "jims_http_requests_total" in served.metrics()
            assert (await client.post(CHAT, json=HELLO)).status_code == 503
    with pytest.raises(RuntimeError):
        served.metrics()


async def test_entering_it_twice_at_once_is_refused_and_harms_nothing() -> None:
    served = api()
    async with TestClient(served) as client:
        with pytest.raises(RuntimeError, match="started already"):
            async with served.lifespan():
                pass
        assert (await client.post(CHAT, json=HELLO)).status_code == 200


async def test_two_in_one_process_share_neither_threads_nor_keys_nor_metrics() -> None:
    one, other = api(api_key="one"), api(api_key="other", run_timeout=5)
    async with TestClient(one) as first, TestClient(other) as second:
        first.headers["authorization"] = "Bearer one"
        second.headers["authorization"] = "Bearer other"
        for _ in range(3):
            assert (await first.post(CHAT, json=HELLO)).status_code == 200
        assert (await second.post(CHAT, json=HELLO, headers={"authorization": "Bearer one"})).status_code == 401
        assert (await second.post(CHAT, json=HELLO)).json()["created_new_thread"]
        counted = [metric(served.metrics(), "jims_runs_total", status="completed") for served in (one, other)]
    assert counted == [3, 1]


async def test_an_app_may_be_a_pipeline_a_factory_or_a_reference() -> None:
    async def make() -> JimsApp:
        return JimsApp(steered, conversation_start_pipeline=greet)

    for given in (steered, make, lambda: app, "tests.apps.steered:app", "tests.apps.steered"):
        async with TestClient(create_api(given, store="memory:")) as client:
            assert (await client.post(CHAT, json=HELLO)).json()["assistant_messages"] == ["You said: hi"]


@pytest.mark.parametrize("reference", ["no_such_module:app", "tests.apps.steered:nothing", "tests.apps.steered:STATE"])
async def test_an_app_that_is_not_there_stops_the_start_and_is_named(reference: str) -> None:
    with pytest.raises(RuntimeError, match=reference):
        async with TestClient(create_api(reference, store="memory:")):
            pass


SERVERS = {
    "uvicorn": ["uvicorn", "tests.apps.mounted:api", "--host", "127.0.0.1", "--port", "{port}"],
    "uvicorn-h11": ["uvicorn", "tests.apps.mounted:api", "--http", "h11", "--host", "127.0.0.1", "--port", "{port}"],
    "hypercorn": ["hypercorn", "tests.apps.mounted:api", "--bind", "127.0.0.1:{port}"],
    "granian": ["granian", "tests.apps.mounted:api", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}"],
}


@pytest.fixture(scope="module", params=list(SERVERS))
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """The API under a server that is not ours. Gives the server's name and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [part.format(port=port) for part in SERVERS[request.param]]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("JIMS_")}
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, env=environ)
    try:
        until = time.monotonic() + 30
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < until, "the server does not answer"
                time.sleep(0.05)
        yield request.param, port
    finally:
        process.terminate()
        process.wait(20)


def test_every_server_serves_it(server: tuple[str, int]) -> None:
    _, port = server
    headers = {"authorization": "Bearer the-key"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, headers=headers) as client:
        first = client.post(CHAT, json=HELLO)
        again = client.post(CHAT, json={**HELLO, "message": "see"})
        faulty = client.post(CHAT, content=b"{", headers={"content-type": "application/json"})
        large = client.post(CHAT, content=b"x" * 1_100_000, headers={"content-type": "application/json"})
        head = client.head("/healthz")
        listed = client.get("/api/v1/threads", params={"contact_id": "ann"}).json()["threads"]
        deleted = client.delete(f"/api/v1/threads/{first.json()['thread_id']}")
        stranger = client.post(CHAT, json=HELLO, headers={"authorization": "Bearer no"})
    assert first.json()["assistant_messages"] == ["You said: hi"]
    assert again.json()["thread_id"] == first.json()["thread_id"]
    assert [answer.status_code for answer in (faulty, large, head, deleted, stranger)] == [422, 413, 200, 204, 401]
    assert len(listed) == 1


def test_every_server_refuses_a_stranger_before_the_body(server: tuple[str, int]) -> None:
    name, port = server
    lines = ("content-type: application/json", "content-length: 1000000")
    with closing(connect(port)) as connection:
        connection.sendall(request("POST", CHAT, *lines))
        status, headers, _ = read_answer(connection)
        assert (status, headers["connection"]) == (401, "close")
        assert ended(connection)
    status = ask(port, request("POST", CHAT, "expect: 100-continue", *lines))[0]
    # Hypercorn itself sends 100 Continue, before the app is asked: no app can help that.
    assert status == (100 if name == "hypercorn" else 401)
