"""The signed state of a call that waits for a person: clients send it back with the person's response.

The state names the run that asked. Its signature covers the caller, the contact, the call and the time after which it
is not accepted. Every process can check it, also after a restart: the key is made of what the store has of the run,
and of the option `--mcp-secret` if it is set.
"""

import hmac
import re
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec
import orjson

from jimsapi.asgi import Request
from jimsapi.threads import StoredRun
from jimsapi_mcp.people import admission_of

VALID_FOR = 86_400
"""Seconds for which a state is accepted."""

_STATE = re.compile(r"([0-9a-f]{32})\.([0-9]{1,12})\.([0-9]{1,9})\.([0-9a-f]{64})")


class State(msgspec.Struct, frozen=True):
    """A state as a client has sent it. It is not checked yet.

    `notified` is the number of notifications of progress that the call has sent before, so that the numbers of the next
    ones are greater.
    """

    run_id: UUID
    expires: int
    notified: int
    signature: str


class States:
    """Signs states and checks them. `secret` is that of the option."""

    def __init__(self, secret: str | None) -> None:
        self._secret = (secret or "").encode()

    def sign(self, request: Request, run: StoredRun, call: str, notified: int = 0) -> str:
        """Return the state of a call that waits for an answer to a question of `run`.

        `call` tells calls apart: a state is accepted only for the call that it was signed for. `notified` is that of
        `State`.
        """
        expires = int(time.time()) + VALID_FOR
        return f"{run.run_id.hex}.{expires}.{notified}.{self._signature(request, run, call, expires, notified)}"

    def is_valid(self, request: Request, run: StoredRun, call: str, state: State) -> bool:
        """Return whether a state was signed here for this call of this caller, and has not expired."""
        signature = self._signature(request, run, call, state.expires, state.notified)
        return hmac.compare_digest(signature, state.signature) and time.time() < state.expires

    def _signature(self, request: Request, run: StoredRun, call: str, expires: int, notified: int) -> str:
        admission = admission_of(request)
        caller = (admission.provider, admission.identity.subject, run.contact_id)
        signed = repr((caller, run.run_id.hex, call, expires, notified))
        key = sha256(b"jimsapi-mcp state\0" + run.message_id.bytes + self._secret).digest()
        return hmac.new(key, signed.encode("utf-8", "surrogatepass"), sha256).hexdigest()


def read_state(text: Any) -> State | None:
    """Return a state that a client has sent; None if it is none."""
    found = _STATE.fullmatch(text) if isinstance(text, str) else None
    return None if found is None else State(UUID(found[1]), int(found[2]), int(found[3]), found[4])


def digest_of(tool: str, arguments: Mapping[str, Any]) -> str:
    """Return a digest of a call, by which a state belongs to it."""
    return sha256(orjson.dumps([tool, arguments], option=orjson.OPT_SORT_KEYS)).hexdigest()
