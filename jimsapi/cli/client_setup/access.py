"""Who may use a server: whether it needs a key, accepts the given one, and offers to sign in with OAuth."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import httpx

from jimsapi.cli.client_setup.address import Address, without_credentials
from jimsapi.cli.client_setup.misnaming import misnaming
from jimsapi.cli.client_setup.probe import NoReply, Probe, Reply

CHAT = "/api/v1/chat"
MAX_ISSUERS = 10

_RESOURCE_METADATA = re.compile(r'\bresource_metadata="([^"]{1,2000})"')
_SCHEME = re.compile(r"(?:^|, ?)([A-Za-z][A-Za-z0-9._~+-]{0,40})(?= [A-Za-z]|, ?|$)")
"""An authentication scheme at the beginning of a challenge (RFC 9110, 11.6.1)."""


class AccessState(StrEnum):
    """What the server says about callers."""

    PUBLIC = "public"
    KEY_ACCEPTED = "key_accepted"
    KEY_NEEDED = "key_needed"
    KEY_REFUSED = "key_refused"
    FORBIDDEN = "forbidden"
    """The server knows the key, and does not let its caller send messages."""
    UNAVAILABLE = "unavailable"
    """The server answers no messages now."""


@dataclass(frozen=True)
class Access:
    """Who may use a server.

    `challenge` is what the server asks for, and `detail` its own words about a refusal. `is_bound` says whether the
    caller is bound to one contact; None if that is not known.
    """

    state: AccessState
    detail: str = ""
    challenge: str = ""
    is_bound: bool | None = None

    @property
    def is_open(self) -> bool:
        """Whether requests of this command are admitted."""
        return self.state in (AccessState.PUBLIC, AccessState.KEY_ACCEPTED)

    @property
    def other_schemes(self) -> list[str]:
        """The schemes that the server asks for, if a bearer token is not one of them."""
        schemes = _SCHEME.findall(self.challenge)
        return [] if any(scheme.lower() == "bearer" for scheme in schemes) else schemes[:5]


@dataclass(frozen=True)
class SignIn:
    """That callers get a token from an OAuth authorization server (RFC 9728)."""

    metadata_url: str
    authorization_servers: list[str]
    scopes: list[str] = field(default_factory=list)


async def find_access(probe: Probe) -> Access:
    """Return who may use the server. A message without a text is sent: it begins no run. Raises `NoReply`."""
    unknown = await probe.post(CHAT, {}, with_key=False)
    if unknown.status == httpx.codes.UNPROCESSABLE_ENTITY:
        return Access(AccessState.PUBLIC, is_bound=_is_bound(unknown))
    challenge = unknown.header("www-authenticate")
    if probe.key is None:
        return _refused(unknown, AccessState.KEY_NEEDED, challenge)
    known = await probe.post(CHAT, {})
    if known.status == httpx.codes.UNPROCESSABLE_ENTITY:
        return Access(AccessState.KEY_ACCEPTED, challenge=challenge, is_bound=_is_bound(known))
    return _refused(known, AccessState.KEY_REFUSED, challenge)


def _refused(reply: Reply, at_401: AccessState, challenge: str) -> Access:
    match reply.status:
        case httpx.codes.UNAUTHORIZED:
            state = at_401
        case httpx.codes.FORBIDDEN:
            state = AccessState.FORBIDDEN
        case _:
            state = AccessState.UNAVAILABLE
    return Access(state, f"{reply.status} {reply.detail}".strip(), challenge)


def _is_bound(reply: Reply) -> bool:
    """Whether the caller is bound to a contact: only others have to name one."""
    faults: Any = reply.fields.get("detail")
    places = [fault.get("loc") for fault in faults if isinstance(fault, dict)] if isinstance(faults, list) else []
    return ["body", "contact_id"] not in places


async def find_sign_in(
    probe: Probe, address: Address, resource_url: str, refused: Reply
) -> tuple[SignIn | None, list[str]]:
    """Return how callers of a resource sign in, and what is wrong with it.

    `refused` is the answer to a request without a key. There is nothing to sign in with if its challenge names no
    document.
    """
    found = _RESOURCE_METADATA.search(refused.header("www-authenticate"))
    if refused.status != httpx.codes.UNAUTHORIZED or found is None:
        return None, []
    url = found[1]
    if not address.has_origin_of(url):
        return None, [misnaming("resource_metadata of WWW-Authenticate", url, resource_url)]
    try:
        reply = await probe.get_public(url)
    except NoReply as error:
        return None, [f"the OAuth document {without_credentials(url)} cannot be read: the server {error}"]
    document = reply.fields
    servers = [one for one in _texts(document.get("authorization_servers")) if _is_web_url(one)]
    if reply.status != httpx.codes.OK or not servers:
        problem = f"the OAuth document {without_credentials(url)} names no authorization server (status {reply.status})"
        return None, [f"{problem}: give the server --oidc-issuer"]
    problems = []
    if document.get("resource") != resource_url:
        problems.append(misnaming("the OAuth document", document.get("resource"), resource_url))
    return SignIn(url, servers[:MAX_ISSUERS], _texts(document.get("scopes_supported"))[:MAX_ISSUERS]), problems


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _is_web_url(text: str) -> bool:
    return text.startswith(("http://", "https://")) and text.isascii() and text.isprintable() and len(text) < 500
