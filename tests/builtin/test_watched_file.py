"""A watched file: when it is looked at, what counts as a change, and what remains of one that is gone or faulty."""

import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from jimsapi.builtin import watched_file
from jimsapi.builtin.watched_file import CHECK_EVERY, RECHECK_AFTER, WatchedFile
from jimsapi.plugins.errors import StartError

Words = tuple[str, ...]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Reader:
    """Parses words, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, data: bytes) -> Words | None:
        self.times += 1
        if b"!" in data:
            raise ValueError(f"it holds {data.count(b'!')} exclamation marks")
        return tuple(data.decode().split()) or None


def watch(path: Path, reader: Reader, clock: Clock, nothing: Words = ()) -> WatchedFile[Words]:
    return WatchedFile(path, "--words", reader, nothing, clock=clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "words"
    file.write_text("one two")
    return file


@pytest.fixture
def watched(path: Path, reader: Reader, clock: Clock) -> WatchedFile[Words]:
    return watch(path, reader, clock, ("nothing",))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every file had been written long ago."""
    monkeypatch.setattr(watched_file, "TIME_RESOLUTION", -1_000_000_000_000)


def later(watched: WatchedFile[Words], clock: Clock, seconds: float = CHECK_EVERY) -> Words:
    clock.now += seconds
    return watched.current()


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


def test_a_change_is_seen_at_the_next_look_and_looks_are_a_second_apart(
    watched: WatchedFile[Words], path: Path, clock: Clock
) -> None:
    assert watched.current() == ("one", "two")
    path.write_text("three")
    assert later(watched, clock, CHECK_EVERY * 0.99) == ("one", "two")
    assert later(watched, clock, CHECK_EVERY * 0.02) == ("three",)
    path.write_text("four")
    assert later(watched, clock, CHECK_EVERY * 0.99) == ("three",)
    assert later(watched, clock, CHECK_EVERY * 0.02) == ("four",)
    assert CHECK_EVERY <= 1


@pytest.mark.usefixtures("settled")
def test_a_thousand_requests_in_ten_seconds_look_ten_times(
    path: Path, reader: Reader, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch(path, reader, clock)
    looks: list[int] = []
    stamp = watched_file._stamp

    def counted(status: os.stat_result) -> watched_file.Stamp:
        looks.append(status.st_ino)
        return stamp(status)

    monkeypatch.setattr(watched_file, "_stamp", counted)
    for _ in range(1000):
        later(watched, clock, CHECK_EVERY / 100)
    assert 9 <= len(looks) <= 10


@pytest.mark.usefixtures("settled")
def test_what_did_not_change_is_not_read_again(path: Path, reader: Reader, clock: Clock) -> None:
    watched = watch(path, reader, clock)
    for _ in range(5):
        assert later(watched, clock) == ("one", "two")
    assert reader.times == 1


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("how", ["longer", "newer", "another file", "time turned back"])
def test_a_change_shows_in_size_time_or_identity(path: Path, reader: Reader, clock: Clock, how: str) -> None:
    watched = watch(path, reader, clock)
    before = path.stat()
    if how == "longer":
        path.write_text("six seven")
    elif how == "another file":
        (path.parent / "other").write_text("six two")
        os.utime(path.parent / "other", ns=(before.st_atime_ns, before.st_mtime_ns))
        (path.parent / "other").replace(path)
    else:
        path.write_text("six two")
        shift = {"newer": 1, "time turned back": -(10**15)}[how]
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + shift))
    assert later(watched, clock)[0] == "six"


@pytest.mark.parametrize("field", ["st_dev", "st_ino", "st_mtime_ns", "st_ctime_ns", "st_size"])
def test_each_sign_of_a_change_counts_by_itself(field: str) -> None:
    # File systems differ in what they keep: some number files anew, some have no time of the last change of status.
    fields = dict.fromkeys(["st_dev", "st_ino", "st_mtime_ns", "st_ctime_ns", "st_size"], 1)
    before, after = SimpleNamespace(**fields), SimpleNamespace(**{**fields, field: 2})
    assert watched_file._stamp(before) != watched_file._stamp(after)  # type: ignore[arg-type] # a real one is opaque


@pytest.mark.usefixtures("settled")
def test_the_swap_of_a_folder_behind_a_link_is_seen(tmp_path: Path, reader: Reader, clock: Clock) -> None:
    # As Kubernetes mounts secrets: words -> ..data/words, ..data -> a folder of this version.
    for version, word in (("..1", "old"), ("..2", "new")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "words").write_text(word)
        os.utime(tmp_path / version / "words", ns=(0, 0))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "words").symlink_to("..data/words")
    watched = watch(tmp_path / "words", reader, clock)
    assert later(watched, clock) == ("old",)
    assert reader.times == 1
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert later(watched, clock) == ("new",)


def test_two_changes_within_the_grain_of_the_file_system_s_clock_are_both_seen(
    path: Path, reader: Reader, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A coarse clock: whatever is written bears the same stamp.
    monkeypatch.setattr(watched_file, "_stamp", lambda status: (1,))
    watched = watch(path, reader, clock)
    path.write_text("six two")
    assert later(watched, clock) == ("six", "two")


@pytest.mark.parametrize("how", ["gone", "empty", "folder gone", "dangling link"])
def test_a_file_that_is_gone_or_empty_takes_its_content_with_it_and_is_told_once(
    tmp_path: Path, reader: Reader, clock: Clock, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "words"
    path.write_text("one two")
    watched = watch(path, reader, clock, ("nothing",))
    if how == "empty":
        path.write_text("\n")
    else:
        path.unlink()
    if how == "folder gone":
        folder.rmdir()
        folder.write_text("")
    elif how == "dangling link":
        path.symlink_to("nowhere")
    assert later(watched, clock) == ("one", "two")
    assert errors(caplog) == []
    assert later(watched, clock, RECHECK_AFTER) == ("nothing",)
    for _ in range(3):
        assert later(watched, clock) == ("nothing",)
    assert errors(caplog) == [f"--words: {path}: it is missing or empty; its keys are invalid until it is back"]


@pytest.mark.usefixtures("settled")
def test_an_empty_file_is_taken_as_empty_also_if_it_is_old(path: Path, reader: Reader, clock: Clock) -> None:
    watched = watch(path, reader, clock)
    path.write_text("")
    later(watched, clock)
    assert later(watched, clock) == ()


@pytest.mark.parametrize("settle", [True, False])
def test_a_file_that_comes_back_counts_again(
    path: Path,
    reader: Reader,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    settle: bool,
) -> None:
    caplog.set_level(logging.INFO)
    if settle:
        monkeypatch.setattr(watched_file, "TIME_RESOLUTION", -1_000_000_000_000)
    watched = watch(path, reader, clock)
    away = path.with_name("away")
    for _ in range(2):
        path.rename(away)
        later(watched, clock)
        assert later(watched, clock) == ()
        away.rename(path)
        assert later(watched, clock) == ("one", "two")
    assert len(errors(caplog)) == 2
    assert caplog.text.count("it was read again") == 2


def test_who_writes_in_place_and_is_watched_halfway_makes_no_gap(
    watched: WatchedFile[Words], path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for word in ("three", "four"):
        before = watched.current()
        path.write_text("")
        assert later(watched, clock) == before
        path.write_text(word)
        assert later(watched, clock, RECHECK_AFTER) == (word,)
    assert errors(caplog) == []


def test_a_faulty_file_is_no_revocation_and_each_fault_is_told_once(
    watched: WatchedFile[Words], path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for text in ("three!", "three!", "three!!"):
        path.write_text(text)
        for _ in range(3):
            assert later(watched, clock) == ("one", "two")
    kept = "the previous content stays valid until it is fixed"
    assert errors(caplog) == [
        f"--words: {path}: it holds 1 exclamation marks; {kept}",
        f"--words: {path}: it holds 2 exclamation marks; {kept}",
    ]
    path.write_text("three")
    assert later(watched, clock) == ("three",)
    path.write_text("four!")
    later(watched, clock)
    assert len(errors(caplog)) == 3


def test_a_file_that_cannot_be_opened_is_no_revocation_and_is_tried_again(
    watched: WatchedFile[Words], path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path.unlink()
    path.symlink_to(path.name)  # a link to itself
    for _ in range(3):
        assert later(watched, clock) == ("one", "two")
    assert len(errors(caplog)) == 1
    assert "cannot be read (Too many levels of symbolic links)" in errors(caplog)[0]
    path.unlink()
    path.write_text("three")
    assert later(watched, clock) == ("three",)


def test_what_cannot_be_read_leaves_no_descriptor_open(watched: WatchedFile[Words], path: Path, clock: Clock) -> None:
    def free() -> int:
        descriptor = os.dup(0)
        os.close(descriptor)
        return descriptor

    before = free()
    path.unlink()
    path.mkdir()
    assert later(watched, clock) == ("one", "two")
    assert free() == before


def test_an_unchanged_file_is_told_of_as_read_only_when_it_was_changed(
    watched: WatchedFile[Words], path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        later(watched, clock)
    assert caplog.records == []
    path.write_text("three")
    for _ in range(3):
        later(watched, clock)
    assert [record.getMessage() for record in caplog.records] == [f"--words: {path}: it was read again"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("", "it is empty; put a key in it, or leave the option out"),
        (" \n", "it is empty; put a key in it, or leave the option out"),
        ("!", "it holds 1 exclamation marks"),
        ("folder", "it is not a regular file, and could not be read again"),
        ("pipe", "it is not a regular file, and could not be read again"),
    ],
)
def test_at_first_the_file_must_be_good(
    tmp_path: Path, reader: Reader, clock: Clock, content: str | None, fault: str
) -> None:
    path = tmp_path / "words"
    if content == "folder":
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    elif content is not None:
        path.write_text(content)
    with pytest.raises(StartError) as refused:
        watch(path, reader, clock)
    assert str(refused.value) == f"--words: {path}: {fault}"
