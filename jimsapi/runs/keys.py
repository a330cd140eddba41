"""Idempotency keys: a message that is sent twice with the same key is answered once."""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from uuid import UUID

import msgspec

from jimsapi.runs.admission import Admission
from jimsapi.runs.inbound import Inbound
from jimsapi.threads.message_files import SentFile
from jimsapi.threads.run import Idempotency, Selector


def idempotency(
    key: str,
    inbound: Inbound,
    admission: Admission,
    selectors: Sequence[Selector] | None = None,
    files: Sequence[SentFile] = (),
) -> Idempotency:
    """Return the digests of an idempotency key and its request, for the store.

    The digest of the key includes the caller and the contact, so that other callers and contacts may use the same key.
    The digest of the request covers the message, the `files` that came within it and, if the protocol passes them, the
    `selectors` of its thread.
    """
    scope = (admission.provider, admission.identity.subject, inbound.contact_id, key)
    request = msgspec.json.encode(inbound, order="deterministic")  # the order of a JSON object's fields has no meaning
    # The digest of a message without these fields is that of versions that did not know them. Those versions had the
    # brace twice if a field before was set: it stays so. A newer field is removed first, since it is the last one.
    if inbound.files is None:
        request = request.removesuffix(b',"files":null}') + b"}"
    if inbound.answers is None:
        request = request.removesuffix(b',"answers":null}') + b"}"
        if inbound.metadata is None:
            request = request.removesuffix(b',"metadata":null}') + b"}"
    if selectors is not None:
        request += repr(tuple(selectors)).encode()
    for file in files:
        request += repr((file.name, file.type, _digest(file.content))).encode()
    return Idempotency(_digest(repr(scope).encode()), _digest(request))


def caller_of(admission: Admission) -> UUID:
    """Return the caller of a run as the store has it: a digest of provider and subject."""
    return caller_digest(admission.provider, admission.identity.subject)


@lru_cache(maxsize=4096)
def caller_digest(provider: str | None, subject: str) -> UUID:
    """Return the caller that an auth provider calls `subject`, as the store has it."""
    return _digest(repr((provider, subject)).encode())


def _digest(data: bytes) -> UUID:
    return UUID(bytes=blake2b(data, digest_size=16).digest())
