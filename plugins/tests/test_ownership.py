"""Whose a conversation is, on every route of the core and of the first-party plugins, and for every identifier there.

Each private route of the app has an entry in `CALLS`: how a caller names what belongs to the contact `bea`, in the
path, the query or the body. A new route without an entry fails the first test. MCP and A2A have one route for many
methods, so each method and each tool needs an entry, too. Every other caller gets the same answer as for something
that does not exist, so that nobody learns what exists. `tests/api/test_ownership.py` tests the core's routes without
plugins.
"""

import gc
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from jimsapi import JimsApp, ThreadContext, WebSocketDisconnected, create_api
from jimsapi.asgi.testing import HandshakeRefused, TestClient
from jimsapi.threads import uuid7
from tests.serving import ROOT

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("people")]

SECRET = "the secret of bea"
CHAT = "/api/v1/chat"
URL = "data:text/plain;base64,aGk="


@dataclass(frozen=True)
class Call:
    """How a route is told what belongs to `bea`, with the names of `World` in braces.

    `{me}` is the contact of a caller that is bound to none; callers that are bound leave that field out. `{mine}` is a
    thread of the caller's own. `closed` is the status for others; `unscoped` is the one for `talker`, which is bound to
    no contact and has the scope `chat` only. A call that is None there is one that the caller may make. `shows` is a
    text that the answer to the owner has, and the others lack: some protocols answer errors with 200, too.
    """

    path: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    closed: int | None = 404
    unscoped: int | None = 403
    opened: int = 200
    shows: str | None = None


THREAD = {"id": "{thread}"}
RATED = {**THREAD, "event_id": "{event}"}
RATED_ELSEWHERE = {"id": "{mine}", "event_id": "{event}"}
RUN, FILE = {"id": "{run}"}, {"id": "{file}"}
SAID = {"contact_id": "{me}", "message": "hi"}
ANSWERS = {"{question}": "yes"}
TO_BOSS = {"contact_id": "{me}", "answers": {"{of_boss}": "yes"}}


def message_calls(*, opened: int = 200) -> list[Call]:
    """The calls of a route of the chat API that takes messages."""
    return [
        # A caller that is bound to no contact speaks for every contact, so it may continue every thread.
        Call(body={**SAID, "thread_id": "{thread}"}, unscoped=None, opened=opened),
        Call(body={**SAID, "files": ["{file}"]}, closed=422, unscoped=422, opened=opened),
        Call(body={"contact_id": "{me}", "answers": ANSWERS}, unscoped=404, opened=opened),
        Call(body={"contact_id": "{me}", "answers": ANSWERS, "thread_id": "{thread}"}, unscoped=None, opened=opened),
        Call(body={**TO_BOSS, "thread_id": "{thread}"}, unscoped=404, opened=404),
        Call(body={"message": "hi", "contact_id": "{contact}"}, closed=403, unscoped=None, opened=opened),
    ]  # fmt: skip


AG_UI = {"threadId": "own", "runId": "r", "messages": [], "tools": [], "context": [], "state": {}, "forwardedProps": {}}
RESUME = [{"interruptId": "{question}", "status": "resolved", "payload": "yes"}]
AI_SDK = {"id": "own", "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}]}
NAMED_FILE = "/api/v1/files/{file}"
RESPONSE, CONVERSATION = {"id": "{response}"}, {"id": "{conversation}"}
ITEM = {**CONVERSATION, "item_id": "{item}"}
ASKED = {"model": "m", "input": "hi"}

RESULT = '"result":'
WORKED = '"isError":false'
MCP_PREFIX = "io.modelcontextprotocol/"
LEGACY_VERSION = "2025-11-25"


def mcp(
    method: str,
    params: Mapping[str, Any],
    *,
    closed: int = 400,
    shows: str | None = RESULT,
    extensions: Mapping[str, Any] | None = None,
) -> Call:
    """A request of MCP of 2026-07-28."""
    capabilities = {"elicitation": {}, "extensions": extensions or {}}
    meta = {f"{MCP_PREFIX}protocolVersion": "2026-07-28", f"{MCP_PREFIX}clientCapabilities": capabilities}
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": method}
    named = [params[key] for key in ("name", "uri", "taskId") if key in params]
    if named:
        headers["mcp-name"] = named[0]
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    return Call(body=body, headers=headers, closed=closed, unscoped=closed, shows=shows)


def legacy(method: str, params: Mapping[str, Any], *, shows: str | None = RESULT) -> Call:
    """A request of MCP of 2025-11-25. Its errors have the status 200."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    headers = {"mcp-protocol-version": LEGACY_VERSION}
    return Call(body=body, headers=headers, closed=200, unscoped=200, shows=shows)


def tool(name: str, *, shows: str | None = WORKED, closed: int = 200, **arguments: Any) -> Call:
    """A call of a tool. `request` in the arguments are other parameters of the request."""
    request = arguments.pop("request", {})
    return mcp("tools/call", {"name": name, "arguments": arguments, **request}, closed=closed, shows=shows)


def task(method: str, task_id: str, **params: Any) -> Call:
    """A request about a task of MCP."""
    return mcp(method, {"taskId": task_id, **params}, extensions={f"{MCP_PREFIX}tasks": {}})


ENTERED = {"{question}": {"action": "accept", "content": {"answer": "yes"}}}
THREAD_OF_MCP = {"uri": "jims://threads/{thread}"}

MCP_CALLS = [
    *(tool(name, message="hi", thread="{thread}") for name in ("chat", "chat_start")),
    *(tool(name, message="", thread="{thread}", answers=ANSWERS) for name in ("chat", "chat_start")),
    *(tool(name, message="", answers=ANSWERS, shows=None) for name in ("chat", "chat_start")),
    *(tool(name, message="", thread="{thread}", answers={"{of_boss}": "yes"}, shows=None)
      for name in ("chat", "chat_start")),
    tool("chat", message="ask", thread="{thread}", closed=400,
         request={"inputResponses": ENTERED, "requestState": "{state}"}),
    tool("chat_get", run_id="{run}"),
    tool("chat_get", run_id="{asked}", shows='"inputRequests"'),
    tool("chat_get", thread="{thread}", shows='"inputRequests"'),
    tool("chat_get", thread="{name}"),
    tool("chat_cancel", run_id="{run}", shows=None),  # it has ended
    tool("chat_cancel", run_id="{asked}"),
    mcp("resources/list", {}, closed=200, shows="{thread}"),
    mcp("resources/read", THREAD_OF_MCP, shows=SECRET),
    task("tasks/get", "{run}"),
    task("tasks/get", "{asked}"),
    task("tasks/update", "{asked}", inputResponses=ENTERED),
    task("tasks/cancel", "{asked}"),
    legacy("tools/call", {"name": "chat", "arguments": {"message": "hi", "thread": "{thread}"}}, shows=WORKED),
    legacy("tools/call", {"name": "chat_get", "arguments": {"run_id": "{run}"}}, shows=WORKED),
    legacy("resources/list", {}, shows="{thread}"),
    legacy("resources/read", THREAD_OF_MCP),
    Call(body={"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}},
         headers={"mcp-protocol-version": LEGACY_VERSION}, closed=202, unscoped=202, opened=202),
]  # fmt: skip

MCP_WITHOUT_NAMES = {"initialize", "ping", "server/discover", "tools/list", "resources/templates/list"}
"""Methods of MCP that name nothing of a contact, and show nothing of one."""

A2A_VERSION = {"a2a-version": "1.0"}


def said_to_agent(message: Mapping[str, Any] | None = None, **named: str) -> dict[str, Any]:
    """A message of A2A."""
    parts = [{"text": "yes"}]
    return {"message": {"messageId": "1", "role": "ROLE_USER", "parts": parts, **named, **(message or {})}}


WITH_FILE = {"parts": [{"text": "hi"}, {"url": NAMED_FILE, "mediaType": "text/plain"}]}
HOOK = {"id": "1", "url": "http://127.0.0.1:9/hook"}

SENT: list[tuple[dict[str, Any], str | None]] = [
    (said_to_agent(contextId="{thread}"), RESULT),
    (said_to_agent(taskId="{asked}"), RESULT),
    (said_to_agent(taskId="{asked}", contextId="{thread}"), RESULT),
    (said_to_agent(taskId="{run}"), "TASK_STATE_COMPLETED"),  # it has ended
    (said_to_agent({"messageId": "of bea"}, contextId="{thread}"), RESULT),  # the identifier is one of another context
    (said_to_agent(WITH_FILE), None),
]

A2A_METHODS: dict[str, list[tuple[dict[str, Any], str | None]]] = {
    "SendMessage": SENT,
    "SendStreamingMessage": SENT,
    "GetTask": [({"id": "{run}"}, SECRET), ({"id": "{asked}"}, "TASK_STATE_INPUT_REQUIRED")],
    "ListTasks": [({}, "{run}"), ({"contextId": "{thread}"}, "{run}"), ({"contextId": "{name}"}, "TASK_STATE")],
    "CancelTask": [({"id": "{asked}"}, "TASK_STATE_CANCELED"), ({"id": "{run}"}, "has ended")],
    "SubscribeToTask": [({"id": "{asked}"}, "TASK_STATE_INPUT_REQUIRED"), ({"id": "{run}"}, "has ended")],
    "CreateTaskPushNotificationConfig": [({"taskId": "{asked}", **HOOK}, None)],
    "GetTaskPushNotificationConfig": [({"taskId": "{asked}", "id": "1"}, None)],
    "ListTaskPushNotificationConfigs": [({"taskId": "{asked}"}, None)],
    "DeleteTaskPushNotificationConfig": [({"taskId": "{asked}", "id": "1"}, None)],
    "GetExtendedAgentCard": [],
}
"""What the methods of A2A name, and what only the owner reads then."""

A2A_CALLS = [
    Call(body={"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, headers=A2A_VERSION, closed=200,
         unscoped=200, shows=shows)
    for method, calls in A2A_METHODS.items()
    for params, shows in calls
]  # fmt: skip


def by_http(
    *path: str,
    closed: int = 404,
    opened: int = 200,
    shows: str | None = None,
    body: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
) -> Call:
    """A request of A2A's binding to HTTP. `path` are the identifiers of the task and of the configuration."""
    named = dict(zip(("id", "config_id"), path, strict=False))
    return Call(named, params or {}, body, A2A_VERSION, closed=closed, unscoped=closed, opened=opened, shows=shows)


MESSAGES_BY_HTTP = [
    by_http(body=said_to_agent(contextId="{thread}"), closed=400, shows="TASK_STATE"),
    by_http(body=said_to_agent(taskId="{asked}"), shows="TASK_STATE"),
    by_http(body=said_to_agent(taskId="{run}"), opened=400, shows="TASK_STATE_COMPLETED"),
]

CALLS: dict[tuple[str, str], list[Call]] = {
    ("POST", CHAT): message_calls(),
    ("POST", "/api/v1/chat/stream"): message_calls(),
    ("POST", "/api/v1/runs"): message_calls(opened=202),
    ("GET", "/api/v1/runs"): [
        Call(params={"contact_id": "{contact}"}, closed=403),
        Call(params={"thread_id": "{thread}"}),
    ],
    ("GET", "/api/v1/runs/{id:uuid}"): [Call(RUN, unscoped=404)],
    ("GET", "/api/v1/runs/{id:uuid}/stream"): [Call(RUN, unscoped=404)],
    ("POST", "/api/v1/runs/{id:uuid}/cancel"): [Call(RUN, unscoped=404, opened=409)],
    ("GET", "/api/v1/threads"): [Call(params={"contact_id": "{contact}"}, closed=403)],
    ("GET", "/api/v1/threads/{id:uuid}"): [Call(THREAD)],
    ("PATCH", "/api/v1/threads/{id:uuid}"): [Call(THREAD, body={"title": "mine"})],
    ("DELETE", "/api/v1/threads/{id:uuid}"): [Call(THREAD, opened=204)],
    ("POST", "/api/v1/threads/{id:uuid}/fork"): [
        Call(THREAD, body={}, opened=201),
        Call(THREAD, body={"at": "{event}"}, opened=201),
        Call({"id": "{mine}"}, body={"at": "{event}"}, opened=404),
        Call({"id": "{mine}"}, body={"before": "{event}"}, opened=404),
    ],
    ("GET", "/api/v1/threads/{id:uuid}/usage"): [Call(THREAD)],
    ("GET", "/api/v1/usage"): [Call(params={"contact_id": "{contact}"}, closed=403)],
    ("GET", "/api/v1/threads/{id:uuid}/events"): [Call(THREAD)],
    ("GET", "/api/v1/threads/{id:uuid}/feedback"): [Call(THREAD)],
    ("PUT", "/api/v1/threads/{id:uuid}/events/{event_id:uuid}/feedback"): [
        Call(RATED, body={"rating": 1}, opened=204),
        Call(RATED_ELSEWHERE, body={"rating": 1}, opened=404),
    ],
    ("DELETE", "/api/v1/threads/{id:uuid}/events/{event_id:uuid}/feedback"): [
        Call(RATED, opened=204),
        Call(RATED_ELSEWHERE, opened=404),
    ],
    ("GET", "/api/v1/contacts"): [Call(params={"contact_id": "{contact}"}, closed=403)],
    ("DELETE", "/api/v1/contacts"): [Call(params={"contact_id": "{contact}"}, closed=403, opened=204)],
    ("POST", "/api/v1/files"): [
        Call(params={"contact_id": "{contact}"}, body={}, closed=403, unscoped=None, opened=201)
    ],
    ("GET", "/api/v1/files"): [Call(params={"contact_id": "{contact}"}, closed=403)],
    ("GET", "/api/v1/files/{id}"): [
        Call(FILE, unscoped=404),
        Call(FILE, headers={"range": "bytes=0-3"}, unscoped=404, opened=206),
        Call(FILE, headers={"if-none-match": "*"}, unscoped=404, opened=304),
        Call(FILE, {"contact_id": "{me}"}, unscoped=404),
    ],
    ("DELETE", "/api/v1/files/{id}"): [
        Call(FILE, unscoped=404, opened=204),
        Call(FILE, {"contact_id": "{me}"}, unscoped=404, opened=204),
    ],
    ("POST", "/ag-ui"): [
        Call(body={**AG_UI, "resume": RESUME}, unscoped=404, opened=404),
        Call(body={**AG_UI, "threadId": "{name}", "resume": RESUME}, unscoped=404),
        Call(body={**AG_UI, "threadId": "{thread}", "resume": RESUME}, unscoped=404, opened=404),
        Call(
            body={**AG_UI, "messages": [{"id": "1", "role": "user", "content": [
                {"type": "document", "source": {"type": "url", "value": NAMED_FILE}}]}]},
            closed=422, unscoped=422,
        ),
    ],
    ("POST", "/ai-sdk/chat"): [
        Call(
            body={**AI_SDK, "messages": [{"id": "1", "role": "user", "parts": [
                {"type": "text", "text": "hi"}, {"type": "file", "mediaType": "text/plain", "url": NAMED_FILE}]}]},
            closed=422, unscoped=422,
        ),
    ],
    ("GET", "/ai-sdk/chat/{id}/stream"): [Call({"id": "{name}"}, closed=204, unscoped=204, opened=204)],
    ("GET", "/ai-sdk/chat/{id}/messages"): [Call({"id": "{name}"}, closed=200)],
    ("GET", "/deep-chat/history"): [
        Call(params={"chat_id": "{name}"}, closed=200),
        Call(params={"chat_id": "{name}", "contact_id": "{contact}"}, closed=200),
        Call(params={"contact_id": "{contact}"}, closed=200),
    ],
    # A message to these names no identifier of the server's own: their threads have names within one caller's.
    ("POST", "/deep-chat"): [],
    ("POST", "/v1/chat/completions"): [],
    ("POST", "/v1/responses"): [
        Call(body={**ASKED, "previous_response_id": "{response}"}, unscoped=404),
        Call(body={**ASKED, "conversation": "{conversation}"}, unscoped=None),
    ],
    ("GET", "/v1/responses/{id}"): [
        Call(RESPONSE, unscoped=404),
        Call(RESPONSE, {"stream": "true"}, unscoped=404),
    ],
    ("POST", "/v1/responses/{id}/cancel"): [Call(RESPONSE, unscoped=404)],
    ("DELETE", "/v1/responses/{id}"): [Call(RESPONSE, opened=409)],
    ("GET", "/v1/responses/{id}/input_items"): [Call(RESPONSE, unscoped=404)],
    ("POST", "/v1/conversations"): [],
    ("GET", "/v1/conversations/{id}"): [Call(CONVERSATION)],
    ("POST", "/v1/conversations/{id}"): [Call(CONVERSATION, body={"metadata": {"mine": "yes"}})],
    ("DELETE", "/v1/conversations/{id}"): [Call(CONVERSATION)],
    ("GET", "/v1/conversations/{id}/items"): [Call(CONVERSATION)],
    ("POST", "/v1/conversations/{id}/items"): [
        Call(CONVERSATION, body={"items": [{"role": "assistant", "content": "mine"}]})
    ],
    ("GET", "/v1/conversations/{id}/items/{item_id}"): [
        Call(ITEM),
        Call({"id": "conv_{of_me}", "item_id": "{item}"}, opened=404),
    ],
    ("DELETE", "/v1/conversations/{id}/items/{item_id}"): [Call(ITEM, opened=405)],
    ("POST", "/mcp"): MCP_CALLS,
    ("POST", "/a2a"): A2A_CALLS,
    ("POST", "/a2a/"): A2A_CALLS[:1],  # the same handler
    ("POST", "/a2a/message:send"): MESSAGES_BY_HTTP,
    ("POST", "/a2a/message:stream"): MESSAGES_BY_HTTP,
    ("GET", "/a2a/tasks"): [
        by_http(closed=200, shows="{run}"),
        by_http(params={"contextId": "{thread}"}, closed=200, shows="{run}"),
    ],
    ("GET", "/a2a/tasks/{id}"): [
        by_http("{run}", shows=SECRET),
        by_http("{asked}:subscribe", shows="TASK_STATE_INPUT_REQUIRED"),
    ],
    ("POST", "/a2a/tasks/{id}"): [
        by_http("{asked}:cancel", shows="TASK_STATE_CANCELED"),
        by_http("{run}:cancel", opened=400, shows="has ended"),
        by_http("{run}:subscribe", opened=400, shows="has ended"),
    ],
    ("POST", "/a2a/tasks/{id}/pushNotificationConfigs"): [by_http("{asked}", body=HOOK)],
    ("GET", "/a2a/tasks/{id}/pushNotificationConfigs"): [by_http("{asked}")],
    ("GET", "/a2a/tasks/{id}/pushNotificationConfigs/{config_id}"): [by_http("{asked}", "1", opened=404)],
    ("DELETE", "/a2a/tasks/{id}/pushNotificationConfigs/{config_id}"): [by_http("{asked}", "1")],
    ("GET", "/a2a/extendedAgentCard"): [],
    ("GET", "/v1/models"): [],
    ("GET", "/v1/models/{id}"): [],
}  # fmt: skip

OPEN_TO_ALL = {"/v1/models", "/v1/models/{id}"}
"""Routes that show nothing of a contact."""
WEBSOCKETS = {"/api/v1/chat/ws", "/deep-chat"}


async def pipeline(ctx: ThreadContext) -> None:
    text = str(ctx.get_last_user_message())
    if text == "ask":
        ctx.send_message(f"{SECRET}: {await ctx.ask('go', 'Go on?', options=['yes', 'no'])}")
    elif text == "ask the boss":
        ctx.send_message(f"{SECRET}: {await ctx.ask('boss', 'Go on?', answerable_by='contact:boss')}")
    else:
        ctx.send_message(f"{text}, {[one['content'] for one in ctx.history]}")


@dataclass
class World:
    """A server, a client of it, and what belongs to `bea`, by the names that `CALLS` has for it."""

    api: Any
    client: TestClient
    names: dict[str, str]
    threads: dict[str, str] = field(default_factory=dict)
    """A thread of each caller that may have one."""

    async def ask(
        self,
        user: str | None,
        method: str,
        path: str,
        call: Call,
        names: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Make a call as somebody. `names` are what is named, and `headers` are more of them."""
        is_bound = user in BOUND
        mine = self.threads.get(user or "", names["thread"])
        known = {**names, "mine": mine, "of_me": UUID(mine).hex}
        place = re.sub(r"\{(\w+)(:uuid)?\}", lambda found: filled(call.path[found[1]], known), path)
        options: dict[str, Any] = {"params": filled(without_me(call.params, is_bound), known)}
        if call.body is not None:
            options["json"] = filled(without_me(call.body, is_bound), known)
        sent = {**filled(call.headers, known), **({} if user is None else {"x-user": user}), **(headers or {})}
        return await self.client.request(method, place, headers=sent, **options)

    async def begin_with_agents(self) -> None:
        """Begin conversations that `bea` has named `c`, by MCP and by A2A."""
        for path, call in (
            ("/mcp", tool("chat", message=SECRET, thread="c")),
            ("/a2a/message:send", by_http(body=said_to_agent({"messageId": "of bea"}, contextId="c"))),
        ):
            answer = await self.ask("bea", "POST", path, call, {**self.names, "thread": str(uuid7())})
            assert answer.status_code == 200, answer.text
            assert SECRET in answer.text or "TASK_STATE_COMPLETED" in answer.text, answer.text

    async def state(self) -> Any:
        """All that belongs to `bea`, but for what reading it costs."""
        found = [await self._get("/api/v1/threads?contact_id=bea"), await self._get("/api/v1/files?contact_id=bea")]
        for thread in found[0]["threads"]:
            path = f"/api/v1/threads/{thread['thread_id']}"
            found += [await self._get(f"{path}/events"), await self._get(f"{path}/feedback")]
        return found

    async def _get(self, path: str) -> Any:
        answer = await self.client.get(path, headers={"x-user": "root"})
        assert answer.status_code == 200, answer.text
        return answer.json()


def without_me(fields: Mapping[str, Any], is_bound: bool) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if not (is_bound and value == "{me}")}


def filled(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda found: names[found[1]], value)
    if isinstance(value, Mapping):
        return {filled(key, names): filled(one, names) for key, one in value.items()}
    return [filled(one, names) for one in value] if isinstance(value, list) else value


BOUND = {"ann", "ann-talks", "bea", "blank"}
CALLERS = {"ann": "threads", "ann-talks": "chat", "blank": "threads", "talker": "chat"}
"""Callers that may not see what belongs to `bea`, with the most that each may do."""


def missing(names: Mapping[str, str]) -> dict[str, str]:
    """The same names, of things that do not exist."""
    other = {name: str(uuid7()) for name in ("thread", "event", "run", "asked", "question", "of_boss")}
    other["state"] = re.sub(r"^\w+|\w+$", lambda found: "0" * len(found[0]), names["state"])
    fixed = {"file": "0" * len(names["file"]), "name": "nothing", "contact": "nobody there"}
    return {**names, **other, **fixed, **of_openai(other)}


def of_openai(names: Mapping[str, str]) -> dict[str, str]:
    """The identifiers that OpenAI's API has for a run, a thread and an event."""
    prefixes = {"response": ("resp", "run"), "conversation": ("conv", "thread"), "item": ("msg", "event")}
    return {name: f"{prefix}_{UUID(names[of]).hex}" for name, (prefix, of) in prefixes.items()}


@asynccontextmanager
async def world(folder: Path, **options: str) -> AsyncIterator[World]:
    folder.mkdir(exist_ok=True)
    further = {"files_store": f"file://{folder}/files", "webhook_allow_private": True, **options}
    api = create_api(JimsApp(pipeline), store="memory:", **further)
    async with TestClient(api) as client:
        found = World(api, client, {"contact": "bea", "me": "cat", "name": "c"})
        headers = {"x-user": "bea"}
        file = await client.post("/api/v1/files?name=a.txt", headers=headers, content=SECRET.encode())
        names = found.names
        names["file"] = file.json()["file_id"]
        await found.begin_with_agents()
        body = {**AI_SDK, "id": "c"}
        assert (await client.post("/ai-sdk/chat", headers=headers, json=body)).status_code == 200
        deep = {"messages": [{"role": "user", "text": SECRET}], "chat_id": "c"}
        assert (await client.post("/deep-chat", headers=headers, json=deep)).status_code == 200
        begun = {**AG_UI, "threadId": "c", "messages": [{"id": "1", "role": "user", "content": SECRET}]}
        assert (await client.post("/ag-ui", headers=headers, json=begun)).status_code == 200
        told = await client.post(CHAT, headers=headers, json={"message": SECRET, "files": [names["file"]]})
        names["thread"], names["run"] = told.json()["thread_id"], told.headers["x-run-id"]
        events = await client.get(f"/api/v1/threads/{names['thread']}/events", headers=headers)
        names["event"] = events.json()["events"][-1]["event_id"]
        names.update(of_openai(names))
        rated = f"/api/v1/threads/{names['thread']}/events/{names['event']}/feedback"
        assert (await client.put(rated, headers=headers, json={"rating": -1, "comment": SECRET})).status_code == 204
        body = {"message": "ask the boss", "thread_id": names["thread"]}
        answer = await client.post(CHAT, headers=headers, json=body)
        names["of_boss"] = answer.json()["questions"][0]["question_id"]
        asked = await found.ask("bea", "POST", "/mcp", tool("chat", message="ask", thread="{thread}"), names)
        names["asked"], names["state"] = asked.headers["x-run-id"], asked.json()["result"]["requestState"]
        [names["question"]] = asked.json()["result"]["inputRequests"]
        threads = await client.get("/api/v1/threads?contact_id=bea", headers=headers)
        found.threads["bea"] = threads.json()["threads"][-1]["thread_id"]
        assert found.threads["bea"] != names["thread"]
        for user in ("ann", "ann-talks", "blank"):
            mine = await client.post(CHAT, headers={"x-user": user}, json={"message": "hi"})
            found.threads[user] = mine.json()["thread_id"]
        mine = await client.post(CHAT, headers={"x-user": "root"}, json={"message": "hi", "contact_id": "cat"})
        found.threads["talker"] = mine.json()["thread_id"]
        yield found


def each_call() -> Iterator[tuple[str, str, Call]]:
    for (method, path), calls in CALLS.items():
        for call in calls:
            yield method, path, call


async def test_every_private_route_has_an_entry_here(tmp_path: Path) -> None:
    async with world(tmp_path) as found:
        private = [route for route in found.api.routes if not route.public]
        known = {(method, route.path) for route in private if not route.websocket for method in route.methods}
        assert known == CALLS.keys(), "say in CALLS how these routes name what belongs to a contact"
        assert {route.path for route in private if route.websocket} == WEBSOCKETS


async def test_who_may_can_make_each_of_these_calls(tmp_path: Path) -> None:
    """Otherwise the refusals below could come from a mistake in a call."""

    async def check(found: World, method: str, path: str, call: Call) -> None:
        answer = await found.ask("bea", method, path, call, found.names)
        assert answer.status_code == call.opened, (method, path, call, answer.text)
        assert call.shows is None or filled(call.shows, found.names) in answer.text, (method, path, call, answer.text)

    async with world(tmp_path / "reads") as found:
        for method, path, call in each_call():
            if method == "GET":
                await check(found, method, path, call)
    for number, (method, path, call) in enumerate(each_call()):
        if method != "GET":
            async with world(tmp_path / str(number)) as found:
                await check(found, method, path, call)


@pytest.mark.parametrize("user", CALLERS)
async def test_another_caller_cannot_tell_what_belongs_to_a_contact_from_what_does_not_exist(
    user: str, tmp_path: Path
) -> None:
    async with world(tmp_path) as found:
        scopes = {(method, route.path): route.scope for route in found.api.routes for method in route.methods}
        before = await found.state()
        for method, path, call in each_call():
            expected = call.closed if user in BOUND else call.unscoped
            if scopes[method, path] not in (None, "chat") and CALLERS[user] == "chat":
                expected = 403
            if expected is None:
                continue
            absent = missing(found.names)
            there = await found.ask(user, method, path, call, found.names)
            not_there = await found.ask(user, method, path, call, absent)
            assert there.status_code == expected, (method, path, call, there.text)
            assert said(there, found.names) == said(not_there, absent), (method, path, call)
            assert SECRET not in there.text
            assert call.shows is None or filled(call.shows, found.names) not in there.text, (method, path, call)
        assert await found.state() == before


AGENT_ROUTES = ("/mcp", "/a2a")


@pytest.mark.parametrize("user", ["talker", "root"])
async def test_a_host_that_names_people_by_a_header_shows_nobody_what_belongs_to_another_person(
    user: str, tmp_path: Path
) -> None:
    async with world(tmp_path, mcp_contact_header="x-person", a2a_contact_header="x-person") as found:
        before = await found.state()
        for method, path, call in each_call():
            if path.startswith(AGENT_ROUTES) and call.closed is not None:
                absent, person = missing(found.names), {"x-person": "cat"}
                there = await found.ask(user, method, path, call, found.names, person)
                not_there = await found.ask(user, method, path, call, absent, person)
                assert there.status_code == call.closed, (method, path, call, there.text)
                assert said(there, found.names) == said(not_there, absent), (method, path, call)
                assert SECRET not in there.text
                assert call.shows is None or filled(call.shows, found.names) not in there.text, (method, path, call)
        assert await found.state() == before


async def test_every_method_of_a2a_has_an_entry_here(tmp_path: Path) -> None:
    async with world(tmp_path):
        # The plugin has no public name for them, so look for the table that its routes have.
        module = sys.modules["jimsapi_a2a.methods"]
        [*_, methods] = [one for one in gc.get_objects() if type(one) is module.Methods]
        assert methods.table.keys() == A2A_METHODS.keys(), "say in A2A_METHODS how these methods name what is bea's"


async def test_every_method_and_every_tool_of_mcp_has_an_entry_here(tmp_path: Path) -> None:
    source = (ROOT / "plugins" / "jimsapi-mcp" / "jimsapi_mcp" / "server.py").read_text()
    methods = {*re.findall(r'"((?:\w+/)+\w+|ping|initialize)"', source)}
    bodies = [call.body for call in MCP_CALLS if call.body is not None]
    assert methods == {body["method"] for body in bodies} | MCP_WITHOUT_NAMES, "say in MCP_CALLS how they name things"
    async with world(tmp_path) as found:
        listed = await found.ask("bea", "POST", "/mcp", mcp("tools/list", {}), found.names)
        arguments = {
            (one["name"], name) for one in listed.json()["result"]["tools"] for name in one["inputSchema"]["properties"]
        }
    calls = [body["params"] for body in bodies if body["method"] == "tools/call"]
    known = {(call["name"], name) for call in calls for name in call["arguments"]}
    harmless = {("chat", "metadata"), ("chat_start", "metadata"), ("chat_get", "wait")}
    assert arguments == known | harmless, "say in MCP_CALLS how these arguments name what is bea's"


@pytest.mark.parametrize(("user", "status"), [("nobody", 403), ("wrong", 401), ("denied", 403), (None, 401)])
async def test_callers_without_scopes_or_credentials_are_refused_on_every_route(
    user: str | None, status: int, tmp_path: Path
) -> None:
    async with world(tmp_path) as found:
        before = await found.state()
        plain = Call({"id": "{name}"}, body={})
        for (method, path), calls in CALLS.items():
            for call in calls or [plain]:
                there = await found.ask(user, method, path, call, found.names)
                not_there = await found.ask(user, method, path, call, missing(found.names))
                assert there.status_code == status, (method, path, call, there.text)
                assert said(there, found.names) == said(not_there, missing(found.names)), (method, path, call)
        for path in WEBSOCKETS:
            headers = {} if user is None else {"x-user": user}
            with pytest.raises((HandshakeRefused, WebSocketDisconnected)) as refused:
                await send_over(found, path, headers)
            if status == 403:
                assert isinstance(refused.value, HandshakeRefused)
                assert refused.value.response.status_code == 403
        assert await found.state() == before


async def send_over(found: World, path: str, headers: Mapping[str, str]) -> None:
    """Open a WebSocket and say something.

    A page may send its credentials in the first frame, so a handshake without any is accepted at first.
    """
    async with found.client.websocket(path, headers=dict(headers)) as ws:
        await ws.send_json({"type": "chat", "message": "hi", "thread_id": found.names["thread"]})
        await ws.receive()


async def test_a_reader_of_all_threads_begins_no_run_and_stores_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as found:
        before = await found.state()
        routes = {route.path: route.scope for route in found.api.routes}
        for method, path, call in each_call():
            if routes[path] == "chat" and path not in OPEN_TO_ALL:
                answer = await found.ask("reader", method, path, call, found.names)
                assert answer.status_code == 403, (method, path, call, answer.text)
        assert await found.state() == before


FRAMES: list[dict[str, Any]] = [
    {"type": "chat", "message": "hi", "thread_id": "{thread}"},
    {"type": "chat", "message": "hi", "files": ["{file}"]},
    {"type": "chat", "answers": {"{question}": "yes"}, "thread_id": "{thread}"},
    {"type": "chat", "answers": {"{of_boss}": "yes"}, "thread_id": "{thread}"},
    {"type": "chat", "message": "hi", "contact_id": "{contact}"},
    {"type": "cancel", "run_id": "{run}"},
]


@pytest.mark.parametrize("user", ["ann", "ann-talks", "blank"])
async def test_the_same_holds_for_frames_of_a_websocket(user: str, tmp_path: Path) -> None:
    async with world(tmp_path) as found:
        before = await found.state()
        for frame in FRAMES:
            answers = []
            for names in (found.names, missing(found.names)):
                async with found.client.websocket("/api/v1/chat/ws", headers={"x-user": user}) as ws:
                    await ws.send_json(filled(frame, names))
                    answer = await ws.receive_json()
                    assert answer["type"] == "error", answer
                    answers.append(without(json.dumps(answer), names))
            assert answers[0] == answers[1], frame
        assert await found.state() == before


def said(answer: httpx.Response, names: Mapping[str, str]) -> tuple[int, str, dict[str, str]]:
    """What a caller reads, without the identifiers that it has sent itself."""
    ids = ("x-request-id", "x-run-id", "date")
    headers = {name: value for name, value in answer.headers.items() if name not in ids and name != "content-length"}
    return answer.status_code, without(answer.text, names), headers


def without(text: str, names: Mapping[str, str]) -> str:
    for name, value in sorted(names.items(), key=lambda item: -len(item[1])):
        text = text.replace(value, f"<{name}>") if len(value) > 8 else text
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "<id>", text)
