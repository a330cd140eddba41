"""The key, Authentik and OIDC, each of them set, left empty or left out, and every kind of caller."""

import os
import runpy
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]
KEY = "the-key"
STATES = ("set", "empty", "missing")


async def echo(ctx: ThreadContext) -> None:
    """Repeat the message."""
    ctx.send_message(ctx.get_last_user_message())


def configure(monkeypatch: pytest.MonkeyPatch, states: tuple[str, ...], authentik: Any, issuer: Any) -> None:
    """Set the variables of the four parts of a configuration, or set them to nothing, or leave them out."""
    for variable in list(os.environ):
        if variable.startswith("JIMS_"):
            monkeypatch.delenv(variable)
    trusted = issuer.settings()
    parts = (
        {"JIMS_API_KEY": KEY},
        {"JIMS_AUTHENTIK_URL": authentik.url},
        {"JIMS_AUTHENTIK_APP_SLUG": authentik.slug},
        {"JIMS_OIDC_ISSUER": trusted["oidc_issuer"], "JIMS_OIDC_AUDIENCE": trusted["oidc_audience"]},
    )
    for state, variables in zip(states, parts, strict=True):
        for name, value in variables.items():
            if state != "missing":
                monkeypatch.setenv(name, value if state == "set" else "")
    if "set" in states[1:3]:
        monkeypatch.setenv("JIMS_AUTHENTIK_CA_FILE", str(authentik.ca_file))
    if states[3] == "set":
        monkeypatch.setenv("JIMS_OIDC_CA_FILE", trusted["oidc_ca_file"])


@pytest.mark.parametrize("states", list(product(STATES, repeat=4)), ids="-".join)
async def test_who_enters_is_what_the_table_says(
    states: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, authentik: Any, issuer: Any, combinations: ModuleType
) -> None:
    configure(monkeypatch, states, authentik, issuer)
    authorizations = {
        "nothing": None,
        "key": f"Bearer {KEY}",
        "user": "Bearer user",
        "jwt": f"Bearer {issuer.token(sub='ann')}",
        "denied": "Bearer denied",
        "wrong": "Bearer wrong",
        "empty": "Bearer ",
        "scheme": "Basic dXNlcjp1c2Vy",
    }
    answered = {}
    async with TestClient(create_api(echo, store="memory:")) as client:
        for caller, authorization in authorizations.items():
            headers = {} if authorization is None else {"authorization": authorization}
            body = {"contact_id": "ann", "message": "hi"}
            answer = await client.post("/api/v1/chat", headers=headers, json=body)
            answered[caller] = answer.status_code
            assert ("www-authenticate" in answer.headers) is (answer.status_code == 401)
    assert answered == combinations.expected()[tuple(state == "set" for state in states)]


def test_the_documentation_shows_the_table(combinations: ModuleType) -> None:
    page = (ROOT / "docs" / "who-may-enter.md").read_text(encoding="utf-8")
    assert combinations.markdown() in page, "the table changed: run `make docs`"
    assert page == runpy.run_path(str(ROOT / "docs" / "generate.py"))["who_may_enter"]()
