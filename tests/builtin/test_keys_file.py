"""The keys file: what is read from it, what refuses it whole, and that changing it loses nothing."""

import errno
import hashlib
import json
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from jimsapi.builtin.keys_file import KeysFile, parse_keys
from jimsapi.plugins.errors import StartError
from tests.users import without_root

HASH = hashlib.sha256(b"sesame").hexdigest()
KEY = {"name": "website", "sha256": HASH, "created": "2026-11-25T12:00:00Z"}
OTHER = KEY | {"name": "other", "sha256": HASH[::-1]}


def document(*keys: dict[str, Any], version: Any = 1, **fields: Any) -> bytes:
    return json.dumps({"version": version, "keys": keys, **fields}).encode()


@pytest.fixture
def file(tmp_path: Path) -> KeysFile:
    return KeysFile(tmp_path / "keys.json")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder in which every user may write, unlike one of pytest's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


def text(tmp_path: Path) -> str:
    return (tmp_path / "keys.json").read_text(encoding="utf-8")


def test_every_field_is_read_and_what_is_left_out_is_no_limit() -> None:
    limits = {"scopes": ["chat"], "contact_id": "", "expires": "2027-01-01T00:00:00+01:00"}
    free, bound = parse_keys(b"\xef\xbb\xbf" + document(KEY, OTHER | limits).replace(b", ", b",\r\n"))
    assert (free.name, free.sha256, free.created) == ("website", HASH, datetime(2026, 11, 25, 12, tzinfo=UTC))
    assert (free.scopes, free.contact_id, free.expires) == (UNSET, UNSET, UNSET)
    assert (bound.scopes, bound.contact_id) == (("chat",), "")
    assert bound.expires == datetime(2026, 12, 31, 23, tzinfo=UTC)
    assert parse_keys(document()) == ()


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "Expecting value in line 1"),
        (b"sesame\nother\n", "Expecting value in line 1"),
        (document(KEY)[:-1], "Expecting ',' delimiter in line 1"),
        (b"\xff\xfe", "it is not UTF-8 text"),
        (b"[" * 100_000, "it nests too deeply"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "it nests too deeply"),
        (b'{"a":' * 32 + b"1" + b"}" * 32, "unknown field `a`"),
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "missing required field `version`"),
        (document(KEY, version=2), "it has version 2, and this jimsapi supports version 1"),
        (document(KEY, version="1"), "Expected `int`, got `str` - at `$.version`"),
        (document(KEY, more=1), "unknown field `more`"),
        (document(KEY | {"scope": ["chat"]}), "unknown field `scope` - at `$.keys[0]`"),
        (document(KEY, OTHER | {"expiry": "x"}), "unknown field `expiry` - at `$.keys[1]`"),
        (document(KEY | {"scopes": ["two words"]}), "matching regex"),
        (document(KEY | {"scopes": [""]}), "matching regex"),
        (document(KEY | {"scopes": "chat"}), "Expected `array`, got `str` - at `$.keys[0].scopes`"),
        (document(KEY | {"scopes": []}), "length >= 1 - at `$.keys[0].scopes`"),
        (document(KEY | {"scopes": None}), "got `null` - at `$.keys[0].scopes`"),
        (document(KEY | {"contact_id": None}), "got `null` - at `$.keys[0].contact_id`"),
        (document(KEY | {"contact_id": 7}), "got `int` - at `$.keys[0].contact_id`"),
        (document(KEY | {"contact_id": "\0"}), "the key website has an invalid contact_id: "),
        (document(KEY | {"contact_id": "\ud800"}), "the key website has an invalid contact_id: "),
        (document(KEY | {"expires": None}), "got `null` - at `$.keys[0].expires`"),
        (document(KEY | {"expires": "tomorrow"}), "Invalid RFC3339 encoded datetime - at `$.keys[0].expires`"),
        (document(KEY | {"expires": "2027-01-01T00:00:00"}), "timezone component - at `$.keys[0].expires`"),
        (document(KEY | {"sha256": "sesame"}), "matching regex"),
        (document(KEY | {"sha256": HASH + "\n"}), "matching regex"),
        (document(KEY | {"sha256": HASH.upper()}), "matching regex"),
        (document(KEY | {"sha256": HASH[:-1]}), "matching regex"),
        (document(KEY | {"name": ""}), "matching regex"),
        (document(KEY | {"name": "a b"}), "matching regex"),
        (document(KEY | {"name": "a\n"}), "matching regex"),
        (document({"name": "x", "created": KEY["created"]}), "missing required field `sha256`"),
        (document({"name": "x", "sha256": HASH}), "missing required field `created`"),
        (document(KEY, OTHER | {"name": "website"}), "two keys are named website"),
        (document(KEY, OTHER | {"sha256": HASH}), "the key other has the hash of another key"),
        (
            document(KEY).replace(b'"name"', b'"scopes": ["chat"], "scopes": ["threads"], "name"'),
            "an object has the same field twice",
        ),
    ],
)
def test_whatever_is_odd_refuses_the_file_and_is_named_without_a_hash(data: bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse_keys(data)
    shown = str(refused.value)
    assert fault in shown
    assert "\n" not in shown
    for hidden in ("sesame", HASH, HASH[:-1]):
        assert hidden not in shown


def test_brackets_in_a_text_are_no_levels(file: KeysFile) -> None:
    contact = '"[[' * 40 + "\\"
    file.add("one", contact_id=contact)
    [entry] = file.read()
    assert entry.contact_id == contact


def test_a_new_key_is_random_and_only_its_hash_is_kept(file: KeysFile, tmp_path: Path) -> None:
    made = [file.add(name)[0] for name in ("one", "two")]
    assert len(set(made)) == 2
    for key, entry in zip(made, file.read(), strict=True):
        assert key.startswith("jims_")
        assert len(key) >= 5 + 43  # 256 bits in base64
        assert key not in text(tmp_path)
        assert entry.sha256 == hashlib.sha256(key.encode()).hexdigest()
        assert abs(datetime.now(UTC) - entry.created) < timedelta(minutes=1)


def test_limits_are_kept_and_no_limit_leaves_no_field(file: KeysFile, tmp_path: Path) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    file.add("bound", scopes=("threads",), contact_id="", expires=until)
    file.add("free")
    bound, free = file.read()
    assert (bound.scopes, bound.contact_id, bound.expires) == (("threads",), "", until)
    assert (free.scopes, free.contact_id, free.expires) == (UNSET, UNSET, UNSET)
    raw = json.loads(text(tmp_path))
    assert raw["version"] == 1
    assert raw["keys"][1].keys() == {"name", "sha256", "created"}
    assert len(text(tmp_path).splitlines()) > 10  # for people to read


def test_a_scope_of_a_plugin_is_kept_and_one_that_no_caller_can_name_is_refused(file: KeysFile, tmp_path: Path) -> None:
    file.add("clerk", scopes=("desk.read",))
    assert file.read()[0].scopes == ("desk.read",)
    with pytest.raises(StartError, match="'two words' is not a valid scope"):
        file.add("x", scopes=("chat", "two words"))
    assert [key.name for key in file.read()] == ["clerk"]


def test_a_file_is_its_owner_s_alone_and_keeps_the_mode_that_it_was_given(file: KeysFile, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    before = os.umask(0)
    try:
        file.add("one")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o640)
        file.add("two")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(before)


def test_who_could_read_the_file_still_can_after_root_changed_it(file: KeysFile, tmp_path: Path) -> None:
    owner, group = (12345, 23456) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    file.add("one")
    os.chown(tmp_path / "keys.json", owner, group)
    file.revoke("one")
    status = (tmp_path / "keys.json").stat()
    assert (status.st_uid, status.st_gid) == (owner, group)


@pytest.mark.parametrize("mode", [0o644, 0o660])
def test_who_cannot_keep_the_owner_changes_nothing_and_is_told_why(
    shared: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    path = shared / "keys.json"
    file = KeysFile(path)
    file.add("one")
    path.chmod(mode)
    before, looked_at = path.read_bytes(), os.stat
    if os.geteuid() == 0:
        os.chown(path, 23456, -1)
    else:  # only root can give a file away

        def given_away(*arguments: Any, **named: Any) -> os.stat_result:
            status = looked_at(*arguments, **named)
            return os.stat_result((*status[:4], status.st_uid + 1, *status[5:]))

        monkeypatch.setattr(os, "stat", given_away)
    for change in (lambda: file.revoke("one"), lambda: file.add("two")):
        with without_root(), pytest.raises(StartError, match="might not be able to read it; run this as its owner"):
            change()
    assert path.read_bytes() == before
    assert [one.name for one in shared.iterdir()] == ["keys.json"]


def test_an_owner_changes_a_file_whose_group_has_no_rights_and_is_none_of_his(shared: Path) -> None:
    # As root leaves it who makes the file and hands it over: `chown app keys.json`.
    path = shared / "keys.json"
    KeysFile(path).add("one")
    if os.geteuid() == 0:
        os.chown(path, 12345, 23456)
    with without_root():
        KeysFile(path).revoke("one")
        path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 23456)
        with without_root(), pytest.raises(StartError, match="belongs to user 12345 and group 23456 with mode 640"):
            KeysFile(path).add("two")


def test_what_is_in_the_way_is_named(shared: Path) -> None:
    path = shared / "keys.json"
    with without_root():
        KeysFile(path).add("one")
    shared.chmod(0o555)
    try:
        with without_root(), pytest.raises(StartError) as refused:
            KeysFile(path).revoke("one")
    finally:
        shared.chmod(0o777)
    assert str(refused.value) == f"cannot create a file in {shared} to change {path}: Permission denied"


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EXDEV])
def test_of_a_file_that_is_mounted_by_itself_the_way_out_is_told(
    file: KeysFile, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def mounted(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", mounted)
    with pytest.raises(StartError, match=r"if the file is mounted by itself, mount its folder, not the file$"):
        file.add("one")


def test_behind_a_link_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "keys.json").symlink_to("real/keys.json")
    KeysFile(tmp_path / "keys.json").add("one")
    KeysFile(tmp_path / "real" / "keys.json").add("two")
    assert (tmp_path / "keys.json").is_symlink()
    assert [key.name for key in KeysFile(tmp_path / "keys.json").read()] == ["one", "two"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda file: file.add("one"), "already has a key one; use another name, or revoke that key first"),
        (lambda file: file.revoke("two"), "has no key two (there are: one)"),
        (lambda file: file.add("a b"), "'a b' is not a valid key name"),
        (lambda file: file.add(""), "'' is not a valid key name"),
        (lambda file: file.add("-x"), "'-x' is not a valid key name"),
        (lambda file: file.add("x" * 65), "is not a valid key name"),
        (lambda file: file.add("x", contact_id="\0"), "--contact is not a valid contact_id"),
        (lambda file: file.add("x", contact_id="\udcff"), "--contact is not a valid contact_id"),
        (lambda file: file.add("x", contact_id="é" * 1001), "--contact is not a valid contact_id"),
        (lambda file: file.add("x", expires=datetime.now(UTC)), "is in the past"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    file: KeysFile, tmp_path: Path, change: Callable[[KeysFile], object], fault: str
) -> None:
    file.add("one")
    before = text(tmp_path)
    with pytest.raises(StartError) as refused:
        change(file)
    assert fault in str(refused.value)
    assert text(tmp_path) == before


def test_a_faulty_file_is_left_as_it_is(file: KeysFile, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(document(KEY | {"scope": ["chat"]}))
    changes: list[Callable[[], object]] = [lambda: file.add("x"), lambda: file.revoke("website"), file.read]
    for change in changes:
        with pytest.raises(StartError, match=r"keys\.json: it is not a keys file: .*unknown field `scope`"):
            change()
    assert text(tmp_path).encode() == document(KEY | {"scope": ["chat"]})


def test_what_is_not_there_cannot_be_listed_or_changed(file: KeysFile, tmp_path: Path) -> None:
    for change in (file.read, lambda: file.revoke("x")):
        with pytest.raises(StartError, match=r"cannot read .*keys\.json: No such file or directory"):
            change()
    with pytest.raises(StartError, match=rf"cannot lock {tmp_path}/no to change .*: No such file or directory"):
        KeysFile(tmp_path / "no" / "keys.json").add("x")


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    file: KeysFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    file.add("one")
    before = text(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full)
        with pytest.raises(StartError, match=r"cannot write .*keys\.json: No space left on device"):
            file.add("two")
    assert text(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


def test_a_file_is_on_disk_before_it_takes_the_old_one_s_place(file: KeysFile, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def replaced(source: str, target: Path) -> None:
        assert json.loads(Path(source).read_bytes())["keys"]
        done.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    file.add("one")
    assert done == ["file", "replace", "folder"]


def test_of_many_who_change_the_file_at_once_none_loses_a_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    start = threading.Barrier(12)
    faults: list[Exception] = []

    def work(number: int) -> None:
        start.wait()
        try:
            for turn in range(5):
                KeysFile(path).add(f"key-{number}-{turn}")
            KeysFile(path).revoke(f"key-{number}-0")
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            if path.exists():
                parse_keys(path.read_bytes())  # never half a file
            thread.join(0.001)
    assert faults == []
    assert {key.name for key in KeysFile(path).read()} == {f"key-{n}-{turn}" for n in range(12) for turn in range(1, 5)}
