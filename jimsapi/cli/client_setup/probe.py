"""Requests to a server that nobody has to trust: each has a limit of time and of size, and follows no redirect."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from jimsapi.plugins.secrets import Secret

MAX_REPLY = 1 << 20
"""Bytes of an answer that are read."""
MAX_REASON = 200
"""Characters of an error that are shown: it may quote the server."""
CHECK_URL = "check that the URL is that of the server"

_PLAIN = ("", "identity")


@dataclass(frozen=True)
class Reply:
    """A complete answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def header(self, name: str) -> str:
        """Return a field of the head; an empty text if there is none."""
        return self.headers.get(name, "")

    def allows(self, method: str) -> bool:
        """Return whether this is the refusal of another method at a path that has `method` (RFC 9110, 15.5.6)."""
        allowed = {name.strip().upper() for name in self.header("allow").split(",")}
        return self.status == httpx.codes.METHOD_NOT_ALLOWED and method in allowed

    @property
    def value(self) -> Any:
        """The JSON of the body: None if it is not JSON."""
        if self.header("content-encoding").lower() not in _PLAIN:
            return None
        text = self.body
        if self.header("content-type").startswith("text/event-stream"):
            text = _last_event(text)
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return None

    @property
    def fields(self) -> dict[str, Any]:
        """The JSON object of the body: empty if it is not one."""
        value = self.value
        return value if isinstance(value, dict) else {}

    @property
    def detail(self) -> str:
        """The beginning of the text with which the server explains an error; empty if there is none."""
        found = self.fields.get("detail") or self.fields.get("error")
        if isinstance(found, dict):
            found = found.get("message")
        return found[:MAX_REASON] if isinstance(found, str) else ""


class NoReply(Exception):
    """There is no complete answer. The text says what the server does in place of it, and `advice` what to do."""

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(text)
        self.advice = advice


def http_client() -> httpx.AsyncClient:
    """Return a client for probes. It asks for answers that are not compressed, and follows no redirect."""
    # httpx limits each read, and a probe the whole answer.
    return httpx.AsyncClient(timeout=None, headers={"accept-encoding": "identity"})


@dataclass(frozen=True)
class Probe:
    """Sends requests below one URL. `key` is sent only there, and `timeout` is in seconds, for each complete answer."""

    http: httpx.AsyncClient
    url: str
    key: Secret | None
    timeout: float

    async def get(self, path: str, headers: Mapping[str, str] | None = None, *, with_key: bool = True) -> Reply:
        """Return the answer to a GET. Raises `NoReply`."""
        return await self._send("GET", self.url + path, {**(headers or {}), **self._key_header(with_key)}, None)

    async def get_public(self, url: str) -> Reply:
        """Return the answer to a GET of a whole URL, without the key. Raises `NoReply`."""
        return await self._send("GET", url, {}, None)

    async def post(
        self, path: str, value: Any, headers: Mapping[str, str] | None = None, *, with_key: bool = True
    ) -> Reply:
        """Return the answer to a POST of JSON. Raises `NoReply`."""
        fields = {"content-type": "application/json", **(headers or {}), **self._key_header(with_key)}
        return await self._send("POST", self.url + path, fields, orjson.dumps(value))

    def _key_header(self, with_key: bool) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key.reveal()}"} if with_key and self.key is not None else {}

    async def _send(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> Reply:
        try:
            async with (
                asyncio.timeout(self.timeout),
                self.http.stream(method, url, headers=headers, content=content) as response,
            ):
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > MAX_REPLY:
                        raise NoReply(f"sends an answer that has more than {MAX_REPLY:,} bytes", CHECK_URL)
                return Reply(response.status_code, response.headers, bytes(body))
        except TimeoutError:
            raise NoReply(
                f"sends no complete answer within {self.timeout:g} seconds",
                "check that the server runs and that the URL is right, or give a longer --timeout",
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, ValueError) as error:
            reason = (str(error) or type(error).__name__)[:MAX_REASON]
            raise NoReply(f"does not answer ({reason})", _advice(error, url)) from None


def _advice(error: Exception, url: str) -> str:
    """What to do about a failed connection to a URL."""
    text = str(error)
    is_tls = url.startswith("https://")
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "use the server's name in the URL, or name the file of its certificate authority in SSL_CERT_FILE"
    if is_tls and "ssl" in text.lower():
        return "if the server does not use TLS on this port, begin the URL with http://"
    if isinstance(error, httpx.ConnectError):
        return "start the server, or check the host and the port in the URL"
    if not is_tls and isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
        return "if the server uses TLS on this port, begin the URL with https://"
    return CHECK_URL


def _last_event(stream: bytes) -> bytes:
    """The data of the last server-sent event of a stream."""
    events = stream.replace(b"\r\n", b"\n").strip().split(b"\n\n")
    lines = [line[5:].strip() for line in events[-1].split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines)
