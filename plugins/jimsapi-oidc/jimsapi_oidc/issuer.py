"""Fetches an issuer's keys at start, every hour, and when a token names an unknown key."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import httpx

from jimsapi_oidc.keys import KeySet, read_keys
from jimsapi_oidc.metrics import Counts
from jimsapi_oidc.refusals import KeysUnavailable
from jimsapi_oidc.tokens import read_json

logger = logging.getLogger("jimsapi.oidc")

MAX_ANSWER = 1_048_576
"""Maximum number of bytes of an answer of the issuer."""

FETCH_END_WITHIN = 1.0
"""Seconds for which the shutdown waits for a running fetch before it cancels the fetch."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The intervals of fetches, in seconds.

    - `refresh`: between two regular fetches.
    - `miss`: between two fetches for tokens with an unknown key. It limits the fetches that invalid tokens can cause.
    - `retry`: after a failed fetch. It doubles after each failure, up to `retry_most`.
    - `stale`: how long the last keys are used while the issuer does not answer.
    """

    refresh: float = 3600.0
    miss: float = 60.0
    retry: float = 1.0
    retry_most: float = 60.0
    stale: float = 86_400.0


PACE = Pace()


class Fault(Exception):
    """The issuer's answer cannot be used. `outcome` is its label in the metrics."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class Issuer:
    """The keys of the issuer `name`. It is an async context manager, and refreshes the keys while it is entered.

    `jwks_url` is the URL of the keys; None means the URL in the issuer's discovery document. `timeout` is the time for
    a fetch in seconds. `verify` has the trusted certificate authorities. Entering it does not wait for the keys and
    does not fail: as long as there are no keys, `keys_for` raises `KeysUnavailable`.
    """

    def __init__(
        self,
        name: str,
        jwks_url: str | None,
        algorithms: frozenset[str],
        counts: Counts,
        *,
        timeout: float,
        verify: ssl.SSLContext | bool = True,
        pace: Pace = PACE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.keys: KeySet | None = None
        self._jwks_url = self._configured_url = jwks_url
        self._algorithms = algorithms
        self._counts = counts
        self._timeout = timeout
        self._verify = verify
        self._pace = pace
        self._monotonic = monotonic
        self._fetched_at = self._missed_at = float("-inf")
        self._failure: str | None = None
        self._client: httpx.AsyncClient | None = None
        self._refresh_task: asyncio.Task[None] | None = None
        self._fetch_task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._client = httpx.AsyncClient(
            verify=self._verify,
            # Shorter than the timeout of the fetch: httpx's timeout closes a connection whose handshake hangs, while a
            # cancellation leaves it open until the garbage collector runs.
            timeout=0.9 * self._timeout,
            trust_env=False,
            follow_redirects=False,
            # Without compression, so that a small answer cannot become a large one.
            headers={"accept": "application/json", "accept-encoding": "identity"},
        )
        self._refresh_task = asyncio.create_task(self._refresh(), name="oidc keys")
        await asyncio.sleep(0)  # start the first fetch before the first request
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._refresh_task is not None:
            await _cancel(self._refresh_task)
        if self._fetch_task is not None:  # a fetch that ends in time closes its connection properly
            await asyncio.wait({self._fetch_task}, timeout=FETCH_END_WITHIN)
        if self._fetch_task is not None:
            await _cancel(self._fetch_task)
        if self._client is not None:
            await self._client.aclose()

    async def keys_for(self, kid: str | None) -> KeySet:
        """Return the keys to verify a token that names the key `kid`.

        If no key has that id, it fetches the keys again, unless it did so for this reason within the last `Pace.miss`
        seconds. Requests with a known `kid` do not wait for that.

        Raises `KeysUnavailable` if there are no keys, or if that fetch failed.
        """
        if self._usable_keys() is None and self._fetch_task is not None:
            await asyncio.wait({self._fetch_task})
        keys = self._usable_keys()
        if keys is None:
            raise KeysUnavailable(f"the issuer's keys are not known: {self._failure or 'they are being fetched'}")
        if kid is None or keys.knows(kid):
            return keys
        return await self._refetch(keys, kid)

    async def _refetch(self, keys: KeySet, kid: str) -> KeySet:
        if self._fetch_task is None and self._monotonic() - self._missed_at >= self._pace.miss:
            self._missed_at = self._monotonic()
            self._start_fetch(discover=False)
        if self._fetch_task is not None:
            await asyncio.wait({self._fetch_task})
        keys = keys if self.keys is None else self.keys
        if not keys.knows(kid) and self._failure is not None:
            raise KeysUnavailable(f"a new key cannot be fetched from the issuer: {self._failure}")
        return keys

    def _usable_keys(self) -> KeySet | None:
        return self.keys if self._monotonic() - self._fetched_at < self._pace.stale else None

    async def _refresh(self) -> None:
        retry = self._pace.retry
        while True:
            await asyncio.wait({self._start_fetch(discover=True)})
            if self._failure is None:
                retry = self._pace.retry
                await asyncio.sleep(self._pace.refresh)
            else:
                await asyncio.sleep(retry)
                retry = min(2 * retry, self._pace.retry_most)

    def _start_fetch(self, *, discover: bool) -> asyncio.Task[None]:
        """Start a fetch, or return the running one. The fetch goes on if the caller is cancelled."""
        if self._fetch_task is None:
            self._fetch_task = asyncio.create_task(self._fetch(discover), name="oidc fetch")
            self._fetch_task.add_done_callback(self._end_fetch)
        return self._fetch_task

    def _end_fetch(self, _: asyncio.Task[None]) -> None:
        self._fetch_task = None

    async def _fetch(self, discover: bool) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                keys = await self._fetch_keys(discover)
        except (TimeoutError, httpx.TimeoutException):
            self._record_failure("timeout", f"no answer within {self._timeout:g} s")
        except Fault as fault:
            self._record_failure(fault.outcome, str(fault))
        except httpx.HTTPError as error:
            self._record_failure("unreachable", str(error) or type(error).__name__)
        except Exception as error:  # whatever the issuer sent, the refresh task must go on and try again
            self._record_failure("malformed", f"its answer is unusable ({type(error).__name__})")
        else:
            if self._failure is not None:
                logger.info("the keys of the issuer %s can be fetched again", self.name)
            if not keys:
                logger.warning("the issuer %s has no key for --oidc-algorithms: no token is accepted", self.name)
            self.keys, self._failure, self._fetched_at = keys, None, self._monotonic()
            self._counts.fetches["ok"] += 1
            self._counts.keys, self._counts.keys_fetched_at = len(keys), time.monotonic()

    def _record_failure(self, outcome: str, cause: str) -> None:
        self._failure = cause
        self._counts.fetches[outcome] += 1
        consequence = "OIDC admits nobody until they are fetched"
        if self._usable_keys() is not None:
            remaining = self._fetched_at + self._pace.stale - self._monotonic()
            consequence = f"its last keys stay in use, for at most {remaining / 3600:.1f} hours"
        logger.warning("cannot fetch the keys of the issuer %s: %s; %s", self.name, cause, consequence)

    async def _fetch_keys(self, discover: bool) -> KeySet:
        if self._configured_url is None and (discover or self._jwks_url is None):
            self._jwks_url = await self._discover_url()
        assert self._jwks_url is not None
        document = await self._get(self._jwks_url, "key set")
        try:
            return read_keys(document, self._algorithms)
        except ValueError as error:
            raise Fault("malformed", f"its key set {error}") from None

    async def _discover_url(self) -> str:
        """The URL of the keys in the discovery document (OpenID Connect Discovery, 4.1 to 4.3)."""
        document = await self._get(discovery_url(self.name), "discovery document")
        if document.get("issuer") != self.name:
            raise Fault("malformed", "its discovery document names another issuer than --oidc-issuer")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not is_web_address(url):
            raise Fault("malformed", "its discovery document has no http or https jwks_uri")
        if self.name.startswith("https:") and not url.startswith("https:"):
            raise Fault("malformed", "its jwks_uri is not https")
        return url

    async def _get(self, url: str, what: str) -> dict[str, Any]:
        assert self._client is not None
        async with self._client.stream("GET", url) as answer:
            if answer.status_code != 200:
                raise Fault("status", f"the status of its {what} is {answer.status_code}")
            body = bytearray()
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > MAX_ANSWER:
                    raise Fault("malformed", f"its {what} is larger than {MAX_ANSWER} bytes")
        try:
            return read_json(bytes(body))
        except ValueError:
            raise Fault("malformed", f"its {what} is not a JSON object") from None


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def discovery_url(issuer: str) -> str:
    """Return the URL of an issuer's discovery document (OpenID Connect Discovery, 4.1)."""
    return issuer.rstrip("/") + "/.well-known/openid-configuration"


def is_web_address(text: str) -> bool:
    """Return whether `text` is an http or https URL with a host."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return text.startswith(("http://", "https://")) and bool(url.host)
