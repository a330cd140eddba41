"""Requests that an SDK sends again by itself, because its connection broke or it waited too long."""

import time
from collections import OrderedDict
from hashlib import blake2b
from typing import cast
from uuid import uuid4

from jimsapi.asgi import Request
from jimsapi.runs import Admission
from jimsapi.wire import ThreadNames, idempotency_key

HEADER = "x-stainless-retry-count"
"""How often the SDK has sent the request before. All SDKs that Stainless makes send it, OpenAI's among them."""
WINDOW = 900.0
"""Seconds after which a request is not recognized any more: a time-out of the SDK, 600 by default, and its pauses."""
KNOWN = 10_000
"""The most requests that are remembered."""


class Retries:
    """Gives the repetitions of a request the idempotency key of the first attempt, so that one run answers all.

    It remembers the requests of this process. A request whose count is 0 is a new one, even if its body is the same: a
    person may say the same thing twice.
    """

    def __init__(self, names: ThreadNames) -> None:
        self._headers = [header for header in (names.contact_header, names.thread_header) if header is not None]
        self._keys: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def key_of(self, request: Request, body: bytes) -> str | None:
        """Return the idempotency key for a request; None if no SDK sent it that counts its attempts."""
        count = request.headers.get(HEADER)
        if count is None or not (count.isascii() and count.isdigit()):
            return None
        now = time.monotonic()
        digest = self._digest(request, body)
        known = self._keys.pop(digest, None)
        if known is None or known[1] < now or not int(count[:9]):
            known = (f"request-{uuid4()}", now + WINDOW)
        self._keys[digest] = known
        while len(self._keys) > KNOWN:
            self._keys.popitem(last=False)
        return known[0]

    def _digest(self, request: Request, body: bytes) -> bytes:
        """Return a digest of a request: its caller, path and body, and the names in its headers."""
        admission = cast(Admission, request.admission)
        named = [request.headers.getlist(header) for header in self._headers]
        parts = repr((admission.provider, admission.identity.subject, request.path, named)).encode()
        return blake2b(parts + body, digest_size=16).digest()


async def key_of(request: Request, retries: Retries | None) -> str | None:
    """Return the key by which a request that is sent again is recognized: its header's, else that of an SDK's attempts.

    Raises as `idempotency_key` does.
    """
    named = idempotency_key(request)
    return retries.key_of(request, await request.body()) if named is None and retries is not None else named
