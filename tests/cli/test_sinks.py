"""`jimsapi sinks`: what it prints and changes, with and without a server, and when it refuses."""

import asyncio
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from jimsapi.stores.sqlite import SQLiteStore
from jimsapi.testing.store import OWNER, fill, make_event
from jimsapi.threads.outbox import Refused
from tests.command import refusal, run_command
from tests.serving import Served
from tests.waiting import eventually

STORE = ("--store", "sqlite:///jims.db")


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command("sinks", *arguments, *STORE, cwd=folder)


def printed(folder: Path, *arguments: str) -> str:
    ran = command(folder, *arguments)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def objects(text: str) -> list[Any]:
    return [orjson.loads(line) for line in text.splitlines()]


class Stored:
    """The database of a folder with two sinks: `audit` refused two of three events, and none has reached `later`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        asyncio.run(self._store())

    async def _store(self) -> None:
        async with SQLiteStore(self.folder / "jims.db", durability="relaxed") as store:
            outbox = store.outbox
            for sink in ("audit", "later"):
                await outbox.register(sink)
            await outbox.hold("audit", OWNER, 60)
            self.thread_id = await fill(store, [make_event()])
            batch = await outbox.read("audit", 10)
            assert batch.after is not None
            refused = [Refused(event, "\x1b[31mno such field") for event in batch.events[:2]]
            assert await outbox.advance("audit", OWNER, batch.after, refused)
            await outbox.release("audit", OWNER)

    def run(self, work: Any) -> Any:
        async def do() -> Any:
            async with SQLiteStore(self.folder / "jims.db", durability="relaxed") as store:
                return await work(store.outbox)

        return asyncio.run(do())

    def letters(self) -> Sequence[Any]:
        found: Sequence[Any] = self.run(lambda outbox: outbox.dead_letters("audit", 10))
        return found


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


def test_the_sinks_are_listed_with_what_waits(stored: Stored, tmp_path: Path) -> None:
    heading, audit, later = printed(tmp_path, "list").splitlines()
    assert heading.split() == ["SINK", "WAITING", "SECONDS", "DEAD", "HISTORY", "SINCE", "PROCESS"]
    assert audit.split() == ["audit", "0", "0.0", "2", "-", "-"]
    assert later.split()[:2] == ["later", "3"]
    assert later.split()[3:] == ["0", "-", "-"]
    first, second = objects(printed(tmp_path, "list", "--json"))
    assert first == {
        "name": "audit",
        "waiting": 0,
        "lag_seconds": 0.0,
        "dead_letters": 2,
        "history_since": None,
        "process": None,
        "held_until": None,
    }
    assert second["lag_seconds"] > 0


def test_dead_letters_are_listed_with_their_reason(stored: Stored, tmp_path: Path) -> None:
    first, second = stored.letters()
    heading, *rows = printed(tmp_path, "dead", "audit").splitlines()
    assert heading.split() == ["NUMBER", "FAILED", "AGAIN", "TYPE", "THREAD", "EVENT", "REASON"]
    assert "\x1b" not in "".join(rows)
    assert rows[0].split()[:1] == [str(first.number)]
    assert rows[1].split()[2:6] == ["no", "comm.user_message", str(stored.thread_id), str(second.event_id)]
    found = objects(printed(tmp_path, "dead", "audit", "--json"))
    assert [UUID(letter["event_id"]) for letter in found] == [first.event_id, second.event_id]
    assert found[0]["reason"] == "\x1b[31mno such field"
    limited = command(tmp_path, "dead", "audit", "--limit", "1", "--json")
    assert len(objects(limited.stdout)) == 1
    assert "there are more dead letters" in limited.stderr
    none = command(tmp_path, "dead", "later")
    assert (none.returncode, none.stdout) == (0, "")
    assert "the sink later has no dead letters" in none.stderr


def test_dead_letters_are_replayed_and_dropped(stored: Stored, tmp_path: Path) -> None:
    first, second = stored.letters()
    assert "1 dead letters of the sink audit will be" in printed(tmp_path, "replay", "audit", str(second.number))
    assert [letter.again for letter in stored.letters()] == [False, True]
    assert "2 dead letters of the sink audit are deleted" in printed(tmp_path, "drop", "audit", "--all")
    assert stored.letters() == []
    gone = refusal(command(tmp_path, "drop", "audit", str(first.number)))
    assert "the sink audit has only 0 of these dead letters" in gone


@pytest.mark.parametrize("arguments", [("replay", "audit"), ("drop", "audit", "1", "--all")])
def test_which_dead_letters_are_meant_must_be_said(stored: Stored, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ran = command(tmp_path, *arguments)
    assert ran.returncode == 2
    assert "give the numbers of dead letters, or --all" in ran.stderr
    assert len(stored.letters()) == 2


def test_a_sink_is_rewound_and_registered_if_it_is_new(stored: Stored, tmp_path: Path) -> None:
    mistyped = refusal(command(tmp_path, "rewind", "warehouse", "--since", "2026-01-01"))
    assert "there is no sink warehouse in" in mistyped
    assert "which has: audit, later; for one that was never configured yet, add --new" in mistyped
    assert "at most 100 characters" in refusal(command(tmp_path, "rewind", "w" * 101, "--new", "--since", "2026-01-01"))
    text = printed(tmp_path, "rewind", "warehouse", "--new", "--since", "2026-01-01T12:00:00+0200")
    assert text == "the sink warehouse will receive all events since 2026-01-01T10:00:00Z\n"
    printed(tmp_path, "rewind", "later", "--since", "2026-01-01")
    states = stored.run(lambda outbox: outbox.sinks())
    assert [(state.name, state.history) for state in states] == [
        ("audit", None),
        ("later", datetime(2026, 1, 1, tzinfo=UTC)),
        ("warehouse", datetime(2026, 1, 1, 10, tzinfo=UTC)),
    ]


def test_a_sink_is_removed(stored: Stored, tmp_path: Path) -> None:
    asked = command(tmp_path, "remove", "later")
    assert asked.returncode == 1
    assert "Remove the sink later? 3 events wait for it, and it has 0 dead letters." in asked.stderr
    assert printed(tmp_path, "remove", "later", "--yes") == "removed the sink later\n"
    assert [state.name for state in stored.run(lambda outbox: outbox.sinks())] == ["audit"]


def test_an_unknown_sink_is_named_with_those_that_exist(stored: Stored, tmp_path: Path) -> None:
    for name in ("dead", "remove"):
        text = refusal(command(tmp_path, name, "adit"))
        assert "there is no sink adit in" in text
        assert "it has audit, later" in text


def test_a_database_without_sinks_says_so(tmp_path: Path) -> None:
    async def create() -> None:
        async with SQLiteStore(tmp_path / "jims.db", durability="relaxed"):
            pass

    asyncio.run(create())
    ran = command(tmp_path, "list")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "no sink is registered in sqlite:///" in ran.stderr


def test_the_commands_work_beside_a_server_whose_sink_then_receives_what_was_dead(
    stored: Stored, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    server = Served("--app", "tests.apps.scripted:app", "--event-file-path", str(file), *STORE, folder=tmp_path)
    with server, server.client() as client:
        assert client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"}).status_code == 200
        eventually(lambda: file.exists() and len(file.read_bytes().splitlines()) == 2)
        audit, own, _ = objects(printed(tmp_path, "list", "--json"))
        assert own["name"] == "event-file"
        assert own["process"] is not None
        refused = refusal(command(tmp_path, "remove", "event-file", "--yes"))
        assert "a server works for the sink event-file" in refused
        locked = refusal(command(tmp_path, "rewind", "warehouse", "--new", "--since", "2020-01-01"))
        assert "or start it with the sink and repeat the command without --new" in locked
        printed(tmp_path, "drop", audit["name"], "--all")
        printed(tmp_path, "rewind", "event-file", "--since", "2020-01-01")
        eventually(lambda: len(file.read_bytes().splitlines()) == 2 + 5)
        assert "event sink" not in server.stderr
    assert stored.letters() == []
