"""Every answer of Authentik, and the tokens that are never sent to it."""

import pytest
from calling import call, served, status_of
from fake_authentik import FakeAuthentik

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer good", 200),
        ("bearer good", 200),
        ("BEARER   good  ", 200),
        ("Bearer other", 403),
        ("Bearer never-issued", 401),
    ],
)
async def test_a_token_gets_what_authentik_says_of_it(
    authentik: FakeAuthentik, authorization: str, status: int
) -> None:
    assert await status_of(authorization, **authentik.settings) == status
    assert [one.token for one in authentik.seen] == [authorization.split()[1]]


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
async def test_authentik_is_never_asked_about_what_it_might_take_for_an_anonymous_visitor(
    authentik: FakeAuthentik, authorization: str | None
) -> None:
    authentik.bindings = False
    async with served(**authentik.settings) as client:
        headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
        answer = await client.post("/api/v1/chat", json={"contact_id": "a", "message": "hi"}, headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"})
    assert authentik.seen == []


async def test_a_slug_that_authentik_does_not_know_makes_it_unavailable(
    authentik: FakeAuthentik, caplog: pytest.LogCaptureFixture
) -> None:
    settings = authentik.settings | {"authentik_app_slug": "other"}
    async with served(**settings) as client:
        answer = await call(client, "Bearer good")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert (await call(client, "Bearer bad")).status_code == 401
    assert "answered 404 on /api/v3/core/applications/other/check_access/: is --authentik-app-slug right" in caplog.text


async def test_the_application_s_path_below_a_prefix_is_asked_for() -> None:
    with FakeAuthentik("chat-2_b", prefix="/auth/sso") as fake:
        fake.give("good")
        for url in (fake.url, fake.url + "/"):
            assert await status_of("Bearer good", **(fake.settings | {"authentik_url": url})) == 200
        assert {one.path for one in fake.seen} == {"/auth/sso/api/v3/core/applications/chat-2_b/check_access/"}
