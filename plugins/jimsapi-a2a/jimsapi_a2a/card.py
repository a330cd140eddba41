"""The agent card (specification, sections 4.4 and 8)."""

import re
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from jimsapi.asgi import Connection, JSONResponse, Response, Router
from jimsapi.asgi.ranges import client_has
from jimsapi.plugins import StartError
from jimsapi.runs import CHAT, RunService, Skill, pipeline_name
from jimsapi_a2a import A2AOptions
from jimsapi_a2a.links import Links
from jimsapi_a2a.parts import JSON

if TYPE_CHECKING:
    from jimsapi_a2a.signature import CardSigner  # it imports libraries that only signatures need

PATH = "/.well-known/agent-card.json"
KEYS = "/.well-known/agent-card-keys.json"
"""The path of the public key of the card's signatures."""
AGENT = "/a2a"
"""The path of the JSON-RPC binding, and the beginning of the paths of the HTTP binding."""
VERSION = "1.0"
MAX_AGE = 60
"""Seconds for which clients may keep the card."""
TEXT = "text/plain"

_URL = re.compile(r"https?://[^/?#\s]+(?:/[^?#\s]*)?")
_KINDS = {
    "http": "httpAuthSecurityScheme",
    "apiKey": "apiKeySecurityScheme",
    "oauth2": "oauth2SecurityScheme",
    "openIdConnect": "openIdConnectSecurityScheme",
    "mutualTLS": "mtlsSecurityScheme",
}
_FLOWS = ("authorizationCode", "clientCredentials", "deviceCode", "implicit", "password")


class AgentCard:
    """The card of the agent. Raises `StartError` if an option is invalid.

    `push`: the agent sends push notifications. The providers' schemes are those of `router`. `signer` signs the card;
    None if nobody does.
    """

    def __init__(
        self,
        service: RunService,
        router: Router,
        options: A2AOptions,
        links: Links,
        *,
        push: bool,
        signer: "CardSigner | None" = None,
    ) -> None:
        _check_urls(options)
        self._signer = signer
        self._signed: tuple[dict[str, Any], dict[str, Any]] | None = None
        app = service.app
        self._service = service
        self._router = router
        self._links = links
        self._last_modified = formatdate(usegmt=True)
        name = options.name or app.name or pipeline_name(app.pipeline)
        description = options.description or app.description or f"Answers messages as {name} does."
        skills = _skills_of_file(options.skills) if options.skills is not None else [*map(_skill, app.skills)]
        if not skills:
            skills = [_skill(Skill(name, description))]
        self._head = {"name": name, "description": description, "version": options.version}
        self._more = {
            "capabilities": {"streaming": True, "pushNotifications": push, "extendedAgentCard": False},
            "skills": skills,
            **_optional(options),
        }
        if signer is not None:
            _check_signable(signer, self._more)

    def of(self, request: Connection) -> dict[str, Any]:
        """Return the card for a request, with the URLs by which its client reaches this server."""
        url = self._links.url(request, AGENT)
        interfaces = [
            {"url": url, "protocolBinding": binding, "protocolVersion": VERSION} for binding in ("JSONRPC", "HTTP+JSON")
        ]
        modes = [TEXT, JSON]
        inputs = modes if self._service.files is None else [*modes, "*/*"]
        card = {
            **self._head,
            "supportedInterfaces": interfaces,
            "defaultInputModes": inputs,
            "defaultOutputModes": modes,
            **self._more,
        }
        schemes = self._router.security_schemes
        if schemes:
            card["securitySchemes"] = {name: security_scheme(scheme) for name, scheme in schemes.items()}
            card["securityRequirements"] = [{"schemes": {name: {"list": _scopes(schemes[name])}}} for name in schemes]
        return card if self._signer is None else self._with_signature(self._signer, card)

    def _with_signature(self, signer: "CardSigner", card: dict[str, Any]) -> dict[str, Any]:
        """Return a card with its signature, which is made again only if the card has changed."""
        if self._signed is None or self._signed[0] != card:
            self._signed = card, signer.sign(card)
        return self._signed[1]

    def response(self, request: Connection) -> Response:
        """Return the card as a response that clients may keep (specification, section 8.6).

        It was last modified when this process began. Processes have other clocks and may have other cards, so a client
        that names another time gets the card.
        """
        body = orjson.dumps(self.of(request))
        tag = f'"{sha256(body).hexdigest()[:32]}"'
        headers = {
            "cache-control": f"public, max-age={MAX_AGE}",
            "etag": tag,
            "last-modified": self._last_modified,
            "access-control-allow-origin": "*",
        }
        known = client_has(request, tag)
        if known is None:
            known = request.headers.get("if-modified-since") == self._last_modified
        if known:
            return Response(status=304, headers=headers)
        return JSONResponse(orjson.Fragment(body), headers=headers)


def signer_of(options: A2AOptions) -> "CardSigner | None":
    """Return what signs the card; None if there is no key. Raises `StartError` if the key is not usable."""
    if options.signing_key is None:
        return None
    if options.url is None:  # a signature must not vouch for the host that a request names
        raise StartError("--a2a-signing-key needs --a2a-url: the URL of this server, which the signature covers")
    from jimsapi_a2a.signature import card_signer

    try:
        return card_signer(options.signing_key, f"{options.url.rstrip('/')}{KEYS}")
    except ValueError as error:
        raise StartError(f"--a2a-signing-key: {error}") from None


def _check_signable(signer: "CardSigner", content: Mapping[str, Any]) -> None:
    """Raise `StartError` if a value of the card, which may come from a file, has no canonical form."""
    try:
        signer.sign(content)
    except ValueError as error:
        raise StartError(f"--a2a-signing-key: the agent card cannot be signed: {error}") from None


def security_scheme(scheme: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Security Scheme Object of OpenAPI 3.1 as a `SecurityScheme` of A2A."""
    kind = str(scheme.get("type"))
    fields = {name: value for name, value in scheme.items() if name != "type"}
    match kind:
        case "http":
            fields["scheme"] = str(scheme.get("scheme", "")).capitalize()
        case "apiKey":
            fields["location"] = fields.pop("in", "header")
        case "oauth2":
            flows = scheme.get("flows", {})
            fields["flows"] = {name: flows[name] for name in _FLOWS if name in flows and name == _first(flows)}
    return {_KINDS.get(kind, "httpAuthSecurityScheme"): fields}


def _first(flows: Mapping[str, Any]) -> str | None:
    """Return the flow that A2A gets, since it takes only one."""
    return next((name for name in _FLOWS if name in flows), None)


def _scopes(scheme: Mapping[str, Any]) -> list[str]:
    """Return the scopes that a token needs. Only schemes of OAuth have some."""
    return [CHAT] if scheme.get("type") in ("oauth2", "openIdConnect") else []


def _skill(skill: Skill) -> dict[str, Any]:
    shown = {"id": skill.id, "name": skill.name, "description": skill.description, "tags": list(skill.tags) or [CHAT]}
    return {**shown, "examples": list(skill.examples)} if skill.examples else shown


def _skills_of_file(path: Path) -> Sequence[dict[str, Any]]:
    """Return the skills in a file. Raises `StartError`."""
    try:
        skills = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise StartError(f"--a2a-skills: cannot read {path}: {error}") from None
    if not isinstance(skills, list) or not skills:
        raise StartError(f"--a2a-skills: {path} must have a JSON list of one AgentSkill or more")
    for number, skill in enumerate(skills):
        fields = skill if isinstance(skill, dict) else {}
        for field in ("id", "name", "description"):
            if not (isinstance(fields.get(field), str) and fields[field]):
                raise StartError(f"--a2a-skills: skill {number} of {path} needs {field}, a text that is not empty")
        tags = fields.get("tags")
        if not (isinstance(tags, list) and tags and all(isinstance(tag, str) for tag in tags)):
            raise StartError(f"--a2a-skills: skill {number} of {path} needs tags, a list of one text or more")
    return skills


def _check_urls(options: A2AOptions) -> None:
    """Raise `StartError` if an option that is a URL is none."""
    for flag, url in (
        ("--a2a-url", options.url),
        ("--a2a-provider-url", options.provider_url),
        ("--a2a-documentation-url", options.documentation_url),
        ("--a2a-icon-url", options.icon_url),
    ):
        if url is not None and not _URL.fullmatch(url.partition("?")[0] if flag != "--a2a-url" else url):
            raise StartError(f"{flag}: {url!r} is not an absolute URL of http or https")
    if (options.provider is None) != (options.provider_url is None):
        raise StartError("--a2a-provider and --a2a-provider-url belong together: set both, or neither")


def _optional(options: A2AOptions) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if options.provider is not None:
        more["provider"] = {"organization": options.provider, "url": options.provider_url}
    if options.documentation_url is not None:
        more["documentationUrl"] = options.documentation_url
    if options.icon_url is not None:
        more["iconUrl"] = options.icon_url
    return more
