"""The two eras of MCP, and what a client declares in each.

Since 2026-07-28, each request says in `params._meta` which version and which capabilities its client has, and headers
repeat the names that proxies route by. Earlier clients say it once, by `initialize`, and send the session's identifier
with later requests. That identifier is made so that it tells what the server has to know of the client. So the server
keeps no sessions, and each of its processes may answer.
"""

import binascii
import re
import secrets
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

import msgspec

from jimsapi.asgi import Request
from jimsapi_mcp.messages import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    MAX_SHOWN,
    MISSING_CAPABILITY,
    UNSUPPORTED_VERSION,
    RpcError,
    RpcRequest,
    shown,
)

MODERN = ("2026-07-28",)
"""The versions whose requests stand alone."""
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""The versions that begin with `initialize`, newest first."""

_PREFIX = "io.modelcontextprotocol/"
VERSION_KEY = f"{_PREFIX}protocolVersion"
CAPABILITIES_KEY = f"{_PREFIX}clientCapabilities"
SERVER_KEY = f"{_PREFIX}serverInfo"
TASKS = f"{_PREFIX}tasks"
"""The extension by which a server answers a call with a task."""

VERSION_HEADER = "mcp-protocol-version"
METHOD_HEADER = "mcp-method"
NAME_HEADER = "mcp-name"
SESSION_HEADER = "mcp-session-id"

_NAMES = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""The parameter that the header `Mcp-Name` repeats, by method."""
_ENCODED = re.compile(r"=\?base64\?(.*)\?=")
_SESSION = re.compile(r"[en]-[0-9a-f]{32}")


class Client(msgspec.Struct, frozen=True):
    """What the server knows of the client of a request.

    `elicits`: the client shows forms to its person. `tasks`: it accepts a task as the answer to a call. `session` is
    the identifier of the session of an earlier client; None if it has none.
    """

    modern: bool
    elicits: bool = False
    tasks: bool = False
    session: str | None = None

    def require_tasks(self) -> None:
        """Raise `RpcError` if the client has not declared the extension for tasks."""
        if not self.tasks:
            needed: dict[str, Any] = {"requiredCapabilities": {"extensions": {TASKS: {}}}}
            raise RpcError(MISSING_CAPABILITY, f"The client must declare the extension {TASKS}", needed)


def is_modern(request: Request, method: str, params: Mapping[str, Any]) -> bool:
    """Return whether a message is one of 2026-07-28 or later, even if it is not a valid one."""
    meta = params.get("_meta")
    if isinstance(meta, Mapping) and VERSION_KEY in meta:
        return True
    if method == "server/discover":
        return True
    version = request.headers.get(VERSION_HEADER)
    return version is not None and version not in LEGACY and method != "initialize"


def modern_client(request: Request, call: RpcRequest) -> Client:
    """Return what the metadata of a request says. Raises `RpcError` if it is incomplete, or if headers do not match."""
    meta = call.params.get("_meta")
    keys = meta if isinstance(meta, Mapping) else {}
    missing = [key for key in (VERSION_KEY, CAPABILITIES_KEY) if key not in keys]
    if missing:
        raise RpcError(INVALID_PARAMS, f"params._meta lacks {' and '.join(missing)}")
    version, capabilities = keys[VERSION_KEY], keys[CAPABILITIES_KEY]
    if not isinstance(version, str):
        raise RpcError(INVALID_PARAMS, f"{VERSION_KEY} must be a text")
    if not isinstance(capabilities, Mapping):
        raise RpcError(INVALID_PARAMS, f"{CAPABILITIES_KEY} must be an object")
    _check_headers(request, call, version)
    if version not in MODERN:
        data = {"supported": list(MODERN), "requested": version[:MAX_SHOWN]}
        raise RpcError(UNSUPPORTED_VERSION, f"The protocol version {shown(version)} is not supported", data)
    return Client(True, elicits=elicits(capabilities), tasks=_has_tasks(capabilities))


def legacy_client(request: Request) -> Client:
    """Return what the session of a request says."""
    session = request.headers.get(SESSION_HEADER) or ""
    if not _SESSION.fullmatch(session):  # of another server, before a restart with another program
        return Client(False)
    return Client(False, elicits=session.startswith("e"), session=session)


def new_session(params: Mapping[str, Any]) -> str:
    """Return the identifier of a new session, for the parameters of `initialize`."""
    capabilities = params.get("capabilities")
    shows_forms = isinstance(capabilities, Mapping) and elicits(capabilities)
    return f"{'e' if shows_forms else 'n'}-{secrets.token_hex(16)}"


def agreed_version(params: Mapping[str, Any]) -> str:
    """Return the version of a session: the one that the client asks for, or the newest one if that is not known."""
    asked = params.get("protocolVersion")
    return asked if asked in LEGACY else LEGACY[0]


def elicits(capabilities: Mapping[str, Any]) -> bool:
    """Return whether a client shows forms. An empty object means forms (2026-07-28, client/elicitation)."""
    declared = capabilities.get("elicitation")
    return isinstance(declared, Mapping) and ("form" in declared or "url" not in declared)


def _has_tasks(capabilities: Mapping[str, Any]) -> bool:
    extensions = capabilities.get("extensions")
    return isinstance(extensions, Mapping) and isinstance(extensions.get(TASKS), Mapping)


def _check_headers(request: Request, call: RpcRequest, version: str) -> None:
    """Raise `RpcError` if a header that proxies route by does not say what the body says."""
    _check_header(request, VERSION_HEADER, version)
    _check_header(request, METHOD_HEADER, call.method)
    name = call.params.get(_NAMES.get(call.method, ""))
    if isinstance(name, str):
        _check_header(request, NAME_HEADER, name, encoded=True)


def _check_header(request: Request, header: str, value: str, *, encoded: bool = False) -> None:
    found = request.headers.getlist(header)
    if len(found) > 1:
        raise RpcError(HEADER_MISMATCH, f"The header {header} is there more than once")
    if not found:
        raise RpcError(HEADER_MISMATCH, f"The header {header} is missing")
    text = found[0].strip(" \t")  # some servers keep the blanks around a value (RFC 9110, section 5.5)
    sent = _decoded(text) if encoded else text
    if sent != value:
        raise RpcError(HEADER_MISMATCH, f"The header {header} does not match the body, which has {shown(value)}")


def _decoded(value: str) -> str | None:
    """Return the value of a header that may be encoded; None if the encoding is invalid."""
    encoded = _ENCODED.fullmatch(value)
    if encoded is None:
        return value
    try:
        return b64decode(encoded[1], validate=True).decode()
    except (binascii.Error, ValueError):
        return None
