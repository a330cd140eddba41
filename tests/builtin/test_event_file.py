"""The file of events: whole lines that survive a kill, and older files of which some are kept."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jimsapi.builtin.event_file import EventFile
from jimsapi.testing import DoesNotApply, EventSinkContract
from jimsapi.testing.sink import make_events
from jimsapi.threads.event import SinkEvent
from tests.command import refusal, run_command

pytestmark = pytest.mark.anyio


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def ids(events: Sequence[SinkEvent]) -> list[str]:
    return [str(event.event_id) for event in events]


class TestEventFile(EventSinkContract):
    distribution = "jimsapi"
    plugin = "event-file"
    outage = DoesNotApply("the next test makes the folder of the file unusable")

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "events.jsonl"

    @property
    def settings(self) -> dict[str, Any]:
        return {"event_file_path": self.path}

    async def arrived(self) -> Sequence[str]:
        return [line["event_id"] for line in lines(self.path)] if self.path.exists() else []


async def test_a_line_has_what_is_known_of_an_event(tmp_path: Path) -> None:
    [event] = make_events(1)
    async with EventFile(tmp_path / "events.jsonl", 1000, 0) as file:
        await file.deliver([event])
    [line] = lines(tmp_path / "events.jsonl")
    assert line == {
        "thread_id": str(event.thread_id),
        "event_id": str(event.event_id),
        "created_at": event.created_at.isoformat() + "+00:00",
        "event_type": "comm.assistant_message",
        "contact_id": "ann",
        "run_id": str(event.run_id),
        "event_data": {"role": "assistant", "content": "0"},
    }


async def test_a_file_that_cannot_be_written_fails_and_works_again(tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    folder.mkdir()
    events = make_events(3)
    async with EventFile(folder / "events.jsonl", 1_000_000, 0) as file:
        folder.rmdir()
        with pytest.raises(FileNotFoundError):
            await file.deliver(events)
        folder.mkdir()
        await file.deliver(events)
    assert [line["event_id"] for line in lines(folder / "events.jsonl")] == ids(events)


@pytest.mark.parametrize("torn", [b'{"event_id": "half', b"x" * 200_000])
async def test_a_line_that_a_killed_process_left_is_removed(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "events.jsonl"
    events = make_events(2)
    async with EventFile(path, 1_000_000, 0) as file:
        await file.deliver(events[:1])
        with path.open("ab") as opened:
            opened.write(torn)
        await file.deliver(events[1:])
    assert [line["event_id"] for line in lines(path)] == ids(events)


async def test_a_large_file_gets_the_time_as_a_part_of_its_name_and_some_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    foreign = ["events-mine.jsonl", "other.jsonl", "events-20261129T101500123456.txt"]
    for name in foreign:
        (tmp_path / name).write_text("kept")
    batches = [make_events(3) for _ in range(5)]
    async with EventFile(path, 600, 2) as file:
        for batch in batches:
            await file.deliver(batch)
    assert not path.exists()
    older = sorted(file for file in tmp_path.iterdir() if file.name not in foreign)
    assert len(older) == 2
    assert [[line["event_id"] for line in lines(file)] for file in older] == [ids(batch) for batch in batches[-2:]]
    assert all((tmp_path / name).read_text() == "kept" for name in foreign)


async def test_all_older_files_are_kept_without_a_limit(tmp_path: Path) -> None:
    async with EventFile(tmp_path / "events.jsonl", 1, 0) as file:
        for event in make_events(4):
            await file.deliver([event])
    assert len(list(tmp_path.glob("events-*.jsonl"))) == 4


async def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    async with EventFile(tmp_path / "events.jsonl", 1000, 0) as file:
        await file.deliver(make_events(1))
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("path", "reason"), [("missing/events.jsonl", "there is no folder"), (".", "is not a regular file")]
)
def test_a_place_where_no_file_can_be_stops_the_start(tmp_path: Path, path: str, reason: str) -> None:
    options = ("--app", "tests.apps.steered:app", "--store", "memory:", "--event-file-path", path)
    assert reason in refusal(run_command("check", *options, cwd=tmp_path))
