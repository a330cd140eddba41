"""`jimsapi contacts`: what the archive of a contact has, what a deletion leaves, and when both refuse."""

import asyncio
import os
import sqlite3
import subprocess
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from zipfile import ZipFile

import orjson
import pytest

from jimsapi.cli.contact_archive import Contact, Counts
from jimsapi.stores.memory import MemoryStore
from jimsapi.stores.sqlite import SQLiteStore
from jimsapi.testing.store import OWNER, completed, make_event, make_key, make_plan
from jimsapi.threads.errors import StoreUnavailable, StoreUnusable, ThreadNotFound
from jimsapi.threads.event import NewEvent
from jimsapi.threads.facts import ForkPlan, Rating, ThreadChange
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import Idempotency, New
from jimsapi.threads.store import ThreadStore
from tests.command import answer_command, refusal, run_command
from tests.serving import Served
from tests.stores.databases import JIMS_SCHEMA

pytestmark = pytest.mark.anyio

STORE = ("--store", "sqlite:///jims.db")
USED = ("model.usage", {"model": "m", "input_tokens": 3})
FILES = (
    b'{"message_id":"01a22129-272c-7c9c-91cf-1fdacd18900f","files":[{"file_id":"f","name":"a","type":"b","size":1}]}'
)


async def talk(store: ThreadStore, contact: str = "ann", key: Idempotency | None = None) -> tuple[UUID, UUID, set[str]]:
    """Let a contact have a thread with all that a store can hold, and a fork. Returns both, and all identifiers."""
    plan = make_plan(
        contact, f"of {contact}", selectors=(New(external_id=f"tg:{contact}"),), idempotency=key or make_key()
    )
    thread_id = (await store.accept(plan)).thread.thread_id
    sent = [
        make_event("tool.call", {"result": "ü"}),
        make_event(),
        make_event(*USED),
        make_event("question.asked", {"key": "k"}),
    ]
    await store.finish(plan.run_id, OWNER, completed(*sent))
    await store.change_thread(thread_id, None, ThreadChange("Quokkas", archived=True, metadata=b'{"stars":5}'))
    await store.rate(thread_id, None, sent[1].event_id, Rating(-1, "too short"))
    fork = await store.fork(ForkPlan(thread_id=uuid7(), parent_id=thread_id, acting_for=None))
    ids = {plan.run_id, thread_id, fork.thread_id, plan.message.event_id, *(event.event_id for event in sent)}
    return thread_id, fork.thread_id, {contact, *(one.hex for one in ids), *map(str, ids)}


def stored(folder: Path, *events: NewEvent) -> tuple[UUID, UUID, set[str]]:
    """Do so for `ann` and `bob` in the database of a folder, and add `events` to the first thread of `ann`."""

    async def store() -> tuple[UUID, UUID, set[str]]:
        async with SQLiteStore(folder / "jims.db", durability="relaxed") as opened:
            await talk(opened, "bob")
            found = await talk(opened)
            if events:
                await opened.append(found[0], None, events)
            return found

    return asyncio.run(store())


def contacts(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command("contacts", *arguments, *STORE, cwd=folder)


def archived(path: Path) -> dict[str, Any]:
    """What an archive has: lists of JSON values, the manifest, and the contents of files."""
    with ZipFile(path) as archive:
        assert archive.testzip() is None
        parts = {name: archive.read(name) for name in archive.namelist()}
    manifest = orjson.loads(parts.pop("manifest.json"))
    lists = {
        name: [orjson.loads(line) for line in parts.pop(name).splitlines()] for name in list(parts) if name[-1] == "l"
    }
    return {"manifest": manifest, **lists, **parts}


def everything(path: Path) -> str:
    """All rows of all tables of a database, as text."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return repr([connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables])


def expect_archive(found: dict[str, Any], thread_id: UUID, fork_id: UUID) -> None:
    fork, thread = found["threads.jsonl"]
    assert (thread["thread_id"], fork["thread_id"]) == (str(thread_id), str(fork_id))
    assert (thread["title"], thread["metadata"], thread["parent"]) == ("Quokkas", {"stars": 5}, None)
    assert thread["archived_at"].endswith("Z")
    assert thread["created_at"].endswith("Z")
    assert thread["thread_config"] == {"interface": "api"}
    assert (fork["title"], fork["parent"]["thread_id"]) == (None, str(thread_id))
    types = ["jims.lifecycle.thread_created", "comm.user_message", "tool.call", "comm.assistant_message", "model.usage"]
    for thread in (str(thread_id), str(fork_id)):
        events = [event for event in found["events.jsonl"] if event["thread_id"] == thread]
        assert [event["event_type"] for event in events] == [*types, "question.asked"]
        assert events[1]["event_data"]["content"] == "of ann"
        assert events[2]["event_data"] == {"result": "ü"}
    [given] = found["feedback.jsonl"]
    assert (given["thread_id"], given["rating"], given["comment"]) == (str(thread_id), -1, "too short")
    assert found["files.jsonl"] == []
    manifest = found["manifest"]
    assert (manifest["format"], manifest["version"], manifest["contact_id"]) == ("jimsapi.contact", 1, "ann")
    [used] = found["usage.jsonl"]
    assert (used["model"], used["calls"], used["input_tokens"]) == ("m", 1, 3)
    counts = {"threads": 2, "events": 12, "feedback": 1, "files": 0, "usage": 1, "file_bytes": 0}
    assert manifest["counts"] == counts
    assert "bob" not in str(found)


# The archive


def test_the_archive_has_everything_of_the_contact_and_nothing_of_others(site: Path) -> None:
    thread_id, fork_id, _ = stored(site)
    before = everything(site / "jims.db")
    ran = contacts(site, "export", "ann", "--output", "ann.zip")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "ann.zip: 2 threads, 12 events, 1 rating, 0 files (0 bytes) of the contact 'ann'\n"
    expect_archive(archived(site / "ann.zip"), thread_id, fork_id)
    assert (site / "ann.zip").stat().st_mode & 0o777 == 0o600
    assert everything(site / "jims.db") == before
    assert [path.name for path in site.iterdir() if path.suffix not in {".db", ".lock", ".db-wal", ".db-shm"}] == [
        "ann.zip"
    ]


async def test_the_archive_of_a_store_in_memory_is_the_same(tmp_path: Path) -> None:
    async with MemoryStore() as store:
        thread_id, fork_id, _ = await talk(store)
        await talk(store, "bob")
        with (tmp_path / "ann.zip").open("wb") as file:
            counts = await Contact("ann", store, None).write(file, "0", without_files=False)
        assert counts == Counts(threads=2, events=12, feedback=1, usage=1)
        expect_archive(archived(tmp_path / "ann.zip"), thread_id, fork_id)
        await store.delete_contact("ann")
        assert not await Contact("ann", store, None).count()
        assert await Contact("bob", store, None).count() == Counts(threads=2, usage=1)


def test_an_archive_is_written_while_a_server_has_the_database_open(site: Path) -> None:
    with Served("--store", "sqlite:///jims.db", folder=site) as served, served.client() as client:
        said = client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hello"}).json()
        assert contacts(site, "export", "ann", "--output", "ann.zip").returncode == 0
        again = client.post("/api/v1/chat", json={"contact_id": "ann", "message": "again"}).json()
        assert contacts(site, "export", "ann", "--output", "later.zip").returncode == 0
        assert again["thread_id"] == said["thread_id"]
        assert served.stop() == 0
    for name, messages in (("ann.zip", ["hello"]), ("later.zip", ["hello", "again"])):
        events = archived(site / name)["events.jsonl"]
        assert [
            event["event_data"]["content"] for event in events if event["event_type"] == "comm.user_message"
        ] == messages


def test_what_other_programs_stored_as_no_json_is_exported(site: Path) -> None:
    stored(site)
    with closing(sqlite3.connect(site / "jims.db")) as connection, connection:
        connection.execute("UPDATE thread_events SET event_data = NULL WHERE event_type = 'tool.call'")
        connection.execute(
            """UPDATE thread_events SET event_data = '{"n": Infinity}' WHERE event_type = 'question.asked'"""
        )
    assert contacts(site, "export", "ann", "--output", "ann.zip").returncode == 0
    events = archived(site / "ann.zip")["events.jsonl"]
    assert [event["event_data"] for event in events if event["event_type"] == "tool.call"] == [None, None]
    assert [event["event_data"] for event in events if event["event_type"] == "question.asked"] == [{"n": None}] * 2


async def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    size, number = 500_000, 100
    async with SQLiteStore(tmp_path / "jims.db", durability="relaxed") as store:
        plan = make_plan()
        thread_id = (await store.accept(plan)).thread.thread_id
        await store.finish(plan.run_id, OWNER, completed())
        for _ in range(number):
            await store.append(thread_id, None, [make_event(data={"content": os.urandom(size // 2).hex()})])
    async with SQLiteStore(tmp_path / "jims.db").beside_a_server() as store:
        tracemalloc.start()
        with (tmp_path / "ann.zip").open("wb") as file:
            await Contact("ann", store, None).write(file, "0", without_files=False)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (tmp_path / "ann.zip").stat().st_size > 20_000_000
    assert peak < 20_000_000  # a page has 4 MiB


def test_an_existing_file_is_replaced_only_with_force(site: Path) -> None:
    stored(site)
    output = site / "ann.zip"
    output.write_text("precious")
    line = refusal(contacts(site, "export", "ann", "--output", "ann.zip"))
    assert line == "jimsapi: ann.zip exists; name another file with --output, or replace it with --force"
    assert output.read_text() == "precious"
    assert contacts(site, "export", "ann", "--output", "ann.zip", "--force").returncode == 0
    assert len(archived(output)["threads.jsonl"]) == 2


@pytest.mark.parametrize("contact", ["cay", "", "an", "ANN"])
def test_a_contact_that_has_nothing_is_refused_and_no_file_remains(site: Path, contact: str) -> None:
    stored(site)
    line = refusal(contacts(site, "export", contact, "--output", "out.zip"))
    assert line == f"jimsapi: there is nothing of the contact {contact!r} in sqlite:///{site / 'jims.db'}"
    assert not [path for path in site.iterdir() if "zip" in path.name]


def test_a_file_that_cannot_be_written_is_named(site: Path) -> None:
    stored(site)
    line = refusal(contacts(site, "export", "ann", "--output", "missing/ann.zip"))
    assert line.startswith("jimsapi: missing/ann.zip cannot be written: No such file or directory")
    line = refusal(contacts(site, "export", "ann", "--output", "n" * 300))
    assert line.endswith("n cannot be written: File name too long; name another file with --output")


@pytest.mark.parametrize("command", [("export", "--output", "a.zip"), ("delete", "--yes")])
def test_a_database_that_does_not_exist_is_not_created(site: Path, command: tuple[str, ...]) -> None:
    name, *options = command
    line = refusal(contacts(site, name, "ann", *options))
    assert line.startswith("jimsapi: there is no database ")
    assert list(site.iterdir()) == []


async def test_a_part_that_is_deleted_meanwhile_ends_the_export(tmp_path: Path) -> None:
    class Deleting(MemoryStore):
        async def feedback(
            self, thread_id: UUID, acting_for: str | None, limit: int | None = None, after: UUID | None = None
        ) -> Any:
            await self.delete_contact("ann")
            return await super().feedback(thread_id, acting_for, limit, after)

    async with Deleting() as store:
        await talk(store)
        with (tmp_path / "ann.zip").open("wb") as file, pytest.raises(ThreadNotFound):
            await Contact("ann", store, None).write(file, "0", without_files=False)


# The deletion


def test_a_deletion_leaves_no_row_of_the_contact_in_any_table(site: Path) -> None:
    _, _, ids = stored(site)
    before = everything(site / "jims.db")
    assert all(one in before for one in ids if "-" not in one)
    ran = contacts(site, "delete", "ann", "--yes")
    where = f"sqlite:///{site / 'jims.db'}"
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"deleted 2 threads and 0 files (0 bytes) of the contact 'ann' from {where}\n"
    left = everything(site / "jims.db")
    assert [one for one in ids if one in left] == []
    again = contacts(site, "delete", "ann", "--yes")
    assert (again.returncode, again.stdout) == (0, f"there is nothing of the contact 'ann' in {where}\n")
    assert everything(site / "jims.db") == left
    assert contacts(site, "export", "bob", "--output", "bob.zip").returncode == 0
    assert archived(site / "bob.zip")["manifest"]["counts"]["events"] == 12


def test_totals_of_a_contact_without_threads_are_deleted(site: Path) -> None:
    async def use() -> None:
        async with SQLiteStore(site / "jims.db", durability="relaxed") as store:
            await store.add_usage(uuid7(), "ghost", uuid7(), [make_event(*USED)])

    asyncio.run(use())
    assert "ghost" in everything(site / "jims.db")
    assert contacts(site, "delete", "ghost", "--yes").returncode == 0
    assert "ghost" not in everything(site / "jims.db")


async def test_a_deletion_deletes_the_idempotency_keys_of_the_contact_only(tmp_path: Path) -> None:
    mine, other = make_key(), make_key()
    async with SQLiteStore(tmp_path / "jims.db", durability="relaxed") as store:
        await talk(store, "ann", mine)
        await talk(store, "bob", other)
        await store.delete_contact("ann")
    left = everything(tmp_path / "jims.db")
    assert mine.key.hex not in left
    assert other.key.hex in left


def test_a_deletion_without_a_terminal_needs_yes(site: Path) -> None:
    stored(site)
    before = everything(site / "jims.db")
    ran = contacts(site, "delete", "ann")
    assert ran.returncode == 2
    assert "give --yes" in ran.stderr
    assert everything(site / "jims.db") == before


@pytest.mark.parametrize(("answer", "deletes"), [("y", True), ("n", False)])
def test_a_deletion_asks_on_a_terminal(site: Path, answer: str, deletes: bool) -> None:
    stored(site)
    status, output = answer_command("contacts", "delete", "ann", *STORE, answer=answer, cwd=site)
    assert "Delete 2 threads and 0 files (0 bytes) of the contact 'ann' from sqlite:///" in output
    assert (status == 0) is deletes
    assert ("'ann'" in everything(site / "jims.db")) is not deletes


def test_a_deletion_beside_a_server_names_the_route_that_deletes(site: Path) -> None:
    with Served("--store", "sqlite:///jims.db", folder=site) as served, served.client() as client:
        client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hello"})
        line = refusal(contacts(site, "delete", "ann", "--yes"))
        assert f"it is locked by process {served.pid}" in line
        assert "DELETE /api/v1/contacts?contact_id=" in line
        assert client.delete("/api/v1/contacts?contact_id=ann").status_code == 204
    assert "'ann'" not in everything(site / "jims.db")


# Files without a file store


@pytest.mark.parametrize("command", [("export", "--output", "a.zip"), ("delete", "--yes")])
def test_messages_with_files_need_the_file_store_or_a_word_that_they_stay(site: Path, command: tuple[str, ...]) -> None:
    stored(site, NewEvent(uuid7(), "message.files", FILES))
    before = everything(site / "jims.db")
    name, *options = command
    line = refusal(contacts(site, name, "ann", *options))
    assert "--files-store" in line
    assert "--without-files" in line
    assert everything(site / "jims.db") == before
    assert not (site / "a.zip").exists()
    assert contacts(site, name, "ann", *options, "--without-files").returncode == 0
    if name == "export":
        assert archived(site / "a.zip")["manifest"]["without_files"] is True


# The options


def test_the_store_of_the_app_is_used_without_an_option(site: Path) -> None:
    stored(site)
    (site / "bot.py").write_text(
        "from jimsapi import JimsApp\nasync def answer(ctx): ...\napp = JimsApp(answer, store='sqlite:///jims.db')\n"
    )
    ran = run_command("contacts", "export", "ann", "--output", "ann.zip", "--app", "bot", cwd=site)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_app_is_not_loaded_if_the_store_is_named(site: Path) -> None:
    stored(site)
    (site / "app.py").write_text("raise RuntimeError('loaded')")
    assert contacts(site, "export", "ann", "--output", "ann.zip").returncode == 0


# The store that only reads


@pytest.fixture
def reading(tmp_path: Path) -> SQLiteStore:
    stored(tmp_path)
    return SQLiteStore(tmp_path / "jims.db").beside_a_server()


WRITES: list[Callable[[ThreadStore], Awaitable[Any]]] = [
    lambda store: store.accept(make_plan()),
    lambda store: store.delete_contact("ann"),
    lambda store: store.append(uuid4(), None, [make_event()]),
    lambda store: store.expire(timedelta()),
]


async def test_a_store_that_only_reads_refuses_to_write(reading: SQLiteStore, tmp_path: Path) -> None:
    before = everything(tmp_path / "jims.db")
    async with reading as store:
        await store.ping()
        for write in WRITES:
            with pytest.raises(StoreUnavailable, match="open for reading only"):
                await write(store)
    assert everything(tmp_path / "jims.db") == before


async def test_a_store_that_only_reads_does_not_upgrade_a_database(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(JIMS_SCHEMA)
    before = everything(path)
    with pytest.raises(StoreUnusable, match="start the server of this version once"):
        await SQLiteStore(path).beside_a_server().__aenter__()
    assert everything(path) == before
