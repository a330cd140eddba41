"""What a caller sends beside a message: the pipeline reads it, and the thread keeps it."""

from typing import Any

import pytest

from jimsapi import JimsApp, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.api.conversation import CHAT, RUNS, STREAM, body

pytestmark = pytest.mark.anyio

METADATA: dict[str, Any] = {"page": "/checkout", "n": 1.5, "nested": {"é": [None, "🦊"]}}


class Noting:
    """A pipeline that notes the metadata of its messages."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, ctx: ThreadContext) -> None:
        self.seen.append(ctx.metadata)
        ctx.send_message("noted")


@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_the_pipeline_reads_it_and_the_thread_has_it_before_the_message(store: str, tmp_path: Any) -> None:
    noting = Noting()
    url = f"sqlite:///{tmp_path}/jims.db" if store == "sqlite" else store
    async with TestClient(create_api(noting, store=url)) as client:
        first = (await client.post(CHAT, json=body("hi", metadata=METADATA))).json()
        await client.post(STREAM, json=body("hi", metadata={"other": 1}))
        await client.post(CHAT, json=body("hi"))
        assert noting.seen == [METADATA, {"other": 1}, {}]
        page = (await client.get(f"/api/v1/threads/{first['thread_id']}/events")).json()
        types = [event["event_type"] for event in page["events"]]
        assert types == [
            "jims.lifecycle.thread_created",
            *["message.metadata", "comm.user_message", "comm.assistant_message"] * 2,
            *["comm.user_message", "comm.assistant_message"],
        ]
        beside, message = page["events"][1:3]
        assert beside["event_data"] == {"message_id": message["event_id"], "metadata": METADATA}
        assert message["event_data"] == {"role": "user", "content": "hi"}


async def test_it_is_no_part_of_the_answer() -> None:
    async with TestClient(create_api(Noting(), store="memory:")) as client:
        answer = (await client.post(CHAT, json=body("hi", metadata=METADATA))).json()
        assert [event["event_type"] for event in answer["events"]] == ["comm.assistant_message"]


async def test_earlier_metadata_is_not_that_of_a_later_message() -> None:
    noting = Noting()
    async with TestClient(create_api(noting, store="memory:")) as client:
        await client.post(CHAT, json=body("hi", metadata=METADATA))
        await client.post(CHAT, json=body("hi", metadata={}))
        await client.post(CHAT, json=body("hi", metadata=None))
    assert noting.seen == [METADATA, {}, {}]


async def test_a_background_run_and_a_conversation_start_read_it() -> None:
    greeted: list[Any] = []

    async def greet(ctx: ThreadContext) -> None:
        greeted.append(ctx.metadata)

    noting = Noting()
    async with TestClient(create_api(JimsApp(noting, conversation_start_pipeline=greet), store="memory:")) as client:
        sent = body("hi", metadata=METADATA, run_conversation_start_on_new_thread=True)
        run = (await client.post(RUNS, json=sent)).json()
        while (await client.get(f"{RUNS}/{run['run_id']}")).json()["result"] is None:
            pass
    assert (greeted, noting.seen) == ([METADATA], [METADATA])


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [([], "dict_type"), ("text", "dict_type"), ({"x": "\0"}, "string_contains_nul")],
)
async def test_metadata_that_cannot_be_stored_is_refused_and_stores_nothing(metadata: Any, kind: str | None) -> None:
    noting = Noting()
    async with TestClient(create_api(noting, store="memory:")) as client:
        refused = await client.post(CHAT, json=body("hi", metadata=metadata))
        assert refused.status_code == 422
        assert kind in (None, refused.json()["detail"][0]["type"])
        assert noting.seen == []
        assert (await client.get("/api/v1/threads?contact_id=ann")).json()["threads"] == []


async def test_a_repeated_key_with_other_metadata_is_refused() -> None:
    noting = Noting()
    headers = {"idempotency-key": "k"}
    async with TestClient(create_api(noting, store="memory:")) as client:
        first = await client.post(CHAT, json=body("hi", metadata=METADATA), headers=headers)
        again = await client.post(CHAT, json=body("hi", metadata=METADATA), headers=headers)
        assert again.json() == first.json()
        for other in (body("hi"), body("hi", metadata={"page": "/"})):
            assert (await client.post(CHAT, json=other, headers=headers)).status_code == 422
    assert noting.seen == [METADATA]
