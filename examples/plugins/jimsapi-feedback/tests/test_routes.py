"""Tests the routes on a server with the installed plugin."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

GOOD = {"rating": 1, "comment": "Thank you"}


async def path_of_a_run(client: TestClient) -> str:
    """Send a message of Ann. Returns the path of the feedback for its run."""
    answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
    return f"/api/v1/runs/{answer.headers['x-run-id']}/feedback"


def new_key(keys: Path, contact: str) -> str:
    """Add a key for a contact to the file. Returns the key."""
    command = [sys.executable, "-m", "jimsapi", "keys", "new", contact, "--contact", contact, "--keys-file", str(keys)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("name", ["feedback.db", None])
async def test_feedback_is_stored_and_replaced(
    jimsapi_client: Callable[..., TestClient], tmp_path: Path, name: str | None
) -> None:
    async with jimsapi_client(feedback_file=name and tmp_path / name) as client:
        path = await path_of_a_run(client)
        assert (await client.get(path)).status_code == 404
        for feedback in (GOOD, {"rating": -1, "comment": ""}):
            assert (await client.put(path, json=feedback)).status_code == 204
            assert (await client.get(path)).json() == feedback


async def test_a_file_keeps_the_feedback(jimsapi_client: Callable[..., TestClient], tmp_path: Path) -> None:
    options = {"feedback_file": tmp_path / "feedback.db", "store": f"sqlite:///{tmp_path / 'jims.db'}"}
    async with jimsapi_client(**options) as client:
        path = await path_of_a_run(client)
        await client.put(path, json=GOOD)
    async with jimsapi_client(**options) as client:
        assert (await client.get(path)).json() == GOOD


async def test_only_callers_who_may_see_the_run_can_rate_it(
    jimsapi_client: Callable[..., TestClient], tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    ann, ben = (new_key(keys, name) for name in ("ann", "ben"))
    async with jimsapi_client(keys_file=keys) as client:
        client.headers["authorization"] = f"Bearer {ann}"
        path = await path_of_a_run(client)
        assert (await client.put(path, json=GOOD)).status_code == 204
        client.headers["authorization"] = f"Bearer {ben}"
        assert [(await client.put(path, json=GOOD)).status_code, (await client.get(path)).status_code] == [404, 404]
        del client.headers["authorization"]
        assert (await client.put(path, json=GOOD)).status_code == 401


@pytest.mark.parametrize(
    ("feedback", "where"),
    [({"rating": 2}, "rating"), ({"comment": "?"}, "rating"), ({**GOOD, "comment": "x" * 2001}, "comment")],
)
async def test_invalid_feedback_is_rejected(
    jimsapi_client: Callable[..., TestClient], feedback: dict[str, object], where: str
) -> None:
    async with jimsapi_client() as client:
        answer = await client.put(await path_of_a_run(client), json=feedback)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", where])


async def test_an_unknown_run_has_no_feedback(jimsapi_client: Callable[..., TestClient]) -> None:
    async with jimsapi_client() as client:
        assert (await client.put(f"/api/v1/runs/{uuid4()}/feedback", json=GOOD)).status_code == 404


async def test_a_file_that_cannot_be_opened_stops_the_start(
    jimsapi_client: Callable[..., TestClient], tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="--feedback-file: cannot open"):
        async with jimsapi_client(feedback_file=tmp_path / "missing" / "feedback.db"):
            pass
