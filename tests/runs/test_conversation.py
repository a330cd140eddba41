"""Conversations: which events belong to which turn, and files of conversations."""

from pathlib import Path
from uuid import UUID

import msgspec
import orjson
import pytest

from jimsapi import JimsApp, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.conversation import PAGE, Conversation, InvalidConversation
from jimsapi.runs.service import RunService
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import ThreadNotFound
from jimsapi.threads.event import NewEvent, message_event
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ThreadPage
from tests.apps.scripted import Scripted
from tests.runs.serving import STORES, inbound, make_store, serving

pytestmark = pytest.mark.anyio

WITH_METADATA = {"page": "/checkout"}


async def conversation(service: RunService, contact: str = "ann") -> Conversation:
    """The contact's only thread."""
    page: ThreadPage = await service.store.threads(contact, 10, None)
    [thread] = page.threads
    return await Conversation.read(service.store, thread.thread_id)


def types(conversation: Conversation) -> list[list[str]]:
    """The types of the events of each turn: those beside the message, the message, and those that answer it."""
    return [[event.event_type for event in conversation.events[turn.first : turn.end]] for turn in conversation.turns()]


@pytest.mark.parametrize("kind", STORES)
async def test_a_turn_has_the_events_beside_its_message_and_those_up_to_the_next_turn(
    kind: str, tmp_path: Path
) -> None:
    async with serving(Scripted(), make_store(kind, tmp_path)) as service:
        greeted = inbound("tool t; send a", run_conversation_start_on_new_thread=True)
        await service.chat(greeted, PUBLIC)
        await service.chat(inbound("send b", metadata=WITH_METADATA), PUBLIC)
        await service.chat(inbound("own note.seen"), PUBLIC)
        found = await conversation(service)
    assert types(found) == [
        ["comm.user_message", "tool.call", "comm.assistant_message"],
        ["message.metadata", "comm.user_message", "comm.assistant_message"],
        ["comm.user_message", "note.seen"],
    ]
    assert [turn.number for turn in found.turns()] == [1, 2, 3]
    assert found.contact_id == "ann"
    assert orjson.loads(found.thread_config) == {"interface": "api"}
    [metadata] = found.beside(found.turns()[1])
    assert orjson.loads(metadata.data)["metadata"] == WITH_METADATA


async def test_messages_without_an_answer_are_turns_of_their_own() -> None:
    async with serving(Scripted()) as service:
        await service.chat(inbound("send a"), PUBLIC)
        thread = await conversation(service)
        late = [message_event("comm.user_message", "b"), message_event("comm.button_pressed", "c")]
        await service.store.append(thread.thread_id, None, late)
        found = await conversation(service)
    assert types(found) == [
        ["comm.user_message", "comm.assistant_message"],
        ["comm.user_message"],
        ["comm.button_pressed"],
    ]
    assert [len(found.answer(turn)) for turn in found.turns()] == [1, 0, 0]


async def test_data_of_another_message_does_not_join_the_next_turn() -> None:
    async with serving(Scripted()) as service:
        await service.chat(inbound('own message.note {"message_id": "another"}'), PUBLIC)
        await service.chat(inbound('own message.note {"message_id": 7}'), PUBLIC)
        await service.chat(inbound("send a"), PUBLIC)
        found = await conversation(service)
    assert types(found) == [
        ["comm.user_message", "message.note"],
        ["comm.user_message", "message.note"],
        ["comm.user_message", "comm.assistant_message"],
    ]


async def test_a_thread_without_a_message_has_no_turns() -> None:
    async with serving(Scripted()) as service:
        await service.chat(inbound("send a"), PUBLIC)
        found = await conversation(service)
    assert msgspec.structs.replace(found, events=found.events[:1]).turns() == []


async def test_a_thread_of_several_pages_is_read_to_its_end() -> None:
    async with serving(Scripted()) as service:
        await service.chat(inbound("send a"), PUBLIC)
        thread = await conversation(service)
        more = [NewEvent(uuid7(), "note.many", b"{}") for _ in range(2 * PAGE)]
        await service.store.append(thread.thread_id, None, more)
        found = await conversation(service)
    assert len(found.events) == len(thread.events) + 2 * PAGE
    assert [event.event_id for event in found.events[-2 * PAGE :]] == [event.event_id for event in more]


async def test_an_unknown_thread_is_not_found() -> None:
    with pytest.raises(ThreadNotFound):
        await Conversation.read(MemoryStore(), uuid7())


@pytest.mark.parametrize("kind", STORES)
async def test_a_saved_conversation_is_read_as_it_was(kind: str, tmp_path: Path) -> None:
    async with serving(Scripted(), make_store(kind, tmp_path)) as service:
        config = {"greet": "send Hallo", "ünï": ["\u2028", 1.5, None]}
        await service.chat(inbound("think x; use 3; send a", metadata=WITH_METADATA, thread_config=config), PUBLIC)
        await service.chat(inbound("unknown \x1b[31m<script>"), PUBLIC)
        found = await conversation(service)
    path = tmp_path / "saved.json"
    path.write_bytes(found.dump())
    loaded = Conversation.load(path)
    assert loaded.name == str(path)
    assert orjson.loads(loaded.thread_config) == orjson.loads(found.thread_config) == config
    texts = [[orjson.loads(event.data) for event in one.events] for one in (loaded, found)]
    assert texts[0] == texts[1]
    for field in ("event_id", "created_at", "event_type"):
        assert [getattr(event, field) for event in loaded.events] == [getattr(event, field) for event in found.events]
    assert (loaded.thread_id, loaded.contact_id, loaded.turns()) == (found.thread_id, "ann", found.turns())


async def test_an_answer_of_the_api_is_a_conversation(tmp_path: Path) -> None:
    async with TestClient(create_api(JimsApp(Scripted()), store="memory:")) as client:
        for message in ("send a", "send b"):
            answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": message})
        url = f"/api/v1/threads/{answer.json()['thread_id']}/events"
        whole, part = tmp_path / "whole.json", tmp_path / "part.json"
        whole.write_bytes((await client.get(url, params={"limit": "1000"})).content)
        part.write_bytes((await client.get(url, params={"limit": "2"})).content)
    found = Conversation.load(whole)
    assert types(found) == [["comm.user_message", "comm.assistant_message"]] * 2
    assert (found.contact_id, found.thread_config, found.thread_id.version) == (None, b"{}", 7)
    assert all(event.created_at.tzinfo is None for event in found.events)
    with pytest.raises(InvalidConversation, match=r"part\.json has only the first 2 events of its thread: .*\?limit="):
        Conversation.load(part)


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", "{}", '{"events": [{}]}', '{"events": [], "thread_id": "x"}', "\udcff"]
)
def test_another_file_is_not_a_conversation_and_the_error_says_how_to_write_one(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidConversation, match=r"other\.json is not a conversation \(.*--save .*other\.json$"):
        Conversation.load(path)


def test_times_with_a_zone_are_read_as_utc(tmp_path: Path) -> None:
    path = tmp_path / "saved.json"
    event = {"event_id": str(UUID(int=1)), "event_type": "comm.user_message", "event_data": {"role": "user"}}
    times = ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00Z", "2026-01-31T10:00:00")
    path.write_bytes(orjson.dumps({"events": [{**event, "created_at": time} for time in times]}))
    assert {one.created_at.isoformat() for one in Conversation.load(path).events} == {"2026-01-31T10:00:00"}
