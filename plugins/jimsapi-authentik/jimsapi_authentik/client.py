"""A client of Authentik's API with a pool of connections. It limits and checks the answers."""

import asyncio
import json
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from jimsapi import AuthUnavailable, InvalidCredentials
from jimsapi.plugins import StartError
from jimsapi_authentik.circuit import Circuit
from jimsapi_authentik.turns import NoTurn, Turns

MAX_ANSWER = 65_536
"""Maximum number of bytes of an answer's body. The expected answers are shorter."""

MAX_CHECKS = 64
"""Checks at the same time. Others wait for a turn, for at most half of the timeout."""

RESERVED_CHECKS = 16
"""Additional checks, reserved for tokens that were admitted recently: invalid tokens cannot block these."""

MAX_WAITING = 1000
"""Checks that may wait for a turn. Others are rejected at once."""

MAX_DEPTH = 32
"""Levels of an answer's JSON. The expected answers have four."""

KEEP_ALIVE = 30.0
"""Seconds for which an idle connection is kept open."""

OUTCOMES = ("ok", "rejected", "unexpected", "error", "timeout", "broken", "busy")
"""The outcomes of a call:

- `ok`: the expected JSON
- `rejected`: 401 or 403
- `unexpected`: another answer
- `error`: a 5xx
- `timeout`: no answer in time
- `broken`: the connection failed
- `busy`: no answer in the time that was left after waiting for a turn
"""

READY = "/-/health/ready/"
"""Authentik's readiness check: the server and the application behind it answer, without evaluating a policy."""

_WORKING = ("ok", "rejected", "unexpected")
_BROKEN = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
_SLUG = re.compile(r"[A-Za-z0-9_-]+")

Refused = InvalidCredentials | AuthUnavailable


@dataclass(frozen=True, slots=True)
class Turn:
    """The turn of a check: whether the check waited for it, and the number of Authentik's answers when it began."""

    waited: bool
    answers: int


class AuthentikClient:
    """Calls Authentik's API with the token of a caller.

    `url` is Authentik's URL. `timeout` is the time for a check in seconds, including the wait for a turn; the caller
    enforces it. `ca_file` replaces the system's certificate authorities. `clock` returns monotonic seconds.

    Raises `StartError` if one of them is invalid.
    """

    def __init__(self, url: str, *, timeout: float, ca_file: Path | None, clock: Callable[[], float]) -> None:
        self._base_url = base_url(url)
        max_idle = MAX_CHECKS + RESERVED_CHECKS
        # httpx's client is not used: its cookie jar would send one caller's session with the next caller's request. The
        # transport also follows no redirects, and reads no proxy variables and no .netrc.
        self._transport = httpx.AsyncHTTPTransport(
            verify=_ssl_context(ca_file),
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=max_idle, keepalive_expiry=KEEP_ALIVE),
        )
        self._half_timeout = timeout / 2
        self._turns = Turns(MAX_CHECKS, MAX_WAITING, self._half_timeout)
        self._reserved_turns = Turns(RESERVED_CHECKS, MAX_WAITING, self._half_timeout)
        self._answers = 0
        self._readiness_check: asyncio.Task[None] | None = None
        self.circuit = Circuit(clock)
        self.calls: Counter[str] = Counter()

    async def close(self) -> None:
        """Close all connections."""
        if self._readiness_check is not None:
            self._readiness_check.cancel()
            await asyncio.wait((self._readiness_check,))
        await self._transport.aclose()

    @asynccontextmanager
    async def turn(self, *, known: bool) -> AsyncIterator[Turn]:
        """Context manager: wait for the turn of a check. `known` means that its token was admitted recently.

        Raises `AuthUnavailable` if too many checks wait, or if the wait takes too long.
        """
        turns = self._reserved_turns if known and self._turns.all_taken else self._turns
        try:
            async with turns.turn() as waited:
                yield Turn(waited, self._answers)
        except NoTurn:
            self.calls["busy"] += 1
            raise AuthUnavailable("too many checks of tokens wait for Authentik") from None

    async def get(self, path: str, token: str, turn: Turn) -> dict[str, Any]:
        """Return the JSON object at `path`, which begins with a slash, requested with `token`.

        The caller must set a timeout.

        Raises:
            InvalidCredentials: Authentik rejects the token.
            AuthUnavailable: there was no answer, or not a JSON object.
        """
        self.circuit.enter()
        outcome = "busy" if turn.waited else "timeout"  # the outcome if the caller's timeout cancels the call
        at_half_time = asyncio.get_running_loop().call_later(self._half_timeout, self._check_readiness, turn)
        try:
            status, body = await self._exchange(self._base_url + path, token)
            outcome, answer = _read(status, body, path)
        except httpx.TransportError as error:
            outcome, answer = "broken", AuthUnavailable(_cause(error))
        finally:
            at_half_time.cancel()
            self.calls[outcome] += 1
            self._answers += outcome in _WORKING
            self.circuit.leave(working=self._is_working(outcome, turn))
        if isinstance(answer, Refused):
            raise answer
        return answer

    def _is_working(self, outcome: str, turn: Turn) -> bool | None:
        """Whether Authentik is working, as far as a call with this outcome shows it.

        None if the call did not have the whole timeout, or if Authentik answered other calls meanwhile: then only the
        policy for this token is slow.
        """
        if outcome == "busy" or (outcome == "timeout" and self._answers != turn.answers):
            return None
        return outcome in _WORKING

    def _check_readiness(self, turn: Turn) -> None:
        """Check whether Authentik is ready, once for all waiting calls, before their timeouts count as failures."""
        if self._readiness_check is None and self._answers == turn.answers and self.circuit.is_decisive:
            self._readiness_check = asyncio.create_task(self._request_readiness(), name="Authentik readiness")
            self._readiness_check.add_done_callback(self._end_readiness_check)

    def _end_readiness_check(self, _: asyncio.Task[None]) -> None:
        self._readiness_check = None

    async def _request_readiness(self) -> None:
        try:
            async with asyncio.timeout(self._half_timeout):
                status, _ = await self._exchange(self._base_url + READY)
        except (TimeoutError, httpx.TransportError):
            return
        if status < 500:
            self._answers += 1
            self.circuit.record_answer()

    async def ping(self) -> None:
        """Check whether Authentik is ready. Raises `AuthUnavailable` if it is not, or does not answer in time."""
        try:
            async with asyncio.timeout(2 * self._half_timeout):
                status, _ = await self._exchange(self._base_url + READY)
        except TimeoutError:
            raise AuthUnavailable(f"Authentik did not answer within {2 * self._half_timeout:g} s") from None
        except httpx.TransportError as error:
            raise AuthUnavailable(_cause(error)) from error
        if status >= 500:  # a proxy may hide the path
            raise AuthUnavailable(f"Authentik answers {status} to {READY}")

    async def _exchange(self, url: str, token: str | None = None) -> tuple[int, bytes | None]:
        """Send a request and return the answer's status and body. The body is None if it is too long."""
        response = await self._send(httpx.URL(url), token)
        try:
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_ANSWER:
                    return response.status_code, None
            return response.status_code, bytes(body)
        finally:
            await response.aclose()

    async def _send(self, url: httpx.URL, token: str | None, *, again: bool = True) -> httpx.Response:
        """Send a request. If `again` is true and a pooled connection was closed by the server, send it once more."""
        headers = {
            "accept": "application/json",
            "accept-encoding": "identity",  # a compressed answer could be larger than `MAX_ANSWER`
            "user-agent": "jimsapi-authentik",
        }
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        trace = _ConnectionTrace()
        request = httpx.Request("GET", url, headers=headers, extensions={"trace": trace})
        try:
            return await self._transport.handle_async_request(request)
        except BaseException as error:
            await trace.close_open_handshake()
            if not again or trace.is_new or not isinstance(error, _BROKEN):
                raise
        return await self._send(url, token, again=False)


class _ConnectionTrace:
    """A trace function of httpx. It records whether the connection of a request is new (`is_new`), and whether its TLS
    handshake is incomplete."""

    def __init__(self) -> None:
        self.is_new = False
        self._open_handshake: Any = None

    async def __call__(self, event: str, details: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            self.is_new = True
        elif event == "connection.connect_tcp.complete":
            self._open_handshake = details["return_value"]
        elif event == "connection.start_tls.complete":
            self._open_handshake = None

    async def close_open_handshake(self) -> None:
        """Close the connection if its TLS handshake is incomplete. httpx leaves it open if a timeout cancels the
        handshake, so an outage would use up all descriptors."""
        if self._open_handshake is not None:
            await self._open_handshake.aclose()


def application_path(slug: str) -> str:
    """Return the API path for the check whether a user may use the application.

    Raises `StartError` if `slug` is not a valid slug, because the URL could have another path.
    """
    if _SLUG.fullmatch(slug) is None:
        raise StartError(
            f"--authentik-app-slug: {slug!r} is not a slug; copy the slug (letters, digits, - and _) from the "
            "application's settings in Authentik"
        )
    return f"/api/v3/core/applications/{slug}/check_access/"


def base_url(text: str) -> str:
    """Return Authentik's URL without a slash at its end.

    Raises `StartError` if it is invalid. The message does not contain the URL, which may contain a password.
    """
    example = "give one like https://auth.example.org"
    if re.search(r"[\s\x00-\x1f\x7f\\]", text):
        raise StartError(f"--authentik-url contains a space, a backslash or a control character; {example}")
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise StartError(f"--authentik-url is not a URL; {example}") from None
    if url.scheme not in ("http", "https") or not url.host or "%" in url.host:
        raise StartError(f"--authentik-url does not begin with https:// (or http://) and a host name; {example}")
    if url.port is not None and not 0 < url.port < 65536:
        raise StartError(f"--authentik-url has an invalid port; {example}")
    if url.userinfo or "@" in text:
        raise StartError(f"--authentik-url contains a user or a password, which is not supported; {example}")
    if "?" in text or "#" in text:
        raise StartError(f"--authentik-url contains a query or a fragment; {example}")
    return str(url).rstrip("/")


def _ssl_context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # SSLError is one
        reason = "it contains no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise StartError(
            f"--authentik-ca-file: cannot use {ca_file}: {reason}; give a file of PEM certificates"
        ) from None


def _read(status: int, body: bytes | None, path: str) -> tuple[str, dict[str, Any] | Refused]:
    """The outcome of a call, and the JSON object or the exception to raise."""
    if status in (401, 403):
        return "rejected", InvalidCredentials(f"Authentik rejects the token ({status})")
    if status != 200:
        outcome = "error" if status >= 500 else "unexpected"
        hint = ": is --authentik-app-slug right, and --authentik-url?" if status == 404 else ""
        return outcome, AuthUnavailable(f"Authentik answered {status} on {path}{hint}")
    if body is None:
        return "unexpected", AuthUnavailable(f"Authentik's answer on {path} is over {MAX_ANSWER} bytes")
    try:
        content = json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or _is_deep(content):
        return "unexpected", AuthUnavailable(f"Authentik's answer on {path} is not the expected JSON")
    return "ok", content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises `ValueError` for a duplicate key, because parsers differ in which value they use."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("duplicate key")
    return content


def _is_deep(content: dict[str, Any]) -> bool:
    """Whether JSON has more than `MAX_DEPTH` levels. The parser's own limit depends on Python's version."""
    level: list[Any] = [content]
    for _ in range(MAX_DEPTH):
        children = (child for parent in level for child in (parent.values() if isinstance(parent, dict) else parent))
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _cause(error: httpx.TransportError) -> str:
    """The text for a connection error. It contains nothing that the server sent, because that may include the token."""
    if isinstance(error, httpx.ConnectError):
        return f"cannot connect to Authentik: {' '.join(str(error).split()) or 'the connection was closed'}"
    return f"the connection to Authentik broke ({type(error).__name__})"
