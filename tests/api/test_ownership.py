"""Whose conversation it is, asked of every route that there is: a new route cannot forget it.

A route whose methods `calls` does not make fails these tests until it is told here what it does with somebody else's
thread or run. The parameter of a path is taken for a thread, unless `RUNS` has the route.
`plugins/tests/test_ownership.py` asks the same of the routes of plugins.
"""

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.api.app import Api
from jimsapi.asgi.route import Route
from jimsapi.asgi.testing import HandshakeRefused, TestClient
from jimsapi.runs import SCOPES
from tests.plugins.distributions import install
from tests.serving import ROOT

pytestmark = pytest.mark.anyio

Call = tuple[str, str, dict[str, Any]]

CHATS = [("POST", "/api/v1/chat"), ("POST", "/api/v1/chat/stream"), ("POST", "/api/v1/runs")]
"""Routes that answer a message: the scope `chat` is enough for them."""

NAMES_THREAD = {chat: {"message": "hi", "thread_id": "THREAD"} for chat in CHATS}
"""Routes that are told a thread in their body, with such a body."""

RUN_LIST, CONTACT_LIST = ("GET", "/api/v1/runs"), ("GET", "/api/v1/contacts")
"""Routes that list what is there of everybody, unless they are told a thread or a contact."""

NAMES_CONTACT = {
    **{chat: {"json": {"message": "hi", "contact_id": "CONTACT"}} for chat in CHATS},
    ("GET", "/api/v1/threads"): {"params": {"contact_id": "CONTACT"}},
    ("DELETE", "/api/v1/contacts"): {"params": {"contact_id": "CONTACT"}},
    ("GET", "/api/v1/usage"): {"params": {"contact_id": "CONTACT"}},
    RUN_LIST: {"params": {"contact_id": "CONTACT"}},
    CONTACT_LIST: {"params": {"contact_id": "CONTACT"}},
}
"""Routes that are told a contact, and how."""

BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("PATCH", "/api/v1/threads/{id:uuid}"): {"json": {"title": "mine"}},
    ("POST", "/api/v1/threads/{id:uuid}/fork"): {"json": {}},
    ("PUT", "/api/v1/threads/{id:uuid}/events/{event_id:uuid}/feedback"): {"json": {"rating": 1}},
}
"""Routes that are told a thread in their path, and need a body."""

RUNS = {
    ("GET", "/api/v1/runs/{id:uuid}"): 200,
    ("GET", "/api/v1/runs/{id:uuid}/stream"): 200,
    ("POST", "/api/v1/runs/{id:uuid}/cancel"): 409,
}
"""Routes that are told a run, and what they say of one that has ended. Which scope they need depends on whose it is."""

CONVERSATIONS = ["/api/v1/chat/ws"]
"""WebSockets over which messages are sent and runs cancelled: what is said there is tried in frames."""


async def tell(ctx: ThreadContext) -> None:
    """Answer with all that was said before."""
    ctx.send_message(" ".join(str(said["content"]) for said in ctx.history))


class Foreign(NamedTuple):
    """A thread in which a secret was said, and the run that answered it."""

    thread_id: str
    run_id: str


@asynccontextmanager
async def serving(site: Path) -> AsyncIterator[tuple[Api, TestClient, Foreign]]:
    """The API, a client of it, and what `root` said to it for a contact `bea`."""
    install(site, "jimsapi-users", (ROOT / "tests" / "apps" / "jimsapi_users.py").read_text())
    api = create_api(tell, store="memory:")
    async with TestClient(api) as client:
        yield api, client, await say(client, "root", "bea", "secret")


async def say(client: httpx.AsyncClient, user: str, contact: str, message: str) -> Foreign:
    body = {"contact_id": contact, "message": message}
    said = await client.post("/api/v1/chat", headers={"x-user": user}, json=body)
    return Foreign(said.json()["thread_id"], said.headers["x-run-id"])


def private(api: Api) -> list[Route]:
    return [route for route in api.routes if not route.public]


def calls(route: Route, foreign: Foreign, contact_id: str) -> Iterable[Call]:
    """Every way in which a route can be told of a thread, a run or a contact."""
    thread_id, run_id = foreign
    for method in route.methods:
        key = (method, route.path)
        if "{" in route.path:
            named = run_id if key in RUNS else thread_id
            path = re.sub(r"\{\w+:uuid\}", named, route.path)
            assert "{" not in path, f"say in this file what the parameters of {route.path} name"
            yield method, path, BODIES.get(key, {})
        if key in NAMES_THREAD:
            yield method, route.path, {"json": NAMES_THREAD[key] | {"thread_id": thread_id}}
        if key == RUN_LIST:
            yield method, route.path, {"params": {"thread_id": thread_id}}
        if key in NAMES_CONTACT:
            told = {
                where: {name: contact_id if value == "CONTACT" else value for name, value in fields.items()}
                for where, fields in NAMES_CONTACT[key].items()
            }
            yield method, route.path, told


async def test_every_private_route_is_known_here_and_names_its_scope(site: Path) -> None:
    async with serving(site) as (api, _, foreign):
        assert private(api)
        for route in private(api):
            if route.websocket:
                assert (route.path in CONVERSATIONS, route.scope) == (True, "chat"), f"say here what {route.path} does"
                continue
            told = {method for method, _, _ in calls(route, foreign, "bea")}
            assert told == set(route.methods), f"say in this file how {route.path} is told of a thread or a contact"
            if not {(method, route.path) for method in route.methods} <= RUNS.keys():
                assert route.scope in SCOPES, f"{route.path} has the scope {route.scope!r}, which is none of `SCOPES`"


async def test_a_bound_caller_finds_a_foreign_thread_run_and_contact_on_no_route(site: Path) -> None:
    async with serving(site) as (api, client, foreign):
        for user in ("ann", "ann-talks"):
            for route in private(api):
                for method, path, options in calls(route, foreign, "bea"):
                    if user == "ann-talks" and route.scope not in (None, "chat"):
                        continue
                    answer = await client.request(method, path, headers={"x-user": user}, **options)
                    named = any(name in path + str(options) for name in foreign)
                    assert answer.status_code == (404 if named else 403), (method, path, options, answer.text)
                    assert "secret" not in answer.text
        assert await untouched(client, foreign)


async def test_an_unbound_caller_with_chat_alone_is_shown_and_deletes_nobody_s_conversation(site: Path) -> None:
    async with serving(site) as (api, client, foreign):
        for route in private(api):
            for method, path, options in calls(route, foreign, "bea"):
                key = (method, route.path)
                if key in CHATS:
                    continue  # it may speak for every contact, as the owner's text has it
                answer = await client.request(method, path, headers={"x-user": "talker"}, **options)
                assert answer.status_code == (404 if key in RUNS else 403), (method, path, options, answer.text)
                assert "secret" not in answer.text
        assert await untouched(client, foreign)


async def untouched(client: httpx.AsyncClient, foreign: Foreign) -> bool:
    events = await client.get(f"/api/v1/threads/{foreign.thread_id}/events", headers={"x-user": "root"})
    run = await client.get(f"/api/v1/runs/{foreign.run_id}", headers={"x-user": "root"})
    return (len(events.json()["events"]), run.json()["status"]) == (3, "completed")


async def statuses(api: Api, client: httpx.AsyncClient, user: str, run: Foreign) -> dict[tuple[str, str], int]:
    """What the routes of runs say to somebody who names a run."""
    asked = [(route, call) for route in private(api) for call in calls(route, run, "bea")]
    return {
        (method, route.path): (await client.request(method, path, headers={"x-user": user})).status_code
        for route, (method, path, _) in asked
        if (method, route.path) in RUNS
    }


@pytest.mark.parametrize(("user", "contact"), [("talker", "bea"), ("ann-talks", "ann"), ("ann", "ann"), ("root", "x")])
async def test_a_caller_sees_and_cancels_its_own_runs(site: Path, user: str, contact: str) -> None:
    async with serving(site) as (api, client, _):
        assert await statuses(api, client, user, await say(client, user, contact, "mine")) == RUNS


@pytest.mark.parametrize(("user", "contact"), [("reader", "bea"), ("root", "bea"), ("ann", "ann")])
async def test_who_may_see_threads_sees_the_runs_of_others_there(site: Path, user: str, contact: str) -> None:
    async with serving(site) as (api, client, _):
        assert await statuses(api, client, user, await say(client, "talker", contact, "hi")) == RUNS


@pytest.mark.parametrize(("user", "by", "contact"), [("ann-talks", "root", "ann"), ("talker", "ann", "ann")])
async def test_who_may_not_finds_no_run_of_others_even_for_its_own_contact(
    site: Path, user: str, by: str, contact: str
) -> None:
    async with serving(site) as (api, client, _):
        run = await say(client, by, contact, "hi")
        assert await statuses(api, client, user, run) == dict.fromkeys(RUNS, 404)


async def test_a_list_has_runs_and_contacts_of_everybody_only_for_a_caller_that_is_not_bound(site: Path) -> None:
    async with serving(site) as (_, client, foreign):
        own = await say(client, "ann", "ann", "mine")
        for user, runs, contacts in (
            ("root", [own.run_id, foreign.run_id], ["ann", "bea"]),
            ("reader", [own.run_id, foreign.run_id], ["ann", "bea"]),
            ("ann", [own.run_id], ["ann"]),
            ("bea", [foreign.run_id], ["bea"]),
            ("blank", [], []),
        ):
            of_runs, of_contacts = [
                await client.get(path, headers={"x-user": user}) for _, path in (RUN_LIST, CONTACT_LIST)
            ]
            assert [run["run_id"] for run in of_runs.json()["runs"]] == runs
            assert [contact["contact_id"] for contact in of_contacts.json()["contacts"]] == contacts
            assert "secret" not in of_runs.text
        for user in ("talker", "ann-talks", "nobody"):
            for _, path in (RUN_LIST, CONTACT_LIST):
                assert (await client.get(path, headers={"x-user": user})).status_code == 403


async def test_who_may_see_threads_alone_begins_no_run(site: Path) -> None:
    async with serving(site) as (_, client, _):
        for method, path in CHATS:
            body = {"contact_id": "bea", "message": "hi"}
            assert (await client.request(method, path, headers={"x-user": "reader"}, json=body)).status_code == 403
        for path in CONVERSATIONS:
            with pytest.raises(HandshakeRefused, match="403"):
                async with client.websocket(path, headers={"x-user": "reader"}):
                    pass


async def test_who_may_do_nothing_is_refused_on_every_route(site: Path) -> None:
    async with serving(site) as (api, client, foreign):
        for route in private(api):
            for method, path, options in calls(route, foreign, "bea"):
                answer = await client.request(method, path, headers={"x-user": "nobody"}, **options)
                assert answer.status_code == 403, (method, path, options, answer.text)


FOREIGN_FRAMES: list[tuple[str, dict[str, Any], str]] = [
    ("ann", {"type": "chat", "message": "hi", "thread_id": "THREAD"}, "Thread 'THREAD' not found"),
    ("ann", {"type": "chat", "message": "hi", "contact_id": "bea"}, "These credentials are for another contact_id"),
    ("ann", {"type": "cancel", "run_id": "RUN"}, "Run not found: RUN"),
    ("talker", {"type": "cancel", "run_id": "RUN"}, "Run not found: RUN"),
    ("root", {"type": "cancel", "run_id": "RUN"}, "Run 'RUN' has ended: it is completed"),
]


@pytest.mark.parametrize(("user", "frame", "detail"), FOREIGN_FRAMES)
async def test_a_conversation_over_a_websocket_is_held_to_the_same(
    site: Path, user: str, frame: dict[str, Any], detail: str
) -> None:
    async with serving(site) as (_, client, foreign):
        named = {"THREAD": foreign.thread_id, "RUN": foreign.run_id}
        sent = {name: named.get(value, value) for name, value in frame.items()}
        for place, name in named.items():
            detail = detail.replace(place, name)
        for path in CONVERSATIONS:
            async with client.websocket(path, headers={"x-user": user}) as ws:
                await ws.send_json(sent)
                answer = await ws.receive_json()
                assert (answer["type"], answer["detail"]) == ("error", detail)
        assert await untouched(client, foreign)


async def test_a_route_of_a_plugin_that_forgets_is_noticed(site: Path) -> None:
    install(
        site,
        "leaky",
        """
        from jimsapi import JSONResponse, hookimpl

        @hookimpl
        def jimsapi_routes(router):
            @router.get("/leak/{thread_id:uuid}")
            async def leak(request):
                return JSONResponse({})
        """,
    )
    async with serving(site) as (api, client, foreign):
        leak = next(route for route in private(api) if route.path.startswith("/leak"))
        assert leak.scope is None
        ((method, path, _),) = [call for call in calls(leak, foreign, "bea") if call[0] == "GET"]
        assert (await client.request(method, path, headers={"x-user": "ann"})).status_code == 200
        assert UUID(path.rpartition("/")[2])
