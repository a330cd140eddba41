"""`jimsapi chat` with its extra: what a person sees and types in a real terminal, with a real server."""

import io
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jimsapi.builtin.keys_file import KeysFile
from jimsapi.cli.terminal.blocks import MAX_BLOCK, Blocks
from jimsapi.cli.terminal.conversation import answers_in
from jimsapi.cli.terminal.history import MAX_BYTES, MAX_ENTRY, HistoryFile
from jimsapi.cli.terminal.rich_screen import RichScreen
from jimsapi.client import Question
from tests.clients.cutting import CuttingProxy
from tests.serving import ROOT, Served
from tests.terminal import COLUMNS, ROWS, PlainTerminal, RichTerminal, environment

PROMPT = ">"
BEGIN = "Ctrl-C cancels an answer, Ctrl-D exits, /help lists the rest."
HINT = "For Markdown, colours, multi-line input and lists of threads, install jimsapi[chat]."
ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served("--app", "tests.apps.scripted:app") as server:
        yield server


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Served]:
    with Served("--app", "tests.apps.asking:app", env={"PAID": str(tmp_path / "paid")}) as server:
        yield server


@pytest.fixture
def terminal(served: Served, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RichTerminal]:
    """A conversation of a contact with the name of the test."""
    with RichTerminal(served.url, tmp_path, "--contact", request.node.name) as terminal:
        terminal.wait_for_rows(BEGIN, PROMPT)
        yield terminal


def open_door(served: Served, door: str) -> None:
    """Let the pipeline that holds at a door go on."""
    with served.client() as client:
        client.post("/api/v1/chat", json={"contact_id": "opener", "message": f"open {door}"}).raise_for_status()


# Messages.


def test_an_answer_is_shown_as_markdown(terminal: RichTerminal) -> None:
    terminal.say("send # Animals\n\nThe **quokka** likes:\n- leaves\n- grass\n\n`ls <b>`")
    terminal.wait_for_rows("The quokka likes:", "", " • leaves", " • grass", "", "ls <b>", PROMPT)
    assert terminal.is_bold("quokka")
    assert not terminal.is_bold("likes")


def test_a_block_is_plain_text_until_it_is_complete(served: Served, terminal: RichTerminal) -> None:
    terminal.say("stream One *quick*\n\n**Hel; hold plain; stream lo**")
    terminal.wait_for_rows("One quick", "**Hel")
    open_door(served, "plain")
    terminal.wait_for_rows("One quick", "", "Hello", PROMPT)
    assert terminal.is_bold("Hello")


def test_a_block_that_is_higher_than_the_terminal_is_shown_whole_and_once(terminal: RichTerminal) -> None:
    words = [f"word{number:03}" for number in range(400)]
    script = "; ".join(f"stream {word} " for word in words)
    terminal.say(script)
    terminal.wait_for_rows(" ".join(words[-8:]), PROMPT)
    lines = terminal.lines
    script_end = max(number for number, line in enumerate(lines) if ";" in line)
    assert " ".join(lines[script_end + 1 :]).split()[:-1] == words


def test_a_status_is_below_the_block_and_goes_when_the_block_grows(served: Served, terminal: RichTerminal) -> None:
    terminal.say("stream Hel; status Looking; hold status; stream lo; hold growing")
    terminal.wait_for_rows("Hel", "Looking")
    open_door(served, "status")
    terminal.wait_for_rows("Hello")
    open_door(served, "growing")
    terminal.wait_for_rows("Hello", PROMPT)


def test_a_tool_is_one_dim_line_with_its_name_and_duration(served: Served, terminal: RichTerminal) -> None:
    terminal.say("stream Hel; begin search; hold tool; end search; stream lo")
    terminal.wait_for_rows("Hel", "Tool: search")
    open_door(served, "tool")
    terminal.see("\x1b[2mTool: search, ")
    terminal.see("Hello")
    terminal.wait_for_prompt()
    shown = [row for row in terminal.rows if row.startswith("Tool")]
    assert len(shown) == 1
    assert re.fullmatch(r"Tool: search, [0-9.]+ m?s", shown[0])


def test_escapes_and_direction_marks_do_not_reach_the_terminal_as_entities_either(terminal: RichTerminal) -> None:
    evil = [
        "&#27;[31mred",
        "&#x9b;2J",
        "&#x202e;back&#8294;",
        "[a&#x202e;b](http://x/&#x202e;)",
        "`&#27;`",
        "```&#x202e;py\n&#27;]0;title&#7;\n```",
        "![i&#x202e;](http://x/&#27;)",
        "<http://x/&#x202e;>",
        "| &#x202e; |\n|---|\n| &#27; |",
        "\x1b[31m\u202e\x9b\x07",
    ]
    before = len(terminal.shown)
    terminal.type("send ")
    terminal.say("\n\n".join(part for part in evil if "\x1b" not in part))
    terminal.wait_for_prompt()
    terminal.say("done")
    terminal.see("You said: done")
    shown = terminal.shown[before:]
    assert not {"\u202e", "\u2066", "\x9b", "\x07"} & set(shown)
    paper = Paper()
    screen = RichScreen(paper)
    for part in evil:
        screen.write(part)
        screen.end_line()
        screen.note(part)
        screen.choices(part, [part], 1)
    shown = ESCAPE.sub("", paper.getvalue())
    assert not {"\x1b", "\u202e", "\u2066", "\x9b", "\x07"} & set(shown)
    assert "31m" in shown


def test_links_show_where_they_lead_and_images_too(terminal: RichTerminal) -> None:
    terminal.say("send [here](http://a.example) ![cat](http://b.example)")
    terminal.wait_for_rows("here (http://a.example) !cat (http://b.example)", PROMPT)


# What a person types.


def test_several_lines_are_one_message(terminal: RichTerminal) -> None:
    terminal.type("two\x1b\rlines\r")
    terminal.see("You said: two lines")
    terminal.say("see")
    terminal.see('["two\\nlines", "see"]')


def test_pasted_lines_are_one_message_and_are_not_sent_at_once(terminal: RichTerminal) -> None:
    terminal.paste("one\ntwo\n")
    terminal.wait_for_rows("> one", "  two")
    terminal.type("three\r")
    terminal.wait_for_prompt()
    terminal.say("see")
    terminal.see('["one\\ntwo\\nthree", "see"]')


def test_what_is_typed_during_an_answer_is_kept_for_the_prompt(served: Served, terminal: RichTerminal) -> None:
    terminal.say("stream Hel; hold typing; stream lo")
    terminal.wait_for_rows("Hel")
    terminal.see("hold typing")
    terminal.see("Hel")
    terminal.type("send Next\rhalf")
    open_door(served, "typing")
    assert "Next" not in terminal.see("Hello")
    terminal.wait_for_rows("Hello", "> send Next", "Next", "> half")


def test_ctrl_c_cancels_the_answer_and_the_conversation_goes_on_until_ctrl_d(terminal: RichTerminal) -> None:
    terminal.say("stream Half; hold nothing")
    terminal.wait_for_rows("Half")
    terminal.type("\x03")
    terminal.wait_for_rows("Half", "(cancelled)", PROMPT)
    terminal.say("send More")
    terminal.wait_for_rows("More", PROMPT)
    terminal.type("\x04")
    assert terminal.ends() == 0


def test_ctrl_c_at_the_prompt_drops_the_line_and_exits_when_it_is_pressed_again(terminal: RichTerminal) -> None:
    terminal.type("half a mess")
    terminal.see("half a mess")
    terminal.type("\x03")
    terminal.wait_for_rows("Ctrl-C again exits.", PROMPT)
    terminal.type("\x03")
    assert terminal.ends() == 130
    assert "Traceback" not in terminal.shown


# Choices.


def test_a_button_is_chosen_by_its_number(terminal: RichTerminal) -> None:
    terminal.say("buttons Choose")
    terminal.wait_for_rows("Choose", "  1. Yes", PROMPT)
    terminal.say("1")
    terminal.wait_for_rows("> 1", "Yes", "You said: Yes", PROMPT)
    terminal.say("1")
    terminal.wait_for_rows("> 1", "You said: 1", PROMPT)


def test_a_question_is_answered_by_number_or_by_word(asking: Served, tmp_path: Path) -> None:
    with RichTerminal(asking.url, tmp_path, "--contact", "ann") as terminal:
        terminal.wait_for_prompt()
        terminal.say("20")
        terminal.wait_for_rows("Pay 20?", "  1. yes", "  2. no", PROMPT)
        terminal.say("1")
        terminal.wait_for_rows("Are you happy?", PROMPT)
        terminal.say("very")
        terminal.wait_for_rows("R-20: very", PROMPT)
        terminal.say("30")
        terminal.wait_for_rows("Pay 30?", "  1. yes", "  2. no", PROMPT)
        terminal.say("no")
        terminal.wait_for_rows("not paid", PROMPT)
    assert (tmp_path / "paid").read_text() == "20\n"


def test_a_line_of_5000_digits_is_a_message(terminal: RichTerminal) -> None:
    terminal.say("buttons Choose")
    terminal.see("1. ")
    terminal.wait_for_prompt()
    terminal.say("1" * 5000)
    terminal.see("You said:\r\n1111")
    terminal.wait_for_prompt()
    terminal.say(f"/switch {'1' * 5000}")
    terminal.see("/switch needs the number")
    terminal.wait_for_prompt()
    terminal.type("\x04")
    assert terminal.ends() == 0


def test_an_answer_in_json_that_is_nested_too_deeply_is_a_message() -> None:
    question = Question(question_id=UUID(int=1), key="k", text="Where?", schema={"type": "object"})
    assert answers_in("[" * 100_000, [question]) is None
    assert answers_in("1" * 5000, [question]) is None


# Commands.


def test_help_lists_keys_and_commands_and_a_second_slash_sends_one(terminal: RichTerminal) -> None:
    terminal.say("/help")
    terminal.see("Alt-Enter")
    for command in ("/new", "/threads", "/switch", "//help"):
        terminal.see(command)
    terminal.say("//help")
    terminal.see("You said: /help")
    terminal.say("// a remark")
    terminal.see("You said: // a remark")
    terminal.say("/unknown")
    terminal.see("You said: /unknown")


def test_threads_are_listed_and_switched(terminal: RichTerminal, served: Served) -> None:
    terminal.say("/threads")
    terminal.see("There are no threads.")
    terminal.say("send First")
    terminal.see("First\r\n")
    terminal.say("/new")
    terminal.see("A new thread begins, with you as ")
    terminal.say("send Second")
    terminal.see("Second\r\n")
    terminal.say("/threads")
    terminal.see("*  1. send Second, ")
    terminal.see("   2. send First, ")
    terminal.say("/switch 3")
    terminal.see("/switch needs the number of a thread")
    terminal.say("/switch 2")
    terminal.see("Your messages continue this thread: send First")
    terminal.say("see")
    terminal.see('["send First", "see"]')
    terminal.say("/threads")
    terminal.see("*  1. send First, ")
    terminal.see("   2. send Second, ")


def test_without_a_contact_the_threads_are_those_of_the_login_name(served: Served, tmp_path: Path) -> None:
    with RichTerminal(served.url, tmp_path, LOGNAME="lena") as terminal:
        terminal.wait_for_prompt()
        terminal.say("/threads")
        terminal.see("There are no threads.")
        terminal.say("send Mine")
        terminal.see("Mine\r\n")
        terminal.say("/threads")
        terminal.see("*  1. send Mine, ")


def test_a_key_that_may_not_list_threads_gets_an_error_and_the_conversation_goes_on(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    key, _ = KeysFile(keys).add("website", contact_id="ann", scopes=("chat",))
    with (
        Served("--app", "tests.apps.scripted:app", "--keys-file", str(keys)) as server,
        RichTerminal(server.url, tmp_path, JIMS_API_KEY=key) as terminal,
    ):
        terminal.wait_for_prompt()
        terminal.say("/threads")
        terminal.see("403: ")
        terminal.say("send Hello")
        terminal.see("Hello\r\n")


# A connection that breaks.


class Absence(CuttingProxy):
    """A way to a server that breaks, and is not there again before `back` is set."""

    def __init__(self, port: int, mark: bytes) -> None:
        super().__init__(port, mark)
        self.back = Event()

    def finish_request(self, request: Any, client_address: object) -> None:
        if self.cut.is_set():
            self.back.wait()
        super().finish_request(request, client_address)


def test_while_the_connection_is_lost_one_word_says_so_and_the_answer_goes_on(served: Served, tmp_path: Path) -> None:
    with (
        Absence(served.port, b"world") as way,
        RichTerminal(way.url, tmp_path, "--contact", "cut") as terminal,
    ):
        terminal.wait_for_prompt()
        terminal.say("stream Hello ; stream world; status Later; hold end; stream !")
        terminal.wait_for_rows("Hello", "reconnecting…")
        way.back.set()
        terminal.wait_for_rows("Hello world", "Later")
        open_door(served, "end")
        terminal.wait_for_rows("Hello world!", PROMPT)
        assert terminal.shown.count("reconnecting…") == 1


# The history.


def test_earlier_messages_are_found_in_the_next_conversation(served: Served, tmp_path: Path) -> None:
    for message in ("send One", "send Two\nlines"):
        with RichTerminal(served.url, tmp_path, "--contact", "keeping") as terminal:
            terminal.wait_for_prompt()
            terminal.say(message)
            terminal.wait_for_prompt()
            terminal.type("\x04")
            assert terminal.ends() == 0
    file = tmp_path / "jimsapi" / "chat_history"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    with RichTerminal(served.url, tmp_path, "--contact", "keeping") as terminal:
        terminal.wait_for_prompt()
        terminal.type("\x1b[A")
        terminal.wait_for_rows("> send Two", "  lines")
        terminal.type("\x1b[A\x1b[A")
        terminal.wait_for_rows("> send One")


@pytest.mark.parametrize(("options", "env"), [(["--no-history"], {}), ([], {"JIMS_CHAT_HISTORY": "off"})])
def test_no_history_is_kept_for_a_person_who_says_so(
    served: Served, tmp_path: Path, options: list[str], env: dict[str, str]
) -> None:
    with RichTerminal(served.url, tmp_path, *options, **env) as terminal:
        terminal.wait_for_prompt()
        terminal.say("send Secret")
        terminal.see("Secret\r\n")
        terminal.type("\x1b[A")
        terminal.see("send Secret")
    assert list(tmp_path.iterdir()) == []


def test_a_history_that_cannot_be_kept_does_not_stop_the_conversation(served: Served, tmp_path: Path) -> None:
    (tmp_path / "jimsapi").write_text("not a folder")
    with RichTerminal(served.url, tmp_path, "--contact", "hindered") as terminal:
        terminal.see("Your messages are not kept for the next chat: ")
        terminal.wait_for_prompt()
        terminal.say("send Hello")
        terminal.see("Hello\r\n")


def test_a_history_has_at_most_so_many_bytes_and_keeps_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "state" / "history"
    history = HistoryFile(path)
    for number in range(300):
        history.append(f"{number} {'é' * 1000}")
        assert path.stat().st_size <= MAX_BYTES
    kept = history.read()
    assert kept[-1].startswith("299 ")
    assert 20 < len(kept) < 50
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["history"]
    history.append("x" * MAX_ENTRY)
    assert history.read() == kept


def test_a_history_of_any_size_and_content_is_read_and_becomes_private(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(b"x" * MAX_BYTES + b'\n[1]\n"\xff"\n\n' + b"[" * 5000 + b'\n"good"\n')
    path.chmod(0o644)
    assert HistoryFile(path).read() == ["good"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# The work that an answer costs.


class Paper(io.StringIO):
    """A terminal on which can be looked up what was written."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "text", ["word " * 4000, "- item\n" * 3000, f"```py\n{'x = 1' * 1500}\n" + "y = 2\n" * 1500, "a" * 20_000]
)
def test_the_output_grows_with_the_length_of_a_message_and_not_faster(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setenv("LINES", str(ROWS))
    monkeypatch.setenv("NO_COLOR", "1")
    paper = Paper()
    screen = RichScreen(paper)
    for start in range(0, len(text), 2):
        screen.write(text[start : start + 2])
    screen.end_line()
    assert len(paper.getvalue()) < 20 * len(text)


@given(
    st.lists(st.sampled_from(["- a", "1. b", "  c", "    d", "```", "~~~py", "# e", "| f |", "> g", "---", "", "h"]))
)
def test_blocks_have_all_of_a_text_however_it_arrives(lines: list[str]) -> None:
    text = "\n".join(lines)
    whole = Blocks()
    blocks = [*whole.feed(text), *whole.end()]
    pieces = Blocks()
    assert [block for piece in text for block in pieces.feed(piece)] + list(pieces.end()) == blocks
    assert "\n".join(block.text for block in blocks).split() == text.split()


def test_a_long_block_is_split_and_its_code_stays_code() -> None:
    blocks = Blocks()
    code = "x = 1\n" * 5000
    found = [*blocks.feed(f"```py\n{code}```\nafter"), *blocks.end()]
    assert all(len(block.text) <= MAX_BLOCK + len("```py\n```\n") for block in found)
    *parts, after = found
    assert after.text == "after"
    assert len(parts) > 3
    assert all(part.text.startswith("```py\n") for part in parts)
    assert sum(part.text.count("x = 1") for part in parts) == 5000


@settings(deadline=None)
@example("&#x202e; `&#x202e;` [a&#x202e;](b)")
@given(st.text(st.sampled_from("*_`[]()<>!|-+#&;~>\\\n \t1.a\u202e\x1b\u4e16"), max_size=200))
def test_no_text_stops_the_screen_or_leaves_control_characters_on_it(text: str) -> None:
    paper = Paper()
    screen = RichScreen(paper)
    screen.write(text)
    screen.end_line()
    assert not {"\x1b", "\u202e"} & set(ESCAPE.sub("", paper.getvalue()))


# What is loaded.


def test_without_the_extra_one_line_says_how_to_get_it(served: Served) -> None:
    with PlainTerminal(served.url, "--contact", "plain") as terminal:
        terminal.see(HINT)
        terminal.see("> ")
        terminal.type("send **Hello**\n")
        terminal.see("**Hello**\r\n")
        terminal.see("> ")
        terminal.type("\x04")
        assert terminal.ends() == 0
        assert terminal.shown.count(HINT) == 1


@pytest.mark.parametrize("terminal_for", ["nothing", "output"])
def test_through_pipes_nothing_of_the_extra_is_loaded(served: Served, terminal_for: str) -> None:
    # Of rich, httpx loads some modules if rich is installed, for its own command.
    code = (
        "import sys\n"
        "from jimsapi.cli import main\n"
        "try: main()\n"
        "finally: print({'rich.markdown', 'markdown_it', 'prompt_toolkit'} & set(sys.modules), file=sys.stderr)\n"
    )
    near, far = os.openpty()
    ran = subprocess.run(
        [sys.executable, "-c", code, "chat", "--url", served.url, "--contact", "light"],
        input="send **Hello**\n",
        stdout=far if terminal_for == "output" else subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=ROOT,
        timeout=30,
        check=True,
    )
    os.close(far)
    if terminal_for == "output":
        assert os.read(near, 100) == b"**Hello**\r\n"
    else:
        assert ran.stdout == "**Hello**\n"
    os.close(near)
    assert ran.stderr == "set()\n"


def test_a_server_that_answers_has_loaded_nothing_of_the_extra(tmp_path: Path) -> None:
    (tmp_path / "loaded.py").write_text(
        "import sys\n"
        "from jimsapi import JimsApp, ThreadContext\n"
        "EXTRA = {'rich', 'prompt_toolkit', 'markdown_it', 'jimsapi.cli.terminal'}\n"
        "async def answer(ctx: ThreadContext) -> None:\n"
        "    ctx.send_message(str(EXTRA & set(sys.modules)))\n"
        "app = JimsApp(answer)\n"
    )
    with Served("--app", "loaded:app", folder=tmp_path) as server, server.client() as client:
        answer = client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"}).json()
    assert answer["assistant_messages"] == ["set()"]


def test_a_file_of_the_history_holds_json_strings(tmp_path: Path) -> None:
    history = HistoryFile(tmp_path / "history")
    history.append("two\nlines \udcff")
    assert json.loads((tmp_path / "history").read_text()) == "two\nlines \udcff"
