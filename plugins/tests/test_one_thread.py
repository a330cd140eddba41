"""One conversation in all protocols: it is begun in a browser, continued by MCP, asked by A2A, and read by the API.

Every protocol shows the same history, with the same identifiers, order and times.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import httpx
import httpx2
import pytest
from a2a.client import Client as A2AClient
from a2a.client import ClientConfig, ClientFactory
from a2a.types import GetTaskRequest, ListTasksRequest, Message, Part, Role, SendMessageRequest, Task, TaskState
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client

from jimsapi.builtin.keys_file import KeysFile
from tests.clients.chromium import Chromium
from tests.node import install as install_packages
from tests.plugins.distributions import install
from tests.plugins.modules import load
from tests.serving import Served

pytestmark = pytest.mark.anyio

DEEP_CHAT = Path(__file__).resolve().parents[1] / "jimsapi-deepchat" / "tests"
QUESTION = "Refund 20 EUR?"
CONVERSATION = [
    ("user", "Hello"),
    ("assistant", "You said Hello"),
    ("user", "my shoes"),
    ("assistant", "You said my shoes"),
    ("user", "refund my hat"),
    ("assistant", f"{QUESTION}\n- yes\n- no"),
    ("user", "yes"),
    ("assistant", "yes to refund my hat"),
    ("user", "Bye"),
    ("assistant", "You said Bye"),
]
"""What was said, as people read it."""


@dataclass(frozen=True)
class Site:
    """A server with a page, and the key of the contact `ann`, which every client sends."""

    served: Served
    headers: dict[str, str]
    component: ModuleType


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    install_packages(DEEP_CHAT)
    component = load(DEEP_CHAT / "test_component.py")
    folder = tmp_path_factory.mktemp("site")
    (folder / "bot.py").write_text(component.BOT)
    bundle = repr(str(DEEP_CHAT / component.BUNDLE))
    install(folder, "jimsapi-pages", component.PAGES.replace("BUNDLE", bundle))
    key, _ = KeysFile(folder / "keys.json").add("ann", contact_id="ann")
    options = ("--keys-file", str(folder / "keys.json"), "--store", f"sqlite:///{folder}/jims.db")
    with Served("--app", "bot:app", *options, folder=folder) as served:
        yield Site(served, {"authorization": f"Bearer {key}"}, component)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def on_page(browser: Chromium, site: Site, *steps: dict[str, Any], reloaded: bool = False) -> list[tuple[str, str]]:
    """What a person of the page reads after some steps. A page that was loaded again shows what was said before."""
    options = {"connect": {"url": "/deep-chat", "stream": True, "headers": site.headers}}
    history = json.dumps("/deep-chat/history" if reloaded else "")
    script = site.component.SCRIPT.replace("OPTIONS", json.dumps(options)).replace("STEPS", json.dumps(steps))
    script = script.replace("fetch(HISTORY)", f"fetch(HISTORY, {json.dumps({'headers': site.headers})})")
    seen = browser.evaluate(f"{site.served.url}/page", script.replace("HISTORY", history))
    assert seen["errors"] == []
    roles = {"ai": "assistant", "user": "user"}
    return [(roles[one["role"]], one["text"]) for one in seen["messages"] if one.get("text")]


@asynccontextmanager
async def mcp(site: Site) -> AsyncIterator[McpClient]:
    async with (
        httpx2.AsyncClient(headers=site.headers, timeout=30) as http,
        McpClient(streamable_http_client(f"{site.served.url}/mcp", http_client=http)) as client,
    ):
        yield client


@asynccontextmanager
async def a2a(site: Site) -> AsyncIterator[A2AClient]:
    async with httpx.AsyncClient(headers=site.headers, trust_env=False, timeout=30) as http:
        config = ClientConfig(httpx_client=http, streaming=False)
        yield await ClientFactory(config).create_from_url(site.served.url)


async def send(client: A2AClient, text: str, **named: str) -> Task:
    message = Message(message_id=str(uuid4()), role=Role.ROLE_USER, parts=[Part(text=text)], **named)
    [answer] = [event async for event in client.send_message(SendMessageRequest(message=message))]
    return answer.task


def state(task: Task) -> str:
    return str(TaskState.Name(task.status.state)).removeprefix("TASK_STATE_")


def time_of(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["created_at"])


def in_milliseconds(time: datetime) -> datetime:
    """A time as A2A has it."""
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


async def test_one_conversation_has_one_history_in_all_protocols(browser: Chromium, site: Site) -> None:
    with site.served.client(headers=site.headers) as api:
        # A person begins it in a browser.
        assert on_page(browser, site, {"text": "Hello", "sees": "You said Hello"}) == CONVERSATION[:2]
        [thread] = api.get("/api/v1/threads").json()["threads"]
        thread_id = thread["thread_id"]

        # An editor continues it by MCP, an agent asks by A2A and answers its question, and a program says goodbye.
        async with mcp(site) as editor, a2a(site) as agent:
            called = await editor.call_tool("chat", {"message": "my shoes", "thread": thread_id})
            assert called.structured_content is not None
            assert called.structured_content["thread_id"] == thread_id
            asked = await send(agent, "refund my hat", context_id=thread_id)
            assert (state(asked), asked.context_id) == ("INPUT_REQUIRED", thread_id)
            assert QUESTION in asked.status.message.parts[0].text
            answered = await send(agent, "yes", task_id=asked.id, context_id=thread_id)
            assert (state(answered), answered.id) == ("COMPLETED", asked.id)
            said = api.post("/api/v1/chat", json={"message": "Bye", "thread_id": thread_id})
            assert said.json()["assistant_messages"] == ["You said Bye"]
            goodbye = said.headers["x-run-id"]

            # The page, the resource and the tasks show the whole.
            assert on_page(browser, site, reloaded=True) == CONVERSATION
            read = await editor.read_resource(f"jims://threads/{thread_id}")
            resource = json.loads(read.contents[0].text)  # type: ignore[union-attr] # it is a text
            assert resource["thread_id"] == thread_id
            assert [(one["role"], one["text"]) for one in resource["messages"]] == CONVERSATION
            listed = await agent.list_tasks(ListTasksRequest(context_id=thread_id))
            tasks = [await agent.get_task(GetTaskRequest(id=one.id)) for one in reversed(listed.tasks)]
            listed_by_editor = await editor.list_resources()

    # There is one thread, with one list of events.
    assert [str(one.uri) for one in listed_by_editor.resources] == [f"jims://threads/{thread_id}"]
    with site.served.client(headers=site.headers) as api:
        [only] = api.get("/api/v1/threads").json()["threads"]
        assert only["thread_id"] == thread_id
        events = api.get(f"/api/v1/threads/{thread_id}/events").json()["events"]
        runs = api.get("/api/v1/runs", params={"thread_id": thread_id}).json()["runs"]
    users = [one for one in events if one["event_type"] == "comm.user_message"]
    spoken = [one for one in events if one["event_type"] == "comm.assistant_message"]
    assert [one["event_data"]["content"] for one in users] == ["Hello", "my shoes", "refund my hat", "Bye"]
    said_by_bot = ["You said Hello", "You said my shoes", "yes to refund my hat", "You said Bye"]
    assert [one["event_data"]["content"] for one in spoken] == said_by_bot
    assert [one["event_type"] for one in events if one["event_type"].startswith("question.")] == [
        "question.asked",
        "question.answered",
    ]

    # Each message is a task, whoever sent it. The question and its answer belong to one.
    assert [task.context_id for task in tasks] == [thread_id] * 4
    assert [state(task) for task in tasks] == ["COMPLETED"] * 4
    assert [task.id for task in tasks][1:] == [called.structured_content["run_id"], asked.id, goodbye]
    assert {task.id for task in tasks} < {one["run_id"] for one in runs}
    assert len(runs) == 5
    assert ["".join(part.text for part in task.artifacts[0].parts) for task in tasks] == said_by_bot
    assert [task.artifacts[0].artifact_id for task in tasks] == [one["event_id"] for one in spoken]
    histories = [[(Role.Name(one.role), one.parts[0].text) for one in task.history] for task in tasks]
    assert [one[0] for one in histories] == [("ROLE_USER", one["event_data"]["content"]) for one in users]
    assert [text for _, text in histories[2]][-1] == "yes"
    assert QUESTION in histories[2][1][1]

    # Their order is that of their times, which are those of the events.
    times = [time_of(one) for one in events]
    assert times == sorted(set(times))
    ended = [task.status.timestamp.ToDatetime(tzinfo=times[0].tzinfo) for task in tasks]
    assert ended == sorted(ended)
    for task_ended, sent, following in zip(ended, users, [*users[1:], None], strict=True):
        assert in_milliseconds(time_of(sent)) <= task_ended
        assert following is None or task_ended <= time_of(following)
