"""WebSockets and auth providers: signed handshakes, credentials that are valid once, and schemes other than Bearer."""

from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from jimsapi import ThreadContext, WebSocketDisconnected, create_api
from jimsapi.asgi.testing import ClientWebSocket, HandshakeRefused, TestClient
from jimsapi.plugins.errors import PluginError
from tests.plugins.distributions import install

pytestmark = pytest.mark.anyio

WS = "/api/v1/chat/ws"

SIGNED = """
import hashlib
from jimsapi import *

def sign(method, target, nonce):
    return hashlib.sha256(f"sesame {method} {target} {nonce}".encode()).hexdigest()

class Signed:
    name = "signed"
    challenge = "Signed"

    def __init__(self):
        self.used = set()
        self.readmitted = []
        self.revoked = False

    async def authenticate(self, connection):
        scheme, _, credential = (connection.headers.get("authorization") or "").partition(" ")
        if scheme != "Signed":
            return None
        nonce, _, signature = credential.partition(":")
        if signature != sign(connection.method, connection.scope["raw_path"].decode(), nonce):
            raise InvalidCredentials("wrong signature")
        if nonce in self.used:
            raise InvalidCredentials("this nonce was used already")
        self.used.add(nonce)
        return Identity("ann", contact_id="ann")
"""
READMIT = """
    async def readmit(self, connection, identity):
        self.readmitted.append(identity.subject)
        if self.revoked:
            raise InvalidCredentials("ann was removed")
        return identity
"""
HOOK = """
SIGNED = Signed()

@hookimpl
def jimsapi_auth_provider():
    return SIGNED
"""


async def echo(ctx: ThreadContext) -> None:
    ctx.send_message(f"You said: {ctx.get_last_user_message()}")


def signed(nonce: str, method: str = "GET", target: str = WS) -> str:
    from acme_signed import sign  # type: ignore[import-not-found] # written by the fixture

    return f"Signed {nonce}:{sign(method, target, nonce)}"


@pytest.fixture
def provider(site: Path) -> Any:
    install(site, "acme-signed", SIGNED + READMIT + HOOK)
    import acme_signed

    return acme_signed.SIGNED


@asynccontextmanager
async def opened(authorization: str | None, **options: Any) -> AsyncIterator[ClientWebSocket]:
    headers = {} if authorization is None else {"authorization": authorization}
    async with (
        TestClient(create_api(echo, store="memory:", **options)) as client,
        client.websocket(WS, headers=headers, subprotocols=("jims.chat",)) as ws,
    ):
        yield ws


async def say(ws: ClientWebSocket, text: str) -> Any:
    """Send a message. Returns the last frame of its run."""
    await ws.send_json({"type": "chat", "contact_id": "ann", "message": text})
    while (frame := await ws.receive_json())["type"] not in ("result", "error"):
        pass
    return frame


async def test_a_signature_over_get_opens_a_websocket(provider: Any) -> None:
    async with opened(signed("1")) as ws:
        assert (await say(ws, "hi"))["assistant_messages"] == ["You said: hi"]
    for method in ("WEBSOCKET", "POST"):
        with pytest.raises(HandshakeRefused) as refused:
            async with opened(signed("2", method)):
                pass
        assert refused.value.response.status_code == 401


async def test_a_nonce_admits_every_message_of_its_websocket_and_no_second_connection(provider: Any) -> None:
    async with opened(signed("1")) as ws:
        for text in ("one", "two"):
            assert (await say(ws, text))["type"] == "result"
        assert provider.readmitted == ["ann", "ann"]
        with pytest.raises(HandshakeRefused):
            async with opened(signed("1")):
                pass
        provider.revoked = True
        assert (await say(ws, "three")) == {"type": "error", "detail": "Unauthorized"}


async def test_a_provider_without_readmit_checks_the_credentials_again_for_each_message(site: Path) -> None:
    install(site, "acme-signed", SIGNED + HOOK)
    async with opened(signed("1")) as ws:
        assert (await say(ws, "hi")) == {"type": "error", "detail": "Unauthorized"}


async def test_a_provider_does_not_readmit_callers_that_another_provider_admitted(provider: Any) -> None:
    """A replayed nonce, beside a good key: the key admits the messages, and not the nonce's owner."""
    provider.used.add("1")
    code = """
    from jimsapi import *

    class Cookies:
        name = "cookies"
        async def authenticate(self, connection):
            return Identity("ben", contact_id="ben") if connection.cookies.get("session") == "b" else None

    @hookimpl
    def jimsapi_auth_provider():
        return Cookies()
    """
    install(Path.cwd(), "b-cookies", code)
    headers = {"authorization": signed("1"), "cookie": "session=b"}
    async with TestClient(create_api(echo, store="memory:")) as client, client.websocket(WS, headers=headers) as ws:
        await ws.send_json({"type": "chat", "message": "hi"})
        while (frame := await ws.receive_json())["type"] not in ("result", "error"):
            pass
        assert frame["type"] == "result"
        assert provider.readmitted == []
        threads = await client.get("/api/v1/threads?contact_id=ben", headers={"cookie": "session=b"})
        assert len(threads.json()["threads"]) == 1


async def test_a_readmit_that_is_not_async_stops_the_start(site: Path) -> None:
    install(site, "acme-signed", SIGNED + READMIT.replace("async ", "") + HOOK)
    with pytest.raises(PluginError, match=r"has a readmit\(\) that is not async"):
        async with create_api(echo, store="memory:").lifespan():
            pass


async def test_the_document_shows_how_the_callers_of_each_provider_send_credentials(provider: Any, site: Path) -> None:
    ticket = {"type": "apiKey", "in": "header", "name": "x-ticket"}
    code = f"""
    from jimsapi import *

    class Ticket:
        name = "a ticket"
        challenge = "Ticket"
        security_scheme = {ticket}
        async def authenticate(self, connection): return None

    class Unknown:
        name = "unknown"
        async def authenticate(self, connection): return None

    @hookimpl
    def jimsapi_auth_provider(): return Ticket()
    """
    install(site, "b-ticket", code)
    install(site, "b-unknown", code.replace("return Ticket()", "return Unknown()"))
    async with TestClient(create_api(echo, store="memory:", api_key="k")) as client:
        document = (await client.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"] == {
        "key": {"type": "http", "scheme": "Bearer"},
        "signed": {"type": "http", "scheme": "Signed"},
        "a_ticket": ticket,
    }
    chat = document["paths"]["/api/v1/chat"]["post"]
    assert chat["security"] == [{"key": []}, {"signed": []}, {"a_ticket": []}]
    assert "security" not in document["paths"]["/healthz"]["get"]


@pytest.mark.parametrize(
    "scheme",
    [
        '"Signed"',
        '{"type": "http"}',
        '{"type": "apiKey", "in": "header"}',
        '{"type": "apiKey", "in": "header", "name": Secret("sesame-sesame")}',
        '{"type": "mutualTLS", "description": Secret("sesame-sesame")}',
    ],
)
async def test_a_security_scheme_that_openapi_does_not_have_stops_the_start(site: Path, scheme: str) -> None:
    install(site, "acme-signed", SIGNED.replace('challenge = "Signed"', f"security_scheme = {scheme}") + HOOK)
    with pytest.raises(PluginError, match="has a security_scheme that is not a Security Scheme Object") as refused:
        async with create_api(echo, store="memory:").lifespan():
            pass
    assert "sesame-sesame" not in str(refused.value)


@pytest.mark.parametrize("challenge", ["5", '"Signed\\r\\nx: y"', '"Signed \u2713"'])
async def test_a_challenge_that_no_response_can_carry_stops_the_start(site: Path, challenge: str) -> None:
    install(site, "acme-signed", SIGNED.replace('challenge = "Signed"', f"challenge = {challenge}") + HOOK)
    with pytest.raises(PluginError, match=r"acme-signed.* has a challenge that no response can carry: The "):
        async with create_api(echo, store="memory:").lifespan():
            pass


# Schemes other than Bearer, from a page, which cannot send the header.


async def test_a_page_offers_credentials_of_any_scheme_in_the_first_frame(provider: Any) -> None:
    async with opened(None) as ws:
        await ws.send_json({"type": "auth", "authorization": signed("1")})
        assert (await say(ws, "hi"))["assistant_messages"] == ["You said: hi"]


async def test_a_page_offers_credentials_of_any_scheme_as_a_subprotocol_which_is_never_selected(provider: Any) -> None:
    offered = "base64url.authorization." + urlsafe_b64encode(signed("1").encode()).rstrip(b"=").decode()
    api = create_api(echo, store="memory:")
    async with TestClient(api) as client, client.websocket(WS, subprotocols=(offered, "jims.chat")) as ws:
        assert ws.subprotocol == "jims.chat"
        assert (await say(ws, "hi"))["assistant_messages"] == ["You said: hi"]


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "auth", "authorization": ""},
        {"type": "auth", "authorization": "Signed"},
        {"type": "auth", "authorization": "Signed 1:2\nx-evil: 1"},
        {"type": "auth", "authorization": 7},
        {"type": "auth", "authorization": "Bearer k", "token": "k"},
    ],
)
async def test_an_auth_frame_that_is_not_well_formed_is_refused(provider: Any, frame: dict[str, Any]) -> None:
    async with opened(None, api_key="k") as ws:
        await ws.send_json(frame)
        await ws.send_json({"type": "chat", "message": "hi"})
        with pytest.raises(WebSocketDisconnected) as closed:
            await ws.receive_json()
    assert closed.value.code == 1008
