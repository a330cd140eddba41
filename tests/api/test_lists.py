"""The lists of runs and contacts over HTTP: what they show, their conditions and pages, and what they refuse."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.plugins.distributions import install
from tests.serving import ROOT

pytestmark = pytest.mark.anyio

NOWHERE = "01a2243a-c689-7f77-89dd-cd783bd233ef"


async def answer(ctx: ThreadContext) -> None:
    """Answer, or fail if the message says so."""
    if ctx.get_last_user_message() == "fail":
        raise RuntimeError("the word was fail")
    ctx.send_message("Done")


@asynccontextmanager
async def serving(site: Path, store: str) -> AsyncIterator[TestClient]:
    """A client of an API with callers, as `root`."""
    install(site, "jimsapi-users", (ROOT / "tests" / "apps" / "jimsapi_users.py").read_text())
    async with TestClient(create_api(answer, store=store)) as client:
        client.headers["x-user"] = "root"
        yield client


@pytest.fixture(params=["memory:", "sqlite"])
async def client(request: pytest.FixtureRequest, site: Path, tmp_path: Path) -> AsyncIterator[TestClient]:
    store = f"sqlite:///{tmp_path / 'jims.db'}" if request.param == "sqlite" else request.param
    async with serving(site, store) as client:
        yield client


async def say(client: httpx.AsyncClient, contact: str, message: str = "hi", **body: Any) -> dict[str, Any]:
    """Begin a run, and return it when it has ended."""
    said = await client.post("/api/v1/chat", json={"contact_id": contact, "message": message, **body})
    shown: dict[str, Any] = (await client.get(f"/api/v1/runs/{said.headers['x-run-id']}")).json()
    return shown


async def runs(client: httpx.AsyncClient, **query: Any) -> list[str]:
    found = await client.get("/api/v1/runs", params=query)
    assert found.status_code == 200, found.text
    return [run["run_id"] for run in found.json()["runs"]]


async def test_a_run_in_a_list_has_the_state_of_the_run_and_no_text(client: TestClient) -> None:
    done, failed = await say(client, "ann", "a secret"), await say(client, "bob", "fail")
    answer = await client.get("/api/v1/runs")
    listed = {run["run_id"]: run for run in answer.json()["runs"]}
    for run, contact, failure in ((done, "ann", None), (failed, "bob", "pipeline")):
        state = {name: run[name] for name in ("run_id", "thread_id", "status")}
        times = {name: run[name] for name in ("accepted_at", "started_at", "finished_at")}
        assert listed[run["run_id"]] == {**state, "contact_id": contact, "failure": failure, **times}
    assert list(listed) == [failed["run_id"], done["run_id"]]
    assert "secret" not in answer.text
    assert "the word" not in answer.text


async def test_a_list_has_only_the_runs_that_its_query_asks_for(client: TestClient) -> None:
    first = await say(client, "ann")
    second = await say(client, "ann", "fail", thread_id=first["thread_id"])
    third = await say(client, "bob")
    ids = [run["run_id"] for run in (first, second, third)]
    after_first = (datetime.fromisoformat(first["accepted_at"]) + timedelta(microseconds=1)).isoformat()
    for query, expected in (
        ({"status": "failed"}, ids[1:2]),
        ({"status": ["failed", "completed"]}, ids[::-1]),
        ({"status": "running"}, []),
        ({"contact_id": "ann"}, ids[1::-1]),
        ({"thread_id": first["thread_id"]}, ids[1::-1]),
        ({"thread_id": first["thread_id"], "status": "completed"}, ids[:1]),
        ({"accepted_from": after_first}, ids[:0:-1]),
        ({"accepted_before": after_first}, ids[:1]),
    ):
        assert await runs(client, **query) == expected, query


async def test_a_list_of_runs_is_read_page_by_page(client: TestClient) -> None:
    ids = [(await say(client, f"c{number}"))["run_id"] for number in range(5)]
    listed: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    for _ in range(3):
        page = (await client.get("/api/v1/runs", params=query)).json()
        listed += [run["run_id"] for run in page["runs"]]
        query["after"] = page["next"]
    assert (listed, page["next"]) == (ids[::-1], None)


async def test_contacts_are_listed_with_their_threads_and_their_last_activity(client: TestClient) -> None:
    thread_id = (await say(client, "ann"))["thread_id"]
    await say(client, "bob")
    fork = await client.post(f"/api/v1/threads/{thread_id}/fork", json={})
    assert fork.status_code == 201
    await say(client, "ann", thread_id=thread_id)
    active_at = (await client.get(f"/api/v1/threads/{thread_id}")).json()["active_at"]
    first = (await client.get("/api/v1/contacts", params={"limit": 1})).json()
    rest = (await client.get("/api/v1/contacts", params={"limit": 5, "after": first["next"]})).json()
    assert first["contacts"] == [{"contact_id": "ann", "thread_count": 2, "active_at": active_at}]
    assert [(contact["contact_id"], contact["thread_count"]) for contact in rest["contacts"]] == [("bob", 1)]
    assert rest["next"] is None
    named = await client.get("/api/v1/contacts", params={"contact_id": "bob"})
    assert named.json()["contacts"] == rest["contacts"]


@pytest.mark.parametrize(
    ("path", "query", "status", "place"),
    [
        ("runs", {"status": "done"}, 422, ["query", "status", 0]),
        ("runs", {"thread_id": NOWHERE}, 404, None),
        ("runs", {"thread_id": "x"}, 422, ["query", "thread_id"]),
        ("runs", {"contact_id": "\0"}, 422, ["query", "contact_id"]),
        ("runs", {"accepted_from": "2026-01-31T12:00:00"}, 422, ["query", "accepted_from"]),
        ("runs", {"accepted_before": "0001-01-01T00:00:00+12:00"}, 422, ["query", "accepted_before"]),
        ("runs", {"after": "x"}, 422, ["query", "after"]),
        ("runs", {"limit": 1001}, 422, ["query", "limit"]),
        ("contacts", {"after": "x"}, 422, ["query", "after"]),
        ("contacts", {"contact_id": "\0"}, 422, ["query", "contact_id"]),
        ("contacts", {"limit": 0}, 422, ["query", "limit"]),
    ],
)
async def test_a_faulty_query_is_refused(
    client: TestClient, path: str, query: dict[str, Any], status: int, place: list[str] | None
) -> None:
    answer = await client.get(f"/api/v1/{path}", params=query)
    assert answer.status_code == status, answer.text
    if place is not None:
        assert [fault["loc"] for fault in answer.json()["detail"]] == [place]


async def test_a_public_server_lists_only_what_a_caller_can_name() -> None:
    async with TestClient(create_api(answer, store="memory:")) as client:
        run = await say(client, "ann")
        for path in ("runs", "contacts"):
            refused = await client.get(f"/api/v1/{path}")
            assert refused.status_code == 422
            [fault] = refused.json()["detail"]
            assert (fault["type"], fault["loc"]) == ("missing", ["query", "contact_id"])
            assert "This server admits every caller" in fault["msg"]
        assert await runs(client, contact_id="ann") == [run["run_id"]]
        assert await runs(client, thread_id=run["thread_id"]) == [run["run_id"]]
        named = await client.get("/api/v1/contacts", params={"contact_id": "ann"})
        assert [contact["thread_count"] for contact in named.json()["contacts"]] == [1]
