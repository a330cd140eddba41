"""Every answer of Authentik, and the tokens that are never sent to it."""

import logging
import ssl
from typing import Any

import httpx
import pytest
from calling import call, served, status_of
from fake_authentik import FakeAuthentik

pytestmark = pytest.mark.anyio


def prepare(fake: FakeAuthentik) -> None:
    fake.give("allowed")
    fake.give("denied", allowed=False)
    fake.give("root", superuser=True)
    fake.give("denied-root", superuser=True, allowed=False)
    fake.give("expired", fault="expired")
    fake.give("narrow", fault="wrong scope")
    fake.give("app-password", fault="app password")
    fake.give("inactive", fault="inactive")


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer allowed", 200),
        ("bearer allowed", 200),
        ("BEARER   allowed  ", 200),
        ("Bearer denied", 403),
        ("Bearer root", 200),
        ("Bearer denied-root", 403),
        ("Bearer expired", 401),
        ("Bearer narrow", 401),
        ("Bearer app-password", 401),
        ("Bearer inactive", 401),
        ("Bearer never-issued", 401),
    ],
)
async def test_a_token_gets_what_authentik_says_of_it(
    authentik: FakeAuthentik, authorization: str, status: int
) -> None:
    prepare(authentik)
    assert await status_of(authorization, **authentik.settings) == status
    assert authentik.calls == 1


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer    ",
        "Bearer =",
        "Bearer allowed,denied",
        "Bearer allowed denied",
        "Bearer allowed\tdenied",
        "Bearer all=owed",
        'Bearer "allowed"',
        "Bearer allowed;",
        "Bearer allowed\u00e9",
        "Bearer " + "x" * 8193,
        "allowed",
        "Bearerallowed",
        "Token allowed",
        "Basic YWxsb3dlZDo=",
        "Negotiate allowed",
    ],
)
@pytest.mark.parametrize("other_schemes", ["refused", "anonymous"])
async def test_authentik_is_never_asked_about_what_it_might_take_for_an_anonymous_visitor(
    authentik: FakeAuthentik, authorization: str | None, other_schemes: Any
) -> None:
    authentik.bindings = False
    authentik.other_schemes = other_schemes
    async with served(**authentik.settings) as client:
        headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
        answer = await client.post("/api/v1/chat", json={"contact_id": "a", "message": "hi"}, headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"})
    assert authentik.seen == []


async def test_authentik_itself_lets_an_empty_token_in(authentik: FakeAuthentik) -> None:
    """What the test above is about: an anonymous visitor may use an application without bindings."""
    authentik.bindings = False
    for authorization in (None, "", "Bearer"):
        answer = await asked(authentik, authorization)
        assert (answer.status_code, answer.json()["passing"]) == (200, True)


async def test_a_slug_that_authentik_does_not_know_makes_it_unavailable(
    authentik: FakeAuthentik, caplog: pytest.LogCaptureFixture
) -> None:
    settings = authentik.settings | {"authentik_app_slug": "other"}
    async with served(**settings) as client:
        answer = await call(client, "Bearer good")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert (await call(client, "Bearer bad")).status_code == 401
    assert "answered 404 on /api/v3/core/applications/other/check_access/: is --authentik-app-slug right" in caplog.text


@pytest.mark.parametrize("form", ["text", "json"])
async def test_an_authentik_that_starts_makes_it_unavailable_and_then_lets_in(
    authentik: FakeAuthentik, form: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(**authentik.settings) as client:
        authentik.starting_up = form
        assert (await call(client, "Bearer good")).status_code == 503
        authentik.starting_up = None
        assert (await call(client, "Bearer good")).status_code == 200
    assert "Authentik answered 502" in caplog.text


async def test_the_application_s_path_below_a_prefix_is_asked_for() -> None:
    with FakeAuthentik("chat-2_b", prefix="/auth/sso") as fake:
        fake.give("good")
        for url in (fake.url, fake.url + "/"):
            assert await status_of("Bearer good", **(fake.settings | {"authentik_url": url})) == 200
        assert {one.path for one in fake.seen} == {"/auth/sso/api/v3/core/applications/chat-2_b/check_access/"}


async def test_a_right_key_enters_without_authentik_and_everybody_else_by_it(authentik: FakeAuthentik) -> None:
    async with served(api_key="the-key", **authentik.settings) as client:
        assert (await call(client, "Bearer the-key")).status_code == 200
        assert authentik.seen == []
        assert (await call(client, "Bearer good")).status_code == 200
        assert (await call(client, "Bearer other")).status_code == 403
        refused = await call(client, "Bearer bad")
    challenge = 'Bearer realm="jimsapi", error="invalid_token"'
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, challenge)


async def test_a_right_key_enters_while_authentik_is_down(authentik: FakeAuthentik) -> None:
    authentik.starting_up = "text"
    async with served(api_key="the-key", **authentik.settings) as client:
        assert (await call(client, "Bearer the-key")).status_code == 200
        assert (await call(client, "Bearer good")).status_code == 503


async def test_an_admitted_user_chats_for_every_contact_and_sees_nobody_s_threads(authentik: FakeAuthentik) -> None:
    authorization = {"authorization": "Bearer good"}
    async with served(**authentik.settings) as client:
        thread = (await call(client, "Bearer good", contact_id="ann")).json()["thread_id"]
        assert (await call(client, "Bearer good", contact_id="bob")).status_code == 200
        for method, path in (
            ("GET", "/api/v1/threads?contact_id=ann"),
            ("GET", f"/api/v1/threads/{thread}"),
            ("GET", f"/api/v1/threads/{thread}/events"),
            ("DELETE", f"/api/v1/threads/{thread}"),
            ("DELETE", "/api/v1/contacts?contact_id=ann"),
        ):
            answer = await client.request(method, path, headers=authorization)
            assert (answer.status_code, answer.json()) == (403, {"detail": "These credentials lack the scope threads"})


async def test_no_token_is_logged_whatever_becomes_of_it(
    authentik: FakeAuthentik, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = ["token-that-is-taken", "token-without-access", "token-never-issued", "token-with-a-,"]
    authentik.give(tokens[0])
    authentik.give(tokens[1], allowed=False)
    async with served(**authentik.settings, authentik_contact_field="uid") as client:
        for token in tokens:
            await call(client, f"Bearer {token}")
        authentik.starting_up = "text"
        await call(client, "Bearer token-in-an-outage")
    assert authentik.calls == 4
    assert "authentik" in caplog.text
    for token in (*tokens, "token-in-an-outage"):
        assert token not in caplog.text


async def asked(fake: FakeAuthentik, authorization: str | None, slug: str = "jims", query: str = "") -> httpx.Response:
    """What the fake itself answers."""
    headers = {} if authorization is None else {"authorization": authorization}
    context = ssl.create_default_context(cafile=fake.ca_file)
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        path = f"/api/v3/core/applications/{slug}/check_access/{query}"
        return await client.get(fake.url + path, headers=headers)


async def test_the_fake_answers_as_the_source_has_it(authentik: FakeAuthentik) -> None:
    prepare(authentik)
    authentik.give("seven", allowed=False, pk=7)
    refused = (403, {"detail": "Token invalid/expired"})
    for token, passing in (("allowed", True), ("denied", False)):
        answer = await asked(authentik, f"Bearer {token}")
        assert (answer.status_code, answer.json()) == (200, {"passing": passing, "messages": [], "log_messages": []})
    for token in ("root", "denied-root"):
        log = (await asked(authentik, f"Bearer {token}")).json()["log_messages"]
        assert sorted(log[0]) == ["attributes", "event", "log_level", "logger", "timestamp"]
    for authorization in ("expired", "narrow", "app-password", "inactive", "never-issued"):
        answer = await asked(authentik, f"Bearer {authorization}")
        assert (answer.status_code, answer.json()) == refused
        assert "www-authenticate" not in answer.headers
    answer = await asked(authentik, "Bearer allowed", slug="other")
    assert (answer.status_code, answer.json()) == (404, {"detail": "No Application matches the given query."})
    for authorization, slug in (("Bearer expired", "other"), ("Basic eDp5", "jims")):
        answer = await asked(authentik, authorization, slug=slug)
        assert (answer.status_code, answer.json()) == refused
    assert (await asked(authentik, "Bearer root", query="?for_user=7")).json()["passing"] is False
    assert (await asked(authentik, "Bearer allowed", query="?for_user=7")).json()["passing"] is True
    for nobody in (None, "", "Bearer"):
        assert (await asked(authentik, nobody)).json()["passing"] is False
