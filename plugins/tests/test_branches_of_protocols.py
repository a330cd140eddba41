"""Conversations that their clients have changed, in every store: they go on in a fork of their thread."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.plugins.modules import load

pytestmark = pytest.mark.anyio

POSTGRES = Path(__file__).resolve().parents[1] / "jimsapi-postgres" / "tests" / "database.py"


async def tell(ctx: ThreadContext) -> None:
    """Answer with all earlier messages of the user."""
    ctx.send_message(" ".join(str(said["content"]) for said in ctx.history if said["role"] == "user"))


@pytest.fixture(scope="module")
def postgres() -> Iterator[Any]:
    with load(POSTGRES).Postgres(fsync="off") as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TestClient]:
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        with server.database() as name:
            async with TestClient(create_api(tell, store=server.url(name))) as client:
                yield client
    else:
        store = f"sqlite:///{tmp_path}/jims.db" if request.param == "sqlite" else "memory:"
        async with TestClient(create_api(tell, store=store)) as client:
            yield client


async def ag_ui(client: TestClient, *messages: tuple[str, str], **headers: str) -> str:
    """Send messages with their identifiers, those of the assistant with the role in their text. Returns the answer."""
    listed = [
        {"id": name, "role": "assistant" if text == "(answer)" else "user", "content": text} for name, text in messages
    ]
    empty: dict[str, Any] = {"state": {}, "tools": [], "context": [], "forwardedProps": {}}
    body = {"threadId": "t", "runId": "r", "messages": listed, **empty}
    answer = await client.post("/ag-ui", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.text


async def ai_sdk(client: TestClient, *messages: tuple[str, str], trigger: str, **headers: str) -> str:
    listed = [{"id": name, "role": "user", "parts": [{"type": "text", "text": text}]} for name, text in messages]
    body = {"id": "t", "messages": listed, "trigger": trigger}
    answer = await client.post("/ai-sdk/chat", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.text


ONE, TWO, THREE, ANSWER = ("1", "one"), ("2", "two"), ("3", "three"), ("a", "(answer)")


async def test_an_ag_ui_conversation_is_forked_by_the_identifiers_of_its_client(client: TestClient) -> None:
    await ag_ui(client, ONE)
    await ag_ui(client, ONE, ANSWER, TWO)
    await ag_ui(client, ONE, ANSWER, TWO, ANSWER, THREE)
    assert '"one two"' in await ag_ui(client, ONE, ANSWER, TWO)
    assert '"one TWO"' in await ag_ui(client, ONE, ANSWER, ("4", "TWO"))
    assert '"one TWO five"' in await ag_ui(client, ONE, ANSWER, ("4", "TWO"), ANSWER, ("5", "five"))


async def test_the_ai_sdk_regenerates_by_the_identifiers_of_its_client(client: TestClient) -> None:
    for name, text in (ONE, TWO, ("3", "two")):  # each without those before it
        await ai_sdk(client, (name, text), trigger="submit-message")
    assert '"one two"' in await ai_sdk(client, TWO, trigger="regenerate-message")


async def test_a_request_that_is_repeated_with_its_key_is_answered_once(client: TestClient) -> None:
    await ag_ui(client, ONE)
    assert '"one"' in await ag_ui(client, ONE, **{"idempotency-key": "k-1"})
    assert '"one"' in await ag_ui(client, ONE, **{"idempotency-key": "k-1"})
    assert '"one two"' in await ag_ui(client, ONE, ANSWER, TWO)
    await ai_sdk(client, ONE, trigger="submit-message")
    key = {"idempotency-key": "k-2"}
    again = [await ai_sdk(client, ONE, trigger="regenerate-message", **key) for _ in range(2)]
    assert again[0] == again[1]
    assert len((await client.get("/api/v1/threads?contact_id=t")).json()["threads"]) == 4  # each was forked once
