"""The items of long conversations, in pages from either end, in every store that this environment has."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jimsapi import create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.stores import MemoryStore
from tests.apps.scripted import Scripted

pytestmark = pytest.mark.anyio

STEPS = "think Hm; tool a; event x; event y; stream Hi; send Ho; buttons Choose"


@pytest.fixture(params=["memory:", "sqlite:///{folder}/threads.db"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TestClient]:
    async with TestClient(create_api(Scripted(), store=request.param.format(folder=tmp_path))) as client:
        yield client


async def conversation(client: TestClient, turns: int) -> str:
    made = (await client.post("/v1/conversations", json={})).json()["id"]
    for _ in range(turns):
        answer = await client.post("/v1/responses", json={"input": STEPS, "conversation": made})
        assert answer.status_code == 200, answer.text
    return str(made)


async def page(client: TestClient, named: str, **query: Any) -> Any:
    answer = await client.get(f"/v1/conversations/{named}/items", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def all_items(client: TestClient, named: str, order: str, limit: int) -> list[Any]:
    items: list[Any] = []
    after: dict[str, str] = {}
    while True:
        found = await page(client, named, order=order, limit=limit, **after)
        items += found["data"]
        assert (found["first_id"], found["last_id"]) == (found["data"][0]["id"], found["data"][-1]["id"])
        if not found["has_more"]:
            return items
        assert len(found["data"]) == limit
        after = {"after": found["last_id"]}


@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_pages_from_either_end_have_every_item_once(client: TestClient, limit: int) -> None:
    named = await conversation(client, 6)
    oldest = await all_items(client, named, "asc", limit)
    assert [item["type"] for item in oldest] == [
        *["message", "reasoning", "mcp_call", "message", "message", "message"] * 6
    ]
    assert len({item["id"] for item in oldest}) == 36
    assert await all_items(client, named, "desc", limit) == oldest[::-1]
    assert (await page(client, named))["data"] == oldest[::-1][:20]


async def test_a_page_costs_the_same_in_a_long_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []

    def count(name: str) -> None:
        read = getattr(MemoryStore, name)

        def counted(self: MemoryStore, *arguments: Any) -> Any:
            reads.append(name)
            return read(self, *arguments)

        monkeypatch.setattr(MemoryStore, name, counted)

    count("events")
    count("load_events")
    async with TestClient(create_api(Scripted(), store="memory:")) as client:
        named = await conversation(client, 60)
        for order in ("asc", "desc"):
            after: dict[str, str] = {}
            costs = []
            for _ in range(15):
                reads.clear()
                found = await page(client, named, order=order, limit=20, **after)
                after = {"after": found["last_id"]}
                costs.append(len(reads))
            assert max(costs) <= 2, order


async def test_an_empty_conversation_has_an_empty_page(client: TestClient) -> None:
    named = await conversation(client, 0)
    empty: dict[str, Any] = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert await page(client, named) == await page(client, named, order="asc") == empty
