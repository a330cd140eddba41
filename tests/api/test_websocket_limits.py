"""`/api/v1/chat/ws` with more than it can tell, and who may use it: for how long, and from whose pages."""

import re
from pathlib import Path
from uuid import UUID

import anyio
import pytest

from jimsapi import JimsApp, create_api
from jimsapi.api import websocket
from jimsapi.asgi.errors import WebSocketDisconnected
from jimsapi.asgi.testing import ClientWebSocket, HandshakeRefused, TestClient
from jimsapi.builtin.keys_file import KeysFile
from jimsapi.plugins.errors import StartError
from tests.apps.scripted import Scripted

pytestmark = pytest.mark.anyio

WS = "/api/v1/chat/ws"
UNKNOWN = UUID(int=0)


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
        answered = [await ws.receive_json() for _ in range(400)]
    assert [frame["type"] for frame in answered] == ["started", "delta", "event", "result"] * 100


async def test_more_messages_than_may_wait_close_it_and_their_runs_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "MAX_WAITING", 2)
    monkeypatch.setattr(websocket, "MAX_BEGUN", 2)
    monkeypatch.setattr(websocket, "UNREAD_FOR", 0.01)
    bot = Scripted()
    async with TestClient(create_api(JimsApp(bot), store="memory:")) as client:
        async with client.websocket(WS) as ws:
            for number in range(7):
                await chat(ws, f"contact {number}", "hold door")
            assert (await ws.receive_json())["type"] == "started"
            with pytest.raises(WebSocketDisconnected) as closed:
                await ws.receive_json()
        assert (closed.value.code, closed.value.reason) == (1013, "Too many messages wait here")
        bot.opened["door"].set()
        answer = await client.post("/api/v1/chat", json={"contact_id": "contact 0", "message": "see"})
    assert answer.json()["assistant_messages"] == ['["hold door", "see"]']


async def test_only_so_many_runs_begin_before_the_answers_of_those_before_them_are_sent() -> None:
    bot = Scripted()
    api = create_api(JimsApp(bot), store="memory:")
    async with TestClient(api) as client, client.websocket(WS) as ws:
        for number in range(100):
            await chat(ws, f"contact {number}", "hold door")
        await ws.send_json({"type": "cancel", "run_id": "of nobody"})
        while (await ws.receive_json())["type"] != "error":  # so all frames are read
            pass
        assert api.service is not None
        assert api.service.open_runs == 1 + websocket.MAX_BEGUN  # and one whose answer is being sent
        bot.opened["door"].set()
        results = 0
        while results < 100:
            results += (await ws.receive_json())["type"] == "result"


@pytest.mark.parametrize(
    "origin", ["shop.example", "https://shop.example/chat", "https://bücher.example", "https://*.a"]
)
@pytest.mark.parametrize("flag", ["websocket-origin", "cors-origin"])
async def test_what_no_browser_sends_as_an_origin_stops_the_start(flag: str, origin: str) -> None:
    option = {flag.replace("-", "_"): origin}
    with pytest.raises(StartError, match=f"--{flag}: {re.escape(repr(origin))} is not an origin"):
        async with create_api(JimsApp(Scripted()), store="memory:", **option).lifespan():
            pass


@pytest.mark.parametrize("origin", ["https://shop.example", "http://[::1]:3000", "capacitor://localhost", "null"])
async def test_the_pages_of_an_origin_that_is_named_may_connect_and_others_not(origin: str) -> None:
    async with TestClient(create_api(JimsApp(Scripted()), store="memory:", websocket_origin=(origin,))) as client:
        async with client.websocket(WS, headers={"origin": origin}):
            pass
        with pytest.raises(HandshakeRefused, match="403"):
            async with client.websocket(WS, headers={"origin": "https://evil.example"}):
                pass


async def test_who_is_not_let_in_any_more_sends_and_cancels_nothing(tmp_path: Path) -> None:
    file = KeysFile(tmp_path / "keys.json")
    key, _ = file.add("website")
    file.add("other")
    api = create_api(JimsApp(Scripted()), store="memory:", keys_file=tmp_path / "keys.json")
    async with TestClient(api) as client, client.websocket(WS, subprotocols=["jims.chat", f"bearer.{key}"]) as ws:
        await chat(ws, "ann", "hold door")
        started = await ws.receive_json()
        file.revoke("website")
        while True:  # the file is looked at now and then
            await ws.send_json({"type": "cancel", "run_id": str(UNKNOWN)})
            if (await ws.receive_json())["detail"] == "Unauthorized":
                break
            await anyio.sleep(0.05)
        await ws.send_json({"type": "cancel", "run_id": started["run_id"]})
        assert await ws.receive_json() == {"type": "error", "detail": "Unauthorized", "run_id": started["run_id"]}
        await chat(ws, "ann", "hi")
        assert api.service is not None
        assert api.service.open_runs == 1
        await api.service.cancel(UUID(started["run_id"]))
        assert [(await ws.receive_json())["detail"] for _ in range(2)] == ["The run was cancelled", "Unauthorized"]
