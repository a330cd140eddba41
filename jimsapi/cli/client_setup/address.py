"""The URL of a server, as a person typed or pasted it."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

ENDPOINTS = (
    "/.well-known/agent-card.json",
    "/v1/chat/completions",
    "/v1/responses",
    "/api/v1/chat",
    "/api/v1",
    "/openapi.json",
    "/docs",
    "/deep-chat",
    "/ai-sdk/chat",
    "/ag-ui",
    "/mcp",
    "/a2a",
    "/v1",
)
"""Paths below the URL of a server, which people paste in place of that URL."""

_PLAIN_HOST = re.compile(r"[A-Za-z0-9._~-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")
MAX_PORT = 65535
_DEFAULT_PORTS = {"http": 80, "https": 443}
_FORM = "a URL begins with http:// or https:// and a host, such as https://example.org/bot"


@dataclass(frozen=True)
class Address:
    """The URL of a server, without a closing slash. `had_credentials`: a user or a password was removed from it."""

    url: str
    had_credentials: bool = False

    @property
    def without_endpoint(self) -> "Address | None":
        """The address without the path of an endpoint at its end; None if it has none."""
        for path in ENDPOINTS:
            if self.url.endswith(path):
                return Address(self.url.removesuffix(path).rstrip("/"), self.had_credentials)
        return None

    def has_origin_of(self, url: str) -> bool:
        """Return whether another URL has the same scheme, host and port."""
        return origin(url) is not None and origin(url) == origin(self.url)


def parse_address(text: str) -> Address:
    """Return the address in a text. Raises `ValueError`, without the text, which may have a password."""
    try:
        url = httpx.URL(text.strip())
        host = url.netloc.decode()
        # Name resolution also encodes the host, and would raise only then.
        url.raw_host.decode().encode("idna")
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise ValueError(f"this is not a valid URL: {_FORM}") from None
    if url.scheme not in _DEFAULT_PORTS or not _PLAIN_HOST.fullmatch(host) or (url.port or 0) > MAX_PORT:
        raise ValueError(f"this is not the URL of a server: {_FORM}")
    if url.query or url.fragment:
        raise ValueError("the URL of a server ends with its path: omit the ? or # and what follows")
    # Quotes would end the strings of the printed examples.
    path = quote(url.raw_path.decode(), safe="/%:@!$&()*+,;=~._-").rstrip("/")
    return Address(f"{url.scheme}://{host}{path}", bool(url.userinfo))


def origin(url: str) -> tuple[str, str, int | None] | None:
    """Return the scheme, the host and the port of a URL; None if it is not one of HTTP."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme]


def without_credentials(url: Any) -> str:
    """Return a URL of a server's answer without user and password; it may be any text."""
    text = str(url)
    before, separator, rest = text.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{before}{separator}{authority.rpartition('@')[2]}{slash}{path}"
