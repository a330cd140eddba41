"""All that is known about a server: that it is one of jimsapi, who may use it, and what it serves."""

import asyncio
from dataclasses import dataclass, field
from uuid import uuid4

import httpx

from jimsapi.cli.client_setup.access import CHAT, Access, AccessState, SignIn, find_access, find_sign_in
from jimsapi.cli.client_setup.address import Address, without_credentials
from jimsapi.cli.client_setup.misnaming import MAX_SHOWN
from jimsapi.cli.client_setup.probe import NoReply, Probe, Reply, http_client
from jimsapi.cli.client_setup.protocols import Asked, Endpoint, find_all
from jimsapi.plugins.secrets import Secret

API = "/api/v1"

_LOCAL = ("localhost", "127.0.0.1", "::1")

_REFUSALS = {
    AccessState.KEY_REFUSED: (
        "the server refuses the key",
        "give another key with --api-key-file, or in JIMS_API_KEY",
    ),
    AccessState.FORBIDDEN: (
        "the server lets this caller send no messages",
        "give a key with the scope chat, or ask the operator of the server",
    ),
    AccessState.UNAVAILABLE: (
        "the server accepts no messages now",
        "try again later; the log of the server may have the reason",
    ),
}
"""What is wrong, and what to do."""


class NoServer(Exception):
    """There is no server of jimsapi at a URL. The text says what is there, and what to do."""


@dataclass
class Survey:
    """What a server has said about itself.

    `problems` say what does not work, and what to do; `notes` say what a person should know. Both may have texts of the
    server.
    """

    address: Address
    access: Access
    sign_in: SignIn | None
    endpoints: dict[str, Endpoint]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def all_problems(self) -> list[str]:
        """Those of the server, and those of each protocol with its name."""
        of_protocols = [f"{name}: {text}" for name, one in self.endpoints.items() for text in one.problems]
        return [*self.problems, *of_protocols]


async def survey(address: Address, key: Secret | None, patience: float) -> Survey:
    """Ask a server. `patience` is in seconds, for each answer. Raises `NoServer`."""
    try:
        async with http_client() as http:
            found = await _find_server(http, address, patience)
            return await _ask(Probe(http, found.url, key, patience), found)
    except NoReply as error:
        raise NoServer(f"{address.url} {error}: {error.advice}") from None


async def _find_server(http: httpx.AsyncClient, address: Address, patience: float) -> Address:
    """Return the address, or the part of it before the path of an endpoint, that is one of a server."""
    fault = await _fault(http, address, patience)
    if fault is None:
        return address
    shorter = address.without_endpoint
    if shorter is not None and await _fault(http, shorter, patience) is None:
        return shorter
    raise NoServer(fault)


async def _fault(http: httpx.AsyncClient, address: Address, patience: float) -> str | None:
    """Return why an address is not one of a server; None if it is. Raises `NoReply`.

    Every server has the route for messages, and no route with a random name. No key is sent.
    """
    probe = Probe(http, address.url, None, patience)
    chat, other = await asyncio.gather(probe.get(CHAT), probe.get(f"{API}/{uuid4().hex}"))
    if chat.allows("POST") and other.status == httpx.codes.NOT_FOUND:
        return None
    return f"{address.url} is not a server of jimsapi: {_difference(chat, other)}"


def _difference(chat: Reply, other: Reply) -> str:
    """What shows that these are not answers of a server, and what to do."""
    status = chat.status
    if httpx.codes.is_redirect(status):
        target = without_credentials(chat.header("location"))[:MAX_SHOWN].removesuffix(CHAT)
        return f"it redirects to {target!r}; if you trust that, give it as the URL"
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN, httpx.codes.PROXY_AUTHENTICATION_REQUIRED):
        return f"everything there gets {status}; let the proxy in front of the server pass requests without a login"
    if status in (httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT):
        return f"GET {CHAT} gets {status} {chat.detail}".strip() + "; start the server behind the proxy, or wait for it"
    if status == httpx.codes.NOT_FOUND:
        return f"GET {CHAT} gets 404; if a proxy shows the server below a path (--root-path), add that to the URL"
    if chat.allows("POST"):
        return f"a path that does not exist gets {other.status} in place of 404; let the proxy pass the answers on"
    return f"GET {CHAT} gets {status}, and jimsapi would refuse it with 405 and Allow: POST; check the URL"


async def _ask(probe: Probe, address: Address) -> Survey:
    access = await find_access(probe)
    endpoints = await find_all(Asked(probe, address, access))
    sign_in: SignIn | None = None
    problems: list[str] = []
    if access.challenge:
        unknown = await probe.post(CHAT, {}, with_key=False)
        sign_in, problems = await find_sign_in(probe, address, address.url + API, unknown)
    if access.state in _REFUSALS:
        fault, advice = _REFUSALS[access.state]
        problems.insert(0, f"{fault} ({access.detail}): {advice}")
    if (problem := await _readiness(probe)) is not None:
        problems.append(problem)
    return Survey(address, access, sign_in, endpoints, problems, _notes(probe, address, access))


async def _readiness(probe: Probe) -> str | None:
    """Return why the server is not ready. A proxy may hide the probe, which says nothing."""
    try:
        ready = await probe.get("/readyz", with_key=False)
    except NoReply as error:
        return f"the server {error} at /readyz: {error.advice}"
    if ready.status != httpx.codes.SERVICE_UNAVAILABLE:
        return None
    status = str(ready.fields.get("status", ready.status))[:MAX_SHOWN]
    return f"the server is not ready ({status}): try again later, or see its log"


def _notes(probe: Probe, address: Address, access: Access) -> list[str]:
    notes = []
    if address.had_credentials:
        notes.append("the user and the password of the URL are left out: a server of jimsapi takes a key")
    if address.url.startswith("http://") and httpx.URL(address.url).host not in _LOCAL:
        notes.append("without TLS everybody on the way can read keys and messages: use https:// outside of tests")
    if access.state is AccessState.PUBLIC and probe.key is not None:
        notes.append("the server is open to everybody, so nothing has checked the key")
    if access.other_schemes:
        schemes = ", ".join(access.other_schemes)
        notes.append(f"the server asks for {schemes}, and not for a bearer token: change the examples accordingly")
    return notes
