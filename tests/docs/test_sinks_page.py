"""The page on sinks: its commands are run, and its examples are what a file and a URL receive."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cloud_events import read_cloud_event
from tests.docs.snippets import blocks
from tests.runs.receiver import SECRET, Receiver
from tests.serving import ROOT, Served
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

PAGE = "docs/sinks.md"
FILE, URL, LIST, DEAD, REWIND = blocks(PAGE, "sh")
LINE, CALL, CLOUD_EVENT = (orjson.loads(code) for code in blocks(PAGE, "json"))
[STATE] = blocks(PAGE, "text")
BOT = "async def app(ctx):\n    ctx.send_message('Hi')\n"
HELLO = {"contact_id": "ann", "message": "Hello"}


@contextmanager
def serving(command: str, folder: Path, **replaced: str) -> Iterator[Served]:
    """The last command of a block, with other places. It serves its app on a free port, from `jims.db`."""
    (folder / "bot.py").write_text(BOT, encoding="utf-8")
    options = shlex.split(command.strip().splitlines()[-1])[1:]
    given = [replaced.get(option, option) for option in options]
    env = {"JIMS_EVENT_WEBHOOK_SECRET": SECRET} if "--event-webhook-url" in given else {}
    with Served(*given, "--store", "sqlite:///jims.db", folder=folder, env=env) as served:
        yield served


def operate(command: str, folder: Path) -> str:
    """Run the commands of a block on `jims.db`."""
    jimsapi = f"{shlex.quote(sys.executable)} -m jimsapi"
    script = re.sub(r"^jimsapi", jimsapi, command.replace("--store postgresql://…", ""), flags=re.MULTILINE)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JIMS_STORE": "sqlite:///jims.db"}
    ran = subprocess.run(
        ["bash", "-eu"], input=script, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def lines(path: Path) -> list[Any]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def test_the_file_receives_lines_as_the_page_shows_them_and_earlier_events_when_it_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    place = {"/var/lib/chat/events.jsonl": str(file)}
    with serving(FILE, tmp_path, **place) as served, served.client() as client:
        assert client.post("/api/v1/chat", json=HELLO).status_code == 200
        eventually(lambda: len(lines(file)) == 3)
        _, message, _ = lines(file)
        assert message.keys() == LINE.keys()
        assert message["event_data"] == LINE["event_data"]
        assert (message["event_type"], message["contact_id"]) == (LINE["event_type"], LINE["contact_id"])
        assert re.fullmatch(r"[-0-9]{10}T[:0-9]{8}\.[0-9]{6}(Z|\+00:00)", message["created_at"])
        operate(REWIND, tmp_path)
        eventually(lambda: len(lines(file)) == 6)
        assert [line["event_id"] for line in lines(file)[:3]] == [line["event_id"] for line in lines(file)[3:]]
        assert {line["run_id"] for line in lines(file)[3:]} == {None}


def test_a_cloud_event_is_as_the_page_shows_it(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    command = f"{FILE.strip()} --event-file-format cloudevents"
    with serving(command, tmp_path, **{"/var/lib/chat/events.jsonl": str(file)}) as served, served.client() as client:
        assert client.post("/api/v1/chat", json=HELLO).status_code == 200
        eventually(lambda: len(lines(file)) == 3)
    _, line, _ = file.read_bytes().splitlines()
    event = read_cloud_event(line)
    made = orjson.loads(line)
    assert list(made) == list(CLOUD_EVENT)
    same = ("specversion", "type", "datacontenttype", "contactid", "data")
    assert {name: made[name] for name in same} == {name: CLOUD_EVENT[name] for name in same}
    assert re.fullmatch(r"[0-9a-f]{32}_[0-9a-f]{32}", event.get_id())


async def test_the_url_receives_calls_as_the_page_shows_them(tmp_path: Path) -> None:
    async with Receiver() as receiver:
        place = {"https://warehouse.example/events": receiver.url()}
        with serving(URL, tmp_path, **place) as served:
            async with served.async_client() as client:
                assert (await client.post("/api/v1/chat", json=HELLO)).status_code == 200
                await receiver.call()
                call = (await receiver.call()).verified()
                await receiver.call()
    assert call.keys() == CALL.keys()
    assert call["type"] == CALL["type"]
    assert call["data"].keys() == CALL["data"].keys()
    assert call["data"]["event_data"] == CALL["data"]["event_data"]


async def test_the_commands_show_what_waits_and_decide_about_dead_letters(tmp_path: Path) -> None:
    refusing = b"HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n"
    async with Receiver(refusing) as receiver:
        with serving(URL, tmp_path, **{"https://warehouse.example/events": receiver.url()}) as served:
            async with served.async_client() as client:
                assert (await client.post("/api/v1/chat", json=HELLO)).status_code == 200
            for _ in range(3):
                await receiver.call()
            eventually(lambda: served.stderr.count("does not accept event") == 3)
            shown = operate(LIST, tmp_path)
            assert shown.splitlines()[0].split() == STATE.splitlines()[0].split()
            assert shown.splitlines()[1].startswith("event-webhook ")
            eventually(lambda: operate("jimsapi sinks dead event-webhook --json", tmp_path).count("\n") == 3)
            numbers = [
                orjson.loads(line)["number"]
                for line in operate("jimsapi sinks dead event-webhook --json", tmp_path).splitlines()
            ]
            decided = operate(DEAD.replace("17 18", " ".join(map(str, numbers[:2]))), tmp_path)
            assert "2 dead letters of the sink event-webhook will be delivered again" in decided
            assert "dead letters of the sink event-webhook are deleted" in decided
