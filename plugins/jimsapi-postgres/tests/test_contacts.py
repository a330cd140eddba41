"""`jimsapi contacts` on PostgreSQL, where it works beside servers."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import orjson
import pytest
from jimsapi_postgres.store import PostgresStore

from jimsapi.testing.store import OWNER, completed, make_event, make_key, make_plan
from jimsapi.threads.errors import ThreadNotFound
from jimsapi.threads.facts import ForkPlan, Rating, ThreadChange
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import New
from tests.command import run_command
from tests.serving import Served

pytestmark = pytest.mark.anyio

TABLES = """
    SELECT format('%I', table_name) FROM information_schema.tables
    WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'
"""


def contacts(url: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command("contacts", *arguments, "--store", url, cwd=folder)


async def everything(outside: Any) -> str:
    """All rows of all tables, as text."""
    tables = [row[0] for row in await outside.fetch(TABLES)]
    assert {"threads", "thread_events", "jimsapi_runs", "jimsapi_idempotency", "jimsapi_feedback"} <= set(tables)
    return "\n".join([row[0] for table in tables for row in await outside.fetch(f"SELECT t::text FROM {table} t")])


async def talk(store: PostgresStore, contact: str) -> set[str]:
    """Let a contact have all that the store can hold. Returns the identifiers."""
    done = make_plan(contact, selectors=(New(external_id=f"tg:{contact}"),), idempotency=make_key())
    thread_id = (await store.accept(done)).thread.thread_id
    answer = make_event()
    await store.finish(done.run_id, OWNER, completed(make_event("question.asked", {"key": "k"}), answer))
    running, waiting = (make_plan(contact, idempotency=make_key()) for _ in range(2))
    await store.accept(running)
    await store.accept(waiting)
    await store.change_thread(thread_id, None, ThreadChange("Quokkas"))
    await store.rate(thread_id, None, answer.event_id, Rating(1))
    fork = await store.fork(ForkPlan(thread_id=uuid7(), parent_id=thread_id, acting_for=None))
    plans = (done, running, waiting)
    keys = [plan.idempotency.key for plan in plans if plan.idempotency is not None]
    runs = [plan.run_id for plan in plans]
    return {contact, *map(str, (thread_id, fork.thread_id, answer.event_id, *runs, *keys))}


async def test_a_deletion_leaves_no_row_of_the_contact_in_any_table(
    store: PostgresStore, url: str, outside: Any, tmp_path: Path
) -> None:
    ids, others = await talk(store, "ann"), await talk(store, "bob")
    before = await everything(outside)
    assert [one for one in (*ids, *others) if one not in before] == []
    ran = contacts(url, tmp_path, "delete", "ann", "--yes")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("deleted 2 threads and 0 files (0 bytes) of the contact 'ann' from postgresql://")
    left = await everything(outside)
    assert [one for one in ids if one in left] == []
    assert [one for one in others if one not in left] == []
    again = contacts(url, tmp_path, "delete", "ann", "--yes")
    assert (again.returncode, again.stdout[:33]) == (0, "there is nothing of the contact '")


async def test_a_refused_deletion_of_a_thread_leaves_its_keys(store: PostgresStore, outside: Any) -> None:
    ids = await talk(store, "ann")
    [thread_id] = [row[0] for row in await outside.fetch("SELECT thread_id FROM threads WHERE external_id = 'tg:ann'")]
    with pytest.raises(ThreadNotFound):
        await store.delete_thread(thread_id, "bob")
    left = await everything(outside)
    assert [one for one in ids if one not in left] == []


def test_the_archive_is_written_and_the_contact_deleted_while_a_server_runs(
    url: str, server: Callable[..., Served], tmp_path: Path
) -> None:
    with server(url) as served, served.client() as client:
        for contact in ("ann", "bob"):
            client.post("/api/v1/chat", json={"contact_id": contact, "message": "hello"}).raise_for_status()
        ran = contacts(url, tmp_path, "export", "ann", "--output", "ann.zip")
        assert (ran.returncode, ran.stderr) == (0, "")
        assert "deleted 1 thread" in contacts(url, tmp_path, "delete", "ann", "--yes").stdout
        assert client.get("/api/v1/threads?contact_id=ann").json()["threads"] == []
        again = client.post("/api/v1/chat", json={"contact_id": "ann", "message": "again"}).json()
        assert again["created_new_thread"]
        assert len(client.get("/api/v1/threads?contact_id=bob").json()["threads"]) == 1
    with ZipFile(tmp_path / "ann.zip") as archive:
        events = [orjson.loads(line) for line in archive.read("events.jsonl").splitlines()]
    assert [event["event_type"] for event in events][:2] == ["jims.lifecycle.thread_created", "comm.user_message"]
    assert events[1]["event_data"]["content"] == "hello"
