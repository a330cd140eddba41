"""A damaged SQLite database is found at the start or when it is met, and a line says what to do."""

import random
import shutil
import sqlite3
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from jimsapi.stores.sqlite import SQLiteStore
from jimsapi.stores.sqlite import schema as sqlite_schema
from jimsapi.testing.store import OWNER, completed, make_event, make_plan
from jimsapi.threads.errors import DomainError, StoreUnavailable, StoreUnusable
from jimsapi.threads.ids import uuid7

pytestmark = pytest.mark.anyio

PAGE = 4096


@pytest.fixture
async def database(tmp_path: Path) -> tuple[Path, list[tuple[str, UUID, UUID]]]:
    """A database of some conversations; contact, thread and last run of each."""
    path = tmp_path / "jims.db"
    conversations: list[tuple[str, UUID, UUID]] = []
    async with SQLiteStore(path, durability="relaxed") as store:
        for number in range(30):
            for _ in range(4):
                plan = make_plan(f"contact {number}", "Grüße " * 30)
                accepted = await store.accept(plan)
                await store.finish(plan.run_id, OWNER, completed(make_event(), make_event()))
            conversations.append((plan.contact_id, accepted.thread.thread_id, plan.run_id))
    return path, conversations


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def root_page(path: Path, name: str) -> int:
    connection = sqlite3.connect(path)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
    connection.close()
    return int(page)


# At the start


@pytest.mark.parametrize("place", ["the header", "a table", "an index", "the schema's text"])
async def test_a_start_on_a_damaged_database_says_in_one_line_what_to_do(
    database: tuple[Path, Any], place: str
) -> None:
    path, _ = database
    match place:
        case "the header":
            overwrite(path, 0, bytes(100))
        case "a table":
            overwrite(path, (root_page(path, "thread_events") - 1) * PAGE, bytes(range(256)) * 16)
        case "an index":
            overwrite(path, (root_page(path, "jimsapi_events_order") - 1) * PAGE, bytes(range(256)) * 16)
        case _:
            overwrite(path, path.read_bytes().rindex(b"CREATE TABLE jimsapi_owners"), b"\xff\xfe\xff\xfe")
    before = path.read_bytes()
    with pytest.raises(StoreUnusable) as refused:
        await open_and_close(path)
    assert "\n" not in str(refused.value)
    for part in (str(path), "is damaged", "restore a backup", ".recover"):
        assert part in str(refused.value)
    assert path.read_bytes() == before


async def test_a_start_looks_for_damage_no_longer_than_a_start_may_take(
    database: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = database
    overwrite(path, (root_page(path, "jimsapi_idempotency") - 1) * PAGE, bytes(range(256)) * 16)
    monkeypatch.setattr(sqlite_schema, "LOOK_FOR_DAMAGE", -1.0)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE large (n)")
    connection.executemany("INSERT INTO large VALUES (?)", [(n,) for n in range(200_000)])
    connection.commit()
    connection.close()
    await open_and_close(path)


# At work


async def test_once_damage_is_met_nothing_is_written_until_the_database_is_opened_anew(
    database: tuple[Path, list[tuple[str, UUID, UUID]]],
) -> None:
    path, conversations = database
    _, thread_id, _ = conversations[0]
    async with SQLiteStore(path) as store:
        whole = path.read_bytes()
        await store.accept(make_plan("before"))
        overwrite(path, (root_page(path, "jimsapi_events_order") - 1) * PAGE, bytes(range(256)) * 16)
        with pytest.raises(StoreUnavailable) as refused:
            await store.events(thread_id, None, 100, None)
        assert refused.value.reason == "database damaged"
        for call in (store.accept(make_plan("after")), store.ping(), store.heartbeat(OWNER, [])):
            with pytest.raises(StoreUnavailable, match=r"\.recover"):
                await call
        path.write_bytes(whole)
    async with SQLiteStore(path) as store:
        assert (await store.accept(make_plan("after"))).created_new_thread


async def test_a_text_that_is_no_utf_8_is_damage_and_its_message_does_not_quote_it(
    database: tuple[Path, list[tuple[str, UUID, UUID]]],
) -> None:
    path, conversations = database
    contact_id, thread_id, _ = conversations[0]
    connection = sqlite3.connect(path)
    connection.execute(
        "UPDATE thread_events SET event_type = CAST(x'736563726574ff' AS TEXT) WHERE thread_id = ?", (thread_id.hex,)
    )
    connection.commit()
    connection.close()
    refusals: list[StoreUnavailable] = []
    async with SQLiteStore(path) as store:
        with pytest.raises(StoreUnavailable, match="not UTF-8") as refused:
            await store.events(thread_id, None, 100, None)
        refusals.append(refused.value)
    async with SQLiteStore(path) as store:
        with pytest.raises(StoreUnavailable, match="not UTF-8") as refused:
            await store.accept(make_plan(contact_id))
        refusals.append(refused.value)
    assert "secret" not in "".join(map(str, refusals))


@pytest.mark.parametrize("seed", range(12))
async def test_no_damage_makes_another_error_than_that_the_store_is_unavailable(
    database: tuple[Path, list[tuple[str, UUID, UUID]]], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, conversations = database
    monkeypatch.setattr(sqlite_schema, "LOOK_FOR_DAMAGE", -1.0)
    draw = random.Random(seed)
    size = path.stat().st_size
    if seed % 2:
        for _ in range(6):
            overwrite(path, draw.randrange(1, size // PAGE) * PAGE, draw.randbytes(PAGE))
    else:
        for _ in range(size // PAGE):
            overwrite(path, draw.randrange(PAGE, size), draw.randbytes(4))
    damaged = path.rename(path.with_name("damaged.db"))
    for contact_id, thread_id, run_id in draw.sample(conversations, 8):
        shutil.copy(damaged, path)
        try:
            async with SQLiteStore(path, durability="relaxed") as store:
                await refused_or_answered(store.recover(uuid7()))
                await refused_or_answered(store.events(thread_id, None, 100, None))
                await refused_or_answered(store.threads(contact_id, 10, None))
                await refused_or_answered(store.run(run_id, None, None))
                plan = make_plan(contact_id)
                await refused_or_answered(store.accept(plan))
                await refused_or_answered(store.finish(plan.run_id, OWNER, completed(make_event())))
                await refused_or_answered(store.delete_thread(thread_id, None))
                await refused_or_answered(store.ping())
        except StoreUnusable:
            pass
        for file in path.parent.glob("jims.db*"):
            file.unlink()


async def refused_or_answered(call: Awaitable[object]) -> None:
    """Anything but a domain error fails the test: a caller would get 500."""
    with suppress(DomainError):
        await call


async def open_and_close(path: Path) -> None:
    async with SQLiteStore(path):
        pass
