"""The contract of auth providers, and what only this plugin promises."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from jimsapi.asgi.testing import TestClient
from jimsapi.plugins import Secret, StartError
from jimsapi.testing import AuthProviderContract, DoesNotApply

from jimsapi_hmac import read_keys
from jimsapi_hmac.signature import signed_headers

ANN, BEN = "ann-has-a-long-secret", "ben-has-another-one"
CHAT = "/api/v1/chat"
BODY = b'{"contact_id": "ann", "message": "hi"}'


def signed(secret: str = ANN, name: str = "ann", method: str = "GET", at: int | None = None) -> dict[str, str]:
    return signed_headers(name, secret, method, AuthProviderContract.path, at=at)


class TestHmac(AuthProviderContract):
    distribution = "jimsapi-hmac"
    settings = {"hmac_keys": [f"ann:{ANN}", f"ben:{BEN}"]}
    one_time = True
    secrets = (ANN, BEN)
    foreign = ({"authorization": f"Bearer {ANN}"}, {"x-signature": "Hmac ann"})
    malformed = (
        {"authorization": "Hmac ann"},
        {"authorization": "Hmac ann:soon:nonce:00"},
        {"authorization": "Hmac ann:1::00"},
    )
    denied = DoesNotApply("every caller with a key has access")
    half_configured = ({"hmac_window": 60},)
    outage = DoesNotApply("it uses no other service")

    @property
    def good(self) -> Mapping[str, Mapping[str, str]]:
        return {"ann": signed(), "ben": signed(BEN, "ben")}

    def secrets_of(self, credential: Mapping[str, str | bytes]) -> Sequence[str]:
        return [str(credential["authorization"]).rpartition(":")[2]]

    @property
    def wrong(self) -> Sequence[Mapping[str, str]]:
        return signed(BEN), signed(ANN, "zoe"), signed(method="DELETE")

    @property
    def expired(self) -> Sequence[Mapping[str, str]]:
        return signed(at=int(time.time()) - 3600), signed(at=int(time.time()) + 3600)


@pytest.mark.anyio
async def test_a_signed_body_is_accepted_once_and_no_other_body(jimsapi_client: Callable[..., TestClient]) -> None:
    async def status(headers: Mapping[str, str], body: bytes) -> int:
        headers = {"content-type": "application/json", **headers}
        return (await client.post(CHAT, content=body, headers=headers)).status_code

    async with jimsapi_client(hmac_keys=[f"ann:{ANN}"]) as client:
        headers = signed_headers("ann", ANN, "POST", CHAT, BODY)
        assert [await status(headers, BODY) for _ in range(2)] == [200, 401]
        headers = signed_headers("ann", ANN, "POST", CHAT, BODY)
        assert await status(headers, BODY.replace(b"hi", b"ho")) == 400
        assert await status(signed_headers("ann", ANN, "POST", CHAT), BODY) == 400


@pytest.mark.anyio
async def test_a_signed_handshake_opens_a_websocket_for_many_messages(
    jimsapi_client: Callable[..., TestClient],
) -> None:
    path = f"{CHAT}/ws"
    async with jimsapi_client(hmac_keys=[f"ann:{ANN}"]) as client:
        async with client.websocket(path, headers=signed_headers("ann", ANN, "GET", path)) as ws:
            for _ in range(2):
                await ws.send_json({"type": "chat", "contact_id": "ann", "message": "hi"})
                frame: Any = {}
                while frame.get("type") != "result":
                    frame = await ws.receive_json()


@pytest.mark.parametrize("keys", [["ann"], [":secret"], ["ann:"], ["ann:secret", "ann:secret"]])
def test_a_faulty_key_stops_the_start_and_is_not_shown(keys: list[str]) -> None:
    with pytest.raises(StartError, match="--hmac-keys: value [12] is invalid") as refused:
        read_keys(tuple(map(Secret, keys)))
    assert "secret" not in str(refused.value)
