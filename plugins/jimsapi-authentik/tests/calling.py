"""Calling an API that has the plugin, and the provider by itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from jimsapi_authentik.provider import Authentik

from jimsapi import AccessDenied, AuthUnavailable, Connection, Identity, InvalidCredentials, ThreadContext, create_api
from jimsapi.api.app import Api
from jimsapi.asgi.testing import TestClient


async def echo(ctx: ThreadContext) -> None:
    ctx.send_message("hi")


def api(**settings: Any) -> Api:
    """An API with these settings, which keeps threads in memory."""
    return create_api(echo, store="memory:", **settings)


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[TestClient]:
    """A client of such an API, while it serves."""
    async with TestClient(api(**settings)) as client:
        yield client


async def call(client: httpx.AsyncClient, authorization: str | None, **fields: Any) -> httpx.Response:
    """Send a chat message, with an `Authorization` header or without; `fields` replace those of the body."""
    headers = {} if authorization is None else {"authorization": authorization}
    return await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi", **fields}, headers=headers)


async def status_of(authorization: str | None, **settings: Any) -> int:
    """The status that a chat message gets from an API with these settings."""
    async with served(**settings) as client:
        return (await call(client, authorization)).status_code


async def said(provider: Authentik, token: str) -> Identity | str:
    """The outcome of a provider for a token: an identity, or the name of the exception."""
    connection = Connection({"type": "http", "headers": [(b"authorization", b"Bearer " + token.encode())]})
    try:
        identity = await provider.authenticate(connection)
    except (AccessDenied, AuthUnavailable, InvalidCredentials) as refusal:
        return type(refusal).__name__
    assert identity is not None
    return identity


class Clock:
    """A clock that a test advances, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
