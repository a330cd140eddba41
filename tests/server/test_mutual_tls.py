"""Client certificates over real connections: who gets through the handshake, and who the app then says they are."""

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from websockets.asyncio.client import connect

from tests.command import refusal, run_command
from tests.plugins.distributions import install
from tests.raw import read_answer, request
from tests.serving import Served

BOT = "async def app(ctx):\n    ctx.send_message(f'You said: {ctx.get_last_user_message()}')\n"

SEEN = """
from jimsapi import *

@hookimpl
def jimsapi_routes(router):
    @router.get("/seen")
    async def seen(request):
        admission, client = request.admission, request.scope["client"]
        tls = request.scope.get("extensions", {}).get("tls")
        return JSONResponse([admission.provider, admission.identity.subject, client[1], tls])

    @router.websocket("/seen/ws")
    async def seen_ws(ws):
        await ws.accept()
        await ws.send_json([ws.admission.provider, ws.admission.identity.subject])
"""

NOW = datetime.now(UTC)
TLS = ["--ssl-certfile", "server.pem", "--ssl-ca-certs", "clients.pem"]


class Authorities:
    """Who signs the server's certificate, who the clients', and somebody else."""

    def __init__(self) -> None:
        self.servers, self.clients, self.others = trustme.CA(), trustme.CA(), trustme.CA()
        self.ann = self.clients.issue_cert(
            "ann", common_name="ann", organization_name="Example", organization_unit_name="a"
        )

    def configure(self, folder: Path) -> None:
        """Write what the server needs into its folder."""
        (folder / "bot.py").write_text(BOT)
        install(folder, "acme-seen", SEEN)
        self.servers.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
        self.clients.cert_pem.write_to_path(folder / "clients.pem")

    def context(self, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
        """A client that trusts the server, and has a certificate or none."""
        context = ssl.create_default_context()
        self.servers.configure_trust(context)
        if certificate is not None:
            certificate.configure_cert(context)
        return context

    def sign(
        self, subject: Sequence[Sequence[tuple[ObjectIdentifier, str]]], usage: ObjectIdentifier
    ) -> trustme.LeafCert:
        """A client's certificate with any subject, for any use."""
        key, authority = ec.generate_private_key(ec.SECP256R1()), self.clients
        signer = load_pem_private_key(authority.private_key_pem.bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        name = x509.Name(
            [x509.RelativeDistinguishedName([x509.NameAttribute(*one) for one in part]) for part in subject]
        )
        issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject
        serial = x509.random_serial_number()
        builder = x509.CertificateBuilder(issuer, name, key.public_key(), serial, NOW, NOW + timedelta(days=1))
        signed = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=True).sign(signer, hashes.SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return trustme.LeafCert(private, signed.public_bytes(Encoding.PEM), [])


@pytest.fixture(scope="module")
def authorities() -> Authorities:
    return Authorities()


@pytest.fixture(scope="module")
def served(authorities: Authorities, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("mutual")
    authorities.configure(folder)
    with Served("--app", "bot", *TLS, "--api-key", "sesame", folder=folder) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, authorities: Authorities) -> Path:
    authorities.configure(tmp_path)
    return tmp_path


def client(served: Served, context: ssl.SSLContext, **options: Any) -> httpx.Client:
    return httpx.Client(
        base_url=f"https://localhost:{served.port}", verify=context, trust_env=False, timeout=30, **options
    )


def wire(served: Served, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    """A connection on which every byte is ours."""
    plain = socket.create_connection(("localhost", served.port), timeout=10)
    return context.wrap_socket(plain, server_hostname="localhost", session=session)


def subject_seen(connection: ssl.SSLSocket) -> str:
    connection.sendall(request("GET", "/seen"))
    status, _, body = read_answer(connection)
    assert status == 200
    return str(httpx.Response(200, content=body).json()[1])


def test_a_good_certificate_chats_as_its_subject_and_sees_no_conversation(
    served: Served, authorities: Authorities
) -> None:
    with client(served, authorities.context(authorities.ann)) as ann:
        answer = ann.post("/api/v1/chat", json={"contact_id": "ben", "message": "hi"})
        provider, subject, _, tls = ann.get("/seen").json()
        threads = ann.get("/api/v1/threads?contact_id=ben")
    assert answer.json()["assistant_messages"] == ["You said: hi"]
    assert (provider, subject) == ("certificate", "CN=ann,OU=a,O=Example")
    assert threads.status_code == 403
    [shown] = tls["client_cert_chain"]
    [sent] = authorities.ann.cert_chain_pems
    assert ssl.PEM_cert_to_DER_cert(shown) == ssl.PEM_cert_to_DER_cert(sent.bytes().decode())
    assert (tls["client_cert_name"], tls["client_cert_error"]) == (subject, None)
    assert (tls["tls_version"], tls["server_cert"]) == (0x0304, None)
    assert tls["cipher_suite"] in (0x1301, 0x1302, 0x1303)


async def first_message(url: str, context: ssl.SSLContext) -> Any:
    # The client with threads reads in one and writes in another. Before Python 3.13, TLS may then lose what it writes.
    async with connect(url, ssl=context, proxy=None, open_timeout=10) as ws:
        return json.loads(await asyncio.wait_for(ws.recv(), 10))


def test_a_good_certificate_opens_a_websocket_as_its_subject(served: Served, authorities: Authorities) -> None:
    seen = first_message(f"wss://localhost:{served.port}/seen/ws", authorities.context(authorities.ann))
    assert asyncio.run(seen) == ["certificate", "CN=ann,OU=a,O=Example"]


def test_a_key_on_top_of_a_certificate_opens_what_a_key_opens(served: Served, authorities: Authorities) -> None:
    with client(served, authorities.context(authorities.ann)) as ann:
        with_key = ann.get("/api/v1/threads?contact_id=ben", headers={"authorization": "Bearer sesame"})
        seen_by_key = ann.get("/seen", headers={"authorization": "Bearer sesame"}).json()[0]
        seen_by_wrong_key = ann.get("/seen", headers={"authorization": "Bearer mellon"}).json()[0]
    assert with_key.status_code == 200
    assert (seen_by_key, seen_by_wrong_key) == ("key", "certificate")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("fault", ["none", "foreign", "expired", "not yet valid", "for servers"])
def test_no_certificate_or_a_bad_one_ends_in_the_handshake_whatever_the_key(
    served: Served, authorities: Authorities, fault: str, version: ssl.TLSVersion
) -> None:
    clients, days = authorities.clients, timedelta(days=1)
    certificates: dict[str, trustme.LeafCert | None] = {
        "none": None,
        "foreign": authorities.others.issue_cert("ann", common_name="ann"),
        "expired": clients.issue_cert("ann", common_name="ann", not_before=NOW - 2 * days, not_after=NOW - days),
        "not yet valid": clients.issue_cert("ann", common_name="ann", not_before=NOW + days, not_after=NOW + 2 * days),
        "for servers": authorities.sign([[(NameOID.COMMON_NAME, "ann")]], ExtendedKeyUsageOID.SERVER_AUTH),
    }
    context = authorities.context(certificates[fault])
    context.maximum_version = version
    with client(served, context, headers={"authorization": "Bearer sesame"}) as stranger:
        for path in ("/healthz", "/api/v1/threads?contact_id=ann"):
            with pytest.raises(httpx.TransportError):
                stranger.get(path)
    with client(served, authorities.context(authorities.ann)) as ann:
        assert ann.get("/healthz").status_code == 200


def test_plain_http_is_not_answered(served: Served) -> None:
    with served.client() as plain, pytest.raises(httpx.TransportError):
        plain.get("/healthz")


def test_every_request_of_a_connection_has_its_certificate_and_no_other_s(
    served: Served, authorities: Authorities
) -> None:
    bea = authorities.clients.issue_cert(
        "bea", common_name="bea", organization_name="Example", organization_unit_name="b"
    )
    with (
        closing(wire(served, authorities.context(authorities.ann))) as first,
        closing(wire(served, authorities.context(bea))) as second,
    ):
        seen = [subject_seen(connection) for connection in (first, second, second, first, first)]
        first.sendall(request("GET", "/seen") * 2)
        pipelined = b""
        while pipelined.count(b'"certificate","CN=ann,OU=a,O=Example"') < 2:
            pipelined += first.recv(65536) or pytest.fail(f"the server hung up after {pipelined!r}")
    ann, other = "CN=ann,OU=a,O=Example", "CN=bea,OU=b,O=Example"
    assert seen == [ann, other, other, ann, ann]


def test_a_resumed_session_has_the_certificate_of_the_first(served: Served, authorities: Authorities) -> None:
    context = authorities.context(authorities.ann)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with closing(wire(served, context)) as first:
        subject_seen(first)
        session = first.session
    with closing(wire(served, context, session)) as resumed:
        assert subject_seen(resumed) == "CN=ann,OU=a,O=Example"
        assert resumed.session_reused


def test_a_subject_cannot_pass_for_another(served: Served, authorities: Authorities) -> None:
    """`test_distinguished_name` has the other subjects."""
    certificate = authorities.sign([[(NameOID.COMMON_NAME, "ann,O=Example")]], ExtendedKeyUsageOID.CLIENT_AUTH)
    with client(served, authorities.context(certificate)) as caller:
        assert caller.get("/seen").json()[1] == r"CN=ann\,O=Example"


def test_an_authority_that_an_authority_made_counts_too(served: Served, authorities: Authorities) -> None:
    certificate = authorities.clients.create_child_ca().issue_cert("ann", common_name="ann", organization_name="Branch")
    with client(served, authorities.context(certificate)) as ann:
        assert ann.get("/seen").json()[1].endswith(",O=Branch")


def test_a_certificate_with_an_empty_subject_names_nobody(served: Served, authorities: Authorities) -> None:
    certificate = authorities.sign([], ExtendedKeyUsageOID.CLIENT_AUTH)
    with client(served, authorities.context(certificate)) as caller:
        assert caller.get("/seen").status_code == 401
        assert caller.get("/healthz").status_code == 200


def test_without_client_certificates_a_request_has_no_extension(site: Path, authorities: Authorities) -> None:
    with (
        Served("--app", "bot", "--ssl-certfile", "server.pem", folder=site) as served,
        client(served, authorities.context(authorities.ann)) as ann,
    ):
        provider, subject, _, tls = ann.get("/seen").json()
    assert (provider, subject, tls) == (None, "anonymous", None)


def test_a_reloader_s_child_asks_for_certificates_too(site: Path, authorities: Authorities) -> None:
    env = {"JIMS_SSL_CA_CERTS": str(site / "clients.pem"), "JIMS_SSL_CERTFILE": "server.pem"}
    with Served("--app", "bot", "--reload", folder=site, env=env) as served:
        with client(served, authorities.context(authorities.ann)) as ann:
            assert ann.get("/seen").json()[1] == "CN=ann,OU=a,O=Example"
        with client(served, authorities.context()) as stranger, pytest.raises(httpx.TransportError):
            stranger.get("/healthz")
        assert served.stop() == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--ssl-ca-certs", "clients.pem"], "--ssl-ca-certs asks for client certificates, which needs HTTPS"),
        (["--ssl-certfile", "server.pem", "--ssl-ca-certs", "no.pem"], "no.pem cannot be read (No such file"),
        (["--ssl-certfile", "server.pem", "--ssl-ca-certs", "folder"], "folder cannot be read (Is a directory"),
        (["--ssl-certfile", "server.pem", "--ssl-ca-certs", "bot.py"], "bot.py holds no certificate"),
        (["--ssl-certfile", "server.pem", "--ssl-ca-certs", "empty.pem"], "empty.pem holds no certificate"),
        (["--ssl-certfile", "server.pem", "--ssl-ca-certs", "key.pem"], "key.pem holds no certificate"),
    ],
)
def test_authorities_that_cannot_be_used_stop_the_start_in_one_line(
    site: Path, authorities: Authorities, given: list[str], message: str
) -> None:
    (site / "folder").mkdir()
    (site / "empty.pem").write_text("")
    authorities.clients.private_key_pem.write_to_path(site / "key.pem")
    quiet = ["--app", "bot", "--host", "127.0.0.1", "--port", "0", "--metrics-port", "0", "--store", "memory:"]
    assert message in refusal(run_command(*quiet, *given, cwd=site))


def test_check_says_that_certificates_enter_after_keys(site: Path) -> None:
    checked = run_command("check", "--app", "bot", *TLS, "--api-key", "sesame", cwd=site)
    assert checked.returncode == 0, checked.stderr
    assert "auth: key, certificate" in checked.stdout
    assert "tried in this order: key, certificate" in checked.stdout
    assert "https://0.0.0.0:8080" in checked.stdout
