"""`jimsapi keys`: what it prints, what it refuses, and that a server takes the keys that it made."""

import asyncio
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec import UNSET

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.builtin.keys_command import parse_expiry
from jimsapi.builtin.keys_file import KeysFile
from jimsapi.cli import main
from jimsapi.plugins.errors import StartError
from tests.command import ROOT, refusal, run_command
from tests.plugins.distributions import install
from tests.serving import Served

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def path(site: Path) -> Path:
    return site / "keys.json"


@pytest.fixture
def keys(path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `jimsapi keys …` on the file. Gives exit status, standard output and standard error."""

    def run(*arguments: str, named: bool = True) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exited:
            main(["keys", *arguments, *(["--keys-file", str(path)] if named else [])])
        shown = capsys.readouterr()
        assert isinstance(exited.value.code, int)
        return exited.value.code, shown.out, shown.err

    return run


def test_new_prints_the_key_alone_and_what_it_may_do_beside_it(keys: Run, path: Path) -> None:
    status, out, told = keys("new", "website", "--scope", "chat", "--contact", "ann", "--expires", "2099-12-31")
    assert status == 0
    assert out.startswith("jims_")
    assert out.count("\n") == 1
    assert len(out.split()) == 1
    assert 'website: chat only, contact "ann", expires 2099-12-31T00:00:00Z. ' in told
    assert out.strip() not in told
    [entry] = KeysFile(path).read()
    assert (entry.scopes, entry.contact_id) == (("chat",), "ann")


def test_new_says_where_the_key_is_if_standard_output_is_not_a_terminal(keys: Run) -> None:
    _, _, told = keys("new", "website")
    assert told.endswith(". Its key is written to standard output, and cannot be shown again.\n")


def test_new_announces_the_key_in_the_next_line_of_a_terminal(path: Path) -> None:
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "jimsapi", "keys", "new", "website", "--keys-file", str(path)]
    subprocess.run(command, cwd=ROOT, stdout=terminal, stderr=terminal, check=True, timeout=60)
    os.close(terminal)
    announced, key = os.read(controller, 4096).decode().splitlines()
    os.close(controller)
    assert announced.endswith(". This is its key, which cannot be shown again:")
    assert key.startswith("jims_")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ((), "all scopes, any contact, never expires"),
        (("--contact", ""), 'all scopes, contact "", never expires'),
        (("--contact", 'a "b"\nc'), r'all scopes, contact "a \"b\"\nc", never expires'),
        (("--scope", "threads"), "threads only, any contact, never expires"),
        (("--scope", "threads", "--scope", "chat"), "chat and threads only, any contact, never expires"),
    ],
)
def test_list_shows_each_key_s_limits_on_one_line_and_no_hash(
    keys: Run, path: Path, arguments: tuple[str, ...], shown: str
) -> None:
    made = keys("new", "one", *arguments)[1].strip()
    keys("new", "two")
    status, out, _ = keys("list")
    lines = out.splitlines()
    assert (status, len(lines)) == (0, 2)
    assert lines[0].startswith(f"one: {shown}, created 20")
    [one, _] = KeysFile(path).read()
    assert one.sha256 not in out
    assert made not in out


def test_list_marks_what_has_expired(keys: Run, path: Path) -> None:
    keys("new", "one", "--expires", "1h")
    text = path.read_text()
    [entry] = KeysFile(path).read()
    assert entry.expires is not UNSET
    path.write_text(text.replace(entry.expires.strftime("%Y-%m-%dT%H"), "2020-01-01T00"))
    assert keys("list")[1].endswith("(EXPIRED)\n")


def test_revoke_takes_one_key_out_and_the_name_is_free_again(keys: Run, path: Path) -> None:
    for name in ("one", "two"):
        keys("new", name)
    assert keys("revoke", "one")[:2] == (0, "")
    assert [key.name for key in KeysFile(path).read()] == ["two"]
    assert keys("new", "one")[0] == 0
    keys("revoke", "one")
    keys("revoke", "two")
    assert keys("list")[:2] == (0, "")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("new", "one"), "already has a key one; use another name, or revoke that key first"),
        (("new", "two words"), "'two words' is not a valid key name"),
        (("new", "x", "--expires", "2020-01-01"), "--expires: 2020-01-01 is in the past"),
        (("new", "x", "--expires", "0d"), "--expires: 0d is in the past"),
        (("new", "x", "--expires", "soon"), "'soon' is not a time; give 12h, 30d, 8w, or a date like 2027-01-31"),
        (("new", "x", "--expires", ""), "--expires: '' is not a time"),
        (("new", "x", "--expires", "999999999d"), "--expires: '999999999d' is not a time"),
        (("new", "x", "--contact", "a" * 2001), "--contact is not a valid contact_id"),
        (("revoke", "two"), "has no key two (there are: one)"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_1(
    keys: Run, path: Path, arguments: tuple[str, ...], fault: str
) -> None:
    keys("new", "one")
    before = path.read_bytes()
    status, out, told = keys(*arguments)
    assert (status, out) == (1, "")
    assert told.startswith("jimsapi: ")
    assert fault in told
    assert told.count("\n") == 1
    assert path.read_bytes() == before


def test_a_real_process_that_cannot_do_it_prints_one_line_too(site: Path) -> None:
    line = refusal(run_command("keys", "list", "--keys-file", "nowhere.json", cwd=site))
    assert "nowhere.json: No such file or directory" in line


def test_an_unknown_scope_is_wrong_usage(keys: Run, path: Path) -> None:
    status, _, told = keys("new", "x", "--scope", "admin")
    assert status == 2
    assert "'admin' is not one of 'chat', 'threads'" in told
    assert not path.exists()


DESK = """
    from jimsapi import *

    class DeskOptions(Options, prefix="desk"):
        place: str | None = option(help="Where it is.")

    @hookimpl
    def jimsapi_options():
        return DeskOptions

    @hookimpl
    def jimsapi_routes(router, service, settings):
        @router.get("/desk", scope="desk")
        async def desk(request):
            return JSONResponse({"subject": request.admission.identity.subject})

        if settings.get(DeskOptions).place:
            @router.get("/desk/place", scope="desk.place")
            async def place(request):
                return JSONResponse({})
"""
FAILS = """
    from jimsapi import *

    @hookimpl
    def jimsapi_routes(router, service):
        raise ValueError("no routes today")
"""


def test_a_key_with_the_scope_of_a_plugin_is_admitted_to_its_routes_and_to_no_others(
    keys: Run, path: Path, site: Path
) -> None:
    install(site, "acme-desk", DESK)
    status, key, told = keys("new", "clerk", "--scope", "desk")
    assert (status, told.splitlines()[0].startswith("clerk: desk only, ")) == (0, True), told
    asyncio.run(may_use_the_desk_alone(path, {"authorization": f"Bearer {key.strip()}"}))


async def may_use_the_desk_alone(path: Path, headers: dict[str, str]) -> None:
    async with TestClient(create_api(answer, store="memory:", keys_file=path), headers=headers) as client:
        assert (await client.get("/desk")).json() == {"subject": "key:clerk"}
        assert (await client.post("/api/v1/chat", json={"message": "hi"})).status_code == 403


async def answer(ctx: ThreadContext) -> None:
    ctx.send_message("yes")


def test_the_hook_of_a_plugin_that_needs_an_event_loop_shows_its_scopes(keys: Run, site: Path) -> None:
    needs_a_loop = DESK.replace("service, settings):\n", "service, settings):\n        asyncio.get_running_loop()\n", 1)
    install(site, "acme-desk", "\n    import asyncio" + needs_a_loop)
    status, _, told = keys("new", "clerk", "--scope", "desk")
    assert (status, told.startswith("clerk: desk only, ")) == (0, True), told


def test_an_unknown_scope_is_refused_with_the_scopes_of_the_plugins_that_are_loaded(
    keys: Run, path: Path, site: Path
) -> None:
    install(site, "acme-desk", DESK)
    status, _, told = keys("new", "x", "--scope", "dsk")
    assert status == 2
    assert "'dsk' is not one of 'chat', 'threads', 'desk' (of acme-desk). To grant a scope of a plugin, " in told
    assert not path.exists()


def test_a_scope_that_a_plugin_requires_only_with_an_option_is_known_with_that_option(
    keys: Run, path: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "acme-desk", DESK)
    assert keys("new", "x", "--scope", "desk.place")[0] == 2
    with pytest.raises(SystemExit) as exited:
        main(["--desk-place", "north", "keys", "new", "flag", "--scope", "desk.place", "--keys-file", str(path)])
    assert exited.value.code == 0
    monkeypatch.setenv("JIMS_DESK_PLACE", "north")
    assert keys("new", "variable", "--scope", "desk.place")[0] == 0


def test_beside_a_broken_plugin_other_scopes_are_granted_and_a_refusal_names_the_plugin(keys: Run, site: Path) -> None:
    install(site, "acme-broken", "import nowhere_at_all")
    install(site, "acme-desk", DESK)
    install(site, "acme-fails", FAILS)
    assert keys("new", "one", "--scope", "chat")[0] == 0
    assert keys("new", "two", "--scope", "desk", "--scope", "threads")[0] == 0
    status, _, told = keys("new", "three", "--scope", "fails")
    assert status == 2
    assert "'desk' (of acme-desk)" in told
    assert re.search("The scopes of a plugin are not known: .*acme-broken.*nowhere_at_all", told)
    assert re.search("The scopes of a plugin are not known: .*acme-fails.*no routes today", told)


def test_beside_an_invalid_option_our_own_scopes_are_granted_and_a_refusal_names_the_option(
    keys: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JIMS_MAX_RUNS", "many")
    assert keys("new", "one", "--scope", "chat")[0] == 0
    status, _, told = keys("new", "two", "--scope", "desk")
    assert status == 2
    assert "'desk' is not one of 'chat', 'threads'" in told
    assert "JIMS_MAX_RUNS" in told


def test_the_file_is_named_by_the_variable_or_before_the_command(
    keys: Run, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (("new", "x"), ("list",), ("revoke", "x")):
        status, _, told = keys(*command, named=False)
        assert (status, told) == (1, "jimsapi: name the keys file: --keys-file FILE, or JIMS_KEYS_FILE\n")
    with pytest.raises(SystemExit):
        main(["--keys-file", str(path), "keys", "new", "before"])
    monkeypatch.setenv("JIMS_KEYS_FILE", str(path))
    keys("new", "variable", named=False)
    other = path.with_name("other.json")
    with pytest.raises(SystemExit):
        main(["keys", "new", "flag", "--keys-file", str(other)])
    capsys.readouterr()
    assert [key.name for key in KeysFile(path).read()] == ["before", "variable"]
    assert [key.name for key in KeysFile(other).read()] == ["flag"]


def test_of_many_processes_that_make_keys_at_once_none_loses_another_s(path: Path) -> None:
    made = [
        subprocess.Popen(
            [sys.executable, "-m", "jimsapi", "keys", "new", f"key-{number}", "--keys-file", str(path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for number in range(6)
    ]
    shown = [process.communicate(timeout=60)[0] for process in made]
    assert {process.returncode for process in made} == {0}
    assert len(set(shown)) == 6
    assert {key.name for key in KeysFile(path).read()} == {f"key-{number}" for number in range(6)}


def test_a_server_takes_the_key_that_was_piped(site: Path, path: Path) -> None:
    key = run_command("keys", "new", "piped", "--contact", "", "--keys-file", str(path), cwd=site).stdout.strip()
    with Served("--keys-file", str(path)) as server, server.client() as client:
        client.headers["authorization"] = f"Bearer {key}"
        answer = client.post("/api/v1/chat", json={"message": "hi"})
        assert answer.status_code == 200
        thread = client.get(f"/api/v1/threads/{answer.json()['thread_id']}").json()
    assert thread["contact_id"] == ""


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine whose clock shows Tokyo's time."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12h", NOW + timedelta(hours=12)),
        ("30d", NOW + timedelta(days=30)),
        ("8w", NOW + timedelta(weeks=8)),
        ("2026-11-26", datetime(2026, 11, 26, tzinfo=UTC)),
        ("2026-11-25T12:00:01", NOW + timedelta(seconds=1)),
        ("2026-11-25T12:30+00:00", NOW + timedelta(minutes=30)),
        ("2026-11-25T13:30+01:00", NOW + timedelta(minutes=30)),
        ("2026-11-26T00:00Z", datetime(2026, 11, 26, tzinfo=UTC)),
    ],
)
def test_an_end_is_a_span_from_now_or_a_time_in_utc(tokyo: None, text: str, expected: datetime) -> None:
    assert parse_expiry(text, NOW) == expected


@pytest.mark.parametrize("text", ["2026-11-25", "2026-11-25T12:00Z", "2026-11-25T12:59+01:00", "0h", "١d", "-1d", "1m"])
def test_an_end_that_is_past_or_no_time_is_refused(text: str) -> None:
    with pytest.raises(StartError, match=r"--expires: .* is (in the past|not a time)"):
        parse_expiry(text, NOW)
