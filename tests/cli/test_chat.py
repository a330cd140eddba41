"""`jimsapi chat` without its extra: what is said to a real server, in a real terminal and through pipes."""

import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trustme

from jimsapi.builtin.keys_file import KeysFile
from jimsapi.cli.chat_command import chat_command
from jimsapi.cli.terminal import conversation
from jimsapi.cli.terminal.screen import Screen
from jimsapi.cli.terminal.text import clean, clean_line
from jimsapi.client import Delta, Event, Gap, Question
from tests.command import ROOT, refusal, run_command
from tests.serving import Served
from tests.terminal import PATIENCE, PlainTerminal, environment

KEY = "the-terminal-key"
CLEAR = "\r\x1b[K"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served("--app", "tests.apps.scripted:app") as server:
        yield server


def pipe(
    url: str, said: str, *options: str, before: Sequence[str] = (), **env: str
) -> subprocess.CompletedProcess[str]:
    """The command, with its input and its outputs in pipes; options `before` its name are those of the server."""
    return subprocess.run(
        [sys.executable, "-m", "jimsapi", *before, "chat", "--url", url, *options],
        input=said,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        env=environment(**env),
        cwd=ROOT,
        timeout=PATIENCE,
        check=False,
    )


# Through pipes.


def test_each_line_is_a_message_and_only_the_answers_are_written(served: Served) -> None:
    ran = pipe(served.url, "status Looking; stream Hel; stream lo\n\nsend one; send two\nsee\n", "--contact", "piped")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == ('Hello\none\ntwo\n["status Looking; stream Hel; stream lo", "send one; send two", "see"]\n')


def test_what_a_server_says_is_nothing_but_text(served: Served) -> None:
    evil = "stream \x1b[31mred\x07\x9b2J; stream \u202eback\b; status \x1b]0;title\x07; send \ttab"
    ran = pipe(served.url, f"{evil}\n", "--contact", "evil")
    assert ran.stdout == "[31mred2Jback\n\ttab\n"
    with PlainTerminal(
        served.url, "--contact", "evil", said=f"{evil}\nraise \x1b[2Jeverything\nsend done\n"
    ) as terminal:
        terminal.see("\ttab")
        terminal.see("Pipeline error: [2Jeverything: the server's log may have details")
        assert terminal.ends() == 1
    assert terminal.shown.count("\x1b") == terminal.shown.count(CLEAR) > 0
    assert not {"\x07", "\x9b", "\u202e", "\b"} & set(terminal.shown)


def test_a_message_that_is_not_answered_ends_it_with_one_line_that_says_what_to_do(served: Served) -> None:
    ran = pipe(served.url, "stream Hel; raise the roof\nsee\n", "--contact", "failing")
    assert (ran.returncode, ran.stdout) == (1, "Hel\n")
    assert ran.stderr == "500: Pipeline error: the roof: the server's log may have details\n"
    ran = pipe(served.url, "hi\n", "--thread", "0192b5f2-2c03-7b91-9c6c-9a1234567890")
    assert ran.returncode == 1
    assert ran.stderr.startswith("404: ")
    assert ran.stderr.endswith(": send it again, or check --thread and --url\n")


def test_a_new_thread_is_one_of_a_new_contact(served: Served) -> None:
    ran = pipe(served.url, "hi\n/new\nsee\n", "--contact", "renewed")
    first, told, seen = ran.stdout.splitlines()
    assert (first, seen) == ("You said: hi", '["see"]')
    assert told.startswith("A new thread begins, with you as renewed+")


def test_a_thread_that_is_named_goes_on(served: Served) -> None:
    with served.client() as client:
        begun = client.post("/api/v1/chat", json={"contact_id": "going", "message": "hi"}).json()
    ran = pipe(served.url, "see\n", "--contact", "going", "--thread", begun["thread_id"])
    assert ran.stdout == '["hi", "see"]\n'


def test_buttons_are_shown_and_invalid_utf_8_is_said_somehow(served: Served) -> None:
    assert pipe(served.url, "buttons Choose\n", "--contact", "pressing").stdout == "Choose\n[Yes]\n"
    assert pipe(served.url, "send \udcff\n", "--contact", "odd").stdout == "\ufffd\n"
    assert pipe(served.url, "send é\n", "--contact", "ascii", PYTHONIOENCODING="ascii").stdout == "??\n"


def test_a_question_is_answered_by_the_next_line_and_another_line_is_a_message(tmp_path: Path) -> None:
    with Served("--app", "tests.apps.asking:app", env={"PAID": str(tmp_path / "paid")}) as asking:
        done = pipe(asking.url, "20\nyes\nvery\n30\n40\nno\n")
    assert done.stdout.splitlines() == [
        "Pay 20? [yes] [no]",
        "Are you happy?",
        "R-20: very",
        "Pay 30? [yes] [no]",
        "Pay 40? [yes] [no]",
        "not paid",
    ]
    assert (tmp_path / "paid").read_text() == "20\n"


def test_questions_that_are_asked_at_the_same_time_are_shown_and_answered_one_after_another() -> None:
    with Served("--app", "tests.apps.asking:both") as asking:
        done = pipe(asking.url, "hi\nAnn\nBonn\n")
    assert done.stdout.splitlines() == ["Your name?", "Your city?", "Ann of Bonn"]


def test_after_a_question_that_was_closed_meanwhile_the_next_line_is_a_message(tmp_path: Path) -> None:
    with (
        Served("--app", "tests.apps.asking:app", env={"PAID": str(tmp_path / "paid")}) as asking,
        PlainTerminal(asking.url, "--contact", "ann") as terminal,
        asking.client() as client,
    ):
        terminal.see("> ")
        terminal.type("20\n")
        terminal.see("Pay 20? [yes] [no]")
        terminal.see("> ")
        client.post("/api/v1/chat", json={"contact_id": "ann", "message": "30"})
        terminal.type("yes\n")
        terminal.see("409: Question")
        terminal.see("> ")
        terminal.type("yes\n")
        terminal.see("Pay yes? [yes] [no]")


def test_a_form_is_answered_in_json() -> None:
    question = Question(question_id=UUID(int=1), key="k", text="Where?", schema={"type": "object"})
    assert conversation.answers_in('{"city": "Bonn"}', [question]) == {str(UUID(int=1)): {"city": "Bonn"}}
    assert conversation.answers_in("Bonn", [question]) is None
    assert conversation.answers_in("Bonn", []) is None


def test_who_says_no_name_is_the_login_name_or_the_contact_of_the_key(served: Served, tmp_path: Path) -> None:
    assert pipe(served.url, "see\nsee\n").stdout == '["see"]\n["see", "see"]\n'
    with served.client() as client:
        assert client.get("/api/v1/threads", params={"contact_id": "zoe"}).json()["threads"]
    keys = tmp_path / "keys.json"
    bound, _ = KeysFile(keys).add("website", contact_id="ann")
    with Served("--app", "tests.apps.scripted:app", "--keys-file", str(keys)) as server:
        ran = pipe(server.url, "see\n/new\nsee\n", JIMS_API_KEY=bound)
        first, told, second = ran.stdout.splitlines()
        assert (first, second) == ('["see"]', '["see", "see"]')
        assert "always continue your newest thread" in told
        ran = pipe(server.url, "see\n", "--contact", "bob", JIMS_API_KEY=bound)
        assert ran.stderr.endswith(": use another key, or another --contact\n")


def test_the_key_comes_from_a_flag_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"# of the test\n{KEY}\n")
    with Served("--app", "tests.apps.scripted:app", "--api-key", KEY) as server:
        ran = pipe(server.url, "hi\n")
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr.startswith("401: ")
        assert ran.stderr.endswith(": give the key with --api-key-file FILE, or in JIMS_API_KEY\n")
        for options, env in (
            (("--api-key", KEY), {}),
            (("--api-key-file", str(file)), {"JIMS_API_KEY": "another"}),
            ((), {"JIMS_API_KEY": KEY}),
            ((), {"JIMS_API_KEY_FILE": str(file)}),
        ):
            assert pipe(server.url, "hi\n", *options, **env).stdout == "You said: hi\n", (options, env)
        assert pipe(server.url, "hi\n", before=("--api-key", KEY)).stdout == "You said: hi\n"


def test_what_cannot_work_is_told_at_the_start(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        told = refusal(run_command("chat", "--url", f"http://127.0.0.1:{port}", cwd=ROOT))
        assert f"127.0.0.1:{port} does not answer" in told
        assert told.endswith(": start the server, or give its --url")
    assert "begins with http" in refusal(run_command("chat", "--url", "localhost", cwd=ROOT))
    assert "No such file" in refusal(run_command("chat", "--api-key-file", str(tmp_path / "none"), cwd=ROOT))
    (tmp_path / "empty").write_text("# nothing\n")
    assert "there is no key in" in refusal(run_command("chat", "--api-key-file", str(tmp_path / "empty"), cwd=ROOT))
    told = refusal(run_command("chat", "--api-key", "a\nsecret", cwd=ROOT))
    assert "secret" not in told


def test_who_reads_no_further_and_a_full_disk_end_it_without_a_traceback(served: Served) -> None:
    command = f"{sys.executable} -m jimsapi chat --url {served.url} --contact writing"
    for end, told in (("| head -c 1", ""), ("> /dev/full", "jimsapi: the conversation cannot continue: No space left")):
        ran = subprocess.run(
            ["sh", "-c", f"{command} {end}"],
            input="hi\n" * 20,
            capture_output=True,
            text=True,
            env=environment(),
            cwd=ROOT,
            timeout=PATIENCE,
            check=False,
        )
        assert "Traceback" not in ran.stderr
        assert ran.stderr.startswith(told)


def test_who_has_no_login_name_is_told_to_give_one(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr("sys.stdin", io.StringIO("hi\n"))
    with pytest.raises(SystemExit) as exited:
        chat_command().main(["--url", served.url])
    assert exited.value.code == 1
    assert capsys.readouterr().err == "422: body.contact_id: Field required: give your contact_id with --contact\n"


def test_a_certificate_of_ones_own_authority_is_trusted_by_name(tmp_path: Path) -> None:
    authority = trustme.CA()
    chain, root = tmp_path / "chain.pem", tmp_path / "root.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(chain))
    authority.cert_pem.write_to_path(str(root))
    with Served("--app", "tests.apps.scripted:app", "--ssl-certfile", str(chain)) as server:
        url = server.url.replace("http:", "https:")
        ran = pipe(url, "hi\n")
        assert ran.returncode == 1
        assert ran.stderr.endswith(" in SSL_CERT_FILE\n")
        assert pipe(url, "hi\n", SSL_CERT_FILE=str(root)).stdout == "You said: hi\n"


# In a terminal.


def test_a_status_gives_way_to_the_words_which_come_one_by_one(served: Served) -> None:
    with PlainTerminal(served.url, "--contact", "watching") as terminal, served.client() as client:
        terminal.see("Ctrl-C cancels an answer, Ctrl-D exits, /new begins a new thread.")
        terminal.see("> ")
        terminal.type("status Looking; status Found; stream Hel; hold door; stream lo\n")
        terminal.see(f"{CLEAR}Looking{CLEAR}{CLEAR}Found{CLEAR}Hel")
        client.post("/api/v1/chat", json={"contact_id": "opener", "message": "open door"})
        assert terminal.see("lo\r\n") == ""
        terminal.see("> ")
        terminal.type("\x04")
        assert terminal.ends() == 0


def test_what_an_agent_does_is_a_status(served: Served) -> None:
    with PlainTerminal(served.url, "--contact", "agent") as terminal:
        terminal.see("> ")
        terminal.type("think They ask; tool search; send Hello\n")
        terminal.see(f"{CLEAR}Thinking{CLEAR}{CLEAR}Tool: search{CLEAR}{CLEAR}Tool: search{CLEAR}Hello\r\n")
        terminal.see("> ")
        terminal.type("\x04")
        assert terminal.ends() == 0


def test_ctrl_c_cancels_the_answer_and_the_conversation_goes_on(served: Served) -> None:
    with PlainTerminal(served.url, "--contact", "cancelling") as terminal:
        terminal.see("> ")
        terminal.type("status Waiting; hold nothing\n")
        terminal.see(f"{CLEAR}Waiting")
        terminal.type("\x03")
        terminal.see("(cancelled)\r\n")
        terminal.see("> ")
        terminal.type("see\n")
        terminal.see('["status Waiting; hold nothing", "see"]\r\n')
    with served.client() as client:
        [thread] = client.get("/api/v1/threads", params={"contact_id": "cancelling"}).json()["threads"]
        events = client.get(f"/api/v1/threads/{thread['thread_id']}/events").json()["events"]
    assert [event["event_type"] for event in events].count("comm.assistant_message") == 1


def test_a_second_ctrl_c_leaves_though_the_server_does_not_answer() -> None:
    with (
        Served("--app", "tests.apps.scripted:app") as server,
        PlainTerminal(server.url, "--contact", "ann") as terminal,
    ):
        terminal.see("> ")
        terminal.type("status Waiting; hold nothing\n")
        terminal.see(f"{CLEAR}Waiting")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            terminal.type("\x03")
            terminal.see("Cancelling; Ctrl-C again exits.")
            terminal.type("\x03")
            assert terminal.ends() == 130
        finally:
            server.stop(signal.SIGKILL)  # which a stopped process heeds too
        assert "Traceback" not in terminal.shown


def test_ctrl_c_leaves_the_prompt_when_it_is_pressed_again(served: Served) -> None:
    with PlainTerminal(served.url) as terminal:
        terminal.see("> ")
        terminal.type("half a mess")
        terminal.see("half a mess")
        terminal.interrupt_prompt("Ctrl-C again exits.")
        terminal.see("Ctrl-C again exits.")
        terminal.see("> ")
        terminal.interrupt_prompt()
        assert terminal.ends() == 130
        assert "Traceback" not in terminal.shown


# The screen.


class Paper(io.StringIO):
    """A terminal on which can be looked up what was written."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> Paper:
    monkeypatch.setenv("COLUMNS", "10")
    monkeypatch.setenv("TERM", "xterm")
    return Paper()


def test_a_status_takes_one_line_of_the_terminal(paper: Paper) -> None:
    screen = Screen(paper)
    screen.status("one\ntwo three")
    screen.status("広い文字です")
    assert paper.getvalue() == f"{CLEAR}one two t{CLEAR}{CLEAR}広い文字"


def test_a_status_does_not_go_into_a_text(paper: Paper) -> None:
    screen = Screen(paper)
    screen.write("Hel")
    screen.status("Looking")
    screen.write("lo\n")
    screen.line("next")
    assert paper.getvalue() == f"Hel\n{CLEAR}Looking{CLEAR}lo\nnext\n"


def test_a_dumb_terminal_is_shown_no_status(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    Screen(paper).status("Looking")
    assert paper.getvalue() == ""


@pytest.mark.parametrize("code", [*range(32), 127, *range(128, 160), 0x202E, 0x2066, 0x061C])
def test_no_control_character_is_left(code: int) -> None:
    kept = chr(code) if chr(code) in "\n\t" else ""
    assert clean(f"a{chr(code)}b") == f"a{kept}b"
    assert clean_line(f"a {chr(code)} b") == "a b"


def test_text_of_every_script_is_left_as_it_is() -> None:
    text = "é עברית 日本語 👩‍👩‍👧 \u2028"
    assert clean(text) == text


def test_a_message_with_a_gap_in_it_is_shown_whole_by_its_event(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    message_id = UUID(int=1)
    data: dict[str, Any] = {"role": "assistant", "content": "Hello"}

    class Told:
        def stream(self, *_: object, **__: object) -> Iterator[Any]:
            yield Delta(message_id=message_id, content="Hel")
            yield Gap(missed=1)
            yield Event(event_id=message_id, event_type="comm.assistant_message", event_data=data)

    told: Any = Told()
    conversation.Answer(told, Screen(paper), "hi", None, None).show()
    assert paper.getvalue() == "Hel\nHello\n"
