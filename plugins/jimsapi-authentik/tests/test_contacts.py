"""`--authentik-contact-field`: an identity is bound to its contact, or refused."""

import asyncio
from itertools import product
from typing import Any

import orjson
import pytest
from calling import call, said, served
from fake_authentik import FakeAuthentik
from jimsapi_authentik.provider import Authentik
from raw_server import ALLOWED, answer, serving

from jimsapi import Identity

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("field", "contact"),
    [("username", "ann"), ("uid", "a1b2c3"), ("email", "ann@example.org"), ("pk", "42")],
)
async def test_a_user_acts_for_the_contact_that_the_field_names_and_for_no_other(
    authentik: FakeAuthentik, field: str, contact: str
) -> None:
    authentik.give("ann", username="ann", uid="a1b2c3", email="ann@example.org", pk=42)
    async with served(**authentik.settings, authentik_contact_field=field, api_key="key") as client:
        theirs = (await call(client, "Bearer key", contact_id="bob")).json()["thread_id"]
        mine = await client.post("/api/v1/chat", json={"message": "hi"}, headers={"authorization": "Bearer ann"})
        assert mine.status_code == 200
        assert (await call(client, "Bearer ann", contact_id=contact)).status_code == 200
        assert (await call(client, "Bearer ann", contact_id="bob")).status_code == 403
        headers = {"authorization": "Bearer ann"}
        assert (await client.get(f"/api/v1/threads/{theirs}", headers=headers)).status_code == 404
        own = await client.get(f"/api/v1/threads/{mine.json()['thread_id']}", headers=headers)
        assert own.json()["contact_id"] == contact
        assert (authentik.calls, authentik.lookups) == (1, 1)


async def test_who_has_no_access_is_not_even_looked_up(authentik: FakeAuthentik) -> None:
    async with served(**authentik.settings, authentik_contact_field="uid") as client:
        assert (await call(client, "Bearer other")).status_code == 403
        assert (await call(client, "Bearer bad")).status_code == 401
    assert (authentik.calls, authentik.lookups) == (2, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *product(("username", "uid", "email"), ("", " ", "\t", None, 7, True, ["ann"], {"name": "ann"})),
        *product(("pk",), ("", None, True, False, 1.5, [1])),
    ],
)
async def test_a_user_without_the_field_is_denied_and_never_unbound(
    authentik: FakeAuthentik, field: str, value: Any
) -> None:
    authentik.give("nameless", **{field: value})
    async with served(**authentik.settings, authentik_contact_field=field) as client:
        answers = [await call(client, "Bearer nameless") for _ in range(2)]
    # A caller that is bound to another contact also gets 403, with another text.
    assert [(one.status_code, one.json()) for one in answers] == [(403, {"detail": "Forbidden"})] * 2
    assert authentik.lookups == 1  # a refusal is kept as well


ACCESS = "/check_access/"


async def bound_by(me: bytes, **settings: Any) -> Identity | str:
    """The outcome for a token with access if `users/me` answers with these bytes."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(body=ALLOWED) if ACCESS.encode() in head else me)
            await writer.drain()

    options: dict[str, Any] = {"timeout": 5, "cache_ttl": 30, "contact_field": "username"}
    async with serving(connected) as raw, Authentik(raw.url, "jims", **(options | settings)) as door:
        return await said(door, "good")


@pytest.mark.parametrize(
    ("me", "expected"),
    [
        (answer(body=b'{"user":{"username":"ann"}}'), Identity("ann", contact_id="ann")),
        (answer(body=b'{"user":{}}'), "AccessDenied"),
        (answer(body=b'{"user":null}'), "AccessDenied"),
        (answer(body=b'{"user":"ann"}'), "AccessDenied"),
        (answer(body=b'{"username":"ann"}'), "AccessDenied"),
        (answer(body=b"{}"), "AccessDenied"),
        (answer(body=b'{"user":{"username":"ann","username":"bob"}}'), "AuthUnavailable"),
        (answer(body=b'[{"user":{"username":"ann"}}]'), "AuthUnavailable"),
        (answer(body=b'{"user":{"username":"ann"}'), "AuthUnavailable"),
        (answer("403 Forbidden", b'{"detail":"Token invalid/expired"}'), "InvalidCredentials"),
        (answer("404 Not Found", b'{"user":{"username":"ann"}}'), "AuthUnavailable"),
        (answer("302 Found", b'{"user":{"username":"ann"}}', "location: /"), "AuthUnavailable"),
        (answer("500 Internal Server Error", b'{"user":{"username":"ann"}}'), "AuthUnavailable"),
        (answer(body=orjson.dumps({"user": {"username": "a" * 70_000}})), "AuthUnavailable"),
    ],
)
async def test_nothing_but_a_user_with_the_field_binds(me: bytes, expected: Identity | str) -> None:
    assert await bound_by(me) == expected


async def test_both_calls_share_one_deadline() -> None:
    """The second answer alone would be in time."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.3)
            writer.write(answer(body=ALLOWED if ACCESS.encode() in head else b'{"user":{"username":"ann"}}'))
            await writer.drain()

    async with (
        serving(slow) as raw,
        Authentik(raw.url, "jims", timeout=0.5, cache_ttl=30, contact_field="username") as door,
    ):
        assert await said(door, "good") == "AuthUnavailable"


async def test_concurrent_callers_share_the_lookup_and_get_one_identity(authentik: FakeAuthentik) -> None:
    async with Authentik(
        authentik.url, "jims", timeout=5, cache_ttl=30, ca_file=authentik.ca_file, contact_field="pk"
    ) as door:
        authentik.hold()
        asked = [asyncio.create_task(said(door, "good")) for _ in range(100)]
        await authentik.arrived(1)
        authentik.release()
        identities = await asyncio.gather(*asked)
    assert len({id(identity) for identity in identities}) == 1
    assert identities[0] == Identity("17", contact_id="17")
    assert (authentik.calls, authentik.lookups) == (1, 1)
