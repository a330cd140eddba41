"""The chat over a WebSocket: its frames and their order, who may open one, and what becomes of runs when it closes."""

import asyncio
import gc
import json
import signal
import weakref
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from jimsapi import Inbound, JimsApp, create_api
from jimsapi.api.app import Api
from jimsapi.api.websocket import MAX_WAITING, _Conversation
from jimsapi.asgi.errors import WebSocketDisconnected
from jimsapi.asgi.testing import ClientWebSocket, HandshakeRefused, TestClient
from jimsapi.asgi.types import Message
from jimsapi.asgi.websocket import WebSocket
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.service import RunService
from tests.api.conversation import CHAT, RUNS, body, parse
from tests.apps.scripted import Scripted
from tests.plugins.distributions import install
from tests.serving import ROOT, Served

pytestmark = pytest.mark.anyio

WS = "/api/v1/chat/ws"
KEY = "a-key-for/sockets+="
ENCODED = "base64url.bearer." + urlsafe_b64encode(KEY.encode()).rstrip(b"=").decode()
SCRIPT = 'status {"type":"a","type":"b"}; stream Hel; stream lo; event b'

Frame = dict[str, Any]


class Talk(TestClient):
    """A client of an API in this process, its bot and its service."""

    def __init__(self, **settings: Any) -> None:
        self.bot = Scripted()
        app = JimsApp(self.bot, conversation_start_pipeline=self.bot.greet)
        self.api: Api = create_api(app, store="memory:", **settings)
        super().__init__(self.api)

    @property
    def service(self) -> RunService:
        assert self.api.service is not None
        return self.api.service


@asynccontextmanager
async def talking(**settings: Any) -> AsyncIterator[tuple[Talk, ClientWebSocket]]:
    async with Talk(**settings) as client, client.websocket(WS) as ws:
        yield client, ws


def chat(message: str, contact: str = "ann", **fields: Any) -> Frame:
    return {"type": "chat", **body(message, contact, **fields)}


async def read_run(ws: ClientWebSocket) -> list[Frame]:
    """All frames of one run, or the one that refuses a message."""
    frames: list[Frame] = []
    while not frames or frames[-1]["type"] not in ("result", "error"):
        frames.append(await ws.receive_json())
    return frames


def types(frames: list[Frame]) -> list[str]:
    return [frame["type"] for frame in frames]


async def threads(client: TestClient, contact: str = "ann") -> list[Any]:
    found: list[Any] = (await client.get("/api/v1/threads", params={"contact_id": contact})).json()["threads"]
    return found


# Frames.


async def test_a_message_is_answered_by_the_events_of_the_stream_in_their_order() -> None:
    async with talking() as (client, ws):
        await ws.send_json(chat(SCRIPT))
        frames = await read_run(ws)
        assert types(frames) == ["started", "status", "delta", "delta", "event", "event", "result"]
        assert frames[1] == {"type": "status", "status": '{"type":"a","type":"b"}', "status_type": "step"}
        told = parse((await client.get(f"{RUNS}/{frames[0]['run_id']}/stream")).text)
    for frame, event in zip(frames, told, strict=True):
        if event.name != "status":
            assert frame == {"type": event.name, **event.data}


async def test_the_result_is_the_body_of_chat_and_the_conversation_goes_on() -> None:
    async with talking() as (client, ws):
        first = await client.post(CHAT, json=body("send a"))
        await ws.send_json(chat("send a"))
        result = (await read_run(ws))[-1]
        assert result == {"type": "result", **first.json(), "created_new_thread": False}
        await ws.send_json(chat("see", thread_id=result["thread_id"]))
        assert json.loads((await read_run(ws))[-1]["assistant_messages"][0]) == ["send a", "send a", "see"]


async def test_a_run_that_fails_ends_with_the_detail_of_chat_and_the_next_is_answered() -> None:
    async with talking() as (client, ws):
        chatted = (await client.post(CHAT, json=body("raise it"))).json()
        await ws.send_json(chat("send a; raise it"))
        assert (await read_run(ws))[-1] == {"type": "error", **chatted}
        await ws.send_json(chat("send a"))
        assert (await read_run(ws))[-1]["type"] == "result"


async def test_two_chats_at_once_are_worked_on_together_and_told_one_after_the_other() -> None:
    async with talking() as (client, ws):
        await ws.send_json(chat("stream a; hold first; stream b", "ann"))
        await ws.send_json(chat("status c; send d", "bea"))
        frames = [await ws.receive_json() for _ in range(2)]
        while await threads(client, "bea") == [] or client.service.open_runs > 1:
            await asyncio.sleep(0)  # the second is done before the first
        client.bot.opened["first"].set()
        frames += await read_run(ws)
        assert types(frames) == ["started", "delta", "delta", "event", "result"]
        second = await read_run(ws)
        assert types(second) == ["started", "status", "delta", "event", "result"]
        assert second[0]["run_id"] != frames[0]["run_id"]
        assert second[-1]["assistant_messages"] == ["d"]


# Cancelling.


async def test_a_run_is_cancelled_while_it_is_told() -> None:
    async with talking() as (client, ws):
        await ws.send_json(chat("stream a; hold on"))
        started = await ws.receive_json()
        await client.bot.reached["on"].wait()
        await ws.send_json({"type": "cancel", "run_id": started["run_id"]})
        assert (await read_run(ws))[-1] == {"type": "error", "detail": "The run was cancelled"}
        assert (await client.get(f"{RUNS}/{started['run_id']}")).json()["status"] == "cancelled"


async def test_a_run_that_was_begun_elsewhere_is_cancelled_without_a_frame() -> None:
    async with talking() as (client, ws):
        run_id = (await client.post(RUNS, json=body("hold on"))).json()["run_id"]
        await ws.send_json({"type": "cancel", "run_id": run_id})
        await ws.send_json(chat("send a"))
        assert types(await read_run(ws)) == ["started", "delta", "event", "result"]
        assert (await client.get(f"{RUNS}/{run_id}")).json()["status"] == "cancelled"


async def test_what_cannot_be_cancelled_is_said_with_its_name_even_while_another_run_is_told() -> None:
    async with talking() as (client, ws):
        done = (await client.post(CHAT, json=body("hi", "bea"))).headers["x-run-id"]
        await ws.send_json(chat("hold on"))
        assert (await ws.receive_json())["type"] == "started"
        unknown = str(uuid4())
        for run_id, detail in (
            (done, f"Run '{done}' has ended: it is completed"),
            (unknown, f"Run not found: {unknown}"),
            ("x", "run_id is not a UUID"),
        ):
            await ws.send_json({"type": "cancel", "run_id": run_id})
            assert await ws.receive_json() == {"type": "error", "detail": detail, "run_id": run_id}
        client.bot.opened["on"].set()
        assert (await read_run(ws))[-1]["type"] == "result"


# Refused frames.

HOW = 'A frame is {"type": "chat", …} or {"type": "cancel", "run_id": …}'
REFUSED: list[Any] = [{}, [], 5, None, "chat", {"type": "talk"}, {"type": "cancel"}, {"type": "cancel", "run_id": 5}]


@pytest.mark.parametrize("frame", REFUSED)
async def test_a_frame_that_is_none_of_ours_is_refused_and_the_next_is_answered(frame: Any) -> None:
    async with talking() as (_, ws):
        await ws.send_json(frame)
        assert await ws.receive_json() == {"type": "error", "detail": HOW}
        await ws.send_json(chat("send a"))
        assert types(await read_run(ws)) == ["started", "delta", "event", "result"]


FAULTY: list[Frame] = [
    {},
    {"contact_id": "ann"},
    {"contact_id": "ann", "message": 5},
    {"contact_id": "ann", "message": "hi", "thread_id": "x"},
    {"contact_id": "ann", "message": "hi", "event_type": "state.x"},
    {"contact_id": "ann", "message": "hi", "thread_id": "0192b5f2-2c03-7b91-9c6c-9a1234567890"},
]


@pytest.mark.parametrize("fields", FAULTY)
async def test_a_faulty_message_is_refused_with_the_detail_of_chat(fields: Frame) -> None:
    async with talking() as (client, ws):
        chatted = await client.post(CHAT, json=fields)
        assert chatted.status_code in (404, 422)
        await ws.send_json({"type": "chat", **fields})
        assert await read_run(ws) == [{"type": "error", **chatted.json()}]
        assert await threads(client) == []


async def test_what_is_no_json_is_refused_and_the_next_is_answered() -> None:
    async with talking() as (_, ws):
        await ws.send_text("{")
        assert (await ws.receive_json())["type"] == "error"
        await ws.send_bytes(b"{}")
        assert await ws.receive_json() == {"type": "error", "detail": "JSON must come in a text message"}
        await ws.send_text('{"type":"chat","contact_id":"ann","message":"a\\u0000"}')
        assert (await ws.receive_json())["type"] == "error"
        await ws.send_json(chat("send a"))
        assert types(await read_run(ws)) == ["started", "delta", "event", "result"]


async def test_a_refusal_takes_its_turn_behind_what_came_before_it() -> None:
    async with talking() as (client, ws):
        await ws.send_json(chat("hold on"))
        await ws.send_json({"type": "talk"})
        await ws.send_json(chat("send a", "bea"))
        assert (await ws.receive_json())["type"] == "started"
        client.bot.opened["on"].set()
        assert types([await ws.receive_json() for _ in range(2)]) == ["result", "error"]
        assert (await read_run(ws))[-1]["assistant_messages"] == ["a"]


@pytest.mark.parametrize(
    "settings", [{"max_runs": 1}, {"contact_runs": 1}, {"thread_queue": 0}, {"thread_busy": "reject"}]
)
async def test_limits_hold_as_for_chat(settings: dict[str, Any]) -> None:
    async with talking(**settings) as (client, ws):
        held = client.service.begin(Inbound(contact_id="ann", message="hold on"), PUBLIC)
        await client.bot.reached["on"].wait()
        chatted = (await client.post(CHAT, json=body("hi"))).json()
        await ws.send_json(chat("hi"))
        assert await read_run(ws) == [{"type": "error", **chatted}]
        client.bot.opened["on"].set()
        await held.answer


# Who may open one.


async def test_a_key_comes_by_header_by_subprotocol_or_in_the_first_frame() -> None:
    async with Talk(api_key=KEY) as client:
        ways: list[tuple[dict[str, Any], list[Frame]]] = [
            ({"headers": {"authorization": f"Bearer {KEY}"}}, []),
            ({"subprotocols": ["jims.chat", ENCODED]}, []),
            ({}, [{"type": "auth", "token": KEY}]),
            ({"subprotocols": ["jims.chat"]}, [{"type": "auth", "token": KEY}]),
        ]
        for options, first in ways:
            async with client.websocket(WS, **options) as ws:
                assert ws.subprotocol == ("jims.chat" if "subprotocols" in options else None)
                for frame in (*first, chat("send a")):
                    await ws.send_json(frame)
                assert types(await read_run(ws)) == ["started", "delta", "event", "result"]


async def test_who_is_not_known_is_refused() -> None:
    async with Talk(api_key=KEY) as client:
        wrong = "base64url.bearer." + urlsafe_b64encode(b"wrong").decode().rstrip("=")
        for options in ({"headers": {"authorization": "Bearer wrong"}}, {"subprotocols": ["jims.chat", wrong]}):
            with pytest.raises(HandshakeRefused, match="401"):
                async with client.websocket(WS, **options):
                    pass
        for path in (f"{WS}?token={KEY}", f"{WS}?authorization=Bearer+{KEY}", f"{WS}?access_token={KEY}"):
            async with client.websocket(path) as ws:
                await ws.send_json(chat("never"))
                with pytest.raises(WebSocketDisconnected) as closed:
                    await ws.receive()
                assert closed.value.code == 1008
        for first in ({"type": "auth", "token": "wrong"}, {"type": "auth"}, chat("never")):
            async with client.websocket(WS) as ws:
                await ws.send_json(first)
                with pytest.raises(WebSocketDisconnected) as closed:
                    await ws.receive()
                assert closed.value.code == 1008
    assert client.bot.texts == []


async def test_an_auth_frame_of_who_was_known_already_changes_nothing() -> None:
    async with Talk(api_key=KEY) as client, client.websocket(WS, headers={"authorization": f"Bearer {KEY}"}) as ws:
        await ws.send_json({"type": "auth", "token": KEY})
        await ws.send_json(chat("send a"))
        assert types(await read_run(ws)) == ["started", "delta", "event", "result"]


async def test_a_page_of_another_origin_may_not_connect() -> None:
    async with Talk() as client:
        async with client.websocket(WS, headers={"origin": "http://testserver"}) as ws:
            await ws.send_json(chat("send a"))
            assert (await read_run(ws))[-1]["type"] == "result"
        for origin in ("https://evil.example", "null", "http://testserver.evil.example"):
            with pytest.raises(HandshakeRefused, match="403"):
                async with client.websocket(WS, headers={"origin": origin}):
                    pass


async def test_a_bound_caller_speaks_for_its_contact_and_need_not_name_it(site: Path) -> None:
    install(site, "jimsapi-users", (ROOT / "tests" / "apps" / "jimsapi_users.py").read_text())
    async with Talk() as client, client.websocket(WS, headers={"x-user": "ann"}) as ws:
        await ws.send_json({"type": "chat", "message": "send a"})
        assert (await read_run(ws))[-1]["type"] == "result"
        await ws.send_json({"type": "chat", "message": "send a", "contact_id": "bea"})
        assert await read_run(ws) == [{"type": "error", "detail": "These credentials are for another contact_id"}]
        found = (await client.get("/api/v1/threads", headers={"x-user": "ann"})).json()["threads"]
        assert [thread["contact_id"] for thread in found] == ["ann"]


# Hanging up.


async def test_hanging_up_cancels_nothing() -> None:
    async with Talk() as client:
        async with client.websocket(WS) as ws:
            await ws.send_json(chat("stream a; hold on; stream b"))
            started = await ws.receive_json()
        client.bot.opened["on"].set()
        while (shown := (await client.get(f"{RUNS}/{started['run_id']}")).json())["status"] == "running":
            await asyncio.sleep(0)
        assert shown["result"]["assistant_messages"] == ["ab"]
        resumed = parse((await client.get(f"{RUNS}/{started['run_id']}/stream?after=1")).text)
        assert [event.name for event in resumed] == ["delta", "delta", "event", "result"]


async def test_who_sends_more_than_is_told_and_leaves_is_let_go() -> None:
    async with Talk() as client:
        async with client.websocket(WS) as ws:
            await ws.send_json(chat("hold on"))
            await client.bot.reached["on"].wait()
            for _ in range(MAX_WAITING + 5):
                await ws.send_json({"type": "talk"})
            assert (await ws.receive_json())["type"] == "started"
            for _ in range(100):
                await asyncio.sleep(0)
            client.bot.opened["on"].set()
            frames = [await ws.receive_json() for _ in range(1 + MAX_WAITING + 5)]
        assert types(frames) == ["result"] + ["error"] * (MAX_WAITING + 5)


async def test_one_whose_socket_breaks_while_more_is_sent_than_told_is_let_go() -> None:
    """Whoever reads frames waits for room to tell of one more, and does not see that the client has left."""
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    gone = False

    async def send(message: Message) -> None:
        if gone:
            raise OSError

    async with Talk() as client:
        scope = {"type": "websocket", "path": WS, "headers": [], "query_string": b"", "subprotocols": []}
        conversation = asyncio.create_task(client.api(scope, incoming.get, send))
        frames = [chat("hold on; stream a"), *[{"type": "talk"}] * (MAX_WAITING + 3)]
        incoming.put_nowait({"type": "websocket.connect"})
        for frame in frames:
            incoming.put_nowait({"type": "websocket.receive", "text": json.dumps(frame)})
        while incoming.qsize() > 2:
            await asyncio.sleep(0)
        gone = True
        client.bot.opened["on"].set()
        async with asyncio.timeout(30):
            await conversation


# On a real server.


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served("--app", "tests.apps.scripted:app") as server:
        yield server


@contextmanager
def connected(server: Served) -> Iterator[ClientConnection]:
    with connect(f"ws://127.0.0.1:{server.port}{WS}", proxy=None, open_timeout=10, close_timeout=2) as ws:
        yield ws


def read(ws: ClientConnection) -> Frame:
    frame: Frame = json.loads(ws.recv(timeout=20))
    return frame


def test_frames_come_while_the_pipeline_works(served: Served) -> None:
    with connected(served) as ws, served.client() as client:
        ws.send(json.dumps(chat("status a; stream b; hold live; stream c")))
        assert [read(ws)["type"] for _ in range(3)] == ["started", "status", "delta"]
        client.post(CHAT, json=body("open live", "opener"))
        assert [read(ws)["type"] for _ in range(3)] == ["delta", "event", "result"]


def test_a_shutdown_tells_how_open_runs_ended_and_refuses_new_ones() -> None:
    with Served("--app", "tests.apps.scripted:app", "--drain-time", "20") as server, connected(server) as ws:
        ws.send(json.dumps(chat("stream a; hold for ever")))
        assert [read(ws)["type"] for _ in range(2)] == ["started", "delta"]
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        with server.client() as client:
            while client.get("/readyz").status_code != 503:
                pass
        ws.send(json.dumps(chat("late", "bea")))
        server.process.send_signal(signal.SIGTERM)  # hastens
        interrupted = {"type": "error", "detail": "The run was interrupted; try again"}
        refused = {"type": "error", "detail": "The server is shutting down; try again"}
        assert [read(ws), read(ws)] == [interrupted, refused]
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=20)
        assert server.process.wait(20) == 0


async def test_a_closed_websocket_leaves_nothing_of_its_conversation_to_the_garbage_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[weakref.ref[object]] = []
    begin = _Conversation.__init__

    def noted(self: _Conversation, ws: WebSocket, service: RunService) -> None:
        begin(self, ws, service)
        made.append(weakref.ref(self))

    monkeypatch.setattr(_Conversation, "__init__", noted)
    gc.disable()
    try:
        async with talking() as (_, ws):
            await ws.send_json(chat("send a"))
            await read_run(ws)
        assert [each() for each in made] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize("which", [0, 1])
async def test_a_websocket_one_of_whose_tasks_something_else_cancels_is_closed(which: int) -> None:
    async with talking() as (_, ws):
        await ws.send_json(chat("send a"))
        await read_run(ws)
        tasks = [task for task in asyncio.all_tasks() if "_until_cancelled" in task.get_name()]
        tasks[which].cancel()
        with pytest.raises(WebSocketDisconnected):
            await ws.receive_json()
