"""Asking Authentik over a pool of connections: what goes there is one token, what comes back is bounded and checked."""

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
from jimsapi.plugins.errors import StartError
from jimsapi_authentik.circuit import Circuit
from jimsapi_authentik.turns import NoTurn, Turns

MAX_ANSWER = 65_536
"""Bytes of an answer's body that are read; no answer that we ask for is as long."""

MAX_CHECKS = 64
"""Checks at a time. More wait for their turn, for half of their time at most."""

RESERVED_CHECKS = 16
"""Checks beside these, of tokens that were admitted lately: who invents tokens does not keep those out."""

MAX_WAITING = 1000
"""Checks that wait for a turn; one more is refused at once."""

MAX_DEPTH = 32
"""Levels of an answer's JSON; what we ask for has four."""

KEEP_ALIVE = 30.0
"""Seconds that an idle connection is kept."""

OUTCOMES = ("ok", "rejected", "unexpected", "error", "timeout", "broken", "busy")
"""How a call ends: with the JSON asked for; 401 or 403; another answer; a 5xx; not in time; without a whole answer; not
in what waiting for a turn left of its time."""

READY = "/-/health/ready/"
"""Where Authentik says whether it is there: its front and the application behind answer, and no policy is asked."""

_WORKING = ("ok", "rejected", "unexpected")
_BROKEN = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
_SLUG = re.compile(r"[A-Za-z0-9_-]+")

Refused = InvalidCredentials | AuthUnavailable


@dataclass(frozen=True, slots=True)
class Turn:
    """A check's turn: whether it was waited for, and how often Authentik had answered when it came."""

    waited: bool
    answers: int


class AuthentikClient:
    """Authentik's API, as one token sees it.

    `url` is where Authentik is, `timeout` the seconds that the caller gives a check in all, its waiting included.
    `ca_file` replaces the system's authorities; `clock` gives seconds that never go back.
    Raises `StartError` if one of them is unusable.
    """

    def __init__(self, url: str, *, timeout: float, ca_file: Path | None, clock: Callable[[], float]) -> None:
        self._base = base_url(url)
        kept = MAX_CHECKS + RESERVED_CHECKS
        # The transport without httpx's client: it has no cookie jar, which would hand one caller's session to the next,
        # follows no redirect, and looks at no proxy variable and no .netrc.
        self._transport = httpx.AsyncHTTPTransport(
            verify=_trust(ca_file),
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=kept, keepalive_expiry=KEEP_ALIVE),
        )
        self._half = timeout / 2
        self._turns = Turns(MAX_CHECKS, MAX_WAITING, self._half)
        self._turns_of_known = Turns(RESERVED_CHECKS, MAX_WAITING, self._half)
        self._answers = 0
        self._knocking: asyncio.Task[None] | None = None
        self.circuit = Circuit(clock)
        self.calls: Counter[str] = Counter()

    async def close(self) -> None:
        """Close all connections."""
        if self._knocking is not None:
            self._knocking.cancel()
            await asyncio.wait((self._knocking,))
        await self._transport.aclose()

    @asynccontextmanager
    async def turn(self, *, known: bool) -> AsyncIterator[Turn]:
        """Have a turn for a check; `known` if its token was admitted lately. Raises `AuthUnavailable` if too many wait
        for one."""
        turns = self._turns_of_known if known and self._turns.all_taken else self._turns
        try:
            async with turns.turn() as waited:
                yield Turn(waited, self._answers)
        except NoTurn:
            self.calls["busy"] += 1
            raise AuthUnavailable("more tokens are to be checked than Authentik can be asked about in time") from None

    async def get(self, path: str, token: str, turn: Turn) -> dict[str, Any]:
        """The JSON object at `path` (which begins with a slash), asked for with `token`. The caller sets the deadline.

        Raises:
            InvalidCredentials: Authentik does not take the token.
            AuthUnavailable: it gave no answer, or another one than such an object.
        """
        self.circuit.enter()
        outcome = "busy" if turn.waited else "timeout"  # if nothing else ends the call, its deadline does
        at_half_time = asyncio.get_running_loop().call_later(self._half, self._knock)
        try:
            status, body = await self._exchange(self._base + path, token)
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
        """Whether a call that ended so found Authentik working. None if that cannot be said: it did not have the whole
        time, or Authentik answered others in it, so that it is this token's policy that takes so long."""
        if outcome == "busy" or (outcome == "timeout" and self._answers != turn.answers):
            return None
        return outcome in _WORKING

    def _knock(self) -> None:
        """Find out, once for all who wait, whether Authentik is there at all, before their deadlines count against
        it."""
        if self._knocking is None and self.circuit.at_stake:
            self._knocking = asyncio.create_task(self._ask_whether_ready(), name="Authentik knock")
            self._knocking.add_done_callback(self._knocked)

    def _knocked(self, _: asyncio.Task[None]) -> None:
        self._knocking = None

    async def _ask_whether_ready(self) -> None:
        try:
            async with asyncio.timeout(self._half):
                status, _ = await self._exchange(self._base + READY)
        except (TimeoutError, httpx.TransportError):
            return
        if status < 500:
            self._answers += 1
            self.circuit.answered()

    async def ping(self) -> None:
        """Ask whether Authentik is ready. Raises `AuthUnavailable` if it is not, or does not answer in time."""
        try:
            async with asyncio.timeout(2 * self._half):
                status, _ = await self._exchange(self._base + READY)
        except TimeoutError:
            raise AuthUnavailable(f"Authentik did not answer within {2 * self._half:g} s") from None
        except httpx.TransportError as error:
            raise AuthUnavailable(_cause(error)) from error
        if status >= 500:  # a proxy may hide the path
            raise AuthUnavailable(f"Authentik answers {status} to {READY}")

    async def _exchange(self, url: str, token: str | None = None) -> tuple[int, bytes | None]:
        """Status and body of an answer; no body if it is too long."""
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
        """Send the request, and `again` if a connection from the pool turns out to be closed at the other end."""
        headers = {
            "accept": "application/json",
            "accept-encoding": "identity",  # nothing that grows when it is unpacked
            "user-agent": "jimsapi-authentik",
        }
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        watch = _Watch()
        request = httpx.Request("GET", url, headers=headers, extensions={"trace": watch})
        try:
            return await self._transport.handle_async_request(request)
        except BaseException as error:
            await watch.close_half_open()
            if not again or watch.fresh or not isinstance(error, _BROKEN):
                raise
        return await self._send(url, token, again=False)


class _Watch:
    """Is told by httpx what happens to the connection of a request: whether it is `fresh`, and whether TLS began on it
    and never stood."""

    def __init__(self) -> None:
        self.fresh = False
        self._half_open: Any = None

    async def __call__(self, event: str, details: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            self.fresh = True
        elif event == "connection.connect_tcp.complete":
            self._half_open = details["return_value"]
        elif event == "connection.start_tls.complete":
            self._half_open = None

    async def close_half_open(self) -> None:
        """Close the connection if TLS does not stand on it: a handshake that is cancelled, as a deadline does, leaves
        it open, and during an outage one by one would use up all descriptors."""
        if self._half_open is not None:
            await self._half_open.aclose()


def application_path(slug: str) -> str:
    """The path that says whether a token's holder may use the application.

    Raises `StartError` for what Authentik takes for no slug: such a one could name another path.
    """
    if _SLUG.fullmatch(slug) is None:
        raise StartError(
            f"--authentik-app-slug: {slug!r} is no slug; give the application's own, of letters, digits, - and _, as "
            "Authentik shows it in the application's settings"
        )
    return f"/api/v3/core/applications/{slug}/check_access/"


def base_url(text: str) -> str:
    """Authentik's URL without a slash at its end. Raises `StartError` if it is none, and does not show it then: it may
    hold a password."""
    example = "give one like https://auth.example.org"
    if re.search(r"[\s\x00-\x1f\x7f\\]", text):
        raise StartError(f"--authentik-url holds a space, a backslash or a control character; {example}")
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise StartError(f"--authentik-url is no URL; {example}") from None
    if url.scheme not in ("http", "https") or not url.host or "%" in url.host:
        raise StartError(f"--authentik-url does not begin with https:// (or http://) and a host's name; {example}")
    if url.port is not None and not 0 < url.port < 65536:
        raise StartError(f"--authentik-url has a port that does not exist; {example}")
    if url.userinfo or "@" in text:
        raise StartError(f"--authentik-url holds a user or a password, which nobody would use; {example}")
    if "?" in text or "#" in text:
        raise StartError(f"--authentik-url holds a query or a fragment; {example}")
    return str(url).rstrip("/")


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # SSLError is one
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise StartError(
            f"--authentik-ca-file: cannot use {ca_file}: {reason}; give a file of PEM certificates"
        ) from None


def _read(status: int, body: bytes | None, path: str) -> tuple[str, dict[str, Any] | Refused]:
    """How a call ended, and its JSON object or what to raise."""
    if status in (401, 403):
        return "rejected", InvalidCredentials(f"Authentik does not take the token ({status})")
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
        return "unexpected", AuthUnavailable(f"Authentik's answer on {path} is not the JSON that was asked for")
    return "ok", content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; `ValueError` for one that says a thing twice, since readers differ in which one counts."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands twice")
    return content


def _is_deep(content: dict[str, Any]) -> bool:
    """Whether JSON has more than `MAX_DEPTH` levels: how many the parser itself takes depends on Python's version."""
    level: list[Any] = [content]
    for _ in range(MAX_DEPTH):
        inner = (each for one in level for each in (one.values() if isinstance(one, dict) else one))
        level = [each for each in inner if isinstance(each, dict | list)]
        if not level:
            return False
    return True


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _cause(error: httpx.TransportError) -> str:
    """What went wrong, in words that hold nothing the other side said: it might repeat the token."""
    if isinstance(error, httpx.ConnectError):
        return f"cannot connect to Authentik: {' '.join(str(error).split()) or 'the connection was closed'}"
    return f"the connection to Authentik broke ({type(error).__name__})"
