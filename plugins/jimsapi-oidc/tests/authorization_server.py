"""An issuer of the tests at which clients register and people sign in: OAuth 2.1's code flow, over TLS.

It rejects what a strict server would reject.
"""

import json
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlencode

from fake_issuer import DISCOVERY, FakeIssuer, encode

OAUTH_METADATA = "/.well-known/oauth-authorization-server"
REGISTER, AUTHORIZE, TOKEN = "/register", "/authorize", "/token"


class OAuthError(Exception):
    """What an endpoint answers with 400: the code, and why (RFC 6749, 5.2; RFC 7591, 3.2.2)."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.document = {"error": code, "error_description": why}


@dataclass(frozen=True)
class Grant:
    """What a person has agreed to."""

    client_id: str
    redirect_uri: str
    challenge: str
    resource: str
    scope: str
    person: str


class AuthorizationServer(FakeIssuer):
    """An issuer with dynamic registration (RFC 7591), S256 (RFC 7636), resources (RFC 8707) and `iss` (RFC 9207).

    `person` is who signs in next. `grants` are the scopes to which they agree, one text for each sign-in; all that the
    client asks for when there are no more. `shows_oauth_metadata` says whether it has the document of RFC 8414, or only
    that of OpenID Connect. `registrations` and `signed_in` are what clients have sent, in order.
    """

    person: str
    grants: list[str]
    shows_oauth_metadata: bool
    registrations: dict[str, Any]
    signed_in: list[Grant]
    _codes: dict[str, Grant]

    def reset(self, algorithm: str = "RS256") -> None:
        """Reset the issuer: a new key, and nobody is known."""
        super().reset(algorithm)
        self.forget()
        self.discovery |= {
            "registration_endpoint": self.origin + REGISTER,
            "authorization_endpoint": self.origin + AUTHORIZE,
            "token_endpoint": self.origin + TOKEN,
            "token_endpoint_auth_methods_supported": ["none"],
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["chat", "threads"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [algorithm],
            "authorization_response_iss_parameter_supported": True,
        }

    def forget(self) -> None:
        """Forget clients and people, and keep the keys."""
        self.asked.clear()
        self.person, self.grants, self.shows_oauth_metadata = "ann", [], True
        self.registrations, self.signed_in, self._codes = {}, [], {}

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        endpoint = {REGISTER: self._register, AUTHORIZE: self._authorize, TOKEN: self._exchange}.get(path)
        if endpoint is None:
            await super()._answer(scope, receive, send)
            return
        self.asked.append(path)
        body = await read_body(receive) if scope["method"] == "POST" else scope["query_string"]
        status, headers, answer = 200, [(b"content-type", b"application/json"), (b"cache-control", b"no-store")], b""
        try:
            found = endpoint(body)
        except OAuthError as error:
            status, found = 400, error.document
        if isinstance(found, str):
            status, headers = 302, [(b"location", found.encode())]
        else:
            answer = encode(found)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _document(self, path: str) -> bytes:
        if self.shows_oauth_metadata and path == OAUTH_METADATA + self._path:
            return super()._document(DISCOVERY)
        return super()._document(path)

    def _register(self, body: bytes) -> Any:
        metadata = json.loads(body)
        if not metadata.get("redirect_uris"):
            raise OAuthError("invalid_redirect_uri", "redirect_uris are missing")
        client_id = f"client-{len(self.registrations)}"
        self.registrations[client_id] = metadata
        # A server may replace what it does not support (RFC 7591, 3.2.1).
        replaced = {"grant_types": ["authorization_code"], "token_endpoint_auth_method": "none"}
        return {**metadata, **replaced, "client_id": client_id}

    def _authorize(self, query: bytes) -> str:
        asked = single_values(query)
        client = self.registrations.get(asked.get("client_id", ""))
        if client is None or asked.get("redirect_uri") not in client["redirect_uris"]:
            raise OAuthError("invalid_request", "the client or its redirect_uri is not registered")
        if (asked.get("response_type"), asked.get("code_challenge_method")) != ("code", "S256"):
            raise OAuthError("invalid_request", "it is not the code flow with S256")
        scope = self.grants.pop(0) if self.grants else asked.get("scope", "")
        grant = Grant(
            client_id=asked["client_id"],
            redirect_uri=asked["redirect_uri"],
            challenge=asked["code_challenge"],
            resource=asked.get("resource", ""),
            scope=scope,
            person=self.person,
        )
        code = secrets.token_urlsafe()
        self._codes[code] = grant
        self.signed_in.append(grant)
        state = {"state": asked["state"]} if "state" in asked else {}
        return f"{grant.redirect_uri}?{urlencode({'code': code, 'iss': self.url, **state})}"

    def _exchange(self, body: bytes) -> Any:
        given = single_values(body)
        grant = self._codes.pop(given.get("code", ""), None)
        if grant is None or given.get("grant_type") != "authorization_code":
            raise OAuthError("invalid_grant", "the code is not known, or was used before")
        challenge = urlsafe_b64encode(sha256(given.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
        if challenge != grant.challenge:
            raise OAuthError("invalid_grant", "code_verifier does not match")
        expected = (grant.client_id, grant.redirect_uri, grant.resource)
        if expected != (given.get("client_id"), given.get("redirect_uri"), given.get("resource", "")):
            raise OAuthError("invalid_grant", "client_id, redirect_uri or resource differs from the one of the code")
        claims: dict[str, Any] = {"sub": grant.person, "scope": grant.scope, "client_id": grant.client_id}
        token = self.token(**claims, aud=grant.resource or ...)
        return {"access_token": token, "token_type": "Bearer", "expires_in": 600, "scope": grant.scope}


def single_values(form: bytes) -> dict[str, str]:
    """The fields of a form or a query; one that is sent twice is an error (RFC 6749, 3.1)."""
    fields = parse_qs(form.decode(), keep_blank_values=True)
    twice = [name for name, values in fields.items() if len(values) > 1]
    if twice:
        raise OAuthError("invalid_request", f"{twice[0]} is there twice")
    return {name: value for name, (value,) in fields.items()}


async def read_body(receive: Any) -> bytes:
    """The body of a request."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body
