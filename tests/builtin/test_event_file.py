"""The file of events: whole lines that survive a kill, and older files of which some are kept."""

import asyncio
import fcntl
import json
import os
import resource
import sqlite3
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from jimsapi.builtin import builtin_plugins, event_file
from jimsapi.builtin.event_file import EventFile
from jimsapi.plugins import StartError
from jimsapi.plugins.manager import PluginManager
from jimsapi.testing import DoesNotApply, EventSinkContract
from jimsapi.testing.contract import resolved
from jimsapi.testing.sink import make_events
from jimsapi.threads.event import SinkEvent, sink_event_id
from tests.cloud_events import read_cloud_event
from tests.command import refusal, run_command
from tests.users import without_root

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


async def test_a_line_may_be_a_cloud_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = make_events(3)
    async with EventFile(path, 1_000_000, 0, "cloudevents") as file:
        await file.deliver(events[:2])
        with path.open("ab") as opened:
            opened.write(b'{"specversion":"1.0","id":"torn')
        await file.deliver(events[2:])
    read = [read_cloud_event(line) for line in path.read_bytes().splitlines()]
    assert [event.get_id() for event in read] == [sink_event_id(event) for event in events]
    assert read[0].get_source() == f"/threads/{events[0].thread_id}"
    assert read[0].get_data() == {"role": "assistant", "content": "0"}


@pytest.mark.parametrize(("before", "now"), [("json", "cloudevents"), ("cloudevents", "json")])
async def test_a_file_has_events_of_one_format_only(tmp_path: Path, before: Any, now: Any) -> None:
    path = tmp_path / "events.jsonl"
    async with EventFile(path, 1_000_000, 0, before) as file:
        await file.deliver(make_events(1))
    written = path.read_bytes()
    async with EventFile(path, 1_000_000, 0, now) as file:
        with pytest.raises(OSError, match=f"not a file of events in the format {now}; name another file"):
            file.check()
        with pytest.raises(OSError, match="not a file of events"):
            await file.deliver(make_events(1))
    assert path.read_bytes() == written


def test_the_option_sets_the_format(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"thread_id":"0192"}\n')
    options = ("--event-file-path", "events.jsonl", "--event-file-format", "cloudevents")
    checked = run_command("check", "--app", "tests.apps.steered:app", "--store", "memory:", *options, cwd=tmp_path)
    assert "not a file of events in the format cloudevents" in refusal(checked)


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


@pytest.mark.parametrize("torn", [b"{", b'{"thread_id"', b'{"thread_id":"0192', b'{"thread_id":"' + b"x" * 200_000])
async def test_a_line_that_a_killed_process_left_is_removed(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "events.jsonl"
    events = make_events(2)
    async with EventFile(path, 1_000_000, 0) as file:
        await file.deliver(events[:1])
        with path.open("ab") as opened:
            opened.write(torn)
        await file.deliver(events[1:])
    assert [line["event_id"] for line in lines(path)] == ids(events)


def database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table texts (text)")
        connection.executemany("insert into texts values (?)", [("a line\nand another",)] * 500)
        connection.commit()


def text_without_line_break(path: Path) -> None:
    path.write_bytes(b"x" * 200_000)


def text_with_line_break(path: Path) -> None:
    path.write_bytes(b"PATH=/usr/bin\n")


def events_and_text(path: Path) -> None:
    path.write_bytes(b'{"thread_id":"0192"}\nnotes of the operator')


NOT_OURS = pytest.mark.parametrize("create", [database, text_without_line_break, text_with_line_break, events_and_text])


@NOT_OURS
async def test_a_file_of_something_else_is_not_changed(tmp_path: Path, create: Any) -> None:
    path = tmp_path / "other"
    create(path)
    before = path.read_bytes()
    async with EventFile(path, 1, 1) as file:
        with pytest.raises(OSError, match=r"move th(e file|is one) away"):
            await file.deliver(make_events(1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@NOT_OURS
def test_a_file_of_something_else_stops_the_start(tmp_path: Path, create: Any) -> None:
    create(tmp_path / "other")
    reason = refused_start(tmp_path, "other")
    assert reason.startswith(f"jimsapi: --event-file-path: {tmp_path}/other ")
    assert "move th" in reason


async def test_a_large_file_gets_the_time_as_a_part_of_its_name_and_some_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    foreign = ["events-mine.jsonl", "other.jsonl", "events-20261129T101500123456.txt"]
    for name in foreign:
        (tmp_path / name).write_text("kept")
    batches = [make_events(3) for _ in range(5)]
    async with EventFile(path, 600, 2) as file:
        for batch in batches:
            await file.deliver(batch)
    *older, newest = sorted(file for file in tmp_path.iterdir() if file.name not in foreign)
    assert newest == path
    assert len(older) == 2
    assert [[line["event_id"] for line in lines(file)] for file in (*older, path)] == [
        ids(batch) for batch in batches[-3:]
    ]
    assert all((tmp_path / name).read_text() == "kept" for name in foreign)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user may enter, unlike one of pytest's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def build(path: Path) -> EventFile | None:
    """Build the sink as a start does."""
    return event_file.jimsapi_event_sink(resolved(PluginManager(builtin_plugins()), {"event_file_path": path}))


def full_file_in_a_locked_folder(folder: Path) -> Path:
    """A file that may be written, in a folder that may not, as an administrator creates one in /var/log."""
    path = folder / "events.jsonl"
    path.touch()
    path.chmod(0o666)
    folder.chmod(0o555)
    return path


async def test_a_file_is_renamed_once_that_is_possible_and_the_next_failure_is_logged(
    shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = full_file_in_a_locked_folder(shared)
    events = make_events(6)
    async with EventFile(path, 1, 0) as file:
        for number, event in enumerate(events):
            shared.chmod(0o777 if number == 3 else 0o555)
            with without_root():
                await file.deliver([event])
    [older] = shared.glob("events-*.jsonl")
    assert [line["event_id"] for line in (*lines(older), *lines(path))] == ids(events)
    assert len(lines(older)) == 3
    assert [(record.name, record.levelname) for record in caplog.records] == [("jimsapi.sinks", "ERROR")] * 2
    for record in caplog.records:
        said = f"event sink event-file cannot rotate {path}, which grows until it can: "
        assert record.getMessage().startswith(said)


def test_a_folder_in_which_no_file_can_be_renamed_stops_the_start(shared: Path) -> None:
    path = full_file_in_a_locked_folder(shared)
    with without_root(), pytest.raises(StartError, match=f"may not read and write the folder {shared}, in which"):
        build(path)


def test_a_file_that_cannot_be_written_stops_the_start(shared: Path) -> None:
    path = shared / "events.jsonl"
    path.touch()
    path.chmod(0o444)
    shared.chmod(0o777)
    with without_root(), pytest.raises(StartError, match=f"may not read and write {path}; change its owner or mode"):
        build(path)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let writing fail after so many bytes of a file, as it fails on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_batch_for_which_the_disk_has_no_space_leaves_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = make_events(1000)
    async with EventFile(path, 1_000_000, 0) as file:
        await file.deliver(events[:1])
        with file_size_limit(100_000), pytest.raises(OSError, match="File too large"):
            await file.deliver(events[1:])
        assert [line["event_id"] for line in lines(path)] == ids(events[:1])
        await file.deliver(events[1:])
    assert [line["event_id"] for line in lines(path)] == ids(events)


async def test_a_line_that_another_process_is_writing_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = make_events(2)
    async with EventFile(tmp_path / "lines", 1_000_000, 0) as other:
        await other.deliver(events[:1])
    line = (tmp_path / "lines").read_bytes()
    async with EventFile(path, 1_000_000, 0) as file:
        with path.open("ab", buffering=0) as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            opened.write(line[:50])
            delivery = asyncio.create_task(file.deliver(events[1:]))
            await asyncio.sleep(0.1)
            opened.write(line[50:])
        await delivery
    assert [line["event_id"] for line in lines(path)] == ids(events)


async def test_lines_go_to_the_new_file_if_another_process_renames_the_full_one_meanwhile(tmp_path: Path) -> None:
    path, older = tmp_path / "events.jsonl", tmp_path / "events-20261129T101500123456.jsonl"
    events = make_events(1)
    async with EventFile(path, 1_000_000, 0) as file:
        with path.open("ab") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            delivery = asyncio.create_task(file.deliver(events))
            await asyncio.sleep(0.1)
            path.rename(older)
        await delivery
    assert older.read_bytes() == b""
    assert [line["event_id"] for line in lines(path)] == ids(events)


async def test_a_file_that_another_process_keeps_locked_is_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_file, "LOCK_WITHIN", 0.05)
    path = tmp_path / "events.jsonl"
    async with EventFile(path, 1_000_000, 0) as file:
        with path.open("ab") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            with pytest.raises(BlockingIOError, match="another process has locked"):
                await file.deliver(make_events(1))
        await file.deliver(make_events(1))
    assert len(lines(path)) == 1


async def test_a_symbolic_link_is_followed_also_by_the_older_files(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    link = tmp_path / "events.jsonl"
    link.symlink_to(disk / "chat.jsonl")
    events = make_events(3)
    async with EventFile(link, 1, 0) as file:
        for event in events:
            await file.deliver([event])
    assert link.is_symlink()
    assert len(list(disk.glob("chat-*.jsonl"))) == 2
    assert [line["event_id"] for line in lines(link)] == ids(events[-1:])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "events.jsonl"]


async def test_a_new_file_keeps_the_mode_and_the_group_of_the_full_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.touch()
    group = 23456 if os.geteuid() == 0 else os.getegid()
    os.chown(path, -1, group)
    path.chmod(0o640)
    async with EventFile(path, 1, 0) as file:
        for event in make_events(2):
            await file.deliver([event])
    files = list(tmp_path.iterdir())
    assert len(files) == 2
    assert {(stat.S_IMODE(file.stat().st_mode), file.stat().st_gid) for file in files} == {(0o640, group)}


async def test_a_new_file_is_for_its_owner_alone_if_the_group_cannot_be_kept(shared: Path) -> None:
    path = shared / "events.jsonl"
    path.touch()
    path.chmod(0o666)
    shared.chmod(0o777)
    if os.geteuid() == 0:
        os.chown(path, -1, 23456)
    with without_root():
        async with EventFile(path, 1, 0) as file:
            for event in make_events(2):
                await file.deliver([event])
    if os.geteuid() == 0:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    async with EventFile(tmp_path / "events.jsonl", 1000, 0) as file:
        await file.deliver(make_events(1))
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o777 == 0o600


def refused_start(folder: Path, path: str) -> str:
    options = ("--app", "tests.apps.steered:app", "--store", "memory:", "--event-file-path", path)
    return refusal(run_command("check", *options, cwd=folder))


@pytest.mark.parametrize(
    ("path", "reason"), [("missing/events.jsonl", "there is no folder"), (".", "is not a regular file")]
)
def test_a_place_where_no_file_can_be_stops_the_start(tmp_path: Path, path: str, reason: str) -> None:
    assert reason in refused_start(tmp_path, path)
