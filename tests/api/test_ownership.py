"""Whose conversation it is, asked of every route that there is: a new route cannot forget it.

A route that these tests do not know fails them until it is told here what it does with somebody else's thread.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.api.app import Api
from jimsapi.asgi.routing import Route
from jimsapi.asgi.testing import TestClient
from tests.plugins.distributions import install
from tests.serving import ROOT

pytestmark = pytest.mark.anyio

Call = tuple[str, str, dict[str, Any]]

CHATS = [("POST", "/api/v1/chat"), ("POST", "/api/v1/chat/stream")]
"""Routes that answer a message: the scope `chat` is enough for them."""

NAMES_THREAD = {chat: {"message": "hi", "thread_id": "THREAD"} for chat in CHATS}
"""Routes that are told a thread in their body, with such a body."""

NAMES_CONTACT = {
    **{chat: {"json": {"message": "hi", "contact_id": "CONTACT"}} for chat in CHATS},
    ("GET", "/api/v1/threads"): {"params": {"contact_id": "CONTACT"}},
    ("DELETE", "/api/v1/contacts"): {"params": {"contact_id": "CONTACT"}},
}
"""Routes that are told a contact, and how."""


async def tell(ctx: ThreadContext) -> None:
    """Answer with all that was said before."""
    ctx.send_message(" ".join(str(said["content"]) for said in ctx.history))


@asynccontextmanager
async def serving(site: Path) -> AsyncIterator[tuple[Api, httpx.AsyncClient, str]]:
    """The API, a client of it, and the thread of a contact `bea` in which a secret was said."""
    install(site, "jimsapi-users", (ROOT / "tests" / "apps" / "jimsapi_users.py").read_text())
    api = create_api(tell, store="memory:")
    async with TestClient(api) as client:
        said = await client.post(
            "/api/v1/chat", headers={"x-user": "root"}, json={"contact_id": "bea", "message": "secret"}
        )
        yield api, client, said.json()["thread_id"]


def private(api: Api) -> list[Route]:
    return [route for route in api.routes if not route.public]


def calls(route: Route, thread_id: str, contact_id: str) -> Iterable[Call]:
    """Every way in which a route can be told of a thread or a contact."""
    for method in route.methods:
        key = (method, route.path)
        if "{" in route.path:
            path = "/".join(thread_id if part.startswith("{") else part for part in route.path.split("/"))
            yield method, path, {}
        if key in NAMES_THREAD:
            yield method, route.path, {"json": NAMES_THREAD[key] | {"thread_id": thread_id}}
        if key in NAMES_CONTACT:
            told = {
                where: {name: contact_id if value == "CONTACT" else value for name, value in fields.items()}
                for where, fields in NAMES_CONTACT[key].items()
            }
            yield method, route.path, told


async def test_every_private_route_is_known_here_and_names_its_scope(site: Path) -> None:
    async with serving(site) as (api, _, thread_id):
        assert private(api)
        for route in private(api):
            assert route.scope in ("chat", "threads"), f"{route.path} names no scope"
            told = {method for method, _, _ in calls(route, thread_id, "bea")}
            assert told == set(route.methods), f"say in this file how {route.path} is told of a thread or a contact"


async def test_a_bound_caller_finds_a_foreign_thread_and_contact_on_no_route(site: Path) -> None:
    async with serving(site) as (api, client, thread_id):
        for route in private(api):
            for method, path, options in calls(route, thread_id, "bea"):
                answer = await client.request(method, path, headers={"x-user": "ann"}, **options)
                names_thread = thread_id in path + str(options)
                assert answer.status_code == (404 if names_thread else 403), (method, path, options, answer.text)
                assert "secret" not in answer.text
        untouched = await client.get(f"/api/v1/threads/{thread_id}/events", headers={"x-user": "root"})
        assert len(untouched.json()["events"]) == 3


async def test_an_unbound_caller_with_chat_alone_is_shown_and_deletes_nobody_s_conversation(site: Path) -> None:
    async with serving(site) as (api, client, thread_id):
        for route in private(api):
            for method, path, options in calls(route, thread_id, "bea"):
                if (method, route.path) in CHATS:
                    continue  # it may speak for every contact, as the owner's text has it
                answer = await client.request(method, path, headers={"x-user": "talker"}, **options)
                assert answer.status_code == 403, (method, path, options, answer.text)
                assert "secret" not in answer.text
        untouched = await client.get(f"/api/v1/threads/{thread_id}/events", headers={"x-user": "root"})
        assert len(untouched.json()["events"]) == 3


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
    async with serving(site) as (api, client, thread_id):
        leak = next(route for route in private(api) if route.path.startswith("/leak"))
        assert leak.scope is None
        ((method, path, _),) = [call for call in calls(leak, thread_id, "bea") if call[0] == "GET"]
        assert (await client.request(method, path, headers={"x-user": "ann"})).status_code == 200
        assert UUID(path.rpartition("/")[2])
