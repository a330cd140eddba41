"""What a server serves: each protocol is looked for at its path, and called with a request that changes nothing."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from jimsapi.cli.client_setup.access import Access, SignIn, find_sign_in
from jimsapi.cli.client_setup.address import Address
from jimsapi.cli.client_setup.misnaming import misnaming
from jimsapi.cli.client_setup.probe import NoReply, Probe, Reply

MODERN, LEGACY = "2026-07-28", "2025-11-25"
"""The versions of MCP that are asked for: that without sessions, and the newest with `initialize`."""
MCP = "/mcp"
A2A = "1.0"
CARD = "/.well-known/agent-card.json"
MAX_NAMES = 20
"""Tools, models and interfaces of one server that are shown."""

_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_REFUSED = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
_TASK_NOT_FOUND = -32001
_EVENTS = {"accept": "application/json, text/event-stream"}


@dataclass
class Endpoint:
    """A protocol at a server. `url` is what clients connect to; without it, the server does not serve the protocol.

    `names` are its tools, models or agents, and `problems` say what does not work, and what to do.
    """

    url: str | None = None
    names: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    sign_in: SignIn | None = None
    interfaces: list[dict[str, str]] = field(default_factory=list)
    """Of A2A: the `url`, the `protocolBinding` and the `protocolVersion` of each."""


@dataclass(frozen=True)
class Asked:
    """A server that is asked what it serves."""

    probe: Probe
    address: Address
    access: Access

    def refusal(self, reply: Reply) -> str | None:
        """Return what is wrong if a caller that may send messages is refused at the path of a protocol."""
        if not (self.access.is_open and reply.status in _REFUSED):
            return None
        return f"it refuses this caller with {reply.status} {reply.detail}".strip()


async def find_all(asked: Asked) -> dict[str, Endpoint]:
    """Return every protocol that this command knows, by its name, as `PROTOCOLS` lists them."""

    async def find(look: Callable[[Asked], Awaitable[Endpoint]]) -> Endpoint:
        try:
            return await look(asked)
        except NoReply as error:
            return Endpoint(problems=[f"the server {error}: {error.advice}"])

    found = await asyncio.gather(*map(find, PROTOCOLS.values()))
    return dict(zip(PROTOCOLS, found, strict=True))


async def find_mcp(asked: Asked) -> Endpoint:
    """MCP: the versions that the server speaks, and the names of its tools."""
    path = await _mcp_path(asked.probe)
    if not (await asked.probe.get(path)).allows("POST"):
        return Endpoint()
    endpoint = Endpoint(asked.address.url + path)
    discovered = await _modern(asked.probe, path, "server/discover")
    if discovered.status == httpx.codes.UNAUTHORIZED and not asked.access.is_open:
        unknown = await _modern(asked.probe, path, "server/discover", with_key=False)
        endpoint.sign_in, endpoint.problems = await find_sign_in(
            asked.probe, asked.address, asked.address.url + path, unknown
        )
        return endpoint
    if (refusal := asked.refusal(discovered)) is not None:
        endpoint.problems.append(refusal)
    elif asked.access.is_open:
        endpoint.problems += await _use_mcp(asked, path, discovered, endpoint)
    return endpoint


async def _mcp_path(probe: Probe) -> str:
    """Return the path of MCP. The OpenAPI document has another than the usual one, if the operator has chosen that."""
    try:
        document = (await probe.get("/openapi.json")).fields
    except NoReply:
        return MCP
    paths = document.get("paths")
    for path, operations in paths.items() if isinstance(paths, dict) else ():
        operation = operations.get("post") if isinstance(operations, dict) else None
        tags = operation.get("tags") if isinstance(operation, dict) else None
        if isinstance(tags, list) and "mcp" in tags and _PATH.fullmatch(path):
            return str(path)
    return MCP


async def _use_mcp(asked: Asked, path: str, discovered: Reply, endpoint: Endpoint) -> list[str]:
    """List the tools, in each era that the server speaks. Returns what does not work."""
    if MODERN in _names(discovered.fields.get("result"), "supportedVersions"):
        listed = (await _modern(asked.probe, path, "tools/list")).fields
    else:
        client = {"name": "jimsapi", "version": "0"}
        params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client}
        begun = await asked.probe.post(path, _call("initialize", params), _EVENTS)
        result = begun.fields.get("result")
        if not isinstance(result, dict) or not isinstance(result.get("protocolVersion"), str):
            return [f"it answers neither server/discover nor initialize as MCP does (status {begun.status})"]
        session = {"mcp-session-id": begun.header("mcp-session-id")} if begun.header("mcp-session-id") else {}
        headers = {**_EVENTS, "mcp-protocol-version": result["protocolVersion"][:20], **session}
        listed = (await asked.probe.post(path, _call("tools/list", {}), headers)).fields
    endpoint.names = _names_of(listed.get("result"), "tools", "name")
    return [] if endpoint.names else ["it lists no tools"]


async def _modern(probe: Probe, path: str, method: str, *, with_key: bool = True) -> Reply:
    prefix = "io.modelcontextprotocol"
    meta = {
        f"{prefix}/protocolVersion": MODERN,
        f"{prefix}/clientCapabilities": {},
        f"{prefix}/clientInfo": {"name": "jimsapi", "version": "0"},
    }
    headers = {**_EVENTS, "mcp-protocol-version": MODERN, "mcp-method": method}
    return await probe.post(path, _call(method, {"_meta": meta}), headers, with_key=with_key)


def _call(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """A request of JSON-RPC 2.0."""
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


async def find_a2a(asked: Asked) -> Endpoint:
    """A2A: the agent card, whose URLs have to be those of this server, and its interfaces."""
    reply = await asked.probe.get(CARD, with_key=False)
    listed = reply.fields.get("supportedInterfaces")
    if reply.status != httpx.codes.OK or not isinstance(listed, list):
        return Endpoint()
    endpoint = Endpoint(asked.address.url + CARD, names=_texts([reply.fields.get("name")]))
    for one in [one for one in listed if isinstance(one, dict)][:MAX_NAMES]:
        url, binding, version = (one.get(name) for name in ("url", "protocolBinding", "protocolVersion"))
        if not isinstance(url, str) or not _is_below(asked.address, url):
            endpoint.problems.append(misnaming("the agent card", url, asked.address.url))
            continue
        endpoint.interfaces.append({"url": url, "protocolBinding": _word(binding), "protocolVersion": _word(version)})
        if asked.access.is_open and (problem := await _use_a2a(asked, url, _word(binding))) is not None:
            endpoint.problems.append(f"{url}: {problem}")
    if not endpoint.interfaces and not endpoint.problems:
        endpoint.problems.append("the agent card lists no interface")
    return endpoint


def _is_below(address: Address, url: str) -> bool:
    return re.fullmatch(re.escape(address.url) + r"(/[A-Za-z0-9._~/-]*)?", url) is not None


async def _use_a2a(asked: Asked, url: str, binding: str) -> str | None:
    """Ask for a task that does not exist. Returns what is wrong with the answer."""
    path, headers = url.removeprefix(asked.address.url), {"a2a-version": A2A}
    if binding == "JSONRPC":
        reply = await asked.probe.post(path, _call("GetTask", {"id": str(uuid4())}), headers)
        error = reply.fields.get("error")
        works = isinstance(error, dict) and error.get("code") == _TASK_NOT_FOUND
    elif binding == "HTTP+JSON":
        reply = await asked.probe.get(f"{path.rstrip('/')}/tasks/{uuid4()}", headers)
        works = reply.status == httpx.codes.NOT_FOUND and isinstance(reply.fields.get("error"), dict)
    else:
        return None  # a binding that this command does not speak
    if works:
        return None
    return asked.refusal(reply) or f"it does not answer as A2A {A2A} does (status {reply.status})"


async def find_openai(asked: Asked) -> Endpoint:
    """OpenAI's API: its models."""
    reply = await asked.probe.get("/v1/models")
    endpoint = Endpoint(f"{asked.address.url}/v1")
    if reply.status in _REFUSED:
        refusal = asked.refusal(reply)
        endpoint.problems = [] if refusal is None else [refusal]
        return endpoint
    endpoint.names = _names_of(reply.fields, "data", "id")
    return endpoint if reply.status == httpx.codes.OK and endpoint.names else Endpoint()


async def find_agui(asked: Asked) -> Endpoint:
    """AG-UI."""
    return await _find_post(asked, "/ag-ui")


async def find_vercel(asked: Asked) -> Endpoint:
    """The AI SDK of Vercel."""
    return await _find_post(asked, "/ai-sdk/chat")


async def find_deepchat(asked: Asked) -> Endpoint:
    """Deep Chat."""
    return await _find_post(asked, "/deep-chat")


async def _find_post(asked: Asked, path: str) -> Endpoint:
    """A protocol whose requests begin runs. The refusal of a GET shows that its path is there."""
    reply = await asked.probe.get(path)
    return Endpoint(asked.address.url + path) if reply.allows("POST") else Endpoint()


PROTOCOLS: dict[str, Callable[[Asked], Awaitable[Endpoint]]] = {
    "mcp": find_mcp,
    "a2a": find_a2a,
    "openai": find_openai,
    "agui": find_agui,
    "vercel": find_vercel,
    "deepchat": find_deepchat,
}
"""How to look for each protocol, by the name of its extra: `jimsapi[mcp]` installs the plugin."""


def _names_of(result: Any, kind: str, name: str) -> list[str]:
    """The names in a list of objects."""
    listed = result.get(kind) if isinstance(result, dict) else None
    return _texts([one.get(name) for one in listed if isinstance(one, dict)]) if isinstance(listed, list) else []


def _names(result: Any, kind: str) -> list[str]:
    """The texts in a list of a result."""
    listed = result.get(kind) if isinstance(result, dict) else None
    return _texts(listed) if isinstance(listed, list) else []


def _texts(values: list[Any]) -> list[str]:
    return [value[:100] for value in values if isinstance(value, str) and value][:MAX_NAMES]


def _word(value: Any) -> str:
    """A name of a protocol or version; empty if it is something else."""
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9.+_-]{1,40}", value) else ""
