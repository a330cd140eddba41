"""The signature of a request, for callers and for the provider.

A caller sends `Authorization: Hmac NAME:TIME:NONCE:SIGNATURE` and, with a body, `Content-Digest` (RFC 9530).
"""

import base64
import hashlib
import hmac
import secrets
import time


def content_digest(body: bytes) -> str:
    """Return the value of the header `Content-Digest`."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def sign(secret: str, *signed: str) -> str:
    """Return the HMAC-SHA-256 (RFC 2104) of the parts, one a line, in hexadecimal digits."""
    return hmac.new(secret.encode(), "\n".join(signed).encode(), hashlib.sha256).hexdigest()


def signed_headers(
    name: str, secret: str, method: str, target: str, body: bytes = b"", at: int | None = None
) -> dict[str, str]:
    """Return the headers of one request. `target` is the path with its query; `at` is in seconds since 1970."""
    digest = content_digest(body) if body else ""
    claim = f"{name}:{int(time.time()) if at is None else at}:{secrets.token_hex(16)}"
    headers = {"authorization": f"Hmac {claim}:{sign(secret, claim, method, target, digest)}"}
    return {**headers, "content-digest": digest} if digest else headers
