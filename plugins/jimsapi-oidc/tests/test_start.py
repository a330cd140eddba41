"""Options, half a configuration, and the real command."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_issuer import FakeIssuer
from jimsapi_oidc import FIELDS, OidcOptions
from jimsapi_oidc.metrics import Counts
from trusting_api import CHAT, api, echo

from jimsapi import create_api
from jimsapi.asgi.testing import TestClient
from tests.serving import ROOT

pytestmark = pytest.mark.anyio


GOOD = {"contact_id": "ann", "message": "hi"}


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"oidc_issuer": "{url}"}, ["--oidc-audience"]),
        ({"oidc_issuer": "{url}", "oidc_audience": ""}, ["--oidc-audience"]),
        ({"oidc_issuer": "{url}", "oidc_audience": ("", " ")}, ["--oidc-audience"]),
        ({"oidc_audience": "jimsapi-tests"}, ["--oidc-issuer"]),
        ({"oidc_audience": "jimsapi-tests", "oidc_issuer": " "}, ["--oidc-issuer"]),
        ({"oidc_contact_claim": "email"}, ["--oidc-issuer", "--oidc-audience"]),
        ({"oidc_jwks_url": "{url}/keys"}, ["--oidc-issuer", "--oidc-audience"]),
        ({"oidc_scopes": "chat"}, ["--oidc-issuer", "--oidc-audience"]),
        ({"oidc_timeout": 3}, ["--oidc-issuer", "--oidc-audience"]),
    ],
    ids=str,
)
async def test_half_a_configuration_admits_nobody_but_key_holders_and_names_what_is_missing(
    issuer: FakeIssuer, given: dict[str, Any], missing: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    settings = {
        name: value.format(url=issuer.url) if isinstance(value, str) else value for name, value in given.items()
    }
    async with TestClient(create_api(echo, store="memory:", api_key="k", **settings)) as client:
        for authorization, status in (
            (None, 401),
            (f"Bearer {issuer.token()}", 401),
            ("Bearer x", 401),
            ("Bearer k", 200),
        ):
            headers = {} if authorization is None else {"authorization": authorization}
            answer = await client.post(CHAT, json=GOOD, headers=headers)
            assert answer.status_code == status
            assert status == 200 or answer.headers["www-authenticate"]
    warnings = [record.getMessage() for record in caplog.records if record.name == "jimsapi.oidc"]
    assert len(warnings) == 1
    assert "ADMITS NOBODY" in warnings[0]
    assert [flag for flag in ("--oidc-issuer", "--oidc-audience") if f"{flag} (" in warnings[0]] == missing


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"oidc_algorithms": "HS256"}, "'HS256' is not one of"),
        ({"oidc_algorithms": ("RS256", "HS512")}, "'HS512' is not one of"),
        ({"oidc_algorithms": "none"}, "'none' is not one of"),
        ({"oidc_algorithms": "rs256"}, "'rs256' is not one of"),
        ({"oidc_leeway": -1}, "--oidc-leeway"),
        ({"oidc_timeout": 0}, "--oidc-timeout"),
        ({"oidc_ca_file": "missing.pem"}, "--oidc-ca-file: cannot use missing.pem: No such file"),
        ({"oidc_ca_file": __file__}, "it contains no certificate"),
        ({"oidc_issuer": "accounts.example.org"}, "--oidc-issuer"),
        ({"oidc_issuer": "https://example.org/?tenant=1"}, "--oidc-issuer"),
        ({"oidc_issuer": "file:///etc"}, "--oidc-issuer"),
        ({"oidc_jwks_url": "keys.json"}, "--oidc-jwks-url"),
        ({"oidc_jwks_url": "file:///etc/keys.json"}, "--oidc-jwks-url"),
    ],
    ids=str,
)
async def test_an_option_that_cannot_work_stops_the_start(
    issuer: FakeIssuer, changes: dict[str, Any], fault: str
) -> None:
    with pytest.raises(RuntimeError, match=fault) as failure:
        async with api(issuer, **changes):
            pass
    assert "pip uninstall" not in str(failure.value)  # it is the option that is to be mended, not the plugin
    assert "jimsapi_auth_provider" not in str(failure.value)


def test_an_unconfigured_plugin_imports_nothing_heavy() -> None:
    program = """
import asyncio, sys
from jimsapi import create_api
async def pipeline(ctx): pass
async def main():
    async with create_api(pipeline, store="memory:").lifespan():
        heavy = [name for name in sys.modules if name.startswith(("joserfc", "cryptography", "jimsapi_oidc."))]
        print("jimsapi_oidc" in sys.modules, heavy)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "True []\n"


def test_check_with_connect_asks_the_issuer_for_its_keys(fresh_issuer: FakeIssuer) -> None:
    check = ("check", "--connect", "--app", "tests.apps.steered:app", "--store", "memory:", "--metrics-port", "0")

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jimsapi", *check, "--port", "0", *fresh_issuer.flags()]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "it answers: auth provider oidc" in done.stdout
    fresh_issuer.stop()
    done = run()
    assert done.returncode == 1
    assert "jimsapi: auth provider oidc: the issuer's keys are not known: " in done.stderr


def test_the_manual_names_every_option_and_metric() -> None:
    manual = (Path(__file__).parents[1] / "README.md").read_text()
    for field in FIELDS:
        assert f"`--oidc-{field.replace('_', '-')}`" in manual
    for family in Counts().collect():
        assert f"`{family.name}" in manual


def test_every_option_counts_as_a_configuration() -> None:
    assert set(FIELDS) == set(OidcOptions.__annotations__)
