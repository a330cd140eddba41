"""The drain of the chat API ends the work of plugins' routes too: streams, WebSockets and background work."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.api.app import Api
from jimsapi.asgi import WebSocketDisconnected
from jimsapi.asgi.testing import TestClient
from tests.docs.snippets import install

pytestmark = pytest.mark.anyio

PLUGIN = """\
import asyncio
from pathlib import Path

from jimsapi import hookimpl
from jimsapi.asgi import EventStreamResponse, Response, ServerSentEvent


@hookimpl
def jimsapi_routes(router, service):
    async def follow_up():
        while not service.draining:
            await asyncio.sleep(0)
        for _ in range(500):
            await asyncio.sleep(0)
        Path("followed up").touch()

    async def fail():
        raise LookupError("no such customer")

    @router.post("/work", public=True)
    async def work(request):
        request.start_background(follow_up())
        return Response(status=202)

    @router.post("/failure", public=True)
    async def failure(request):
        request.start_background(fail())
        return Response(status=202)

    @router.get("/ticks", public=True)
    async def ticks(request):
        async def events():
            while True:
                yield ServerSentEvent("tick")
                await asyncio.sleep(0)

        return EventStreamResponse(events(), endless=True)

    @router.websocket("/ws", public=True)
    async def ws(ws):
        await ws.accept()
        async for _ in ws:
            pass
"""


async def answer(ctx: ThreadContext) -> None:
    ctx.send_message("yes")


@pytest.fixture
def api(site: Path) -> Api:
    install(site, "jimsapi_worker.py", PLUGIN)
    return create_api(answer, store="memory:")


async def test_the_shutdown_waits_for_the_background_work_of_a_plugin_as_long_as_for_runs(
    api: Api, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jimsapi.api.app.END_WITHIN", 0.0)  # what is left after the runs is cut at once
    async with TestClient(api) as client:
        assert (await client.post("/work")).status_code == 202
        assert not (site / "followed up").exists()
    assert (site / "followed up").exists()


async def test_background_work_of_a_plugin_that_fails_is_logged_with_its_route_and_line(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    async with TestClient(api) as client:
        await client.post("/failure")
    [record] = [record for record in caplog.records if "Background work failed" in record.message]
    assert "POST /failure started" in record.message
    assert "jimsapi_worker.py:" in record.message
    assert record.exc_info is not None
    assert "no such customer" in str(record.exc_info[1])


async def test_a_drain_completes_endless_streams_and_closes_websockets_of_plugins(api: Api) -> None:
    received: list[Any] = []
    async with (
        TestClient(api) as client,
        client.stream("GET", "/ticks") as ticks,
        client.websocket("/ws") as ws,
        anyio.create_task_group() as tasks,
    ):
        lines = ticks.aiter_lines()
        assert await anext(lines) == "data: tick"
        assert "1 streams, 1 WebSockets, 0 background tasks are open" in api.work_text
        tasks.start_soon(api.drain, 30.0)
        received = [line async for line in lines]
        with pytest.raises(WebSocketDisconnected, match="1012"):
            await ws.receive()
    assert set(received) <= {"data: tick", ""}  # whole events; the drain may come before the next tick
