"""What goes to Authentik and by which way: kept connections, one retry, no proxy, and nothing but the token."""

import asyncio
import ssl
from pathlib import Path

import jimsapi_authentik.client
import pytest
import trustme
from calling import call, said, served
from fake_authentik import FakeAuthentik
from jimsapi_authentik.provider import Authentik
from raw_server import RawServer, allowing, always, answer, serving, silent

from jimsapi import Identity

pytestmark = pytest.mark.anyio

GOOD = allowing(passing=True)


def provider(raw: RawServer, timeout: float = 10.0) -> Authentik:
    return Authentik(raw.url, "jims", timeout=timeout, cache_ttl=0)


async def test_nothing_but_the_token_is_sent_on(authentik: FakeAuthentik) -> None:
    theirs = {
        "authorization": "Bearer good",
        "cookie": "session=private",
        "x-forwarded-for": "192.0.2.7",
        "x-request-id": "the-callers-own",
        "accept-language": "eo",
        "user-agent": "the-callers-own",
        "x-authentik-username": "root",
    }
    async with served(**authentik.settings) as client:
        answered = await client.post(
            "/api/v1/chat?for_user=1", json={"contact_id": "ann", "message": "hi"}, headers=theirs
        )
    assert answered.status_code == 200
    assert dict(authentik.seen[0].headers) == {
        "host": authentik.url.removeprefix("https://"),
        "authorization": "Bearer good",
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": "jimsapi-authentik",
    }


async def test_no_caller_gets_the_session_cookie_that_authentik_set_for_another(authentik: FakeAuthentik) -> None:
    authentik.give("good-2")
    async with served(**authentik.settings, authentik_cache_ttl=0) as client:
        for token in ("good", "good-2", "good"):
            assert (await call(client, f"Bearer {token}")).status_code == 200
    assert [one.token for one in authentik.seen] == ["good", "good-2", "good"]
    assert not [one for one in authentik.seen if "cookie" in dict(one.headers)]


async def test_one_connection_serves_many_calls_whatever_they_are_answered(authentik: FakeAuthentik) -> None:
    async with served(**authentik.settings, authentik_cache_ttl=0, authentik_contact_field="uid") as client:
        for token in ("good", "other", "bad", "good"):
            await call(client, f"Bearer {token}")
    assert (len(authentik.seen), authentik.connections) == (6, 1)


async def test_calls_at_a_time_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jimsapi_authentik.client, "MAX_CHECKS", 3)
    working = most = 0
    several = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal working, most
        while True:
            await reader.readuntil(b"\r\n\r\n")
            working += 1
            most = max(most, working)
            if working == 3:
                several.set()
            await several.wait()
            working -= 1
            writer.write(GOOD)
            await writer.drain()

    async with serving(connected) as raw, provider(raw) as door:
        answers = await asyncio.gather(*(said(door, f"token-{n}") for n in range(60)))
        assert all(isinstance(one, Identity) for one in answers)
        assert (most, raw.connections) == (3, 3)


class Flaky:
    """Answers one request on each connection; then hangs up at the next, having read it."""

    def __init__(self, *, then: bytes = b"") -> None:
        self.requests = 0
        self.then = then

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        writer.write(GOOD)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        writer.write(self.then)
        await writer.drain()


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_kept_connection_that_breaks_is_replaced_once_and_the_call_repeated(
    encrypted: bool, tmp_path: Path
) -> None:
    flaky, context, authority = Flaky(), None, trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    if encrypted:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
    async with (
        serving(flaky, context) as raw,
        Authentik(raw.url, "jims", timeout=10, cache_ttl=0, ca_file=tmp_path / "ca.pem") as door,
    ):
        assert isinstance(await said(door, "first"), Identity)
        assert isinstance(await said(door, "second"), Identity)
        assert (flaky.requests, raw.connections) == (3, 2)
        assert door.client.calls == {"ok": 2}


async def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    closed = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(GOOD)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        closed.set()

    async with serving(connected) as raw, provider(raw) as door:
        assert isinstance(await said(door, "first"), Identity)
        await closed.wait()
        assert isinstance(await said(door, "second"), Identity)
        assert raw.connections == 2


async def test_an_answer_that_broke_off_is_not_asked_for_again() -> None:
    flaky = Flaky(then=answer(length=1000))
    async with serving(flaky) as raw, provider(raw) as door:
        assert isinstance(await said(door, "first"), Identity)
        assert await said(door, "second") == "AuthUnavailable"
        assert (flaky.requests, raw.connections) == (2, 1)


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def test_a_new_connection_that_breaks_is_not_tried_again() -> None:
    async with serving(hang_up) as raw, provider(raw) as door:
        assert await said(door, "good") == "AuthUnavailable"
        assert raw.connections == 1


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable", "403 Forbidden"])
async def test_no_answer_makes_it_ask_again(status: str) -> None:
    requests = 0

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        while True:
            await reader.readuntil(b"\r\n\r\n")
            requests += 1
            writer.write(answer(status))
            await writer.drain()

    async with serving(counting) as raw, provider(raw) as door:
        await said(door, "one")
        await said(door, "two")
        assert requests == 2


async def test_the_repeated_call_gets_no_more_time() -> None:
    first = True

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        if first:
            first = False
            await Flaky()(reader, writer)
        else:
            await silent(reader, writer)

    async with serving(connected) as raw, provider(raw, timeout=1.5) as door:
        assert isinstance(await said(door, "first"), Identity)
        assert await said(door, "second") == "AuthUnavailable"
        assert raw.connections == 2


@pytest.mark.parametrize(
    "variable", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
)
async def test_a_proxy_variable_does_not_steer_the_call(
    authentik: FakeAuthentik, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(always(GOOD)) as proxy, serving(always(allowing(passing=False))) as plain:
        monkeypatch.setenv(variable, proxy.url)
        async with served(**authentik.settings) as client:
            assert (await call(client, "Bearer good")).status_code == 200
        async with served(authentik_url=plain.url, authentik_app_slug="jims") as client:
            assert (await call(client, "Bearer good")).status_code == 403
        assert proxy.connections == 0


async def test_a_tls_handshake_that_never_ends_leaves_no_connection_open() -> None:
    ended = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent(reader, writer)
        ended.set()

    async with serving(connected) as raw:
        raw.scheme = "https"
        async with provider(raw, timeout=0.1) as door:
            assert await said(door, "good") == "AuthUnavailable"
            async with asyncio.timeout(30):
                await ended.wait()


async def test_leaving_closes_the_connections() -> None:
    ended = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(GOOD)
        assert await reader.read() == b""
        ended.set()

    async with serving(connected) as raw:
        async with provider(raw) as door:
            assert isinstance(await said(door, "good"), Identity)
            assert not ended.is_set()
        async with asyncio.timeout(30):
            await ended.wait()
