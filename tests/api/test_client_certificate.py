"""The provider of client certificates looks at what the server tells of the connection, and at nothing else."""

from pathlib import Path
from typing import Any

import pytest

from jimsapi import Connection, InvalidCredentials, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.builtin.client_certificate import ClientCertificate

pytestmark = pytest.mark.anyio


async def echo(ctx: ThreadContext) -> None:
    ctx.send_message("hi")


def connection(**tls: Any) -> Connection:
    """A connection as a server shows it that knows the extension."""
    return Connection({"type": "http", "headers": [], "extensions": {"tls": tls}})


async def test_a_verified_certificate_is_its_subject_unbound_and_with_the_scope_chat() -> None:
    told = connection(client_cert_chain=[], client_cert_name="CN=ann,O=Example", client_cert_error=None)
    identity = await ClientCertificate().authenticate(told)
    assert identity is not None
    assert (identity.subject, identity.contact_id) == ("CN=ann,O=Example", None)
    assert (identity.may("chat"), identity.may("threads")) == (True, False)


@pytest.mark.parametrize(
    "scope",
    [
        {},
        {"extensions": None},
        {"extensions": {}},
        {"extensions": {"tls": {}}},
        {"extensions": {"tls": {"client_cert_chain": [], "client_cert_name": None, "client_cert_error": None}}},
    ],
)
async def test_no_certificate_is_not_this_provider_s_affair(scope: dict[str, Any]) -> None:
    assert await ClientCertificate().authenticate(Connection({"type": "http", "headers": [], **scope})) is None


@pytest.mark.parametrize(
    "tls",
    [
        {"client_cert_name": "CN=ann", "client_cert_error": "certificate has expired"},
        {"client_cert_name": "CN=ann", "client_cert_error": ""},
        {"client_cert_name": None, "client_cert_error": "unable to get local issuer certificate"},
        {"client_cert_name": "", "client_cert_error": None},
    ],
)
async def test_a_certificate_that_is_not_good_or_names_nobody_admits_nobody(tls: dict[str, Any]) -> None:
    with pytest.raises(InvalidCredentials):
        await ClientCertificate().authenticate(connection(**tls))


async def test_mounted_or_under_a_server_that_tells_nothing_nobody_is_admitted(tmp_path: Path) -> None:
    body = {"contact_id": "ann", "message": "hi"}
    claims = {
        "x-ssl-client-s-dn": "CN=ann",
        "x-forwarded-client-cert": "Subject=CN=ann",
        "ssl-client-verify": "SUCCESS",
    }
    api = create_api(echo, store="memory:", ssl_ca_certs=tmp_path / "clients.pem")
    async with TestClient(api) as client:
        answers = [await client.post("/api/v1/chat", json=body, headers=headers) for headers in ({}, claims)]
        probe = await client.get("/healthz")
    assert [answer.status_code for answer in answers] == [401, 401]
    assert all("www-authenticate" not in answer.headers for answer in answers)
    assert probe.status_code == 200


async def test_a_key_enters_beside_certificates_and_is_asked_first(tmp_path: Path) -> None:
    api = create_api(echo, store="memory:", ssl_ca_certs=str(tmp_path / "clients.pem"), api_key="sesame")
    async with TestClient(api) as client:
        assert api.composition is not None
        assert [built.name for built in api.composition.providers] == ["key", "certificate"]
        answer = await client.get("/api/v1/threads?contact_id=ann", headers={"authorization": "Bearer sesame"})
    assert answer.status_code == 200
