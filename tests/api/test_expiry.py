"""`--expire-threads` deletes threads without new events, and keeps the others."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

WAIT = 30.0


async def answer(ctx: ThreadContext) -> None:
    ctx.send_message("yes")


async def threads_of(client: TestClient, contact: str) -> list[Any]:
    found: list[Any] = (await client.get("/api/v1/threads", params={"contact_id": contact})).json()["threads"]
    return found


async def say(client: TestClient, contact: str) -> str:
    said = await client.post("/api/v1/chat", json={"contact_id": contact, "message": "hi"})
    thread_id: str = said.json()["thread_id"]
    return thread_id


async def test_a_thread_without_events_for_the_span_is_deleted_and_others_stay(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'jims.db'}"
    async with TestClient(create_api(answer, store=store)) as client:
        old, new = await say(client, "ann"), await say(client, "bob")
    with sqlite3.connect(tmp_path / "jims.db") as database:
        database.execute(
            "UPDATE thread_events SET created_at = '2020-01-01 00:00:00.' || substr(created_at, -6)"
            " WHERE thread_id = ?",
            (old.replace("-", ""),),
        )
    async with TestClient(create_api(answer, store=store)) as client:
        await asyncio.sleep(0.1)
        assert await threads_of(client, "ann")  # without the option nothing expires
    async with TestClient(create_api(answer, store=store, expire_threads="90d")) as client, asyncio.timeout(WAIT):
        while await threads_of(client, "ann"):
            await asyncio.sleep(0.01)
        assert (await client.get(f"/api/v1/threads/{old}")).status_code == 404
        assert [thread["thread_id"] for thread in await threads_of(client, "bob")] == [new]


@pytest.mark.parametrize("span", ["90", "0d", "90 d", "d", "-1d", "1y"])
async def test_a_faulty_span_stops_the_start(span: str) -> None:
    with pytest.raises(RuntimeError, match=r"--expire-threads: .* is not a span; give 90d, 12w or 24h"):
        async with TestClient(create_api(answer, store="memory:", expire_threads=span)):
            pass
