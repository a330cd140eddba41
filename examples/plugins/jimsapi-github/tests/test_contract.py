"""The contracts of auth providers and wrappers, and what only this plugin promises."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
from jimsapi import Secret
from jimsapi.asgi.testing import TestClient
from jimsapi.testing import AsgiWrapperContract, AuthProviderContract, DoesNotApply

from jimsapi_github.body import BODY
from jimsapi_github.provider import sign

SECRET = "it-is-a-secret-to-everybody"
PATH = "/api/v1/github"
EVENT = b'{"action": "opened", "repository": {"full_name": "ann/zoo"}}'


def signed(body: bytes = b"", secret: str = SECRET) -> dict[str, str]:
    """Return the headers of a request with this body."""
    return {"x-hub-signature-256": sign(Secret(secret), body)}


class TestGitHub(AuthProviderContract):
    distribution = "jimsapi-github"
    settings = {"github_secret": SECRET}
    scope_fields = {BODY: b""}
    good = {"github": signed()}
    secrets = (SECRET, signed()["x-hub-signature-256"].removeprefix("sha256="))
    foreign = ({"authorization": f"Bearer {SECRET}"}, {"x-hub-signature": "sha1=00"})
    malformed = ({"x-hub-signature-256": "00"}, {"x-hub-signature-256": "sha256="})
    wrong = (signed(EVENT), signed(secret="another"))
    forged = (signed(secret="another"), {"x-hub-signature-256": "sha256=" + "0" * 64})
    expired = DoesNotApply("the signature has no date")
    denied = DoesNotApply("GitHub has access")
    half_configured = ({"github_max_body": 1000},)
    outage = DoesNotApply("it uses no other service")


class TestWrapper(AsgiWrapperContract):
    distribution = "jimsapi-github"
    settings = {"github_secret": SECRET}
    secrets = (SECRET,)


async def status(client: TestClient, path: str, headers: Mapping[str, str], body: bytes = EVENT) -> int:
    headers = {"content-type": "application/json", "x-github-event": "issues", **headers}
    return (await client.post(path, content=body, headers=headers)).status_code


@pytest.mark.anyio
async def test_a_signed_event_is_answered_once_in_the_thread_of_its_repository(
    jimsapi_client: Callable[..., TestClient],
) -> None:
    async with jimsapi_client(github_secret=SECRET, api_key="k") as client:
        for _ in range(2):
            headers = {"content-type": "application/json", "x-github-event": "issues", **signed(EVENT)}
            answer = await client.post(PATH, content=EVENT, headers=headers)
            assert (answer.status_code, answer.json()) == (200, {"messages": ["You said: issues opened"]})
        client.headers["authorization"] = "Bearer k"
        [thread] = (await client.get("/api/v1/threads?contact_id=ann/zoo")).json()["threads"]
        events = (await client.get(f"/api/v1/threads/{thread['thread_id']}/events")).json()["events"]
    messages = [event["event_type"] for event in events if event["event_type"].startswith("comm.")]
    assert messages == ["comm.user_message", "comm.assistant_message"]


@pytest.mark.anyio
async def test_another_body_or_another_secret_is_not_admitted(jimsapi_client: Callable[..., TestClient]) -> None:
    async with jimsapi_client(github_secret=SECRET) as client:
        assert await status(client, PATH, {}) == 401
        assert await status(client, PATH, signed(EVENT), EVENT.replace(b"ann", b"eve")) == 401
        assert await status(client, PATH, signed(EVENT, "another")) == 401


@pytest.mark.anyio
@pytest.mark.parametrize(("method", "path"), [("POST", "/api/v1/chat"), ("GET", "/api/v1/threads?contact_id=ann/zoo")])
async def test_a_signature_admits_to_no_other_route(
    jimsapi_client: Callable[..., TestClient], method: str, path: str
) -> None:
    async with jimsapi_client(github_secret=SECRET) as client:
        answer = await client.request(method, path, content=EVENT, headers=signed(EVENT))
    assert answer.status_code == 403


@pytest.mark.anyio
@pytest.mark.parametrize("chunked", [False, True])
async def test_of_a_body_that_is_too_long_no_more_than_the_limit_is_read(
    jimsapi_client: Callable[..., TestClient], chunked: bool
) -> None:
    sent = list[int]()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            sent.append(1)
            yield b"x" * 600

    async with jimsapi_client(github_secret=SECRET, github_max_body=1000) as client:
        length = {} if chunked else {"content-length": "1001"}
        answer = await client.post(PATH, content=endless(), headers={**length, **signed()})
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    assert len(sent) <= (2 if chunked else 0)


@pytest.mark.anyio
async def test_a_body_that_takes_too_long_is_refused(
    jimsapi_client: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def begun() -> AsyncIterator[bytes]:
        yield EVENT[:10]
        await asyncio.Event().wait()

    monkeypatch.setattr("jimsapi_github.body.READ_WITHIN", 0.01)
    async with jimsapi_client(github_secret=SECRET) as client:
        assert (await client.post(PATH, content=begun(), headers=signed(EVENT))).status_code == 408
