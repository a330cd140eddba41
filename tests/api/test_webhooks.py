"""`webhook_url` over HTTP: whichever way a message is sent, its sender is called when the run has ended."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import httpx
import pytest

from jimsapi import create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.plugins.errors import StartError
from tests.apps.scripted import Scripted
from tests.cloud_events import read_cloud_event
from tests.runs.receiver import KEY, SECRET, Receiver

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[TestClient]:
    """A client of an API that calls webhooks at private addresses."""
    given = {"store": "memory:", "webhook_secret": SECRET, "webhook_allow_private": True, **settings}
    async with TestClient(create_api(Scripted(), **given)) as client:
        yield client


def body(url: str, message: str = "send a; event b") -> dict[str, Any]:
    return {"contact_id": "ann", "message": message, "webhook_url": url}


WAYS = [
    ("/api/v1/chat", {}),
    ("/api/v1/chat", {"prefer": "respond-async"}),
    ("/api/v1/chat/stream", {}),
    ("/api/v1/runs", {}),
]


@pytest.mark.parametrize(("path", "headers"), WAYS, ids=["chat", "async", "stream", "runs"])
async def test_the_end_of_a_run_is_told_as_the_run_itself_shows_it(path: str, headers: dict[str, str]) -> None:
    async with Receiver() as receiver, serving() as client:
        answer = await client.post(path, json=body(receiver.url()), headers=headers)
        assert answer.is_success
        event = (await receiver.call()).verified()
        run = (await client.get(f"/api/v1/runs/{event['data']['run_id']}")).json()
    assert event == {"type": "run.completed", "timestamp": run["finished_at"], "data": run}
    assert datetime.fromisoformat(event["timestamp"]).utcoffset() is not None
    assert run["result"]["assistant_messages"] == ["a"]
    assert answer.headers["x-run-id"] == run["run_id"]


@pytest.mark.parametrize("way", WAYS, ids=["chat", "async", "stream", "runs"])
async def test_the_end_of_a_run_may_be_told_as_a_cloud_event_that_is_a_standard_webhook_too(
    way: tuple[str, dict[str, str]],
) -> None:
    path, headers = way
    async with Receiver() as receiver, serving(webhook_format="cloudevents") as client:
        assert (await client.post(path, json=body(receiver.url()), headers=headers)).is_success
        call = await receiver.call()
        told = call.verified()
        run = (await client.get(f"/api/v1/runs/{told['data']['run_id']}")).json()
    event = read_cloud_event(call.body, call.headers["content-type"])
    assert (event.get_id(), event.get_type()) == (call.headers["webhook-id"], "run.completed")
    assert event.get_source() == f"/threads/{run['thread_id']}"
    assert event.get_extension("runid") == run["run_id"]
    assert event.get_data() == run
    assert (told["type"], told["timestamp"], told["data"]) == ("run.completed", run["finished_at"], run)
    assert told["time"] == told["timestamp"]


async def test_a_run_that_failed_is_told_with_its_error() -> None:
    async with Receiver() as receiver, serving() as client:
        assert (await client.post("/api/v1/chat", json=body(receiver.url(), "raise no"))).status_code == 500
        event = (await receiver.call()).verified()
    assert event["type"] == "run.failed"
    assert event["data"]["error"] == {"detail": "Pipeline error: no", "status": 500}


@pytest.mark.parametrize("url", ["https://hooks.example/", "", "nowhere"])
@pytest.mark.parametrize("path", ["/api/v1/chat", "/api/v1/chat/stream", "/api/v1/runs"])
async def test_without_a_secret_a_webhook_is_refused_by_name_and_nothing_is_stored(path: str, url: str) -> None:
    async with serving(webhook_secret=None) as client:
        answer = await client.post(path, json=body(url))
        [fault] = answer.json()["detail"]
        assert (answer.status_code, fault["loc"]) == (422, ["body", "webhook_url"])
        assert "--webhook-secret" in fault["msg"]
        assert await nothing_is_stored(client)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/",
        "https://127.0.0.1/",
        "https://[::ffff:169.254.169.254]/",
        "https://ann:hidden@hooks.example/",
        "https://hooks.example/\0",
        "https://xn--/",
        "nowhere",
    ],
)
async def test_a_url_that_may_not_be_called_is_refused_by_name_and_nothing_is_stored(url: str) -> None:
    async with serving(webhook_allow_private=False) as client:
        answer = await client.post("/api/v1/runs", json=body(url))
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "webhook_url"])
        assert "hidden" not in answer.text
        assert await nothing_is_stored(client)


async def nothing_is_stored(client: httpx.AsyncClient) -> bool:
    listed = await client.get("/api/v1/threads", params={"contact_id": "ann"})
    return bool(listed.json()["threads"] == [])


async def test_webhooks_are_counted_by_what_became_of_them() -> None:
    api = create_api(Scripted(), store="memory:", webhook_secret=SECRET, webhook_allow_private=True)
    async with Receiver() as receiver, TestClient(api) as client:
        await client.post("/api/v1/chat", json=body(receiver.url()))
        assert api.service is not None
        assert api.service.webhooks is not None
        await api.service.webhooks.flush(10)
        assert 'jims_webhook_deliveries_total{outcome="delivered"} 1.0' in api.metrics()


@pytest.mark.parametrize("secret", [base64.b64encode(KEY).decode(), "whsec_hidden", "whsec_" + "hidd" * 40])
async def test_a_faulty_secret_stops_the_start_without_being_shown(secret: str) -> None:
    with pytest.raises(StartError, match=r"^--webhook-secret: .*whsec_") as refused:
        async with create_api(Scripted(), store="memory:", webhook_secret=secret).lifespan():
            pass
    assert secret not in str(refused.value)
    assert "hidd" not in str(refused.value)


async def test_a_run_that_was_cancelled_is_told_as_cancelled() -> None:
    async with Receiver() as receiver, serving() as client:
        begun = await client.post("/api/v1/runs", json=body(receiver.url(), "hold on"))
        await client.post(f"{begun.headers['location']}/cancel")
        event = (await receiver.call()).verified()
    assert (event["type"], event["data"]["run_id"]) == ("run.cancelled", begun.json()["run_id"])
