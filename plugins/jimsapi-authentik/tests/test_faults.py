"""Authentik is broken, slow, unreachable or sends wrong answers: no request is admitted, and the log has the reason."""

import asyncio
import gzip
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from calling import call, served
from raw_server import ALLOWED, RawServer, allowing, always, answer, once, serving, silent

pytestmark = pytest.mark.anyio

DENIED = b'{"passing":false,"messages":[],"log_messages":[]}'
IP = "127.0.0.1"


async def refused_by(raw: RawServer, cause: str, caplog: pytest.LogCaptureFixture, **settings: object) -> None:
    """Whether a caller is refused by an API whose Authentik is `raw`, for a cause that the log names."""
    settings = {"authentik_url": raw.url, "authentik_app_slug": "jims"} | settings
    async with served(**settings) as client:
        response = await call(client, "Bearer good")
    assert (response.status_code, response.json()) == (503, {"detail": "Authentication is unavailable"})
    assert f"auth provider authentik is unavailable: {cause}" in caplog.text


NOT_THE_JSON = "Authentik's answer on /api/v3/core/applications/jims/check_access/ is not the expected JSON"
NO_WORD = "Authentik's answer has no boolean 'passing'"


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (allowing(passing="true"), NO_WORD),
        (allowing(passing=1), NO_WORD),
        (allowing(passing=1.0), NO_WORD),
        (allowing(passing=None), NO_WORD),
        (allowing(passing=[True]), NO_WORD),
        (allowing(passing={"passing": True}), NO_WORD),
        (answer(body=b"{}"), NO_WORD),
        (answer(body=b'{"Passing":true}'), NO_WORD),
        (answer(body=b'{"result":{"passing":true}}'), NO_WORD),
        (answer(body=b"true"), NOT_THE_JSON),
        (answer(body=b'[{"passing":true}]'), NOT_THE_JSON),
        (answer(body=b'"passing"'), NOT_THE_JSON),
        (answer(body=b""), NOT_THE_JSON),
        (answer(body=b'{"passing":false,"passing":true}'), NOT_THE_JSON),
        (answer(body=b'{"passing":true,"passing":true}'), NOT_THE_JSON),
        (answer(body=b'{"passing":true,"messages":[{"a":1,"a":2}]}'), NOT_THE_JSON),
        (answer(body=b'{"passing":true'), NOT_THE_JSON),
        (answer(body=ALLOWED + b"x"), NOT_THE_JSON),
        (answer(body=ALLOWED + ALLOWED), NOT_THE_JSON),
        (answer(body=b"\xef\xbb\xbf" + ALLOWED), NOT_THE_JSON),
        (answer(body=ALLOWED.decode().encode("utf-16")), NOT_THE_JSON),
        (answer(body=b'{"passing":true,"messages":["\xff"]}'), NOT_THE_JSON),
        (answer(body=b'{"passing":true,"messages":[NaN]}'), NOT_THE_JSON),
        (answer(body=b'{"passing":true,"messages":' + b"[" * 60_000), NOT_THE_JSON),
        (answer(body=b'{"passing":true,"messages":' + b"[" * 32 + b"]" * 32 + b"}"), NOT_THE_JSON),
        (answer(body=b'{"passing":true,"messages":' + b'[{"a":' * 16 + b"1" + b"}]" * 16 + b"}"), NOT_THE_JSON),
        (answer(body=b'{"passing":true,"messages":' + b"[" * 8000 + b"]" * 8000 + b"}"), NOT_THE_JSON),
        (answer(body=b'{"passing":true,"messages":' + b"9" * 60_000 + b"}"), NOT_THE_JSON),
        (answer("200 OK", gzip.compress(ALLOWED), "content-encoding: gzip"), NOT_THE_JSON),
        (answer(body=b"<html><body>Please log in. passing: true</body></html>"), NOT_THE_JSON),
        (answer("201 Created"), "Authentik answered 201"),
        (answer("202 Accepted"), "Authentik answered 202"),
        (answer("204 No Content", b""), "Authentik answered 204"),
        (answer("206 Partial Content"), "Authentik answered 206"),
        (answer("400 Bad Request"), "Authentik answered 400"),
        (answer("404 Not Found"), "Authentik answered 404"),
        (answer("405 Method Not Allowed"), "Authentik answered 405"),
        (answer("429 Too Many Requests"), "Authentik answered 429"),
        (answer("500 Internal Server Error"), "Authentik answered 500"),
        (answer("502 Bad Gateway"), "Authentik answered 502"),
        (answer("503 Service Unavailable"), "Authentik answered 503"),
        (answer("599 Whatever"), "Authentik answered 599"),
        (answer(body=ALLOWED[:20], length=len(ALLOWED)), "the connection to Authentik broke (RemoteProtocolError)"),
        (b"", "the connection to Authentik broke (RemoteProtocolError)"),
        (b"HTTP/1.1 200 OK\r\ncontent-", "the connection to Authentik broke (RemoteProtocolError)"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the connection to Authentik broke (RemoteProtocolError)"),
        (
            answer(body=ALLOWED, length=len(ALLOWED)).replace(
                b"content-length", b"content-length: 3\r\ncontent-length"
            ),
            "the connection to Authentik broke (RemoteProtocolError)",
        ),
    ],
)
async def test_only_200_with_passing_exactly_true_lets_in(
    said: bytes, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(once(said)) as raw:
        await refused_by(raw, cause, caplog)
        assert raw.connections == 1


async def test_exactly_true_does_let_in_and_exactly_false_denies() -> None:
    nested = b'{"passing":true,"messages":' + b"[" * 31 + b"]" * 31 + b"}"
    for body, status in ((ALLOWED, 200), (b'{"passing" : true}', 200), (nested, 200), (DENIED, 403)):
        async with (
            serving(always(answer(body=body))) as raw,
            served(authentik_url=raw.url, authentik_app_slug="jims") as client,
        ):
            assert (await call(client, "Bearer good")).status_code == status


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
@pytest.mark.parametrize("body", [ALLOWED, b"<html>", b"x" * 100_000])
async def test_a_refusal_of_the_token_is_one_whatever_its_body_says(status: str, body: bytes) -> None:
    async with (
        serving(once(answer(status, body))) as raw,
        served(authentik_url=raw.url, authentik_app_slug="jims") as client,
    ):
        assert (await call(client, "Bearer good")).status_code == 401


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_no_redirect_is_followed(status: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(always(answer())) as admitting:
        to = f"location: {admitting.url}/api/v3/core/applications/jims/check_access/"
        async with serving(once(answer(status, ALLOWED, to))) as raw:
            await refused_by(raw, f"Authentik answered {status[:3]}", caplog)
        assert admitting.connections == 0


async def test_a_port_where_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind((IP, 0))
        raw = RawServer(silent)
        raw.port = taken.getsockname()[1]
        await refused_by(raw, "cannot connect to Authentik: ", caplog)


async def test_an_authentik_that_never_answers(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(silent) as raw:
        await refused_by(raw, "Authentik did not answer within 0.1 s", caplog, authentik_timeout=0.1)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_black_hole_that_accepts_no_connection(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as hole:
        hole.bind((IP, 0))
        hole.listen(0)  # no process accepts: the kernel accepts one or two connections, and then drops packets
        raw = RawServer(silent)
        raw.port, raw.scheme = hole.getsockname()[1], scheme
        await refused_by(raw, "Authentik did not answer within 0.1 s", caplog, authentik_timeout=0.1)


@pytest.mark.parametrize("part", ["head", "body"])
async def test_an_answer_that_trickles_in_does_not_get_more_time(part: str, caplog: pytest.LogCaptureFixture) -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if part == "body":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nx-endless: ")
        while True:  # each read ends in time; all of them together never do
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with serving(trickle) as raw:
        await refused_by(raw, "Authentik did not answer within 0.2 s", caplog, authentik_timeout=0.2)


@pytest.mark.parametrize("framing", ["content-length: 10485760", "transfer-encoding: chunked", "connection: close"])
async def test_an_answer_of_10_megabytes_is_not_read(framing: str, caplog: pytest.LogCaptureFixture) -> None:
    piece = b" " * 65_536
    chunk = b"10000\r\n" + piece + b"\r\n" if "chunked" in framing else piece
    written = 0
    gone = asyncio.Event()

    async def huge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        try:
            for _ in range(160):
                writer.write(chunk)
                await writer.drain()
                written += len(piece)
        finally:
            gone.set()

    async with serving(huge) as raw:
        cause = "Authentik's answer on /api/v3/core/applications/jims/check_access/ is over 65536 bytes"
        await refused_by(raw, cause, caplog)
        await asyncio.wait_for(gone.wait(), 10)
    assert written < 9 * 1024 * 1024


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("expired", "certificate has expired"),
        ("of another host", "is not valid for '127.0.0.1'"),
        ("of another authority", "CERTIFICATE_VERIFY_FAILED"),
        ("of no authority of the system", "CERTIFICATE_VERIFY_FAILED"),
    ],
)
async def test_a_certificate_that_cannot_be_trusted(
    tmp_path: Path, fault: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    authority, now = trustme.CA(), datetime.now(UTC)
    until = now + timedelta(days=-1 if fault == "expired" else 1)
    host = "other.example" if fault == "of another host" else IP
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host, not_before=now - timedelta(days=9), not_after=until).configure_cert(context)
    trusted = trustme.CA() if fault == "of another authority" else authority
    trusted.cert_pem.write_to_path(tmp_path / "ca.pem")
    settings = {} if fault == "of no authority of the system" else {"authentik_ca_file": tmp_path / "ca.pem"}
    async with serving(always(answer()), context) as raw:
        await refused_by(raw, "cannot connect to Authentik: ", caplog, **settings)
    assert said in caplog.text


async def test_plain_http_where_tls_was_expected(caplog: pytest.LogCaptureFixture) -> None:
    async def impatient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer("400 Bad Request", b"this is HTTP"))
        await writer.drain()

    async with serving(impatient) as raw:
        raw.scheme = "https"
        await refused_by(raw, "cannot connect to Authentik: ", caplog)


async def test_what_a_broken_server_repeats_of_the_token_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readuntil(b"\r\n\r\n"))
        await writer.drain()

    async with serving(repeat) as raw, served(authentik_url=raw.url, authentik_app_slug="jims") as client:
        assert (await call(client, "Bearer very-secret-token")).status_code == 503
    assert "very-secret-token" not in caplog.text
    assert "broke (RemoteProtocolError)" in caplog.text
