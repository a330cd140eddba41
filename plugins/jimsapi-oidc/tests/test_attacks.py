"""Every forged, broken or foreign token gets 401 and moves the server to no request that the token chose."""

import hmac
import json
import logging
import string
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from fake_issuer import AUDIENCE, FakeIssuer, SigningKey, base64url, encode, unbase64url
from trusting_api import CHAT, api

from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

METADATA = "http://testserver/.well-known/oauth-protected-resource/api/v1"
BEARER = f'Bearer resource_metadata="{METADATA}", scope="chat", realm="jimsapi"'
INVALID = BEARER + ', error="invalid_token"'

Forge = Callable[[FakeIssuer, Any], str]


@pytest.fixture(scope="module")
async def client(issuer: FakeIssuer) -> AsyncIterator[TestClient]:
    issuer.add_key("ES256", "elliptic")
    issuer.add_key("RS256", "first")
    async with api(issuer) as client:
        yield client


async def chat(client: TestClient, token: str | bytes) -> Any:
    value = b"Bearer " + (token if isinstance(token, bytes) else token.encode("latin-1", "replace"))
    return await client.post(CHAT, json={"message": "hi"}, headers={b"authorization": value})


async def test_a_good_token_enters(client: TestClient, issuer: FakeIssuer) -> None:
    assert (await chat(client, issuer.token())).status_code == 200


def hmac_signed(issuer: FakeIssuer, secret: bytes, algorithm: str = "HS256", **header: Any) -> str:
    """A token with a MAC that is made with what everybody knows."""
    signed = base64url(encode({"alg": algorithm, "typ": "JWT", "kid": "first", **header})) + b"."
    signed += base64url(encode(issuer.claims()))
    mac = hmac.new(secret, signed, {"HS384": "sha384", "HS512": "sha512"}.get(algorithm, "sha256")).digest()
    return (signed + b"." + base64url(mac)).decode()


def stranger(issuer: FakeIssuer, **header: Any) -> str:
    """A token signed with the key of another issuer."""
    return issuer.token(key=STRANGER, header={"kid": "first", **header})


STRANGER = SigningKey("RS256", "stranger")


def unsigned(issuer: FakeIssuer, alg: str, signature: bytes = b"") -> str:
    head, body = base64url(encode({"alg": alg, "typ": "JWT", "kid": "first"})), base64url(encode(issuer.claims()))
    return (head + b"." + body + b"." + base64url(signature)).decode()


def mixed(issuer: FakeIssuer) -> str:
    """The claims of one token with the signature of another."""
    return issuer.token(sub="bob").rpartition(".")[0] + "." + issuer.token().rpartition(".")[2]


def tampered(issuer: FakeIssuer) -> str:
    head, body, signature = issuer.token().split(".")
    claims = {**json.loads(unbase64url(body)), "sub": "root"}
    return f"{head}.{base64url(encode(claims)).decode()}.{signature}"


def respelled_signature(token: str) -> str:
    """The same signature for a lenient decoder: the last two bits of its last character are unused."""
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) + 1]


def cut(issuer: FakeIssuer, length: int) -> str:
    signed, _, signature = issuer.token().rpartition(".")
    return f"{signed}.{signature[:length]}"


def raw(header: bytes | None = None, payload: bytes | None = None) -> Forge:
    def forge(issuer: FakeIssuer, _: Any) -> str:
        head = encode({"alg": "RS256", "typ": "JWT", "kid": "first"}) if header is None else header
        return issuer.sign(head, encode(issuer.claims()) if payload is None else payload)

    return forge


def twice(name: str, first: object, second: object) -> Forge:
    """A payload that has a claim twice, signed by the issuer's own key."""

    def forge(issuer: FakeIssuer, _: Any) -> str:
        claims = encode(issuer.claims(**{name: ...}))
        both = b",".join(encode(name) + b":" + encode(value) for value in (first, second))
        return issuer.sign(encode({"alg": "RS256", "kid": "first"}), claims[:-1] + b"," + both + b"}")

    return forge


def deep(issuer: FakeIssuer, value: bytes) -> bytes:
    """The claims of a good token, and this JSON as one more."""
    return encode(issuer.claims())[:-1] + b',"deep":' + value + b"}"


def claim(**changes: Any) -> Forge:
    return lambda issuer, _: issuer.token(**changes)


def later(**changes: float) -> Forge:
    def forge(issuer: FakeIssuer, _: Any) -> str:
        dates: dict[str, Any] = {name: int(time.time() + value) for name, value in changes.items()}
        return issuer.token(**dates)

    return forge


def header(**changes: Any) -> Forge:
    return lambda issuer, _: issuer.token(header=changes)


# Invalid tokens that name the issuer: each is rejected.
FORGED: Mapping[str, Forge] = {
    "none": lambda i, _: unsigned(i, "none"),
    "None": lambda i, _: unsigned(i, "None"),
    "NONE": lambda i, _: unsigned(i, "NONE"),
    "nOnE": lambda i, _: unsigned(i, "nOnE"),
    "none with a signature": lambda i, _: unsigned(i, "none", b"x"),
    "empty algorithm": lambda i, _: unsigned(i, ""),
    "no algorithm": header(alg=...),
    "algorithm null": lambda i, _: i.token(header={"alg": None}),
    "algorithm list": lambda i, _: i.token(header={"alg": ["RS256"]}),
    "algorithm rs256": lambda i, _: i.token(header={"alg": "rs256"}),
    "algorithm with a blank": lambda i, _: i.token(header={"alg": "RS256 "}),
    "algorithm with NUL": lambda i, _: i.token(header={"alg": "RS256\0"}),
    "algorithm unknown": lambda i, _: i.token(header={"alg": "RS1"}),
    "algorithm of encryption": lambda i, _: i.token(header={"alg": "RSA-OAEP"}),
    "algorithm ES256 for an RSA key": lambda i, _: i.token(header={"alg": "ES256"}),
    "algorithm EdDSA for an RSA key": lambda i, _: i.token(header={"alg": "EdDSA"}),
    "algorithm PS256 for a key of RS256": lambda i, _: i.token(header={"alg": "PS256"}),
    "algorithm RS512 for a key of RS256": lambda i, _: i.token(header={"alg": "RS512"}),
    "RS256 under the name of the EC key": header(kid="elliptic"),
    "HS256 with the public key's PEM": lambda i, _: hmac_signed(i, i.keys[-1].pem()),
    "HS256 with the public key's PEM, stripped": lambda i, _: hmac_signed(i, i.keys[-1].pem().strip()),
    "HS256 with the public JWK": lambda i, _: hmac_signed(i, encode(i.keys[-1].jwk())),
    "HS256 with the modulus": lambda i, _: hmac_signed(i, unbase64url(i.keys[-1].jwk()["n"])),
    "HS512 with the public key's PEM": lambda i, _: hmac_signed(i, i.keys[-1].pem(), "HS512"),
    "HMAC under the name of RS256": lambda i, _: hmac_signed(i, i.keys[-1].pem(), "RS256"),
    "HS256 with an empty kid": lambda i, _: hmac_signed(i, i.keys[-1].pem(), kid=""),
    "another's key": lambda i, _: stranger(i),
    "another's key, embedded": lambda i, _: stranger(i, jwk=STRANGER.jwk()),
    "another's key, embedded under its own name": lambda i, _: stranger(i, kid="stranger", jwk=STRANGER.jwk()),
    "another's key, embedded, without a name": lambda i, _: stranger(i, kid=..., jwk=STRANGER.jwk()),
    "another's key, at an address": lambda i, trap: stranger(i, kid="stranger", jku=trap.url()),
    "the right key, and an address": lambda i, trap: stranger(i, jku=trap.url(), x5u=trap.url("/cert")),
    "another's certificate, at an address": lambda i, trap: stranger(i, kid="stranger", x5u=trap.url("/cert")),
    "another's certificate, embedded": lambda i, _: stranger(i, x5c=["MIIB"], x5t="AA"),
    "kid that is an address": lambda i, trap: stranger(i, kid=trap.url()),
    "kid that is a path": header(kid="../../../../dev/null"),
    "kid that is SQL": header(kid="' OR 1=1 --"),
    "kid that is unknown": header(kid="unknown"),
    "kid that is a number": header(kid=1),
    "kid that is a list": header(kid=["first"]),
    "critical extension": header(crit=["exp"]),
    "critical extension, empty": header(crit=[]),
    "critical extension of ours": header(crit=["alg"]),
    "payload not encoded": header(b64=False, crit=["b64"]),
    "payload not encoded, silently": header(b64=False),
    "type of a logout token": header(typ="logout+jwt"),
    "type of an event": header(typ="secevent+jwt"),
    "type that is no text": header(typ=["at+jwt"]),
    "ID token by its hash": claim(at_hash="x"),
    "ID token by the nonce of a login": claim(nonce="x"),
    "ID token by its nonce, empty": claim(nonce=""),
    "ID token by its nonce, null": claim(nonce=None),
    "ID token by its nonce, whatever its header says": lambda i, _: i.token(nonce="x", header={"typ": "JWT"}),
    "ID token by its nonce and Keycloak's word": claim(nonce="x", typ="ID"),
    "ID token by its hash, whatever it says": claim(at_hash="x", typ="Bearer"),
    "ID token by Keycloak's word": claim(typ="ID"),
    "refresh token by Keycloak's word": claim(typ="Refresh"),
    "signature of another token": lambda i, _: mixed(i),
    "claims changed": lambda i, _: tampered(i),
    "signature empty": lambda i, _: cut(i, 0),
    "signature in another spelling": lambda i, _: respelled_signature(i.token()),
    "signature cut": lambda i, _: cut(i, 100),
    "signature of one character": lambda i, _: cut(i, 1),
    "audience of another": claim(aud="another"),
    "audience in other letters": claim(aud=AUDIENCE.upper()),
    "audience and more": claim(aud=AUDIENCE + "/"),
    "audience list of others": claim(aud=["a", "b"]),
    "audience list, empty": claim(aud=[]),
    "audience with a number": claim(aud=[AUDIENCE, 1]),
    "audience object": claim(aud={AUDIENCE: True}),
    "audience missing": claim(aud=...),
    "audience null": claim(aud=None),
    "expired": later(exp=-61),
    "expired long ago": claim(exp=0),
    "expiry missing": claim(exp=...),
    "expiry null": claim(exp=None),
    "expiry text": claim(exp="9999999999"),
    "expiry true": claim(exp=True),
    "expiry infinite": lambda i, _: i.sign(
        encode({"alg": "RS256", "kid": "first"}), encode(i.claims(exp=...))[:-1] + b',"exp":1e999}'
    ),
    "expiry beyond any float": claim(exp=10**400),
    "not yet valid": later(nbf=90),
    "not-before text": claim(nbf="0"),
    "not-before true": claim(nbf=True),
    "issued-at true": claim(iat=True),
    "issued in the future": later(iat=90),
    "issued-at list": claim(iat=[0]),
    "audience twice": twice("aud", "another", AUDIENCE),
    "expiry twice": twice("exp", 0, 9999999999),
    "subject twice": twice("sub", "ann", "root"),
    "algorithm twice": raw(header=b'{"alg":"none","alg":"RS256","kid":"first"}'),
    "header bomb": raw(header=b'{"alg":"RS256","kid":"first","x":' + b"[" * 4000 + b"]" * 4000 + b"}"),
    "payload bomb in good claims": lambda i, _: i.sign(
        encode({"alg": "RS256", "kid": "first"}), deep(i, b"[" * 5000 + b"]" * 5000)
    ),
    "header bomb, unclosed": raw(header=b'{"alg":"RS256","x":' + b'{"a":' * 2000),
    "payload bomb": raw(payload=b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "payload of 33 levels": lambda i, _: i.sign(
        encode({"alg": "RS256", "kid": "first"}), deep(i, b"[" * 32 + b"]" * 32)
    ),
    "payload of 33 levels, mixed": lambda i, _: i.sign(
        encode({"alg": "RS256", "kid": "first"}), deep(i, b'[{"a":' * 16 + b"1" + b"}]" * 16)
    ),
    "header of 33 levels": raw(header=b'{"alg":"RS256","kid":"first","x":' + b"[" * 32 + b"]" * 32 + b"}"),
    "payload huge number": raw(payload=b'{"exp":' + b"9" * 5000 + b"}"),
    "payload NaN": raw(payload=b'{"exp":NaN}'),
    "payload list": raw(payload=b"[]"),
    "payload text": raw(payload=b'"ann"'),
    "payload half": raw(payload=b'{"sub":"ann"'),
    "payload UTF-16": raw(payload='{"sub":"ann"}'.encode("utf-16")),
    "payload Latin-1": raw(payload=b'{"sub":"\xfc"}'),
    "payload with a BOM": raw(payload=b'\xef\xbb\xbf{"sub":"ann"}'),
    "header list": raw(header=b"[]"),
    "header no JSON": raw(header=b"RS256"),
    "oversized": claim(pad="x" * 20_000),
    "oversized, and no JWT": lambda *_: "x" * 200_000,
    "one character of base64": lambda *_: "a.b.c",
}

# Tokens that do not name the issuer: they are left to other providers, as if the request had no token.
FOREIGN: Mapping[str, Forge] = {
    "another issuer": claim(iss="https://evil.test"),
    "another issuer, almost": lambda i, _: i.token(iss=i.url + "/"),
    "another issuer, its case": lambda i, _: i.token(iss=i.url.upper()),
    "issuer list": lambda i, _: i.token(iss=[i.url]),
    "issuer missing": claim(iss=...),
    "opaque": lambda *_: "gkho_opaque-token",
    "empty": lambda *_: "",
    "dots": lambda *_: "..",
    "two parts": lambda i, _: i.token().rpartition(".")[0],
    "four parts": lambda i, _: i.token() + ".x",
    "five parts, encrypted": lambda i, _: i.token() + ".x.y",
    "blank inside": lambda i, _: i.token().replace(".", " .", 1),
    "newline inside": lambda i, _: i.token().replace(".", "\n.", 1),
    "newline behind": lambda i, _: i.token() + "\n",
    "tab behind": lambda i, _: i.token() + "\t",
    "NUL behind": lambda i, _: i.token() + "\0",
    "padding": lambda i, _: i.token() + "==",
    "plain base64": lambda i, _: i.token().replace(".", "+.", 1),
    "a comma and more": lambda i, _: f"{i.token()},{i.token()}",
    "quotes": lambda i, _: f'"{i.token()}"',
    "non-ASCII": lambda i, _: i.token() + "ü",
}


@pytest.mark.parametrize("name", FORGED)
async def test_a_bad_token_is_refused(client: TestClient, issuer: FakeIssuer, trap: Any, name: str) -> None:
    answer = await chat(client, FORGED[name](issuer, trap))
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, INVALID)
    assert not trap.was_visited()


@pytest.mark.parametrize("name", FOREIGN)
async def test_a_token_of_somebody_else_is_refused_as_none(
    client: TestClient, issuer: FakeIssuer, trap: Any, name: str
) -> None:
    answer = await chat(client, FOREIGN[name](issuer, trap))
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, BEARER)


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic {}", "Token {}", "{}", "Bearer{}", "DPoP {}"])
async def test_a_token_counts_under_the_scheme_bearer_only(
    client: TestClient, issuer: FakeIssuer, authorization: str
) -> None:
    headers = {"authorization": authorization.format(issuer.token())}
    assert (await client.post(CHAT, json={"message": "hi"}, headers=headers)).status_code == 401


async def test_no_attack_makes_the_server_ask_anything_but_the_keys_once(
    client: TestClient, issuer: FakeIssuer, trap: Any
) -> None:
    for number in range(50):
        await chat(client, issuer.token(header={"kid": f"made-up-{number}", "jku": trap.url()}))
    for forge in (*FORGED.values(), *FOREIGN.values()):
        await chat(client, forge(issuer, trap))
    assert not trap.was_visited()
    # At the start discovery and keys; then, for the first made-up kid of this module, the keys once more.
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys", "/keys"]


async def test_what_is_refused_leaves_no_token_and_no_claim_in_the_log(
    client: TestClient, issuer: FakeIssuer, trap: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = [forge(issuer, trap) for forge in FORGED.values()] + [issuer.token(sub="private-person")]
    for token in tokens:
        await chat(client, token)
    said = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("jimsapi"))
    assert "rejected a token" in said
    assert "private-person" not in said
    assert not any(part in said for token in tokens for part in token.split(".") if len(part) > 20)
