"""The contract of auth providers, and what only this plugin promises."""

import time
from collections.abc import Callable
from urllib.parse import urlencode

import pytest
from jimsapi import Connection, Identity, InvalidCredentials, Secret
from jimsapi.asgi.testing import TestClient
from jimsapi.testing import AuthProviderContract, DoesNotApply

from jimsapi_telegram.provider import TelegramProvider, init_hash

TOKEN = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
NOW = int(time.time())


def init_data(user: str = '{"id":7,"first_name":"Ann"}', token: str = TOKEN, **changed: str) -> str:
    """Return what Telegram gives to a Mini App."""
    fields = {"query_id": "AAHd", "user": user, "auth_date": str(NOW), "signature": "c2ln", **changed}
    return urlencode({**fields, "hash": init_hash(Secret(token), fields)})


def tma(data: str) -> dict[str, str]:
    return {"authorization": f"tma {data}"}


def hash_of(data: str) -> str:
    return data.rpartition("hash=")[2]


ANN, BEN = init_data(), init_data('{"id":8,"first_name":"Ben"}')


class TestTelegram(AuthProviderContract):
    distribution = "jimsapi-telegram"
    settings = {"telegram_token": TOKEN}
    secrets = (TOKEN, hash_of(ANN), hash_of(BEN))
    good = {"telegram:7": tma(ANN), "telegram:8": tma(BEN)}
    foreign = ({"authorization": f"Bearer {TOKEN}"}, {"x-init-data": ANN})
    malformed = (
        tma("user"),
        tma(init_data(auth_date="today")),
        tma(init_data("{}")),
        tma(init_data('{"id":"7"}')),
        tma(f"{ANN}&auth_date={NOW}"),
    )
    wrong = (
        tma(init_data(token="110201543:another")),
        tma(ANN.replace("Ann", "Eve")),
        tma(ANN.replace(f"auth_date={NOW}", f"auth_date={NOW + 1}")),
        tma(ANN.rpartition("&hash=")[0]),
    )
    expired = (tma(init_data(auth_date=str(NOW - 4000))), tma(init_data(auth_date=str(NOW + 4000))))
    denied = DoesNotApply("every user of the bot has access")
    half_configured = ({"telegram_max_age": 60},)
    outage = DoesNotApply("it uses no other service")


@pytest.mark.anyio
async def test_a_user_is_admitted_as_one_contact(jimsapi_client: Callable[..., TestClient]) -> None:
    async with jimsapi_client(telegram_token=TOKEN) as client:
        answers = [
            await client.post("/api/v1/chat", json={"contact_id": contact, "message": "hi"}, headers=tma(ANN))
            for contact in ("7", "8")
        ]
    assert [answer.status_code for answer in answers] == [200, 403]


@pytest.mark.anyio
@pytest.mark.parametrize(("age", "admitted"), [(-61, False), (-60, True), (100, True), (101, False)])
async def test_data_is_valid_for_the_maximum_age(age: int, admitted: bool) -> None:
    provider = TelegramProvider(Secret(TOKEN), 100, clock=lambda: NOW + age)
    connection = Connection({"type": "http", "headers": [(b"authorization", f"tma {ANN}".encode())]})
    if admitted:
        identity = await provider.authenticate(connection)
        assert identity == Identity("telegram:7", contact_id="7", scopes=("chat", "threads"))
    else:
        with pytest.raises(InvalidCredentials):
            await provider.authenticate(connection)
