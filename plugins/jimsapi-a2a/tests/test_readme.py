"""The page of the plugin: its agent refunds an order, as the page says."""

from typing import Any

import pytest
from a2a_calls import result, send, state, texts

from jimsapi import JimsApp, create_api
from jimsapi.asgi.testing import TestClient
from tests.docs.snippets import modules

pytestmark = pytest.mark.anyio

README = "plugins/jimsapi-a2a/README.md"


def app_of_the_page() -> JimsApp:
    names: dict[str, Any] = {"__name__": "bot"}
    exec(compile(modules(README)["bot.py"], README, "exec"), names)
    app = names["app"]
    assert isinstance(app, JimsApp)
    return app


async def test_the_agent_of_the_page_asks_before_it_refunds() -> None:
    async with TestClient(create_api(app_of_the_page(), store="memory:")) as client:
        card = (await client.get("/.well-known/agent-card.json")).json()
        assert (card["name"], card["skills"][0]["id"]) == ("refunds", "refund-an-order")
        task = await send(client, "refund order 7")
        assert state(task) == "INPUT_REQUIRED"
        assert texts(await send(client, "yes", taskId=task["id"])) == ["The money is on its way."]
        assert state(await result(client, "GetTask", {"id": task["id"]})) == "COMPLETED"
