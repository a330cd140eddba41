"""Bearer keys without a server: whom the provider admits as whom, and until when."""

import gc
import json
import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jimsapi import Connection, Identity, InvalidCredentials, Secret
from jimsapi.builtin.bearer_key import (
    MOST_ADMITTED,
    BearerKey,
    KeyOptions,
    KeyTable,
    KeyTableParser,
    jimsapi_auth_provider,
    plain_keys,
)
from jimsapi.builtin.keys_file import KeysFile
from jimsapi.builtin.watched_file import CHECK_EVERY, RECHECK_AFTER, WatchedFile
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.options import Owned, Settings

pytestmark = pytest.mark.anyio

WEIRD = [
    "two words",
    "a,b;c",
    "k=v==",
    '"quoted"',
    "it's",
    "hash#",
    "[x]",
    "null",
    "schlüssel-✓",
    "a\x85b",
    "a\u2028b",
    "鍵",
]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def connection(token: str) -> Connection:
    """As a server gives it: the caller's UTF-8 in bytes."""
    return Connection({"type": "http", "headers": [(b"authorization", b"Bearer " + token.encode())]})


async def admitted(provider: BearerKey, *tokens: str) -> list[bool]:
    """Which of the tokens the provider admits."""
    answers = []
    for token in tokens:
        try:
            answers.append(isinstance(await provider.authenticate(connection(token)), Identity))
        except InvalidCredentials:
            answers.append(False)
    return answers


async def identity(provider: BearerKey, token: str) -> Identity:
    found = await provider.authenticate(connection(token))
    assert found is not None
    return found


def configured(given: dict[str, Any], environ: dict[str, str] | None = None) -> BearerKey | None:
    return jimsapi_auth_provider(Settings([Owned(KeyOptions, "jimsapi")], given, environ or {}))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def plain(path: Path, clock: Clock) -> WatchedFile[tuple[Secret, ...]]:
    return WatchedFile(path, "JIMS_API_KEY_FILE", plain_keys, (), clock=clock)


def holders(path: Path, clock: Clock) -> WatchedFile[KeyTable]:
    return WatchedFile(path, "--keys-file", KeyTableParser(), {}, clock=clock)


def named(path: Path, clock: Clock, wall: Callable[[], float] | None = None) -> BearerKey:
    return BearerKey((), None, holders(path, clock), clock=wall or time.time)


async def test_a_key_that_is_added_to_the_file_works_and_one_that_is_removed_stops(path: Path, clock: Clock) -> None:
    path.write_text("old\n")
    provider = BearerKey((Secret("flag"),), plain(path, clock))
    assert await admitted(provider, "old", "new", "flag") == [True, False, True]
    path.write_text("old\nnew\n")
    clock.now += CHECK_EVERY
    assert await admitted(provider, "old", "new", "flag") == [True, True, True]
    path.write_text("new\n")
    clock.now += CHECK_EVERY
    assert await admitted(provider, "old", "new", "flag") == [False, True, True]


@pytest.mark.parametrize("left", [None, "", " \n\r\n"])
async def test_the_keys_of_a_file_that_is_gone_or_empty_are_refused_and_the_others_stay(
    path: Path, clock: Clock, left: str | None
) -> None:
    path.write_text("file")
    provider = BearerKey((Secret("flag"),), plain(path, clock))
    path.unlink()
    if left is not None:
        path.write_text(left)
    clock.now += CHECK_EVERY
    assert await admitted(provider, "file", "flag") == [True, True]
    clock.now += RECHECK_AFTER
    assert await admitted(provider, "file", "flag", "") == [False, True, False]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
async def test_any_text_that_a_header_can_bear_may_be_a_key_and_lines_end_in_any_way(
    path: Path, clock: Clock, end: str, mark: str
) -> None:
    path.write_bytes((mark + end.join(["", *WEIRD, "  \t", " last\t"])).encode())
    provider = BearerKey((), plain(path, clock))
    assert await admitted(provider, *WEIRD, "last") == [True] * (len(WEIRD) + 1)
    parts = [part for key in WEIRD for part in key.replace(",", " ").replace("\x85", " ").split() if part not in WEIRD]
    assert await admitted(provider, "", "\ufeff", *parts) == [False] * (2 + len(parts))


async def test_a_line_that_begins_with_a_number_sign_is_a_comment_and_its_key_stops(path: Path, clock: Clock) -> None:
    path.write_text("# of the website\nold\n  #never\n")
    provider = BearerKey((), plain(path, clock))
    assert await admitted(provider, "old", "# of the website", "#never", "never") == [True, False, False, False]
    path.write_text("# of the website\n#old\nnew\n")
    clock.now += CHECK_EVERY
    assert await admitted(provider, "old", "#old", "new") == [False, False, True]


def test_a_file_of_comments_alone_stops_the_start(path: Path) -> None:
    path.write_text("# keys come here\n")
    with pytest.raises(StartError, match=f"JIMS_API_KEY_FILE: {path} is empty"):
        configured({}, {"JIMS_API_KEY_FILE": str(path)})


def test_short_plain_keys_are_warned_of_and_not_shown(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(f"sesame\n{'f' * 15}\n{'g' * 16}\n")
    configured({"api_key": ("simsim", "é" * 16)}, {"JIMS_API_KEY_FILE": str(path)})
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("3 of 5 plain keys (--api-key, JIMS_API_KEY, JIMS_API_KEY_FILE) have fewer ")
    for secret in ("sesam", "simsim", "ffff"):
        assert secret not in caplog.text


def test_of_long_plain_keys_and_of_named_ones_nothing_is_said(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    KeysFile(path).add("one")
    configured({"api_key": "x" * 16, "keys_file": path})
    assert caplog.records == []


@pytest.mark.parametrize("key", [*WEIRD, "#hash"])
async def test_the_variable_is_one_key_whatever_it_holds(key: str) -> None:
    provider = configured({}, {"JIMS_API_KEY": f" {key}\n"})
    assert provider is not None
    parts = [part for part in re.split(r"[ ,;=]", key) if part != key]
    assert await admitted(provider, key, key + "x", *parts) == [True, False, *[False] * len(parts)]


async def test_flags_the_variable_and_both_files_are_valid_together(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("file-1\nfile-2\n")
    key, _ = KeysFile(tmp_path / "named").add("website")
    environ = {"JIMS_API_KEY": "variable", "JIMS_API_KEY_FILE": str(tmp_path / "plain")}
    provider = configured({"api_key": ("flag-1", "flag-2"), "keys_file": str(tmp_path / "named")}, environ)
    assert provider is not None
    tokens = ("flag-1", "flag-2", "variable", "file-1", "file-2", key)
    assert await admitted(provider, *tokens, "website", "other") == [True] * 6 + [False] * 2
    subjects = [(await identity(provider, token)).subject for token in tokens]
    assert subjects == ["key"] * 5 + ["key:website"]


async def test_a_plain_key_is_unbound_and_may_do_everything(path: Path, clock: Clock) -> None:
    path.write_text("file")
    provider = BearerKey((Secret("flag"),), plain(path, clock))
    for token in ("flag", "file"):
        assert await identity(provider, token) == Identity("key", contact_id=None, scopes=None)


async def test_a_named_key_has_its_scopes_and_its_contact(path: Path, clock: Clock) -> None:
    file = KeysFile(path)
    free, _ = file.add("free")
    chats, _ = file.add("chats", scopes=("chat",))
    blank, _ = file.add("blank", contact_id="", scopes=("chat", "threads"))
    provider = named(path, clock)
    assert await identity(provider, free) == Identity("key:free")
    assert await identity(provider, chats) == Identity("key:chats", scopes=frozenset({"chat"}))
    both = frozenset({"chat", "threads"})
    assert await identity(provider, blank) == Identity("key:blank", contact_id="", scopes=both)


async def test_every_request_with_a_key_gets_the_same_object_also_after_another_key_changed(
    path: Path, clock: Clock
) -> None:
    file = KeysFile(path)
    key, _ = file.add("one", scopes=("chat",))
    provider = named(path, clock)
    first = await identity(provider, key)
    assert await identity(provider, key) is first
    other, _ = file.add("two")
    clock.now += CHECK_EVERY
    assert (await identity(provider, other)).subject == "key:two"
    assert await identity(provider, key) is first
    held = BearerKey((Secret("k"),))
    assert await identity(held, "k") is await identity(held, "k")


async def test_a_revoked_key_stops_also_the_last_one(path: Path, clock: Clock) -> None:
    file = KeysFile(path)
    one, _ = file.add("one")
    two, _ = file.add("two")
    provider = named(path, clock)
    for name, expected in (("one", [False, True]), ("two", [False, False])):
        assert await admitted(provider, two) == [True]
        file.revoke(name)
        clock.now += CHECK_EVERY
        assert await admitted(provider, one, two) == expected


async def test_the_limits_of_a_key_change_with_the_file(path: Path, clock: Clock) -> None:
    key, _ = KeysFile(path).add("one")
    provider = named(path, clock)
    assert (await identity(provider, key)).scopes is None
    document = json.loads(path.read_text())
    document["keys"][0]["scopes"] = ["threads"]
    path.write_text(json.dumps(document))
    clock.now += CHECK_EVERY
    assert (await identity(provider, key)).scopes == frozenset({"threads"})


async def test_a_faulty_keys_file_revokes_nobody_and_limits_nobody_less(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    key, _ = KeysFile(path).add("one", scopes=("chat",))
    good = path.read_text()
    provider = named(path, clock)
    before = await identity(provider, key)
    path.write_text(good.replace('"scopes"', '"scope"'))
    for _ in range(3):
        clock.now += CHECK_EVERY
        assert await identity(provider, key) is before
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "jimsapi.key"
    assert f"--keys-file: {path}: it is not a keys file: " in record.getMessage()
    path.write_text('{"version": 1, "keys": []}')
    clock.now += CHECK_EVERY
    assert await admitted(provider, key) == [False]


async def test_a_key_is_refused_from_the_moment_at_which_it_expires(path: Path, clock: Clock) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    key, _ = KeysFile(path).add("one", expires=until)
    wall = Clock(until.timestamp() - 0.001)
    provider = named(path, clock, wall)
    assert await admitted(provider, key) == [True]
    wall.now = until.timestamp()
    with pytest.raises(InvalidCredentials, match="key:one has expired"):
        await provider.authenticate(connection(key))
    assert await admitted(provider, key, "other") == [False, False]


@pytest.mark.parametrize("token", ["", " ", "x", "jims_", "0" * 64, "é", "\xff", "x" * 100_000])
async def test_nobody_else_is_admitted_by_a_keys_file(path: Path, clock: Clock, token: str) -> None:
    _, entry = KeysFile(path).add("one")
    provider = named(path, clock)
    assert await admitted(provider, token, entry.sha256, entry.name) == [False, False, False]


async def test_a_keys_file_without_a_key_is_no_public_server(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    KeysFile(path).add("one")
    KeysFile(path).revoke("one")
    provider = configured({"keys_file": path})
    assert provider is not None
    assert await admitted(provider, "", "x") == [False, False]
    assert "HOLDS NO KEY" in caplog.text


def test_without_any_key_there_is_no_provider() -> None:
    assert configured({}) is None
    assert configured({"api_key": "", "keys_file": ""}, {"JIMS_API_KEY": " ", "JIMS_API_KEY_FILE": ""}) is None


def test_a_keys_file_that_is_not_there_stops_the_start_and_says_how_one_is_made(path: Path) -> None:
    with pytest.raises(StartError, match=rf"there is no {path}; `jimsapi keys new NAME --keys-file {path}` creates it"):
        configured({"keys_file": path})


def test_a_keys_file_that_cannot_be_reached_stops_the_start_and_says_why(path: Path) -> None:
    path.symlink_to(path.name)  # a link to itself
    with pytest.raises(StartError, match=rf"--keys-file: {path}: cannot be read \(Too many levels of symbolic links\)"):
        configured({"keys_file": path})


def test_plain_keys_given_as_a_keys_file_stop_the_start(path: Path) -> None:
    path.write_text("sesame\n")
    with pytest.raises(StartError, match=f"--keys-file: {path}: it is not a keys file") as refused:
        configured({"keys_file": path})
    assert "sesame" not in str(refused.value)


def test_a_keys_file_given_as_plain_keys_stops_the_start(path: Path) -> None:
    # Else each of its lines, a closing brace among them, would be a key.
    KeysFile(path).add("one")
    with pytest.raises(StartError, match=f"JIMS_API_KEY_FILE: {path}: it holds JSON, .* JIMS_KEYS_FILE"):
        configured({}, {"JIMS_API_KEY_FILE": str(path)})


async def test_a_keys_file_put_in_the_place_of_plain_keys_admits_no_brace(path: Path, clock: Clock) -> None:
    path.write_text("plain")
    provider = BearerKey((), plain(path, clock))
    path.unlink()
    KeysFile(path).add("one")
    clock.now += CHECK_EVERY
    assert await admitted(provider, "plain", "}", '"version": 1,') == [True, False, False]


@pytest.mark.parametrize(("mode", "may"), [(0o600, None), (0o640, None), (0o644, "read"), (0o602, "change")])
def test_a_keys_file_that_is_open_to_everybody_is_warned_of(
    path: Path, caplog: pytest.LogCaptureFixture, mode: int, may: str | None
) -> None:
    KeysFile(path).add("one")
    path.chmod(mode)
    configured({"keys_file": path})
    expected = [] if may is None else [f"--keys-file: everybody on this machine may {may} {path}; chmod 600 it"]
    assert [record.getMessage() for record in caplog.records] == expected


async def test_no_secret_is_in_what_is_shown_of_a_provider(path: Path, clock: Clock, tmp_path: Path) -> None:
    path.write_text("sesame")
    key, entry = KeysFile(tmp_path / "named").add("one")
    provider = BearerKey((Secret("simsim"),), plain(path, clock), holders(tmp_path / "named", clock))
    assert await admitted(provider, "simsim", "sesame", key) == [True, True, True]
    shown = repr((provider, vars(provider), await identity(provider, key)))
    for token in ("sesamy", "simsin", key + "x"):
        with pytest.raises(InvalidCredentials) as refused:
            await provider.authenticate(connection(token))
        shown += repr(refused.value)
    for secret in ("sesam", "simsim", key, entry.sha256):
        assert secret not in shown


async def test_a_key_that_was_admitted_admits_nobody_else_and_fills_no_memory() -> None:
    provider = BearerKey((Secret("simsim"),))
    spaced = [" " * number + "simsim" for number in range(10 * MOST_ADMITTED)]
    for _ in range(2):
        assert await admitted(provider, "simsim", *spaced) == [True] * (1 + len(spaced))
        assert await admitted(provider, "simsi", "simsimm", "Simsim", "simsim simsim") == [False] * 4
    assert len(provider._admitted) == MOST_ADMITTED


async def test_a_request_touches_no_file_and_leaves_no_object(
    path: Path, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("plain")
    key, _ = KeysFile(tmp_path / "named").add("one")
    provider = BearerKey((), plain(path, clock), holders(tmp_path / "named", clock))
    asked = connection(key)
    await provider.authenticate(asked)
    looks: list[Path] = []
    for watched in (provider._plain, provider._named):
        monkeypatch.setattr(watched, "_check", lambda: looks.append(path))
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(100):
        await provider.authenticate(asked)
    left = len(gc.get_objects()) - before
    assert looks == []
    assert left < 10
