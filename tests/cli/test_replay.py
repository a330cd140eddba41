"""`jimsapi replay`: what it prints and writes, its exit statuses, and that it stores nothing."""

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from uuid import UUID

import orjson
import pytest

from jimsapi.cli.replay_text import difference_lines
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.errors import PipelineFailed
from jimsapi.runs.replay import Answer, ReplayedTurn
from jimsapi.stores.sqlite import SQLiteStore
from jimsapi.threads.event import NewEvent
from jimsapi.threads.ids import uuid7
from tests.apps.scripted import Scripted
from tests.command import python_path, run_command
from tests.plugins.distributions import install
from tests.runs.serving import inbound, serving
from tests.serving import Served

OLD = "tests.apps.scripted:app"
STORE = ("--store", "sqlite:///jims.db")

NEW = """
from jimsapi import JimsApp
from tests.apps.scripted import Scripted


class Changed(Scripted):
    async def do(self, ctx, command, argument):
        await super().do(ctx, command, argument.replace("quokka", "numbat"))


app = JimsApp(Changed())
"""

HOSTILE = "\x1b[31mred\x07 \u202eright <script>alert(1)</script> <b>&amp;</b> ü \x9b2J"


def talk(folder: Path, *messages: str, contact: str = "ann") -> str:
    """Let the scripted bot answer messages of a contact. Returns the identifier of the thread."""

    async def chat() -> UUID:
        async with serving(Scripted(), SQLiteStore(folder / "jims.db", durability="relaxed")) as service:
            for message in messages:
                try:
                    result = await service.chat(inbound(message, contact, metadata={"sent": message}), PUBLIC)
                except PipelineFailed:
                    continue
            return result.thread_id

    return str(asyncio.run(chat()))


@pytest.fixture
def folder(site: Path) -> Path:
    (site / "new.py").write_text(NEW)
    return site


def replay(folder: Path, *arguments: str, app: str = OLD, **env: str) -> subprocess.CompletedProcess[str]:
    return run_command("replay", *STORE, "--app", app, *arguments, cwd=folder, env=env)


def failure(ran: subprocess.CompletedProcess[str]) -> str:
    """The one line with which a replay could not run. Fails if it ran."""
    assert (ran.returncode, ran.stdout) == (2, ""), (ran.returncode, ran.stdout, ran.stderr)
    [line] = ran.stderr.splitlines()
    assert line.startswith("jimsapi: ")
    return line


def turn_lines(output: str) -> list[tuple[str, str, str]]:
    """The lines of turns: conversation, number and result."""
    return re.findall(r"^(\S+) +(\d+)  (same|changed) ", output, re.MULTILINE)


def everything(path: Path) -> list[str]:
    """What a database has, as SQL."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


# The result and the exit status


def test_an_app_that_answers_as_before_exits_with_0(folder: Path) -> None:
    thread = talk(folder, "use 40; tool look; send a quokka", "send bye")
    ran = replay(folder, thread)
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert re.fullmatch(rf"{thread} +1  same +41 → 41 +tokens +\d+\.\d\d → \d+\.\d\d s", lines[0])
    assert re.fullmatch(rf"{thread} +2  same +0 → 0 +tokens +\d+\.\d\d → \d+\.\d\d s", lines[1])
    assert lines[2:4] == ["", "2 turns of 1 conversation: 0 changed, 2 the same"]
    assert re.fullmatch(r"41 → 41 tokens, \d+\.\d\d → \d+\.\d\d s", lines[4])
    assert len(lines) == 5


def test_an_app_that_answers_differently_exits_with_1_and_the_differences_are_shown(folder: Path) -> None:
    thread = talk(folder, "tool look; source A quokka; send a quokka", "send a mug")
    ran = replay(folder, thread, app="new")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert turn_lines(ran.stdout) == [(thread, "1", "changed"), (thread, "2", "same")]
    assert ran.stdout.splitlines()[2:-1] == [
        "",
        f"{thread} 1",
        "  > tool look; source A quokka; send a quokka",
        '    tool: look {} returned "look"',
        "  - source: A quokka",
        "  - message: a quokka",
        "  + source: A numbat",
        "  + message: a numbat",
        "",
        "2 turns of 1 conversation: 1 changed, 1 the same",
    ]


def test_several_threads_and_all_threads_of_a_contact_are_replayed_in_order(folder: Path) -> None:
    ann, ben = talk(folder, "send a", "send b"), talk(folder, "send c", contact="ben")
    assert [line[:2] for line in turn_lines(replay(folder, ben, ann).stdout)] == [(ben, "1"), (ann, "1"), (ann, "2")]
    assert [line[:2] for line in turn_lines(replay(folder, "--contact-id", "ann").stdout)] == [(ann, "1"), (ann, "2")]
    both = replay(folder, ben, "--contact-id", "ann")
    assert [line[:2] for line in turn_lines(both.stdout)] == [(ben, "1"), (ann, "1"), (ann, "2")]
    assert "3 turns of 2 conversations: 0 changed, 3 the same" in both.stdout


def test_turns_limits_the_replay_to_the_newest_turns(folder: Path) -> None:
    ann, ben = talk(folder, "send a", "send b", "send c"), talk(folder, "send d", contact="ben")
    for most, expected in (("1", [(ann, "3")]), ("3", [(ann, "1"), (ann, "2"), (ann, "3")]), ("9", 4)):
        found = [line[:2] for line in turn_lines(replay(folder, ann, ben, "--turns", most).stdout)]
        assert (found if isinstance(expected, list) else len(found)) == expected


def test_fifty_turns_are_replayed_each_with_the_events_before_its_message(folder: Path) -> None:
    thread = talk(folder, *["see" if number % 5 == 0 else f"send {number}" for number in range(50)])
    assert len(turn_lines(replay(folder, thread).stdout)) == 50
    assert replay(folder, thread).returncode == 0
    limited = replay(folder, thread, "--context-events", "1")
    assert limited.returncode == 1
    assert {int(number) for _, number, result in turn_lines(limited.stdout) if result == "changed"} == {
        number + 1 for number in range(5, 50, 5)
    }


def test_ignored_events_are_no_change(folder: Path) -> None:
    thread = talk(folder, 'own rag.step {"n": "quokka"}; think quokka; send a')
    assert replay(folder, thread, app="new").returncode == 1
    assert replay(folder, thread, "--ignore", "rag.*", app="new").returncode == 1
    assert replay(folder, thread, "--ignore", "rag.*", "--ignore", "model.reasoning", app="new").returncode == 0


def test_the_pipeline_gets_metadata_configuration_and_resources(folder: Path) -> None:
    (folder / "curious.py").write_text("""
from contextlib import asynccontextmanager
from jimsapi import JimsApp

@asynccontextmanager
async def lifespan():
    yield "a client"

async def answer(ctx):
    ctx.send_message(f"{ctx.metadata} {ctx.thread_config} {ctx.contact_id} {ctx.resources}")

app = JimsApp(answer, lifespan=lifespan)
""")
    ran = replay(folder, talk(folder, "send a"), app="curious")
    assert "  + message: {'sent': 'send a'} {'interface': 'api'} ann a client\n" in ran.stdout


# Pipelines that fail


BROKEN = """
import asyncio
import time

async def app(ctx):
    word = ctx.get_last_user_message()
    if "raise" in word:
        raise LookupError("no such animal")
    if "hang" in word:
        await asyncio.Event().wait()
    while "stubborn" in word:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
    ctx.send_message(word.removeprefix("send "))

def blocking(ctx):
    time.sleep(60)
"""


@pytest.mark.parametrize("word", ["raise", "hang", "stubborn"])
def test_a_pipeline_that_fails_is_a_change_and_the_replay_goes_on(word: str, folder: Path) -> None:
    (folder / "broken.py").write_text(BROKEN)
    thread = talk(folder, f"send {word}", "send b")
    ran = replay(folder, thread, "--run-timeout", "1", app="broken")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert [result for _, _, result in turn_lines(ran.stdout)] == ["changed", "same"]
    error = "LookupError: no such animal" if word == "raise" else "The pipeline did not answer within 1 seconds"
    assert f"  - message: {word}\n  + error: {error}\n" in ran.stdout


def test_a_plain_function_that_blocks_does_not_keep_the_command_from_ending(folder: Path) -> None:
    (folder / "blocks.py").write_text(BROKEN + "\nfrom jimsapi import JimsApp\napp = JimsApp(blocking)\n")
    ran = replay(folder, talk(folder, "send a"), "--run-timeout", "0.2", app="blocks")
    assert ran.returncode == 1
    assert "did not answer within 0.2 seconds" in ran.stdout


def test_verbose_shows_the_traceback_of_a_failed_pipeline(folder: Path) -> None:
    (folder / "broken.py").write_text(BROKEN)
    thread = talk(folder, "send raise")
    assert "Traceback" not in replay(folder, thread, app="broken").stderr
    shown = replay(folder, thread, "--verbose", app="broken").stderr
    assert 'raise LookupError("no such animal")' in shown


def test_a_turn_that_failed_the_first_time_has_no_stored_answer(folder: Path) -> None:
    thread = talk(folder, "use 3; raise no", "send b")
    (folder / "calm.py").write_text("async def app(ctx):\n    ctx.send_message('b')\n")
    ran = replay(folder, thread, app="calm")
    assert [result for _, _, result in turn_lines(ran.stdout)] == ["changed", "same"]
    assert f"{thread} 1\n  > use 3; raise no\n  + message: b\n" in ran.stdout


# What cannot be replayed


def test_without_threads_or_with_arguments_that_do_not_fit_it_is_wrong_usage(folder: Path) -> None:
    thread = talk(folder, "send a")
    for arguments, message in (
        ([], "Name a thread by its identifier, a file of a conversation, or --contact-id."),
        (["--save", "a.json", thread, thread], "--save writes one conversation"),
        (["--save", "a.json", "--contact-id", "ann"], "--save writes one conversation"),
        (["--turns", "0", thread], "0 is not in the range"),
        (["--html", "missing/a.html", thread], "there is no folder missing"),
        (["--save", "missing/a.json", thread], "there is no folder missing"),
        (["--html", ".", thread], "is a directory"),
    ):
        ran = replay(folder, *arguments)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert message in ran.stderr


def test_an_unknown_thread_contact_and_file_are_named(folder: Path) -> None:
    thread = talk(folder, "send a")
    unknown = str(UUID(int=7))
    assert f"there is no thread {unknown} in sqlite:///" in failure(replay(folder, thread, unknown))
    assert "the contact 'zoe' has no threads in sqlite:///" in failure(replay(folder, "--contact-id", "zoe"))
    message = failure(replay(folder, "threads.json"))
    assert "threads.json is not the identifier of a thread, and as a file it cannot be read: No such file" in message
    (folder / "threads.json").write_text("[]")
    assert "threads.json is not a conversation" in failure(replay(folder, "threads.json"))


def test_a_thread_without_messages_is_nothing_to_replay(folder: Path) -> None:
    (folder / "empty.json").write_text('{"events": []}')
    assert "there is nothing to replay" in failure(replay(folder, "empty.json"))


def test_a_database_that_does_not_exist_is_refused_and_not_created(folder: Path) -> None:
    assert f"there is no database sqlite:///{folder}/jims.db" in failure(replay(folder, str(UUID(int=7))))
    assert not [path.name for path in folder.iterdir() if path.name.startswith("jims.db")]


def test_a_database_that_a_server_has_open_is_refused_with_two_ways_out_which_work(folder: Path) -> None:
    with Served("--app", OLD, *STORE, folder=folder) as served, served.client() as client:
        answer = client.post("/api/v1/chat", json={"contact_id": "ann", "message": "send a quokka"}).json()
        thread = answer["thread_id"]
        message = failure(replay(folder, thread))
        (folder / "thread.json").write_bytes(client.get(f"/api/v1/threads/{thread}/events?limit=1000").content)
        with closing(sqlite3.connect("jims.db")) as source, closing(sqlite3.connect("copy.db")) as copy:
            source.backup(copy)
        from_file = replay(folder, "thread.json")
        from_copy = replay(folder, thread, "--store", "sqlite:///copy.db")
    assert f"it is locked by process {served.pid}; stop that server" in message
    assert ".backup copy.db" in message
    assert "GET /api/v1/threads/ID/events?limit=1000" in message
    assert (from_file.returncode, turn_lines(from_file.stdout)) == (0, [("thread.json", "1", "same")])
    assert (from_copy.returncode, turn_lines(from_copy.stdout)) == (0, [(thread, "1", "same")])


@pytest.mark.parametrize(
    ("app", "message"),
    [
        ("nowhere", "--app nowhere"),
        ("website", "jimsapi.asgi.App, which has no pipeline"),
        ("failing", "the app's lifespan failed: OSError: no route"),
        ("exiting", "SystemExit"),
    ],
)
def test_an_app_that_cannot_be_opened_is_refused(app: str, message: str, folder: Path) -> None:
    (folder / "website.py").write_text("from jimsapi import App\napp = App()\n")
    lifespan = "from contextlib import asynccontextmanager\nfrom jimsapi import JimsApp\n\n@asynccontextmanager\n"
    for name, fault in (("failing", "OSError('no route')"), ("exiting", "SystemExit(0)")):
        (folder / f"{name}.py").write_text(
            f"{lifespan}async def lifespan():\n    raise {fault}\n    yield\n\n"
            "async def answer(ctx): pass\n\napp = JimsApp(answer, lifespan=lifespan)\n"
        )
    assert message in failure(replay(folder, talk(folder, "send a"), app=app))


def test_a_broken_plugin_is_refused(folder: Path) -> None:
    thread = talk(folder, "send a")
    install(folder, "acme-broken", "raise OSError('no disk')")
    assert "acme-broken" in failure(replay(folder, thread))


# Nothing is stored or opened


def test_the_database_is_the_same_before_and_after(folder: Path) -> None:
    thread = talk(folder, 'own state.set.plan {"n": "quokka"}; send a quokka', "raise no", "send b")
    before = everything(folder / "jims.db")
    assert replay(folder, thread, app="new").returncode == 1
    assert everything(folder / "jims.db") == before
    assert any("quokka" in line for line in before)


PARTS = """
from contextlib import asynccontextmanager
from jimsapi import hookimpl

class Part:
    name = "part"
    async def deliver(self, events): print("delivered")
    async def authenticate(self, connection): return None

def opened(what, value):
    @asynccontextmanager
    async def manager():
        print("opened", what)
        yield value
        print("closed", what)
    return manager()

def wrap(pipeline, name):
    async def wrapped(ctx):
        print("wrapped", name)
        await pipeline(ctx)
    return wrapped

@hookimpl
def jimsapi_event_sink(): return opened("sink", Part())

@hookimpl
def jimsapi_auth_provider(): return opened("provider", Part())

@hookimpl
def jimsapi_pipeline_wrapper(): return opened("wrapper", wrap)
"""


def test_wrappers_of_pipelines_are_used_and_sinks_and_providers_are_not_opened(folder: Path) -> None:
    thread = talk(folder, "send a")
    install(folder, "acme-parts", PARTS)
    ran = replay(folder, thread)
    assert ran.returncode == 0, ran.stderr
    lines = [line for line in ran.stdout.splitlines() if line and not line[0].isdigit()]
    assert lines == ["opened wrapper", "wrapped scripted", "closed wrapper"]


# Files


def test_a_saved_conversation_is_replayed_without_the_store(folder: Path) -> None:
    thread = talk(folder, "metadata", "send a quokka")
    saved = replay(folder, thread, "--save", "saved.json")
    assert saved.returncode == 0
    assert orjson.loads((folder / "saved.json").read_bytes())["thread_id"] == thread
    (folder / "jims.db").unlink()
    again = replay(folder, "saved.json", app="new")
    assert (again.returncode, again.stderr) == (1, "")
    assert turn_lines(again.stdout) == [("saved.json", "1", "same"), ("saved.json", "2", "changed")]
    assert not (folder / "jims.db").exists()


def test_a_file_that_cannot_be_written_is_an_error(folder: Path) -> None:
    thread = talk(folder, "send a")
    Path(folder, "full.html").symlink_to("/dev/full")
    ran = replay(folder, thread, "--html", "full.html")
    assert (ran.returncode, ran.stderr) == (2, "jimsapi: full.html cannot be written: No space left on device\n")


class Page(HTMLParser):
    """The elements and the texts of a page. Fails if an element is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self._in_cell = False
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)
        if tag in ("td", "p"):
            self.cells.append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        self._in_cell = self._in_cell and tag not in ("td", "p")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += data


def html_page(folder: Path, *arguments: str, app: str = "new") -> tuple[str, Page]:
    replay(folder, *arguments, "--html", "page.html", app=app)
    text = (folder / "page.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_the_page_has_all_turns_and_the_differences_of_changed_ones(folder: Path) -> None:
    thread = talk(folder, "use 3; send a quokka", "send a mug")
    _, page = html_page(folder, thread)
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a" and "href" in attributes]
    targets = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert (set(links), targets) == ({"#turn-0"}, ["turn-0"])
    assert [tag for tag, _ in page.elements].count("nav") == 1
    assert "2 turns of 1 conversation: 1 changed, 1 the same" in page.cells
    assert {"message: a quokka", "message: a numbat", "send a mug", "4 → 4"} <= set(page.cells)
    assert ("del", {}) in page.elements
    assert ("ins", {}) in page.elements


def test_the_page_of_unchanged_turns_has_no_differences(folder: Path) -> None:
    _, page = html_page(folder, talk(folder, "send a"), app=OLD)
    assert "section" not in [tag for tag, _ in page.elements]


def test_hostile_text_is_harmless_in_the_terminal_and_on_the_page(folder: Path) -> None:
    message = f'send quokka {HOSTILE}; own rag.\x9b2J {{"quokka": "<script>"}}; tool <script>quokka'
    thread = talk(folder, message, contact='<img src=x onerror="alert(1)">')
    ran = replay(folder, thread, app="new")
    assert "<script>alert(1)</script>" in ran.stdout
    shown = {character for character in ran.stdout if not character.isprintable()} - {"\n"}
    assert shown == set()
    html, page = html_page(folder, thread)
    assert {tag for tag, _ in page.elements} == {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "code", "p", "span", "nav", "section",
        "table", "tr", "th", "td", "a", "del", "ins",
    }  # fmt: skip
    assert {name for _, attributes in page.elements for name in attributes} == {
        "lang", "charset", "http-equiv", "content", "name", "id", "class", "href", "title", "colspan",
    }  # fmt: skip
    assert {character for character in html if not character.isprintable()} == {"\n"}
    assert any("<script>alert(1)</script>" in cell for cell in page.cells)


def test_the_page_loads_nothing_and_runs_nothing(folder: Path) -> None:
    html, page = html_page(folder, talk(folder, "send a quokka"))
    policy = [attributes["content"] for _, attributes in page.elements if attributes.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert not re.search(r"https?:|url\(|@import|src=", html)


def test_text_that_jims_core_stored_with_a_lone_surrogate_is_shown(folder: Path) -> None:
    thread = talk(folder, "send a quokka")
    with closing(sqlite3.connect(folder / "jims.db")) as connection, connection:
        data = r'{"role": "assistant", "content": "a \ud800 quokka", "score": NaN}'
        connection.execute(
            "UPDATE thread_events SET event_data = ? WHERE event_type = 'comm.assistant_message'", (data,)
        )
    ran = replay(folder, thread, "--html", "page.html", "--save", "saved.json", app="new")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "  - message: a ? quokka\n" in ran.stdout
    assert "message: a ? quokka" in Page((folder / "page.html").read_text(encoding="utf-8")).cells
    assert replay(folder, "saved.json", app="new").returncode == 1


def test_the_lines_of_a_difference_can_always_be_written() -> None:
    old = Answer((NewEvent(uuid7(), "rag.\ud800", b'{"text": "\\ud800"}'),))
    lines = difference_lines(ReplayedTurn("thread", 1, "\ud800", old, Answer(())))
    assert "\n".join(lines).encode().decode() == 'thread 1\n  > ?\n  - event: rag.? {"text": "?"}'


# The terminal


def on_terminal(folder: Path, *arguments: str, **env: str) -> str:
    """What the command writes to a terminal."""
    near, far = os.openpty()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JIMS_")}
    with subprocess.Popen(
        [sys.executable, "-m", "jimsapi", "replay", *STORE, "--app", "new", *arguments],
        cwd=folder,
        env={**clean, "PYTHONPATH": python_path(folder), "TERM": "xterm", "PYTHONUTF8": "1", **env},
        stdin=subprocess.DEVNULL,
        stdout=far,
        stderr=far,
    ) as process:
        os.close(far)
        written = b""
        while part := _read(near):
            written += part
        assert process.wait(20) == 1
    os.close(near)
    return written.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the other end was closed
        return b""


@pytest.mark.parametrize(
    ("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)], ids=str
)
def test_colours_are_for_terminals_that_want_them(env: dict[str, str], coloured: bool, folder: Path) -> None:
    thread = talk(folder, "send a quokka")
    shown = on_terminal(folder, thread, **env)
    assert ("\x1b[" in shown) is coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", shown).count("message: a quokka") == 1
    assert "\x1b" not in replay(folder, thread, app="new").stdout


def test_hostile_text_cannot_add_to_the_colours(folder: Path) -> None:
    thread = talk(folder, f"send quokka {HOSTILE}")
    shown = on_terminal(folder, thread)
    assert set(re.findall(r"\x1b\[[0-9;]*.", shown)) <= {f"\x1b[{code}m" for code in (0, 1, 31, 32, 33)}
    assert "\x07" not in shown


def test_an_encoding_without_arrows_is_no_error(folder: Path) -> None:
    thread = talk(folder, "send ä")
    ran = run_command(
        "replay", *STORE, "--app", OLD, thread, cwd=folder, env={"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "1 turn of 1 conversation" in ran.stdout


def test_help_explains_the_arguments_and_the_exit_statuses(folder: Path) -> None:
    shown = " ".join(run_command("replay", "--help", cwd=folder).stdout.split())
    for part in ("[THREAD]...", "--contact-id", "--turns", "--ignore", "--html", "--save", "0 if no turn has changed"):
        assert part in shown


def test_options_before_the_name_of_the_command_count(folder: Path) -> None:
    thread = talk(folder, "send a")
    ran = run_command(*STORE, "--app", OLD, "replay", thread, cwd=folder)
    assert ran.returncode == 0, ran.stderr
