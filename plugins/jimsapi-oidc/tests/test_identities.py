"""The identities of valid tokens, and the provider together with other providers."""

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fake_issuer import AUDIENCE, FakeIssuer, SigningKey
from jimsapi_oidc.provider import OidcProvider
from trusting_api import CHAT, api, bearer, echo

from jimsapi import Connection, Identity, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

THREADS = "/api/v1/threads"
KEY = "a-key"
Make = Callable[..., OidcProvider]


def nested(levels: int) -> Any:
    """Lists within a list: as many levels of JSON."""
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


async def chat(client: TestClient, token: str, **body: Any) -> Any:
    return await client.post(CHAT, json={"message": "hi", **body}, headers=bearer(token))


async def identity(provider: OidcProvider, token: str) -> Identity | None:
    headers = [(b"authorization", b"Bearer " + token.encode())]
    return await provider.authenticate(Connection({"type": "http", "headers": headers}))


@pytest.fixture(scope="module")
async def client(issuer: FakeIssuer) -> AsyncIterator[TestClient]:
    async with api(issuer, api_key=KEY) as client:
        yield client


async def test_a_token_binds_its_holder_to_the_contact_in_its_subject(client: TestClient, issuer: FakeIssuer) -> None:
    ann, bob = issuer.token(sub="ann"), issuer.token(sub="bob")
    answer = await chat(client, ann)
    assert answer.status_code == 200
    thread = f"{THREADS}/{answer.json()['thread_id']}"
    assert (await chat(client, ann, contact_id="ann")).status_code == 200
    assert (await chat(client, ann, contact_id="bob")).status_code == 403
    assert (await client.get(thread, headers=bearer(ann))).status_code == 200
    assert (await client.get(thread, headers=bearer(bob))).status_code == 404
    assert (await client.get(thread, headers=bearer(KEY))).status_code == 200


async def test_the_subject_is_kept_beside_another_contact(issuer: FakeIssuer, make_provider: Make) -> None:
    async with make_provider(issuer, contact_claim="phone") as provider:
        assert await identity(provider, issuer.token(phone="+43 1")) == Identity("ann", contact_id="+43 1")


@pytest.mark.parametrize(
    "value", [..., None, "", "   ", 1, 1.5, True, ["ann"], {"id": "ann"}, "a\0b", "a\ud800", "x" * 2001], ids=repr
)
@pytest.mark.parametrize("claim", ["sub", "phone"])
async def test_a_token_without_a_usable_contact_is_denied_and_never_unbound(
    issuer: FakeIssuer, claim: str, value: Any
) -> None:
    async with api(issuer, oidc_contact_claim=claim) as client:
        answer = await chat(client, issuer.token(**{claim: value}), contact_id="ann")
    assert (answer.status_code, answer.json()) == (403, {"detail": "Forbidden"})


async def test_none_leaves_identities_unbound_and_lets_them_chat_only(issuer: FakeIssuer) -> None:
    async with api(issuer, oidc_contact_claim="none") as client:
        token = issuer.token()
        answers = [await chat(client, token, contact_id=contact) for contact in ("ann", "bob")]
        assert [answer.status_code for answer in answers] == [200, 200]
        for answer in answers:
            thread = f"{THREADS}/{answer.json()['thread_id']}"
            assert (await client.get(thread, headers=bearer(token))).status_code == 403
            assert (await client.delete(thread, headers=bearer(token))).status_code == 403
        assert (await chat(client, issuer.token(sub=...), contact_id="ann")).status_code == 403


@pytest.mark.parametrize(
    ("verified", "status"),
    [
        (True, 200),
        ("true", 200),
        (..., 403),
        (False, 403),
        ("false", 403),
        (None, 403),
        (1, 403),
        (1.0, 403),
        ("1", 403),
        ("True", 403),
        ("", 403),
        ([True], 403),
        ({"ann@example.org": True}, 403),
    ],
)
async def test_an_address_that_the_issuer_did_not_verify_is_nobodys(
    issuer: FakeIssuer, verified: Any, status: int
) -> None:
    async with api(issuer, oidc_contact_claim="email") as client:
        answer = await chat(client, issuer.token(email="ann@example.org", email_verified=verified))
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"scope": "chat support"}, 200),
        ({"scope": "support other chat"}, 200),
        ({"scope": ["chat", "support"]}, 200),
        ({"scope": ..., "scp": ["support", "chat"]}, 200),
        ({"scope": ..., "scp": "chat support"}, 200),
        ({"scope": "chat", "scp": ["support"]}, 200),
        ({"scope": "chat"}, 403),
        ({"scope": "support"}, 403),
        ({"scope": "CHAT SUPPORT"}, 403),
        ({"scope": "chatsupport"}, 403),
        ({"scope": "chat,support"}, 403),
        ({"scope": ""}, 403),
        ({"scope": ...}, 403),
        ({"scope": ..., "scopes": "chat support"}, 403),
        ({"scope": 1}, 401),
        ({"scope": {"chat": 1, "support": 1}}, 401),
        ({"scope": ["chat", "support", 1]}, 401),
    ],
    ids=str,
)
@pytest.mark.parametrize("demanded", [("chat", "support"), "support chat"], ids=["list", "text"])
async def test_every_demanded_scope_is_needed(
    issuer: FakeIssuer, claims: dict[str, Any], status: int, demanded: Any
) -> None:
    async with api(issuer, oidc_scopes=demanded) as client:
        assert (await chat(client, issuer.token(**claims))).status_code == status


@pytest.mark.parametrize(
    "audience", [AUDIENCE, [AUDIENCE], ["other", AUDIENCE], "second", ["second", "other"]], ids=str
)
async def test_one_audience_of_those_allowed_is_enough(issuer: FakeIssuer, make_provider: Make, audience: Any) -> None:
    async with make_provider(issuer, audience=(AUDIENCE, "second")) as provider:
        assert await identity(provider, issuer.token(aud=audience)) == Identity("ann", contact_id="ann")


@pytest.mark.parametrize("typ", [..., None, "JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/jwt"])
async def test_every_usual_type_of_an_access_token_is_accepted(
    client: TestClient, issuer: FakeIssuer, typ: Any
) -> None:
    header = {"typ": ...} if typ is None else {"typ": typ}
    assert (await chat(client, issuer.token(header=header))).status_code == 200


@pytest.mark.parametrize("typ", ["Bearer", "DPoP", None, ["ID"], {"ID": 1}, 1], ids=repr)
async def test_a_claim_typ_that_means_no_other_use_is_accepted(
    client: TestClient, issuer: FakeIssuer, typ: Any
) -> None:
    assert (await chat(client, issuer.token(typ=typ))).status_code == 200


@pytest.mark.parametrize("typ", ["Bearer", "DPoP"])
async def test_an_old_keycloak_may_copy_the_nonce_of_a_login_into_an_access_token(
    client: TestClient, issuer: FakeIssuer, typ: str
) -> None:
    assert (await chat(client, issuer.token(typ=typ, nonce="x"))).status_code == 200


async def test_claims_may_be_nested_as_deep_as_anybody_needs(client: TestClient, issuer: FakeIssuer) -> None:
    assert (await chat(client, issuer.token(groups=nested(31)))).status_code == 200


async def test_headers_that_ask_for_nothing_are_ignored(client: TestClient, issuer: FakeIssuer, trap: Any) -> None:
    header = {"jku": trap.url(), "x5u": trap.url(), "jwk": SigningKey("ES256", None).jwk(), "cty": "x", "new": {"a": 1}}
    assert (await chat(client, issuer.token(header=header))).status_code == 200
    assert not trap.was_visited()


@pytest.mark.parametrize(
    ("claim", "seconds", "enters"),
    [
        ("exp", -29, True),
        ("exp", -31, False),
        ("nbf", 29, True),
        ("nbf", 31, False),
        ("iat", 29, True),
        ("iat", 31, False),
    ],
)
async def test_clocks_may_differ_by_the_leeway(
    issuer: FakeIssuer, make_provider: Make, clock: Any, claim: str, seconds: int, enters: bool
) -> None:
    clock.now = float(int(time.time()))
    async with make_provider(issuer, leeway=30.0) as provider:
        token = issuer.token(**{claim: clock.now + seconds})
        try:
            entered = await identity(provider, token) is not None
        except Exception:
            entered = False
    assert entered is enters


async def test_dates_may_have_fractions_and_all_but_the_expiry_may_be_missing(
    client: TestClient, issuer: FakeIssuer
) -> None:
    now = time.time()
    token = issuer.token(exp=now + 10.5, nbf=..., iat=now - 0.5)
    assert (await chat(client, token)).status_code == 200
    assert (await chat(client, issuer.token(iat=...))).status_code == 200


async def test_a_key_enters_while_the_issuer_is_away_and_only_its_tokens_get_503(fresh_issuer: FakeIssuer) -> None:
    fresh_issuer.stop()
    async with api(fresh_issuer, api_key=KEY) as client:
        assert (await chat(client, KEY, contact_id="bob")).status_code == 200
        assert (await chat(client, fresh_issuer.token())).status_code == 503
        assert (await chat(client, "no-such-key")).status_code == 401
        assert (await chat(client, fresh_issuer.token(iss="https://other.test"))).status_code == 401
        assert (await chat(client, fresh_issuer.token(header={"alg": "none"}))).status_code == 401


async def test_the_metrics_count_fetches_and_verifications(fresh_issuer: FakeIssuer) -> None:
    application = create_api(echo, store="memory:", **fresh_issuer.settings())
    async with TestClient(application) as client:
        token = fresh_issuer.token()
        for sent in (token, token, fresh_issuer.token(aud="x"), fresh_issuer.token(exp=1), "opaque"):
            await chat(client, sent)
        lines = application.metrics().splitlines()
    assert 'jims_oidc_jwks_fetches_total{outcome="ok"} 1.0' in lines
    assert "jims_oidc_keys 1.0" in lines
    for outcome, count in {
        "verified": 1,
        "cached": 1,
        "audience": 1,
        "time": 1,
        "signature": 0,
        "malformed": 0,
    }.items():
        assert f'jims_oidc_verifications_total{{outcome="{outcome}"}} {count}.0' in lines
    assert 'jims_auth_decisions_total{outcome="passed",provider="oidc"} 1.0' in lines


async def test_a_pipeline_reads_the_claims_that_the_operator_passes_on(issuer: FakeIssuer) -> None:
    seen: list[Any] = []

    async def pipeline(ctx: ThreadContext) -> None:
        assert ctx.identity is not None
        seen.append(dict(ctx.identity.claims))

    token = issuer.token(name="Ann Elk", roles=["vip"], email="ann@example.org")
    for passed in ((), ("name roles",), ("name", "missing")):
        settings = {**issuer.settings(), "oidc_pass_claims": passed}
        async with TestClient(create_api(pipeline, store="memory:", **settings)) as client:
            answer = await client.post(CHAT, json={"message": "hi"}, headers=bearer(token))
            assert answer.status_code == 200, answer.text
    assert seen == [{}, {"name": "Ann Elk", "roles": ["vip"]}, {"name": "Ann Elk"}]
