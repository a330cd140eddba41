"""The signatures of webhooks, as Standard Webhooks 1.0.0 describes them.

https://github.com/standard-webhooks/standard-webhooks
"""

import base64
import hmac
from collections.abc import Sequence
from uuid import UUID

SECRET_PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)


def signing_key(secret: str) -> bytes:
    """Return the key of a secret in the format of Standard Webhooks: `whsec_` and Base64.

    Raises `ValueError` if the secret is invalid. The message does not quote the secret.
    """
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"it does not begin with {SECRET_PREFIX}")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        raise ValueError(f"what follows {SECRET_PREFIX} is not Base64") from None
    if len(key) not in SECRET_BYTES:
        raise ValueError(f"it has {len(key)} bytes, but must have {SECRET_BYTES[0]} to {SECRET_BYTES[-1]}")
    return key


def webhook_id(run_id: UUID) -> str:
    """Return the `webhook-id` of a run's webhook: the same for each call, whichever process makes it."""
    return f"run_{run_id.hex}"


def signatures(keys: Sequence[bytes], webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header `webhook-signature`: one signature for each key (Standard Webhooks 1.0.0)."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    digests = (hmac.digest(key, signed, "sha256") for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
