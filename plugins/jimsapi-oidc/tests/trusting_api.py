"""An API that trusts an issuer, and headers for it."""

from typing import Any

from fake_issuer import FakeIssuer

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient

CHAT = "/api/v1/chat"
HI = {"message": "see"}


async def echo(ctx: ThreadContext) -> None:
    """The pipeline."""
    ctx.send_message("hi")


def api(issuer: FakeIssuer, **settings: Any) -> TestClient:
    """A client of an API that keeps its threads in memory."""
    return TestClient(create_api(echo, store="memory:", **issuer.settings(**settings)))


def bearer(token: str) -> dict[str, str]:
    """The header with a token."""
    return {"authorization": f"Bearer {token}"}
