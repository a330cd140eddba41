"""Resolvers see the identity and the headers that they declare, and can ask for the contact's last thread."""

from pathlib import Path
from typing import Any

import pytest

from jimsapi import Inbound, ThreadContext, create_api
from jimsapi.api.admission import Gate
from jimsapi.asgi.testing import TestClient
from jimsapi.plugins.errors import PluginError
from jimsapi.runs.admission import PUBLIC
from tests.plugins.distributions import install

pytestmark = pytest.mark.anyio

DESK = """
from jimsapi import *

class Desk:
    name = "desk"
    headers = ("X-Desk", "x-absent")

    def __init__(self):
        self.seen = []

    async def resolve(self, inbound, context):
        desk = context.headers.get("x-desk")
        last = await context.last_thread()
        self.seen.append({
            "subject": context.identity.subject,
            "may read": context.identity.may("threads"),
            "headers": sorted(context.headers.items()),
            "last": None if last is None else (last.thread_id, last.thread_config),
        })
        if desk is None:
            return None
        name = f"{desk}:{inbound.contact_id}"
        return [ByExternalId(name), New(external_id=name, config={"desk": desk})]

DESK = Desk()

@hookimpl
def jimsapi_thread_resolver():
    return DESK
"""
OLD = """
from jimsapi import *

class Old:
    name = "old"
    seen = []
    async def resolve(self, inbound, now=None):
        self.seen.append((inbound.contact_id, now))
        return None

@hookimpl
def jimsapi_thread_resolver():
    return Old()
"""


async def echo(ctx: ThreadContext) -> None:
    ctx.send_message(f"{ctx.thread_id}")


@pytest.fixture
def desk(site: Path) -> Any:
    install(site, "acme-desk", DESK)
    import acme_desk  # type: ignore[import-not-found]

    return acme_desk.DESK


async def chat(client: TestClient, headers: dict[str, str] | None = None, contact: str = "ann") -> str:
    body = {"contact_id": contact, "message": "hi"}
    answer = await client.post("/api/v1/chat", json=body, headers={"authorization": "Bearer k", **(headers or {})})
    assert answer.status_code == 200, answer.text
    thread: str = answer.json()["thread_id"]
    return thread


async def test_a_resolver_sees_the_caller_the_declared_headers_and_the_last_thread(desk: Any) -> None:
    async with TestClient(create_api(echo, store="memory:", api_key="k")) as client:
        one = await chat(client, {"X-DESK": "one", "x-secret": "s"})
        two = await chat(client, {"x-desk": "two"})
        assert await chat(client, {"x-desk": "one"}) == one
        assert await chat(client) == two
    first, second, _, last = desk.seen
    assert first["subject"] == "key"
    assert first["may read"] is True
    assert first["headers"] == [("x-desk", "one")]
    assert first["last"] is None
    assert (str(second["last"][0]), second["last"][1]) == (one, b'{"desk":"one"}')
    assert last["headers"] == []
    assert str(last["last"][0]) == two


@pytest.mark.parametrize("options", [{}, {"api_key": "k"}])
async def test_the_messages_of_a_websocket_have_the_headers_of_its_handshake(desk: Any, options: Any) -> None:
    headers = {"authorization": "Bearer k", "x-desk": "one"}
    api = create_api(echo, store="memory:", **options)
    async with TestClient(api) as client, client.websocket("/api/v1/chat/ws", headers=headers) as ws:
        for _ in range(2):
            await ws.send_json({"type": "chat", "contact_id": "ann", "message": "hi"})
            while (await ws.receive_json())["type"] != "result":
                pass
    assert [seen["headers"] for seen in desk.seen] == [[("x-desk", "one")]] * 2


async def test_a_message_that_comes_through_no_private_route_has_no_headers(desk: Any) -> None:
    served = create_api(echo, store="memory:", api_key="k")
    async with TestClient(served):
        assert served.service is not None
        await served.service.chat(Inbound(contact_id="ann", message="hi"), PUBLIC)
    assert [seen["headers"] for seen in desk.seen] == [[]]


async def test_each_resolver_sees_only_the_headers_that_it_declares(desk: Any, site: Path) -> None:
    install(site, "a-first", DESK.replace('("X-Desk", "x-absent")', '("x-other",)'))
    import a_first  # type: ignore[import-not-found]

    async with TestClient(create_api(echo, store="memory:", api_key="k")) as client:
        await chat(client, {"x-desk": "one", "x-other": "two"})
    assert [seen["headers"] for seen in a_first.DESK.seen] == [[("x-other", "two")]]
    assert [seen["headers"] for seen in desk.seen] == [[("x-desk", "one")]]


async def test_a_resolver_of_one_parameter_works_as_before_and_costs_no_headers(site: Path) -> None:
    install(site, "a-old", OLD)
    served = create_api(echo, store="memory:", api_key="k")
    async with TestClient(served) as client:
        await chat(client)
        assert type(served.admit) is Gate
    import a_old  # type: ignore[import-not-found]

    assert a_old.Old.seen == [("ann", None)]


async def test_headers_that_are_one_text_stop_the_start(site: Path) -> None:
    install(site, "acme-desk", DESK.replace('("X-Desk", "x-absent")', '"x-desk"'))
    with pytest.raises(PluginError, match="has an attribute headers that is not a list of texts"):
        async with create_api(echo, store="memory:", api_key="k").lifespan():
            pass
