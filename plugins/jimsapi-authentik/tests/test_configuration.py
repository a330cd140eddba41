"""The options: which are needed, what is refused at start, and what an unconfigured plugin costs."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from calling import call, served, status_of
from fake_authentik import FakeAuthentik
from jimsapi_authentik import AuthentikOptions
from jimsapi_authentik.client import application_path, base_url

from jimsapi import Secret
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.options import OptionSpec, specs
from tests.serving import ROOT

pytestmark = pytest.mark.anyio

PUBLIC = "NO AUTHENTICATION IS CONFIGURED"
BY_HALF = "AUTHENTIK IS ONLY HALF CONFIGURED AND ADMITS NOBODY"


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["url"], "missing --authentik-app-slug"),
        (["app_slug"], "missing --authentik-url"),
        (["contact_field"], "missing --authentik-url and --authentik-app-slug"),
        (["timeout"], "missing --authentik-url and --authentik-app-slug"),
        (["cache_ttl"], "missing --authentik-url and --authentik-app-slug"),
        (["ca_file"], "missing --authentik-url and --authentik-app-slug"),
        (["url", "contact_field"], "missing --authentik-app-slug"),
        (["app_slug", "contact_field"], "missing --authentik-url"),
    ],
)
async def test_half_a_configuration_admits_nobody_but_key_holders_and_says_so(
    authentik: FakeAuthentik, names: list[str], missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    authentik.bindings = False
    values: dict[str, Any] = {"url": authentik.url, "app_slug": "jims", "contact_field": "uid"}
    values |= {"timeout": 5.0, "cache_ttl": 0, "ca_file": authentik.ca_file}
    settings = {f"authentik_{name}": value if name in names else "" for name, value in values.items()}
    async with served(api_key="the-key", **settings) as client:
        for authorization in (None, "", "Bearer", "Bearer ", "Bearer good", "Bearer bad", "Basic Z29vZA=="):
            answer = await call(client, authorization)
            assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"})
            challenge = answer.headers["www-authenticate"]
            faulty = authorization is not None and authorization.startswith("Bearer")
            assert challenge == 'Bearer realm="jimsapi"' + (', error="invalid_token"' if faulty else "")
        assert (await call(client, "Bearer the-key")).status_code == 200
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert [one for one in warnings if f"{BY_HALF}: {missing};" in one]
    assert PUBLIC not in caplog.text
    assert authentik.seen == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://auth.example.org", "https://auth.example.org"),
        ("https://auth.example.org/", "https://auth.example.org"),
        ("http://authentik-server:9000", "http://authentik-server:9000"),
        ("https://auth.example.org/sso/", "https://auth.example.org/sso"),
        ("https://auth.example.org//", "https://auth.example.org"),
        ("HTTPS://AUTH.example.org:9443/x", "https://auth.example.org:9443/x"),
        ("https://[2001:db8::1]:9443", "https://[2001:db8::1]:9443"),
        ("https://192.0.2.7", "https://192.0.2.7"),
    ],
)
def test_a_url_is_taken_with_its_port_and_prefix(url: str, expected: str) -> None:
    assert base_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "auth.example.org",
        "//auth.example.org",
        "/api",
        "ftp://auth.example.org",
        "file:///etc/passwd",
        "unix:///run/authentik.sock",
        "https://",
        "https:///path",
        "https:auth.example.org",
        "https://user@auth.example.org",
        "https://user:hunter2@auth.example.org",
        "https://:hunter2@auth.example.org",
        "https://user:hunter2",
        "https://auth.example.org?token=hunter2",
        "https://auth.example.org/?",
        "https://auth.example.org/#hunter2",
        "https://auth.example.org#",
        "https://auth.example.org:99999",
        "https://auth.example.org:0",
        "https://auth.example.org:port",
        "https://auth example.org",
        " https://auth.example.org",
        "https://auth.example.org ",
        "https://auth.example.org/\n",
        "https://auth.example.org/\r\nx: y",
        "https://auth.example.org\\@evil.example",
        "https://auth.example.org%2fevil.example",
        "https://[::1",
        "https://auth.example.org\x00",
        "javascript:alert(1)",
    ],
)
def test_a_url_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(StartError, match=r"^--authentik-url .*; give one like https://auth.example.org$") as refusal:
        base_url(url)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "slug",
    [
        "../../../users",
        "..",
        ".",
        "a/b",
        "a%2fb",
        "a b",
        " jims",
        "jims\n",
        "jims?for_user=1",
        "jims#",
        "jims;",
        "jims\\",
        "jïms",
        "jims\u200b",
        "١٢٣",
        "{slug}",
        "a:b",
        "a@b",
        "*",
    ],
)
def test_what_is_no_slug_is_refused(slug: str) -> None:
    with pytest.raises(StartError, match=r"^--authentik-app-slug: .* is not a slug; copy the slug"):
        application_path(slug)


@pytest.mark.parametrize("slug", ["jims", "Jims-2_x", "-", "_", "0"])
def test_what_authentik_takes_for_a_slug_is_one(slug: str) -> None:
    assert application_path(slug) == f"/api/v3/core/applications/{slug}/check_access/"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"authentik_url": "https://user:hunter2@auth.example.org"}, "--authentik-url contains a user or a password"),
        ({"authentik_app_slug": "a/b"}, "--authentik-app-slug: 'a/b' is not a slug"),
        ({"authentik_ca_file": "absent.pem"}, "--authentik-ca-file: cannot use absent.pem: No such file"),
        ({"authentik_ca_file": "setup.cfg"}, "--authentik-ca-file: cannot use setup.cfg: it contains no certificate"),
        ({"authentik_ca_file": "."}, "--authentik-ca-file: cannot use ."),
        ({"authentik_timeout": 0}, "--authentik-timeout"),
        ({"authentik_timeout": "soon"}, "--authentik-timeout"),
        ({"authentik_cache_ttl": -1}, "--authentik-cache-ttl"),
        ({"authentik_cache_ttl": 100_000}, "--authentik-cache-ttl"),
        ({"authentik_contact_field": "name"}, "--authentik-contact-field"),
    ],
)
async def test_a_bad_value_stops_the_start(
    authentik: FakeAuthentik, wrong: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(RuntimeError, match="start failed") as failure:
        await status_of("Bearer good", **(authentik.settings | wrong))
    assert said in str(failure.value)
    assert "hunter2" not in str(failure.value)


async def test_an_empty_ca_file_stops_the_start(authentik: FakeAuthentik, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    with pytest.raises(RuntimeError, match="it contains no certificate"):
        await status_of("Bearer good", **(authentik.settings | {"authentik_ca_file": tmp_path / "empty.pem"}))


def test_the_options_have_the_defaults_that_the_manual_promises() -> None:
    options = AuthentikOptions()
    assert (options.timeout, options.cache_ttl) == (5.0, 30.0)
    assert (options.url, options.app_slug, options.ca_file, options.contact_field) == (None, None, None, None)
    manual = (Path(__file__).parents[1] / "README.md").read_text()

    def row(spec: OptionSpec) -> str:
        default = "" if spec.default is None else f"{spec.default:g}"
        return f"| `{spec.flag}` | {default} |"

    for spec in specs(AuthentikOptions):
        assert row(spec) in manual
        assert spec.type is not Secret


@pytest.mark.parametrize("configured", [False, True])
def test_an_unconfigured_plugin_loads_nothing_of_its_own(configured: bool) -> None:
    """In a process of its own: what other tests imported would be there already."""
    code = f"""
import asyncio, logging, sys
from jimsapi import create_api

async def bot(ctx): pass

async def main():
    settings = {{"authentik_url": "https://auth.example.org", "authentik_app_slug": "jims"}} if {configured} else {{}}
    async with create_api(bot, store="memory:", **settings).lifespan():
        print("jimsapi_authentik" in sys.modules, "jimsapi_authentik.provider" in sys.modules, "httpx" in sys.modules)

logging.disable()
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.split() == ["True", str(configured), str(configured)]


@pytest.mark.parametrize(
    "limit",
    [{"rate_limit": "5/s"}, {"identity_rate_limit": "5/s"}, {"contact_runs": 5}, {"identity_runs": 5}],
)
async def test_limits_that_a_new_token_resets_are_warned_of(
    authentik: FakeAuthentik, limit: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    settings = authentik.settings
    for fitting in ({}, {"authentik_contact_field": "uid"} | limit):
        assert await status_of("Bearer good", **settings, **fitting) == (403 if fitting else 200)
    assert "limits count each token" not in caplog.text
    assert await status_of("Bearer good", **settings, **limit) == 200
    assert "limits count each token of an Authentik user separately" in caplog.text
    assert "set --authentik-contact-field" in caplog.text
