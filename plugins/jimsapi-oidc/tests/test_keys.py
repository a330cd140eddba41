"""How the issuer's keys come, change, and stay in use while the issuer is away."""

import asyncio
import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from fake_issuer import DISCOVERY, KEYS, FakeIssuer, SigningKey, base64url, unbase64url
from jimsapi_oidc.issuer import Pace
from jimsapi_oidc.keys import read_keys
from jimsapi_oidc.provider import OidcProvider
from joserfc.jwk import OKPKey, RSAKey

from jimsapi import AuthUnavailable, Connection, Identity, InvalidCredentials

pytestmark = pytest.mark.anyio

Make = Callable[..., OidcProvider]


def bearing(token: str) -> Connection:
    return Connection({"type": "http", "headers": [(b"authorization", b"Bearer " + token.encode())]})


async def outcome(provider: OidcProvider, token: str) -> str:
    """The outcome of the provider for a token: the contact, or the reason of the rejection."""
    try:
        identity = await provider.authenticate(bearing(token))
    except InvalidCredentials:
        return "invalid"
    except AuthUnavailable:
        return "unavailable"
    assert isinstance(identity, Identity)
    return str(identity.contact_id)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def counted(provider: OidcProvider, name: str) -> int:
    return int(provider._counts.fetches[name])


async def test_the_keys_are_found_by_the_issuers_name(fresh_issuer: FakeIssuer, make_provider: Make) -> None:
    async with make_provider(fresh_issuer) as provider:
        assert await outcome(provider, fresh_issuer.token()) == "ann"
    assert fresh_issuer.asked == [DISCOVERY, KEYS]


@pytest.mark.parametrize("path", ["/application/o/chat/", "/realms/chat"])
async def test_an_issuers_path_is_kept_with_and_without_a_slash_at_its_end(path: str, make_provider: Make) -> None:
    with FakeIssuer(path) as issuer:
        async with make_provider(issuer) as provider:
            assert await outcome(provider, issuer.token()) == "ann"
        assert issuer.asked == [DISCOVERY, KEYS]


async def test_an_address_of_the_keys_replaces_discovery(fresh_issuer: FakeIssuer, make_provider: Make) -> None:
    async with make_provider(fresh_issuer, jwks_url=fresh_issuer.origin + KEYS) as provider:
        assert await outcome(provider, fresh_issuer.token()) == "ann"
    assert fresh_issuer.asked == [KEYS]


@pytest.mark.parametrize(
    "algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
)
async def test_every_asymmetric_algorithm_is_accepted_unless_said_otherwise(
    algorithm: str, fresh_issuer: FakeIssuer, make_provider: Make
) -> None:
    fresh_issuer.rotate(algorithm)
    async with make_provider(fresh_issuer) as provider:
        assert await outcome(provider, fresh_issuer.token()) == "ann"
    other = "ES256" if algorithm != "ES256" else "RS256"
    async with make_provider(fresh_issuer, algorithms=(other,)) as provider:
        assert await outcome(provider, fresh_issuer.token()) == "invalid"


async def test_a_key_that_does_not_name_its_algorithm_is_used_by_its_type(
    fresh_issuer: FakeIssuer, make_provider: Make
) -> None:
    del fresh_issuer.jwks["keys"][0]["alg"]
    async with make_provider(fresh_issuer) as provider:
        assert await outcome(provider, fresh_issuer.token()) == "ann"
        key = fresh_issuer.keys[0]
        key.algorithm = "PS384"
        assert await outcome(provider, fresh_issuer.token(key=key)) == "ann"
        assert await outcome(provider, fresh_issuer.token(header={"alg": "ES256"})) == "invalid"


@pytest.mark.parametrize(
    "change",
    [
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"alg": "RS512"},
        {"alg": "HS256"},
        {"alg": 1},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "AKP"},
        {"kty": ["RSA"]},
        {"kid": 1},
        {"n": "AQAB"},
        {"n": None},
        {"n": "*" * 400},
        {"e": ...},
    ],
    ids=str,
)
async def test_a_key_that_is_not_for_such_signatures_is_left_out_and_the_others_work(
    change: dict[str, Any], fresh_issuer: FakeIssuer, make_provider: Make
) -> None:
    unfit = fresh_issuer.keys[0]
    good = fresh_issuer.add_key()
    shown = {**unfit.jwk(), **change}
    fresh_issuer.jwks["keys"] = [{k: v for k, v in shown.items() if v is not ...}, "no key", good.jwk()]
    async with make_provider(fresh_issuer) as provider:
        assert await outcome(provider, fresh_issuer.token(key=good)) == "ann"
        assert await outcome(provider, fresh_issuer.token(key=unfit)) == "invalid"


def test_a_short_rsa_key_is_left_out_without_a_word_of_the_library() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        short = RSAKey.generate_key(1024).as_dict(private=False)
        padded = base64url(unbase64url(str(short["n"])).rjust(256, b"\0")).decode()
        assert len(read_keys({"keys": [{**short, "n": padded}]}, frozenset({"RS256"}))) == 0
        warnings.simplefilter("error")
        assert len(read_keys({"keys": [short]}, frozenset({"RS256"}))) == 0


def test_a_key_for_an_exchange_is_no_key_for_signatures() -> None:
    exchange = OKPKey.generate_key("X25519").as_dict(private=False)
    assert len(read_keys({"keys": [exchange]}, frozenset({"EdDSA", "Ed25519"}))) == 0


async def test_a_token_without_kid_needs_exactly_one_key_that_fits(
    fresh_issuer: FakeIssuer, make_provider: Make
) -> None:
    first = fresh_issuer.keys[0]
    elliptic = fresh_issuer.add_key("ES256")
    async with make_provider(fresh_issuer) as provider:
        assert await outcome(provider, fresh_issuer.token(key=first, header={"kid": ...})) == "ann"
        assert await outcome(provider, fresh_issuer.token(key=elliptic, header={"kid": ...})) == "ann"
    fresh_issuer.add_key("RS256")
    async with make_provider(fresh_issuer) as provider:
        assert await outcome(provider, fresh_issuer.token(key=first, header={"kid": ...})) == "invalid"
        assert await outcome(provider, fresh_issuer.token(key=first)) == "ann"


async def test_a_new_key_is_fetched_when_the_first_token_names_it(
    fresh_issuer: FakeIssuer, make_provider: Make
) -> None:
    async with make_provider(fresh_issuer) as provider:
        old = fresh_issuer.token()
        assert await outcome(provider, old) == "ann"
        fresh_issuer.rotate()
        assert await outcome(provider, fresh_issuer.token()) == "ann"
        assert await outcome(provider, old) == "invalid", "the key that signed it was taken back"
    assert fresh_issuer.asked == [DISCOVERY, KEYS, KEYS]


async def test_unknown_names_of_keys_cost_the_issuer_one_request_a_minute(
    fresh_issuer: FakeIssuer, make_provider: Make, clock: Any
) -> None:
    stranger = SigningKey("RS256", None)

    async def attack() -> list[str]:
        tokens = [fresh_issuer.token(key=stranger, header={"kid": f"{number}"}) for number in range(20)]
        return await asyncio.gather(*(outcome(provider, token) for token in tokens))

    async with make_provider(fresh_issuer) as provider:
        good = fresh_issuer.token()
        assert await outcome(provider, good) == "ann"
        assert await attack() == ["invalid"] * 20
        assert await attack() == ["invalid"] * 20
        clock.pass_by(59.9)
        assert await attack() == ["invalid"] * 20
        assert fresh_issuer.asked == [DISCOVERY, KEYS, KEYS]
        clock.pass_by(0.2)
        assert await attack() == ["invalid"] * 20
        assert fresh_issuer.asked == [DISCOVERY, KEYS, KEYS, KEYS]


async def test_a_known_key_does_not_wait_for_the_search_of_an_unknown_one(
    fresh_issuer: FakeIssuer, make_provider: Make
) -> None:
    async with make_provider(fresh_issuer) as provider:
        assert await outcome(provider, fresh_issuer.token()) == "ann"
        fresh_issuer.break_with("hang")
        searching = asyncio.create_task(outcome(provider, fresh_issuer.token(header={"kid": "unknown"})))
        await asyncio.to_thread(fresh_issuer.hung.wait, 20)
        assert await outcome(provider, fresh_issuer.token(sub="bob")) == "bob"
        assert not searching.done()
        fresh_issuer.mend()
        await searching


async def test_a_caller_that_goes_away_does_not_end_the_fetch_for_the_others(
    fresh_issuer: FakeIssuer, make_provider: Make
) -> None:
    fresh_issuer.break_with("hang")
    async with make_provider(fresh_issuer, timeout=20.0) as provider:
        waiting = [asyncio.create_task(outcome(provider, fresh_issuer.token())) for _ in range(3)]
        await asyncio.to_thread(fresh_issuer.hung.wait, 20)
        waiting[0].cancel()
        await asyncio.wait({waiting[0]})
        fresh_issuer.mend()
        assert await asyncio.gather(*waiting[1:]) == ["ann"] * 2
    assert fresh_issuer.asked == [DISCOVERY, KEYS]


@pytest.mark.parametrize("fault", ["status", "redirect", "html", "half", "huge", "hang", "drip", "away", "certificate"])
async def test_without_keys_nothing_is_known_and_the_issuer_is_asked_again(
    fault: Any, fresh_issuer: FakeIssuer, make_provider: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    options: dict[str, Any] = {"timeout": 0.2 if fault in ("hang", "drip") else 10.0}
    if fault == "away":
        fresh_issuer.stop()
    elif fault == "certificate":
        options["ca_file"] = None
    else:
        fresh_issuer.break_with(fault)
    async with make_provider(fresh_issuer, pace=Pace(retry=0.01, retry_most=0.02), **options) as provider:
        assert await outcome(provider, fresh_issuer.token()) == "unavailable"
        label = {"hang": "timeout", "drip": "timeout", "away": "unreachable", "certificate": "unreachable"}
        label |= {"status": "status", "redirect": "status"}
        await until(lambda: counted(provider, label.get(fault, "malformed")) >= 3)
        assert "OIDC admits nobody" in caplog.text
        if fault == "certificate":
            return
        fresh_issuer.start() if fault == "away" else fresh_issuer.mend()
        await until(lambda: counted(provider, "ok") >= 1)
        assert await outcome(provider, fresh_issuer.token()) == "ann"
        assert "can be fetched again" in caplog.text
    assert "/elsewhere" not in fresh_issuer.asked


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://evil.test"},
        {"issuer": ...},
        {"issuer": None},
        {"issuer": "{url}/"},
        {"jwks_uri": ...},
        {"jwks_uri": 1},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "ftp://127.0.0.1/keys"},
        {"jwks_uri": "/keys"},
        {"jwks_uri": "https://"},
        {"jwks_uri": "http://127.0.0.1:{port}/keys"},
    ],
    ids=str,
)
async def test_a_discovery_document_that_is_not_the_issuers_own_is_not_followed(
    discovery: dict[str, Any], fresh_issuer: FakeIssuer, make_provider: Make, trap: Any
) -> None:
    said = {
        k: v.format(url=fresh_issuer.url, port=trap.port) if isinstance(v, str) else v for k, v in discovery.items()
    }
    shown = {**fresh_issuer.discovery, **said}
    fresh_issuer.discovery = {name: value for name, value in shown.items() if value is not ...}
    async with make_provider(fresh_issuer, pace=Pace(retry=3600.0, retry_most=3600.0)) as provider:
        assert await outcome(provider, fresh_issuer.token()) == "unavailable"
        assert counted(provider, "malformed") == 1
    assert fresh_issuer.asked == [DISCOVERY]
    assert not trap.was_visited()


@pytest.mark.parametrize("document", [{}, {"keys": None}, {"keys": {}}, {"keys": "x"}], ids=str)
async def test_what_is_no_key_set_leaves_the_last_keys_in_use(
    document: dict[str, Any], fresh_issuer: FakeIssuer, make_provider: Make
) -> None:
    async with make_provider(fresh_issuer, pace=Pace(retry=3600.0, retry_most=3600.0)) as provider:
        assert await outcome(provider, fresh_issuer.token()) == "ann"
        fresh_issuer.jwks = document
        assert await outcome(provider, fresh_issuer.token(header={"kid": "new"})) == "unavailable"
        assert await outcome(provider, fresh_issuer.token(sub="bob")) == "bob"
        assert counted(provider, "malformed") == 1


async def test_an_issuer_without_keys_has_taken_them_back(
    fresh_issuer: FakeIssuer, make_provider: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_provider(fresh_issuer) as provider:
        token = fresh_issuer.token()
        assert await outcome(provider, token) == "ann"
        fresh_issuer.jwks = {"keys": []}
        assert await outcome(provider, fresh_issuer.token(header={"kid": "new"})) == "invalid"
        assert await outcome(provider, token) == "invalid"
    assert "has no key for --oidc-algorithms" in caplog.text


async def test_the_last_keys_stay_in_use_for_a_day_while_the_issuer_is_away(
    fresh_issuer: FakeIssuer, make_provider: Make, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_provider(fresh_issuer, pace=Pace(refresh=0.01, retry=0.01, retry_most=0.02)) as provider:
        assert await outcome(provider, fresh_issuer.token()) == "ann"
        fresh_issuer.stop()
        await until(lambda: counted(provider, "unreachable") >= 2)
        assert "its last keys stay in use, for at most 24.0 hours" in caplog.text
        clock.pass_by(86_390)
        assert await outcome(provider, fresh_issuer.token(exp=int(clock.now) + 600)) == "ann"
        clock.pass_by(3600)
        assert await outcome(provider, fresh_issuer.token(exp=int(clock.now) + 600)) == "unavailable"
        fresh_issuer.start()
        fetched = counted(provider, "ok")
        await until(lambda: counted(provider, "ok") > fetched)
        assert await outcome(provider, fresh_issuer.token(exp=int(clock.now) + 600)) == "ann"


async def test_keys_are_refreshed_without_any_request(fresh_issuer: FakeIssuer, make_provider: Make) -> None:
    async with make_provider(fresh_issuer, pace=Pace(refresh=0.01)) as provider:
        token = fresh_issuer.token()
        assert await outcome(provider, token) == "ann"
        fresh_issuer.rotate()
        fetched = counted(provider, "ok")
        await until(lambda: counted(provider, "ok") >= fetched + 2)
        assert await outcome(provider, token) == "invalid"


async def test_a_fetch_that_is_on_its_way_at_the_end_may_land(fresh_issuer: FakeIssuer, make_provider: Make) -> None:
    fresh_issuer.break_with("hang")
    async with make_provider(fresh_issuer, jwks_url=fresh_issuer.origin + KEYS) as provider:
        await asyncio.to_thread(fresh_issuer.hung.wait, 20)
        fresh_issuer.mend()
    assert counted(provider, "ok") == 1


async def test_nothing_is_left_running_after_the_end(
    fresh_issuer: FakeIssuer, make_provider: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jimsapi_oidc.issuer.FETCH_END_WITHIN", 0.01)
    before = asyncio.all_tasks()
    fresh_issuer.break_with("hang")
    async with make_provider(fresh_issuer, timeout=30.0):
        await asyncio.to_thread(fresh_issuer.hung.wait, 20)
    assert asyncio.all_tasks() == before
    fresh_issuer.mend()


async def test_an_issuer_without_tls_may_have_its_keys_anywhere_and_the_log_warns(
    make_provider: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeIssuer(tls=False) as issuer:
        async with make_provider(issuer, ca_file=None) as provider:
            assert await outcome(provider, issuer.token()) == "ann"
    assert "without TLS" in caplog.text


async def test_no_proxy_of_the_environment_is_asked(
    fresh_issuer: FakeIssuer, make_provider: Make, trap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{trap.port}")
    async with make_provider(fresh_issuer) as provider:
        assert await outcome(provider, fresh_issuer.token()) == "ann"
    assert not trap.was_visited()


async def test_a_remembered_token_is_admitted_with_the_same_identity_until_it_expires(
    fresh_issuer: FakeIssuer, make_provider: Make, clock: Any
) -> None:
    async with make_provider(fresh_issuer) as provider:
        token = fresh_issuer.token(exp=int(clock.now) + 10)
        first = await provider.authenticate(bearing(token))
        assert await provider.authenticate(bearing(token)) is first
        assert provider._counts.verifications["cached"] == 1
        clock.pass_by(10 + 59)
        assert await outcome(provider, token) == "ann"
        clock.pass_by(2)
        assert await outcome(provider, token) == "invalid"


async def test_a_remembered_token_is_verified_again_after_a_minute(
    fresh_issuer: FakeIssuer, make_provider: Make, clock: Any
) -> None:
    async with make_provider(fresh_issuer) as provider:
        token = fresh_issuer.token()
        for _ in range(3):
            await outcome(provider, token)
        clock.pass_by(61)
        await outcome(provider, token)
        assert provider._counts.verifications["verified"] == 2


async def test_only_so_many_tokens_are_remembered(
    fresh_issuer: FakeIssuer, make_provider: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jimsapi_oidc.provider.MAX_CACHED", 3)
    async with make_provider(fresh_issuer) as provider:
        tokens = [fresh_issuer.token(sub=f"{number}") for number in range(5)]
        for token in tokens:
            await outcome(provider, token)
        assert len(provider._cache._entries) == 3
        await outcome(provider, tokens[4])
        await outcome(provider, tokens[0])
        assert provider._counts.verifications["cached"] == 1
