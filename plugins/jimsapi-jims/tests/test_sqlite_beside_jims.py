"""We and other JIMS programs use one SQLite file: each reads what the other wrote, and neither stops the other."""

import asyncio
import uuid
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from jims import Sessions, create_tables, echo_app, sessions_in, stored, thread_of
from jims_core.app import JimsApp
from jims_core.thread.thread_context import ThreadContext as JimsContext
from jims_core.thread.thread_controller import ThreadController
from jims_core.util import uuid7

from jimsapi import create_api
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return sessions_in(tmp_path)


async def say(client: httpx.AsyncClient, message: str, **fields: object) -> dict[str, str]:
    answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": message, **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, str] = answer.json()
    return found


@pytest.mark.parametrize("tables_of", ["ours", "theirs"])
async def test_a_thread_of_ours_is_read_by_jims_core(sessions: Sessions, tables_of: str) -> None:
    if tables_of == "theirs":
        await create_tables(sessions)
    async with TestClient(create_api(echo_app(sessions))) as client:
        answer = await say(client, "größe 🎈", thread_config={"interface": "test", "deep": [1, {"a": None}]})
        events = (await client.get(f"/api/v1/threads/{answer['thread_id']}/events")).json()["events"]
        latest = await ThreadController.latest_thread_from_contact_id(sessions, "ann")
        assert latest is not None
        assert str(latest.thread.thread_id) == answer["thread_id"]
        assert latest.thread.thread_config == {"interface": "test", "deep": [1, {"a": None}]}
        context = await latest.make_context()
    assert [event.event_data.get("content") for event in context.events] == [None, "größe 🎈", "Echo: größe 🎈"]
    assert [str(event.event_id) for event in context.events] == [event["event_id"] for event in events]
    assert [event.created_at.isoformat() + "Z" for event in context.events] == [event["created_at"] for event in events]
    assert all(earlier.created_at < later.created_at for earlier, later in pairwise(context.events))


async def test_a_thread_of_jims_core_goes_on_with_us(sessions: Sessions) -> None:
    await create_tables(sessions)
    theirs = await ThreadController.new_thread(sessions, "ann", uuid7(), {"interface": "telegram"})
    await theirs.store_user_message(uuid7(), "from the telegram bot")
    seen: list[JimsContext] = []

    async def look(ctx: JimsContext) -> None:
        seen.append(ctx)
        ctx.send_message("seen")

    async with TestClient(create_api(JimsApp(sessions, look))) as client:
        by_contact = await say(client, "one")
        by_id = await say(client, "two", thread_id=str(theirs.thread.thread_id))
    assert {by_contact["thread_id"], by_id["thread_id"]} == {str(theirs.thread.thread_id)}
    assert not by_contact["created_new_thread"]
    assert seen[0].thread_config == {"interface": "telegram"}
    before = (await theirs.make_context()).events[:2]
    assert seen[0].events[:2] == before
    contents = ["from the telegram bot", "one", "seen", "two"]
    assert [said["content"] for said in seen[1].history] == contents


async def test_what_jims_core_writes_that_is_no_json_does_not_close_a_thread(sessions: Sessions) -> None:
    await create_tables(sessions)
    odd = {"n": [float("inf"), -1], "text": "a\ud800b"}
    theirs = await ThreadController.new_thread(sessions, "ann", uuid7(), odd)
    await theirs.store_event_dict(uuid7(), "app.measured", odd)
    seen: list[JimsContext] = []

    async def look(ctx: JimsContext) -> None:
        seen.append(ctx)

    async with TestClient(create_api(JimsApp(sessions, look))) as client:
        await say(client, "hi")
    assert seen[0].thread_config == odd
    assert seen[0].events[1].event_data == odd


async def test_a_pipeline_may_write_through_its_apps_own_sessions_while_it_runs(sessions: Sessions) -> None:
    async def note(ctx: JimsContext) -> None:
        mine = await ThreadController.from_thread_id(sessions, ctx.thread_id)
        assert mine is not None
        await mine.store_event_dict(uuid7(), "note.kept", {"seen": len((await mine.make_context()).events)})
        ctx.send_message("noted")

    async with TestClient(create_api(JimsApp(sessions, note))) as client:
        answer = await say(client, "hi")
    kinds = [kind for kind, _ in await stored(sessions, answer["thread_id"])]
    assert sorted(kinds) == [
        "comm.assistant_message",
        "comm.user_message",
        "jims.lifecycle.thread_created",
        "note.kept",
    ]


async def test_many_chats_and_another_program_that_writes_do_not_disturb_each_other(sessions: Sessions) -> None:
    async def others(contact: str) -> None:
        theirs = await ThreadController.new_thread(sessions, contact, uuid7(), {})
        for turn in range(10):
            await theirs.store_user_message(uuid7(), str(turn))

    async def ours(client: httpx.AsyncClient, contact: str) -> list[str]:
        answers = [await say(client, str(turn), contact_id=contact) for turn in range(10)]
        return [answer["thread_id"] for answer in answers]

    async with TestClient(create_api(echo_app(sessions))) as client:
        async with asyncio.TaskGroup() as tasks:
            for number in range(4):
                tasks.create_task(others(f"theirs-{number}"))
            chats = [tasks.create_task(ours(client, f"ours-{number}")) for number in range(4)]
        for chat in chats:
            [thread_id] = set(chat.result())
            assert len(await stored(sessions, thread_id)) == 21
        for number in range(4):
            theirs = await ThreadController.latest_thread_from_contact_id(sessions, f"theirs-{number}")
            assert theirs is not None
            assert len((await theirs.make_context()).events) == 11


async def test_a_program_that_holds_the_file_makes_callers_wait_or_come_back_and_loses_nothing(
    sessions: Sessions,
) -> None:
    async with TestClient(create_api(echo_app(sessions))) as client:
        thread_id = (await say(client, "before"))["thread_id"]
        async with sessions() as session:
            theirs = await thread_of(sessions, thread_id)
            session.add(theirs.thread)
            theirs.thread.external_id = str(uuid.uuid4())
            await session.flush()  # from here to the commit no other process may write
            refused = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "meanwhile"})
            await session.commit()
        assert refused.status_code == 503
        await say(client, "after")
        contents = [data.get("content") for _, data in await stored(sessions, thread_id)]
    assert contents == [None, "before", "Echo: before", "after", "Echo: after"]


async def test_an_answer_that_finds_the_file_held_is_stored_when_it_is_free(sessions: Sessions) -> None:
    holding = sessions()

    async def hold(ctx: JimsContext) -> None:
        theirs = await thread_of(sessions, str(ctx.thread_id))
        holding.add(theirs.thread)
        theirs.thread.external_id = "held"
        await holding.flush()  # so the pipeline keeps the file locked
        ctx.send_message("late")

    async with TestClient(create_api(JimsApp(sessions, hold))) as client:
        answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
        assert answer.status_code == 503
        await holding.commit()
        await holding.close()
    latest = await ThreadController.latest_thread_from_contact_id(sessions, "ann")
    assert latest is not None
    assert latest.thread.external_id == "held"
    assert [said["content"] for said in (await latest.make_context()).history] == ["hi", "late"]
