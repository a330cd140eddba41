"""The provider: it checks what Telegram gives to a Mini App as `initData`.

https://core.telegram.org/bots/webapps#validating-data-received-via-the-mini-app
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from urllib.parse import parse_qsl

import msgspec
from jimsapi import Connection, Identity, InvalidCredentials, Secret

CLOCK_SKEW = 60
"""Seconds by which the clock of this machine may be late."""


class User(msgspec.Struct):
    """The user of a Mini App. Telegram also sends names and more."""

    id: int


class TelegramProvider:
    """Admits requests with `Authorization: tma INIT_DATA`, as the contact whose id is that of the Telegram user."""

    name = "telegram"
    challenge = "tma"

    def __init__(self, token: Secret | None, max_age: float, clock: Callable[[], float] = time.time) -> None:
        self._token = token
        self._max_age = max_age
        self._clock = clock

    async def authenticate(self, connection: Connection) -> Identity | None:
        """Return the user; None without the scheme `tma`. Raises `InvalidCredentials`."""
        scheme, _, init_data = (connection.headers.get("authorization") or "").partition(" ")
        if scheme.lower() != "tma":
            return None
        fields = _fields(init_data)
        sent = fields.pop("hash", "")
        if self._token is None or not sent.isascii() or not hmac.compare_digest(sent, init_hash(self._token, fields)):
            raise InvalidCredentials("Telegram did not sign this data for this bot")
        age = self._clock() - _seconds(fields.get("auth_date", ""))
        if not -CLOCK_SKEW <= age <= self._max_age:
            raise InvalidCredentials("the data is too old, or this machine's clock is wrong")
        user = _user(fields.get("user", ""))
        return Identity(f"telegram:{user.id}", contact_id=str(user.id), scopes=("chat", "threads"))

    async def readmit(self, connection: Connection, identity: Identity) -> Identity:
        """Admit the user of an open WebSocket again. The data of its handshake may be too old by then."""
        return identity


def init_hash(token: Secret, fields: dict[str, str]) -> str:
    """Return the hash that Telegram computes for the fields, in hexadecimal digits."""
    key = hmac.digest(b"WebAppData", token.reveal().encode(), "sha256")
    text = "\n".join(f"{name}={value}" for name, value in sorted(fields.items()))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _fields(init_data: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(init_data, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=30)
    except ValueError:
        raise InvalidCredentials("malformed") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise InvalidCredentials("malformed: a field is repeated")
    return fields


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise InvalidCredentials("malformed: auth_date")
    return int(text)


def _user(text: str) -> User:
    try:
        return msgspec.json.decode(text, type=User)
    except msgspec.DecodeError:
        raise InvalidCredentials("malformed: user") from None
