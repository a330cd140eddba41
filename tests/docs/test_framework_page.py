"""Every code block of the page on the framework works as it stands there."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from jimsapi.asgi import App, WebSocketDisconnected
from jimsapi.asgi.testing import UNREAD_MESSAGES, TestClient
from tests.command import python_path
from tests.docs.snippets import blocks, modules
from tests.node import node
from tests.serving import Served

pytestmark = pytest.mark.anyio

PAGE = "docs/framework.md"
MODULES = modules(PAGE)

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(site: Path) -> Load:
    """Imports a module of the page, as a user would who has all of them in the current folder."""
    for name, code in MODULES.items():
        (site / name).write_text(code, encoding="utf-8")
    return importlib.import_module


def test_every_block_is_a_module_that_is_tested_here() -> None:
    assert len(MODULES) == len(blocks(PAGE, "python"))
    source = Path(__file__).read_text(encoding="utf-8")
    for name in MODULES:
        assert f'"{name.removesuffix(".py")}"' in source, name


@pytest.mark.parametrize("name", ["test_svc", "test_live", "test_room"])
def test_the_tests_of_the_page_pass(name: str, load: Load, site: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{name}.py"],
        cwd=site,
        env={**os.environ, "PYTHONPATH": python_path(site)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


async def test_the_first_route_answers_and_is_documented(load: Load) -> None:
    async with TestClient(load("svc").app) as client:
        assert (await client.get("/hello/ann")).text == '{"hello":"ann"}'
        assert "Greet somebody." in (await client.get("/openapi.json")).text
        assert (await client.get("/docs")).status_code == 200


async def test_the_notes_are_written_found_read_and_removed(load: Load) -> None:
    module = load("notes")
    async with TestClient(module.app) as client:
        created = await client.post("/notes", json={"text": "milk", "tags": ["shop"]})
        await client.post("/notes", json={"text": "rest"})
        note = created.json()
        faulty = await client.post("/notes", json={"text": 1, "tags": "x"})
        large = await client.post("/notes", json={"text": "x" * 100_000})
        found = await client.get("/notes", params={"tag": "shop"})
        limited = await client.get("/notes", params={"limit": 1})
        wrong = await client.get("/notes", params={"limit": "many"})
        read = await client.get(f"/notes/{note['note_id']}")
        removed = await client.delete(f"/notes/{note['note_id']}")
        gone = await client.get(f"/notes/{note['note_id']}")
        no_uuid = await client.get("/notes/first")
        for number in range(1000):
            module.notes[number] = module.Note("full")
        full = await client.post("/notes", json={"text": "one more"})
    assert (created.status_code, note["text"], note["tags"]) == (201, "milk", ["shop"])
    assert [fault["loc"] for fault in faulty.json()["detail"]] == [["body", "text"], ["body", "tags"]]
    assert [found.json(), len(limited.json()), read.json()] == [[note], 1, note]
    statuses = [answer.status_code for answer in (faulty, large, wrong, removed, gone, no_uuid, full)]
    assert statuses == [422, 413, 422, 204, 404, 404, 507]
    assert gone.json() == {"detail": "There is no such note"}


async def test_the_streams_and_the_websocket_answer(load: Load) -> None:
    async with TestClient(load("live").app) as client:
        counted = (await client.get("/countdown")).text
        async with client.stream("GET", "/ticks") as ticks:
            assert await anext(ticks.aiter_lines()) == "data: 0"
        async with client.websocket("/echo") as ws:
            await ws.send_text("hi")
            assert await ws.receive() == "you said hi"
    assert counted.count("event: number\n") == 4
    assert counted.endswith("data: 0\n\n")


async def test_a_slow_websocket_of_the_room_is_closed_and_its_subscription_ends(load: Load) -> None:
    module = load("room")
    sent = UNREAD_MESSAGES + module.MAX_UNREAD + 2
    async with TestClient(module.app) as client, client.websocket("/room") as ws:
        for number in range(sent):
            listeners = module.room.publish(str(number))
            for _ in range(20):  # passes of the event loop, in which the app sends the message
                await checkpoint()
        assert listeners == 0
        received = [message async for message in ws]
        with pytest.raises(WebSocketDisconnected, match="1013 You read too slowly"):
            await ws.receive()
    assert received == [str(number) for number in range(sent - 1)]


async def test_the_clock_is_pushed_until_its_client_leaves_or_a_drain_begins(load: Load) -> None:
    app: App = load("pushed").app
    async with TestClient(app) as client:
        async with client.websocket("/clock") as ws:
            assert "seconds" in await ws.receive_json()
        async with client.websocket("/clock") as ws:
            await ws.receive()
            await app.drain(30)
            with pytest.raises(WebSocketDisconnected, match="1012"):
                await ws.receive()


async def test_only_callers_whose_key_has_the_scope_are_admitted(load: Load) -> None:
    async with TestClient(load("guarded").app) as client:

        async def status(method: str, path: str, key: str | None) -> int:
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            return (await client.request(method, path, headers=headers)).status_code

        keys = (None, "wrong", "key-of-ann", "key-of-bob")
        assert [await status("GET", "/me", key) for key in keys] == [401, 401, 200, 200]
        assert [await status("POST", "/orders", key) for key in keys] == [401, 401, 403, 202]
        assert [await status("GET", "/about", key) for key in keys] == [200, 200, 200, 200]


PRIVATE_STREAM = """
from collections.abc import AsyncIterator

from guarded import admit
from jimsapi.asgi import App, EventStreamResponse, Request, Response, ServerSentEvent

app = App(admit=admit)


@app.get("/stream", scope="read")
async def stream(request: Request) -> Response:
    async def events() -> AsyncIterator[ServerSentEvent | bytes]:
        yield b": a comment\\n\\n"
        yield ServerSentEvent("one\\ntwo: three", event="number", id="1")
        yield ServerSentEvent("")

    return EventStreamResponse(events())
"""

PAGE_SCRIPT = """
import {events} from "./events.mjs";

const [url, key] = process.argv.slice(2);
const found = [];
try {
  for await (const event of events(url, {headers: {authorization: `Bearer ${key}`}})) found.push(event);
} catch (error) {
  found.push(error.message);
}
console.log(JSON.stringify(found));
"""


@pytest.mark.usefixtures("load")
def test_a_page_reads_a_private_stream_by_fetch(site: Path) -> None:
    [code] = blocks(PAGE, "js")
    (site / "events.mjs").write_text(code, encoding="utf-8")
    (site / "page.mjs").write_text(PAGE_SCRIPT, encoding="utf-8")
    (site / "private_stream.py").write_text(PRIVATE_STREAM, encoding="utf-8")

    def read(url: str, key: str) -> Any:
        command = [str(node()), str(site / "page.mjs"), url, key]
        return json.loads(subprocess.check_output(command, text=True, timeout=60))

    server = Served(folder=site)
    server.command = [
        sys.executable,
        "-m",
        "jimsapi",
        "--app",
        "private_stream:app",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
    ]
    with server:
        assert read(f"{server.url}/stream", "key-of-ann") == [
            {"event": "number", "id": "1", "data": "one\ntwo: three"},
            {"event": "message", "id": "", "data": ""},
        ]
        assert read(f"{server.url}/stream", "a-guess") == [f"{server.url}/stream answered 401"]


async def test_wrappers_cookies_cors_and_limits_do_what_the_page_says(load: Load) -> None:
    page = {"origin": "https://shop.example"}
    async with TestClient(load("extras").app, base_url="https://testserver") as client:
        assert (await client.get("/sessions/current")).status_code == 401
        signed_in = await client.post("/sessions", headers=page)
        assert (await client.get("/sessions/current")).json() == {"session": "abc123"}
        report = await client.post("/reports", content=b"x" * 2_000_000)
        slow = await client.get("/slow")
    assert signed_in.headers["server-timing"].startswith("app;dur=")
    assert signed_in.headers["access-control-allow-origin"] == "https://shop.example"
    for attribute in ("Secure", "HttpOnly", "SameSite=Lax", "Max-Age=3600"):
        assert attribute in signed_in.headers["set-cookie"]
    assert report.json() == {"size": 2_000_000}
    assert slow.status_code == 504


@pytest.mark.parametrize(("name", "path"), [("orders", "/orders/tea"), ("host", "/shop/orders/tea")])
async def test_background_work_is_done_when_the_app_has_stopped_also_if_it_is_mounted(
    name: str, path: str, load: Load
) -> None:
    async with TestClient(load(name).app) as client:
        assert (await client.post(path)).json() == {"ordered": "tea"}
    assert load("orders").confirmed == ["tea"]


async def test_the_probe_shows_the_drain(load: Load) -> None:
    app: App = load("ready").app
    async with TestClient(app) as client:
        before = await client.get("/readyz")
        await app.drain(0)
        after = await client.get("/readyz")
    assert [before.status_code, after.status_code] == [200, 503]


async def test_the_shop_gets_its_database_as_an_argument(load: Load) -> None:
    module = load("shop")
    database = module.Database("memory")
    async with TestClient(module.create_app(database)) as client:
        assert database.is_open
        assert (await client.post("/orders/tea")).status_code == 400
        answer = await client.post("/orders/tea", headers={"x-customer": "ann"})
    assert (answer.status_code, answer.json()) == (201, ["ann orders tea"])
    assert not database.is_open


async def test_threads_disconnects_problems_files_and_forms_do_what_the_page_says(load: Load, site: Path) -> None:
    (site / "assets").mkdir()
    (site / "assets" / "site.css").write_text("body {}", encoding="utf-8")
    async with TestClient(load("files").app) as client:
        digest = await client.get("/digest")
        found = await client.post("/search", json={"text": "tea"})
        style = await client.get("/assets/site.css")
        form = {"data": {"title": "me"}, "files": {"photo": ("me.png", b"12345", "image/png")}}
        photo = await client.post("/photos", **form)  # type: ignore[arg-type] # httpx's own
        without = await client.post("/photos", data={"title": "me"})
        problem = await client.post("/payments", headers={"accept": "application/problem+json"})
    assert len(digest.json()["digest"]) == 64
    assert found.json() == ["tea"]
    assert (style.text, style.headers["content-type"].partition(";")[0]) == ("body {}", "text/css")
    assert (photo.status_code, photo.json()) == (201, {"title": "me", "size": 5})
    assert (site / "photo.bin").read_bytes() == b"12345"
    assert without.status_code == 422
    described = load("files").app.openapi()["paths"]["/photos"]["post"]["requestBody"]["content"]
    assert set(described["multipart/form-data"]["schema"]["properties"]) == {"title", "photo"}
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json()["type"] == "https://shop.example/no-credit"
