"""`jimsapi runs`, `threads` and `contacts list`: what they print, with and without a server, and when they refuse."""

import asyncio
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from jimsapi.cli import runs
from jimsapi.plugins import StartError
from jimsapi.stores.sqlite import SQLiteStore
from jimsapi.testing.store import OWNER, completed, make_event, make_plan
from jimsapi.threads.facts import ForkPlan, Rating, ThreadChange
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ById, FailureKind, New, Outcome, RunStatus
from tests.command import answer_command, python_path, refusal, run_command
from tests.serving import Served

STORE = ("--store", "sqlite:///jims.db")
KEY = "a-key-that-is-long-enough"
UNKNOWN = "01a2243a-c689-7f77-89dd-cd783bd233ef"
RED = "\x1b[31mred\u202e\x9b\x7f"


def command(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return run_command(*arguments, *STORE, cwd=folder, env=env)


def printed(folder: Path, *arguments: str) -> str:
    """What a command prints that succeeds and has nothing to say beside it."""
    ran = command(folder, *arguments)
    assert (ran.returncode, ran.stderr) == (0, "")
    if "--json" in arguments:
        assert re.fullmatch("[ -~\n]*", ran.stdout), "a stored character could act on a terminal"
    return ran.stdout


def objects(text: str) -> list[Any]:
    return [orjson.loads(line) for line in text.splitlines()]


class Stored:
    """The database of a folder: two runs of `ann` in one thread, one waiting run of `bob`, and one run of "" ."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        asyncio.run(self._store())

    async def _store(self) -> None:
        async with SQLiteStore(self.folder / "jims.db", durability="relaxed") as store:
            done = make_plan(text="Hello")
            self.thread_id = (await store.accept(done)).thread.thread_id
            answer, step = make_event(data={"role": "assistant", "content": RED}), make_event("rag.step", [1])
            await store.finish(done.run_id, OWNER, completed(step, answer))
            await store.rate(self.thread_id, None, answer.event_id, Rating(-1, "too short"))
            await store.change_thread(self.thread_id, None, ThreadChange(RED, metadata=b'{"stars":5}'))
            failed = make_plan(text="More", selectors=(ById(self.thread_id),))
            await store.accept(failed)
            error = f"Pipeline error: {RED}"
            await store.finish(
                failed.run_id, OWNER, Outcome(RunStatus.FAILED, error=error, failure=FailureKind.PIPELINE)
            )
            waiting, other = make_plan("bob"), make_plan("", selectors=(New(),))
            await store.accept(waiting)
            await store.accept(other)
            self.run_ids = [plan.run_id for plan in (done, failed, waiting, other)]

    @property
    def done(self) -> UUID:
        return self.run_ids[0]

    @property
    def failed(self) -> UUID:
        return self.run_ids[1]

    @property
    def running(self) -> UUID:
        return self.run_ids[2]


@pytest.fixture
def stored(site: Path) -> Stored:
    return Stored(site)


@pytest.fixture
def served(site: Path) -> Iterator[Served]:
    """A server with a database and a key, beside which commands run."""
    with Served("--app", "tests.apps.scripted:app", *STORE, folder=site, env={"JIMS_API_KEY": KEY}) as served:
        yield served


def client_of(served: Served) -> httpx.Client:
    return served.client(headers={"authorization": f"Bearer {KEY}"})


# Runs


def test_runs_are_listed_newest_first_in_columns(stored: Stored, site: Path) -> None:
    head, *lines = printed(site, "runs", "list").splitlines()
    assert head.split() == ["RUN", "STATUS", "ACCEPTED", "SECONDS", "THREAD", "CONTACT"]
    cells = [line.split() for line in lines]
    assert [(UUID(one[0]), one[1]) for one in cells] == list(
        zip(reversed(stored.run_ids), ["running", "running", "failed", "completed"], strict=True)
    )
    assert [one[4] for one in cells[2:]] == [str(stored.thread_id)] * 2
    assert [one[5:] for one in cells] == [[], ["bob"], ["ann"], ["ann"]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), [3, 2, 1, 0]),
        (("--status", "failed"), [1]),
        (("--status", "failed", "--status", "completed"), [1, 0]),
        (("--contact-id", "ann"), [1, 0]),
        (("--contact-id", ""), [3]),
        (("--thread-id", "THREAD"), [1, 0]),
    ],
)
def test_runs_are_listed_as_lines_of_json(
    stored: Stored, site: Path, options: tuple[str, ...], expected: list[int]
) -> None:
    given = [str(stored.thread_id) if option == "THREAD" else option for option in options]
    listed = objects(printed(site, "runs", "list", "--json", *given))
    assert [run["run_id"] for run in listed] == [str(stored.run_ids[number]) for number in expected]


def test_a_list_that_is_cut_says_so(stored: Stored, site: Path) -> None:
    for arguments in (("runs", "list"), ("contacts", "list")):
        ran = command(site, *arguments, "--json", "--limit", "1")
        assert (ran.returncode, len(ran.stdout.splitlines())) == (0, 1)
        assert "raise --limit" in ran.stderr
    all_of_them = command(site, "runs", "list", "--json", "--limit", "4")
    assert (len(all_of_them.stdout.splitlines()), all_of_them.stderr) == (4, "")


def test_a_list_of_nothing_is_no_failure_and_an_unknown_thread_is(stored: Stored, site: Path) -> None:
    for arguments in (("runs", "list", "--status", "cancelled"), ("threads", "list", "cid")):
        ran = command(site, *arguments)
        assert (ran.returncode, ran.stdout) == (0, "")
        assert "there are no" in ran.stderr
    line = refusal(command(site, "runs", "list", "--thread-id", UNKNOWN))
    assert line == f"jimsapi: there is no thread {UNKNOWN} in sqlite:///{site / 'jims.db'}"


def test_the_state_of_a_run_is_shown(stored: Stored, site: Path) -> None:
    fields = dict(line.split(maxsplit=1) for line in printed(site, "runs", "show", str(stored.failed)).splitlines())
    assert (fields["run"], fields["thread"]) == (str(stored.failed), str(stored.thread_id))
    assert (fields["status"], fields["failure"]) == ("failed", "pipeline")
    assert fields["error"] == "Pipeline error: [31mred"
    done = orjson.loads(printed(site, "runs", "show", str(stored.done), "--json"))
    assert (done["contact_id"], done["failure"], done["result"]["assistant_messages"]) == ("ann", None, [RED])
    line = refusal(command(site, "runs", "show", UNKNOWN))
    assert line == f"jimsapi: there is no run {UNKNOWN} in sqlite:///{site / 'jims.db'}"


def test_a_run_without_a_server_is_cancelled_in_the_store(stored: Stored, site: Path) -> None:
    where = f"sqlite:///{site / 'jims.db'}"
    assert printed(site, "runs", "cancel", str(stored.running)) == f"cancelled the run {stored.running} in {where}\n"
    [run] = objects(printed(site, "runs", "list", "--json", "--contact-id", "bob"))
    assert run["status"] == "cancelled"
    line = refusal(command(site, "runs", "cancel", str(stored.running)))
    assert line == f"jimsapi: the run {stored.running} has ended: it is cancelled"
    assert refusal(command(site, "runs", "cancel", UNKNOWN)) == f"jimsapi: there is no run {UNKNOWN} in {where}"


def test_a_run_beside_a_server_is_listed_and_cancelled_through_it(served: Served, site: Path) -> None:
    (site / "key").write_text(f"{KEY}\n", encoding="utf-8")
    with client_of(served) as client:
        begun = client.post("/api/v1/runs", json={"contact_id": "ann", "message": "hold x; send a"}).json()
        [listed] = objects(printed(site, "runs", "list", "--json"))
        assert listed == client.get("/api/v1/runs", params={"contact_id": "ann"}).json()["runs"][0]
        assert (listed["run_id"], listed["finished_at"]) == (begun["run_id"], None)
        line = refusal(command(site, "runs", "cancel", begun["run_id"]))
        assert f"it is locked by process {served.pid}" in line
        assert "give its --url" in line
        refused = refusal(command(site, "runs", "cancel", begun["run_id"], "--url", served.url))
        assert refused == f"jimsapi: {served.url}: 401: Unauthorized"
        ran = command(site, "runs", "cancel", begun["run_id"], "--url", served.url, "--api-key-file", "key")
        assert (ran.returncode, ran.stdout) == (0, f"cancelled the run {begun['run_id']} at {served.url}\n")
        assert client.get(f"/api/v1/runs/{begun['run_id']}").json()["status"] == "cancelled"
        url = ("--url", served.url)
        for again in (
            command(site, "runs", "cancel", begun["run_id"], *url, JIMS_API_KEY=KEY),
            command(site, "runs", "cancel", begun["run_id"], *url, "--api-key", KEY),
        ):
            assert "409: Run" in refusal(again)


def test_a_server_that_does_not_answer_is_named(site: Path) -> None:
    with Served(folder=site) as served:
        url = served.url
    assert refusal(command(site, "runs", "cancel", UNKNOWN, "--url", url)).startswith(
        f"jimsapi: {url}: The server does"
    )
    assert "This is not a URL" in refusal(command(site, "runs", "cancel", UNKNOWN, "--url", "http://a:b"))


# Threads and contacts


def test_threads_are_listed_with_their_titles(stored: Stored, site: Path) -> None:
    async def fork() -> None:
        async with SQLiteStore(site / "jims.db", durability="relaxed") as store:
            await store.fork(ForkPlan(thread_id=uuid7(), parent_id=stored.thread_id, acting_for=None))

    asyncio.run(fork())
    head, of_fork, of_parent = printed(site, "threads", "list", "ann").splitlines()
    assert head.split() == ["THREAD", "CREATED", "ACTIVE", "ARCHIVED", "TITLE"]
    assert of_parent.split()[0] == str(stored.thread_id)
    assert [line.split(maxsplit=4)[4] for line in (of_fork, of_parent)] == ["Hello", "[31mred"]
    listed = objects(printed(site, "threads", "list", "ann", "--json"))
    assert [(thread["title"], thread["metadata"]) for thread in listed] == [
        ("Hello", {"stars": 5}),
        (RED, {"stars": 5}),
    ]
    [of_nobody] = objects(printed(site, "threads", "list", "", "--json"))
    assert of_nobody["contact_id"] == ""


def test_a_thread_is_shown_with_its_newest_events(stored: Stored, site: Path) -> None:
    lines = printed(site, "threads", "show", str(stored.thread_id)).splitlines()
    fields, events = lines[:11], [line.split(maxsplit=2)[1:] for line in lines[11:]]
    assert dict(line.split(maxsplit=1) for line in fields)["metadata"] == '{"stars":5}'
    assert events == [
        ["jims.lifecycle.thread_created", "{}"],
        ["comm.user_message", "Hello"],
        ["rag.step", "[1]"],
        ["comm.assistant_message", "[31mred"],
        ["comm.user_message", "More"],
    ]
    shown = orjson.loads(printed(site, "threads", "show", str(stored.thread_id), "--json", "--events", "2"))
    assert [event["event_data"]["content"] for event in shown["events"]] == [RED, "More"]
    assert shown["contact_id"] == "ann"
    assert "there is no thread" in refusal(command(site, "threads", "show", UNKNOWN))


def test_an_exported_thread_has_everything_and_can_be_replayed(stored: Stored, site: Path) -> None:
    said = printed(site, "threads", "export", str(stored.thread_id), "--output", "thread.json")
    assert said == f"thread.json: 5 events of the thread {stored.thread_id}\n"
    assert (site / "thread.json").stat().st_mode & 0o777 == 0o600
    file = orjson.loads((site / "thread.json").read_bytes())
    assert (file["thread_id"], file["contact_id"], file["title"]) == (str(stored.thread_id), "ann", RED)
    assert (file["metadata"], file["thread_config"]) == ({"stars": 5}, {"interface": "api"})
    assert [event["event_type"] for event in file["events"]][2:4] == ["rag.step", "comm.assistant_message"]
    assert [(given["rating"], given["comment"]) for given in file["feedback"]] == [(-1, "too short")]
    replayed = run_command("replay", "thread.json", "--app", "tests.apps.scripted:app", cwd=site)
    assert replayed.returncode == 1, replayed.stderr
    assert "2 turns of 1 conversation" in replayed.stdout


def test_an_export_replaces_a_file_only_with_force(stored: Stored, site: Path) -> None:
    (site / "thread.json").write_text("precious")
    export = ("threads", "export", str(stored.thread_id), "--output", "thread.json")
    assert refusal(command(site, *export)).startswith("jimsapi: thread.json exists;")
    assert (site / "thread.json").read_text() == "precious"
    assert command(site, *export, "--force").returncode == 0
    assert len(orjson.loads((site / "thread.json").read_bytes())["events"]) == 5
    assert "there is no thread" in refusal(command(site, "threads", "export", UNKNOWN, "--output", "none.json"))
    assert not [path for path in site.iterdir() if "none" in path.name]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_export_that_a_signal_ends_leaves_nothing_of_a_conversation(number: int, tmp_path: Path) -> None:
    program = (
        "import os, pathlib; from jimsapi.cli.output_file import new_file\n"
        "with new_file(pathlib.Path('thread.json'), force=False) as file:\n"
        "    file.write(b'a conversation')\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (128 + number, b"")
    assert list(tmp_path.iterdir()) == []


def test_a_thread_is_deleted_with_its_runs(stored: Stored, site: Path) -> None:
    delete = ("threads", "delete", str(stored.thread_id))
    ran = command(site, *delete)
    assert ran.returncode == 2
    assert "give --yes" in ran.stderr
    where = f"sqlite:///{site / 'jims.db'}"
    said = f"deleted the thread {stored.thread_id} of the contact 'ann' from {where}\n"
    assert printed(site, *delete, "--yes") == said
    assert refusal(command(site, *delete, "--yes")) == f"jimsapi: there is no thread {stored.thread_id} in {where}"
    assert "ann" not in printed(site, "runs", "list")


@pytest.mark.parametrize(("answer", "deletes"), [("y", True), ("n", False)])
def test_a_deletion_asks_on_a_terminal(stored: Stored, site: Path, answer: str, deletes: bool) -> None:
    status, output = answer_command("threads", "delete", str(stored.thread_id), *STORE, answer=answer, cwd=site)
    assert f"Delete the thread {stored.thread_id} of the contact 'ann' from sqlite:///" in output
    assert (status == 0) is deletes
    assert bool(command(site, "threads", "list", "ann").stdout) is not deletes


def test_commands_that_write_name_the_route_of_a_server_and_those_that_read_work(served: Served, site: Path) -> None:
    with client_of(served) as client:
        said = client.post("/api/v1/chat", json={"contact_id": "ann", "message": "send hi"}).json()
        thread_id = said["thread_id"]
        line = refusal(command(site, "threads", "delete", thread_id, "--yes"))
        assert f"it is locked by process {served.pid}" in line
        assert "DELETE /api/v1/threads/{id}" in line
        assert (
            objects(printed(site, "threads", "list", "ann", "--json"))[0]
            == client.get(f"/api/v1/threads/{thread_id}").json()
        )
        contacts = objects(printed(site, "contacts", "list", "--json"))
        assert contacts == client.get("/api/v1/contacts").json()["contacts"]
        assert len(printed(site, "threads", "show", thread_id).splitlines()) == 14
        assert command(site, "threads", "export", thread_id, "--output", "thread.json").returncode == 0
        assert served.stop() == 0


def test_contacts_are_listed_with_their_threads(stored: Stored, site: Path) -> None:
    head, *lines = printed(site, "contacts", "list").splitlines()
    assert head.split() == ["THREADS", "ACTIVE", "CONTACT"]
    assert [line.split()[2:] for line in lines] == [[], ["ann"], ["bob"]]
    listed = objects(printed(site, "contacts", "list", "--json"))
    assert [(contact["contact_id"], contact["thread_count"]) for contact in listed] == [("", 1), ("ann", 1), ("bob", 1)]


# All of them


@pytest.mark.parametrize(
    "arguments",
    [
        ("runs", "list"),
        ("runs", "show", UNKNOWN),
        ("runs", "cancel", UNKNOWN),
        ("threads", "list", "ann"),
        ("threads", "show", UNKNOWN),
        ("threads", "export", UNKNOWN, "--output", "a.json"),
        ("threads", "delete", UNKNOWN, "--yes"),
        ("contacts", "list"),
    ],
)
def test_a_database_that_does_not_exist_is_not_created(site: Path, arguments: tuple[str, ...]) -> None:
    assert refusal(command(site, *arguments)).startswith("jimsapi: there is no database ")
    assert list(site.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("runs", "show", "x"),
        ("runs", "list", "--status", "done"),
        ("runs", "list", "--limit", "0"),
        ("runs", "list", "--contact-id", "x" * 2001),
        ("threads", "list"),
        ("threads", "export", UNKNOWN),
    ],
)
def test_wrong_usage_has_the_exit_status_2(site: Path, arguments: tuple[str, ...]) -> None:
    assert command(site, *arguments).returncode == 2


def test_a_long_export_shows_on_a_terminal_how_far_it_is(stored: Stored, site: Path) -> None:
    ours, theirs = pty.openpty()
    ran = subprocess.run(
        [sys.executable, "-m", "jimsapi", "threads", "export", str(stored.thread_id), "--output", "a.json", *STORE],
        cwd=site,
        env={**os.environ, "PYTHONPATH": python_path(site)},
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        timeout=20,
        check=True,
    )
    os.close(theirs)
    shown = os.read(ours, 1000).decode()
    os.close(ours)
    assert "events: 1" in shown
    assert shown.rpartition("\r")[2] == ""  # the line is empty again
    assert ran.stdout.startswith("a.json: 5 events")


def test_a_cancellation_ends_if_the_server_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "ANSWER_WITHIN", 0.2)
    monkeypatch.setattr(runs, "ATTEMPTS", 0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(StartError, match="does not answer"):
            runs.cancel_run_at(url, None, None, uuid7())
    assert time.monotonic() - began < 30
