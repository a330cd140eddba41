"""`/api/v1/chat/ws` with more than it can tell: what still works, and how it ends."""

import pytest

from jimsapi import JimsApp, create_api
from jimsapi.api import websocket
from jimsapi.asgi.errors import WebSocketDisconnected
from jimsapi.asgi.testing import ClientWebSocket, TestClient
from tests.apps.scripted import Scripted

pytestmark = pytest.mark.anyio

WS = "/api/v1/chat/ws"


async def chat(ws: ClientWebSocket, contact: str, message: str) -> None:
    await ws.send_json({"type": "chat", "contact_id": contact, "message": message})


async def test_a_run_can_be_cancelled_though_many_messages_wait_behind_it() -> None:
    bot = Scripted()
    async with TestClient(create_api(JimsApp(bot), store="memory:")) as client, client.websocket(WS) as ws:
        await chat(ws, "ann", "hold door")
        started = await ws.receive_json()
        for number in range(100):
            await chat(ws, f"contact {number}", "hi")
        await ws.send_json({"type": "cancel", "run_id": started["run_id"]})
        assert await ws.receive_json() == {"type": "error", "detail": "The run was cancelled"}
        answered = [await ws.receive_json() for _ in range(300)]
    assert [frame["type"] for frame in answered] == ["started", "event", "result"] * 100


async def test_more_messages_than_may_wait_close_it_and_their_runs_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "MAX_WAITING", 2)
    monkeypatch.setattr(websocket, "UNREAD_FOR", 0.01)
    bot = Scripted()
    async with TestClient(create_api(JimsApp(bot), store="memory:")) as client:
        async with client.websocket(WS) as ws:
            for number in range(5):
                await chat(ws, f"contact {number}", "hold door")
            assert (await ws.receive_json())["type"] == "started"
            with pytest.raises(WebSocketDisconnected) as closed:
                await ws.receive_json()
        assert (closed.value.code, closed.value.reason) == (1013, "Too many messages wait here")
        bot.opened["door"].set()
        answer = await client.post("/api/v1/chat", json={"contact_id": "contact 0", "message": "see"})
    assert answer.json()["assistant_messages"] == ['["hold door", "see"]']
