"""Switching it on: by halves, wrongly, and not at all."""

import logging
import subprocess
import sys

import pytest
import sentry_sdk

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.plugins.errors import StartError

pytestmark = pytest.mark.anyio

CHAT = "/api/v1/chat"
BODY = {"contact_id": "ann", "message": "hi"}


async def echo(ctx: ThreadContext) -> None:
    ctx.send_message("hi")


def test_a_plugin_that_is_not_enabled_imports_nothing() -> None:
    program = """
import asyncio, sys
from jimsapi import create_api
async def echo(ctx): ctx.send_message("hi")
async def main():
    async with create_api(echo, store="memory:").lifespan():
        print("jimsapi_sentry" in sys.modules, [name for name in sys.modules if name.startswith("sentry_sdk")])
asyncio.run(main())
"""
    env = {"PATH": "", "SENTRY_DSN": "http://0123456789abcdef@127.0.0.1:9/7"}
    ran = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout == "True []\n"


@pytest.mark.parametrize("dsn", ["", " "])
async def test_without_a_dsn_it_serves_and_warns(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SENTRY_DSN", dsn)
    async with TestClient(create_api(echo, store="memory:", enable_sentry=True)) as client:
        answer = await client.post(CHAT, json=BODY)
    assert answer.status_code == 200
    [warning] = [record for record in caplog.records if record.name == "jimsapi.sentry"]
    assert warning.levelno == logging.WARNING
    assert "SENTRY_DSN" in warning.getMessage()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SENTRY_DSN", "not-a-dsn-secret"),
        ("SENTRY_DSN", "https://secret@sentry.example.org"),
        ("SENTRY_TRACES_SAMPLE_RATE", "much"),
        ("SENTRY_TRACES_SAMPLE_RATE", "2"),
        ("SENTRY_TRACES_SAMPLE_RATE", "nan"),
    ],
)
async def test_a_faulty_variable_stops_the_start_by_its_name(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTRY_DSN", "http://0123456789abcdef@127.0.0.1:9/7")
    monkeypatch.setenv(variable, value)
    api = create_api(echo, store="memory:", enable_sentry=True)
    with pytest.raises(StartError, match=variable) as refusal:
        async with api.lifespan():
            pass
    assert "secret" not in str(refusal.value)
    assert not sentry_sdk.get_client().is_active()


async def test_a_client_that_the_host_has_made_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SENTRY_DSN", "http://0123456789abcdef@127.0.0.1:9/7")
    sentry_sdk.init(dsn="http://other@127.0.0.1:9/8", default_integrations=False)
    theirs = sentry_sdk.get_client()
    try:
        async with TestClient(create_api(echo, store="memory:", enable_sentry=True)) as client:
            assert sentry_sdk.get_client() is theirs
            assert (await client.post(CHAT, json=BODY)).status_code == 200
        assert sentry_sdk.get_client() is theirs
        assert theirs.is_active()
    finally:
        theirs.close(timeout=0)
        sentry_sdk.get_global_scope().set_client(None)
    assert "Sentry client already" in caplog.text


async def test_two_apps_in_a_process_share_a_client_until_the_last_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTRY_DSN", "http://0123456789abcdef@127.0.0.1:9/7")
    first = create_api(echo, store="memory:", enable_sentry=True)
    second = create_api(echo, store="memory:", enable_sentry=True)
    async with first.lifespan():
        client = sentry_sdk.get_client()
        async with second.lifespan():
            assert sentry_sdk.get_client() is client
        assert client.is_active()
        assert sentry_sdk.get_client() is client
    assert not sentry_sdk.get_client().is_active()
