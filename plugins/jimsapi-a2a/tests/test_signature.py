"""The signature of the agent card: the official clients verify it, and the server keeps its key to itself."""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import rfc8785
from a2a.client import A2ACardResolver
from a2a.utils.signing import InvalidSignaturesError, create_signature_verifier
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jimsapi_a2a.signature import card_signer
from joserfc.errors import BadSignatureError
from joserfc.jwk import ECKey
from joserfc.jws import deserialize_compact
from jwt import PyJWK

from tests.command import refusal, run_command
from tests.node import run_node
from tests.serving import Served

VERIFY = Path(__file__).with_name("verify.mjs")
CARD = "/.well-known/agent-card.json"
BASE = "https://bot.example/a"
KEYS = "https://bot.example/keys"


def pem(key: Any, *, password: bytes | None = None) -> bytes:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    written: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return written


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("key") / "a2a.pem"
    file.write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    return file


@pytest.fixture(scope="module")
def served(key_file: Path) -> Iterator[Served]:
    """An agent that is reached under another name than the one that it signs."""
    options = ("--a2a-url", BASE, "--a2a-signing-key", str(key_file), "--api-key", "agents-key", "--verbose")
    with Served(*options) as server:
        yield server
        assert not [line for line in key_file.read_text().splitlines()[1:-1] if line in server.stderr]


def card_of(served: Served, **headers: str) -> Any:
    with served.client() as client:
        return client.get(CARD, headers=headers).json()


def header_of(signature: Any) -> Any:
    text = signature["protected"]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


# The official clients.


@pytest.mark.anyio
async def test_the_python_client_verifies_the_card_with_the_key_that_the_server_publishes(served: Served) -> None:
    def published(kid: str | None, jku: str | None) -> PyJWK:
        assert jku is not None
        assert jku.startswith(BASE)
        with served.client() as client:
            [key] = client.get(jku.removeprefix(BASE)).json()["keys"]
        assert (key["kid"], set(key)) == (kid, {"kty", "crv", "x", "y", "kid", "alg", "use"})
        return PyJWK(key)

    verify = create_signature_verifier(published, ["ES256"])
    async with httpx.AsyncClient(trust_env=False) as client:
        card = await A2ACardResolver(client, served.url).get_agent_card(signature_verifier=verify)
        assert card.supported_interfaces[0].url.startswith(f"{BASE}/")
        card.description = "Changed on the way"
        with pytest.raises(InvalidSignaturesError):
            verify(card)


def test_the_javascript_client_verifies_the_card(served: Served) -> None:
    assert run_node(VERIFY, url=served.url, base=BASE) == {
        "verified": True,
        "changed": "No valid signatures found on agent card.",
    }


# What is signed.


def test_the_signed_content_is_the_card_in_canonical_form(served: Served) -> None:
    card = card_of(served)
    with served.client() as client:
        keys = client.get(header_of(card["signatures"][0])["jku"].removeprefix(BASE)).json()["keys"]
    public = ECKey.import_key(keys[0])
    content = {name: value for name, value in card.items() if name != "signatures"}
    signatures = card["signatures"]
    for signature in signatures:
        assert {name: header_of(signature)[name] for name in ("alg", "typ")} == {"alg": "ES256", "typ": "JOSE"}
    assert is_valid(signatures[0], rfc8785.dumps(content), public)
    for name in content:
        fewer = {**content, name: "changed"}
        assert not any(is_valid(signature, rfc8785.dumps(fewer), public) for signature in signatures)


@pytest.mark.parametrize("name", ["host", "x-forwarded-host", "forwarded"])
def test_no_header_of_a_request_gets_into_a_signed_card(served: Served, name: str) -> None:
    evil = "host=evil.example" if name == "forwarded" else "evil.example"
    assert "evil" not in json.dumps(card_of(served, **{name: evil}))


def is_valid(signature: Any, payload: bytes, public: ECKey) -> bool:
    encoded = base64.urlsafe_b64encode(payload).rstrip(b"=").decode()
    compact = f"{signature['protected']}.{encoded}.{signature['signature']}"
    try:
        return deserialize_compact(compact, public, algorithms=["ES256"]).payload == payload
    except BadSignatureError:
        return False


def test_empty_values_are_signed_as_the_specification_and_as_the_clients_have_it(key_file: Path) -> None:
    signer = card_signer(key_file, KEYS)
    signed = signer.sign({"name": "ü", "description": "", "skills": [], "security": {"a": {"list": []}}})
    public = ECKey.import_key(signer.public_keys["keys"][0])
    forms = ['{"description":"","name":"ü","security":{"a":{"list":[]}},"skills":[]}', '{"name":"ü"}']
    for signature, form in zip(signed["signatures"], forms, strict=True):
        assert is_valid(signature, form.encode(), public)
    assert len(signer.sign({"name": "ü", "signatures": signed["signatures"]})["signatures"]) == 1


# Keys.


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (ec.generate_private_key(ec.SECP521R1()), "ES512"),
        (rsa.generate_private_key(65537, 2048), "RS256"),
    ],
)
def test_other_keys_sign_too(tmp_path: Path, key: Any, algorithm: str) -> None:
    (tmp_path / "key.pem").write_bytes(pem(key))
    signer = card_signer(tmp_path / "key.pem", KEYS)
    [signature] = signer.sign({"name": "Bot"})["signatures"]
    assert header_of(signature)["alg"] == algorithm
    assert not {"d", "p", "q"} & set(signer.public_keys["keys"][0])
    assert "PRIVATE" not in repr(signer)


P256 = ec.generate_private_key(ec.SECP256R1())
FAULTS = {
    "missing": (None, "No such file or directory"),
    "empty": (b"", "it is not a private key in PEM; create one with: openssl genpkey"),
    "broken": (pem(P256)[:100], "it is not a private key in PEM"),
    "public": (
        P256.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "it is not a private key in PEM",
    ),
    "large": (b"x" * 70_000, "it has 70000 bytes"),
    "encrypted": (pem(P256, password=b"secret"), "the key is encrypted; decrypt it with: openssl pkey"),
    "another curve": (
        pem(ec.generate_private_key(ec.SECP256K1())),
        "neither an EC key (P-256, P-384, P-521) nor an RSA key",
    ),
    "another kind": (pem(ed25519.Ed25519PrivateKey.generate()), "neither an EC key"),
    "short": (pem(rsa.generate_private_key(65537, 1024)), "an RSA key needs 2048 bits, and this one has 1024"),
}


@pytest.mark.parametrize(("content", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_file_without_a_usable_key_is_refused_and_not_quoted(
    tmp_path: Path, content: bytes | None, fault: str
) -> None:
    file = tmp_path / "key.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        card_signer(file, KEYS)
    assert str(refused.value).startswith(f"{file}: ")
    assert fault in str(refused.value)
    assert refused.value.__cause__ is None
    lines = (content or b"").decode().splitlines()[1:-1]
    assert not [line for line in lines if line in str(refused.value)]


def test_a_pipe_is_no_file_of_a_key(tmp_path: Path) -> None:
    subprocess.run(["mkfifo", tmp_path / "key.pem"], check=True)
    with pytest.raises(ValueError, match="it is not a regular file"):
        card_signer(tmp_path / "key.pem", KEYS)


# The start.


@pytest.mark.parametrize("command", [("check",), ("--port", "0")])
def test_a_key_without_the_url_that_it_signs_stops_the_start(
    tmp_path: Path, key_file: Path, command: tuple[str, ...]
) -> None:
    done = run_command(
        *command,
        "--app",
        "tests.apps.steered:app",
        "--store",
        "memory:",
        "--a2a-signing-key",
        str(key_file),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "--a2a-signing-key needs --a2a-url" in done.stdout + done.stderr


@pytest.mark.parametrize("command", [("check",), ("--port", "0")])
def test_a_faulty_key_stops_the_start(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "key.pem").write_text("no key")
    options = ("--a2a-url", BASE, "--a2a-signing-key", "key.pem")
    done = run_command(*command, "--app", "tests.apps.steered:app", "--store", "memory:", *options, cwd=tmp_path)
    assert done.returncode == 1
    assert "--a2a-signing-key: key.pem: it is not a private key in PEM" in done.stdout + done.stderr


def test_a_start_with_a_faulty_key_says_it_in_one_line(tmp_path: Path) -> None:
    options = ("--a2a-url", BASE, "--a2a-signing-key", "none.pem", "--port", "0", "--metrics-port", "0")
    done = run_command("--app", "tests.apps.steered:app", "--store", "memory:", *options, cwd=tmp_path)
    assert "none.pem: No such file or directory" in refusal(done)
