"""Fields of a request's log line that say who has sent it, if the operator wants them."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from jimsapi.asgi.connection import Connection
from jimsapi.cli.options import LogOptions
from jimsapi.runs.admission import Admission

LONGEST = 200
"""Characters of an address or a subject."""
HASH_BYTES = 8
"""The length of a hash: two of a million people have the same one with a probability of 1 in 37 million."""


def request_describer(options: LogOptions) -> Callable[[Connection], Mapping[str, Any]] | None:
    """Return the function that adds the fields to the records of requests; None if no option asks for one."""
    if not options.log_client and options.log_caller == "off" and not options.log_contact:
        return None
    return RequestDescriber(options)


class RequestDescriber:
    """Describes requests by the address of the client, the caller, and the contact.

    A hash is keyed with the operator's secret. Without the secret nobody can compute the hash of a guessed phone number
    and look for it in the log. The same person has the same hash as long as the secret is the same.
    """

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        secret = "" if options.log_hash_key is None else options.log_hash_key.reveal()
        self._key = hashlib.sha256(secret.encode()).digest()

    def __call__(self, request: Connection) -> Mapping[str, Any]:
        """Return the fields of a request that is answered."""
        options = self._options
        fields: dict[str, Any] = {}
        if options.log_client and (client := request.client) is not None and client[0]:
            fields["client"] = _word(client[0])
        admission = request.admission if isinstance(request.admission, Admission) else None
        if options.log_caller != "off" and admission is not None and admission.provider is not None:
            subject = admission.identity.subject
            hashed = options.log_caller == "hashed"
            fields["caller"] = self._hash("caller", f"{admission.provider} {subject}") if hashed else _word(subject)
        if options.log_contact and (contact := _contact(request, admission)) is not None:
            fields["contact"] = self._hash("contact", contact)
        return fields

    def _hash(self, kind: str, text: str) -> str:
        data = text.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, digest_size=HASH_BYTES, key=self._key, person=kind.encode()).hexdigest()


def _word(text: str) -> str:
    """Return a text that others have chosen as one short word, which cannot look like another field of the line."""
    return quote(text[:LONGEST], safe="/:@~+,", errors="replace")


def _contact(request: Connection, admission: Admission | None) -> str | None:
    """Return the contact that the request names, or the one that its caller is bound to."""
    bound_to = None if admission is None else admission.identity.contact_id
    contact: str | None = getattr(request, "person", bound_to)
    return contact
