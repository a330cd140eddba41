"""The provider: it checks signatures, and accepts each of them once."""

import hmac
import time
from collections import deque
from collections.abc import Callable, Mapping

from jimsapi import Connection, Identity, InvalidCredentials, Secret

from jimsapi_hmac.signature import sign

UNKNOWN = Secret("")


class HmacProvider:
    """Admits requests with a signature that is new, of a known caller, and at most `window` seconds old.

    One process remembers the nonces. Behind several processes, a request could be repeated once in each.
    """

    name = "hmac"
    challenge = "Hmac"

    def __init__(self, keys: Mapping[str, Secret], window: float, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._window = window
        self._clock = clock
        self._used: set[str] = set()
        self._oldest: deque[tuple[float, str]] = deque()

    async def authenticate(self, connection: Connection) -> Identity | None:
        """Return the caller that signed the request; None without the scheme `Hmac`. Raises `InvalidCredentials`."""
        scheme, _, credential = (connection.headers.get("authorization") or "").partition(" ")
        if scheme.lower() != "hmac":
            return None
        claim, _, signature = credential.rpartition(":")
        name, at, nonce = _parts(claim)
        if not signature.isascii():
            raise InvalidCredentials("malformed")
        secret = self._keys.get(name, UNKNOWN)
        target, digest = _target(connection), connection.headers.get("content-digest") or ""
        expected = sign(secret.reveal(), claim, connection.method, target, digest)
        if not hmac.compare_digest(signature, expected) or secret is UNKNOWN:
            raise InvalidCredentials("wrong signature")
        if abs(self._clock() - at) > self._window:
            raise InvalidCredentials("the signature is too old, or the caller's clock is wrong")
        self._use(f"{name}:{nonce}")
        return Identity(name)

    async def readmit(self, connection: Connection, identity: Identity) -> Identity:
        """Admit the caller of an open WebSocket again. Its handshake was signed once."""
        return identity

    def _use(self, nonce: str) -> None:
        """Raise `InvalidCredentials` for a nonce that was used before. Forget nonces whose signatures are too old."""
        now = self._clock()
        while self._oldest and self._oldest[0][0] < now:
            self._used.remove(self._oldest.popleft()[1])
        if nonce in self._used:
            raise InvalidCredentials("the signature was used before")
        self._used.add(nonce)
        self._oldest.append((now + 2 * self._window, nonce))


def _parts(claim: str) -> tuple[str, int, str]:
    """Return name, time and nonce. Raises `InvalidCredentials`."""
    name, _, rest = claim.partition(":")
    at, _, nonce = rest.partition(":")
    if not (at.isascii() and at.isdigit() and len(at) < 20 and nonce):
        raise InvalidCredentials("malformed")
    return name, int(at), nonce


def _target(connection: Connection) -> str:
    """Return the path as the caller sent it, with its query."""
    path: bytes = connection.scope["raw_path"]
    query: bytes = connection.scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")
