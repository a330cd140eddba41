"""`/deep-chat` as a WebSocket."""

import json
import re
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from jimsapi import create_api
from jimsapi.asgi.testing import HandshakeRefused, TestClient
from tests.apps.scripted import Scripted
from tests.faults.test_websockets import HANDSHAKE, frame
from tests.raw import connect, read_answer, request
from tests.server.test_acceptor import asked, chat_frame, crowds_out, limited, read_result, websocket
from tests.serving import Served
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

PATH = "/deep-chat"


def body(text: str, **options: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "text": text}], **options}


async def test_a_websocket_is_one_conversation(client: TestClient) -> None:
    async with client.websocket(PATH) as one, client.websocket(PATH) as other:
        for text in ("one", "two"):
            await one.send_json(body(text))
            assert await one.receive_json() == {"text": f"You said: {text}"}
        await one.send_json(body("see"))
        assert await one.receive() == '{"text":"[\\"one\\", \\"two\\", \\"see\\"]"}'
        await other.send_json(body("see"))
        assert await other.receive_json() == {"text": '["see"]'}


@pytest.mark.usefixtures("people")
async def test_the_url_of_a_file_names_the_contact_of_its_own_message(tmp_path: Path) -> None:
    headers = {"x-user": "talker"}
    async with TestClient(create_api(Scripted(), store="memory:", files_store=f"file://{tmp_path}/files")) as client:
        async with client.websocket(PATH, headers=headers) as ws:
            await ws.send_json(body("hold a; file made", contact_id="ann", chat_id="1"))
            await ws.send_json(body("open a", contact_id="bob", chat_id="2"))
            [file] = (await ws.receive_json())["files"]
            await ws.receive_json()
        assert file["src"].endswith("?contact_id=ann")
        assert (await client.get(file["src"], headers=headers)).content == b"made"


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (json.dumps(json.dumps(body("hi"))), "hi"),  # as the component sends it
        (json.dumps(body("hi")), "hi"),
        ("hi", "hi"),
        ('"hi"', "hi"),
        ("42", "42"),
        ("[1]", "[1]"),
        ("true", "true"),
        ('"Hi!" she said', '"Hi!" she said'),
        ("Grüße 😀\nto {all}", "Grüße 😀\nto {all}"),
    ],
)
async def test_a_frame_is_json_once_or_twice_or_plain_text(
    client: TestClient, bot: Scripted, frame: str, text: str
) -> None:
    async with client.websocket(PATH) as ws:
        await ws.send_text(frame)
        assert set(await ws.receive_json()) == {"text"}
    assert bot.texts == [text]


@pytest.mark.parametrize("settings", [{"hide_errors": True}])
async def test_a_hidden_error_is_a_reference(client: TestClient) -> None:
    async with client.websocket(PATH) as ws:
        await ws.send_json(body("raise no model"))
        answer = await ws.receive_json()
    assert re.fullmatch(r"Pipeline error: reference [0-9a-f-]{36}", answer["error"])


async def test_a_named_conversation_is_that_of_requests_too(client: TestClient) -> None:
    named = {"chat_id": "c", "contact_id": "ann"}
    await client.post(PATH, json=body("one", **named))
    async with client.websocket(PATH) as ws:
        await ws.send_json(body("see", **named))
        assert await ws.receive_json() == {"text": '["one", "see"]'}


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (json.dumps(body("raise no model")), "Pipeline error: no model"),
        ("{", "JSON"),
        ("{}", "messages: Field required"),
        (json.dumps("{}"), "messages: Field required"),
        (json.dumps(body("a\0b")), "messages.0.text: Text must not contain the character NUL"),
        ('"a\\u0000b"', "NUL"),
        (json.dumps({"messages": [{"text": "hi", "files": [{}]}]}), "messages.0.files: Send files in a form"),
    ],
)
async def test_what_goes_wrong_is_an_error_and_the_conversation_goes_on(
    client: TestClient, frame: str, text: str
) -> None:
    async with client.websocket(PATH) as ws:
        await ws.send_text(frame)
        answer = await ws.receive_json()
        assert set(answer) == {"error"}
        assert text in answer["error"]
        await ws.send_bytes(b"hi")
        assert await ws.receive_json() == {"error": "A frame must be text"}
        await ws.send_text("hi")
        assert await ws.receive_json() == {"text": "You said: hi"}


async def test_answers_come_in_the_order_of_the_messages(client: TestClient, bot: Scripted) -> None:
    async with client.websocket(PATH) as ws:
        await ws.send_json(body("hold door; send first", chat_id="slow"))
        await ws.send_json(body("{", chat_id="fast"))
        await ws.send_text("{")
        await bot.reached["door"].wait()
        bot.opened["door"].set()
        assert await ws.receive_json() == {"text": "first"}
        assert await ws.receive_json() == {"text": "You said: {"}
        assert set(await ws.receive_json()) == {"error"}


async def test_leaving_does_not_stop_the_answer(client: TestClient, bot: Scripted) -> None:
    async with client.websocket(PATH) as ws:
        await ws.send_json(body("hold door; send Late", chat_id="c"))
        await bot.reached["door"].wait()
    bot.opened["door"].set()
    async with client.websocket(PATH) as ws:
        await ws.send_json(body("see", chat_id="c"))
        assert await ws.receive_json() == {"text": '["hold door; send Late", "see"]'}
    [thread] = (await client.get("/api/v1/threads", params={"contact_id": "c"})).json()["threads"]
    events = (await client.get(f"/api/v1/threads/{thread['thread_id']}/events")).json()["events"]
    assert {"role": "assistant", "content": "Late"} in [event["event_data"] for event in events]


@pytest.mark.parametrize("settings", [{"api_key": "the-key"}])
async def test_credentials_come_as_on_every_websocket(client: TestClient) -> None:
    with pytest.raises(HandshakeRefused):
        async with client.websocket(PATH, headers={"authorization": "Bearer wrong"}):
            pass
    offered = ("bearer.the-key", "deep-chat")
    async with client.websocket(PATH, subprotocols=offered) as ws:
        assert ws.subprotocol == "deep-chat"
        await ws.send_text("hi")
        assert await ws.receive_json() == {"text": "You said: hi"}
    async with client.websocket(PATH) as ws:
        await ws.send_json({"type": "auth", "token": "the-key"})
        await ws.send_text("hi")
        assert await ws.receive_json() == {"text": "You said: hi"}


@pytest.mark.usefixtures("people")
async def test_a_bound_caller_stays_its_own_contact(client: TestClient) -> None:
    for user, others in (("ann", "bea"), ("bea", "ann")):
        async with client.websocket(PATH, headers={"x-user": user}) as ws:
            await ws.send_json(body(f"{user}'s", chat_id="c", contact_id=others))
            assert await ws.receive_json() == {"text": f"You said: {user}'s"}
            await ws.send_json(body("see", chat_id="c"))
            assert await ws.receive_json() == {"text": json.dumps([f"{user}'s", "see"])}


def test_a_websocket_with_an_open_run_stays_when_descriptors_run_out() -> None:
    with limited(Served(), 128) as served, ExitStack() as stack:
        running = stack.enter_context(closing(connect(served.port)))
        running.sendall(request("GET", PATH, *HANDSHAKE))
        assert read_answer(running)[0] == 101
        running.sendall(frame(b"hold door"))
        used = websocket(served.port, stack)
        assert used is not None
        used.sendall(chat_frame("bea", "reached door"))
        read_result(used)
        eventually(lambda: crowds_out(used, served.port, stack, chat_frame("cay", "hi")), 15)
        eventually(lambda: asked(served.port, "/openapi.json") == 200, 5)
        last = websocket(served.port, stack)
        assert last is not None
        last.sendall(chat_frame("bea", "open door"))
        assert b"hold door" in running.recv(65_536)
